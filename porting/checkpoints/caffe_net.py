"""What a Caffe file says of its network: each layer's kind, what it reads, and its numbers.

Field numbers and defaults are those of src/caffe/proto/caffe.proto in BVLC/caffe. A `.caffemodel`
carries the description of the network that it was trained as; a `.prototxt` is the same in words.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from porting.errors import CheckpointError

# Kinds of layers as files from before 2014 number or spell them (V1LayerParameter.LayerType), and
# as newer files call them.
_OLD_KINDS: Mapping[int, tuple[str, str]] = {
    1: ("ACCURACY", "Accuracy"),
    3: ("CONCAT", "Concat"),
    4: ("CONVOLUTION", "Convolution"),
    5: ("DATA", "Data"),
    6: ("DROPOUT", "Dropout"),
    8: ("FLATTEN", "Flatten"),
    14: ("INNER_PRODUCT", "InnerProduct"),
    15: ("LRN", "LRN"),
    17: ("POOLING", "Pooling"),
    18: ("RELU", "ReLU"),
    19: ("SIGMOID", "Sigmoid"),
    20: ("SOFTMAX", "Softmax"),
    21: ("SOFTMAX_LOSS", "SoftmaxWithLoss"),
    22: ("SPLIT", "Split"),
    23: ("TANH", "TanH"),
    25: ("ELTWISE", "Eltwise"),
    26: ("POWER", "Power"),
    39: ("DECONVOLUTION", "Deconvolution"),
}
_OLD_NAMES = dict(_OLD_KINDS.values())
# Settings that belong together: height and width, each with a name of its own too.
_PAIRS: Mapping[str, tuple[str, str]] = {
    name: (f"{short}_h", f"{short}_w")
    for name, short in (("kernel_size", "kernel"), ("stride", "stride"), ("pad", "pad"))
}


@dataclass(frozen=True)
class NetLayer:
    """A layer: what it reads, what it writes, and its settings as the file gives them."""

    name: str
    kind: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    settings: Mapping[str, float] = field(default_factory=dict)

    def get(self, name: str, default: float) -> float:
        """Return a setting; for one of the kernel, the larger of height and width."""
        either = [self.settings[n] for n in _PAIRS.get(name, ()) if n in self.settings]
        return max(either) if either else self.settings.get(name, default)


@dataclass(frozen=True)
class Net:
    """A network as a file describes it.

    Attributes:
        origin: The file, for messages.
        name: What it calls the network, often nothing.
        layers: In their order. None may say what it reads: then only the name is known.
    """

    origin: Path
    name: str
    layers: tuple[NetLayer, ...]

    @property
    def is_wired(self) -> bool:
        """Whether the file says which layer reads what another one writes."""
        written = {top for layer in self.layers for top in layer.tops}
        return any(bottom in written for layer in self.layers for bottom in layer.bottoms)


def kind_of(kind: int | str) -> str:
    """Return the present name of a kind of layer."""
    if isinstance(kind, int):
        return _OLD_KINDS[kind][1] if kind in _OLD_KINDS else f"kind {kind}"
    return _OLD_NAMES.get(kind, kind)


# Parts of a text: a quoted one, a bracket or colon, a word. Comments go up to the line's end.
_TOKENS = re.compile(
    r"""#[^\n]*|"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'|([{}:;,<>])|([^\s{}:;,<>"'#]+)"""
)
_MOST_BYTES = 10_000_000


def read_prototxt(path: Path) -> Net:
    """Read the description of a network.

    Raises:
        CheckpointError: It is no such text.
    """
    if path.stat().st_size > _MOST_BYTES:
        raise CheckpointError(f"{path}: too large for the description of a network")
    tokens = _tokens(path.read_text(encoding="utf-8", errors="replace"))
    try:
        content = _message(tokens, top=True)
        layers = map(_layer, (*content.get("layers", ()), *content.get("layer", ())))
        return Net(path, str(content.get("name", [""])[0]).removeprefix('"'), tuple(layers))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: no .prototxt ({error})") from error


Message = dict[str, list[Any]]


def _tokens(text: str) -> Iterator[str]:
    for match in _TOKENS.finditer(text):
        double, single, sign, word = match.groups()
        if sign:
            if sign not in ";,":
                yield {"<": "{", ">": "}"}.get(sign, sign)
        elif word is not None:
            yield word
        elif double is not None or single is not None:
            yield f'"{double if double is not None else single}'


def _message(tokens: Iterator[str], *, top: bool = False) -> Message:
    """Read fields up to the closing bracket: name -> its values, in their order."""
    content: Message = {}
    for name in tokens:
        if name == "}" and not top:
            return content
        sign = next(tokens, "")
        value = next(tokens, "") if sign == ":" else sign
        if name in "{}:" or not value or value in ("}", ":"):
            raise ValueError(f"a value is missing behind {name[:40]!r}")
        content.setdefault(name, []).append(_message(tokens) if value == "{" else value)
    if not top:
        raise ValueError("a bracket is not closed")
    return content


def _layer(message: Any) -> NetLayer:
    if not isinstance(message, dict):
        raise ValueError("a layer without brackets")

    def texts(name: str) -> Sequence[str]:
        return [str(each).removeprefix('"') for each in message.get(name, ())]

    settings: dict[str, float] = {}
    for name, (value, *_) in message.items():
        if name.endswith("_param") and isinstance(value, dict):
            settings |= {
                key: number
                for key, [text, *_] in value.items()
                if (number := _number(text)) is not None
            }
    name, kind = (next(iter(texts(field)), "") for field in ("name", "type"))
    return NetLayer(name, kind_of(kind), tuple(texts("bottom")), tuple(texts("top")), settings)


# Words that settings of the layers above have for numbers.
_WORDS = {"MAX": 0, "AVE": 1, "STOCHASTIC": 2, "ACROSS_CHANNELS": 0, "WITHIN_CHANNEL": 1}
_WORDS |= {"true": 1, "false": 0}


def _number(text: Any) -> float | None:
    try:
        return float(_WORDS.get(text, text))
    except (TypeError, ValueError):
        return None
