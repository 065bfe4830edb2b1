"""The p-diff paper's tables (``bench.records.paper``) beside the official logs and our records; no widgets."""

import functools
from collections.abc import Mapping
from typing import Any

import pandas as pd

from bench.records import request
from bench.records.paper import OURS, Row, Table, logged, logs
from leaderboard.variants import explicit

OPTIONS = ("task", "generator", "arch", "layers", "track", "k", "pretrained")
DEFAULTS = {"layers": "last-norms:2", "track": "trajectory", "k": 200}


def command(settings: Mapping[str, Any]) -> str:
    """The command line that measures a row with the paper's recipe."""
    return _command(tuple(settings.items()))


@functools.cache  # the page asks for all of a table's whenever it is drawn
def _command(settings: tuple[tuple[str, Any], ...]) -> str:
    return request.command(request.of({**dict(settings), "preset": "paper"}))


# Our records ---------------------------------------------------------------------------------------------------------


def matching(runs: pd.DataFrame, settings: Mapping[str, Any]) -> pd.DataFrame:
    """The runs of a row: of the boards that have any, the one nearest to the paper's setting.

    Its column ``differs`` says how they were run otherwise than the paper did.
    """
    asked = {**DEFAULTS, **settings}
    wanted = {name: asked[name] for name in OPTIONS if name in asked and name != "pretrained"}
    keep = pd.Series(True, index=runs.index)
    for name, value in wanted.items():
        keep &= runs[name] == value
    found = runs[keep & ~runs["aligned"].astype(bool)]
    if found.empty:
        return found
    sets = [explicit(line) for line in found["command"]]
    own, changes = explicit(command(settings))
    found = found[[given == own for given, _ in sets]]
    if found.empty:
        return found
    differs = [
        _differs(row, explicit(str(row["command"]))[1], changes) for row in found.to_dict("records")
    ]
    found = found.assign(differs=differs)
    best = found.sort_values(["preset", "val_size", "board"], ascending=[True, False, True]).iloc[0]
    same = ["board", "preset", "source", "device", "differs"]
    return found[(found[same] == best[same]).all(axis=1)].sort_values("seed")


def _differs(run: Mapping[Any, Any], changes: list[str], wanted: list[str]) -> str:
    """How a run differs from the paper's setting, in words."""
    parts = [] if run["preset"] == "paper" else [f"{run['preset']} preset"]
    parts += [change for change in changes if change not in wanted]
    return ", ".join([*parts, *(f"not {change}" for change in wanted if change not in changes)])


def shown(table: Table, runs: pd.DataFrame) -> pd.DataFrame:
    """A table as the page shows it: theirs, the official log's and ours, as text, one row a row.

    Columns are named "paper: best", "log: best", "ours: best". Scores are in percent.
    """
    rows = [_cells(table, row, runs) for row in table.row]
    named = [{": ".join(filter(None, name)): text for name, text in row.items()} for row in rows]
    return pd.DataFrame(named)


def _cells(table: Table, row: Row, runs: pd.DataFrame) -> dict[tuple[str, str], str]:
    cells = {("", head): label for head, label in zip(table.head, row.label, strict=True)}
    for name, number in zip(table.columns, row.paper, strict=True):
        cells["paper", name] = "" if number == "" else f"{number:.{table.digits}f}"
    log = logs().get(row.log or "", {})
    if any(one.log for one in table.row):
        for name in (n for n in table.columns if n != "ensemble"):  # they have none
            theirs = logged(table, row, name)
            cells["log", name] = "" if theirs is None else f"{theirs:.2f}"
        cells["log", "K"] = log.get("n_ckpt", "")
    settings = table.settings(row)
    if not settings:
        return cells
    found = matching(runs, settings)
    for name in table.columns:
        field = OURS[row.population].get(name)
        known = len(found) and field
        mean = table.factor(name) * found[field].mean() if known else None
        cells["ours", name] = "" if mean is None else f"{mean:.2f}"
    cells["ours", "seeds"] = str(len(found)) if len(found) else ""
    cells["ours", "setting"] = str(found["differs"].iloc[0]) or "the paper's" if len(found) else ""
    return cells


def missing(table: Table, runs: pd.DataFrame) -> list[tuple[str, str]]:
    """Rows that no record measures at the paper's setting, and the command that does."""
    found = []
    for row in table.row:
        settings = table.settings(row)
        if not settings:
            continue
        ours = matching(runs, settings)
        if ours.empty or ours["differs"].iloc[0]:
            found.append((", ".join(row.label), command(settings)))
    return found
