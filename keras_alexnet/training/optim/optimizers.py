"""Optimisers with PyTorch's arithmetic, on every backend.

Keras' SGD puts the learning rate into its momentum, so that a lower rate acts late, and its weight
decay is decoupled. PyTorch's, which the reports used, does neither.
"""

from typing import Any

from keras_alexnet.core.backend import load_keras, require
from keras_alexnet.core.keras_internals import OptimizerHooks

keras = load_keras()
ops = keras.ops

# torch.optim's, where Keras has 1e-7.
_EPSILON = 1e-8
_LAMB_EPSILON = 1e-6  # of the paper's experiments
_TRUST = 0.001  # LARS' coefficient in the paper


def _constant(number: float, like: Any) -> Any:
    # Not `ops.cast(number, ...)`, which goes by way of float32 on TensorFlow.
    return ops.convert_to_tensor(number, dtype=like.dtype)


class _Coupled(OptimizerHooks):
    """L2 decay in the gradient, behind clipping as in PyTorch, and averages that wait to be asked.

    Keras ends every `fit` by overwriting the weights with their moving average. A run calls it once
    an epoch and goes on from the weights themselves.
    """

    def __init__(self, learning_rate: Any, *, l2: float = 0.0, **arguments: Any) -> None:
        super().__init__(learning_rate, **arguments)  # type: ignore[call-arg]
        self.l2 = l2

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable."""
        if self.l2:
            gradient = gradient + _constant(self.l2, gradient) * ops.cast(variable, gradient.dtype)
        super().update_step(gradient, variable, learning_rate)  # type: ignore[misc]

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Update the variables by the gradients, those of all devices added up before all else.

        Keras adds TensorFlow's up last, behind each device's own clipping and accumulation.
        """
        if keras.backend.backend() == "tensorflow":
            distribute = require("tensorflow").distribute
            context = distribute.get_replica_context()
            if context is not None and context.num_replicas_in_sync > 1:
                grads = context.all_reduce(distribute.ReduceOp.SUM, list(grads))
        super().apply(grads, trainable_variables)  # type: ignore[misc]

    def finalize_variable_values(self, var_list: Any) -> None:
        """Leave the weights alone."""

    def swap_averages(self, variables: Any) -> None:
        """Exchange the weights and their moving averages."""
        own = self.variables  # type: ignore[attr-defined]
        averages = [variable for variable in own if variable.name.endswith("_average")]
        for variable, average in zip(variables, averages, strict=True):
            value = ops.copy(variable.value)
            variable.assign(average.value)
            average.assign(value)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {**super().get_config(), "l2": self.l2}  # type: ignore[misc]


class _Momentum(OptimizerHooks, keras.optimizers.SGD):  # type: ignore[name-defined]
    """`torch.optim.SGD` without decay: v = m v + g, w = w - lr v."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        rate = ops.cast(learning_rate, variable.dtype)
        step = ops.cast(gradient, variable.dtype)
        if self.momentum:
            velocity = self.momentums[self.index_of(variable)]
            momentum = _constant(self.momentum, variable)
            resource = _resource(variable)
            if resource is not None:
                require("tensorflow").raw_ops.ResourceApplyMomentum(
                    var=resource,
                    accum=velocity.value.handle,
                    lr=rate,
                    grad=step,
                    momentum=momentum,
                    use_nesterov=self.nesterov,
                )
                return
            moved = momentum * velocity + step
            self.assign(velocity, moved)
            step = step + momentum * moved if self.nesterov else moved
        self.assign_sub(variable, rate * step)


class SGD(_Coupled, _Momentum):
    """`torch.optim.SGD`: g = g + l2 w; v = m v + g; w = w - lr v, or lr (g + m v) with Nesterov.

    Weights and momentum are updated where they lie in memory: a network such as AlexNet spends a
    quarter of a step of training on it otherwise.

    Args:
        learning_rate: Number or Keras schedule.
        l2: torch's `weight_decay`. Keras' own argument of that name is decoupled decay.
        **arguments: Those of `keras.optimizers.SGD`.
    """

    def update_together(self, gradients: Any, variables: Any, learning_rate: Any) -> bool:
        """Update all variables at once by torch's own SGD, on torch.

        Its fused kernel goes over memory once and takes every tensor as one run of numbers: weight,
        gradient and velocity must lie in the same order.
        """
        if keras.backend.backend() != "torch":
            return False
        weights = [variable.value for variable in variables]
        velocities = None
        if self.momentum:
            velocities = [self.momentums[self.index_of(v)].value for v in variables]
        with require("torch").no_grad():
            gradients = [
                _laid_out_as(weight, gradient.to(weight.dtype))
                for weight, gradient in zip(weights, gradients, strict=True)
            ]
            others = velocities or gradients
            fused = all(w.stride() == o.stride() for w, o in zip(weights, others, strict=True))
            rate = ops.convert_to_tensor(learning_rate)
            require("torch.optim.sgd").sgd(
                weights,
                gradients,
                velocities or [None] * len(weights),
                fused=fused,
                weight_decay=self.l2,
                momentum=self.momentum,
                # A number would have to be fetched from a GPU.
                lr=rate if rate.is_cuda else rate.item(),
                dampening=0.0,
                nesterov=self.nesterov,
                maximize=False,
            )
        return True


class Adam(_Coupled, keras.optimizers.Adam):  # type: ignore[name-defined]
    """`torch.optim.Adam`, whose `weight_decay` is `l2` here."""

    def __init__(self, learning_rate: Any, *, epsilon: float = _EPSILON, **arguments: Any) -> None:
        super().__init__(learning_rate, epsilon=epsilon, **arguments)


class LARS(_Coupled, _Momentum):
    """Layer-wise adaptive rates (You, Gitman, Ginsburg 2017, arXiv:1708.03888), for large batches.

    The step of a kernel is that of `SGD` on (g + l2 w) t |w| / (|g| + l2 |w|) with t = 0.001, so
    that its size is a share of the kernel's own. Biases and what batch norm learns, which have one
    axis, take plain steps without decay, as is usual with large batches.

    Args:
        learning_rate: Number or Keras schedule.
        l2: The paper's weight decay.
        **arguments: Those of `keras.optimizers.SGD`.
    """

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable."""
        if len(variable.shape) > 1:
            weights = ops.cast(variable, gradient.dtype)
            decay = _constant(self.l2, gradient)
            own, slope = _norm(weights), _norm(gradient)
            share = _constant(_TRUST, gradient) * own / (slope + decay * own + _EPSILON)
            gradient = (gradient + decay * weights) * _where_both(own, slope, share)
        # Past `_Coupled`, which would add the decay once more.
        _Momentum.update_step(self, gradient, variable, learning_rate)


class LAMB(_Coupled, OptimizerHooks, keras.optimizers.Optimizer):  # type: ignore[name-defined]
    """Layer-wise adaptive moments (You et al. 2019, arXiv:1904.00962, algorithm 2).

    With Adam's u = m / (sqrt(v) + 1e-6), both corrected for their begin, the step of a kernel is
    lr (u + l2 w) |w| / |u + l2 w|. Biases and what batch norm learns, which have one axis, take
    lr u. `keras.optimizers.Lamb` leaves the decay out of the norm.

    Args:
        learning_rate: Number or Keras schedule.
        l2: The paper's weight decay.
        **arguments: Those of every Keras optimiser.
    """

    def build(self, variables: Any) -> None:
        """Make the moments."""
        if self.built:
            return
        super().build(variables)
        self.means, self.squares = self.add_optimizer_variables(variables, ["mean", "square"])

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable."""
        dtype, place = variable.dtype, self.index_of(variable)
        gradient, rate = ops.cast(gradient, dtype), ops.cast(learning_rate, dtype)
        step = ops.cast(self.iterations + 1, dtype)
        moments = []
        for moment, beta, value in (
            (self.means[place], 0.9, gradient),
            (self.squares[place], 0.999, ops.square(gradient)),
        ):
            decayed = _constant(beta, gradient)
            self.assign(moment, decayed * moment + (1 - decayed) * value)
            moments.append(ops.cast(moment, dtype) / (1 - ops.power(decayed, step)))
        mean, square = moments
        update = mean / (ops.sqrt(square) + _LAMB_EPSILON)
        if len(variable.shape) > 1:
            weights = ops.cast(variable, dtype)
            update = update + _constant(self.l2, gradient) * weights
            own, size = _norm(weights), _norm(update)
            update = update * _where_both(own, size, own / size)
        self.assign_sub(variable, rate * update)


def _norm(values: Any) -> Any:
    return ops.sqrt(ops.sum(ops.square(values)))


def _where_both(first: Any, second: Any, ratio: Any) -> Any:
    """Return a ratio of norms, or 1 where one of them is 0."""
    return ops.where((first > 0) & (second > 0), ratio, ops.ones_like(ratio))


def _resource(variable: Any) -> Any:
    """Return what TensorFlow's operation for momentum takes of a variable.

    There is nothing for the copies of a variable that a distribution strategy keeps, and on other
    backends: None.
    """
    if keras.backend.backend() != "tensorflow" or require("tensorflow").distribute.has_strategy():
        return None
    return getattr(variable, "handle", None)


def _laid_out_as(weight: Any, other: Any) -> Any:
    """Return a tensor of a weight's shape in the order of memory that the weight has."""
    if other.stride() == weight.stride():
        return other
    return require("torch").empty_like(weight, requires_grad=False).copy_(other)


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
        name: `"sgd"`, `"adam"`, `"adamw"`, `"lars"` or `"lamb"`.
        learning_rate: Number or Keras schedule.
        momentum: Of SGD and LARS.
        nesterov: Of SGD and LARS.
        weight_decay: Factor of the weights; decoupled for AdamW.
        decoupled: Whether the others decouple it too, as AdamW does.
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
    optimizer: Any
    if name in ("sgd", "lars"):
        kind = SGD if name == "sgd" else LARS
        optimizer = kind(learning_rate, momentum=momentum, nesterov=nesterov, **common)
    else:
        optimizer = (LAMB if name == "lamb" else Adam)(learning_rate, **common)
    return keras.optimizers.LossScaleOptimizer(optimizer) if loss_scaling else optimizer
