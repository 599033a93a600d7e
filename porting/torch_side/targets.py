"""Torch networks by the user's words: `torchvision:NAME`, or `FILE.py:FUNCTION` of his own."""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from keras_alexnet.core.backend import require
from porting.errors import UsageError
from porting.torch_side.torchvision_zoo import check_classifier
from porting.torch_side.user_code import call_function, check_function
from porting.weights.table import Shape, Size

_TORCHVISION = "torchvision:"
# Heads that torchvision's builders make unless told otherwise: the beginning of their keys.
_AUXILIARY = {"googlenet": "aux1.", "inception_v3": "AuxLogits."}


@dataclass(frozen=True)
class Target:
    """A torch network that is to be converted.

    Attributes:
        text: `torchvision:NAME` or `FILE.py:FUNCTION`, the file with its absolute path.
    """

    text: str

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the target that a text names, or None where it is the name of one of our models.

        Raises:
            UsageError: It names a function's file that is not there, or no known library.
        """
        if ":" not in text:
            return None
        if text.startswith(_TORCHVISION):
            return cls(text)
        if text.rpartition(":")[0].endswith(".py"):
            return cls(check_function(text))
        raise UsageError(
            f"{text!r} is none of the known forms: torchvision:NAME, FILE.py:FUNCTION, or the name "
            "of a model of this package"
        )

    @property
    def torchvision(self) -> str | None:
        """Its name in torchvision, or None for a function of the user's."""
        own = self.text.startswith(_TORCHVISION)
        return self.text.removeprefix(_TORCHVISION) if own else None

    @property
    def name(self) -> str:
        """A short name for files and titles."""
        return self.torchvision or self.text.rpartition(":")[2]

    @property
    def title(self) -> str:
        """Its text without the folder of a user's file, which says nothing elsewhere."""
        return self.text if self.torchvision else Path(self.text).name

    def has_aux_heads(self, keys: Collection[str]) -> bool:
        """Return whether weights of these keys are of a network with auxiliary heads."""
        beginning = _AUXILIARY.get(self.torchvision or "")
        return beginning is not None and any(key.startswith(beginning) for key in keys)

    def build(
        self,
        *,
        classes: int | None = None,
        size: Size | None = None,
        official: bool = False,
        aux_heads: bool = True,
    ) -> Any:
        """Return the network in inference mode; torchvision's with unspecified weights.

        Args:
            classes: Number of classes, by default the network's own.
            size: Height and width of the images, on which some networks' weights depend.
            official: Whether torchvision's own weights follow, for which it changes some networks.
            aux_heads: Whether it has auxiliary heads, if torchvision's has some; inference leaves
                them out.

        Raises:
            UsageError: torchvision has no such classifier, or the user's function failed.
        """
        if self.torchvision is None:
            counts = {} if classes is None else {"classes": classes, "num_classes": classes}
            return call_function(self.text, optional=counts)
        models, name = require("torchvision").models, self.torchvision
        check_classifier(name)
        options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
        if name in _AUXILIARY:
            options |= {
                "aux_logits": aux_heads,
                "transform_input": official,
                "init_weights": False,
            }
        if name.startswith("vit_") and size is not None:
            options["image_size"] = size[0]
        try:
            with _quick_initialisation():
                return models.get_model(name, weights=None, **options).eval()
        except ValueError as error:
            raise UsageError(f"{self.text} cannot be built with {options}: {error}") from error


def classes_of(own: Mapping[str, Shape], shapes: Mapping[str, Shape]) -> int | None:
    """Return the number of classes that weights of these shapes have, None for a network's `own`.

    It is where every tensor that does not fit the network differs in its first length alone, all by
    the same number.
    """
    differing = [(own[key], shape) for key, shape in shapes.items() if own.get(key, shape) != shape]
    counts = {found[0] for wanted, found in differing if found and found[1:] == wanted[1:]}
    alike = all(found and found[1:] == wanted[1:] for wanted, found in differing)
    return counts.pop() if len(counts) == 1 and alike else None


@contextlib.contextmanager
def _quick_initialisation() -> Iterator[None]:
    """Draw numbers that other weights replace from a normal distribution instead of a cut one."""
    init = require("torch").nn.init
    stock = init.trunc_normal_

    def normal(tensor: Any, mean: float = 0.0, std: float = 1.0, *_: Any, **__: Any) -> Any:
        return init.normal_(tensor, mean, std)

    init.trunc_normal_ = normal
    try:
        yield
    finally:
        init.trunc_normal_ = stock
