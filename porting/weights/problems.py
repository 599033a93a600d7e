"""What keeps named arrays from fitting, as lists by kind and as lines of a message."""

from collections.abc import Collection, Mapping, Sequence

from porting.weights.table import Shape

_MAX_LISTED = 8


def problems_of(
    wanted: Mapping[str, Shape], found: Mapping[str, Shape], optional: Collection[str] = ()
) -> dict[str, list[str]]:
    """Return kind of problem -> keys, of arrays by their shapes; `optional` ones may be missing."""
    problems = {
        "missing": [key for key in wanted if key not in found and key not in optional],
        "wrong shape": [
            f"{key} is {found[key]}, wanted {shape}"
            for key, shape in wanted.items()
            if key in found and tuple(found[key]) != tuple(shape)
        ],
        "unexpected": [key for key in found if key not in wanted],
    }
    return {kind: keys for kind, keys in problems.items() if keys}


def list_problems(problems: Mapping[str, Sequence[str]]) -> list[str]:
    """Return one line per problem, the first few of each kind."""
    lines = []
    for kind, keys in problems.items():
        lines += [f"  {kind}: {key}" for key in keys[:_MAX_LISTED]]
        if len(keys) > _MAX_LISTED:
            lines.append(f"  {kind}: {len(keys) - _MAX_LISTED} more, {len(keys)} in all")
    return lines
