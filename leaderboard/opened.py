"""Reading of one record with its side file. No widgets, no torch."""

import re
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BadRequest, line, printable
from bench.records import side
from bench.records.checks import shapes
from bench.records.checks.case import Case
from bench.records.record import Record


@dataclass(frozen=True)
class Shown:
    """One run with its side file, as a page shows it.

    Attributes:
        label: its name in legends, in printable characters; not escaped for Markdown or HTML.
        record: the whole record.
        side: arrays of ``bench.records.side``, those alone that a run of the record may have written; empty where
            there is no side file.
        problem: why there is no side file, or what is wrong with one of its arrays, or empty.
    """

    label: str
    record: Record
    side: side.Arrays
    problem: str = ""


def open_record(path: Path, label: str = "", only: re.Pattern[str] | None = None) -> Shown:
    """Return a record and the side file beside it.

    Args:
        path: of the record.
        label: its name in legends.
        only: matches the names of the arrays that are wanted; None for all.

    A side file that is missing, or is not the one that the record names, is a ``problem`` and no error.

    Raises:
        BadRequest: the record is missing or invalid.
    """
    record = Record.read(path)
    named = record.artifacts.side
    if named is None:
        return Shown(label, record, {}, "this record was written without one")
    file = path.with_suffix(".npz")  # never the name in the record: it could lead anywhere
    try:
        read = side.read(file, named.sha256, only)
        arrays, problems = shapes.valid(Case(record, read))
    except BadRequest as error:
        return Shown(label, record, {}, printable(str(error)))
    return Shown(label, record, arrays, line(next(iter(problems), "")))
