"""Batches, frozen features and the scoring engine on sources that hold no images: coordinates and texts."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.contract.zoo import Layout
from bench.system.randomness import generator
from tasks.data.source import Source
from tasks.fast.frozen import Frozen
from tasks.fast.scoring import ClassifierScorer
from tasks.fast.stacking import StackedRuns
from tasks.networks.layers import select
from tasks.training.batches import Batches
from tasks.training.collection import Collection
from tasks.training.problem import Problem
from tasks.training.recipe import Recipe
from tasks.training.runs import Runs
from tasks.training.steps import supervise
from tests.standins import images

COUNT, CLASSES, WORDS = 120, 3, 30
RECIPE = Recipe(epochs=12, batch_size=20, lr=0.05)


@dataclasses.dataclass(frozen=True)
class Coordinates:
    """Points of the plane, kept as 16-bit numbers; each third of the turn around the origin is a class."""

    examples: Tensor
    labels: Tensor
    device: str = "cpu"

    @classmethod
    def drawn(cls) -> "Coordinates":
        points = torch.randn(COUNT, 2, generator=generator(0, "points"))
        angle = torch.atan2(points[:, 1], points[:, 0]).add(torch.pi).div(2 * torch.pi)
        return cls((1000 * points).short(), angle.mul(CLASSES).long().clamp(max=CLASSES - 1))

    def __len__(self) -> int:
        return len(self.labels)

    def inputs(self, examples: Tensor) -> Tensor:
        return examples.float() / 1000

    def augmented(self, examples, labels, name, rng):
        assert name == "jitter"
        return examples + torch.randint(-20, 21, examples.shape, generator=rng).short(), labels


@dataclasses.dataclass(frozen=True)
class Texts:
    """Texts of eight words, kept by the words' numbers; which third of the words the first is of is the class."""

    examples: Tensor
    labels: Tensor
    device: str = "cpu"

    @classmethod
    def drawn(cls) -> "Texts":
        words = torch.randint(WORDS, (COUNT, 8), generator=generator(0, "words"))
        return cls(words, words[:, 0] * CLASSES // WORDS)

    def __len__(self) -> int:
        return len(self.labels)

    def inputs(self, examples: Tensor) -> Tensor:
        return examples

    def augmented(self, examples, labels, name, rng):
        raise AssertionError("texts do not vary here")


def of_coordinates(pretrained: str | None = None) -> nn.Module:
    return nn.Sequential(
        nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 16), nn.LayerNorm(16), nn.ReLU(),
        nn.Linear(16, CLASSES),
    ).eval()  # fmt: skip


def of_texts(pretrained: str | None = None) -> nn.Module:
    return nn.Sequential(
        nn.Embedding(WORDS, 6), nn.Flatten(), nn.Linear(48, 16), nn.LayerNorm(16), nn.ReLU(),
        nn.Linear(16, CLASSES),
    ).eval()  # fmt: skip


CASES = [(Coordinates.drawn(), of_coordinates), (Texts.drawn(), of_texts)]
both = pytest.mark.parametrize(("source", "build"), CASES, ids=["coordinates", "texts"])


def network(build) -> nn.Module:
    torch.manual_seed(0)
    return build()


def layout_of(model: nn.Module, pattern: str = "linear") -> Layout:
    return Layout.of({name: model.get_parameter(name) for name in select(model, pattern)})


def accuracy(source: Source, model: nn.Module) -> float:
    with torch.inference_mode():
        right = model(source.inputs(source.examples)).argmax(-1) == source.labels
    return float(right.float().mean())


def problem_of(source: Source, build, recipe: Recipe = RECIPE) -> Problem:
    """The problem of a classifier, as a task of one file would pose it."""

    def part_loss(model, layout):
        features = Frozen(model, layout, source, recipe, recipe.precision)
        return lambda rng: features.loss(Batches(source, recipe, rng))

    return Problem(
        name="a test",
        build=build,
        whole_loss=lambda model, rng: supervise(model, Batches(source, recipe, rng)),
        part_loss=part_loss,
        score=lambda model: accuracy(source, model),
        recipe=recipe,
        per_epoch=len(source) // recipe.batch_size,
        device="cpu",
    )


def collect(source: Source, build, tmp_path, **settings):
    """A zoo of four, and what collected it."""
    problem = problem_of(source, build)
    plan = {
        "layers": "linear", "track": "trajectory", "every": 2, "subset_lr": None, "pretrained": None,
        "keeps_pretrained": False, "facts": {"name": build.__name__}, "force": False,
    }  # fmt: skip
    collection = Collection(problem, StackedRuns(problem, source), **{**plan, **settings})

    def scores(zoo):
        wrong = ClassifierScorer(collection.base_model(zoo), zoo.layout, source)(zoo.vectors).wrong
        return (1 - wrong.double().mean(1)).tolist()

    work = tmp_path / str(settings)
    zoo = collection.collect(4, rng=generator(0), work=work, settings={}, scores=scores)
    return zoo, collection


def test_they_are_sources_as_images_are():
    for source in (Coordinates.drawn(), Texts.drawn(), images(count=4)):
        assert isinstance(source, Source)
    assert not isinstance(torch.zeros(3), Source)


@both
def test_checkpoints_are_collected_on_both_tracks(source, build, tmp_path):
    chance = accuracy(source, network(build))
    for settings in ({}, {"track": "seeds"}, {"track": "seeds", "layers": "all"}):
        zoo, collection = collect(source, build, tmp_path, **settings)
        assert min(zoo.scores) > max(0.6, chance)
        assert zoo.vectors.unique(dim=0).shape == zoo.vectors.shape
        for vector, score in zip(zoo.vectors, zoo.scores, strict=True):
            model = collection.base_model(zoo)
            model.load_state_dict(zoo.layout.unflatten(vector), strict=False)
            assert accuracy(source, model) == pytest.approx(score)
        moved = collection.finetune(zoo, zoo.vectors[:2], steps=2, rng=generator(1))
        assert 0 < (moved - zoo.vectors[:2]).norm() < zoo.vectors[:2].norm()


@both
def test_features_of_the_frozen_part_are_kept_and_give_the_losses_of_the_whole_network(
    source, build
):
    model = network(build)
    layout = layout_of(model)
    features = Frozen(model, layout, source, RECIPE, "float32")
    seen = []
    model[0].register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    batches = Batches(source, RECIPE, generator(1))
    steps = range(3 * batches.order.per_epoch)
    kept = torch.stack([features.loss(batches)(step) for step in steps])
    assert features.keeps
    assert sum(seen) == len(source)  # every example once, in three epochs
    whole = torch.stack([supervise(network(build), batches)(step) for step in steps])
    torch.testing.assert_close(kept, whole, rtol=1e-5, atol=1e-6)
    assert not Frozen(model, layout, source, RECIPE, "float32", keep=0).keeps


@both
@pytest.mark.parametrize("pattern", ["linear", "last-norms:1", "all"])
def test_candidates_scored_together_equal_the_plain_loop(source, build, pattern):
    model = network(build)
    layout = layout_of(model, pattern)
    start = layout.flatten({n: model.get_parameter(n).detach() for n in layout.names})
    vectors = start + 0.1 * torch.randn(5, layout.dim, generator=generator(2))
    vectors[3] = torch.nan
    scored = ClassifierScorer(model, layout, source)(vectors)
    for row in (0, 1, 2, 4):
        alone = network(build)
        alone.load_state_dict(layout.unflatten(vectors[row]), strict=False)
        with torch.inference_mode():
            logits = alone(source.inputs(source.examples))
        assert torch.equal(scored.wrong[row], logits.argmax(-1) != source.labels)
        expected = F.cross_entropy(logits, source.labels).double()
        torch.testing.assert_close(scored.loss[row], expected, rtol=1e-5, atol=0)
    assert scored.not_finite.tolist() == [0, 0, 0, COUNT, 0]


@both
def test_whole_networks_trained_as_a_stack_equal_those_trained_alone(source, build):
    problem, keys = problem_of(source, build), [generator(seed) for seed in range(3)]
    layout = layout_of(network(build), "all")

    def starts():
        return [network(build) for _ in keys]

    together = StackedRuns(problem, source).whole(starts(), layout, keys)
    alone = Runs(problem).whole(starts(), layout, keys)
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-3)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


def test_coordinates_vary_by_an_augmentation_of_their_own():
    source = Coordinates.drawn()
    recipe = dataclasses.replace(RECIPE, augment="jitter")
    plain, varied = (Batches(source, one, generator(1)) for one in (RECIPE, recipe))
    for step in (4, 0):
        moved = varied(step)[0] - plain(step)[0]
        assert 0 < moved.abs().max() <= 0.0201
        assert torch.equal(varied(step)[1], plain(step)[1])
    model = network(of_coordinates)
    assert not Frozen(model, layout_of(model), source, recipe, "float32").keeps
