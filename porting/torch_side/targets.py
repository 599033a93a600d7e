"""Torch networks by the user's words: `torchvision:NAME`, `timm:NAME`, or `FILE.py:FUNCTION`.

`timm:features:NAME` is timm's `features_only`: a network's maps instead of its logits.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from porting.errors import UsageError
from porting.torch_side import timm_zoo
from porting.torch_side.user_code import call_function, check_function
from porting.torch_side.zoos import ZOOS
from porting.weights.table import Shape, Size

_FEATURES = "features:"
_OF_FEATURES = f"timm:{_FEATURES}"


@dataclass(frozen=True)
class Target:
    """A torch network that is to be converted.

    Attributes:
        text: `torchvision:NAME`, `timm:NAME`, `timm:features:NAME` or `FILE.py:FUNCTION`, files and
            folders with their absolute paths.
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
        library, _, name = text.partition(":")
        if library == "timm":
            return cls(text).at(timm_zoo.check_name(name.removeprefix(_FEATURES)))
        if library in ZOOS:
            return cls(text)
        if text.rpartition(":")[0].endswith(".py"):
            return cls(check_function(text))
        raise UsageError(
            f"{text!r} is none of the known forms: torchvision:NAME, timm:NAME, "
            "timm:features:NAME, FILE.py:FUNCTION, or the name of a model of this package"
        )

    @property
    def library(self) -> str | None:
        """The library that has it, or None for a function of the user's."""
        library = self.text.partition(":")[0]
        return library if library in ZOOS else None

    @property
    def known_as(self) -> str:
        """What its library calls it, or the user's file does."""
        if self.library is None:
            return self.text.rpartition(":")[2]
        return self.whole.text.partition(":")[2]

    def at(self, name: str) -> Self:
        """Return the same of its library's network of another name."""
        return replace(self, text=f"{_OF_FEATURES if self.features else f'{self.library}:'}{name}")

    @property
    def features(self) -> bool:
        """Whether it is the maps of a network, rather than the network."""
        return self.text.startswith(_OF_FEATURES)

    @property
    def whole(self) -> Self:
        """The network itself, where this is its features."""
        name = self.text.removeprefix(_OF_FEATURES)
        return replace(self, text=f"timm:{name}") if self.features else self

    @property
    def folder(self) -> Path | None:
        """The folder that holds its weights and their description, where it is one of timm's."""
        return timm_zoo.folder_of(self.known_as) if self.library == "timm" else None

    @property
    def name(self) -> str:
        """A short name for files and titles."""
        return self.folder.name if self.folder else self.known_as

    @property
    def title(self) -> str:
        """Its text without the folder of a user's file, which says nothing elsewhere."""
        if self.folder:
            return f"timm:{_FEATURES * self.features}{self.folder.name}"
        return self.text if self.library else Path(self.text).name

    def has_aux_heads(self, keys: Collection[str]) -> bool:
        """Return whether weights of these keys are of a network with auxiliary heads."""
        return self.library is not None and ZOOS[self.library].has_aux_heads(self.known_as, keys)

    def adapted(self, net: Any, arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Return weights as such a network takes them, where its library knows a way."""
        return ZOOS[self.library].adapted(net, arrays) if self.library else arrays

    def build(
        self,
        *,
        classes: int | None = None,
        size: Size | None = None,
        official: bool = False,
        aux_heads: bool = True,
    ) -> Any:
        """Return the network in inference mode; a library's with unspecified weights.

        Args:
            classes: Number of classes, by default the network's own.
            size: Height and width of the images, on which some networks' weights depend.
            official: Whether the library's own weights follow, for which torchvision changes some
                networks.
            aux_heads: Whether it has auxiliary heads, if the library's has some; inference leaves
                them out.

        Raises:
            UsageError: The library has no such network, or the user's function failed.
        """
        if self.library is None:
            counts = {} if classes is None else {"classes": classes, "num_classes": classes}
            return call_function(self.text, optional=counts)
        net = ZOOS[self.library].build_network(
            self.known_as, classes=classes, size=size, official=official, aux_heads=aux_heads
        )
        return self.features_of(net, size) if self.features else net

    def features_of(self, net: Any, size: Size | None) -> Any:
        """Return the network of maps with the weights of a whole one, whose images have this size.

        Raises:
            UsageError: timm has no maps of it.
        """
        return timm_zoo.features_of(net, self.known_as, size)


def classes_of(own: Mapping[str, Shape], shapes: Mapping[str, Shape]) -> int | None:
    """Return the number of classes that weights of these shapes have, None for a network's `own`.

    It is where every tensor that does not fit the network differs in its first length alone, all by
    the same number.
    """
    differing = [(own[key], shape) for key, shape in shapes.items() if own.get(key, shape) != shape]
    counts = {found[0] for wanted, found in differing if found and found[1:] == wanted[1:]}
    alike = all(found and found[1:] == wanted[1:] for wanted, found in differing)
    return counts.pop() if len(counts) == 1 and alike else None
