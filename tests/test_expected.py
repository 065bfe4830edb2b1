import itertools

import numpy as np
import pytest
from scipy import stats

from leaderboard import expected

PICK = {
    "best": max, "worst": min, "median": lambda scores: float(np.median(scores)),
    "mean": lambda scores: float(np.mean(scores)),
}  # fmt: skip
SCORES = np.array([0.5, 0.2, 0.9, 0.5, 0.4, 0.7])


@pytest.mark.parametrize("statistic", PICK)
@pytest.mark.parametrize("drawn", [1, 2, 3, 6])
def test_it_is_the_mean_over_all_draws(statistic, drawn):
    every = [PICK[statistic](draw) for draw in itertools.combinations(SCORES, drawn)]
    assert expected.of(statistic, SCORES, SCORES, drawn) == pytest.approx(np.mean(every))
    lower = -PICK[{"best": "worst", "worst": "best"}.get(statistic, statistic)](-SCORES)
    assert expected.of(statistic, SCORES, SCORES, 6) == pytest.approx(lower)


@pytest.mark.parametrize("drawn", [1, 2, 4])
def test_selected_is_the_one_with_the_best_training_score_and_ties_are_shared(drawn):
    train = np.array([0.3, 0.8, 0.8, 0.1, 0.8, 0.3])
    every = []
    for draw in itertools.combinations(range(6), drawn):
        top = max(train[list(draw)])
        every.append(np.mean([SCORES[i] for i in draw if train[i] == top]))
    assert expected.of("selected", SCORES, train, drawn) == pytest.approx(np.mean(every))


def test_too_few_models_for_the_draws():
    assert expected.of("best", SCORES, SCORES, 7) is None
    assert expected.of("mean", SCORES, SCORES, 7) == pytest.approx(SCORES.mean())
    assert expected.spread("best", SCORES, SCORES, 4, steps=False) is None
    assert expected.spread("mean", SCORES[:1], SCORES[:1], 1, steps=False) is None


def test_it_does_not_depend_on_the_number_of_models():
    rng = np.random.default_rng(0)
    large, small = rng.normal(size=(400, 200)), rng.normal(size=(1600, 50))
    of_large, of_small = (
        [expected.of("best", one, one, 5) for one in rows] for rows in (large, small)
    )
    error = np.hypot(stats.sem(of_large), stats.sem(of_small))
    assert np.mean(of_large) == pytest.approx(np.mean(of_small), abs=3 * error)
    truth = rng.normal(size=(100_000, 5)).max(axis=1)
    error = np.hypot(stats.sem(of_large), stats.sem(truth))
    assert np.mean(of_large) == pytest.approx(truth.mean(), abs=3 * error)


@pytest.mark.parametrize(
    ("sizes", "drawn"), [([100, 200], 10), ([100, 25], 3), ([5, 100], 1), ([], 10), ([3], 1)]
)
def test_a_board_allows_as_many_draws_as_its_smallest_population(sizes, drawn):
    assert expected.draws(sizes) == drawn


@pytest.mark.parametrize("statistic", expected.STATISTICS)
@pytest.mark.parametrize("train", [SCORES, np.array([1.0, 2, 2, 0, 2, 1]), np.zeros(6)])
def test_without_each_model_is_what_is_expected_of_the_others(statistic, train):
    chances = expected.weights(statistic, 5, 2)
    order = np.argsort(-train, kind="stable")
    left = [
        expected.expected(np.delete(SCORES, one), np.delete(train, one), chances) for one in order
    ]
    np.testing.assert_allclose(expected.without_each(SCORES, train, chances), left, atol=1e-12)


def test_the_jackknife_of_the_mean_is_its_standard_error():
    values = np.random.default_rng(1).normal(size=30)
    variance, freedom = expected.spread("mean", values, values, 10, steps=False)
    assert variance == pytest.approx(stats.sem(values) ** 2)
    assert freedom == 29
    means = values.reshape(3, 10).mean(axis=1)
    assert expected.jackknife("mean", values, values, 1, 3) == pytest.approx(stats.sem(means) ** 2)


@pytest.mark.parametrize("statistic", ["best", "median", "worst"])
def test_the_jackknife_finds_the_variance_of_the_expected_value(statistic):
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(1000, 40))
    values = [expected.of(statistic, one, one, 4) for one in rows]
    found = [expected.spread(statistic, one, one, 4, steps=False)[0] for one in rows]
    assert np.mean(found) == pytest.approx(np.var(values), rel=0.2)


def along(rng, runs, steps, correlation=0.91):
    """Scores along runs, where neighbours have a correlation: (runs, steps)."""
    found = rng.normal(size=(runs, steps))
    for step in range(1, steps):
        found[:, step] *= np.sqrt(1 - correlation**2)
        found[:, step] += correlation * found[:, step - 1]
    return found


@pytest.mark.parametrize("steps", [200, 100, 40])
@pytest.mark.parametrize("correlation", [0.91, 0.95])
def test_the_mean_along_a_run_is_told_from_the_truth_no_more_often_than_is_meant(
    steps, correlation
):
    runs = along(np.random.default_rng(3), 1000, steps, correlation)
    wrong = 0
    for one in runs:
        variance, freedom = expected.spread("mean", one, one, 1, steps=True)
        assert freedom == expected.BLOCKS - 1
        wrong += abs(one.mean()) > stats.t.ppf(0.975, freedom) * np.sqrt(variance)
    assert wrong / len(runs) < 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / len(runs))


def test_a_short_run_has_no_variance():
    values = np.arange(39.0)
    assert expected.spread("mean", values, values, 1, steps=True) is None
