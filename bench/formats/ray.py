"""Trees of Ray Tune, as model zoos are published: <trial>/checkpoint_000050/checkpoints, params.json, result.json.

The file of a checkpoint has no suffix; its optimizer lies beside it. ``result.json`` has a line of JSON an iteration;
``progress.csv`` has the same as a table.
"""

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench.errors import BadRequest
from bench.formats.checkpoint import Checkpoint, holds_weights, merged, walk
from bench.system import reading
from bench.system.data import Json

LIMIT = 200_000_000  # bytes of a file of results
_CHECKPOINT = re.compile(r"checkpoint_0*(\d+)")
_RESULTS, _TABLE, _PARAMETERS = "result.json", "progress.csv", "params.json"
MARKS = (_RESULTS, _TABLE, _PARAMETERS)


def find(root: Path) -> list[Checkpoint]:
    """Return the checkpoints of all trials in and below a folder."""
    return [one for folder, names in walk(root) for one in _trial(folder, names, root)]


def is_trial(folder: Path, names: list[str]) -> bool:
    """Return whether a folder is one trial of Ray Tune."""
    return bool({*MARKS} & {*names}) and any(_checkpoints(folder))


def _checkpoints(folder: Path) -> Iterator[tuple[int, Path]]:
    """Yield the iteration and the folder of every checkpoint of a trial."""
    for path in sorted(folder.iterdir()):
        if (found := _CHECKPOINT.fullmatch(path.name)) and path.is_dir():
            yield int(found[1]), path


def _trial(folder: Path, names: list[str], root: Path) -> Iterator[Checkpoint]:
    """Yield the checkpoints of a trial, with what its files tell; none for a folder that is no trial."""
    numbered = list(_checkpoints(folder))
    if not numbered:
        return
    fixed = _numbers(_parsed(folder / _PARAMETERS)) if _PARAMETERS in names else {}
    results = _results(folder, names)
    run = folder.relative_to(root).as_posix() if folder != root else folder.name
    for epoch, inside in numbered:
        paths = (path for path in sorted(inside.iterdir()) if path.is_file())
        usual = inside / "checkpoints"
        found = [usual] if usual.is_file() else [path for path in paths if holds_weights(path)]
        for files in merged(found):
            yield Checkpoint(files, run, epoch, {**fixed, **results.get(epoch, {})})


def _results(folder: Path, names: list[str]) -> dict[int, dict[str, float]]:
    """Return the metrics of every iteration that a trial reports."""
    lines: list[Mapping[str, Json]] = []
    if _RESULTS in names:
        text = _text(folder / _RESULTS).splitlines()
        lines = [_line(folder / _RESULTS, number, line) for number, line in enumerate(text, 1)]
    elif _TABLE in names:
        lines = list(csv.DictReader(io.StringIO(_text(folder / _TABLE))))
    metrics = [_numbers(line) for line in lines]
    return {int(one["training_iteration"]): one for one in metrics if "training_iteration" in one}


def _line(path: Path, number: int, text: str) -> Mapping[str, Json]:
    """Return a line of results.

    Raises:
        BadRequest: it is no JSON object.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise BadRequest(
            f"{path}: line {number} is no JSON object: cut it off, or copy the file again"
        )
    return found


def _parsed(path: Path) -> Mapping[str, Json]:
    return _line(path, 1, _text(path))


def _text(path: Path) -> str:
    return reading.content(path, LIMIT, "file of results").decode("utf-8", errors="replace")


def _numbers(values: Mapping[str, Json]) -> dict[str, float]:
    """Return the values that are finite numbers, or texts of one as a table has them."""
    found = {}
    for name, value in values.items():
        try:
            number = float("nan") if isinstance(value, bool | list | dict | None) else float(value)
        except (ValueError, OverflowError):
            continue
        if number == number and abs(number) != float("inf"):
            found[str(name)] = number
    return found
