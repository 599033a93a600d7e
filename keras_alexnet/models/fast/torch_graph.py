"""Functional models on PyTorch without what Keras does between layers.

Keras keeps every layer's output until a model's call ends, and spends as long on a small layer's
`__call__` as torch on what it computes. A quickened model calls the layers' own `call`, forgets an
output behind its last reader, and computes some neighbours in one operation: an activation in the
memory of its input, and zero padding within the convolution or the pooling that reads it.

What it asks of the layers, it asks once: which of them are as it needs them, and which operation
computes them. It does so anew when one of the attributes that decide this, a hook or a weight's
tensor is another one. No values of weights are kept.
"""

import contextlib
from collections.abc import Collection, Iterable, Iterator
from functools import cache, partial
from itertools import chain
from operator import attrgetter, is_
from typing import Any

from keras_alexnet.core import backend
from keras_alexnet.core.keras_internals import (
    CALL_ATTRIBUTES,
    GraphParts,
    MissingPartError,
    graph_parts,
    has_mask,
    is_recomputed,
    maker_of,
    run_node,
    spare_clearing,
    takes_phase,
)
from keras_alexnet.models.fast.torch_fusion import Fusion, calls_as_we_do, fuse
from keras_alexnet.models.fast.torch_layers import COMPUTATIONS, Compute

keras = backend.load_keras()
torch = backend.require("torch")

layers = keras.layers
_input = keras.Input((1,))
_FUNCTIONAL = type(keras.Model(_input, _input))

# Stock layers whose `call` needs nothing that `__call__` adds, but `training` for two of them.
_BARE = {
    layers.Activation,
    layers.Add,
    layers.AdaptiveAveragePooling2D,
    layers.AveragePooling2D,
    layers.BatchNormalization,
    layers.Concatenate,
    layers.Conv2D,
    layers.Dense,
    layers.DepthwiseConv2D,
    layers.Dropout,
    layers.Flatten,
    layers.GlobalAveragePooling2D,
    layers.MaxPooling2D,
    layers.ReLU,
    layers.ZeroPadding2D,
}
_BY_PHASE = {layers.BatchNormalization, layers.Dropout}
# How many axes their inputs must have to be covered, where that is not four; None is any number.
_RANKS = {layers.Add: None, layers.Concatenate: None, layers.Dense: 2, layers.Dropout: None}
_CONVOLUTION = "activation", "bias", "data_format", "dilation_rate", "kernel_size", "padding"
_POOLING = "data_format", "padding", "pool_size", "strides"
# Attributes of layers that are read where it is decided how they are computed, beside those that
# decide how Keras calls any layer.
_SETTINGS = {
    layers.Activation: ("activation",),
    layers.AdaptiveAveragePooling2D: ("data_format", "output_size"),
    layers.AveragePooling2D: _POOLING,
    layers.BatchNormalization: (
        *("axis", "beta", "center", "gamma", "moving_mean", "moving_variance", "renorm", "scale"),
        "synchronized",
    ),
    layers.Conv2D: (*_CONVOLUTION, "groups", "strides", "use_bias"),
    layers.Dense: ("bias",),
    layers.DepthwiseConv2D: (*_CONVOLUTION, "kernel", "strides", "use_bias"),
    layers.Flatten: ("data_format",),
    layers.GlobalAveragePooling2D: ("data_format",),
    layers.MaxPooling2D: _POOLING,
    layers.ReLU: ("max_value", "negative_slope", "threshold"),
    layers.ZeroPadding2D: ("data_format", "padding"),
}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_DTYPE = attrgetter("dtype")


def quicken_model(model: Any) -> None:
    """Let a functional model compute its graph without Keras' work between layers.

    The model's `call` is replaced, on this object alone. Layers that are none of the stock ones
    known here, or that have hooks, a quantisation, an activity regulariser, or an input that is
    masked or of another dtype than theirs, are called as Keras calls them. Other models are left
    alone, and so are layers.
    """
    if type(model) is _FUNCTIONAL and (parts := graph_parts()) is not None:
        model.call = _Graph(model, parts).call
        spare_clearing(model)


@contextlib.contextmanager
def forgetting(model: Any) -> Iterator[None]:
    """Within this block, let a functional model forget an output behind its last reader.

    Every layer is called as Keras calls it.
    """
    if type(model) is not _FUNCTIONAL or (parts := graph_parts()) is None:
        yield
        return
    model.call = _Graph(model, parts, bare=frozenset()).call
    try:
        yield
    finally:
        del model.call


class _Graph:
    """The operations of a functional model, found at its first call.

    They are found again where a layer is no longer as it was then.
    """

    def __init__(self, model: Any, parts: GraphParts, bare: Collection[type] = _BARE) -> None:
        self.model, self.parts, self.bare = model, parts, bare
        self.layers = [layer for layer in model.layers if type(layer) in bare]
        self.steps: list[_Step] | None = None
        self.watched = [
            (vars(layer), (*CALL_ATTRIBUTES, *_SETTINGS.get(type(layer), ())))
            for layer in self.layers
        ]
        self.hooks = [vars(layer)[kind] for layer in self.layers for kind in _HOOKS]
        self.state: list[Any] = []
        self.variables: list[Any] = []
        self.tensors: list[Any] = []
        self.dtypes: list[Any] = []

    def call(self, inputs: Any, training: Any = None, mask: Any = None, **kwargs: Any) -> Any:
        """Compute the model, as its class's `call` does."""
        model = self.model
        given = [None]
        if mask is None and not kwargs and self.parts.autocast() is None:
            given = self.parts.standardize(model, inputs)
        expected = zip(given, model.inputs, strict=False)
        if _any_module_is_watched() or not all(_fits(tensor, x) for tensor, x in expected):
            return type(model).call(model, inputs, training=training, mask=mask, **kwargs)
        if self.steps is None or not self._is_as_it_was():
            self.steps = self._found()
        own = self._computes_with_its_own()
        values = {id(x): value for x, value in zip(model.inputs, given, strict=True)}
        del given, inputs  # so that they can be forgotten too
        for step in self.steps:
            step.run(values, training, own=own)
        outputs = [values[id(x)] for x in model.outputs]
        packed = keras.tree.pack_sequence_as(model.output, outputs)
        return packed[0] if isinstance(packed, list | tuple) and len(packed) == 1 else packed

    def _found(self) -> list["_Step"]:
        """Return what the model computes, and note the state that it is true of."""
        self.state = self._state()
        self.variables = [v for layer in self.layers for v in layer.variables]
        self.tensors = self.parts.held(self.variables)
        self.dtypes = list(map(_DTYPE, self.tensors))
        return _steps(self.model, self.parts, self.bare)

    def _state(self) -> list[Any]:
        """Return the attributes that the steps depend on, and for all hooks whether there are any.

        Only these: a model has ten thousand others, and to look at all takes a millisecond.
        """
        values = chain.from_iterable(map(state.get, names) for state, names in self.watched)
        return [*map(bool, self.hooks), *values]

    def _is_as_it_was(self) -> bool:
        """Return whether every layer has the same settings, hooks, and tensors as weights."""
        return (
            _are_same(self._state(), self.state)
            and _are_same(self.parts.held(self.variables), self.tensors)
            and _are_same(map(_DTYPE, self.tensors), self.dtypes)
        )

    def _computes_with_its_own(self) -> bool:
        """Return whether weights are what the variables hold, where they are.

        Within a stateless scope they are others, and within one of another device copies.
        """
        if self.parts.stateless() is not None:
            return False
        first = zip(self.variables[:1], self.tensors[:1], strict=True)
        return all(keras.ops.convert_to_tensor(v) is tensor for v, tensor in first)


class _Step:
    """One node of a graph, or several neighbours that one operation computes."""

    def __init__(
        self,
        nodes: tuple[Any, ...],
        fusion: Fusion | None,
        forget: list[int],
        autocast_scope: Any,
        bare: Collection[type],
    ) -> None:
        self.nodes, self.fusion, self.forget = nodes, fusion, forget
        self.layers = [node.operation for node in nodes]
        self.reads = [id(x) for x in nodes[0].input_tensors]
        self.output = id(nodes[-1].outputs[0])
        self.of_list = bool(nodes[0].arguments.args) and isinstance(
            nodes[0].arguments.args[0], list | tuple
        )
        first = self.layers[0]
        # Operations that are no layers have no dtype.
        known = all(type(layer) in bare for layer in self.layers)
        dtype = str(first.compute_dtype) if known else ""
        self.bare = known and all(_is_bare(layer, dtype) for layer in self.layers)
        self.dtype = getattr(torch, dtype) if self.bare else None
        # In mixed precision Keras has the weights cast wherever a layer reads them.
        mixed = self.bare and any(layer.variable_dtype != dtype for layer in self.layers)
        self.scope = partial(autocast_scope, dtype) if mixed else None
        own = COMPUTATIONS.get(type(first))
        make = fusion or (own and partial(own, first))
        self.make = make if self.bare and _are_covered(nodes) else None
        if bare and (operation := _plain_operation(nodes)) is not None:
            self.bare, self.of_list = True, True
            self.dtype = getattr(torch, nodes[0].outputs[0].dtype)
            self.make = partial(_on_list, operation)
        self.made: tuple[Compute | None] | None = None

    def run(self, values: dict[int, Any], training: Any, *, own: bool) -> None:
        """Compute the nodes' outputs, and forget the values that nobody reads after them.

        `own` says whether weights are what the variables hold, which can be read without asking.
        """
        inputs = [values[key] for key in self.reads]
        bare = self.bare
        for x in inputs:
            bare = bare and _is_plain(x, self.dtype)
        if not bare:
            for node in self.nodes:
                self._run_alone(node, values, training)
        elif self.scope is None:
            self._compute(inputs, values, training, own=own)
        else:
            with self.scope():
                self._compute(inputs, values, training, own=own)
        for key in self.forget:
            values.pop(key, None)

    def _run_alone(self, node: Any, values: dict[int, Any], training: Any) -> None:
        """Compute one node's output, whose input need not be as the step's layers take it."""
        bare = self.bare and all(_is_plain(values[id(x)], self.dtype) for x in node.input_tensors)
        with contextlib.nullcontext() if self.scope is None or not bare else self.scope():
            _run_node(node, values, training, bare=bare)

    def _compute(self, inputs: Any, values: dict[int, Any], training: Any, *, own: bool) -> None:
        """Compute layers' outputs by their operation, or one after the other."""
        compute = self._computation(own)
        if compute is not None:
            values[self.output] = compute(inputs if self.of_list else inputs[0], training)
            return
        for node in self.nodes:
            _run_node(node, values, training, bare=True)

    def _computation(self, own: bool) -> Compute | None:
        """Return the operation that computes the step, if there is one.

        It is kept where it reads the same tensors every time.
        """
        if self.make is None:
            return None
        if not own or self.scope is not None:
            return self.make()
        if self.made is None:
            self.made = (self.make(),)
        return self.made[0]


def _run_node(node: Any, values: dict[int, Any], training: Any, *, bare: bool) -> None:
    layer = node.operation
    told = training is not None and (type(layer) in _BY_PHASE if bare else takes_phase(layer))
    phase = {"training": training} if told else {}
    run_node(node, layer.call if bare else layer, values, **phase)


def _is_bare(layer: Any, dtype: str) -> bool:
    """Return whether a stock layer's `call` does all that its `__call__` would, in a dtype."""
    state = vars(layer)
    return (
        layer.built
        and calls_as_we_do(layer)
        and layer.compute_dtype == dtype
        and not any(state[hooks] for hooks in _HOOKS)
        and type(layer.dtype_policy) is not keras.dtype_policies.DTypePolicyMap
        and getattr(layer, "quantization_mode", None) is None
        and not getattr(layer, "lora_enabled", False)
        and not is_recomputed(layer)
        and layer.activity_regularizer is None
    )


def _are_covered(nodes: tuple[Any, ...]) -> bool:
    """Return whether layers' nodes read what `COMPUTATIONS` take, and nothing but that."""
    layer = nodes[0].operation
    rank = _RANKS.get(type(layer), 4)
    return (
        all(len(node.arguments.args) == 1 for node in nodes)
        and all(v is None or v is False for node in nodes for v in node.arguments.kwargs.values())
        and all(rank in (None, len(x.shape)) for x in nodes[0].input_tensors)
        and getattr(torch, layer.compute_dtype).is_floating_point
    )


def _plain_operation(nodes: tuple[Any, ...]) -> Any:
    """Return torch's operation for a node that is no layer's, of tensors alone, or None."""
    node = nodes[0]
    operation = _operations().get(type(node.operation))
    alone = len(node.arguments.args) == len(node.input_tensors) and not node.arguments.kwargs
    if operation is None or not alone:
        return None
    return operation if getattr(torch, node.outputs[0].dtype).is_floating_point else None


@cache
def _operations() -> dict[type, Any]:
    """Return the classes of Keras' own operations, which have no public names, with torch's."""
    x = keras.Input((1,))
    pairs = ((keras.ops.multiply, torch.mul), (keras.ops.add, torch.add))
    with contextlib.suppress(MissingPartError):
        return {type(maker_of(ours(x, x))[0]): theirs for ours, theirs in pairs}
    return {}


def _on_list(operation: Any) -> Compute:
    return lambda inputs, training=None: operation(*inputs)


def _is_plain(tensor: Any, dtype: Any) -> bool:
    """Return whether a tensor has values, in a dtype, and no Keras mask."""
    return _has_values(tensor) and tensor.dtype is dtype and not has_mask(tensor)


def _are_same(ones: Iterable[Any], others: list[Any]) -> bool:
    """Return whether objects are the same ones, in order."""
    ones = list(ones)
    return len(ones) == len(others) and all(map(is_, ones, others))


def _fits(tensor: Any, expected: Any) -> bool:
    """Return whether an input is what a model was made for; else Keras says what is wrong."""
    return (
        _has_values(tensor)
        and tensor.ndim == len(expected.shape)
        and all(n is None or n == m for n, m in zip(expected.shape, tensor.shape, strict=True))
    )


def _any_module_is_watched() -> bool:
    """Return whether torch calls hooks for every module, which only Keras' own calls pass."""
    modules = torch.nn.modules.module
    return any(
        getattr(modules, f"_global_{hooks}", None)
        for hooks in ("forward_hooks", "forward_pre_hooks", "backward_hooks", "backward_pre_hooks")
    )


def _has_values(tensor: Any) -> bool:
    return isinstance(tensor, torch.Tensor) and not tensor.is_meta


def _steps(model: Any, parts: GraphParts, bare: Collection[type]) -> list[_Step]:
    """Return what a model computes, in Keras' order; layers that are `bare` by their own `call`."""
    nodes = parts.nodes(model)
    groups = fuse(nodes, model.outputs) if bare else [((node,), None) for node in nodes]
    last = {id(x): i for i, (group, _) in enumerate(groups) for n in group for x in n.input_tensors}
    forget: list[list[int]] = [[] for _ in groups]
    for key in last.keys() - {id(x) for x in model.outputs}:
        forget[last[key]].append(key)
    scope = parts.autocast_scope
    return [_Step(*group, keys, scope, bare) for group, keys in zip(groups, forget, strict=True)]
