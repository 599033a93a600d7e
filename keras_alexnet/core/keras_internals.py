"""The one module that names `keras.src` or an underscore of Keras.

Parts of Keras that are not public come and go. `PARTS` says where each one is; whoever asks for one
that is gone goes on without it, as the functions here say: results stay the same, speed may not. A
test asserts that every part is there, another takes each away in turn.
"""

import contextlib
import functools
import importlib
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from operator import attrgetter
from typing import Any, NamedTuple

from keras_alexnet.core.backend import BACKENDS, load_keras


class MissingPartError(LookupError):
    """This Keras lacks a part that is not public; whoever asks has another way."""


def _object(*places: str) -> Callable[[], Any]:
    """Return what finds an object in the first of several places, `module:name`."""

    def find() -> Any:
        for place in places:
            module, _, name = place.partition(":")
            with contextlib.suppress(ImportError, AttributeError):
                return getattr(importlib.import_module(module), name)
        raise MissingPartError(places[0])

    return find


def _attribute(name: str, owner: Callable[[], Any]) -> Callable[[], Any]:
    """Return what finds the getter of an attribute, which such an owner must have."""

    def find() -> Any:
        getattr(owner(), name)
        return attrgetter(name)

    return find


@functools.cache
def _sample() -> Any:
    """Return a functional model, to look for attributes on."""
    keras = load_keras()
    x = keras.Input((1,))
    return keras.Model(x, keras.layers.ReLU()(x))


def _backend_package() -> Any:
    """Return the module whose `convert_to_numpy` Keras looks up whenever it saves a variable."""
    backend = importlib.import_module("keras.src.backend")
    return getattr(backend, "ops", backend)  # since Keras 3.16 in `ops`


PARTS: dict[str, Callable[[], Any]] = {
    "lazy TensorFlow": _object("keras.src.utils.module_utils:tensorflow"),
    "conversion to NumPy": lambda: _backend_package().convert_to_numpy,
    "promotion of float64": _object("keras.src.backend.common.dtypes:BIT64_TO_BIT32_DTYPE"),
    "autocast scope": _object("keras.src.backend.common.variables:AutocastScope"),
    "current autocast scope": _object("keras.src.backend.common.variables:get_autocast_scope"),
    "history of a tensor": _attribute("_keras_history", lambda: _sample().outputs[0]),
    "nodes of an operation": _attribute("_inbound_nodes", lambda: _sample().layers[-1]),
    "nodes of a model": _attribute("_nodes_by_depth", _sample),
    "inputs of a model": _attribute("_standardize_inputs", _sample),
    "context of a call": _attribute("_call_context_args", _sample),
    "state of a call": _object("keras.src.backend.common.global_state:get_global_attribute"),
    "tensor of a variable": _attribute("_value", lambda: load_keras().Variable(0.0)),
    "clearing of losses": _attribute("_clear_losses", _sample),
    "recomputation of a layer": _attribute("_remat_mode", _sample),
    "index of a variable": _attribute("_get_variable_index", lambda: load_keras().optimizers.SGD),
}


# Hook of Keras that a mixin below overrides -> its class, and the backends that ask it.
HOOKS: dict[str, tuple[str, tuple[str, ...]]] = {
    "_backend_update_step": ("keras.optimizers.SGD", BACKENDS),
    "_all_reduce_sum_gradients": ("keras.optimizers.SGD", ("tensorflow",)),
    "_maybe_symbolic_build": ("keras.Model", ("tensorflow",)),
}


@functools.cache
def _part(name: str) -> Any:
    """Return a part, or None where this Keras has it no more."""
    with contextlib.suppress(MissingPartError, ImportError, AttributeError, KeyError):
        return PARTS[name]()
    return None


@functools.cache
def _warn(name: str, consequence: str) -> None:
    """Say once what the lack of a part costs."""
    warnings.warn(
        f"Keras {load_keras().__version__} has no {name} where this package looks for it: "
        f"{consequence}. Results are the same; a newer keras-alexnet may know its new place",
        RuntimeWarning,
        stacklevel=3,
    )


@contextlib.contextmanager
def without_tensorflow() -> Iterator[None]:
    """Within this block, keep Keras on another backend from importing TensorFlow.

    It would do so, for seconds, only to ask whether an object that it saves or loads is one of
    TensorFlow's. None can be while TensorFlow was never imported. Without the part it does so.
    """
    module = _part("lazy TensorFlow")
    unknown = getattr(module, "_available", False) is None
    if not unknown or load_keras().backend.backend() == "tensorflow" or "tensorflow" in sys.modules:
        yield
        return
    module._available = False
    try:
        yield
    finally:
        module._available = None


@contextlib.contextmanager
def reading_variables_by(read: Callable[[Any], Any]) -> Iterator[None]:
    """Within this block, let Keras save what `read` returns of a variable, instead of a copy.

    Without the part, Keras makes its copies.
    """
    stock = _part("conversion to NumPy")
    if stock is None:
        yield
        return
    package, variable = _backend_package(), load_keras().Variable
    package.convert_to_numpy = lambda x: read(x) if isinstance(x, variable) else stock(x)
    try:
        yield
    finally:
        package.convert_to_numpy = stock


@contextlib.contextmanager
def float64_kept() -> Iterator[None]:
    """Within this block, let Keras compute products and batch norm of float64 in float64.

    On torch and JAX it does so in float32, by a table of promotions that has no public switch.

    Raises:
        MissingPartError: The table is gone, and nothing stands for it.
    """
    promotions = _part("promotion of float64")
    if promotions is None or "float64" not in promotions:
        raise MissingPartError(
            f"Keras {load_keras().__version__} has no table of float64's promotions where this "
            "package looks for it, so it cannot be kept from computing in float32"
        )
    lowered = promotions["float64"]
    promotions["float64"] = "float64"
    try:
        yield
    finally:
        promotions["float64"] = lowered


def maker_of(tensor: Any) -> tuple[Any, Any]:
    """Return the operation that makes a Keras tensor, and its node: inputs, outputs, arguments.

    Raises:
        MissingPartError: Keras does not say so any more.
    """
    history, nodes = _part("history of a tensor"), _part("nodes of an operation")
    if history is None or nodes is None:
        raise MissingPartError("history of a tensor, or nodes of an operation")
    operation, index, _ = history(tensor)
    return operation, nodes(operation)[index]


def call_node(node: Any, call: Callable[..., Any], values: Mapping[int, Any], **more: Any) -> Any:
    """Return what a function gives in the place of a node's operation.

    `values` are tensors by the ids of the Keras tensors that the node reads; `more` are arguments
    beside the node's own.
    """
    args, kwargs = node.arguments.fill_in(values)
    return call(*args, **{**kwargs, **more})


def run_node(
    node: Any, call: Callable[..., Any], values: MutableMapping[int, Any], **more: Any
) -> None:
    """Add to `values` what `call_node` returns, by the ids of the node's own outputs."""
    results = load_keras().tree.flatten(call_node(node, call, values, **more))
    values.update(zip(map(id, node.outputs), results, strict=True))


# Attributes by which a layer is called in another way than before, or with other weights.
CALL_ATTRIBUTES = (
    *("activity_regularizer", "built", "call", "lora_enabled"),
    *("_dtype_policy", "_kernel", "_remat_mode"),
)


class GraphParts(NamedTuple):
    """What it takes to compute a functional model node by node, as Keras does."""

    autocast_scope: Any  # context manager: layers read their weights cast to a dtype
    autocast: Callable[[], Any]  # returns the scope that is in force, or None
    nodes: Callable[[Any], list[Any]]  # model -> its nodes but the inputs', as Keras computes them
    standardize: Callable[[Any, Any], list[Any]]  # model and inputs -> tensors
    held: Callable[[list[Any]], list[Any]]  # variables -> the tensors that they keep values in
    stateless: Callable[[], Any]  # returns the scope in force where variables have others, or None


def graph_parts() -> GraphParts | None:
    """Return the parts, or None, with one warning, where one of them is gone."""
    scope, autocast = _part("autocast scope"), _part("current autocast scope")
    nodes, standardize = _part("nodes of a model"), _part("inputs of a model")
    tensor, state = _part("tensor of a variable"), _part("state of a call")
    parts = scope, autocast, nodes, standardize, tensor, state
    if any(part is None for part in parts):
        _warn("graph of a functional model", "models compute by Keras' own calls, more slowly")
        return None

    def in_order(model: Any) -> list[Any]:
        by_depth = nodes(model)
        return [
            node
            for depth in sorted(by_depth, reverse=True)
            for node in by_depth[depth]
            if node.operation and not node.is_input
        ]

    return GraphParts(
        scope,
        autocast,
        in_order,
        lambda model, x: standardize(model)(x),
        lambda variables: list(map(tensor, variables)),
        lambda: state("stateless_scope"),
    )


def spare_clearing(model: Any) -> None:
    """Let a model of plain layers have its losses cleared only where a layer has added one.

    Keras clears those of every layer at each call, which takes as long as ten small layers do.
    Without the parts it goes on so.
    """
    clear, state = _part("clearing of losses"), _part("state of a call")
    if clear is None or state is None:
        return
    try:
        inner = [layer._layers for layer in model.layers]
        kept = [x for owner in (model, *model.layers) for x in (owner._losses, owner._loss_ids)]
    except AttributeError:
        return
    count = len(model._layers)

    def clear_losses() -> None:
        more = len(model._layers) != count or any(inner) or any(kept)
        if more or state("stateless_scope") is not None:
            type(model)._clear_losses(model)

    model._clear_losses = clear_losses


def warn_of_stock_layers(name: str) -> None:
    """Say once that a model is computed by Keras as it is, where it was to be optimized."""
    _warn("history of a tensor", f"{name} is computed as it is, not optimized")


def takes_phase(layer: Any) -> bool:
    """Return whether a layer's call can be told that it is training."""
    if _part("context of a call") is not None:
        return "training" in getattr(layer, "_call_context_args", ())
    return "training" in inspect.signature(layer.call).parameters


def is_training() -> bool:
    """Return whether the call of a layer or a model that is under way is one of training.

    Without the part nobody knows, and none is.
    """
    state = _part("state of a call")
    return bool(state and getattr(state("current_call_ctx"), "training", None))


def is_recomputed(layer: Any) -> bool:
    """Return whether a layer computes its output again for the gradient."""
    return getattr(layer, "_remat_mode", None) is not None


def has_mask(tensor: Any) -> bool:
    """Return whether a tensor has a Keras mask."""
    return getattr(tensor, "_keras_mask", None) is not None


class OptimizerHooks:
    """Mixin of optimisers: Keras' hooks by names of our own.

    Where Keras asks them no more, its own update does the work, by `update_step`.
    """

    def update_together(self, gradients: Any, variables: Any, learning_rate: Any) -> bool:
        """Update all variables at once, or return False and leave them to `update_step`."""
        return False

    def _backend_update_step(self, grads: Any, trainable_variables: Any, learning_rate: Any) -> Any:
        if not self.update_together(grads, trainable_variables, learning_rate):
            super()._backend_update_step(  # type: ignore[misc]
                grads, trainable_variables, learning_rate
            )

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        return grads_and_vars  # `apply` has added them up already

    def index_of(self, variable: Any) -> int:
        """Return the number of a variable among those that the optimiser was built for."""
        if _part("index of a variable") is not None:
            return self._get_variable_index(variable)  # type: ignore[attr-defined]
        own = enumerate(self.__dict__["built_for"])
        return next(i for i, v in own if v is variable or v.value is variable)

    def build(self, variables: Any) -> None:
        """Make the optimiser's own variables for those of a model."""
        self.__dict__["built_for"] = tuple(variables)  # past Keras, which would track it
        super().build(variables)  # type: ignore[misc]


class StepHooks:
    """Mixin of models: Keras does not build metrics from a first batch, which it would lose.

    For models whose metrics exist already. Where Keras asks this no more, `fit` may begin with the
    second batch.
    """

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        pass
