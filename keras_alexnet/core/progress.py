"""How far something is that takes long, on a terminal."""

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextlib.contextmanager
def progress(title: str, total: int, *, shown: bool = True) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal's stderr; yield what to call with the number of images done."""
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        # Else what is printed to stdout would go to stderr.
        redirect_stdout=False,
        disable=not (shown and console.is_terminal),
    )
    task = bar.add_task(title, total=total)
    with bar:
        yield lambda done: bar.update(task, completed=done)
