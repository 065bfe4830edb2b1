"""Metrics of the verdict against independent computations: other libraries, enumeration, simulation."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.metrics import cohen_kappa_score

from bench.errors import BenchError
from bench.judge import describe
from bench.judge.alike import Alike
from bench.judge.population import ORIGINAL, Population
from bench.metrics import span
from bench.metrics.agreement import error_consistency
from bench.metrics.copying import copy_test
from bench.metrics.quality import quality
from bench.metrics.similarity import iou, mean_off_diagonal, nearest_other
from bench.metrics.span import span_residual
from bench.metrics.two_sample import energy_test
from bench.metrics.variety import mean_distance, variety, vendi
from bench.records.checks.agreement import kappas

quick = settings(derandomize=True, deadline=None, max_examples=40)
seeds = st.integers(0, 10_000)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=rng(seed), dtype=torch.float64)


def apart(points):
    """Euclidean distances of all pairs, by scipy."""
    return torch.from_numpy(cdist(points, points))


# Copying -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m"), [(1, 1), (3, 2), (2, 5), (4, 4), (5, 3)])
def test_the_copy_test_is_the_count_of_all_orders(n, m):
    """Every choice of n of the n + m ranks is as likely; p is the share of those with as many generated in front."""
    splits = [set(some) for some in itertools.combinations(range(n + m), n)]
    ahead = [next(rank for rank in range(n + m + 1) if rank not in split) for split in splits]
    for split, expected in zip(splits, ahead, strict=True):
        generated = torch.tensor(sorted(split), dtype=torch.float32)
        reference = torch.tensor(sorted(set(range(n + m)) - split), dtype=torch.float32)
        nearer, p = copy_test(generated, reference)
        assert nearer == expected
        assert p == pytest.approx(np.mean([other >= nearer for other in ahead]), rel=1e-12)


@quick
@given(st.integers(1, 300), st.integers(1, 300), st.floats(0, 1))
def test_the_copy_test_is_its_product(n, m, share):
    k = int(share * n)
    generated = torch.cat([torch.zeros(k), torch.full((n - k,), 2.0)])
    expected = math.prod((n - i) / (n + m - i) for i in range(k))
    assert copy_test(generated, torch.ones(m)) == (k, pytest.approx(expected, rel=1e-9))


def test_seven_of_a_hundred_show_copying():
    distances = torch.cat([torch.zeros(7), torch.ones(93)])
    assert copy_test(distances, torch.ones(100))[1] <= 0.01
    assert copy_test(distances[1:], torch.ones(99))[1] > 0.01


def test_the_copy_test_is_wrong_at_most_once_in_a_hundred():
    """Generated models are drawn like the reference in 4,000 trials; 2.6 standard errors are allowed."""
    for n, m in ((100, 100), (100, 50), (20, 60)):
        drawn = torch.rand(4000, n + m, generator=rng(n + m))
        false = [copy_test(one[:n], one[n:])[1] <= 0.01 for one in drawn]
        assert np.mean(false) <= 0.01 + 2.6 * (0.01 * 0.99 / 4000) ** 0.5


def test_ties_with_the_reference_are_no_copies():
    assert copy_test(torch.ones(5), torch.ones(5)) == (0, 1.0)
    assert copy_test(torch.zeros(5), torch.tensor([0.0, 1.0])) == (0, 1.0)


def test_the_copy_test_of_broken_models_and_of_none():
    assert copy_test(torch.tensor([math.nan, math.inf]), torch.ones(3)) == (0, 1.0)
    assert copy_test(torch.zeros(0), torch.ones(3)) == (0, 1.0)
    for reference in (torch.zeros(0), torch.tensor([1.0, math.nan])):
        with pytest.raises(BenchError, match="reference models"):
            copy_test(torch.zeros(2), reference)


# Variety -------------------------------------------------------------------------------------------------------------


@quick
@given(st.integers(2, 9), seeds)
def test_mean_distance_is_a_loop_over_pairs(n, seed):
    distances = apart(normal(n, 3, seed=seed))
    pairs = [distances[i, j].item() for i, j in itertools.combinations(range(n), 2)]
    assert mean_distance(distances) == pytest.approx(np.mean(pairs), rel=1e-12)


def test_mean_distance_of_a_single_model():
    assert mean_distance(torch.zeros(1, 1)) is None


@pytest.mark.parametrize("n", [1, 2, 7, 40])
def test_vendi_of_models_all_alike_and_all_different(n):
    assert vendi(torch.ones(n, n)).item() == pytest.approx(1, abs=1e-9)
    assert vendi(torch.eye(n)).item() == pytest.approx(n, rel=1e-9)


@quick
@given(st.integers(1, 12), st.integers(1, 20), seeds)
def test_vendi_is_numpys_entropy_of_eigenvalues(n, d, seed):
    """Of unit vectors: the eigenvalues of K / N are squares of the vectors' singular values over N."""
    vectors = torch.nn.functional.normalize(normal(n, d, seed=seed), dim=1)
    shares = np.linalg.svd(vectors.numpy(), compute_uv=False) ** 2 / n
    expected = np.exp(scipy.stats.entropy(shares))
    assert vendi(vectors @ vectors.T).item() == pytest.approx(expected, rel=1e-9)


def test_vendi_of_groups_of_copies_is_the_number_of_groups():
    groups = torch.arange(12) % 3
    assert vendi((groups[:, None] == groups).float()).item() == pytest.approx(3, rel=1e-6)


def test_vendi_of_several_populations_at_once():
    points = normal(4, 6, 2)
    kernels = torch.stack([(-apart(some)).exp() for some in points])
    assert torch.allclose(vendi(kernels), torch.stack([vendi(kernel) for kernel in kernels]))


def test_variety_is_computed_by_hand():
    """The same halves, one after the other, with numpy's eigenvalues; the larger population's halves have two parts."""
    generated, reference = apart(1.5 * normal(9, 3)), apart(normal(4, 3, seed=1))
    found = variety(generated, reference, rng=rng(3), count=50)
    source, usual = rng(3), np.quantile(reference[np.triu_indices(4, 1)], 0.5, method="lower")
    far, scores = [], []
    for distances, parts in ((generated.numpy(), 2), (reference.numpy(), 1)):
        orders = torch.rand(50, len(distances), generator=source, dtype=torch.float64).argsort(1)
        for order in orders.numpy():
            chosen = [np.ix_(part, part) for part in order[: 2 * parts].reshape(parts, 2)]
            values = [np.linalg.eigvalsh(np.exp(-distances[one] / usual) / 2) for one in chosen]
            far.append(np.mean([distances[one][0, 1] for one in chosen]))
            scores.append(np.mean([np.exp(scipy.stats.entropy(some)) for some in values]))
    far, scores = np.reshape(far, (2, 50)), np.reshape(scores, (2, 50))
    ratio = mean_distance(generated) / mean_distance(reference)
    bounds = np.percentile(far[0] / far[1], [2.5, 97.5])
    assert found.distance == pytest.approx((ratio, *bounds), rel=1e-9)
    bounds = np.percentile(scores[0] / scores[1], [2.5, 97.5])
    assert found.vendi == pytest.approx((scores[0].mean() / scores[1].mean(), *bounds), rel=1e-9)


@pytest.mark.parametrize(("n", "m"), [(30, 30), (40, 20)])
def test_variety_covers_what_was_planted(n, m):
    """Populations drawn alike, of equal and of unequal sizes: both ratios are 1 in about 95 % of 150 trials."""
    held = []
    for trial in range(150):
        points = normal(n + m, 4, seed=trial)
        found = variety(apart(points[:n]), apart(points[n:]), rng=rng(trial), count=200)
        held.append([low <= 1 <= high for _, low, high in found])
    assert ((np.mean(held, 0) >= 0.88) & (np.mean(held, 0) <= 0.995)).all()


def test_variety_finds_populations_that_are_more_or_less_varied():
    points = normal(60, 5)
    for factor, verdict in ((2.0, 1), (0.5, -1)):
        found = variety(apart(factor * points[:30]), apart(points[30:]), rng=rng(), count=200)
        for value, low, high in found:
            assert low <= value <= high
            assert low > 1 if verdict > 0 else high < 1


def test_variety_of_copies_of_one_model():
    found = variety(torch.zeros(20, 20), apart(normal(20, 5)), rng=rng(), count=50)
    assert found.distance == (0, 0, 0)
    assert 1 / 20 < found.vendi[0] < 1


def test_variety_where_it_is_undefined():
    some = apart(normal(8, 2))
    assert variety(some[:3, :3], some, rng=rng()) is None
    assert variety(some, some[:3, :3], rng=rng()) is None
    assert variety(some, torch.zeros(8, 8), rng=rng()) is None
    copies = torch.zeros(8, 8)
    copies[:4, 4:] = copies[4:, :4] = 1  # two groups of four: half of them may be one group
    assert variety(some, copies, rng=rng()) is None


# Quality -------------------------------------------------------------------------------------------------------------


@quick
@given(st.integers(2, 40), st.integers(2, 40), st.floats(0.1, 5), st.floats(0, 2), seeds)
def test_quality_is_scipys_welch_test_and_two_one_sided_ones(n, m, spread, margin, seed):
    a, b = spread * normal(n, seed=seed) + 0.5, normal(m, seed=seed + 1)
    found = quality(a, b, margin)
    two_sided = scipy.stats.ttest_ind(a, b, equal_var=False)
    interval = two_sided.confidence_interval(0.95)
    assert found.difference == pytest.approx((float(a.mean() - b.mean()), *interval), rel=1e-9)
    above = scipy.stats.ttest_ind(a + margin, b, equal_var=False, alternative="greater")
    below = scipy.stats.ttest_ind(a - margin, b, equal_var=False, alternative="less")
    assert found.equivalence == pytest.approx(max(above.pvalue, below.pvalue), rel=1e-7)


def test_equivalence_is_shown_where_the_90_percent_interval_is_within_the_margin():
    a, b = normal(30), normal(50, seed=1)
    low, high = scipy.stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.9)
    edge = max(-low, high)
    assert quality(a, b, edge * 1.001).equivalence < 0.05 < quality(a, b, edge * 0.999).equivalence


def test_equivalence_is_wrong_at_most_once_in_twenty():
    """At a difference of just the margin it is shown in 5 % of trials."""
    shown = [
        quality(0.5 + normal(25, seed=2 * trial), normal(25, seed=2 * trial + 1), 0.5).equivalence
        <= 0.05
        for trial in range(1500)
    ]
    assert np.mean(shown) <= 0.05 + 2.6 * (0.05 * 0.95 / 1500) ** 0.5


def test_quality_of_a_single_model():
    assert quality(torch.ones(1), torch.rand(9), 0.1) is None
    assert quality(torch.rand(9), torch.ones(1), 0.1) is None


def test_quality_of_scores_that_are_all_the_same():
    same = torch.full((4,), 0.5)
    assert quality(same, same, 0.1) == ((0, 0, 0), 0)
    assert quality(same + 0.5, same, 0.5) == ((0.5, 0.5, 0.5), 1)
    low, high = quality(same, torch.tensor([0.4, 0.5, 0.6]), 0.1).difference[1:]
    assert (low, high) == pytest.approx((-0.248414, 0.248414), abs=1e-5)  # 4.302653 * 0.1 / 3^(1/2)


# Two-sample test -----------------------------------------------------------------------------------------------------


@quick
@given(st.integers(1, 12), st.integers(1, 12), seeds)
def test_the_energy_distance_is_scipys(n, m, seed):
    """In one dimension, where scipy has it from distribution functions."""
    x, y = normal(n, seed=seed), normal(m, seed=seed + 1)
    found, _ = energy_test(apart(torch.cat([x, y])[:, None]), n, rng=rng(), count=1)
    assert found == pytest.approx(scipy.stats.energy_distance(x, y) ** 2, rel=1e-9, abs=1e-12)


def energy(distances):
    """The statistic of two sets of indices, as its definition has it."""

    def statistic(x, y):
        x, y = x.astype(int), y.astype(int)
        across, first, second = (distances[np.ix_(*pair)] for pair in ((x, y), (x, x), (y, y)))
        return 2 * across.mean() - first.mean() - second.mean()

    return statistic


@pytest.mark.parametrize(("n", "m", "shift"), [(4, 5, 0.0), (4, 5, 1.0), (3, 6, 0.7), (4, 4, 0.5)])
def test_the_permutation_test_is_scipys_over_all_splits(n, m, shift):
    points = normal(n + m, 2, seed=n + m)
    points[:n] += shift
    distances = apart(points)
    expected = scipy.stats.permutation_test(
        (np.arange(n), np.arange(n, n + m)),
        energy(distances.numpy()),
        permutation_type="independent",
        n_resamples=np.inf,
        alternative="greater",
        vectorized=False,
    )
    found = energy_test(distances, n, rng=rng(), count=4000)
    assert found[0] == pytest.approx(expected.statistic, rel=1e-9)
    p = expected.pvalue
    assert found[1] == pytest.approx(p, abs=4 * (p * (1 - p) / 4000) ** 0.5 + 1 / 4000)


def test_p_is_uniform_where_the_populations_are_alike():
    found = [
        energy_test(apart(normal(18, 3, seed=trial)), 8, rng=rng(trial), count=99)[1]
        for trial in range(600)
    ]
    assert min(found) >= 0.01
    places = np.random.default_rng(0).uniform(size=600) / 100  # p-values are multiples of 0.01
    assert scipy.stats.kstest(np.array(found) - places, "uniform").pvalue > 0.01


@pytest.mark.parametrize("change", ["shift", "scale"])
def test_populations_that_differ_are_told_apart(change):
    points = normal(80, 5, seed=4)
    points[:40] = points[:40] + 1 if change == "shift" else points[:40] * 2
    assert energy_test(apart(points), 40, rng=rng(), count=999)[1] == 0.001


def test_populations_of_copies_are_all_tied():
    statistic, p = energy_test(torch.zeros(6, 6), 3, rng=rng(), count=99)
    assert (statistic, p) == (0, 1)
    one = (~torch.eye(7, dtype=torch.bool)).float() / 3  # every two models as far apart
    assert energy_test(one, 3, rng=rng(), count=99)[1] == 1


def test_the_two_sample_test_refuses_what_it_cannot_compare():
    distances = apart(normal(5, 2))
    for n in (0, 5):
        with pytest.raises(BenchError, match="both populations"):
            energy_test(distances, n, rng=rng())
    distances[0, 1] = math.nan
    with pytest.raises(BenchError, match="not finite"):
        energy_test(distances, 2, rng=rng())


# Span ----------------------------------------------------------------------------------------------------------------


def by_least_squares(generated, originals):
    """The share that numpy's least squares leaves."""
    mean = originals.mean(0)
    x, directions = (generated - mean).numpy(), (originals - mean).numpy()
    coefficients = np.linalg.lstsq(directions.T, x.T, rcond=1e-5)[0]
    left = x - coefficients.T @ directions
    return (left**2).sum(1) / (x**2).sum(1)


@quick
@given(st.integers(1, 4), st.integers(1, 8), st.integers(0, 40), seeds)
def test_the_span_residual_is_numpys_least_squares(n, k, more, seed):
    generated, originals = normal(n, k + more, seed=seed), normal(k, k + more, seed=seed + 1) + 3
    found = span_residual(generated, originals)
    np.testing.assert_allclose(found, by_least_squares(generated, originals), atol=1e-10)


def test_the_span_residual_of_checkpoints_that_depend_on_each_other():
    """Copies and averages among the checkpoints add no direction."""
    originals = normal(6, 50)
    more = torch.cat([originals, originals[:3], originals[1:4].mean(0, keepdim=True)])
    generated = normal(5, 50, seed=1)
    found = span_residual(generated, more)
    np.testing.assert_allclose(found, by_least_squares(generated, more), atol=1e-10)
    assert (found > 0.5).all()


def test_a_direction_in_which_checkpoints_hardly_differ_is_none():
    """Below 1e-10 of the largest eigenvalue, 1e-5 in length; above, it is one."""
    axes = torch.eye(9, dtype=torch.float64)
    for length, expected in ((1e-6, 1), (1e-4, 0)):
        originals = torch.stack([axes[0], axes[1], axes[0] + length * axes[2]])
        found = span_residual(originals.mean(0, keepdim=True) + axes[2:3], originals)
        assert found.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("spread", [1.0, 1e-3])
def test_nothing_of_combinations_of_checkpoints_is_left(spread):
    """In float32, as vectors are; also where checkpoints differ by a thousandth, as on a trajectory."""
    originals = (normal(10, 3000) + spread * normal(10, 3000, seed=1)).float()
    originals = originals[:1] + spread * (originals - originals[:1])
    combined = torch.stack(
        [
            originals.mean(0),
            originals[:4].mean(0),
            originals[0].lerp(originals[1], 0.3),
            originals[2].lerp(originals[3], -0.5),
            originals[5],
        ]
    )
    assert span_residual(combined, originals).max() < 1e-5
    assert span_residual(combined, originals)[0] == 0


def test_what_is_planted_outside_the_span_is_found():
    originals, outside = normal(5, 400), normal(1, 400, seed=1)
    outside = outside - outside @ torch.linalg.pinv(originals) @ originals
    inside = originals[0] - originals.mean(0)
    planted = originals[0] + 0.5 * outside * inside.norm() / outside.norm()
    assert span_residual(planted, originals).item() == pytest.approx(0.25 / 1.25, rel=1e-9)


def test_the_span_residual_does_not_depend_on_the_block(monkeypatch):
    generated, originals = normal(3, 500), normal(7, 500, seed=1)
    whole = span_residual(generated, originals)
    monkeypatch.setattr(span, "BLOCK", 64)
    assert torch.allclose(span_residual(generated, originals), whole, rtol=1e-10)


def test_the_span_residual_of_one_checkpoint():
    one = normal(1, 9)
    assert span_residual(torch.cat([one, one + 1]), one).tolist() == [0, 1]


def test_the_span_residual_of_fewer_dimensions_than_checkpoints():
    assert span_residual(normal(2, 3), normal(4, 3)) is None


def test_the_span_residual_of_broken_vectors():
    broken = torch.stack([torch.full((9,), math.inf), torch.full((9,), math.nan), torch.zeros(9)])
    found = span_residual(broken, normal(3, 9).float())
    assert found.isnan().tolist() == [True, True, False]


# Agreement -----------------------------------------------------------------------------------------------------------


def masks(n, m, share, seed):
    return torch.rand(n, m, generator=rng(seed)) < share


@pytest.mark.filterwarnings("ignore")  # scikit-learn warns where kappa is 0 / 0
@quick
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 30), st.floats(0, 1), seeds)
def test_error_consistency_is_scikit_learns_kappa(n, p, m, share, seed):
    a, b = masks(n, m, share, seed), masks(p, m, 1 - share / 2, seed + 1)
    kappas = [[cohen_kappa_score(x, y, labels=[0, 1]) for y in b.numpy()] for x in a.numpy()]
    expected = np.where(np.isnan(kappas), 1.0, kappas)
    np.testing.assert_allclose(error_consistency(a, b), expected, atol=1e-12)


def test_error_consistency_of_models_without_a_choice():
    none, some = torch.zeros(1, 4, dtype=torch.bool), torch.tensor([[True, False, False, True]])
    assert error_consistency(none, none).item() == 1
    assert error_consistency(~none, ~none).item() == 1
    assert error_consistency(none, ~none).item() == 0
    assert error_consistency(none, some).item() == 0
    assert error_consistency(some, some).item() == 1
    assert error_consistency(some, ~some).item() == -1


def test_independent_errors_are_as_consistent_as_chance_however_many():
    """IoU rises with their number."""
    few, many = (masks(20, 20_000, share, 1) for share in (0.05, 0.5))
    assert mean_off_diagonal(error_consistency(few, few)) == pytest.approx(0, abs=0.003)
    assert mean_off_diagonal(error_consistency(many, many)) == pytest.approx(0, abs=0.003)
    assert mean_off_diagonal(iou(few, few)) < 0.03
    assert mean_off_diagonal(iou(many, many)) > 0.3


# Nearest other -------------------------------------------------------------------------------------------------------


@quick
@given(st.integers(2, 9), st.integers(1, 30), st.floats(0, 1), seeds)
def test_the_nearest_other_is_a_loop(n, m, share, seed):
    sets = masks(n, m, share, seed)
    for matrix in (iou(sets, sets), error_consistency(sets, sets)):
        kept = matrix.clone()
        nearest = [max(matrix[i, j].item() for j in range(n) if j != i) for i in range(n)]
        assert nearest_other(matrix) == pytest.approx(np.mean(nearest), rel=1e-9, abs=1e-12)
        assert torch.equal(matrix, kept)


def test_the_nearest_other_of_a_single_model():
    assert nearest_other(torch.ones(1, 1)) is None


@pytest.mark.parametrize("share", [0.05, 0.4, 0.9])
def test_both_numbers_of_a_pair_are_those_of_the_functions_alone(share):
    rng = torch.Generator().manual_seed(3)
    a, b = (
        Population(ORIGINAL, torch.zeros(n), torch.rand(n, 501, generator=rng) < share)
        for n in (7, 5)
    )
    for one, other in ((a, b), (a, a)):
        found = Alike.of(one, other)
        assert torch.equal(found.similarity, iou(one.wrong, other.wrong))
        assert torch.equal(found.kappa, error_consistency(one.wrong, other.wrong))


def test_models_without_wrong_units_have_no_kappa():
    rng = torch.Generator().manual_seed(0)
    one = Population(ORIGINAL, torch.zeros(4), None, torch.rand(4, 9, generator=rng))
    found = Alike.of(one, one)
    assert found.kappa is None
    assert describe.of_control(found, found).kappa is None
    assert describe.of_originals(found, rng).kappa is None


def test_the_originals_own_nearest_leaves_each_out():
    rng = torch.Generator().manual_seed(0)
    one = Population(ORIGINAL, torch.zeros(6), torch.rand(6, 200, generator=rng) < 0.3)
    among = Alike.of(one, one)
    found = describe.of_originals(among, rng)
    assert found.nearest.value == pytest.approx(nearest_other(among.similarity))
    assert found.nearest.low < found.nearest.value < found.nearest.high
    assert found.kappa.nearest == nearest_other(among.kappa)
    assert found.kappa.within == mean_off_diagonal(among.kappa)
    assert (found.originals, found.kappa.originals) == (None, None)
    alone = describe.of_originals(
        Alike.of(one.rows(torch.tensor([0])), one.rows(torch.tensor([0]))), rng
    )
    assert (alone.nearest, alone.within, alone.kappa.nearest, alone.kappa.within) == (None,) * 4


@pytest.mark.parametrize("units", [50, 797, 10_000])
def test_kappa_follows_from_rounded_iou_and_numbers_of_errors(units):
    rng = torch.Generator().manual_seed(units)
    a = torch.rand(20, units, generator=rng) < 0.3
    a[0], a[1] = False, True
    b = torch.rand(9, units, generator=rng) < torch.rand(9, 1, generator=rng)
    b[0], b[1] = False, True
    rounded = iou(a, b).half().double().numpy()
    found, off = kappas(rounded, a.sum(1).double().numpy(), b.sum(1).double().numpy(), units)
    assert (np.abs(found - error_consistency(a, b).numpy()) <= off + 1e-12).all()
    assert off.max() < (0.01 if units > 1000 else 1e-12)  # few units leave no doubt
