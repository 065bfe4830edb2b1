"""Generators across boards: one cell a generator and a family of boards. Pure functions, no widgets, no torch.

Scores of different boards are never averaged. What is counted over families are wins, ties and losses.
"""

import json
import math
import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench.records.judged import KINDS, Judgement
from bench.records.record import Record
from bench.records.scale import Scale
from leaderboard import boards, outcomes, table, ties
from leaderboard.columns import GENERATED, NAMED
from leaderboard.opened import Shown
from leaderboard.outcomes import Models, Rows

FAMILY = [
    "task",
    "arch",
    "layers",
    "track",
]  # facts that the boards of a family share; K, say, may differ
MOST = 24  # families in a matrix; it would be unreadable, and slow
COPY = "copy"
# The controls of which the one with the best mean on the *training* split is named for a board: validation, on which it
# is then compared, has no part in the choice.
NAMED_BEFORE = ("average", "greedy_soup", "interpolation", "gaussian", "finetune")
Read = Callable[[str], Shown]  # from the path of a record
# Arrays of a side file that a matrix needs, a sixth of them: the others would take most of its time.
ARRAYS = re.compile(
    rf"units|(right_mean|resampled_mean|train)\.({GENERATED}|{COPY}|(aligned )?({'|'.join(NAMED_BEFORE)}))"
)


@dataclass(frozen=True)
class Family:
    """Boards that differ in nothing but K, the zoo's seed, numbers of samples, or the version of the protocol.

    Attributes:
        boards: rows of ``boards.boards``, the newest protocol first, then the one with most records.
    """

    boards: tuple[Mapping[str, Any], ...]

    @property
    def main(self) -> Mapping[str, Any]:
        """The board that stands for the family."""
        return self.boards[0]

    @property
    def regime(self) -> str:
        """How the checkpoints come about, and which part of the network they are."""
        runs = {"trajectory": "One run's steps", "seeds": "Independent runs"}
        track = str(self.main["track"])
        whole = self.main["layers"] == "all"
        return f"{runs.get(track, track)}, {'all weights' if whole else 'a part of the weights'}"

    @property
    def title(self) -> str:
        """Task and architecture, and the part of it that is generated."""
        part = "" if self.main["layers"] == "all" else f", {self.main['layers']}"
        return f"{self.main['task']} {self.main['arch']}{part}"


@dataclass(frozen=True)
class Difference:
    """How much better a mean score is than another's; above 0 is better in every metric.

    Attributes:
        value: the difference.
        low, high: its 95 % interval; None where it is not known.
    """

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def sign(self) -> str:
        """Whether it is better, worse, the same as far as is known, or not known: ▲, ▼, = or nothing."""
        if self.low is None or self.high is None:
            return ""
        return "▲" if self.low > 0 else "▼" if self.high < 0 else "="


@dataclass(frozen=True)
class Entry:
    """A generator on a board: a cell of the matrix. Of several seeds numbers are means.

    Attributes:
        generator: its name.
        board: row of ``boards.boards``.
        row: name of its row on that board.
        record: its newest record.
        verdict: word, with the mark that says whether the board can tell; None where there is none.
        shares: what its models are made of, by kind; empty without a reference.
        quality, variety: mean score minus the reference's, distance within over the reference's; None without one.
        score: mean score.
        scale: of the board's scores.
        copy, control: how much better than a checkpoint drawn at random, and than ``named``.
        named: the strongest control, as chosen on the training split; empty where that is not known.
        leads: whether no generator of the board is better by more than chance.
        cost: how many times cheaper than SGD 100 models are, with all that comes before; None for broken ones.
        checked: whether every record was computed again by somebody.
    """

    generator: str
    board: Mapping[str, Any]
    row: str
    record: Record
    verdict: str | None
    shares: Mapping[str, float]
    quality: float | None
    variety: float | None
    score: float
    scale: Scale
    copy: Difference | None
    control: Difference | None
    named: str
    leads: bool
    cost: float | None
    checked: bool

    @property
    def word(self) -> str:
        """The verdict without its mark; that of most seeds."""
        return (self.verdict or "-").partition(" (")[0].partition(" ")[0]

    @property
    def told(self) -> bool:
        """Whether the board can tell training from controls."""
        return "(resolution" in (self.verdict or "") and "cannot tell" not in (self.verdict or "")


@dataclass(frozen=True)
class Matrix:
    """Generators across families of boards.

    Attributes:
        families: columns, grouped by regime.
        generators: rows, those on most families first.
        entries: cells, by generator and position of the family.
        left_out: families that are not shown, since there are too many.
    """

    families: tuple[Family, ...]
    generators: tuple[str, ...]
    entries: Mapping[tuple[str, int], Entry]
    left_out: int = 0

    def of(self, generator: str) -> list[Entry]:
        """Return the cells of a generator."""
        return [entry for (name, _), entry in self.entries.items() if name == generator]

    def regimes(self) -> dict[str, list[int]]:
        """Return the positions of the families by regime."""
        found: dict[str, list[int]] = {}
        for position, family in enumerate(self.families):
            found.setdefault(family.regime, []).append(position)
        return found


def families(runs: pd.DataFrame) -> list[Family]:
    """Return the families of boards, those of one regime together."""
    grouped = boards.boards(runs).groupby(FAMILY, sort=False)
    found = [Family(tuple(boards.records(own))) for _, own in grouped]
    order = {name: place for place, name in enumerate(_regimes(found))}
    return sorted(found, key=lambda family: order[family.regime])


def _regimes(found: Sequence[Family]) -> list[str]:
    """Return the regimes in order: a part of the weights before all of them, steps of one run before several runs."""
    return sorted(
        {family.regime for family in found},
        key=lambda name: ("Independent" in name, "all weights" in name, name),
    )


def matrix(runs: pd.DataFrame, read: Read) -> Matrix:
    """Return the matrix of all generators; controls that were run as generators, and ablations, are none of its rows.

    Args:
        runs: the table of runs.
        read: reads a record with its side file.

    Raises:
        BadRequest: a record has vanished meanwhile, or is no longer valid.
    """
    every = families(runs)
    largest = sorted(every, key=lambda family: -sum(board["records"] for board in family.boards))
    shown = [family for family in every if family in largest[:MOST]]
    entries: dict[tuple[str, int], Entry] = {}
    asked = [len(json.loads(text)["generator_settings"]) for text in runs["changes"]]
    runs = runs.assign(row=table.row_names(runs), asked=asked)
    by_board = dict(tuple(runs.groupby("board")))
    for position, family in enumerate(shown):
        for entry in _family(family, by_board, read):
            entries[entry.generator, position] = entry
    counts = Counter(name for name, _ in entries)
    names = sorted(counts, key=lambda name: (-counts[name], name))
    return Matrix(tuple(shown), tuple(names), entries, len(every) - len(shown))


def _family(family: Family, by_board: Mapping[Any, pd.DataFrame], read: Read) -> Iterable[Entry]:
    """Yield the entries of a family: of each generator that on the first board where it was run."""
    seen: set[str] = set()
    for board in family.boards:
        runs = by_board[board["board"]]
        runs = runs[~runs["is_control"] & ~runs["generator"].isin(seen)]
        if runs.empty:
            continue
        chosen = pd.concat([_unchanged(own) for _, own in runs.groupby("generator")])
        seen |= set(chosen["generator"])
        yield from board_entries(board, chosen, read)


def _unchanged(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs of a generator's variant that is no ablation: the fewest settings, then most seeds, the newest.

    Args:
        runs: with the columns ``row``, the name of each run's row, and ``asked``, how many settings it was asked for.
    """
    runs = runs.sort_values("created", ascending=False, kind="stable")
    seeds, newest = Counter(runs["row"]), runs.drop_duplicates("row")
    order = [
        (int(asked), -seeds[row], str(row))
        for asked, row in zip(newest["asked"], newest["row"], strict=True)
    ]
    chosen = min(order, key=lambda one: one[:2])[2]  # the first of several, which is the newest
    return runs.loc[runs["row"] == chosen].sort_values("seed")


def board_entries(board: Mapping[str, Any], chosen: pd.DataFrame, read: Read) -> list[Entry]:
    """Return the entries of some runs of a board, one a row.

    Args:
        board: a row of ``boards.boards``.
        chosen: the runs, each row's seeds together, with the column ``row``.
        read: reads a record with its side file.
    """
    newest = str(chosen.sort_values("created")["id"].iloc[-1])
    names = list(chosen["row"])
    rows = outcomes.rows_of(
        [(name, read(path)) for name, path in zip(names, chosen["path"], strict=True)], newest
    )
    beside = Beside.of(rows, list(dict.fromkeys(names)))
    scale = boards.scale(board)
    return [
        _entry(board, name, list(rows[name]), chosen[[n == name for n in names]], beside, scale)
        for name in dict.fromkeys(names)
    ]


@dataclass(frozen=True)
class Beside:
    """What the generators of a board are compared with.

    Attributes:
        rows: the populations of each row.
        tested: rows as the test of ties takes them.
        named: name of the row of the strongest control; empty where it is not known.
        leading: rows of generators than which no other is better by more than chance.
    """

    rows: Rows
    tested: Mapping[str, ties.Row]
    named: str
    leading: frozenset[str]

    @classmethod
    def of(cls, rows: Rows, generators: Sequence[str]) -> "Beside":
        """Return it for the rows of a board, some of which are generators."""
        tested, _ = outcomes.tested(rows, "mean", 1)
        return cls(rows, tested, strongest(rows), _leading(rows, tested, generators))

    def better(self, row: str, other: str) -> Difference | None:
        """Return how much better a row is than another; None where one of them is not there."""
        if row not in self.rows or other not in self.rows:
            return None
        sign = self.rows[row][0].record.task.metric.sign
        if row not in self.tested or other not in self.tested:
            means = [outcomes.value(self.rows[name], "mean", 1) for name in (row, other)]
            return None if None in means else Difference(sign * (means[0] - means[1]))  # type: ignore[operator]
        value, low, high = ties.difference(
            self.tested[row], self.tested[other], outcomes.units(self.rows)
        )
        low, high = sorted((sign * low, sign * high))
        return Difference(sign * value, low, high)


def strongest(rows: Rows) -> str:
    """Return the row of the control that is best on the training split; empty where that is not known."""
    found = {}
    for name, several in rows.items():
        models = several[0]
        train = models.shown.side.get(f"train.{models.name}")
        if (
            models.population.name in NAMED_BEFORE
            and models.name != GENERATED
            and train is not None
        ):
            found[name] = models.record.task.metric.sign * float(train.astype(float).mean())
    return max(found, key=lambda name: found[name]) if found else ""


def _leading(rows: Rows, tested: Mapping[str, ties.Row], names: Sequence[str]) -> frozenset[str]:
    known = {name: tested[name] for name in names if name in tested}
    sign = next(iter(rows.values()))[0].record.task.metric.sign
    if len(known) < len(names):
        means = {name: outcomes.value(rows[name], "mean", 1) for name in names}
        best = max(sign * mean for mean in means.values() if mean is not None)
        return frozenset(
            name for name, mean in means.items() if mean is not None and sign * mean == best
        )
    groups = ties.groups(known, outcomes.units(rows), higher_is_better=sign > 0)
    return frozenset(name for name, group in groups.items() if group == "A")


def _entry(
    board: Mapping[str, Any],
    row: str,
    seeds: Sequence[Models],
    runs: pd.DataFrame,
    beside: Beside,
    scale: Scale,
) -> Entry:
    judged = [one.record.judge.against_reference.get(GENERATED) for one in seeds]
    known = [one for one in judged if one is not None]
    whole = known if len(known) == len(judged) else []
    field = NAMED["verdict"].fields[0]
    return Entry(
        generator=str(runs["generator"].iloc[0]),
        board=board,
        row=row,
        record=max((one.record for one in seeds), key=lambda record: record.created),
        verdict=field.pool(runs, field.name),
        shares=shares(whole),
        quality=_mean(one.quality.difference.value if one.quality else None for one in whole),
        variety=_mean(one.variety.distance.value if one.variety else None for one in whole),
        score=float(runs["mean"].mean()),
        scale=scale,
        copy=beside.better(row, table.control_row_name(COPY)),
        control=beside.better(row, beside.named),
        named=beside.named,
        leads=row in beside.leading,
        cost=_mean(runs["speedup_amortised_100"]),
        checked=bool((runs["tier"] != "claimed").all()),
    )


def shares(judged: Sequence[Judgement]) -> dict[str, float]:
    """Return the mean shares of what models are made of, by kind; none where nothing was judged."""
    if not judged:
        return {}
    return {
        kind: math.fsum(one.composition.shares[kind] for one in judged) / len(judged)
        for kind in KINDS
    }


def _mean(values: Iterable[float | None]) -> float | None:
    """Return the mean; None where one value is unknown, or there is none."""
    listed = [None if value is None or math.isnan(value) else float(value) for value in values]
    known = [value for value in listed if value is not None]
    return math.fsum(known) / len(known) if listed and len(known) == len(listed) else None


# A generator over all families ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tally:
    """Over how many families a generator is better, not told apart, and worse."""

    wins: int
    ties: int
    losses: int

    @classmethod
    def of(cls, differences: Iterable[Difference | None]) -> "Tally":
        """Count differences; those of an unknown interval are in none of the numbers."""
        signs = Counter(one.sign for one in differences if one)
        return cls(signs["▲"], signs["="], signs["▼"])

    @property
    def text(self) -> str:
        """The three numbers, as in sports."""
        return f"{self.wins}-{self.ties}-{self.losses}"

    @property
    def words(self) -> str:
        """The three numbers with what each is."""
        return f"{self.wins} wins, {self.ties} ties, {self.losses} losses"


@dataclass(frozen=True)
class Summary:
    """A generator over all families.

    Attributes:
        families: on how many it was run.
        copy, control: against a checkpoint drawn at random, and against the control that was named before.
        costs: how many times cheaper than SGD, of each family where it is known; sorted.
        checked: families whose records were computed again.
    """

    families: int
    copy: Tally
    control: Tally
    costs: tuple[float, ...]
    checked: int

    @classmethod
    def of(cls, entries: Sequence[Entry]) -> "Summary":
        """Return it for the entries of a generator."""
        return cls(
            len(entries),
            Tally.of(entry.copy for entry in entries),
            Tally.of(entry.control for entry in entries),
            tuple(sorted(entry.cost for entry in entries if entry.cost is not None)),
            sum(entry.checked for entry in entries),
        )

    @property
    def cost(self) -> float | None:
        """The median cost."""
        return statistics.median(self.costs) if self.costs else None
