"""Columns with the same content as one, under all their names, for terminals and pages."""

from collections.abc import Iterator, Mapping
from typing import Any

from porting.checks.results import Check, Photo


def folded(columns: Mapping[str, Any], count: int | None = None) -> Iterator[tuple[str, Any]]:
    """Yield columns by name, those of the same content once, under all their names.

    `count` says how many there are in all, where these are some of them.
    """
    names: dict[Any, list[str]] = {}
    for name, content in columns.items():
        names.setdefault(content, []).append(name)
    for content, those in names.items():
        everywhere = len(those) == (count or len(columns)) > 1
        yield f"the same on all {len(those)}" if everywhere else "; ".join(those), content


def photo_columns(photo: Photo, check: Check) -> list[tuple[str, tuple[str, ...]]]:
    """Return the best classes of a photo by framework as people read them, equal ones folded."""
    title = check.reference.title
    texts = {
        name: tuple(f"{label} {100 * probability:.2f} %" for label, probability in top)
        for name, top in photo.top.items()
    }
    own = texts.pop(title)
    same = [name for name, column in texts.items() if column == own]
    if len(same) > 1:
        some = "all" if len(same) == len(texts) else f"{len(same)} of"
        same = [f"the same on {some} {len(texts)}"]
    others = {name: column for name, column in texts.items() if column != own}
    return [("; ".join([title, *same]), own), *folded(others, len(texts))]
