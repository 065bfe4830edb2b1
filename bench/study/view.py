"""The progress of a running study: a live view on a terminal, otherwise one line per stage."""

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from bench.study.executor import Finished, Started
from bench.study.graph import Node
from bench.study.past import Past
from bench.system.progress import say

STATES = ("done", "cached", "failed", "skipped")


class View:
    """The count of stages as they begin and end, shown live.

    A terminal shows a line for the study, with the numbers of done, cached, failed and running stages and the time
    left, and a line for every running stage.
    """

    def __init__(self, title: str, nodes: Sequence[Node], past: Past) -> None:
        self._title, self._total, self._past = title, len(nodes), past
        self._left = {node.id: node for node in nodes}
        self._rules = {node.id: past.estimate(node).seconds for node in nodes}
        self._expected = self._took = (
            0.0  # seconds by estimate and by clock of the stages that are done
        )
        self._running: dict[str, TaskID | None] = {}
        self._most = 1
        self._counts = dict.fromkeys(STATES, 0)
        self._live = sys.stderr.isatty()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
            disable=not self._live,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        self._all = self._progress.add_task(
            f"[bold]{escape(self._title)}", total=self._total, note=""
        )
        self._refresh()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for row in self._running.values():
            if row is not None:
                self._progress.remove_task(row)
        self._progress.stop()

    def started(self, event: Started) -> None:
        """Note that a stage has begun; ignored if the stage has already ended."""
        if event.node.id not in self._left:
            return
        place = f"on {event.where}" if event.where else ""
        label = f"  {escape(event.node.label)}"
        row = self._progress.add_task(label, total=None, note=place) if self._live else None
        self._running[event.node.id] = row
        self._most = max(self._most, len(self._running))
        self._refresh()

    def finished(self, event: Finished) -> None:
        """Note that a stage has ended."""
        outcome, name = event.outcome, event.node.id
        row = self._running.pop(name, None)
        if row is not None:
            self._progress.remove_task(row)
        self._counts[outcome.state] += 1
        del self._left[name]
        if outcome.state == "done":
            self._expected += self._rules[name]
            self._took += outcome.seconds
        self._refresh()
        line = f"{outcome.state:<8}{event.node.label} ({outcome.seconds:.1f} s)"
        if outcome.error:
            line += f": {outcome.error}"
        if not self._live:
            ended = sum(self._counts.values())
            say(f"[{ended}/{self._total}] {line}")
        elif outcome.state == "failed":
            self._progress.console.print(line, markup=False, style="red")

    def seconds_left(self) -> float | None:
        """Estimate the seconds left, with as many stages at once as there were at most; None without a basis.

        Stages with measurements of similar ones take as long as those did; for others, the rule of thumb is scaled by
        the ratio of measured to estimated time so far.
        """
        estimates = [self._past.estimate(node) for node in self._left.values()]
        if not self._expected and not all(estimate.measured for estimate in estimates):
            return None
        pace = self._took / self._expected if self._expected else 1.0
        seconds = sum(e.seconds * (1.0 if e.measured else pace) for e in estimates)
        return seconds / self._most

    def _refresh(self) -> None:
        notes = [f"{count} {state}" for state, count in self._counts.items() if count]
        notes += [f"{len(self._running)} running"] if self._running else []
        left = self.seconds_left() if self._left else None
        notes += [] if left is None else [f"about {duration(left)} left"]
        ended = sum(self._counts.values())
        self._progress.update(self._all, completed=ended, note=", ".join(notes))


def unbroken(commands: Sequence[str]) -> Text:
    """Return text that keeps each command on one line, however long, so that it can be copied from the console."""
    return Text("\n".join(commands), no_wrap=True, overflow="ignore")


def duration(seconds: float) -> str:
    """Format a number of seconds with a suitable unit.

    >>> duration(42.4), duration(200.0), duration(9000.0), duration(2e5)
    ('42 s', '3 min', '2.5 h', '2.3 days')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
