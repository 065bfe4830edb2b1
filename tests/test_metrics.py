import dataclasses

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import jaccard_score

from bench.contract import Control, Metric
from bench.judge import compare
from bench.judge.describe import describe
from bench.judge.population import GENERATED, ORIGINAL, Origin, Population, select
from bench.metrics import statistics
from bench.metrics.novelty import Curve, advantage, novelty
from bench.metrics.similarity import (
    ROWS,
    iou,
    mean_off_diagonal,
    nearest_l2_ratio,
    pairwise,
    toward_mean,
    weighted_jaccard,
)
from bench.metrics.statistics import (
    cross_interval,
    mean_interval,
    pair_interval,
    percentiles,
    resamples,
)
from bench.records.population import Similarity
from bench.system.randomness import generator
from leaderboard.pooling import mean_above, mean_below

quick = settings(derandomize=True, deadline=None, max_examples=60)
seeds = st.integers(0, 10_000)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def masks(n, m, share=0.3, seed=0):
    return torch.rand(n, m, generator=rng(seed)) < share


# Similarity ----------------------------------------------------------------------------------------------------------


@quick
@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 30), st.floats(0, 1), seeds)
def test_iou_is_scikit_learns_jaccard_score(n, p, m, share, seed):
    a, b = masks(n, m, share, seed), masks(p, m, share, seed + 1)
    expected = [[jaccard_score(x, y, zero_division=1.0) for y in b.numpy()] for x in a.numpy()]
    np.testing.assert_allclose(iou(a, b).numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_iou_of_no_models(shape):
    assert iou(masks(shape[0], 5), masks(shape[1], 5)).shape == shape


def test_iou_of_more_models_than_are_compared_at_a_time():
    sets = masks(2 * ROWS + 3, 50)
    assert torch.equal(iou(sets, sets), iou(sets, sets.clone()))


def test_iou_is_exact_for_many_units():
    a = masks(2, 200_000)
    expected = jaccard_score(a[0].numpy(), a[1].numpy())
    assert float(iou(a[:1], a[1:])) == pytest.approx(expected, abs=1e-7)


def test_iou_of_two_empty_sets_is_one():
    empty, some = torch.zeros(1, 4, dtype=torch.bool), torch.tensor([[True, False, False, True]])
    assert iou(empty, empty).item() == 1.0
    assert iou(empty, some).item() == 0.0
    assert iou(some, empty).item() == 0.0
    assert iou(some, ~some).item() == 0.0


@quick
@given(st.integers(1, 6), st.integers(1, 30), st.floats(0, 1), seeds)
def test_iou_is_symmetric_with_ones_on_the_diagonal(n, m, share, seed):
    a = masks(n, m, share, seed)
    matrix = iou(a, a)
    assert torch.equal(matrix, matrix.T)
    assert (matrix.diagonal() == 1).all()
    assert ((matrix >= 0) & (matrix <= 1)).all()


@quick
@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 40), seeds)
def test_weighted_jaccard_is_minima_over_maxima(n, p, m, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.exponential(size=(n, m)), rng.exponential(size=(p, m))
    pairs = [[np.minimum(x, y).sum() / np.maximum(x, y).sum() for y in b] for x in a]
    found = pairwise(torch.from_numpy(a).float(), torch.from_numpy(b).float())
    np.testing.assert_allclose(found.numpy(), pairs, rtol=1e-5)


@quick
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 60), st.floats(0, 1), seeds)
def test_weighted_jaccard_of_zeros_and_ones_is_iou(n, p, m, share, seed):
    a, b = masks(n, m, share, seed), masks(p, m, share, seed + 1)
    assert torch.allclose(weighted_jaccard(a.float(), b.float()), iou(a, b), atol=1e-6)


@quick
@given(st.integers(1, 6), st.integers(1, 300), seeds)
def test_weighted_jaccard_is_symmetric_with_ones_on_the_diagonal(n, m, seed):
    features = torch.rand(n, m, generator=generator(seed))
    alike = weighted_jaccard(features, features)
    assert torch.equal(alike, alike.T)
    assert torch.equal(alike.diagonal(), torch.ones(n))


def test_weighted_jaccard_of_nothing_is_one():
    assert weighted_jaccard(torch.zeros(1, 3), torch.zeros(2, 3)).tolist() == [[1.0, 1.0]]
    assert weighted_jaccard(torch.zeros(1, 3), torch.ones(1, 3)).item() == 0.0


@quick
@given(st.integers(2, 8), seeds)
def test_mean_off_diagonal_is_numpys(n, seed):
    matrix = torch.rand(n, n, generator=rng(seed))
    expected = matrix.double().numpy()[~np.eye(n, dtype=bool)].mean()
    assert mean_off_diagonal(matrix) == pytest.approx(expected, rel=1e-12)


def test_mean_off_diagonal_of_a_single_model():
    assert mean_off_diagonal(torch.ones(1, 1)) is None


@quick
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 6), seeds)
def test_nearest_l2_ratio_is_scipys(n, k, d, seed):
    generated = torch.randn(n, d, generator=rng(seed))
    originals = torch.randn(k, d, generator=rng(seed + 1))
    reference = torch.randn(7, d, generator=rng(seed + 2))
    nearest, usual = (
        np.median(cdist(one, originals).min(axis=1)) for one in (generated, reference)
    )
    found = nearest_l2_ratio(generated, originals, reference)
    assert found == pytest.approx(nearest / usual, rel=1e-4)


def test_nearest_l2_ratio_of_copies_is_zero(zoo):
    assert nearest_l2_ratio(zoo.vectors[:3], zoo.vectors, zoo.vectors + 1) == 0


def test_nearest_l2_ratio_far_from_the_origin():
    """Differences of nearly equal vectors must not be lost."""
    originals = torch.tensor([[1000.0, 0.0], [1000.0, 0.01], [1000.0, 0.02]])
    generated, reference = (
        originals + torch.tensor([0.0, 0.005]),
        originals + torch.tensor([0.01, 0.0]),
    )
    found = nearest_l2_ratio(generated, originals, reference)
    assert found == pytest.approx(0.5, rel=2e-2)


def test_nearest_l2_ratio_beside_a_reference_of_copies():
    originals = torch.ones(3, 2)
    assert nearest_l2_ratio(torch.zeros(2, 2), originals, originals) is None


def test_toward_mean_is_0_at_an_original_and_1_at_the_mean(zoo):
    middle = zoo.vectors.mean(dim=0, keepdim=True)
    assert toward_mean(zoo.vectors[:3], zoo.vectors) == 0
    assert toward_mean(middle, zoo.vectors) == pytest.approx(1, abs=1e-4)
    assert toward_mean(zoo.vectors[:1], zoo.vectors[:1]) == 0


def test_toward_mean_of_two_points():
    originals = torch.tensor([[0.0, 0.0], [4.0, 0.0]])
    assert toward_mean(torch.tensor([[1.0, 0.0]]), originals) == pytest.approx(0.5)  # 1 and 1 away
    assert toward_mean(torch.tensor([[0.5, 0.0]]), originals) == pytest.approx(0.25)  # 0.5 and 1.5


# Intervals -----------------------------------------------------------------------------------------------------------


def test_resamples_draw_n_of_n():
    counts = resamples(7, rng(), 500)
    assert counts.shape == (500, 7)
    assert (counts.sum(dim=1) == 7).all()
    assert counts.mean().item() == pytest.approx(1)
    assert counts.var().item() == pytest.approx(6 / 7, abs=0.05)  # of a binomial (7, 1/7)


def test_percentiles_are_numpys():
    values = torch.randn(999, generator=rng(), dtype=torch.float64)
    assert percentiles(values) == pytest.approx(np.percentile(values.numpy(), [2.5, 97.5]))


@pytest.mark.parametrize(("n", "seed"), [(5, 0), (30, 1), (200, 2)])
def test_mean_interval_is_scipys(n, seed):
    values = torch.randn(n, generator=rng(seed), dtype=torch.float64).exp()
    own = mean_interval(values, rng(seed))
    other = scipy.stats.bootstrap(
        (values.numpy(),), np.mean, n_resamples=20_000, method="percentile", rng=seed
    ).confidence_interval
    width = other.high - other.low
    assert own == pytest.approx(tuple(other), abs=0.07 * width)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 0.7])
def test_mean_interval_of_equal_values_is_that_value(value):
    assert mean_interval(torch.full((11,), value, dtype=torch.float64), rng()) == (value, value)


def test_mean_interval_of_a_single_value():
    assert mean_interval(torch.tensor([0.25]), rng()) == (0.25, 0.25)


def by_hand(n, seed, statistic):
    """The percentile bootstrap, one resample after the other."""
    values = []
    for drawn in torch.randint(n, (2000, n), generator=rng(seed)).tolist():
        value = statistic(drawn)
        if value is not None:
            values.append(value)
    return np.percentile(values, [2.5, 97.5])


@pytest.mark.parametrize("n", [3, 4, 8])
def test_pair_interval_is_the_bootstrap_by_hand(n):
    matrix = iou(masks(n, 40), masks(n, 40)).double()

    def mean_of_pairs(drawn):
        pairs = [matrix[i, j].item() for i in drawn for j in drawn if i != j]
        return np.mean(pairs) if pairs else None

    expected = by_hand(n, 5, mean_of_pairs)
    assert pair_interval(matrix, rng(5)) == pytest.approx(expected, rel=1e-9)


def test_pair_interval_does_not_see_the_diagonal():
    matrix = iou(masks(6, 40), masks(6, 40))
    assert pair_interval(matrix, rng()) == pair_interval(matrix.clone().fill_diagonal_(9), rng())


def test_pair_interval_of_too_few_models():
    assert pair_interval(torch.ones(1, 1), rng()) is None
    assert pair_interval(torch.ones(2, 2), rng()) is None


def test_pair_interval_holds_the_mean():
    matrix = iou(masks(20, 200), masks(20, 200))
    low, high = pair_interval(matrix, rng())
    assert low < mean_off_diagonal(matrix) < high


def test_cross_interval_is_the_bootstrap_by_hand():
    matrix = torch.rand(3, 5, generator=rng(), dtype=torch.float64)
    source = rng(7)
    rows = torch.randint(3, (2000, 3), generator=source)
    columns = torch.randint(5, (2000, 5), generator=source)
    means = [matrix[r][:, c].mean().item() for r, c in zip(rows, columns, strict=True)]
    expected = np.percentile(means, [2.5, 97.5])
    assert cross_interval(matrix, rng(7)) == pytest.approx(expected, rel=1e-9)


def test_intervals_are_repeatable():
    matrix, values = torch.rand(5, 5, generator=rng()), torch.rand(9, generator=rng())
    assert mean_interval(values, rng(1)) == mean_interval(values, rng(1))
    assert mean_interval(values, rng(1)) != mean_interval(values, rng(2))
    assert pair_interval(matrix, rng(1)) == pair_interval(matrix, rng(1))
    assert cross_interval(matrix, rng(1)) == cross_interval(matrix, rng(1))


# Novelty -------------------------------------------------------------------------------------------------------------


def test_novelty_is_the_distance_to_the_nearest_original():
    matrix = torch.tensor([[0.25, 1.0], [0.5, 0.125]])
    assert novelty(matrix).tolist() == [0.0, 0.5]


def noise_curve(higher=True):
    """Novelties and scores of a control that loses 1 of score for 1 of novelty."""
    novelties = torch.linspace(0, 1, 101, dtype=torch.float64)
    scores = 0.9 - novelties
    return (scores if higher else 1 - scores), novelties


PLACES = torch.tensor([0.1, 0.3, 0.5, 0.77], dtype=torch.float64)


def curve(scores, novelties, higher=True, count=200):
    """A control of one level, or of several where the tensors have two dimensions."""
    levels = (scores, novelties) if scores.ndim == 2 else (scores[None], novelties[None])
    return Curve(*levels, rng=rng(1), higher_is_better=higher, count=count)


@pytest.mark.parametrize("better", [0.0, 0.05, -0.05])
@pytest.mark.parametrize("higher", [True, False])
def test_advantage_is_what_was_planted(better, higher):
    control = curve(*noise_curve(higher), higher=higher)
    scores = 0.9 - PLACES if higher else 0.1 + PLACES
    scores = scores + better if higher else scores - better
    found = advantage(scores, PLACES, control, rng=rng())
    assert found.mean[0] == pytest.approx(better, abs=1e-9)
    assert found.typical[0] == pytest.approx(better, abs=1e-9)
    assert found.beyond == 0


@quick
@given(st.integers(1, 3), st.integers(2, 30), seeds)
def test_the_curve_is_scikit_learns_isotonic_regression(levels, draws, seed):
    novelties = torch.randint(0, 12, (levels, draws), generator=rng(seed)).double() / 12
    scores = torch.rand(levels, draws, generator=rng(seed + 1), dtype=torch.float64)
    own = curve(scores, novelties, count=2)
    other = IsotonicRegression(increasing=False).fit(novelties.flatten(), scores.flatten())
    np.testing.assert_allclose(own.fitted, other.predict(own.knots), rtol=1e-9)
    assert (own.resampled.diff(dim=1) <= 1e-12).all()


def test_a_gap_in_the_control_never_counts_for_the_generator():
    """Between two amplitudes nothing is known but that the curve falls: the less novel one's score is compared with."""
    control = curve(torch.tensor([0.9, 0.2]), torch.tensor([0.1, 0.8]))
    found = advantage(torch.tensor([0.85, 0.85]), torch.tensor([0.3, 0.79]), control, rng=rng())
    assert found.mean[0] == pytest.approx(-0.05, abs=1e-6)


def test_models_beyond_the_controls_range_are_counted_not_extrapolated_to():
    control = curve(torch.tensor([0.8, 0.7, 0.6]), torch.tensor([0.2, 0.4, 0.6]))
    novelties = torch.tensor([0.19, 0.2, 0.5, 0.6, 0.61])
    scores = torch.tensor([0.9, 0.9, 0.8, 0.7, 1.0])
    found = advantage(scores, novelties, control, rng=rng())
    assert found.mean[0] == pytest.approx(
        0.1, abs=1e-6
    )  # the last is left out, the first meets the least novel
    assert found.beyond == pytest.approx(0.2)
    assert advantage(scores[-1:], novelties[-1:], control, rng=rng()) == (None, None, 1.0)


def test_a_control_of_one_novelty_is_its_mean():
    """The average of the checkpoints, for one, has a single novelty."""
    control = curve(torch.tensor([0.6, 0.8]), torch.tensor([0.5, 0.5]))
    found = advantage(torch.tensor([0.9]), torch.tensor([0.5]), control, rng=rng())
    assert found.mean[0] == pytest.approx(0.2)


def test_a_few_good_models_do_not_make_a_typical_advantage():
    control = curve(*noise_curve())
    scores = 0.9 - torch.full((20,), 0.5, dtype=torch.float64)
    scores[:3] += 0.3
    found = advantage(scores, torch.full((20,), 0.5), control, rng=rng())
    assert found.mean[0] == pytest.approx(0.045, abs=1e-6)
    assert found.typical[0] == pytest.approx(0, abs=1e-6)


# Coverage: 95 % intervals hold the truth in 93 to 97 % of 2,000 simulated trials ------------------------------------


def coverage(interval, truth, trials=2000):
    """The share of trials whose interval holds the truth."""
    bounds = [interval(trial) for trial in range(trials)]
    return sum(low <= truth <= high for low, high in bounds) / trials


def test_coverage_of_the_mean(monkeypatch):
    """All trials share their resamples, which depend on nothing; so 2,000 trials take a second."""
    drawn = resamples(100, rng(1))
    monkeypatch.setattr(statistics, "resamples", lambda *_: drawn)
    samples = torch.randn(2000, 100, generator=rng(3), dtype=torch.float64)
    assert 0.93 <= coverage(lambda trial: mean_interval(samples[trial], rng()), 0) <= 0.97


def test_coverage_of_students_t_over_three_seeds():
    samples = torch.randn(2000, 3, generator=rng(4), dtype=torch.float64)

    def interval(trial):
        runs = pd.DataFrame({"mean": samples[trial].tolist()})
        return mean_below("mean")(runs, "low"), mean_above("mean")(runs, "high")

    assert 0.93 <= coverage(interval, 0) <= 0.97


def test_coverage_of_the_mean_over_pairs(monkeypatch):
    """Models with effects of their own: a pair's value is the sum of its two models'."""
    drawn = resamples(60, rng(1))
    monkeypatch.setattr(statistics, "resamples", lambda *_: drawn)
    effects = torch.randn(2000, 60, generator=rng(5), dtype=torch.float64)

    def interval(trial):
        return pair_interval(effects[trial][:, None] + effects[trial], rng())

    assert 0.93 <= coverage(interval, 0) <= 0.97


@pytest.mark.slow
def test_coverage_of_the_advantage():
    """Both populations are drawn anew in every trial, and the control's amplitudes share their checkpoints."""
    places = torch.linspace(0.1, 0.8, 8, dtype=torch.float64)
    level = places[:, None].expand(8, 25)
    source = rng(6)

    def interval(trial):
        parents = 0.02 * torch.randn(25, generator=source, dtype=torch.float64)
        noise = 0.02 * torch.randn(8, 25, generator=source, dtype=torch.float64)
        control = Curve(1 - level + parents + noise, level, rng=rng(trial), count=100)
        novelties = places[torch.randint(8, (100,), generator=source)]
        own = 1.1 - novelties + 0.03 * torch.randn(100, generator=source, dtype=torch.float64)
        return advantage(own, novelties, control, rng=rng(trial)).mean[1:]

    assert 0.93 <= coverage(interval, 0.1, trials=1000) <= 0.97


# Populations ---------------------------------------------------------------------------------------------------------


def test_select_takes_the_best_on_train():
    assert select(torch.tensor([0.1, 0.9, 0.5]), torch.tensor([0.0, 9.0, 0.0])) == 1


def test_select_breaks_ties_by_loss_then_takes_the_first():
    train = torch.tensor([0.5, 0.9, 0.9, 0.9])
    assert select(train, torch.tensor([0.0, 0.3, 0.1, 0.2])) == 2
    assert select(train, torch.tensor([0.0, 0.3, 0.2, 0.2])) == 2
    assert select(train, torch.zeros(4)) == 1


def described(val, train, loss, *, higher=True, seed=0):
    """What a record holds of a population with these scores."""
    one = Population(GENERATED, val, None, train=train, train_loss=loss)
    return describe(one, Similarity(), Metric("score", higher_is_better=higher), rng(seed))


def test_population_of_known_values():
    val = torch.tensor([0.5, 0.9, 0.7, 0.6])
    train = torch.tensor([0.8, 0.1, 0.8, 0.2])
    loss = torch.tensor([0.4, 0.0, 0.3, 0.0])
    found = described(val, train, loss)
    assert (found.best, found.worst) == (val[1].item(), val[0].item())
    assert found.selected == val[2].item()
    assert found.mean == pytest.approx(0.675)
    assert found.median == pytest.approx(0.65)
    assert found.std == pytest.approx(np.std(val.numpy(), ddof=1), rel=1e-6)
    assert found.low < found.mean < found.high
    assert found.values == val.tolist()


def test_population_where_lower_is_better():
    val, train = torch.tensor([3.0, 1.0, 2.0]), torch.tensor([1.0, 3.0, 2.0])
    found = described(val, train, torch.zeros(3), higher=False)
    assert (found.best, found.worst, found.selected) == (1.0, 3.0, 3.0)


def test_population_of_a_single_model():
    one = torch.tensor([0.3])
    found = described(one, one, one)
    assert found.std is None
    assert found.best == found.worst == found.mean == found.low == found.high == one.item()


def test_the_selected_model_is_chosen_on_train_however_it_does_on_validation():
    val = torch.linspace(0, 1, 30).double()
    found = described(val, val.flip(0), torch.zeros(30))
    assert (found.selected, found.best) == (0.0, 1.0)


@quick
@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20), st.booleans(), seeds)
def test_population_agrees_with_numpy(values, higher, seed):
    val = torch.tensor(values)
    train = torch.rand(len(values), generator=rng(seed))
    found = described(val, train, train, higher=higher, seed=seed)
    ends = (max(values), min(values))
    assert (found.best, found.worst) == (ends if higher else ends[::-1])
    assert found.mean == pytest.approx(np.mean(values))
    assert found.median == pytest.approx(np.median(values))
    assert found.selected == values[int(train.argmax() if higher else train.argmin())]


CONTROLS = [Control("average"), Control("copy"), Control("interpolation"), Control("gaussian"), Control("finetune"),
            Control("greedy_soup"), Control("noise", 0.1), Control("noise", 1.0)]  # fmt: skip


def of_copies(worse):
    """Originals, generated models and controls that are all the same, but for the noisiest."""
    wrong, worse = masks(6, 200, 0.2), masks(6, 200, worse, seed=9)
    origins = [ORIGINAL, GENERATED, *map(Origin.of, CONTROLS)]
    made = []
    for origin in origins:
        units = worse if origin.amplitude == 1 else wrong
        val = 1 - units.double().mean(dim=1)
        made.append(Population(origin, val, units, train=val, train_loss=1 - val))
    return made


def test_a_generator_whose_models_are_copies_is_found_out_by_every_number():
    weights = torch.randn(6, 5, generator=rng())
    populations = [dataclasses.replace(one, weights=weights) for one in of_copies(0.6)]
    source, metric = generator(0, "test"), Metric("accuracy", scale=100, mean_over_units=True)
    baselines = compare.Baselines.of(populations, metric, source)
    finding = compare.assess(baselines, populations[1], source)
    found = compare.described(baselines, populations[1], finding.similarity, source)
    judge = finding.judge(None, models=6, tests=None, good=None)
    assert list(found) == ["original", "generated", *map(str, CONTROLS)]
    assert found["generated"].values == populations[1].val.tolist()
    assert [one.amplitude for one in found.values() if one.name == "noise"] == [0.1, 1.0]
    assert found["generated"].similarity.nearest.value == 1
    within = found["original"].similarity.within
    assert found["generated"].similarity.within.value == within.value
    assert found["noise 1"].similarity.nearest.value < 0.5
    noise = judge.advantages["noise"]
    assert (judge.origin.toward_mean, noise.beyond) == (0, 0)
    assert (judge.origin.nearest_l2_ratio, judge.collapsed) == (None, None)  # no reference
    assert noise.mean.value == pytest.approx(0, abs=1e-9)
    assert (judge.word, judge.rule, judge.resolution) == ("undecided", 2, None)  # no reference
