"""Child process: the same steps of SGD as torch's, by Keras' own training on one backend.

The model is compiled with this package's loss and optimiser and fed by `train_on_batch`. Writes a
`history.History`.
"""

import math
from typing import Any

import numpy as np

from keras_alexnet.core.backend import load_keras, require
from keras_alexnet.core.children import enter_child, report_progress
from keras_alexnet.core.memory import as_array
from keras_alexnet.models.interface import named_outputs
from keras_alexnet.specs import find_spec
from keras_alexnet.specs.shared import AUX_LOSS_WEIGHT
from porting.checkpoints.files import read_checkpoint
from porting.checks.gradients import half_squares
from porting.checks.precision import computing_in, full_precision
from porting.graph.builder import build
from porting.graph.plan import Plan
from porting.torch_side.reference_nets import Reference
from porting.training_checks.history import History, read_batches, sample
from porting.weights.counterpart import Counterpart
from porting.weights.layouts import as_model_input
from porting.weights.recognition import variables_of
from porting.weights.transfer import fill, load_state_dict, unfilled_model


def main(job: dict[str, Any]) -> None:
    """Run one backend's part of a training check."""
    backend = load_keras().backend.backend()
    full_precision(backend)
    if backend == "jax":
        # Compiled once and run a few times: the compiler's optimisation would take most of it.
        require("jax").config.update("jax_disable_most_optimizations", True)
    inputs, labels = read_batches(job["batches"])
    with computing_in(backend, job["precision"]):
        model = _model(job)
        trainer = _compiled(model, job)
        weights = _Weights(model, job)
        history = History()
        for *batch, classes in zip(*inputs, labels, strict=True):
            report_progress("step")
            targets = {
                name: classes % y.shape[1] if _are_scores(y) else classes
                for name, y in trainer.output.items()
            }
            given = as_model_input(batch, "channels_last", job["precision"])
            logs = trainer.train_on_batch(given, targets, return_dict=True)
            history.record(float(logs["loss"]), weights.samples())
        history.save(job["output"], weights.state_dict(), ("keras", backend))


def _model(job: dict[str, Any]) -> Any:
    """Return the model with the weights of the check, dropout off."""
    arrays = read_checkpoint(job["weights"]).arrays
    if job["plan"] is not None:
        built = build(Plan.load(job["plan"]), "channels_last", job["precision"])
        model = built.model
        fill(variables_of(model), built.counterpart, arrays)
    else:
        wanted = Reference.from_json(job["reference"])
        spec = find_spec(wanted.model)
        model = unfilled_model(
            spec,
            classes=wanted.classes,
            aux_heads=wanted.aux_heads,
            input_shape=(*(wanted.size or spec.default_size), spec.channels),
            data_format="channels_last",
            dtype=job["precision"],
        )
        load_state_dict(model, arrays)
    for layer in model.layers:
        if isinstance(layer, load_keras().layers.Dropout):
            layer.rate = 0.0
    return model


def _compiled(model: Any, job: dict[str, Any]) -> Any:
    """Return a model from its inputs to a dict of outputs, ready to be trained."""
    from keras_alexnet.training.optim.losses import CrossEntropy
    from keras_alexnet.training.optim.optimizers import SGD

    keras = load_keras()
    trainer = keras.Model(model.input, named_outputs(model.output))
    trainer.compile(
        optimizer=SGD(job["learning_rate"], momentum=job["momentum"], l2=job["weight_decay"]),
        loss={
            name: CrossEntropy() if _are_scores(y) else _half_squares
            for name, y in trainer.output.items()
        },
        loss_weights={
            name: 1.0 if name == "logits" else AUX_LOSS_WEIGHT for name in trainer.output
        },
        # XLA where JAX needs it; on a CPU it slows TensorFlow's training down.
        jit_compile=keras.backend.backend() == "jax",
    )
    return trainer


def _are_scores(output: Any) -> bool:
    return len(output.shape) == 2


def _half_squares(_: Any, output: Any) -> Any:
    return half_squares(output)


class _Weights:
    """The variables of a model as a state_dict, and samples of it."""

    def __init__(self, model: Any, job: dict[str, Any]) -> None:
        variables = variables_of(model)
        puts = Counterpart.from_json(job["counterpart"]).puts
        self._variables = {put: variables[put.variable] for put in puts}
        # Where the samples lie in a variable: to change its layout at every step takes longer.
        self._positions = {}
        for put, variable in self._variables.items():
            indices = np.arange(math.prod(variable.shape), dtype=np.int32)
            self._positions[put.key] = sample(put.to_torch(indices.reshape(variable.shape)))

    def samples(self) -> dict[str, np.ndarray]:
        """Return key -> sample."""
        return {
            put.key: as_array(variable).ravel()[self._positions[put.key]]
            for put, variable in self._variables.items()
        }

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return key -> value, as torch lays it out."""
        return {put.key: put.to_torch(as_array(v)) for put, v in self._variables.items()}


if __name__ == "__main__":
    enter_child(main)
