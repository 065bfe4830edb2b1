"""Progress bars on standard error, for loops of more than a second; silent where that is not a terminal."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bench.errors import printable

T = TypeVar("T")
PATIENCE = 1.0  # seconds before a bar appears
_display: list[Progress] = []  # rich allows one live display at a time: nested loops share it


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield the items; show a progress bar on a terminal once they take longer than ``PATIENCE`` seconds."""
    if not sys.stderr.isatty():
        yield from items
        return
    if total is None and isinstance(items, Sized):
        total = len(items)
    start, row, opened = time.monotonic(), None, False
    try:
        for done, item in enumerate(items):
            if row is None and time.monotonic() - start > PATIENCE:
                opened = not _display
                if opened:
                    _display.append(_open())
                row = _display[-1].add_task(description, total=total)
            if row is not None:
                _display[-1].update(row, completed=done)
            yield item
    finally:
        if row is not None:
            _display[-1].remove_task(row)
        if opened:
            _display.pop().stop()


def _open() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    display = Progress(*columns, console=Console(stderr=True), transient=True)
    display.start()
    return display


def say(message: str) -> None:
    """Print one line about the progress of the work on standard error."""
    print(printable(message), file=sys.stderr, flush=True)
