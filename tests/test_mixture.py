import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import torch

from bench.metrics import mixture
from bench.metrics.mixture import Group, Mixtures


def points(n, centre, seed, dims=20):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(n, dims, generator=rng, dtype=torch.float64) + centre


def groups(*sizes, whole=()):
    ends = np.cumsum(sizes)
    return [
        Group(torch.arange(end - size, end), whole=index in whole)
        for index, (size, end) in enumerate(zip(sizes, ends, strict=True))
    ]


def fit(target, *parts, whole=(), seed=0, count=200):
    """Fit a mixture of parts to the target; the groups are given as points."""
    everything = torch.cat([target, *parts])
    first, *rest = groups(len(target), *map(len, parts), whole=whole)
    rng = torch.Generator().manual_seed(seed)
    return Mixtures(torch.cdist(everything, everything), rest, rng, count).fit(first, rng)


def test_the_energy_distance_of_whole_populations_is_scipys():
    x, y = points(30, 0, 0, 1), points(40, 1, 1, 1)
    found = fit(x, y, whole=(0, 1))
    assert found.shares.tolist() == [1]
    expected = scipy.stats.energy_distance(x[:, 0].numpy(), y[:, 0].numpy()) ** 2
    assert found.residual == pytest.approx(expected, rel=1e-9)


def test_samples_of_one_population_have_an_energy_distance_of_0_on_average():
    left = [fit(points(20, 0, s), points(20, 0, 100 + s), count=2).residual for s in range(200)]
    assert abs(np.mean(left)) < 3 * np.std(left) / 200**0.5


def test_shares_minimise_the_energy_distance():
    rng = np.random.default_rng(0)
    for _ in range(20):
        root = rng.normal(size=(5, 8))
        kernel = root.T @ root
        (found,) = mixture._simplex(kernel[None])
        best = scipy.optimize.minimize(
            lambda w, kernel=kernel: w @ kernel @ w,
            np.full(8, 1 / 8),
            bounds=[(0, 1)] * 8,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 1000},
        )
        assert found.min() >= 0
        assert found.sum() == pytest.approx(1)
        assert found @ kernel @ found <= best.fun + 1e-6 * np.trace(kernel)


def test_known_shares_are_found_within_their_interval():
    target = torch.cat([points(60, 0, 0), points(40, 1, 1)])
    found = fit(target, points(100, 0, 2), points(100, 1, 3), points(100, -1, 4))
    assert found.shares.tolist() == pytest.approx([0.6, 0.4, 0.0], abs=0.1)
    low, high = found.resampled.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
    assert bool((low[:2] <= torch.tensor([0.6, 0.4])).all())
    assert bool((high[:2] >= torch.tensor([0.6, 0.4])).all())
    assert found.p > 0.05


def test_copies_of_a_zoo_are_told_from_new_models_of_the_same_process():
    zoo, new = points(50, 0, 0), points(100, 0, 1)
    drawn = zoo[torch.randint(50, (100,), generator=torch.Generator().manual_seed(2))]
    assert fit(drawn, zoo, new, whole=(1,)).shares[0] > 0.9
    assert fit(points(100, 0, 3), zoo, new, whole=(1,)).shares[1] > 0.7


def test_a_mixture_that_fits_leaves_a_residual_like_its_own_samples():
    values = [
        fit(
            torch.cat([points(30, 0, s), points(10, 1, 500 + s)]),
            points(60, 0, 1000 + s),
            points(60, 1, 2000 + s),
            seed=s,
        ).p
        for s in range(40)
    ]
    assert scipy.stats.kstest(values, "uniform").pvalue > 1e-3
    assert min(values) > 1 / 201


def test_what_no_mixture_reproduces_leaves_more():
    found = fit(points(60, 3, 0), points(60, 0, 1), points(60, 1, 2))
    assert found.residual > 1
    assert found.p == pytest.approx(1 / 201)


def test_a_single_model_is_a_population():
    mean = torch.zeros(1, 20, dtype=torch.float64)
    found = fit(mean, mean.clone(), points(50, 0, 0))
    assert found.shares.tolist() == pytest.approx([1, 0], abs=1e-6)
    assert found.residual == pytest.approx(0, abs=1e-9)


def test_other_models_can_take_the_place_of_a_part():
    everything = torch.cat([points(30, 0, 0), points(40, 0, 1), points(50, 1, 2)])
    distances = torch.cdist(everything, everything)
    target, first, second = groups(30, 40, 50)
    half = Group(first.rows[1::2])

    def mixtures(*parts):
        return Mixtures(distances, parts, torch.Generator().manual_seed(0), 20)

    replaced = mixtures(first, second).fit(target, torch.Generator().manual_seed(1), {0: half})
    expected = mixtures(half, second).fit(target, torch.Generator().manual_seed(1))
    assert torch.allclose(replaced.shares, expected.shares)
    assert replaced.residual == pytest.approx(expected.residual)


def test_nothing_is_changed_and_the_seed_decides():
    everything = torch.cdist(points(30, 0, 0), points(30, 0, 0))
    before = everything.clone()
    first, second = groups(10, 20)

    def found(seed):
        rng = torch.Generator().manual_seed(seed)
        return Mixtures(everything, [second], rng, 50).fit(first, rng)

    one, same, other = found(1), found(1), found(2)
    assert torch.equal(everything, before)
    assert (one.residual, one.p) == (same.residual, same.p)
    assert one.p != other.p
