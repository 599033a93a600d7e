"""A torch module as a plan: `torch.export` follows it once, nothing of it is left to guess.

The training IR is read: convolutions, norms, dropout and attention stay whole. What does not depend
on the image is computed here, in torch.
"""

from collections import Counter
from typing import Any

import numpy as np

from keras_alexnet.core.backend import require
from porting.errors import GraphError
from porting.graph.exporting import export, is_in_place, name_of, own_line
from porting.graph.ops import RULES
from porting.graph.ops.resizing import RESIZINGS
from porting.graph.plan import Dim, ModuleOutput, Node, Parameter, Plan, Ref, Shape, references
from porting.graph.probing import probed
from porting.torch_side.reference_nets import DROP_PATHS, named_results

# Buffers that are a norm's statistics: weights of the Keras model.
_STATISTICS = ("running_mean", "running_var")
# Operations on lengths, and what torch asserts of them.
_SYMBOLIC = ("sym_", "_assert")
# Operations whose result has nothing of their input but its dtype: the same number everywhere, so
# that one image's stands for all, and others.
_FILL = {
    *("full", "ones", "scalar_tensor", "zeros", "full_like", "ones_like", "zeros_like"),
    *("new_full", "new_ones", "new_zeros"),
}
_MAKE_ANEW = {*_FILL, "arange", "empty", "eye", "linspace", "empty_like", "new_empty"}
_MOST_LISTED = 8
_BATCH, _LENGTHS = "batch", ("channels", "height", "width")


def read(module: Any, *examples: Any, any_size: bool = False) -> Plan:
    """Return a torch module in inference mode as a plan.

    Args:
        module: A `torch.nn.Module` that returns logits, or a dict or a tuple of tensors.
        *examples: What it is called with: images (N, C, H, W), and what else it reads of each of
            them, such as (N, features); float, N > 1. The plan takes any number of images.
        any_size: Whether the plan takes any height and width, too.

    Raises:
        GraphError: It cannot be exported, or has operations that have no counterpart here.
    """
    program = export(module, examples, any_size=any_size)
    with require("torch").no_grad():
        return _Reader(module, program).plan()


class _Reader:
    """Reads one exported program."""

    def __init__(self, module: Any, program: Any) -> None:
        self.torch = require("torch")
        self.module = module
        self.program = program
        self.known: dict[str, Any] = {}  # name -> tensor that does not depend on the image
        self.parameters: dict[str, Parameter] = {}
        self.nodes: list[Node] = []
        self.renamed: dict[str, str] = {}  # what an operation in place has made of a value
        self.inputs: dict[str, Shape] = {}
        self.symbols: dict[Any, str] = {}
        self.modules = dict(module.named_modules())
        self.notes: list[str] = []
        self.aliases: dict[str, str] = {}  # keys of a parameter that has another one

    def plan(self) -> Plan:
        """Read every node."""
        graph = self.program.graph
        signature = self.program.graph_signature
        self._placeholders(graph, signature)
        unknown: dict[str, str] = {}
        for node in graph.nodes:
            if node.op == "call_function" and (op := self._call(node)):
                unknown.setdefault(op, Node("", op, {}, (), self._path(node), _source(node)).place)
        if unknown:
            lines = [f"  {op} in {place}" for op, place in list(unknown.items())[:_MOST_LISTED]]
            more = len(unknown) - _MOST_LISTED
            raise GraphError(
                "\n".join(
                    [
                        f"{type(self.module).__name__} has operations without a counterpart here:",
                        *lines,
                        *([f"  and {more} more"] if more > 0 else []),
                    ]
                )
            )
        outputs = self._outputs(graph)
        used = {name for node in self.nodes for name in references(node.arguments)}
        self._note_attention()
        self._note_repeated_norms()
        return Plan(
            title=type(self.module).__name__,
            inputs=self.inputs,
            nodes=tuple(self.nodes),
            parameters={n: p for n, p in self.parameters.items() if n in used},
            constants={
                name: _array(value)
                for name, value in self.known.items()
                if name in used and self.torch.is_tensor(value)
            },
            outputs=outputs,
            modules=self._module_outputs(graph),
            keys=tuple(self.module.state_dict()),
            aliases=self.aliases,
            notes=tuple(self.notes),
        )

    def _placeholders(self, graph: Any, signature: Any) -> None:
        keys = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        constants = signature.inputs_to_lifted_tensor_constants
        # The export's own copies of some tensors are detached; what trains is asked of the module.
        own = dict(self.module.named_parameters(remove_duplicate=False))
        trainable = {name: p.requires_grad for name, p in own.items()}
        first: dict[int, str] = {}
        for name, parameter in own.items():
            if first.setdefault(id(parameter), name) != name:
                self.aliases[name] = first[id(parameter)]
        state = {**self.program.constants, **self.program.state_dict}
        for node in graph.nodes:
            if node.op != "placeholder":
                continue
            key = keys.get(node.name)
            if key and (key in trainable or key.rpartition(".")[2] in _STATISTICS):
                self.parameters[node.name] = Parameter(
                    self.aliases.get(key, key),
                    tuple(node.meta["val"].shape),
                    trainable.get(key, False),
                    buffer=key not in trainable,
                )
            elif key is not None or node.name in constants:
                self.known[node.name] = state[key or constants[node.name]].detach().clone()
            else:
                self._input(node)

    def _input(self, node: Any) -> None:
        title, value = type(self.module).__name__, node.meta["val"]
        if not (self.torch.is_tensor(value) and value.is_floating_point()):
            raise GraphError(f"the input {node.name!r} of {title} is no tensor of floating point")
        batch, *lengths = value.shape
        if not self._dim(batch).unknown:
            raise GraphError(
                f"{title} works for batches of {batch} images only: its code fixes their number, "
                "as len(x) does, where x.shape[0] would not"
            )
        self.symbols[batch.node.expr] = _BATCH
        if len(lengths) == 3:  # an image
            for length, name in zip(lengths, _LENGTHS, strict=True):
                if not isinstance(length, int):
                    self.symbols.setdefault(
                        length.node.expr, f"{name}_of_{node.name}" if self.inputs else name
                    )
        self.inputs[node.name] = self._shape(value)

    def _call(self, node: Any) -> str | None:
        """Read one operation; return its name where it is unknown."""
        value, op = node.meta.get("val"), name_of(node.target)
        torch = self.torch
        if self._is_number(node) or op.startswith(_SYMBOLIC):
            return None
        if op == "getitem" and not node.users:
            return None
        inputs = [each for each in node.all_input_nodes if not self._is_number(each)]
        static = torch.is_tensor(value) and all(isinstance(n, int) for n in value.shape)
        alike = op in _FILL and all(self._of_one(n) is not None for n in value.shape)
        fixed = bool(inputs) and all(each.name in self.known for each in inputs)
        if fixed or alike or (static and op in _MAKE_ANEW):
            self.known[node.name] = self._computed(node)
            return None
        base = op[:-1] if is_in_place(op) else op
        base, arguments = self._arguments(node, base)
        if base not in RULES:
            return base
        values = value if isinstance(value, list | tuple) else [value]
        unread = _unread(node, len(values))
        for each in (each for i, each in enumerate(values) if i not in unread):
            if torch.is_tensor(each) and not each.is_floating_point():
                return f"{base} of {str(each.dtype).removeprefix('torch.')} numbers"
        self.nodes.append(
            Node(
                node.name,
                base,
                arguments,
                tuple(self._shape(each) for each in values),
                self._path(node),
                _source(node),
            )
        )
        if is_in_place(op):
            self.renamed[node.args[0].name] = node.name
        return None

    def _is_number(self, node: Any) -> bool:
        torch = self.torch
        return isinstance(node.meta.get("val"), torch.SymInt | torch.SymBool | torch.SymFloat)

    def _computed(self, node: Any) -> Any:
        """Return what a node is, computed of what does not depend on the image."""
        torch = self.torch

        def given(each: Any) -> Any:
            if each.name in self.known:
                return self.known[each.name]
            value = each.meta["val"]
            if torch.is_tensor(value):  # whose shape and dtype alone matter
                return torch.empty([self._of_one(n) or 1 for n in value.shape], dtype=value.dtype)
            number = self._of_one(value)
            return int(value) if number is None else number

        arguments = torch.fx.node.map_arg((node.args, node.kwargs), given)
        return node.target(*arguments[0], **arguments[1])

    def _arguments(self, node: Any, op: str) -> tuple[str, dict[str, Any]]:
        """Return an operation's arguments by name, and its name, which some markers change."""
        if op == "getitem":
            return op, {"input": self._value(node.args[0]), "index": node.args[1]}
        schema = getattr(node.target, "_schema", None)
        if schema is None:
            return op, {}
        given = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
        given |= dict(zip((a.name for a in schema.arguments), node.args, strict=False))
        given |= node.kwargs
        # What an operation works on is `input` to some and `self` to others.
        arguments = {
            "input" if name == "self" else name: self._value(value) for name, value in given.items()
        }
        for name, matrix in probed(node).items() if op in RESIZINGS else ():
            arguments[name] = Ref(f"{node.name}_{name}")
            self.known[f"{node.name}_{name}"] = matrix
        module = self.modules.get(self._path(node))
        if op == "dropout" and type(module).__name__ in DROP_PATHS:
            arguments["mode"] = getattr(module, "mode", "row")
            return "drop_path", arguments
        return op, arguments

    def _of_one(self, value: Any) -> int | None:
        """Return a length for a batch of one image, None where more than that decides it."""
        if isinstance(value, int):
            return value
        dim = self._dim(value)
        return dim.size if set(dim.unknown) <= {_BATCH} else None

    def _value(self, value: Any) -> Any:
        torch = self.torch
        if isinstance(value, torch.fx.Node):
            content = value.meta.get("val")
            if isinstance(content, torch.SymInt):
                return self._dim(content)
            name = value.name
            while name in self.renamed:
                name = self.renamed[name]
            return Ref(name)
        if isinstance(value, torch.SymInt):
            return self._dim(value)
        if isinstance(value, list | tuple):
            return [self._value(each) for each in value]
        # Dtypes, devices and memory formats say nothing here.
        return value if isinstance(value, bool | int | float | str) else None

    def _shape(self, value: Any) -> Shape:
        return tuple(map(self._dim, value.shape)) if self.torch.is_tensor(value) else ()

    def _dim(self, value: Any) -> Dim:
        if isinstance(value, int):
            return Dim(value)
        expression = value.node.expr
        if expression.is_number:
            return Dim(int(expression))
        number, rest = expression.as_coeff_Mul()
        names = []
        for part in rest.as_ordered_factors():
            base, power = part.as_base_exp()
            names += [self.symbols.get(base, str(base))] * int(power)
        return Dim(int(number), tuple(sorted(names)))

    def _path(self, node: Any) -> str:
        return next(reversed(_calls(node).values()), ("", ""))[0]

    def _outputs(self, graph: Any) -> dict[str, str]:
        """Return name -> node of what the network returns."""
        (output,) = (node for node in graph.nodes if node.op == "output")
        specs = self.program.graph_signature.output_specs
        nodes = [
            node
            for spec, node in zip(specs, output.args[0], strict=True)
            if spec.kind.name == "USER_OUTPUT"
        ]
        values = [
            node.meta["val"] if isinstance(node, self.torch.fx.Node) else None for node in nodes
        ]
        found = named_results(self.program.call_spec.out_spec.unflatten(values))
        if not found:
            raise GraphError(f"{type(self.module).__name__} returns no tensor")
        places = {id(value): node for value, node in zip(values, nodes, strict=True)}
        return {name: self._value(places[id(value)]).name for name, value in found.items()}

    def _module_outputs(self, graph: Any) -> tuple[ModuleOutput, ...]:
        """Return the modules that are called once and give one tensor to those outside."""
        inside: dict[str, tuple[str, str]] = {}
        given: dict[str, list[str]] = {}
        for node in graph.nodes:
            calls = _calls(node)
            inside |= calls
            for call in calls:
                users = node.users or ()
                if any(call not in _calls(user) for user in users):
                    given.setdefault(call, []).append(node.name)
        places = {node.name: i for i, node in enumerate(self.nodes)}
        times = Counter(path for path, _ in inside.values())
        found = [
            ModuleOutput(path, kind.rpartition(".")[2], given[call][0])
            for call, (path, kind) in inside.items()
            if path and times[path] == 1 and len(given.get(call, ())) == 1
        ]
        known = [output for output in found if output.node in places]
        # A module comes behind those in it.
        return tuple(
            sorted(known, key=lambda output: (places[output.node], -output.module.count(".")))
        )

    def _note_attention(self) -> None:
        """Say which dropout inside attention torch.export leaves out."""
        nn = self.torch.nn
        dropped = [
            path
            for path, module in self.modules.items()
            if isinstance(module, nn.MultiheadAttention) and module.dropout
        ]
        if dropped:
            self.notes.append(
                f"dropout of the attention weights is left out of {len(dropped)} modules, "
                f"{dropped[0]} first; it matters for training alone"
            )

    def _note_repeated_norms(self) -> None:
        """Say which running statistics are averaged several times in a step of training."""
        norms = Counter(
            mean.name
            for node in self.nodes
            if isinstance(mean := node.arguments.get("running_mean"), Ref)
        )
        repeated = [self.parameters[name].key for name, count in norms.items() if count > 1]
        if repeated:
            self.notes.append(
                f"{len(repeated)} batch norms are computed several times, {repeated[0]} first: in "
                "training, Keras averages what they see in a step in an order of its own"
            )


def _unread(node: Any, count: int) -> set[int]:
    """Return which of so many results of a node nobody reads."""
    picks = [user for user in node.users if name_of(user.target) == "getitem"]
    if count == 1 or len(picks) < len(node.users):
        return set()
    return set(range(count)) - {user.args[1] for user in picks if user.users}


def _calls(node: Any) -> dict[str, tuple[str, str]]:
    """Return the calls of modules in which a node stands: which call -> path and class."""
    stack = node.meta.get("nn_module_stack") or {}
    return {call: (path, str(kind)) for call, (path, kind) in stack.items() if "L__self__" in call}


def _source(node: Any) -> str:
    """Return the line of the network's own code that asked for an operation."""
    return own_line(node.meta.get("stack_trace") or "")


def _array(tensor: Any) -> np.ndarray:
    array = tensor.detach().cpu().numpy()
    return array.astype(np.float32) if array.dtype == np.float64 else array
