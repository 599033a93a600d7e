"""Tables for people and machines: columns, cells, and how a sheet of them is written."""

import csv
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table

_WIDE = 10_000  # characters, more than any table needs


class Format(StrEnum):
    """How a table is written."""

    TABLE = "table"
    MARKDOWN = "markdown"
    CSV = "csv"
    JSON = "json"


def terminal() -> Console:
    """Return standard output; in a file or a pipe, rows are worth more than a width of 80.

    In a notebook it is text as well: rich would give each line a box of its own, or, as notebooks
    ask for colours, draw a bar again and again below itself.
    """
    if sys.stdout.isatty():
        return Console()
    return Console(width=160, force_jupyter=False, force_terminal=False)


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    key: str  # its name for machines
    heading: str  # its name for people
    text: bool = False  # whether it holds words, which are aligned to the left
    wraps: bool = False  # whether its cells may take several lines on a narrow terminal
    missing: str = "-"  # what people read where there is no value
    show: Callable[[Any], str] | None = None  # its values for people
    descending: bool = False  # whether its largest value comes first where rows are sorted by it

    def cell(self, value: Any) -> str:
        """Return a value as people read it."""
        if value is None:
            return self.missing
        if self.show is not None:
            return self.show(value)
        return f"{value:,}" if isinstance(value, int) else _plain(value)


def decimals(value: float) -> str:
    """Return a loss or score with four decimals."""
    return f"{value:.4f}"


def percent(value: float) -> str:
    """Return a share in [0, 1] in per cent, without the sign."""
    return f"{100 * value:.2f}"


@dataclass(frozen=True)
class Sheet:
    """Values below columns, under a title; the last row may be a total."""

    title: str
    columns: tuple[Column, ...]
    rows: list[tuple[Any, ...]]
    has_total: bool = False

    @property
    def records(self) -> list[dict[str, Any]]:
        """The rows but the total, their values by key."""
        keys = [column.key for column in self.columns]
        rows = self.rows[:-1] if self.has_total else self.rows
        return [dict(zip(keys, row, strict=True)) for row in rows]

    @property
    def cells(self) -> list[list[str]]:
        """The rows as people read them."""
        return [[c.cell(v) for c, v in zip(self.columns, row, strict=True)] for row in self.rows]

    def _repr_markdown_(self) -> str:
        """Return what a notebook shows."""
        return markdown(self)


def _plain(value: Any) -> str:
    """Return a shape as 64x55x55, a padding as 2, or as 3+4 for 3 before and 4 behind."""
    if not isinstance(value, tuple):
        return "" if value is None else str(value)
    if not isinstance(value[0], tuple):
        return "x".join(map(str, value))
    axes = [f"{a}" if a == b else f"{a}+{b}" for a, b in value]
    return "x".join(dict.fromkeys(axes))


def markdown(sheet: Sheet, notes: Sequence[str] = ()) -> str:
    """Return a sheet as a Markdown table, and notes as a list below."""
    lines = [
        [column.heading for column in sheet.columns],
        ["---" if column.text else "--:" for column in sheet.columns],
        *([cell.replace("|", "\\|") for cell in row] for row in sheet.cells),
    ]
    listed = ["", *(f"* {note}" for note in notes)] if notes else []
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), *listed])


def write_sheet(sheet: Sheet, format_: Format, notes: Sequence[str] = ()) -> None:
    """Print a sheet and notes, in one of the formats without nesting."""
    if format_ is Format.CSV:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow([column.key for column in sheet.columns])
        writer.writerows([_plain(value) for value in row] for row in sheet.rows)
    elif format_ is Format.MARKDOWN:
        print(markdown(sheet, notes))
    else:
        # In a file or a pipe, lines may be long: whole cells are worth more.
        width = None if sys.stdout.isatty() else _WIDE
        console = Console(width=width, markup=False, highlight=False, emoji=False)
        console.print(sheet.title, style="bold")
        for table in _tables(sheet, console.width):
            console.print(table)
        for note in notes:
            console.print(note)


def _tables(sheet: Sheet, room: int) -> Iterator[Table]:
    """Yield as few tables as fit into `room` characters, the first column in each of them.

    Numbers are never cut or folded: a column that does not fit begins another table.
    """
    widths = [
        20 if column.wraps else max(map(len, (column.heading, *texts)))
        for column, texts in zip(sheet.columns, zip(*sheet.cells, strict=True), strict=True)
    ]
    parts = [[0]]
    for number in range(1, len(widths)):
        part = [*parts[-1], number]
        # Three characters between neighbours, one on either side.
        if sum(widths[i] + 3 for i in part) > room + 1 and len(part) > 2:
            parts.append([0, number])
        else:
            parts[-1] = part
    for part in parts:
        table = Table(box=box.SIMPLE, pad_edge=False)
        for number in part:
            column = sheet.columns[number]
            justify: Literal["left", "right"] = "left" if column.text else "right"
            table.add_column(column.heading, justify=justify, min_width=widths[number])
        for index, line in enumerate(sheet.cells, 1):
            ends = sheet.has_total and index == len(sheet.rows) - 1
            table.add_row(*(line[number] for number in part), end_section=ends)
        yield table


def print_json(content: Any) -> None:
    """Print a value as JSON, which knows no NaN."""
    print(json.dumps(content, indent=1, allow_nan=False))
