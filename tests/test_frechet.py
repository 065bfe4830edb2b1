"""Distances in feature space against scipy, torch-fidelity and known values."""

import warnings

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from bench.errors import BenchError
from bench.metrics import frechet as fd

# Images and features: plenty of images, as many as features, fewer of one kind, fewer of both.
SHAPES = [(400, 300, 16), (65, 64, 64), (200, 20, 48), (20, 30, 64), (2, 2, 5)]


def features(count, dim, seed, shift=0.0):
    """Correlated and not negative, as those of a network are."""
    rng = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dim, dim, generator=torch.Generator().manual_seed(99)) / dim**0.5
    return (torch.randn(count, dim, generator=rng) @ mixing + 0.5 + shift).relu()


def unbiased(sets, real):
    return fd.unbiased(sets, real, rng=torch.Generator().manual_seed(0))


def by_sqrtm(a, b):
    """The formula as it is written, with scipy's root of a matrix."""
    (m1, c1), (m2, c2) = ((np.mean(x, axis=0), np.cov(x, rowvar=False)) for x in (a, b))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy.linalg.LinAlgWarning)  # few points, many dimensions
        common = scipy.linalg.sqrtm(c1 @ c2)
    return np.sum((m1 - m2) ** 2) + np.trace(c1 + c2 - 2 * common.real)


@pytest.mark.parametrize(("n", "m", "dim"), SHAPES)
def test_frechet_is_that_of_torch_fidelity(n, m, dim):
    a, b = features(n, dim, 0, 0.3).double(), features(m, dim, 1).double()
    ours = fd.frechet(fd.Gaussian.of(a), fd.Gaussian.of(b))
    theirs = fid_statistics_to_metric(*map(fid_features_to_statistics, (a, b)), verbose=False)
    assert ours.item() == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)


@pytest.mark.parametrize(("n", "m", "dim"), SHAPES)
def test_frechet_is_that_of_scipys_sqrtm(n, m, dim):
    a, b = features(n, dim, 2, 0.3).double(), features(m, dim, 3).double()
    ours = fd.frechet(fd.Gaussian.of(a), fd.Gaussian.of(b))
    assert ours.item() == pytest.approx(by_sqrtm(a.numpy(), b.numpy()), rel=1e-6)


def test_frechet_where_features_never_change():
    """Dead features make both covariances singular, however many images there are."""
    a, b = features(300, 12, 4, 0.3).double(), features(200, 12, 5).double()
    for dead in (a, b):
        dead[:, 3:9] = 0
    ours = fd.frechet(fd.Gaussian.of(a), fd.Gaussian.of(b))
    kept = [0, 1, 2, 9, 10, 11]
    assert ours.item() == pytest.approx(by_sqrtm(a[:, kept].numpy(), b[:, kept].numpy()), rel=1e-9)


def test_frechet_of_two_known_gaussians():
    """Commuting covariances: |m1 - m2|^2 + sum of (s1 - s2)^2, in a rotated basis."""
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).double())[
        0
    ]
    s1, s2 = torch.tensor([[1.0, 2, 3], [3, 2, 0.5]]).double()
    m1, m2 = torch.tensor([[0.0, 1, 2], [2, 1, 0]]).double()
    one, two = (fd.Gaussian(m, turn @ (s**2).diag() @ turn.T) for m, s in ((m1, s1), (m2, s2)))
    assert fd.frechet(one, two).item() == pytest.approx(8 + 4 + 0 + 6.25, rel=1e-12)
    assert fd.frechet(one, one).item() == pytest.approx(0, abs=1e-12)


@given(st.integers(0, 1000), st.integers(2, 40), st.integers(1, 12))
def test_frechet_is_symmetric_and_not_negative(seed, count, dim):
    one, two = (fd.Gaussian.of(features(count, dim, seed + i).double()) for i in (0, 1))
    there, back = fd.frechet(one, two), fd.frechet(two, one)
    assert there.item() == pytest.approx(back.item(), rel=1e-7, abs=1e-9)
    assert there.item() >= -1e-9


@pytest.mark.parametrize("batch", [1, 7, 64, 300])
def test_moments_do_not_depend_on_the_batches(batch):
    whole = features(300, 16, 6)
    moments = fd.Moments.zero((), whole[0])
    for part in whole.split(batch):
        moments = moments.add(part)
    found, expected = moments.gaussian(), fd.Gaussian.of(whole)
    assert torch.allclose(found.mean, expected.mean, rtol=1e-13)
    assert torch.allclose(found.covariance, expected.covariance, rtol=1e-11)
    assert np.allclose(expected.covariance, np.cov(whole.double().numpy(), rowvar=False))


def test_moments_of_features_far_from_zero():
    """Sums of squares would lose the variance; they are taken about a point nearby."""
    far = features(300, 4, 7).double() + 1e6
    found = fd.Gaussian.of(far).covariance
    assert np.allclose(found, np.cov(far.numpy(), rowvar=False), rtol=1e-8)


def test_many_sets_at_once_are_each_alone():
    sets = torch.stack([features(90, 8, seed, seed / 9) for seed in range(4)])
    real = features(70, 8, 11)
    reference = fd.Gaussian.of(real)
    for measure in (
        lambda x: fd.frechet(fd.Gaussian.of(x), reference),
        lambda x: unbiased(x, reference),
        lambda x: fd.kid(x, real),
        lambda x: fd.precision_recall(x, real)[0],
        lambda x: fd.precision_recall(x, real)[1],
    ):
        alone = torch.cat([measure(one[None]) for one in sets])
        assert torch.allclose(measure(sets), alone, rtol=1e-9)


def test_kid_is_that_of_torch_fidelity():
    a, b = features(120, 16, 8, 0.2).double(), features(120, 16, 9).double()
    theirs = kid_features_to_metric(
        a, b, kid_subsets=1, kid_subset_size=120, kid_kernel="poly", kid_kernel_poly_degree=3,
        kid_kernel_poly_coef0=1, kid_kernel_poly_gamma=None, verbose=False, rng_seed=0,
    )  # fmt: skip
    ours = fd.kid(a[None], b)
    assert ours.item() == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-9)


def test_kid_of_one_distribution_is_zero_on_average():
    sets = torch.stack([features(40, 8, seed) for seed in range(100, 220)])
    values = fd.kid(sets, features(2000, 8, 10), block=16)
    assert abs(values.mean().item()) < 4 * values.std().item() / len(sets) ** 0.5
    assert values.min() < 0 < values.max()


@pytest.mark.parametrize("shift", [0.0, 0.5, 2.0])
def test_precision_and_recall_are_those_of_torch_fidelity(shift):
    a, b = features(150, 8, 12, shift), features(200, 8, 13)
    theirs = prc_features_to_metric(
        a, b, prc_neighborhood=3, prc_batch_size=10000, save_cpu_ram=False, verbose=False
    )
    precision, recall = fd.precision_recall(a[None], b, block=64)
    assert precision.item() == pytest.approx(theirs["precision"])
    assert recall.item() == pytest.approx(theirs["recall"])


def test_the_unbiased_estimate_removes_what_few_images_add():
    """Of one distribution with known moments: the plain distance is far above zero, this is not."""
    dim, count = 32, 256
    real = fd.Gaussian(torch.zeros(dim).double(), torch.eye(dim).double())
    rng = torch.Generator().manual_seed(0)
    sets = torch.randn(60, count, dim, generator=rng)
    plain = fd.frechet(fd.Gaussian.of(sets), real)
    better = unbiased(sets, real)
    assert plain.mean() > 1
    assert abs(better.mean()) < 0.05 * plain.mean()


@pytest.mark.parametrize(
    ("measure", "count", "message"),
    [
        (lambda x, real: fd.Gaussian.of(x), 1, "at least 2 images, there is 1"),
        (lambda x, real: unbiased(x, fd.Gaussian.of(real)), 3, "must be 4, got 3"),
        (fd.kid, 1, "at least 2 images of both kinds, got 1 and 50"),
        (fd.precision_recall, 3, "more than 3 images of both kinds, got 3 and 50"),
    ],
)
def test_too_few_images(measure, count, message):
    with pytest.raises(BenchError, match=message):
        measure(features(count, 4, 0)[None], features(50, 4, 1))


def test_features_that_are_not_finite():
    broken = features(30, 4, 0)
    broken[3, 2] = torch.nan
    with pytest.raises(BenchError, match="not finite"):
        fd.Gaussian.of(broken)
