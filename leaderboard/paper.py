"""Comparison of the p-diff paper's tables (``bench.records.paper``) with official logs and our records; no widgets."""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench.errors import printable
from bench.records.asked import TASK_OPTIONS, Asked
from bench.records.paper import OURS, Row, Table, logged, logs
from bench.records.request import Request
from bench.records.values import written
from leaderboard.formats import times

OPTIONS = ("task", "generator", "arch", "layers", "track", "k", "pretrained")
NEAREST = {"paper": 0, "quick": 1}  # presets, the nearest to the paper's setting first
DEFAULTS = {"layers": "last-norms:2", "track": "trajectory", "k": 200}


def command(settings: Mapping[str, Any]) -> str:
    """Return the command line that measures a row of a table with the paper's recipe."""
    return _asked(tuple(settings.items())).command


@functools.cache  # a page needs the requests of a whole table
def _asked(settings: tuple[tuple[str, Any], ...]) -> Asked:
    return Request.named({**dict(settings), "preset": "paper"}).asked


# Claims --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Claim:
    """One claim of the paper beside its logs and our records, as text.

    Attributes:
        claim: what is claimed.
        paper, logs, ours: what each says.
        same: whether ours is at the paper's setting, and if not, why.
    """

    claim: str
    paper: str
    logs: str
    ours: str
    same: str


def claims(runs: pd.DataFrame) -> list[Claim]:
    """Return the paper's three claims on p-diff, with what its official logs and our records say."""
    own = runs[(runs["generator"] == "pdiff") & runs["percent"].astype(bool)]
    presets = sorted(set(own["preset"]))
    same = (
        "yes"
        if presets == ["paper"]
        else f"no: {', '.join(presets) or 'no'} preset, smaller data"
        if len(own)
        else "-"
    )
    every = list(logs().values())
    gains = [100 * (float(log["g_max"]) - float(log["o_max"])) for log in every]
    alike = sum(float(log["gg"]) > float(log["oo"]) for log in every)
    return [
        Claim(
            "Generated models are as good as the best original, or better",
            "best generated at or above best original in most rows",
            f"best generated minus best original: {sum(gains) / len(gains):+.2f} points on average, {len(every)} runs",
            _counted(
                own["generated_best"] >= own["original_best"],
                "records with a best at or above the best original",
            ),
            same,
        ),
        Claim(
            "Generated models are less alike than originals are",
            "lower IoU among generated models",
            f"generated models are more alike in {alike} of {len(every)} runs",
            _counted(own["gg"] > own["oo"], "records with generated models more alike"),
            same,
        ),
        Claim(
            "It is 15 to 44 times faster than training",
            "sampling alone, without collecting and fitting",
            "-",
            _speedups(own),
            same,
        ),
    ]


def _counted(true: "pd.Series[bool]", what: str) -> str:
    return f"{int(true.sum())} of {len(true)} {what}" if len(true) else "-"


def _speedups(own: pd.DataFrame) -> str:
    one, every = (own[name].dropna() for name in ("speedup", "speedup_amortised_100"))
    if one.empty or every.empty:
        return "-"
    alone, whole = times(one.median()), times(every.median())
    return (
        f"{alone} for sampling alone, {whole} over 100 models with all that comes before (medians)"
    )


# Our records ---------------------------------------------------------------------------------------------------------


def matching(runs: pd.DataFrame, settings: Mapping[str, Any]) -> pd.DataFrame:
    """Return the runs that measure a row of a table, on the board that is nearest to the paper's setting.

    Args:
        runs: the table of runs.
        settings: options of the row's run.

    Returns:
        Rows of ``runs``, one a seed, with the column ``differs``: in words, how they differ from the paper's setting.
    """
    asked = {**DEFAULTS, **settings}
    wanted = {name: asked[name] for name in OPTIONS if name in asked and name != "pretrained"}
    keep = pd.Series(True, index=runs.index)
    for name, value in wanted.items():
        keep &= runs[name] == value
    found = runs[keep & ~runs["aligned"].astype(bool)]
    if found.empty:
        return found
    paper = _asked(tuple(settings.items())).changes
    found = found.assign(asked=found["changes"].map(json.loads))
    same = [one["generator_settings"] == paper["generator_settings"] for one in found["asked"]]
    found = found[same]
    if found.empty:
        return found
    found = found.assign(differs=[_differs(row, paper) for row in found.to_dict("records")])
    nearness = (
        found["preset"].map(NEAREST).fillna(len(NEAREST))
    )  # other presets are the generator's own
    order = ["nearness", "val_size", "board"]
    best = found.assign(nearness=nearness).sort_values(order, ascending=[True, False, True]).iloc[0]
    columns = ["board", "preset", "source", "device", "differs"]
    return found[(found[columns] == best[columns]).all(axis=1)].sort_values("seed")


def _differs(run: Mapping[Any, Any], wanted: Mapping[str, Any]) -> str:
    """Return in words how a run differs from the paper's setting."""
    ours, theirs = _changes(run["asked"]), _changes(wanted)
    parts = [] if run["preset"] == "paper" else [f"{run['preset']} preset"]
    parts += [change for change in ours if change not in theirs]
    return ", ".join([*parts, *(f"not {change}" for change in theirs if change not in ours)])


def _changes(asked: Mapping[str, Any]) -> list[str]:
    """Return the task's changed settings in words, without those with an option of their own, which are columns."""
    changed = asked["task_settings"].items()
    return [
        printable(f"{name}={written(value)}") for name, value in changed if name not in TASK_OPTIONS
    ]


def shown(table: Table, runs: pd.DataFrame) -> pd.DataFrame:
    """Return a table of the paper as text: ours with its setting, the paper's numbers, the official log's.

    Columns are named "ours: best", "paper: best", "log: best". Scores are in the unit of the paper's table. Rows that a
    record measures come first.
    """
    rows = [_cells(table, row, runs) for row in table.row]
    rows.sort(key=lambda row: not row.get(("ours", "setting")))
    named = [{": ".join(filter(None, name)): text for name, text in row.items()} for row in rows]
    found = pd.DataFrame(named).fillna("")
    order = ["ours: setting", *(name for name in map(str, found) if name.startswith("ours: "))]
    first = [*table.head, *dict.fromkeys(name for name in order if name in found)]
    return found[[*first, *(name for name in found if name not in first)]]


def _cells(table: Table, row: Row, runs: pd.DataFrame) -> dict[tuple[str, str], str]:
    cells = {("", head): label for head, label in zip(table.head, row.label, strict=True)}
    for name, number in zip(table.columns, row.paper, strict=True):
        cells["paper", name] = "" if number == "" else f"{number:.{table.digits}f}"
    log = logs().get(row.log or "", {})
    if any(one.log for one in table.row):
        for name in (n for n in table.columns if n != "ensemble"):  # the logs have no ensemble
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
    """Return label and command of each row that no record measures at the paper's setting."""
    found = []
    for row in table.row:
        settings = table.settings(row)
        if not settings:
            continue
        ours = matching(runs, settings)
        if ours.empty or ours["differs"].iloc[0]:
            found.append((", ".join(row.label), command(settings)))
    return found
