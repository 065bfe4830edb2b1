"""Rendering of a study's report as text, Markdown or CSV."""

import csv
import io
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from bench.records import markdown as tables
from bench.study.report import Entry, Line, Measured, Part
from bench.study.view import unbroken

SOURCES = ("paper", "log", "ours")


def text(parts: Sequence[Part]) -> RenderableType:
    """Render the report for a terminal."""
    shown: list[RenderableType] = []
    for part in parts:
        table = Table(title=escape(part.title), title_justify="left", header_style="bold", box=None)
        for name in part.head:
            table.add_column(escape(name), no_wrap=True)
        for name in _headings(part):
            table.add_column(escape(name.replace(": ", "\n")), justify="right")
        for line in part.lines:
            table.add_row(*map(escape, [*line.label, *_numbers(part, line)]))
        shown += [table, Text(part.note, style="dim"), Text()]
    missing = commands(parts)
    if missing:
        shown.append(Text(f"{len(missing)} runs have no record yet:", style="bold"))
        shown.append(unbroken(missing))
    return Group(*shown)


def markdown(parts: Sequence[Part]) -> str:
    """Render the report as Markdown."""
    blocks = []
    for part in parts:
        rows = [[*line.label, *_numbers(part, line)] for line in part.lines]
        head, right = [*part.head, *_headings(part)], [False] * len(part.head)
        right += [True] * len(_headings(part))
        blocks += [f"### {part.title}", tables.table(head, rows, right).rstrip("\n")]
        blocks += [part.note] if part.note else []
    missing = commands(parts)
    if missing:
        blocks.append("\n".join(["Runs that have no record yet:", "", "```sh", *missing, "```"]))
    return "\n\n".join(blocks) + "\n"


FIELDS = (
    "table", "row", "column", "paper", "log", "ours", "low", "high", "runs", "runs_wanted", "device", "missing",
)  # fmt: skip


def csv_text(parts: Sequence[Part]) -> str:
    """Render the report as CSV, with one line per cell and all digits of every number."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(FIELDS)
    for part in parts:
        for line in part.lines:
            about = [part.title, ", ".join(line.label)]
            runs = [line.recorded, line.asked, line.device, "; ".join(line.missing)]
            for entry in line.entries:
                ours = entry.ours or Measured(float("nan"))
                value = None if entry.ours is None else ours.value
                numbers = [entry.paper, entry.log, value, ours.low, ours.high]
                writer.writerow([*about, entry.column, *numbers, *runs])
    return out.getvalue()


def commands(parts: Sequence[Part]) -> list[str]:
    """Return the commands of all runs without a record, each once."""
    missing = (command for part in parts for line in part.lines for command in line.missing)
    return list(dict.fromkeys(missing))


def _headings(part: Part) -> list[str]:
    """Return the headings of the columns after the label, without those that are empty in every row."""
    return [f"{name}: {source}" for name, source in _shown(part)] + ["runs", "device"]


def _shown(part: Part) -> list[tuple[str, str]]:
    entries = [entry for line in part.lines for entry in line.entries]
    return [
        (name, source)
        for name in part.columns
        for source in SOURCES
        if source == "ours"
        or any(getattr(e, source) is not None for e in entries if e.column == name)
    ]


def _numbers(part: Part, line: Line) -> list[str]:
    entries = {entry.column: entry for entry in line.entries}
    cells = [_number(entries[name], source, part.digits) for name, source in _shown(part)]
    return [*cells, f"{line.recorded} of {line.asked}" if line.asked else "", line.device]


def _number(entry: Entry, source: str, digits: int) -> str:
    if source == "paper":
        return "" if entry.paper is None else f"{entry.paper:.{digits}f}"
    if source == "log":
        return "" if entry.log is None else f"{entry.log:.2f}"
    ours = entry.ours
    if ours is None:
        return "-"
    if ours.low is None:
        return f"{ours.value:.2f}"
    return f"{ours.value:.2f} ({ours.low:.2f} to {ours.high:.2f})"
