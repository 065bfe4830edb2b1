"""Which rows of a zoo that was made elsewhere are held out: whole runs, so that no run is on both sides.

The choice follows from the labels of the rows alone, so that every generator, seed and number of checkpoints stands
beside the same reference. Imports no torch.
"""

from collections import Counter
from collections.abc import Sequence

from bench.errors import BadRequest
from bench.system import seeds
from bench.system.data import Settings

LONGEST = 300  # characters of a run's label


def check_labels(runs: Sequence[object], k: int) -> None:
    """Check that runs are the labels of K rows, or none.

    Raises:
        BadRequest: there are others than K, or one that is no text of 1 to ``LONGEST`` printable characters.
    """
    if runs and len(runs) != k:
        raise BadRequest(f"the runs of {len(runs)} checkpoints are told, the zoo has {k}")
    for label in runs:
        if not isinstance(label, str) or not 1 <= len(label) <= LONGEST or not label.isprintable():
            raise BadRequest(
                f"a run is named {str(label)[:80]!a}, expected 1 to {LONGEST} printable characters"
            )


def told(runs: Sequence[str], settings: Settings) -> tuple[str, ...]:
    """Return the run of every row where rows can be held out by it; otherwise nothing.

    Nothing for a zoo that does not tell its runs, for one of a single run, and for one that was collected here: its
    settings have a track, and a reference is trained for it.
    """
    return tuple(runs) if len(set(runs)) > 1 and "track" not in settings else ()


def held_rows(runs: Sequence[str], count: int) -> list[int]:
    """Return the rows of the first runs, in the order in which they are drawn, that have ``count`` rows together.

    Args:
        runs: the run of every row, of two runs at least.
        count: how many rows at least; 0 for none.

    Raises:
        BadRequest: no run would be left.

    >>> len(held_rows(["a", "a", "b", "b", "c"], 3)) in (3, 4)
    True
    """
    sizes, chosen, rows = Counter(runs), set[str](), 0
    for run in _drawn(runs):
        if rows >= count:
            break
        chosen.add(run)
        rows += sizes[run]
    if rows < count or len(chosen) == len(sizes):
        raise BadRequest(
            f"{count} held-out models are asked for of a zoo of {len(runs)} checkpoints of {len(sizes)} runs: whole "
            "runs are held out, and at least one has to stay: lower --held-out"
        )
    return [row for row, run in enumerate(runs) if run in chosen]


def usual_count(runs: Sequence[str], most: int) -> int:
    """Return how many rows are held out where nobody says: enough runs for ``most`` rows, at most half of all rows.

    Args:
        runs: the run of every row, of two runs at least.
        most: the task's own number.
    """
    sizes, rows = Counter(runs), 0
    for run in _drawn(runs):
        if rows >= most or 2 * (rows + sizes[run]) > len(runs):
            break
        rows += sizes[run]
    return rows


def _drawn(runs: Sequence[str]) -> list[str]:
    """Return all runs in the order in which they are held out: at random, one that has most of the rows last."""
    sizes = Counter(runs)
    order = sorted(sizes, key=lambda run: seeds.number(0, "held-out runs", run))
    return sorted(order, key=lambda run: 2 * sizes[run] > len(runs))
