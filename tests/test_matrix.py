import functools
from pathlib import Path

import numpy as np
import pytest

from leaderboard import load, matrix, opened, outcomes, zoos
from leaderboard.matrix import Difference, Summary, Tally
from leaderboard.opened import Shown
from leaderboard.sections import overview
from tests.records import distances, judged, parsed, population, record, seed
from tests.test_pages import arrays, sampled, written

COMMAND = "python -m bench run --task digits --generator pdiff"


def of(folder):
    """The matrix of a folder's records."""
    runs, broken = load.load([folder])
    assert not broken
    read = functools.cache(lambda path: opened.open_record(Path(path), only=matrix.ARRAYS))
    return matrix.matrix(runs, read)


def test_boards_that_differ_in_k_are_one_family_and_ablations_are_folded(tmp_path):
    plain = sampled(1, 0.9, command=COMMAND)
    ablation = sampled(
        2, 0.91, command=f"{COMMAND} --set noise=0", generator__hyperparameters={"noise": 0}
    )
    newer = sampled(3, 0.8, key="b" * 16, zoo__hash="9" * 64, zoo__k=50, generator__name="vae",
                    scores__original=population(*[0.9] * 50))  # fmt: skip
    for one, made in (plain, ablation, newer):
        written(tmp_path, one, made)
    found = of(tmp_path)
    (family,) = found.families
    assert [board["k"] for board in family.boards] == [100, 50]  # the one with most records first
    assert family.regime == "Independent runs, a part of the weights"
    assert found.entries["pdiff", 0].record.id == plain[0].id
    assert found.entries["vae", 0].board["k"] == 50
    text = overview.latex(found)
    assert r"\textbf{90." in text
    assert len(overview.flat(found)) == 2


def test_differences_are_intervals_of_better_in_either_direction(tmp_path):
    written(tmp_path, *sampled(1, 0.85))
    entry = of(tmp_path).entries["pdiff", 0]
    assert entry.copy.low < entry.copy.value < entry.copy.high < 0
    assert entry.copy.value == pytest.approx(entry.score - 0.9, abs=0.01)
    assert entry.copy.sign == "▼"
    lower = parsed(distances())
    beside = matrix.Beside.of(outcomes.rows_of([("row", Shown("", lower, {}))], lower.id), ["row"])
    worse = lower.generated.mean - lower.populations["copy"].mean
    assert beside.better("row", "copy") == Difference(pytest.approx(-worse))
    assert beside.better("row", "copy").sign == ""  # nothing tells what chance does
    assert beside.better("row", "not there") is None


def test_the_strongest_control_is_named_by_training_scores_alone():
    one = record(scores__gaussian=population(0.99, 0.999))  # by far the best on validation
    side = arrays(one)
    for name in one.populations:
        side[f"train.{name}"] = np.full(2, 0.5, np.float32)
    side["train.interpolation"] += 0.1
    side["train.copy"] += 0.4  # not among those that are named
    rows = outcomes.rows_of([("row", Shown("", one, side))], one.id)
    assert matrix.strongest(rows) == "interpolation"
    assert matrix.strongest(outcomes.rows_of([("row", Shown("", one, {}))], one.id)) == ""


def test_entries_tell_whether_a_board_can_tell(tmp_path):
    one = judged(0.7, 0.3, 0, 0)
    written(tmp_path, one, arrays(one))
    found = of(tmp_path)
    entry = found.entries["pdiff", 0]
    assert (entry.word, entry.told, entry.quality, entry.variety) == ("novel", True, -0.01, 0.5)
    assert entry.shares == pytest.approx({"new": 0.7, "copies": 0.3, "averages": 0, "broken": 0})
    first = overview.findings(found)[0]
    assert (first.number, first.page) == ("1 of 1", "methods")
    assert not overview.findings(matrix.Matrix((), (), {}))


def test_wins_ties_and_losses_leave_out_what_is_not_known():
    found = [
        Difference(1, 0.5, 2),
        Difference(0, -1, 1),
        Difference(-1, -2, -0.5),
        Difference(3),
        None,
    ]
    assert Tally.of(found).text == "1-1-1"
    assert Summary.of([]).cost is None


def test_a_default_that_an_older_record_lacks_is_that_default(tmp_path):
    """Of the runs against K none is lost because hyperparameters came to be."""
    older = {"generator__hyperparameters": {"steps": 10}}
    runs = [
        seed(1, 0.8, 0.9, command=COMMAND),
        seed(2, 0.8, 0.9, command=f"{COMMAND} --k 2", zoo__k=2, key="b" * 16, zoo__hash="9" * 64,
             scores__original=population(0.9, 0.92), **older),
        seed(3, 0.8, 0.9, command=f"{COMMAND} --set lr=1", generator__hyperparameters={"lr": 1}),
    ]  # fmt: skip
    for one in runs:
        one.write(tmp_path)
    frame, _ = load.load([tmp_path])
    found = zoos.other_sizes(frame, runs[0].id)
    assert sorted(found["k"]) == [2, 3]  # without the ablation
