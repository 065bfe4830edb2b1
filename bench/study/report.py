"""The report of a study: measured numbers beside reference numbers, cell by cell. Imports no torch."""

import dataclasses
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence

from bench.records import student
from bench.records.asked import Asked
from bench.records.paper import OURS, SCORES, Row, Table, logged
from bench.records.population import Likeness
from bench.records.record import Record
from bench.records.scale import Scale
from bench.study.recipe import SEEDS, Cell, Recipe

# Columns of a study without reference numbers.
PLAIN = ["original", "ensemble", "best", "selected", "avg.", "med.", "worst", "speedup"]
# Similarities by their names in ``bench.records.paper``: population, its field, and the field among good models.
ALIKE = {
    "oo": ("original", "within", "original_original"),
    "gg": ("generated", "within", "generated_generated"),
    "og": ("generated", "originals", "original_generated"),
    "og_max": ("generated", "nearest", "original_generated_max"),
}
Known = Mapping[Asked, Sequence[Record]]


@dataclasses.dataclass(frozen=True)
class Measured:
    """One measured number.

    Attributes:
        value: the mean over runs.
        low, high: its 95 % interval: Student's t over runs where they differ, that of a single run (bootstrap over its
            models) where the record has one; None elsewhere.
    """

    value: float
    low: float | None = None
    high: float | None = None


@dataclasses.dataclass(frozen=True)
class Entry:
    """One cell of a report: the paper's number, its log's and the measured one; None for a missing number."""

    column: str
    paper: float | None
    log: float | None
    ours: Measured | None


@dataclasses.dataclass(frozen=True)
class Line:
    """One row of a report's table.

    Attributes:
        label: the row's name, in parts.
        entries: its cells.
        recorded, asked: number of runs that have a record, and of all runs.
        device: the device of the runs.
        missing: commands of the runs without a record.
    """

    label: tuple[str, ...]
    entries: list[Entry]
    recorded: int
    asked: int
    device: str
    missing: list[str]


@dataclasses.dataclass(frozen=True)
class Part:
    """One table of a report.

    Attributes:
        title, note: descriptions for people.
        head: names of the parts of a row's label.
        columns: names of the columns with numbers.
        lines: its rows.
        digits: decimals of the paper's numbers.
    """

    title: str
    note: str
    head: list[str]
    columns: list[str]
    lines: list[Line]
    digits: int = 1


def parts(recipe: Recipe, cells: Sequence[Cell], known: Known) -> list[Part]:
    """Return the report's tables; a study without tables gets one.

    Args:
        recipe: the study.
        cells: the study's cells that are reported.
        known: records by request, the oldest first.
    """
    axes = [name for name in recipe.axes if name not in SEEDS]
    if not recipe.tables():
        lines = _lines(None, None, cells, known)
        return [Part(recipe.title, recipe.about, axes, PLAIN, lines)]
    made = []
    for table in recipe.tables():
        table_cells = [cell for cell in cells if cell.table == table]
        lines = [
            line
            for row in table.row
            for line in _lines(table, row, [cell for cell in table_cells if cell.row == row], known)
        ]
        head, columns = [*table.head, *axes], _columns(table)
        title = f"Table {table.id}: {table.title}"
        made.append(Part(title, table.note, head, columns, lines, table.digits))
    return [part for part in made if any(line.asked for line in part.lines)]


def _columns(table: Table) -> list[str]:
    """Return the table's columns, with "selected" (the model chosen on training data) after "best"."""
    columns = list(table.columns)
    if "best" in columns:
        columns.insert(columns.index("best") + 1, "selected")
    return columns


def _lines(table: Table | None, row: Row | None, cells: Sequence[Cell], known: Known) -> list[Line]:
    """Return the lines of one row of the recipe: one for each combination of its axes other than seeds."""
    groups: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.label, []).append(cell)
    if row and table and not table.settings(row):
        groups = {tuple(row.label): []}  # the row cannot be run, and shows only reference numbers
    return [_line(label, table, row, group, known) for label, group in groups.items()]


def _line(
    label: tuple[str, ...],
    table: Table | None,
    row: Row | None,
    group: Sequence[Cell],
    known: Known,
) -> Line:
    wanted = list(dict.fromkeys(cell.request.asked for cell in group))
    made, device = _chosen({asked: known.get(asked, ()) for asked in wanted})
    entries = [
        _entry(column, table, row, list(made.values()))
        for column in (_columns(table) if table else PLAIN)
    ]
    missing = [asked.command for asked in wanted if asked not in made]
    return Line(label, entries, len(made), len(wanted), device, missing)


def _chosen(known: Known) -> tuple[dict[Asked, Record], str]:
    """Choose the newest record of each run on the most frequent device; return the records and the device."""
    devices = Counter(
        device for records in known.values() for device in {r.timing.device for r in records}
    )
    device = devices.most_common(1)[0][0] if devices else ""
    on_device = {
        asked: [r for r in records if r.timing.device == device] for asked, records in known.items()
    }
    return {asked: records[-1] for asked, records in on_device.items() if records}, device


def _entry(column: str, table: Table | None, row: Row | None, made: Sequence[Record]) -> Entry:
    field = OURS[row.population if row else "generated"].get(column)
    if table is None or row is None:
        hundred = column in SCORES and all(Scale.of(record).percent for record in made)
        return Entry(column, None, None, measure(made, field, 100.0 if hundred else 1.0))
    paper = dict(zip(table.columns, row.paper, strict=True)).get(column, "")
    ours = measure(made, field, table.factor(column))
    return Entry(column, None if paper == "" else float(paper), logged(table, row, column), ours)


# Numbers of records --------------------------------------------------------------------------------------------------


def measure(made: Sequence[Record], field: str | None, factor: float) -> Measured | None:
    """Return the mean of a number over runs, with its interval; None if a run lacks it.

    Args:
        made: one record per run.
        field: the number's name, a value of ``bench.records.paper.OURS``; None for a number that is not measured.
        factor: by which the number is multiplied.
    """
    numbers = [read(record, field) for record in made] if field else []
    known = [number for number in numbers if number is not None]
    if not known or len(known) < len(made):
        return None
    if len(known) == 1:
        return _scaled(known[0], factor)
    return _scaled(pooled([number.value for number in known]), factor)


def pooled(values: Sequence[float]) -> Measured:
    """Return the mean with Student's t interval, or without one if all values are equal (as for the originals).

    >>> pooled([1.0, 2.0, 3.0])  # doctest: +ELLIPSIS
    Measured(value=2.0, low=-0.484137711..., high=4.484137711...)
    """
    mean, spread = statistics.fmean(values), statistics.stdev(values)
    if not spread:
        return Measured(mean)
    half = student.half_width(spread, len(values))
    return Measured(mean, mean - half, mean + half)


def _scaled(number: Measured, factor: float) -> Measured:
    low, high = (None if x is None else factor * x for x in (number.low, number.high))
    return Measured(factor * number.value, low, high)


def read(record: Record, field: str) -> Measured | None:
    """Return one number of a record; None if the record lacks it."""
    if field.removeprefix("good_") in ALIKE:
        return _alike(record, field)
    if hasattr(record.timing, field):
        value = getattr(record.timing, field)
        return None if value is None else Measured(float(value))
    name, _, statistic = field.rpartition("_")
    population = record.populations[name]
    value = getattr(population, statistic)
    if statistic == "mean" and population.n > 1:
        return Measured(value, population.low, population.high)
    return Measured(value)


def _alike(record: Record, field: str) -> Measured | None:
    """Return a similarity of a record, for "good_" names among good models alone; None if the record lacks it."""
    good, (name, part, among_good) = record.judge.good, ALIKE[field.removeprefix("good_")]
    if field.startswith("good_"):
        value = getattr(good, among_good) if good else None
        return None if value is None else Measured(value)
    likeness: Likeness | None = getattr(record.populations[name].similarity, part)
    return Measured(likeness.value, *likeness.bounds) if likeness else None
