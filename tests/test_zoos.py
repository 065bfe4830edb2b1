"""Boards over several zoos."""

import numpy as np
import pytest
from scipy import stats

from leaderboard import load, outcomes, table, zoos
from leaderboard.opened import Shown
from tests.records import population, record

ZOOS = (
    (0.90, 0.92),
    (0.80, 0.83),
    (0.70, 0.71),
)  # mean scores of originals and of generated models


def zoo(number, of=(0.9, 0.92), **fields):
    """The record of one zoo: three originals and two generated models around these means."""
    original, generated = of
    fields = {
        "id": f"{number:016x}", "key": f"{number:016x}", "zoo__seed": number, "zoo__hash": f"{number:064x}",
        "scores__original": population(original - 0.01, original, original + 0.01),
        "scores__generated": population(generated - 0.01, generated + 0.01),
    } | fields  # fmt: skip
    return record(**fields)


def runs_of(folder, *records):
    for one in records:
        one.write(folder)
    return load.load([folder])[0]


def rows_of(one):
    return outcomes.rows_of([("row", Shown("", one, {}))], one.id)


def test_boards_that_differ_in_the_seed_of_their_zoo_are_siblings(tmp_path):
    other = {
        "zoo__k": 4,
        "scores__original": population(0.9, 0.9, 0.9, 0.9),
        "zoo__hash": "d" * 64,
    }
    runs = runs_of(
        tmp_path,
        *(zoo(number) for number in (2, 0, 1)),
        zoo(7, zoo__seed=3, task__settings={"epochs": 9}),  # another recipe
        zoo(8, zoo__seed=4, task__arch="mlp3"),
        zoo(9, zoo__seed=5, **other),
    )
    expected = [f"{number:016x}" for number in range(3)]
    for board in expected:
        assert zoos.siblings(runs, board) == expected
    assert zoos.siblings(runs, f"{7:016x}") == [f"{7:016x}"]


def test_a_zoo_of_unknown_seed_has_no_siblings(tmp_path):
    runs = runs_of(tmp_path, zoo(0), zoo(1, zoo__seed=None), zoo(2, zoo__seed=None))
    assert zoos.siblings(runs, f"{1:016x}") == [f"{1:016x}"]
    assert zoos.siblings(runs, f"{0:016x}") == [f"{0:016x}"]


def test_a_seed_counts_once(tmp_path):
    again = [
        zoo(5, zoo__seed=1),
        zoo(6, zoo__seed=1, key=f"{5:016x}", zoo__hash=f"{5:064x}", protocol__seed=1),
    ]
    runs = runs_of(tmp_path, zoo(0), zoo(1), *again)
    first, small, large = (f"{number:016x}" for number in (0, 1, 5))
    assert zoos.siblings(runs, first) == [first, large]
    assert zoos.siblings(runs, small) == [first, small]


def test_rows_are_paired_with_the_originals_of_their_zoo():
    found = zoos.above_originals([rows_of(zoo(0, of)) for of in ZOOS], "mean")
    assert [values["row"] for values in found] == pytest.approx([0.02, 0.03, 0.01])
    assert "original" not in found[0]
    assert found[1]["copy"] == pytest.approx(0.915 - 0.80)
    lower = zoos.above_originals([rows_of(zoo(0, task__higher_is_better=False,
        task__metric="FID", scores__original=worse(0.9), scores__generated=worse(0.92)))], "mean")  # fmt: skip
    assert lower[0]["row"] == pytest.approx(-0.02)


def test_zoos_are_a_random_effect():
    """The interval is Student's over zoos, however close the models of one zoo are."""
    differences = [{"a": 0.02, "b": 0.5}, {"a": 0.03}, {"a": 0.01}]
    found = zoos.pooled(differences)
    assert list(found.index) == ["b", "a"]
    low, high = stats.t.interval(0.95, 2, loc=0.02, scale=stats.sem([0.02, 0.03, 0.01]))
    assert found.loc["a"].tolist() == pytest.approx([0.02, low, high, 3])
    assert found.loc["b", "zoos"] == 1
    assert found.loc["b", ["low", "high"]].isna().all()


def test_intervals_over_zoos_hold_what_they_say():
    rng = np.random.default_rng(0)
    held = 0
    for differences in rng.normal(0.1, 1, size=(1000, 4)):
        row = zoos.pooled([{"a": value} for value in differences]).loc["a"]
        held += row["low"] <= 0.1 <= row["high"]
    assert held == pytest.approx(950, abs=2.5 * np.sqrt(1000 * 0.05 * 0.95))


def test_a_row_that_a_zoo_lacks_and_names(tmp_path):
    runs = runs_of(tmp_path, zoo(0), zoo(1, generator__name="vae"))
    boards = [runs[runs["zoo_seed"] == number] for number in (0, 1)]
    (first,), (second,) = map(table.row_names, boards)
    assert zoos.names(boards) == {first: "pdiff", second: "vae"}


def worse(mean):
    """Scores of which a lower one is better."""
    scores = population(mean - 0.01, mean, mean + 0.01) if mean == 0.9 else population(mean, mean)
    return scores | {"best": scores["worst"], "worst": scores["best"], "selected": scores["worst"]}
