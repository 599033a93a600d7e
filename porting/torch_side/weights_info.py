"""What a library of networks says of a set of weights."""

from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Any, Self

from keras_alexnet.errors import similar
from porting.errors import UsageError


@dataclass(frozen=True)
class WeightsInfo:
    """What torchvision or timm says of one set of weights, such as `IMAGENET1K_V1`.

    Attributes:
        name: What the library calls them.
        url: Their file, whose name holds the beginning of its SHA-256; of those that lie in a
            repository of the Hugging Face hub, that repository.
        labels: The class names by index, where it has some.
        metrics: Accuracies in per cent.
        preprocessing: The fields of a `Preprocessing`, or None where these cannot say it.
        shape: Channels, height and width of its images.
        repository: `USER/NAME` of the hub, where they lie in one.
        file: Their file in it.
    """

    name: str
    url: str | None
    labels: tuple[str, ...] | None
    metrics: dict[str, float]
    preprocessing: dict[str, Any] | None
    shape: tuple[int, int, int]
    repository: str | None = None
    file: str | None = None

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Return what travelled as JSON, which knows no tuples."""
        given = {field.name: values[field.name] for field in fields(cls)}
        labels, shape = given["labels"], tuple(given["shape"])
        return cls(**{**given, "labels": None if labels is None else tuple(labels), "shape": shape})


def unknown_network(library: str, name: str, known: Collection[str]) -> UsageError:
    """Return the error about a network that a library does not have; it names a similar one."""
    few = len(known) <= 100
    hint = similar(name, known, 1) or f" Known: {', '.join(known)}" * few
    return UsageError(f"{library} has no network {name!r}.{hint}")
