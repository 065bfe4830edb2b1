"""What is not finite is wrong and is counted, in image generation."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bench.contract.evaluation import check_evaluation
from bench.metrics import frechet as fd
from bench.system.randomness import generator
from tasks.fast.features import FeatureNetwork
from tasks.fast.image_scoring import GROUPS, NEEDED, ImageScorer, Reference
from tasks.fast.sampling import SAMPLERS, Denoiser, Sampler
from tests.broken import BAD, INF, make, work_folder


class Denoising(Denoiser):
    """Stands for a network: finds noise that is a tenth of the images, but for what it is told to, at one step."""

    def __init__(self, step: int, value: float) -> None:
        self.step, self.value = step, value

    def __call__(self, images: torch.Tensor, step: int) -> torch.Tensor:
        found = (images / 10).nan_to_num(0, 0, 0)  # a network that is finite again afterwards
        if step == self.step:
            found[1, 0, 2, 3] = self.value
        return found

    def repeat(self, rows: torch.Tensor) -> torch.Tensor:
        return rows


@pytest.mark.parametrize("name", ["ddim", "dpm-solver++"])
@pytest.mark.parametrize("step", range(4))
@pytest.mark.parametrize("value", BAD)
def test_an_image_that_was_not_finite_on_its_way_is_none(name, step, value):
    start = torch.randn(3, 1, 4, 4, generator=generator(0))
    images = Sampler(name, 4)(Denoising(step, value), start)
    plain = Sampler(name, 4)(Denoising(-1, value), start)
    assert images[1].isnan().all()
    assert torch.equal(images[[0, 2]], plain[[0, 2]])
    assert plain.isfinite().all()


def test_an_image_that_overflows_on_its_way_is_none():
    """The noise that is found is finite, but the image without it is not; later the network is finite again."""
    start = torch.randn(3, 1, 4, 4, generator=generator(0))
    images = Sampler("dpm-solver++", 4)(Denoising(0, 3e38), start)
    assert images.isnan().flatten(1).all(1).tolist() == [False, True, False]
    assert images[[0, 2]].isfinite().all()


class Clipping:
    """A scheduler after which everything is in [-1, 1]."""

    def set_timesteps(self, steps: int) -> None:
        self.timesteps = torch.arange(steps).flip(0)

    def step(self, found, time, images, *, return_dict):
        return ((images - found).clamp(-1, 1),)


@pytest.mark.parametrize("value", [INF, -INF])
def test_a_scheduler_that_clips_launders_nothing(value, monkeypatch):
    monkeypatch.setitem(SAMPLERS, "clipping", Clipping)
    start = torch.randn(3, 1, 4, 4, generator=generator(0))
    images = Sampler("clipping", 4)(Denoising(1, value), start)
    assert images.isnan().flatten(1).all(1).tolist() == [False, True, False]
    assert images[[0, 2]].isfinite().all()


def image_scorer(real: torch.Tensor, count: int) -> ImageScorer:
    """A scorer without a network that draws, in features that are the pixels of real images of 2 x 2."""
    scorer = ImageScorer.__new__(ImageScorer)
    scorer.network = FeatureNetwork(nn.Identity(), lambda images: images.float(), "pixels")
    scorer.reference = Reference.of(real, scorer.network, "cpu")
    scorer.noise = torch.zeros(count, *real.shape[1:])
    return scorer


def distance(x: torch.Tensor, real: torch.Tensor) -> float:
    """Fréchet distance by its definition, in numpy."""
    x, real = x.double().numpy(), real.double().numpy()
    apart = ((x.mean(0) - real.mean(0)) ** 2).sum()
    ours, theirs = (np.atleast_2d(np.cov(one, rowvar=False)) for one in (x, real))
    values = np.linalg.eigvals(ours @ theirs).real.clip(min=0)
    return float(apart + np.trace(ours) + np.trace(theirs) - 2 * np.sqrt(values).sum())


REAL = torch.randint(40, 160, (50, 1, 2, 2), generator=generator(3), dtype=torch.uint8)


def test_the_stand_in_is_the_farthest_of_the_artificial_images():
    """Real images are rather dark: it is white. Where they are half dark and half light, it is their negative."""
    assert image_scorer(REAL, 9).stand_in.flatten().tolist() == [255] * 4
    halves = REAL.clone()
    halves[..., 0, 0] = halves[..., 1, 1] = 250
    halves[..., 0, 1] = halves[..., 1, 0] = 5
    assert image_scorer(halves, 9).stand_in.flatten().tolist() == [0, 255, 255, 0]


def test_degenerate_images():
    """All right, and one and the same: the distance by its definition; none is counted."""
    scorer = image_scorer(REAL, 50)
    real, none = scorer.network(REAL), torch.zeros(50, dtype=torch.bool)
    found = scorer.numbers(real, none, further=True)
    assert found["distance"].item() == pytest.approx(0, abs=1e-6)
    assert found["precision"].item() == found["recall"].item() == 1
    same = real[:1].expand(50, -1)
    apart = (real[0].double() - real.double().mean(0)).square().sum().item()
    expected = apart + np.trace(np.cov(real.numpy(), rowvar=False))
    assert scorer.numbers(same, none, further=False)["distance"].item() == pytest.approx(expected)


def test_the_distance_of_images_of_which_some_are_not_finite():
    scorer = image_scorer(REAL, 20)
    features = scorer.network(torch.randint(255, (20, 1, 2, 2), generator=generator(4)).byte())
    real = scorer.network(REAL)
    worst = ((255 - real.double().mean(0)) ** 2).sum() + np.trace(
        np.cov(real.numpy(), rowvar=False)
    )
    for broken in (0, 1, 7, 20 - NEEDED, 20 - NEEDED + 1, 20):
        bad = torch.arange(20) < broken
        found = scorer.numbers(features, bad, further=True)
        share = broken / 20 if broken <= 20 - NEEDED else 1.0
        own = distance(features[~bad], real) if share < 1 else 0.0
        expected = (1 - share) * own + share * worst.item()
        assert found["distance"].item() == pytest.approx(expected, rel=1e-6)
        assert all(value.isfinite().all() for value in found.values())
        assert found["precision"].item() <= 1 - share
        assert found["recall"].item() <= 1 - share
        assert torch.equal(
            found["distance"], scorer.numbers(features, bad, further=False)["distance"]
        )


@pytest.mark.parametrize("broken", [0, 1, 7, 43 - NEEDED, 43 - NEEDED + 1, 43])
def test_replicates_are_the_distances_without_a_group_of_images(broken):
    """Of 43 images three groups have three and the others two; the last images of each model are not finite."""
    scorer = image_scorer(REAL, 43)
    features = scorer.network(torch.randint(255, (43, 1, 2, 2), generator=generator(4)).byte())
    bad = torch.arange(43) >= 43 - broken
    found = scorer.without_groups(features, bad)
    assert found.shape == (GROUPS,)
    for number, left in enumerate(torch.arange(43).tensor_split(GROUPS)):
        rest = torch.ones(43, dtype=torch.bool)
        rest[left] = False
        expected = scorer.numbers(features[rest], bad[rest], further=False)["distance"]
        assert found[number].item() == pytest.approx(expected.item(), rel=1e-8)


def test_replicates_of_images_that_are_all_alike_and_far_away():
    """Differences of large sums must leave nothing of the images' covariance, which is 0."""
    scorer = image_scorer(REAL, 40)
    features = torch.full((40, 4), 1e6)
    none = torch.zeros(40, dtype=torch.bool)
    whole = scorer.numbers(features, none, further=False)["distance"]
    assert torch.allclose(scorer.without_groups(features, none), whole, rtol=1e-12)


@settings(max_examples=100, deadline=None)
@given(
    images=st.integers(NEEDED + 1, 30),
    spread=st.sampled_from([0, 1, 20, 120]),
    broken=st.integers(1, 30),
    seed=st.integers(0, 10_000),
)
def test_no_distance_is_better_for_images_that_are_not_finite(images, spread, broken, seed):
    """Whatever images a model draws, of which none is farther than the stand-in: alike, noise, or any between."""
    scorer = image_scorer(REAL, images)
    rng = torch.Generator().manual_seed(seed)
    middle = torch.randint(255, (1, 2, 2), generator=rng)
    drawn = middle + spread * torch.randn(images, 1, 2, 2, generator=rng)
    drawn = drawn.clamp(0, 255).to(torch.uint8)
    features = scorer.network(drawn)
    mean = scorer.reference.gaussian.mean
    farthest = (scorer.network(scorer.stand_in[None]) - mean).norm()
    assert (features - mean).norm(dim=1).max() <= farthest
    bad = torch.arange(images) < broken
    before = scorer.numbers(features, torch.zeros_like(bad), further=False)["distance"].item()
    after = scorer.numbers(features, bad, further=False)["distance"].item()
    assert after >= before * (1 - 1e-9) - 1e-9


def test_models_of_images_with_such_weights_are_the_worst_and_spoil_no_other(monkeypatch):
    monkeypatch.setattr("tasks.image_generation.CLASSIFIER_EPOCHS", 1)
    task = make("digits-ddpm")
    zoo = task.collect(2, rng=generator(0), work=work_folder())
    noise = torch.randn(zoo.vectors[0].shape, generator=generator(5))
    rows = [
        zoo.vectors[0],
        *(zoo.vectors[0] * bad for bad in BAD),
        1e30 * zoo.vectors[0],
        100 * noise,
    ]
    vectors = torch.stack([*rows, zoo.vectors[1]])
    for split in ("train", "val"):
        found, healthy = (task.scorer(zoo, split)(some) for some in (vectors, zoo.vectors))
        assert torch.equal(found.scores[[0, 6]], healthy.scores)
        assert torch.equal(found.features[[0, 6]], healthy.features)
        assert found.not_finite.tolist() == [0, 20, 20, 20, 20, 0, 0]
        assert len(set(found.scores[1:5].tolist())) == 1
        assert (found.scores[1] > found.scores[[0, 5, 6]]).all()
        check_evaluation(found, 7, "ImageGeneration", replicated=split == "val")
    assert torch.equal(found.replicates[[0, 6]], healthy.replicates)
    assert (found.replicates[1] == found.scores[1]).all()
    network = task.network(zoo)
    stand_in = task.draw(zoo, vectors[1:2], "val", 1)[0, 0]
    real = network(task.data.val.images).double().numpy()
    away = ((network(stand_in[None])[0].double().numpy() - real.mean(0)) ** 2).sum()
    expected = away + np.trace(np.cov(real, rowvar=False))
    assert found.scores[1].item() == pytest.approx(expected, rel=1e-6)
    assert found.extra["precision"][1] == found.extra["recall"][1] == 0
    model = task.base_model(zoo)
    model.conv_out.bias.data.fill_(INF)
    assert task.score(model) == pytest.approx(expected, rel=1e-6)


def test_one_image_of_many_that_is_not_finite_counts_alone(monkeypatch):
    """A network that gives inf for one image at one step: the others are scored as they are."""
    monkeypatch.setattr("tasks.image_generation.CLASSIFIER_EPOCHS", 1)
    task = make("digits-ddpm")
    zoo = task.collect(1, rng=generator(0), work=work_folder())
    whole = task.scorer(zoo, "val")(zoo.vectors)
    scorer = task._candidates(zoo, "val")
    drawn = task.draw(zoo, zoo.vectors, "val", 20)[0]
    denoise = type(scorer.denoiser).__call__

    def once(self, images, step):
        found = denoise(self, images, step).clone()
        if step == 1:
            found[7, 0, 0, 0] = INF
        return found

    monkeypatch.setattr(type(scorer.denoiser), "__call__", once)
    again = task.draw(zoo, zoo.vectors, "val", 20)[0]
    assert torch.equal(again[7], scorer.stand_in)
    others = torch.arange(20) != 7
    assert torch.equal(again[others], drawn[others])
    found = task.scorer(zoo, "val")(zoo.vectors)
    assert found.not_finite.tolist() == [1]
    alone = fd.frechet(
        fd.Gaussian.of(task.network(zoo)(drawn[others])[None]), scorer.reference.gaussian
    )
    expected = (19 * alone + scorer.stand_in_numbers["distance"]) / 20
    assert torch.allclose(found.scores, expected)
    assert found.scores > whole.scores
