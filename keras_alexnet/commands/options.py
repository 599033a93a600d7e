"""Command-line options out of the fields of a record."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import Field
from typing import Annotated, Any, get_args

import typer

from keras_alexnet.core.fields import choices


def with_options(
    command: Callable[..., None],
    fields: Sequence[Field[Any]],
    types: Mapping[str, Any],
    panels: Mapping[str, Sequence[str]] | None = None,
) -> Callable[..., None]:
    """Return a Typer command with an option for each field beside its own.

    Args:
        command: Takes its own parameters and `overrides`, the fields that the user named.
        fields: The fields, each with a `help` in its metadata.
        types: Type of each by name.
        panels: Heading in `--help` -> the names of all options below it, in the order of both.
    """
    signature = inspect.signature(command)
    own = [p for name, p in signature.parameters.items() if name != "overrides"]

    def run(**values: Any) -> None:
        given = {}
        for entry in fields:
            if (value := values.pop(entry.name)) is not None:
                parse = entry.metadata["parse"]
                given[entry.name] = parse(value) if parse else value
        command(**values, overrides=given)

    added = [
        inspect.Parameter(
            entry.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[_type(entry, types), _option(entry, types)],
        )
        for entry in fields
    ]
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + added
    if panels:
        named = {p.name: p for p in parameters}
        parameters = [_below(title, named[name]) for title in panels for name in panels[title]]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    run.__doc__ = command.__doc__
    return run


def _below(title: str, parameter: inspect.Parameter) -> inspect.Parameter:
    """Return the parameter of an option with a heading for it."""
    kind, details = get_args(parameter.annotation)
    details = copy(details)
    details.rich_help_panel = title
    return parameter.replace(annotation=Annotated[kind, details])


def _option(entry: Field[Any], types: Mapping[str, Any]) -> Any:
    details = dict(entry.metadata["details"])
    text = entry.metadata["help"]
    known = choices(types[entry.name])
    if known and "metavar" not in details:  # all of them would make a column that is too wide
        details["metavar"] = "NAME"
        text = f"{text} One of {', '.join(known)}."
    flags = [details.pop("flag")] if "flag" in details else []
    details.setdefault("show_default", _default(entry.default))
    return typer.Option(*flags, help=text, **details)


def _type(entry: Field[Any], types: Mapping[str, Any]) -> Any:
    """Return the type of an option, which takes None too where it is not given."""
    return (str if entry.metadata["parse"] else types[entry.name]) | None


def _default(value: Any) -> str | bool:
    """Return the text of a default, or False where there is none to show."""
    if value is None:
        return False
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        words = all(isinstance(v, str) for v in value)
        return ",".join(value) if words else " ".join(f"{v:g}" for v in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
