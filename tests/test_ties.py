"""Ties: against McNemar's exact test, and by simulation of boards whose rows are equal."""

import numpy as np
import pytest
from scipy import stats

from leaderboard import expected, ties
from leaderboard.ties import Part, Row, Units
from tests.test_expected import along

UNITS = 400
BOARDS = 400
# Most boards of BOARDS in which equal rows may be told apart: 5 %, and 2.5 standard deviations of such a count.
WRONG = 0.05 * BOARDS + 2.5 * np.sqrt(0.05 * 0.95 * BOARDS)
OUTCOMES = Units("outcomes", UNITS)


def bits(wrong):
    """Units that a model gets right: all but these."""
    right = np.ones(UNITS)
    right[list(wrong)] = 0
    return right


def model(right, own=Part()):
    return Row(float(right.mean()), own, right)


def groups(rows, units=OUTCOMES, higher=True):
    """The groups of rows, one letter each, in the order of the rows."""
    named = {str(index): row for index, row in enumerate(rows)}
    found = ties.groups(named, units, higher_is_better=higher)
    return "".join(found[name] for name in named)


def told_apart(boards, units=OUTCOMES):
    """In how many boards any two rows are told apart."""
    return sum(set(groups(rows, units)) != {"A"} for rows in boards)


# Units -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wins", "losses"), [(1, 0), (4, 0), (5, 0), (8, 5), (20, 15)])
def test_what_mcnemar_cannot_tell_apart_is_a_tie(wins, losses):
    assert stats.binomtest(wins, wins + losses).pvalue > 0.05
    assert groups([model(bits(range(losses))), model(bits(range(100, 100 + wins)))]) == "AA"


@pytest.mark.parametrize(("wins", "losses"), [(6, 0), (7, 0), (15, 3), (60, 30)])
def test_what_mcnemar_tells_apart_is_no_tie(wins, losses):
    assert stats.binomtest(wins, wins + losses).pvalue < 0.05
    assert groups([model(bits(range(losses))), model(bits(range(100, 100 + wins)))]) == "AB"


def test_units_are_paired():
    """Both miss the same hard third of the units: alone each is uncertain, their difference is not."""
    hard = range(130)
    first, second = bits(hard), bits([*hard, *range(200, 209)])
    assert groups([model(first), model(second)]) == "AB"
    assert first.std() / np.sqrt(UNITS) > first.mean() - second.mean() > 0
    apart = second[np.random.default_rng(0).permutation(UNITS)]
    assert groups([model(first), model(apart)]) == "AA"


def test_a_part_of_the_units_spreads_like_all_of_them():
    rng = np.random.default_rng(0)
    first, second = (rng.random((2, 4000)) < 0.8).astype(float)
    units = Units("outcomes", 4000)
    whole = units.spread(np.stack([first, second]))[0][0, 1]
    part = units.spread(np.stack([first[::10], second[::10]]))[0][0, 1]
    assert whole == pytest.approx((first - second).var() / 4000, rel=0.01)
    assert part == pytest.approx(whole, rel=0.2)


@pytest.mark.parametrize("kind", ["bootstrap", "jackknife"])
def test_replicates_spread_as_the_mean_of_their_units(kind):
    """Of a mean over units, where the variance is known."""
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(2, 300))
    if kind == "bootstrap":
        replicates = scores[:, rng.integers(300, size=(4000, 300))].mean(axis=2)
    else:
        groups = scores.reshape(2, 20, 15).mean(axis=2)
        replicates = (groups.sum(axis=1, keepdims=True) - groups) / 19
    spread, freedom = Units(kind, 300).spread(replicates)
    apart = scores[0] - scores[1]
    if kind == "bootstrap":
        assert spread[0, 1] == pytest.approx(apart.var() / 300, rel=0.1)
        assert freedom == 299
        assert Units(kind, 300).spread(replicates[:, :50])[1] == 49
    else:
        assert spread[0, 1] == pytest.approx(stats.sem(apart.reshape(20, 15).mean(axis=1)) ** 2)
        assert freedom == 19


# False tie-breaks: at most 5 % of boards ---------------------------------------------------------


@pytest.mark.parametrize("rows", [2, 15])
def test_equal_models_on_units(rows):
    rng = np.random.default_rng(2)
    easy = rng.beta(4, 1, size=(BOARDS, 1, UNITS))
    right = (rng.random((BOARDS, rows, UNITS)) < easy).astype(float)
    assert told_apart([model(one) for one in board] for board in right) <= WRONG


@pytest.mark.parametrize("kind", ["bootstrap", "jackknife"])
def test_equal_models_on_replicates(kind):
    """The score is the root mean square over images, which is no mean over them."""
    rng = np.random.default_rng(3)
    images = rng.gamma(2, size=(BOARDS, 1, 200)) + rng.gamma(2, size=(BOARDS, 5, 200))
    if kind == "bootstrap":
        counts = rng.multinomial(200, np.full(200, 1 / 200), size=200)
        replicates = np.sqrt(images**2 @ counts.T / 200)
    else:
        groups = (images**2).reshape(BOARDS, 5, 20, 10).sum(axis=3)
        replicates = np.sqrt((groups.sum(axis=2, keepdims=True) - groups) / 190)
    values = np.sqrt((images**2).mean(axis=2))
    boards = (
        [Row(value, Part(), row) for value, row in zip(*board, strict=True)]
        for board in zip(values, replicates, strict=True)
    )
    assert told_apart(boards, Units(kind, 200)) <= WRONG


def fitted(rng, boards, rows, seeds, between, models=20):
    """Rows of equal generators: fits differ by ``between``, a fit's models by as much as the mean over units does."""
    for _ in range(boards):
        units = rng.normal(size=UNITS)
        made = []
        for _ in range(rows):
            fits = between * rng.normal(size=seeds)
            own = rng.normal(size=(seeds, models)) / np.sqrt(UNITS)
            noise = rng.normal(size=(seeds, UNITS)) / np.sqrt(models)
            outcomes = units + noise + (fits + own.mean(axis=1))[:, None]
            values = outcomes.mean(axis=1)
            if seeds > 1:
                part = Part(values.var(ddof=1) / seeds, seeds - 1)
            else:
                scores = own[0] + rng.normal(size=models) / np.sqrt(UNITS)
                part = Part(*expected.spread("mean", scores, scores, 1, steps=False))
            made.append(Row(values.mean(), part, outcomes.mean(axis=0)))
        yield made


@pytest.mark.parametrize("rows", [2, 15])
@pytest.mark.parametrize("between", [0.02, 1.0])
@pytest.mark.parametrize("seeds", [2, 3])
def test_equal_generators_of_several_seeds(rows, between, seeds):
    rng = np.random.default_rng(4)
    assert told_apart(fitted(rng, BOARDS, rows, seeds, between)) <= WRONG


@pytest.mark.parametrize("rows", [2, 15])
def test_equal_fits_of_one_seed(rows):
    rng = np.random.default_rng(5)
    assert told_apart(fitted(rng, BOARDS, rows, 1, 0.0)) <= WRONG


def of_models(scores, train, statistic, draws, steps=False):
    """A row of some models, on units that all rows get right alike."""
    by = train if statistic == "selected" else scores
    part = Part(*expected.spread(statistic, scores, by, draws, steps=steps))
    return Row(expected.of(statistic, scores, by, draws), part, np.zeros(10))


EXACT = Units("bootstrap", 10)  # with equal replicates: nothing varies with the units


@pytest.mark.parametrize("statistic", ["best", "selected", "worst", "median"])
@pytest.mark.parametrize("sizes", [(100, 25), (200, 1)])
def test_populations_of_other_sizes(statistic, sizes):
    """Of models from one distribution, or one that every draw gives: as good as is expected of the draws."""
    rng = np.random.default_rng(6)
    draws = expected.draws([size for size in sizes if size > 1])
    train, scores = rng.multivariate_normal([0, 0], [[1, 0.7], [0.7, 1]], size=200_000).T
    by = train if statistic == "selected" else scores
    every = zip(scores.reshape(-1, 1000), by.reshape(-1, 1000), strict=True)
    truth = np.mean([expected.of(statistic, *one, draws) for one in every])

    def row(size):
        if size == 1:
            return Row(truth, Part(), np.zeros(10))
        some = rng.integers(len(scores), size=size)
        return of_models(scores[some], train[some], statistic, draws)

    boards = ([row(size) for size in sizes] for _ in range(BOARDS))
    assert told_apart(boards, EXACT) <= WRONG


@pytest.mark.parametrize("steps", [200, 100, 40])
@pytest.mark.parametrize("statistic", ["mean", "best"])
def test_the_steps_of_one_run(steps, statistic):
    """Originals of a trajectory, beside 14 models that are as good as such runs are on average."""
    rng = np.random.default_rng(7)
    truth = np.mean([expected.of(statistic, one, one, 5) for one in along(rng, 2000, steps)])
    others = [Row(truth, Part(), np.zeros(10))] * 14
    boards = (
        [of_models(one, one, statistic, 5, steps=True), *others]
        for one in along(rng, BOARDS, steps)
    )
    assert told_apart(boards, EXACT) <= WRONG


# Power -----------------------------------------------------------------------------------------


def test_clear_differences_are_told_apart_among_many_rows():
    rng = np.random.default_rng(8)
    easy = rng.beta(4, 1, size=UNITS)
    good = [model((rng.random(UNITS) < easy).astype(float)) for _ in range(12)]
    bad = [model((rng.random(UNITS) < easy / 2).astype(float)) for _ in range(3)]
    assert groups([*good, *bad]) == "A" * 12 + "B" * 3


def test_clear_differences_of_fits_are_told_apart():
    rng = np.random.default_rng(9)
    (better,) = fitted(rng, 1, 3, 5, 0.01)
    worse = [Row(row.value - 1, row.own, row.paired - 1) for row in better]
    assert groups([*better, *worse]) == "AAABBB"


def test_the_best_of_few_draws_of_clearly_better_models_is_told_apart():
    rng = np.random.default_rng(10)
    better, worse = rng.normal(2, 1, size=100), rng.normal(0, 1, size=25)
    rows = [of_models(one, one, "best", 3) for one in (better, worse)]
    assert groups(rows, EXACT) == "AB"


# Properties ------------------------------------------------------------------------------------


def test_one_part_alone_is_students_test():
    for freedom, value in ((2, 4.2), (2, 4.4), (30, 2.0), (30, 2.1)):
        rows = [Row(value, Part(1.0, freedom), np.zeros(10)), Row(0.0, Part(), np.zeros(10))]
        shown = 2 * stats.t.sf(value, freedom) <= 0.05
        assert groups(rows, EXACT) == ("AB" if shown else "AA")


def test_holm_among_all_pairs():
    """Three rows in a row: what one pair alone would show need not hold among three."""

    def rows(*values):
        return [Row(value, Part(0.5, 1e9), np.zeros(10)) for value in values]

    assert groups(rows(2.1, 0.0), EXACT) == "AB"
    assert groups(rows(2.1, 0.0, 1.0), EXACT) == "AAA"
    assert groups(rows(2.5, 0.0, 1.0), EXACT) == "ABA"  # 0.05 / 3
    assert groups(rows(9.0, 2.1, 0.0), EXACT) == "ABC"  # the others are shown, and leave it alone


def test_the_direction_of_the_score():
    rows = [model(bits(range(60))), model(bits([]))]
    assert groups(rows) == "BA"
    assert groups(rows, higher=False) == "AB"


def test_equal_rows_and_boards_of_one_row_or_none():
    assert groups([model(bits(range(9)))] * 3) == "AAA"
    assert groups([model(bits([]))]) == "A"
    assert groups([]) == ""
    rows = [Row(1.0, Part(), np.zeros(10)), Row(0.5, Part(), np.zeros(10))]
    assert groups(rows, EXACT) == "AB"  # nothing varies


def test_no_worse_value_is_in_a_better_group_and_letters_follow_one_another():
    rng = np.random.default_rng(11)
    for _ in range(20):
        rows = [
            Row(v, Part(float(rng.uniform(0.01, 9)), 30), np.zeros(10))
            for v in rng.normal(0, 3, 12)
        ]
        found = groups(rows, EXACT)
        by_value = sorted(range(12), key=lambda row: -rows[row].value)
        letters = [found[row] for row in by_value]
        assert letters == sorted(letters)
        assert set(letters) == {ties.letter(number) for number in range(len(set(letters)))}


def test_the_interval_of_a_difference_is_paired_and_agrees_with_the_test():
    hard = range(130)
    first, second = model(bits(hard)), model(bits([*hard, *range(200, 209)]))
    value, low, high = ties.difference(first, second, OUTCOMES)
    assert value == pytest.approx(9 / UNITS)
    assert 0 < low < value < high < 2 * value
    assert ties.difference(second, first, OUTCOMES) == pytest.approx((-value, -high, -low))
    wide = Row(second.value, Part(0.01, 5), second.paired)
    assert ties.difference(first, wide, OUTCOMES)[1] < 0
    unpaired = np.random.default_rng(0).permutation(second.paired)
    assert ties.difference(first, Row(second.value, Part(), unpaired), OUTCOMES)[1] < 0
