"""The loss of training."""

from typing import Any

from keras_alexnet.backend import load_keras

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
