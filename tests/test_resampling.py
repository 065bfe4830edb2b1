"""Bootstrap resamples of images, and how far the mean of replicates may lie from the score."""

import pytest
import torch

from bench.metrics import replicates
from bench.metrics.frechet import Gaussian, frechet, root
from tasks.fast.resampling import REPLICATES, counts


def test_as_many_images_are_drawn_as_there_are_and_the_same_ones_each_time():
    drawn = counts(torch.ones(500, dtype=torch.bool))
    assert drawn.shape == (REPLICATES, 500)
    assert (drawn.sum(1) == 500).all()
    assert torch.equal(drawn, counts(torch.ones(500, dtype=torch.bool)))
    # With replacement: a share of 1 / e of the images is left out (standard error 0.001).
    assert (drawn == 0).double().mean().item() == pytest.approx(1 / torch.e, abs=0.006)
    assert torch.unique(drawn, dim=0).shape == drawn.shape


def test_a_resample_without_any_useful_image_is_drawn_again():
    useful = torch.tensor([False, True, False])
    drawn = counts(useful)
    assert drawn.shape == (REPLICATES, 3)
    assert (drawn[:, 1] >= 1).all()
    with pytest.raises(ValueError, match="no image has anything to find"):
        counts(torch.zeros(3, dtype=torch.bool))


def test_the_mean_of_bootstrap_replicates_is_near_the_score():
    """The square of a mean is biased; only a score elsewhere is refused."""
    rng = torch.Generator().manual_seed(0)
    for _ in range(50):
        values = torch.rand(40, dtype=torch.float64, generator=rng)
        means = values[torch.randint(40, (100, 40), generator=rng)].mean(1).square().tolist()
        score = values.mean().item() ** 2
        assert replicates.plausible(score, means, "bootstrap")
        assert not replicates.plausible(score + 0.3, means, "bootstrap")


@pytest.mark.parametrize(("images", "features"), [(40, 30), (60, 5), (2000, 5)])
def test_the_mean_of_jackknife_replicates_is_near_the_distance(images, features):
    """The hardest case: the distance of images that are drawn as the real ones is bias alone."""
    rng = torch.Generator().manual_seed(0)
    identity = torch.eye(features, dtype=torch.float64)
    real = Gaussian(torch.zeros(features, dtype=torch.float64), identity)
    for _ in range(10):
        drawn = torch.randn(1, images, features, dtype=torch.float64, generator=rng)
        score = frechet(Gaussian.of(drawn), real, root(real)).item()
        rows = torch.arange(images).tensor_split(20)
        others = [torch.cat([own for own in rows if own is not left]) for left in rows]
        without = [frechet(Gaussian.of(drawn[:, r]), real, root(real)).item() for r in others]
        assert replicates.plausible(score, without, "jackknife")
        assert not replicates.plausible(3 * score, without, "jackknife")
