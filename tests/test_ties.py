import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from leaderboard import ties
from leaderboard.ties import Outcome

UNITS = 400


def bits(wrong):
    """Units that a model gets right: all but these."""
    right = np.ones(UNITS)
    right[list(wrong)] = 0
    return right


def model(right, **fields):
    return Outcome(float(right.mean()), [float(right.mean())], right, len(right), **fields)


def ranks(rows, statistic="selected", higher=True):
    drawn = ties.draws(rows, statistic, higher_is_better=higher, seed=0)
    values = {name: float(np.mean([o.value for o in seeds])) for name, seeds in rows.items()}
    return ties.ranks(values, drawn, higher_is_better=higher)


@pytest.mark.parametrize(("wins", "losses"), [(1, 0), (4, 0), (5, 0), (8, 5), (20, 15)])
def test_what_mcnemar_cannot_tell_apart_is_a_tie(wins, losses):
    assert stats.binomtest(wins, wins + losses).pvalue > 0.05
    first, second = bits(range(losses)), bits(range(100, 100 + wins))
    assert ranks({"a": [model(first)], "b": [model(second)]}) == {"a": 1, "b": 1}


@pytest.mark.parametrize(("wins", "losses"), [(7, 0), (15, 3), (60, 30)])
def test_what_mcnemar_tells_apart_is_no_tie(wins, losses):
    assert stats.binomtest(wins, wins + losses).pvalue < 0.05
    first, second = bits(range(losses)), bits(range(100, 100 + wins))
    assert ranks({"a": [model(first)], "b": [model(second)]}) == {"a": 1, "b": 2}


def test_units_are_paired():
    """Both miss the same hard third of the units: alone each is uncertain, their difference is not."""
    hard = range(130)
    first, second = bits(hard), bits([*hard, *range(200, 212)])
    rows = {"a": [model(first)], "b": [model(second)]}
    drawn = ties.draws(rows, "selected", higher_is_better=True, seed=0)
    assert (drawn["a"] - drawn["b"]).std() < 0.6 * drawn["a"].std()
    assert ranks(rows) == {"a": 1, "b": 2}


def test_a_part_of_the_units_spreads_like_all_of_them():
    rng = np.random.default_rng(0)
    right = (rng.random(4000) < 0.8).astype(float)
    rows = {
        "all": [Outcome(0.8, [0.8], right, 4000)],
        "part": [Outcome(0.8, [0.8], right[::10], 4000)],
    }
    drawn = ties.draws(rows, "selected", higher_is_better=True, seed=0)
    assert drawn["part"].std() == pytest.approx(drawn["all"].std(), rel=0.15)
    assert drawn["all"].std() == pytest.approx(np.sqrt(0.8 * 0.2 / 4000), rel=0.15)


def test_the_mean_over_samples_spreads_as_its_standard_error():
    values = list(np.random.default_rng(1).normal(0.5, 0.02, size=100))
    rows = {"a": [Outcome(float(np.mean(values)), values)]}
    drawn = ties.draws(rows, "mean", higher_is_better=True, seed=0)["a"]
    assert drawn.std() == pytest.approx(stats.sem(values), rel=0.15)
    assert drawn.mean() == pytest.approx(np.mean(values), abs=4 * stats.sem(values) / 30)


def test_seeds_that_differ_make_a_tie():
    steady = [Outcome(0.80, [0.80])] * 3
    erratic = [Outcome(value, [value]) for value in (0.75, 0.79, 0.95)]
    assert ranks({"steady": steady, "erratic": erratic}, "mean")["steady"] == 1
    better = [Outcome(value, [value]) for value in (0.83, 0.84, 0.85)]
    assert ranks({"steady": steady, "better": better}, "mean") == {"steady": 2, "better": 1}


@pytest.mark.parametrize(("statistic", "sign"), [("best", -1), ("worst", 1)])
@pytest.mark.parametrize("higher", [True, False])
def test_extremes_of_fewer_samples_are_less_extreme(statistic, sign, higher):
    values = list(np.linspace(0.4, 0.6, 20))
    value = max(values) if (statistic == "best") == higher else min(values)
    rows = {"a": [Outcome(value, values)]}
    drawn = ties.draws(rows, statistic, higher_is_better=higher, seed=0)["a"]
    direction = 1 if higher else -1
    assert (sign * direction * (drawn - value) >= -1e-12).all()
    assert len(np.unique(drawn)) > 1


def test_a_row_without_replicates_is_ranked_by_its_value():
    assert ties.ranks({"a": 1.0, "b": 2.0, "c": 1.0}, {}, higher_is_better=True) == {
        "a": 2, "b": 1, "c": 2,
    }  # fmt: skip
    assert ties.ranks({"a": 1.0, "b": 2.0}, {}, higher_is_better=False) == {"a": 1, "b": 2}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.booleans())
def test_the_best_row_is_first_and_equal_rows_share_a_rank(values, higher):
    rows = {str(i): [Outcome(value, [value])] for i, value in enumerate(values)}
    found = ranks(rows, "mean", higher)
    best = max(values) if higher else min(values)
    for (name, rank), value in zip(found.items(), values, strict=True):
        assert rank == 1 + sum((other > value) if higher else (other < value) for other in values)
        assert (rank == 1) == (value == best), name


def test_the_same_seed_gives_the_same_draws():
    rows = {"a": [model(bits(range(9)))]}
    one, two, other = (
        ties.draws(rows, "mean", higher_is_better=True, seed=seed)["a"] for seed in (1, 1, 2)
    )
    assert (one == two).all()
    assert (one != other).any()
