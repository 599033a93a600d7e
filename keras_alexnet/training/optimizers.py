"""Optimisers with PyTorch's arithmetic, on every backend.

Keras' SGD puts the learning rate into its momentum, so that a lower rate acts late, and its weight
decay is decoupled. PyTorch's, which the reports used, does neither.
"""

from typing import Any

from keras_alexnet.backend import load_keras

keras = load_keras()
ops = keras.ops

# torch.optim's, where Keras has 1e-7.
_EPSILON = 1e-8


def _constant(number: float, like: Any) -> Any:
    # Not `ops.cast(number, ...)`, which goes by way of float32 on TensorFlow.
    return ops.convert_to_tensor(number, dtype=like.dtype)


class _Coupled:
    """L2 decay in the gradient, behind clipping as in PyTorch, and averages that wait to be asked.

    Keras ends every `fit` by overwriting the weights with their moving average. A run calls it once
    an epoch and goes on from the weights themselves.
    """

    l2: float
    trainable_averages: Any

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable."""
        if self.l2:
            gradient = gradient + _constant(self.l2, gradient) * ops.cast(variable, gradient.dtype)
        super().update_step(gradient, variable, learning_rate)  # type: ignore[misc]

    def finalize_variable_values(self, var_list: Any) -> None:
        """Leave the weights alone."""

    def swap_averages(self, variables: Any) -> None:
        """Exchange the weights and their moving averages."""
        for variable, average in zip(
            variables,
            self._model_variables_moving_average,  # type: ignore[attr-defined]
            strict=True,
        ):
            value = ops.copy(variable.value)
            variable.assign(average.value)
            average.assign(value)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {**super().get_config(), "l2": self.l2}  # type: ignore[misc]


class _Momentum(keras.optimizers.SGD):  # type: ignore[name-defined]
    """`torch.optim.SGD` without decay: v = m v + g, w = w - lr v."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        rate = ops.cast(learning_rate, variable.dtype)
        step = ops.cast(gradient, variable.dtype)
        if self.momentum:
            velocity = self.momentums[self._get_variable_index(variable)]
            momentum = _constant(self.momentum, variable)
            moved = momentum * velocity + step
            self.assign(velocity, moved)
            step = step + momentum * moved if self.nesterov else moved
        self.assign_sub(variable, rate * step)


class SGD(_Coupled, _Momentum):
    """`torch.optim.SGD`: g = g + l2 w; v = m v + g; w = w - lr v, or lr (g + m v) with Nesterov.

    Args:
        learning_rate: Number or Keras schedule.
        l2: torch's `weight_decay`. Keras' own argument of that name is decoupled decay.
        **arguments: Those of `keras.optimizers.SGD`.
    """

    def __init__(self, learning_rate: Any = 0.01, *, l2: float = 0.0, **arguments: Any) -> None:
        super().__init__(learning_rate, **arguments)
        self.l2 = l2


class Adam(_Coupled, keras.optimizers.Adam):  # type: ignore[name-defined]
    """`torch.optim.Adam`, whose `weight_decay` is `l2` here."""

    def __init__(
        self,
        learning_rate: Any = 0.001,
        *,
        l2: float = 0.0,
        epsilon: float = _EPSILON,
        **arguments: Any,
    ) -> None:
        super().__init__(learning_rate, epsilon=epsilon, **arguments)
        self.l2 = l2


def create_optimizer(
    name: str,
    learning_rate: Any,
    *,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    clip_norm: float = 0.0,
    accumulate: int = 1,
    ema: float = 0.0,
    loss_scaling: bool = False,
) -> Any:
    """Return an optimiser.

    Args:
        name: `"sgd"`, `"adam"` or `"adamw"`.
        learning_rate: Number or Keras schedule.
        momentum: Of SGD.
        nesterov: Of SGD.
        weight_decay: Factor of the weights; decoupled for AdamW.
        decoupled: Whether SGD and Adam decouple it too, as AdamW does.
        clip_norm: Norm that all gradients together are clipped to; 0 for none.
        accumulate: Batches whose gradients are averaged for one update.
        ema: Momentum of the moving average of the weights; 0 for none.
        loss_scaling: Whether the loss is scaled so that float16 gradients neither vanish nor
            overflow.
    """
    decoupled = decoupled or name == "adamw"
    common: dict[str, Any] = {
        "global_clipnorm": clip_norm or None,
        "gradient_accumulation_steps": accumulate if accumulate > 1 else None,
        "use_ema": bool(ema),
        "ema_momentum": ema or 0.99,
        "l2": 0.0 if decoupled else weight_decay,
        "weight_decay": weight_decay or None if decoupled else None,
    }
    if name == "sgd":
        optimizer: Any = SGD(learning_rate, momentum=momentum, nesterov=nesterov, **common)
    else:
        optimizer = Adam(learning_rate, **common)
    return keras.optimizers.LossScaleOptimizer(optimizer) if loss_scaling else optimizer
