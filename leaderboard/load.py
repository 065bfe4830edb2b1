"""Reading of folders of records into the table of runs: one row a record, without the scores of single models.

Every text from a record passes through ``printable`` here, so that nothing invisible reaches a page.
"""

import gc
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import BadRequest, printable, unexpected
from bench.records.record import Record
from leaderboard import facts
from leaderboard.columns import FIELDS, GENERATED
from leaderboard.facts import FACTS

BOARD = [fact.name for fact in facts.BOARD]
# Columns that the runs of one row share: the generator's name, code, settings and alignment, and the device.
VARIANT = [*(fact.name for fact in facts.GENERATOR), "device"]


@dataclass(frozen=True)
class Broken:
    """A file or folder that is left out of every table, and the reason."""

    path: str
    reason: str


def load(folders: Iterable[Path]) -> tuple[pd.DataFrame, list[Broken]]:
    """Return the table of all runs below some folders, and the files and folders that are left out.

    A record that is found twice counts once. Of several records of one run (same board, variant and seed) the newest
    counts; the older ones are left out.

    Returns:
        One row a valid record, in a fixed order, with the columns of ``summary`` and ``board``; and what is left out,
        with the reason.
    """
    broken: list[Broken] = []
    rows = []
    with _no_garbage_collection():
        for path in _files(folders, broken):
            try:
                rows.append(summary(Record.read(path), path))
            except BadRequest as error:
                broken.append(_broken(path, str(error).removeprefix(f"{path} ")))
            except Exception as error:  # no single file takes the others down
                broken.append(_broken(path, unexpected(error)))
    frame = _typed(rows, broken)
    frame = frame.sort_values(["key", "id", "created", "path"], kind="stable")
    frame = _newest(frame, broken).reset_index(drop=True)
    frame["board"] = _board_names(frame)
    return frame, broken


def _typed(rows: list[dict[str, Any]], broken: list[Broken]) -> pd.DataFrame:
    """Return rows as a table with its columns' types; a row with a value that fits none is added to ``broken``."""
    try:
        return pd.DataFrame(rows, columns=COLUMNS).astype(TYPES)
    except Exception as error:
        if len(rows) == 1:
            broken.append(_broken(Path(rows[0]["path"]), unexpected(error)))
            return _typed([], broken)
        middle = len(rows) // 2
        return pd.concat([_typed(half, broken) for half in (rows[:middle], rows[middle:])])


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Pause the garbage collector's search for reference cycles.

    Records make many objects and no cycles, and the search would take a third of the time.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _files(folders: Iterable[Path], broken: list[Broken]) -> list[Path]:
    """Return the JSON files below the folders, each once; folders that are missing are added to ``broken``."""
    found: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            broken.append(_broken(folder, "no such folder"))
        for parent, folders_in, names in os.walk(folder):
            folders_in.sort()
            odd = [name for name in folders_in if name.endswith(".json")]
            for name in sorted([*names, *odd]):
                path = Path(parent, name)
                if not name.endswith(".json"):
                    continue
                if path.is_file():
                    found.setdefault(os.path.realpath(path), path)
                else:
                    broken.append(_broken(path, "not a file"))
    return list(found.values())


def _broken(path: Path, reason: str) -> Broken:
    return Broken(printable(str(path)), printable(reason))


def _newest(frame: pd.DataFrame, broken: list[Broken]) -> pd.DataFrame:
    """Return the newest record of each run; older ones with other content are added to ``broken``."""
    frame = frame.sort_values("created", kind="stable", ascending=False)
    run = [*BOARD, *VARIANT, "seed"]
    again = frame.duplicated(run)
    if again.any():
        kept = frame[~again][[*run, "path", "content"]]
        both = frame[again].merge(kept, on=run, suffixes=("", "_kept"))
        for row in both[both["content"] != both["content_kept"]].itertuples():
            reason = f"the same run was made again: {row.path_kept}"
            broken.append(_broken(Path(str(row.path)), reason))
    return frame[~again].sort_values(["key", "id"], kind="stable")


def _board_names(frame: pd.DataFrame) -> "pd.Series[str]":
    """Return each run's board: its key, with a hash of the board's facts where runs with one key differ in them."""
    names: pd.Series[str] = frame["key"].astype(str)
    boards = frame.drop_duplicates(BOARD)
    shared = boards["key"].duplicated(keep=False)
    for key in boards.loc[shared, "key"].unique():
        for row in boards[boards["key"] == key][BOARD].itertuples(index=False):
            same = (frame[BOARD] == pd.Series(row._asdict())).all(axis=1)
            names[same] = f"{key}-{hashlib.sha256(repr(tuple(row)).encode()).hexdigest()[:4]}"
    return names


# One record as a row -------------------------------------------------------------------------------------------------


def summary(record: Record, path: Path) -> dict[str, Any]:
    """Return a record's row: its facts, and the fields of its generated models.

    Scores are in the metric's own unit, times in seconds; values that the record does not have are None.
    """
    row = {fact.name: fact.read(record) for fact in FACTS}
    row |= {field.name: field.read(record, GENERATED) for field in FIELDS}
    text = {name: printable(value) for name, value in row.items() if isinstance(value, str)}
    return {"path": str(path), **row, **text}


TYPES = {fact.name: fact.dtype for fact in FACTS if fact.dtype}
TYPES |= {field.name: field.dtype for field in FIELDS if field.dtype != "object"}
COLUMNS = ["path", *(fact.name for fact in FACTS), *(field.name for field in FIELDS)]
