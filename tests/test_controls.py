"""Each control is exactly what it says."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from bench.contract.zoo import Layout, Zoo, per_tensor_std
from bench.errors import BadRequest
from bench.testing.promises import rng
from generators.controls.average import Average
from generators.controls.copy import Copy
from generators.controls.full_gaussian import FullGaussian
from generators.controls.gaussian import Gaussian
from generators.controls.greedy_soup import GreedySoup
from generators.controls.interpolation import Interpolation
from generators.controls.low_rank_gaussian import LowRankGaussian
from generators.controls.mean_of_two import MeanOfTwo
from generators.controls.noise import Noise
from generators.controls.shuffled import Shuffled
from generators.controls.step import Step
from generators.networks import principal


def test_average_is_the_mean_in_float64(zoo):
    expected = zoo.vectors.double().numpy().mean(axis=0).astype(np.float32)
    samples = Average().fit(zoo, rng=rng()).sample(2, rng=rng())
    assert (samples.numpy() == expected).all()


def test_average_does_not_lose_small_differences():
    """In float32 the sum of 3000 such values would be off."""
    layout = Layout(("w",), ((1,),))
    vectors = 1000 + torch.rand(3000, 1, generator=rng())
    mean = Average().fit(Zoo(vectors, layout), rng=rng()).sample(1, rng=rng())
    assert mean.item() == np.float32(vectors.double().mean().item())


def test_copies_are_checkpoints(zoo):
    samples = Copy().fit(zoo, rng=rng()).sample(200, rng=rng())
    rows = {tuple(row) for row in zoo.vectors.tolist()}
    assert {tuple(row) for row in samples.tolist()} == rows  # each is drawn in 200 draws


def orthogonal(k):
    """The unit vectors as checkpoints: a mean of some tells which, and how often each."""
    return Zoo(torch.eye(k), Layout(("w",), ((k,),)))


@pytest.mark.parametrize("maker", [MeanOfTwo(), Interpolation(members=2)])
def test_a_mean_of_two_is_that_of_two_different_checkpoints(maker):
    samples = maker.fit(orthogonal(5), rng=rng()).sample(300, rng=rng())
    assert torch.equal(samples.sort(dim=1).values[0], torch.tensor([0, 0, 0, 0.5, 0.5]))
    assert ((samples == 0.5).sum(dim=1) == 2).all()
    assert ((samples == 0).sum(dim=1) == 3).all()
    assert len(samples.unique(dim=0)) == 10  # every pair of 5


def test_interpolation_is_the_mean_of_16():
    samples = Interpolation().fit(orthogonal(40), rng=rng()).sample(20, rng=rng())
    assert ((samples == 1 / 16).sum(dim=1) == 16).all()
    assert ((samples == 0).sum(dim=1) == 24).all()


def test_interpolation_lies_in_the_convex_hull(zoo):
    samples = Interpolation(members=3).fit(zoo, rng=rng()).sample(50, rng=rng())
    weights = torch.linalg.lstsq(zoo.vectors.double().T, samples.double().T).solution.T
    assert ((weights - 1 / 3).abs() < 1e-4).sum(dim=1).eq(3).all()
    assert weights.sum(dim=1).numpy() == pytest.approx(np.ones(50), abs=1e-4)


def test_interpolation_of_a_smaller_zoo_is_its_mean(zoo):
    samples = Interpolation().fit(zoo, rng=rng()).sample(2, rng=rng())
    expected = zoo.vectors.mean(dim=0).numpy()
    assert samples[1].numpy() == pytest.approx(expected, abs=1e-6)


def test_gaussian_has_the_checkpoints_mean_and_std(zoo):
    n = 40_000
    samples = Gaussian().fit(zoo, rng=rng()).sample(n, rng=rng()).double().numpy()
    mean, std = zoo.vectors.double().numpy().mean(axis=0), zoo.vectors.double().numpy().std(axis=0)
    assert (np.abs(samples.mean(axis=0) - mean) < 5 * std / math.sqrt(n)).all()
    assert samples.std(axis=0) == pytest.approx(std, rel=0.02)


def test_gaussian_parameters_are_independent(zoo):
    samples = Gaussian().fit(zoo, rng=rng()).sample(40_000, rng=rng()).numpy()
    correlations = np.corrcoef(samples.T)
    np.fill_diagonal(correlations, 0)
    assert np.abs(correlations).max() < 0.03


def outside(samples, zoo):
    """The largest part of a sample's deviation from the mean that no combination of the checkpoints' explains."""
    centred = (zoo.vectors - zoo.vectors.mean(dim=0)).double()
    deviations = (samples - zoo.vectors.mean(dim=0)).double()
    explained = deviations @ torch.linalg.pinv(centred, rtol=1e-5) @ centred
    return ((deviations - explained).norm(dim=1) / deviations.norm(dim=1)).max().item()


def test_a_full_gaussian_has_the_checkpoints_mean_and_covariance(zoo):
    zoo, n = zoo.head(4), 200_000
    samples = FullGaussian().fit(zoo, rng=rng()).sample(n, rng=rng())
    vectors = zoo.vectors.double().numpy()
    mean, covariance = vectors.mean(axis=0), np.cov(vectors.T, bias=True)
    found = samples.double().numpy()
    assert (np.abs(found.mean(axis=0) - mean) < 5 * vectors.std(axis=0) / math.sqrt(n)).all()
    error = np.abs(np.cov(found.T, bias=True) - covariance).max()
    assert error < 0.02 * covariance.max()
    assert outside(samples[:100], zoo) < 1e-5
    assert outside(Gaussian().fit(zoo, rng=rng()).sample(9, rng=rng()), zoo) > 0.1


def test_a_low_rank_gaussian_lies_in_the_first_principal_directions(zoo):
    samples = LowRankGaussian(rank=3).fit(zoo, rng=rng()).sample(100_000, rng=rng()).double()
    _, lengths, directions = torch.linalg.svd(
        (zoo.vectors - zoo.vectors.mean(dim=0)).double(), full_matrices=False
    )
    deviations = (samples - zoo.vectors.double().mean(dim=0)) @ directions.T
    spread = deviations.std(dim=0, correction=0)
    expected = lengths[:3] / math.sqrt(len(zoo))
    assert spread[:3].numpy() == pytest.approx(expected.numpy(), rel=0.02)
    assert spread[3:].max() < 1e-5
    assert deviations.mean(dim=0).abs().max() < 5 * expected.max() / math.sqrt(100_000)


def test_a_low_rank_gaussian_has_rank_8(zoo):
    samples = LowRankGaussian().fit(zoo, rng=rng()).sample(200, rng=rng())
    assert torch.linalg.matrix_rank(samples - zoo.vectors.mean(dim=0), rtol=1e-5) == 8
    few = zoo.head(5)  # which span 4 dimensions
    samples = LowRankGaussian().fit(few, rng=rng()).sample(200, rng=rng())
    assert torch.linalg.matrix_rank(samples - few.vectors.mean(dim=0), rtol=1e-5) == 4


def test_a_low_rank_gaussian_of_all_directions_is_the_full_one(zoo):
    full = FullGaussian().fit(zoo, rng=rng()).sample(5, rng=rng())
    same = LowRankGaussian(rank=12).fit(zoo, rng=rng()).sample(5, rng=rng())
    torch.testing.assert_close(same, full)


def test_products_in_blocks_are_those_of_all(monkeypatch, zoo):
    monkeypatch.setattr(principal, "BLOCK", 7)
    expected = zoo.vectors.double() @ zoo.vectors.double().T
    torch.testing.assert_close(principal.gram(zoo.vectors), expected)


def test_a_step_leads_from_one_checkpoint_towards_another():
    samples = Step().fit(orthogonal(5), rng=rng()).sample(3000, rng=rng())
    assert ((samples > 0).sum(dim=1) == 2).all()
    assert samples.sum(dim=1).numpy() == pytest.approx(1)
    share = samples.topk(2).values[:, 1]  # of the way: at most half
    assert share.min() == pytest.approx(0.1, abs=0.001)
    assert share.max() == pytest.approx(0.5, abs=0.001)
    assert share.mean() == pytest.approx(0.3, abs=0.01)
    ends = {tuple(pair) for pair in samples.topk(2).indices.tolist()}
    assert len(ends) == 5 * 4
    whole = Step(least=1.0, most=1.0).fit(orthogonal(5), rng=rng()).sample(9, rng=rng())
    assert (whole.sort().values == torch.tensor([0, 0, 0, 0, 1.0])).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"least": 1.5}, "least is 1.5, expected a share of the way"),
        ({"most": 1.1}, "most is 1.1, expected 0.1 to 1"),
        ({"most": 0.05}, "most is 0.05, expected 0.1 to 1"),
        ({"least": 0.6}, "most is 0.5, expected 0.6 to 1"),
    ],
)
def test_steps_beyond_either_end_are_refused(values, message):
    with pytest.raises(BadRequest, match=message):
        Step(**values)


def test_shuffled_checkpoints_keep_every_tensors_values(zoo):
    made = Shuffled().fit(zoo, rng=rng()).sample(3, rng=rng())
    for row in made:
        source = (zoo.vectors[:, -1] == row[-1]).nonzero().item()
        pairs = zip(
            zoo.vectors[source].split(zoo.layout.sizes), row.split(zoo.layout.sizes), strict=True
        )
        for own, piece in pairs:
            assert torch.equal(own.sort().values, piece.sort().values)
            assert len(own) == 1 or not torch.equal(own, piece)
    assert not torch.equal(made[0], made[1])


@pytest.mark.parametrize("amplitude", [0.01, 0.1])
def test_noise_is_relative_to_each_tensor_of_each_checkpoint(zoo, amplitude):
    vectors = zoo.vectors.clone()
    vectors[:, zoo.layout.slices()["bias"]] *= 100  # another scale for one tensor
    vectors *= torch.linspace(1, 3, len(vectors))[:, None]  # and for each checkpoint
    zoo = dataclasses.replace(zoo, vectors=vectors)
    samples = Noise(amplitude=amplitude).fit(zoo, rng=rng()).sample(3000, rng=rng())
    nearest = vectors[torch.from_numpy(cdist(samples, vectors).argmin(axis=1))]
    spread = per_tensor_std(nearest, zoo.layout)
    for name, piece in zoo.layout.slices().items():
        noise = (samples - nearest)[:, piece]
        if name == "scale":  # a single value has no spread of its own
            assert (noise == 0).all()
        else:
            relative = noise / spread[:, piece]
            assert relative.std().item() == pytest.approx(amplitude, rel=0.02)
            assert abs(relative.mean().item()) < 0.02 * amplitude


def test_absolute_noise(zoo):
    maker = Noise(amplitude=0.01, relative=False).fit(zoo, rng=rng())
    samples = maker.sample(3000, rng=rng())
    nearest = zoo.vectors[torch.from_numpy(cdist(samples, zoo.vectors).argmin(axis=1))]
    assert (samples - nearest).std(dim=0).numpy() == pytest.approx(np.full(41, 0.01), rel=0.1)


@pytest.mark.parametrize("seed", range(5))
def test_greedy_soup_is_never_worse_than_the_best_checkpoint(seed):
    zoo = Zoo(torch.randn(8, 6, generator=rng(seed)), Layout(("w",), ((6,),)))
    target = torch.randn(6, generator=rng(100 + seed))

    def rugged(vectors):
        return -((vectors - target).abs() + 0.5 * torch.sin(9 * vectors)).sum(dim=1)

    soup = GreedySoup().fit(zoo, rng=rng(), score=rugged).sample(1, rng=rng())
    assert rugged(soup).item() >= rugged(zoo.vectors).max().item()


def test_greedy_soup_takes_what_helps_and_leaves_what_does_not():
    vectors = torch.tensor([[0.5, 0.0], [-0.5, 0.0], [9.0, 9.0]])
    zoo = Zoo(vectors, Layout(("w",), ((2,),)))

    def near_zero(rows):
        return -rows.square().sum(dim=1)

    soup = GreedySoup().fit(zoo, rng=rng(), score=near_zero).sample(1, rng=rng())
    assert soup.tolist() == [[0, 0]]


def test_greedy_soup_keeps_a_checkpoint_that_changes_nothing():
    """Recipe 1 of the paper: kept if the score does not get lower."""
    zoo = orthogonal(4)
    soup = GreedySoup().fit(zoo, rng=rng(), score=lambda rows: torch.zeros(len(rows)))
    assert soup.sample(1, rng=rng()).tolist() == [[0.25] * 4]
