"""The p-diff paper's tables beside the official logs and our records: pure functions, no widgets.

Facts: "Neural Network Diffusion" (arXiv 2402.13144) in ``paper.toml``; the 62 log files that its official repository
ships (NUS-HPC-AI-Lab/Neural-Network-Diffusion, commit 0ecca89) in ``official_logs.csv``, accuracies in [0, 1].
"""

import csv
import functools
import itertools
import json
import shlex
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

FOLDER = Path(__file__).parent
OPTIONS = ("task", "generator", "arch", "layers", "track", "k", "pretrained")
DEFAULTS = {"layers": "last-norms:2", "track": "trajectory", "k": 200}
# Which of our numbers stands against which of theirs, for generated models and for the rows that are the originals'.
OURS = {
    "generated": {
        "original": "original_best", "ensemble": "average_selected", "best": "generated_best",
        "avg.": "generated_mean", "med.": "generated_median",
    },
    "original": {"best": "original_best", "avg.": "original_mean", "med.": "original_median"},
}  # fmt: skip
LOGGED = {
    "generated": {"original": "o_max", "best": "g_max", "avg.": "g_mean", "med.": "g_med"},
    "original": {"best": "o_max", "avg.": "o_mean", "med.": "o_med"},
}


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Row(_Facts):
    """One row of a table: the paper's numbers, and the run that measures them."""

    label: list[str]
    paper: list[float | Literal[""]]
    run: dict[str, Any] = Field(default_factory=dict)
    log: str | None = None
    population: Literal["generated", "original"] = "generated"


class Table(_Facts):
    """One table, or one part of a table."""

    id: str
    title: str
    head: list[str]
    columns: list[str]
    run: dict[str, Any]
    note: str = ""
    row: list[Row]

    def settings(self, row: Row) -> dict[str, Any]:
        """What the row's run is asked for; nothing where the suite has no such task."""
        merged = {**self.run, **row.run}
        return {**DEFAULTS, **merged} if "task" in merged else {}


@functools.cache
def tables() -> dict[str, Table]:
    """All tables by their number."""
    data = tomllib.loads((FOLDER / "paper.toml").read_text(encoding="utf-8"))
    return {table.id: table for table in map(Table.model_validate, data["table"])}


@functools.cache
def logs() -> dict[str, dict[str, str]]:
    """The figures of the official logs by tag."""
    with (FOLDER / "official_logs.csv").open(encoding="utf-8") as file:
        return {row["tag"]: row for row in csv.DictReader(file)}


def hyperparameters(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those that a row sets, by name."""
    return {n.removeprefix("set."): v for n, v in settings.items() if n.startswith("set.")}


def command(settings: Mapping[str, Any]) -> str:
    """The command line that measures a row with the paper's recipe."""
    words = ["python", "-m", "bench", "run"]
    for name in OPTIONS:
        if name in settings and settings[name] != DEFAULTS.get(name):
            words += [f"--{name}", str(settings[name])]
    words += ["--preset", "paper"]
    for name, value in hyperparameters(settings).items():
        words += ["--set", f"{name}={value}"]
    return shlex.join(words)


# Our records ---------------------------------------------------------------------------------------------------------


def explicit(command_line: str) -> tuple[dict[str, Any], list[str]]:
    """The generator's hyperparameters that a command sets, and what it changes of the task."""
    try:
        words = shlex.split(command_line)
    except ValueError:
        return {}, []
    own: dict[str, Any] = {}
    changes: list[str] = []
    for option, value in itertools.pairwise(words):
        name, _, text = value.partition("=")
        if option == "--set" and name.startswith("task."):
            changes.append(f"{name.removeprefix('task.')}={text}")
        elif option == "--set":
            own[name] = _value(text)
    return own, changes


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def matching(runs: pd.DataFrame, settings: Mapping[str, Any]) -> pd.DataFrame:
    """The runs of a row: of the boards that have any, the one nearest to the paper's setting.

    Its column ``differs`` says how they were run otherwise than the paper did.
    """
    wanted = {name: settings[name] for name in OPTIONS if name in settings and name != "pretrained"}
    keep = pd.Series(True, index=runs.index)
    for name, value in wanted.items():
        keep &= runs[name] == value
    found = runs[keep & ~runs["aligned"].astype(bool)]
    sets = [explicit(line) for line in found["command"]]
    own = hyperparameters(settings)
    found = found[[given == own for given, _ in sets]]
    if found.empty:
        return found
    differs = [_differs(row, explicit(str(row["command"]))[1]) for row in found.to_dict("records")]
    found = found.assign(differs=differs)
    best = found.sort_values(["preset", "val_size", "board"], ascending=[True, False, True]).iloc[0]
    same = ["board", "preset", "source", "device", "differs"]
    return found[(found[same] == best[same]).all(axis=1)].sort_values("seed")


def _differs(run: Mapping[Any, Any], changes: list[str]) -> str:
    """How a run differs from the paper's setting, in words."""
    parts = [] if run["preset"] == "paper" else [f"{run['preset']} preset"]
    return ", ".join([*parts, *changes])


def shown(table: Table, runs: pd.DataFrame) -> pd.DataFrame:
    """A table as the page shows it: theirs, the official log's and ours, as text, one row a row.

    Columns are named "paper: best", "log: best", "ours: best". Scores are in percent.
    """
    rows = [_cells(table, row, runs) for row in table.row]
    named = [{": ".join(filter(None, name)): text for name, text in row.items()} for row in rows]
    return pd.DataFrame(named)


def _cells(table: Table, row: Row, runs: pd.DataFrame) -> dict[tuple[str, str], str]:
    cells = {("", head): label for head, label in zip(table.head, row.label, strict=True)}
    digits = 2 if table.id == "12" else 1
    for name, number in zip(table.columns, row.paper, strict=True):
        cells["paper", name] = "" if number == "" else f"{number:.{digits}f}"
    log = logs().get(row.log or "", {})
    if any(one.log for one in table.row):
        for name in (n for n in table.columns if n != "ensemble"):  # they have none
            field = LOGGED[row.population].get(name)
            cells["log", name] = f"{100 * float(log[field]):.2f}" if log and field else ""
        cells["log", "K"] = log.get("n_ckpt", "")
    settings = table.settings(row)
    if not settings:
        return cells
    found = matching(runs, settings)
    for name in table.columns:
        field = OURS[row.population].get(name)
        known = len(found) and field
        cells["ours", name] = f"{100 * found[field].mean():.2f}" if known else ""
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
