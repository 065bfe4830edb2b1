"""The p-diff paper's tables and the figures of its official logs as data. Imports neither torch nor pandas.

Sources: "Neural Network Diffusion" (arXiv 2402.13144) in ``paper.toml``; the 62 log files in the paper's official
repository (NUS-HPC-AI-Lab/Neural-Network-Diffusion, commit 0ecca89) in ``official_logs.csv``, accuracies in [0, 1].
"""

import csv
import functools
import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bench.system.data import Json

FOLDER = Path(__file__).parent
# Mean IoU within and between populations; the columns "good ..." are among models of ``min_score`` or better alone.
SIMILARITIES = {"orig.-orig.": "oo", "gen.-gen.": "gg", "orig.-gen.": "og", "nearest": "og_max"}
# The record's number (a column of ``leaderboard.load``) for each column of the paper's tables, by the population of the
# row.
OURS = {
    "generated": {
        "original": "original_best", "ensemble": "average_selected", "best": "generated_best",
        "avg.": "generated_mean", "med.": "generated_median", "worst": "generated_worst",
        "selected": "generated_selected",
        "time, s": "sample_s", "memory, MB": "peak_memory_bytes",
        **SIMILARITIES,
        **{f"good {name}": f"good_{field}" for name, field in SIMILARITIES.items()},
        "speedup": "speedup", "amortised": "speedup_amortised_100",
    },
    "original": {"best": "original_best", "avg.": "original_mean", "med.": "original_median"},
}  # fmt: skip
# The field of ``official_logs.csv`` for each column, by the population of the row.
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
        label: the row's label, one part for each of the table's ``head``.
        paper: one number a column; "" where the paper has none.
        run: options of the run, beyond those that all rows of the table share.
        log: tag of the official log of the same setting.
        population: the population whose scores the numbers are.
    """

    label: list[str]
    paper: list[float | Literal[""]]
    run: dict[str, Json] = Field(default_factory=dict)
    log: str | None = None
    population: Literal["generated", "original"] = "generated"


class Table(_Facts):
    """One table, or one part of a table.

    Attributes:
        head: headings of the label's parts.
        columns: names of the numbers, among the keys of ``OURS``.
        run: options that the runs of all rows share; a row whose options name no task cannot be run.
        note: remark on the table, for readers.
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
        """Return the options of the row's run; none where no task measures the row."""
        merged = {**self.run, **row.run}
        return merged if "task" in merged else {}

    def factor(self, column: str) -> float:
        """Return the factor that converts a record's number to the paper's unit: percent, megabytes or the same."""
        if column == "memory, MB":
            return 1e-6
        return 100.0 if self.percent and column in SCORES else 1.0


@functools.cache
def tables() -> dict[str, Table]:
    """Return all tables of the paper by their number."""
    data = tomllib.loads((FOLDER / "paper.toml").read_text(encoding="utf-8"))
    return {table.id: table for table in map(Table.model_validate, data["table"])}


@functools.cache
def logs() -> dict[str, dict[str, str]]:
    """Return the figures of the official logs by their tag."""
    with (FOLDER / "official_logs.csv").open(encoding="utf-8") as file:
        return {row["tag"]: row for row in csv.DictReader(file)}


def logged(table: Table, row: Row, column: str) -> float | None:
    """Return the official log's number for a cell, in the paper's unit; None where there is none."""
    field = LOGGED[row.population].get(column)
    log = logs().get(row.log or "")
    return table.factor(column) * float(log[field]) if log and field else None
