"""The p-diff paper's tables and the figures of its official logs, number by number. Imports neither torch nor pandas.

Facts: "Neural Network Diffusion" (arXiv 2402.13144) in ``paper.toml``; the 62 log files that its official repository
ships (NUS-HPC-AI-Lab/Neural-Network-Diffusion, commit 0ecca89) in ``official_logs.csv``, accuracies in [0, 1].
"""

import csv
import functools
import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bench.system.data import Json

FOLDER = Path(__file__).parent
# Mean IoU within and between populations; "good" is among models of a run's ``min_score`` or better alone.
SIMILARITIES = {"orig.-orig.": "oo", "gen.-gen.": "gg", "orig.-gen.": "og", "nearest": "og_max"}
# Which of our numbers (columns of ``leaderboard.load``) stands against which of theirs, for generated models and for
# the rows that are the originals'.
OURS = {
    "generated": {
        "original": "original_best", "ensemble": "average_selected", "best": "generated_best",
        "avg.": "generated_mean", "med.": "generated_median", "worst": "generated_worst",
        "selected": "generated_selected",
        "time, s": "sample_s", "memory, MB": "peak_memory_bytes",
        **SIMILARITIES,
        **{f"good {name}": f"good_{field}" for name, field in SIMILARITIES.items()},
        "speedup": "speedup", "amortised": "speedup_amortised",
    },
    "original": {"best": "original_best", "avg.": "original_mean", "med.": "original_median"},
}  # fmt: skip
LOGGED = {
    "generated": {
        "original": "o_max", "best": "g_max", "avg.": "g_mean", "med.": "g_med", "worst": "g_min",
        **SIMILARITIES,
    },
    "original": {"best": "o_max", "avg.": "o_mean", "med.": "o_med"},
}  # fmt: skip
SCORES = ("original", "ensemble", "best", "selected", "avg.", "med.", "worst")


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Row(_Facts):
    """One row of a table: the paper's numbers, and the run that measures them.

    Attributes:
        label: what the row is called, one part for each of the table's ``head``.
        paper: one number a column; "" where there is none.
        run: what the run is asked for, beyond what the whole table shares.
        log: tag of the official log of the same setting.
        population: whose scores the numbers are.
    """

    label: list[str]
    paper: list[float | Literal[""]]
    run: dict[str, Json] = Field(default_factory=dict)
    log: str | None = None
    population: Literal["generated", "original"] = "generated"


class Table(_Facts):
    """One table, or one part of a table.

    Attributes:
        head: names of the label's parts.
        columns: names of the numbers, of ``OURS``.
        run: what all rows' runs are asked for; a row whose run has no task cannot be run.
        digits: decimals that the paper prints.
        percent: whether scores are printed in percent.
    """

    id: str
    title: str
    head: list[str]
    columns: list[str]
    run: dict[str, Json]
    note: str = ""
    digits: int = 1
    percent: bool = True
    row: list[Row]

    @model_validator(mode="after")
    def _whole(self) -> "Table":
        for column in self.columns:
            if column not in OURS["generated"]:
                raise ValueError(f"unknown column '{column}'")
        for row in self.row:
            if len(row.label) != len(self.head) or len(row.paper) != len(self.columns):
                raise ValueError(f"row {row.label} does not fit head and columns")
        return self

    def settings(self, row: Row) -> dict[str, Json]:
        """Return the settings that the row's run is asked for; none where there is no such task."""
        merged = {**self.run, **row.run}
        return merged if "task" in merged else {}

    def factor(self, column: str) -> float:
        """Return the factor that brings our number to the paper's unit."""
        if column == "memory, MB":
            return 1e-6
        return 100.0 if self.percent and column in SCORES else 1.0


@functools.cache
def tables() -> dict[str, Table]:
    """Return all tables by their number."""
    data = tomllib.loads((FOLDER / "paper.toml").read_text(encoding="utf-8"))
    return {table.id: table for table in map(Table.model_validate, data["table"])}


@functools.cache
def logs() -> dict[str, dict[str, str]]:
    """Return the figures of the official logs by tag."""
    with (FOLDER / "official_logs.csv").open(encoding="utf-8") as file:
        return {row["tag"]: row for row in csv.DictReader(file)}


def logged(table: Table, row: Row, column: str) -> float | None:
    """Return the official log's number for a cell, in the paper's unit; None where there is none."""
    field = LOGGED[row.population].get(column)
    log = logs().get(row.log or "")
    return table.factor(column) * float(log[field]) if log and field else None
