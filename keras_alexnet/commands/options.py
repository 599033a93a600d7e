"""Command-line options out of the fields of a record."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, field
from typing import Annotated, Any, Literal, get_args, get_origin

import typer


def option(default: Any, text: str) -> Any:
    """Return a dataclass field with the sentence that `--help` shows for it."""
    return field(default=default, metadata={"help": text})


def with_options(
    command: Callable[..., None], fields: Sequence[Field[Any]], types: Mapping[str, Any], panel: str
) -> Callable[..., None]:
    """Return a Typer command with an option for each field beside its own.

    Args:
        command: Takes its own parameters and `overrides`, the fields that the user named.
        fields: The fields, each with a `help` in its metadata.
        types: Type of each by name.
        panel: Heading above these options in `--help`.
    """
    signature = inspect.signature(command)
    own = [p for name, p in signature.parameters.items() if name != "overrides"]
    names = [entry.name for entry in fields]

    def run(**values: Any) -> None:
        overrides = {name: values.pop(name) for name in names}
        given = {name: value for name, value in overrides.items() if value is not None}
        command(**values, overrides=given)

    added = [
        inspect.Parameter(
            entry.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                _optional(types[entry.name]),
                typer.Option(
                    help=entry.metadata["help"],
                    show_default=_default(entry.default),
                    rich_help_panel=panel,
                ),
            ],
        )
        for entry in fields
    ]
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + added
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    run.__doc__ = command.__doc__
    return run


def _optional(hint: Any) -> Any:
    """Return a type that takes None too, for options that are not given."""
    arguments = get_args(hint)
    if get_origin(hint) is Literal or type(None) not in arguments:
        return hint | None
    return hint


def _default(value: Any) -> str | bool:
    """Return the text of a default, or False where there is none to show."""
    if value is None:
        return False
    if isinstance(value, bool):
        return "on" if value else "off"
    return " ".join(f"{v:g}" for v in value) if isinstance(value, tuple) else str(value)
