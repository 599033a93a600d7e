"""A torch module through `torch.export`, as the training IR that the reader understands."""

import contextlib
import linecache
import logging
import re
import types
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from keras_alexnet.core.backend import require
from porting.errors import GraphError
from porting.torch_side.reference_nets import DROP_PATHS, in_inference

# Operations whose result shares its numbers with what they read: writing into one changes both.
_VIEWS = {
    *("slice", "select", "narrow", "chunk", "split", "split_with_sizes", "tensor_split", "unbind"),
    *("view", "view_as", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "getitem"),
    *("transpose", "swapaxes", "swapdims", "permute", "movedim", "moveaxis", "t", "numpy_T", "mT"),
    *("expand", "expand_as", "diagonal"),
    *("alias", "contiguous", "detach", "to", "type_as"),
}
# What torch says of code that fixes the height or the width, which it names by the axis.
_FIXED_SIZE = re.compile(r"Constraints violated \(.*size\(\)\[[23]\]")
# A line of the tracer's, of torch's modules, is not what asked for an operation.
_NOT_THE_CAUSE = re.compile(r"[\\/]torch[\\/](nn|_|fx|export|utils)")


def export(module: Any, examples: Sequence[Any], *, any_size: bool) -> Any:
    """Return a module's exported program, in inference mode; arguments as for `reader.read`.

    Stochastic depth leaves a dropout in it. What writes into numbers that another value shares is
    functionalised, which takes batch norm apart, and so is done only then.

    Raises:
        GraphError: It cannot be exported.
    """
    with (
        require("torch").no_grad(),
        in_inference(module),
        _quiet(),
        _marked(module),
        _without_autocast(),
    ):
        program = _exported(module, tuple(examples), any_size)
        _check_ranges(module, program)
        if _writes_into_shared(program.graph):
            program = program.run_decompositions({})
        return program


def _exported(module: Any, examples: tuple[Any, ...], any_size: bool) -> Any:
    torch = require("torch")
    # Of the batch torch finds out that the inputs have one length, or that the code fixes it, which
    # the reader says. One of a single image would be taken for a constant.
    batch, size = {0: torch.export.Dim.AUTO}, dict.fromkeys((2, 3), torch.export.Dim.DYNAMIC)
    free = tuple(batch | size if any_size and x.ndim == 4 else batch for x in examples)
    try:
        return torch.export.export(module, examples, dynamic_shapes=free, strict=False)
    except Exception as error:  # whatever the module's own code raises
        text = str(error).strip()
        if any_size and _FIXED_SIZE.match(text):
            raise GraphError(
                f"the code of {type(module).__name__} fixes the size of its images; convert it for "
                "images of one size"
            ) from error
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        said = lines[0] if lines else "no message"
        if "DataDependent" in type(error).__name__:
            said = "its code asks for the values of a tensor to decide what to compute"
        where = own_line("".join(_frames(error))) or own_line(text)
        raise GraphError(
            f"{type(module).__name__} cannot be exported by torch.export: "
            f"{type(error).__name__}: {said}" + (f" (at {where})" if where else "")
        ) from error


def _check_ranges(module: Any, program: Any) -> None:
    """Check that what was followed holds for more images, and for larger ones, than the example.

    An axis that has become 1 long, say, is taken for one that is repeated.
    """
    for symbol, found in program.range_constraints.items():
        if found.upper.is_Integer:
            raise GraphError(
                f"what {type(module).__name__} computes of the images that it was followed with "
                f"holds up to a length of {found.upper} alone ({symbol}): follow it with larger "
                "ones (--input-shape), or convert it for images of one size"
            )


def _frames(error: BaseException) -> Iterator[str]:
    traceback = error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        file, line = frame.f_code.co_filename, traceback.tb_lineno
        yield f'  File "{file}", line {line}, in {frame.f_code.co_name}\n    '
        yield linecache.getline(file, line).strip() + "\n"
        traceback = traceback.tb_next


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what torch.export says of its own parts from the user."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@contextlib.contextmanager
def _marked(module: Any) -> Iterator[None]:
    """Let stochastic depth leave a dropout in the graph, which inference would erase."""
    torch = require("torch")
    marked = [m for m in module.modules() if type(m).__name__ in DROP_PATHS]

    def forward(self: Any, x: Any, *_: Any, **__: Any) -> Any:
        rate = getattr(self, DROP_PATHS[type(self).__name__], None) or 0.0
        return torch.nn.functional.dropout(x, float(rate), training=False)

    for each in marked:
        each.forward = types.MethodType(forward, each)
    try:
        yield
    finally:
        for each in marked:
            del each.forward


@contextlib.contextmanager
def _without_autocast() -> Iterator[None]:
    """Let what a module's code says of lower precision, as a rule to avoid it, be in no graph."""
    autocast = require("torch").autocast
    stock = autocast.__enter__, autocast.__exit__
    autocast.__enter__, autocast.__exit__ = lambda self: self, lambda *_: None
    try:
        yield
    finally:
        autocast.__enter__, autocast.__exit__ = stock


def name_of(target: Any) -> str:
    """Return ATen's name of an operation; that of an in-place one has an underscore behind it."""
    schema = getattr(target, "_schema", None)
    if schema is not None:
        return str(schema.name).rpartition("::")[2]
    return str(getattr(target, "__name__", target))


def is_in_place(op: str) -> bool:
    """Return whether an operation of ATen's changes what it reads."""
    return op.endswith("_") and not op.endswith("__")


def _writes_into_shared(graph: Any) -> bool:
    """Return whether an operation in place changes numbers that another value shares."""

    def is_view(node: Any) -> bool:
        return node.op == "call_function" and name_of(node.target) in _VIEWS

    return any(
        is_view(node.args[0]) or any(map(is_view, node.args[0].users))
        for node in graph.nodes
        if node.op == "call_function"
        and is_in_place(name_of(node.target))
        and "dropout" not in name_of(node.target)  # which writes nothing in inference
        and node.args
    )


def own_line(trace: str) -> str:
    """Return `file:line: code` of the last frame of a trace that is not torch's own."""
    frames = re.findall(r'File "([^"]+)", line (\d+), in .*\n\s*(.*)', trace)
    own = [frame for frame in frames if not _NOT_THE_CAUSE.search(frame[0])]
    if not (own or frames):
        return ""
    file, line, code = (own or frames)[-1]
    return f"{Path(file).name}:{line}: {code.strip()}"
