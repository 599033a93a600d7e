"""The loss of training, and what is reported of an epoch."""

from typing import Any

from keras_alexnet.core.backend import load_keras

keras = load_keras()
ops = keras.ops


class CrossEntropy(keras.losses.Loss):  # type: ignore[name-defined]
    """`torch.nn.CrossEntropyLoss` of class indices (N,) and logits (N, classes), in nats.

    Args:
        label_smoothing: Share of the target that is spread evenly over all classes.
    """

    def __init__(self, label_smoothing: float = 0.0, *, name: str = "cross_entropy") -> None:
        super().__init__(name=name)
        self.label_smoothing = label_smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each example, (N,)."""
        classes = y_pred.shape[-1]
        targets = ops.one_hot(ops.reshape(ops.cast(y_true, "int32"), (-1,)), classes)
        targets = (1.0 - self.label_smoothing) * targets + self.label_smoothing / classes
        return -ops.sum(ops.cast(targets, y_pred.dtype) * ops.log_softmax(y_pred), axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {"label_smoothing": self.label_smoothing, "name": self.name}


class ExampleLoss(keras.metrics.Mean):  # type: ignore[name-defined]
    """Mean loss of the examples. Their weights say which of them count, see `data.shards`.

    Keras' own mean takes every batch for as large as it is, with the examples that fill it up.

    Args:
        loss: Computes the loss of each example.
    """

    def __init__(self, loss: CrossEntropy, *, name: str) -> None:
        super().__init__(name=name)
        self._loss = loss

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Take a batch into the mean."""
        super().update_state(self._loss.call(y_true, y_pred), _counts(sample_weight))


class Accuracy(keras.metrics.SparseCategoricalAccuracy):  # type: ignore[name-defined]
    """Share of the examples whose best class is right. Weights say which of them count."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Count a batch."""
        super().update_state(y_true, y_pred, _counts(sample_weight))


def _counts(weights: Any) -> Any:
    return None if weights is None else ops.cast(ops.not_equal(weights, 0), "float32")
