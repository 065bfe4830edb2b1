"""Boards: groups of runs that are ranked together. Pure functions, no widgets, no torch."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from bench.records.protocol import PROTOCOL
from bench.records.scale import Scale
from leaderboard import facts
from leaderboard.facts import Fact

SHARED = [fact.name for fact in (*facts.BOARD, *facts.METRIC)]
HASHES = ("dataset_hash", "zoo_hash")  # compared, and never shown


def boards(runs: pd.DataFrame) -> pd.DataFrame:
    """Return a table of boards, one row each: shared facts, and numbers of records and generators.

    Boards are sorted by task, architecture, layers and track; of equal ones that of the newest protocol comes first,
    and then the one with most records.
    """
    grouped = runs.groupby("board", sort=False)
    found = grouped[SHARED].first()
    found["records"] = grouped.size()
    found["generators"] = grouped["generator"].nunique()
    found = found.assign(oldest=-found["version"], fewest=-found["records"])
    order = ["task", "arch", "layers", "track", "oldest", "fewest", "k", "key"]
    found = found.reset_index().sort_values(order, kind="stable", ignore_index=True)
    return found.drop(columns=["oldest", "fewest"])


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a table's rows as mappings from column to value."""
    return [{str(k): v for k, v in row.items()} for row in frame.to_dict("records")]


def largest(found: pd.DataFrame) -> str:
    """Return the name of the board with most records among those of the newest protocol, the first of several."""
    newest = found[found["version"] == found["version"].max()]
    return str(newest["board"].iloc[int(newest["records"].to_numpy().argmax())])


TRACKS = {"trajectory": "steps of one run", "seeds": "independent runs"}


def title(board: Mapping[str, Any]) -> str:
    """Return a board's title in words: task, architecture, what is generated, checkpoints and samples.

    One of an earlier protocol says so: its records have no reference.
    """
    part = "all weights" if board["layers"] == "all" else f"weights of {board['layers']}"
    track = TRACKS.get(str(board["track"]), str(board["track"]))
    earlier = f", protocol {board['version']}" if board["version"] < PROTOCOL else ""
    return (
        f"{board['task']}: {board['arch']}, {part}; {board['k']:,} checkpoints, {track}; "
        f"{board['samples']:,} samples{earlier}"
    )


def titles(found: pd.DataFrame) -> dict[str, str]:
    """Return the titles of boards by their names; those of one title have their names as well."""
    entries = records(found)
    several = Counter(map(title, entries))
    return {
        str(one["board"]): title(one) + (f" ({one['board']})" if several[title(one)] > 1 else "")
        for one in entries
    }


def scale(board: Mapping[str, Any]) -> Scale:
    """Return the scale of a board's scores, with as many decimals as make one validation example visible."""
    return Scale.resolved(bool(board["percent"]), int(board["val_size"]))


def why_elsewhere(board: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Return in words the facts in which two boards differ, which is why they are not ranked together."""
    differing = [f for f in facts.BOARD if f.word and board[f.name] != other[f.name]]
    parts = (_difference(fact, board[fact.name], other[fact.name]) for fact in differing)
    return "; ".join(parts) or "another key"


def _difference(fact: Fact, mine: object, theirs: object) -> str:
    if fact.name in HASHES:
        return f"other {fact.word}"
    if isinstance(theirs, int | np.integer) and not isinstance(theirs, bool):
        return f"{fact.word} {theirs:,}, not {mine:,}"
    return f"{fact.word} {theirs}, not {mine}"
