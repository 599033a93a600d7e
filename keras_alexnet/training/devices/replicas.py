"""The model of a run, and what the devices train: the same one, or a copy on each of them."""

from typing import Any

from keras_alexnet.data.batches.training import TrainingBatches
from keras_alexnet.models.initialization import weights_will_follow
from keras_alexnet.models.weights import copy_values
from keras_alexnet.training.devices.group import Group
from keras_alexnet.training.experiment import Experiment
from keras_alexnet.training.network import build_network, training_model
from keras_alexnet.training.preparation import Prepared


class Replicas:
    """A model that is evaluated and saved by one device, and trained by all of a group.

    Attributes:
        model: The model, with the weights that training starts from; up to date behind `refresh`.
        network: What is trained: the model itself, or where the engine keeps variables of its own
            a copy.
        trainer: The network behind its augmentation, which `fit` belongs to.
    """

    def __init__(
        self,
        model: Any,
        experiment: Experiment,
        prepared: Prepared,
        batches: TrainingBatches,
        group: Group,
    ) -> None:
        self.model = self.network = model
        with group.scope():
            if group.copies_model:
                with weights_will_follow():
                    self.network = build_network(
                        experiment, len(prepared.data.classes), prepared.preprocessing
                    )
                # With the seeds of dropout, which are no weights.
                copy_values(model.variables, self.network.variables)
            self.trainer = training_model(
                self.network,
                experiment,
                batches.inputs,
                size=prepared.preprocessing.crop_size,
                pca=prepared.pca,
                make=group.trained_model,
            )

    def refresh(self) -> None:
        """Give the model the weights that the devices have by now."""
        if self.network is not self.model:
            copy_values(self.network.weights, self.model.weights)
