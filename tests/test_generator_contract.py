"""What every generator promises, checked for each one that can be found by name, and for one from outside."""

import copy
import dataclasses
import math
import sys
import textwrap
import typing

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from bench import plugins
from bench.contract.zoo import Layout, Zoo, per_tensor_std
from bench.errors import BadRequest
from generators.controls.average import Average
from generators.controls.copy import Copy
from generators.controls.gaussian import Gaussian
from generators.controls.greedy_soup import GreedySoup
from generators.controls.interpolation import Interpolation
from generators.controls.noise import Noise

OUTSIDE = "outside_package:Jitter"
NAMES = [*plugins.generators(), OUTSIDE]
SHORT = {"timesteps": 10, "sampler_steps": 2}  # and every field named "iterations" is 2

every_generator = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(autouse=True)
def _outside_package(tmp_path, monkeypatch):
    """A generator in somebody else's file on the path."""
    code = '''
        """A package that knows the contract and nothing else."""
        from dataclasses import dataclass
        import torch

        @dataclass
        class Jitter:
            """The first checkpoint, jittered."""

            needs = ()
            deterministic = False
            presets = {}
            device = "cpu"
            width: float = 0.1

            def __post_init__(self):
                if not 0 < self.width < float("inf"):
                    from bench.errors import BadRequest
                    raise BadRequest(f"width is {self.width}, expected a positive number")

            def fit(self, zoo, *, rng):
                self.first_ = zoo.vectors[0]
                return self

            def sample(self, n, *, rng):
                noise = torch.randn(n, len(self.first_), generator=rng)
                return self.first_ + self.width * noise

            def hyperparameters(self):
                return {"width": self.width}
        '''
    (tmp_path / "outside_package.py").write_text(textwrap.dedent(code))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "outside_package", raising=False)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def make_zoo(k=6, shapes=((4, 3), (3,), ()), seed=0):
    layout = Layout(tuple(f"t{i}" for i in range(len(shapes))), shapes)
    return Zoo(torch.randn(k, layout.dim, generator=rng(seed)), layout)


def short(cls, **more):
    """An instance that trains for a moment only."""
    names = list(cls.setting_names())
    values = {name: 2 for name in names if name.endswith("iterations")}
    values |= {name: value for name, value in SHORT.items() if name in names}
    return plugins.construct(cls, values | more, "hyperparameter")


def score(vectors):
    """The nearer to a point, the better."""
    return -(vectors - 0.3).square().mean(dim=1)


def train(vectors, *, steps, rng):
    """Steps towards the same point, with some chance in them."""
    for _ in range(steps):
        step = 0.1 * (0.3 - vectors)
        vectors = vectors + step * torch.rand(vectors.shape, generator=rng)
    return vectors


GIVEN = {"score": score, "train": train}


def fit(maker, zoo, seed=0):
    return maker.fit(zoo, rng=rng(seed), **{need: GIVEN[need] for need in maker.needs})


def fitted(name, zoo, seed=0):
    return fit(short(plugins.load_generator(name)), zoo, seed)


@every_generator
def test_what_figures_ask_for_is_there_where_it_is_promised(name):
    zoo = make_zoo()
    maker = fitted(name, zoo)
    if getattr(maker, "has_latents", False):
        latents = maker.latents(zoo.vectors)
        assert (latents.ndim, len(latents), latents.device.type) == (2, len(zoo), "cpu")
        assert latents.isfinite().all()
        assert torch.equal(latents, maker.latents(zoo.vectors))
        assert torch.allclose(latents[:2], maker.latents(zoo.vectors[:2]), atol=1e-4)
        assert not torch.allclose(latents[0], latents[1])
    if getattr(maker, "has_path", False):
        path = maker.sampling_path(3, 3, rng=rng(5))
        assert path.shape == (3, 3, zoo.layout.dim)
        assert torch.allclose(path[:, -1], maker.sample(3, rng=rng(5)), atol=1e-5)
        assert not torch.allclose(path[:, 0], path[:, -1])


def test_pdiff_and_the_vae_have_latents_and_pdiff_a_path():
    made = {name: plugins.load_generator(name) for name in plugins.generators()}
    assert {name for name, cls in made.items() if cls.has_latents} == {"pdiff", "vae"}
    assert {name for name, cls in made.items() if cls.has_path} == {"pdiff"}


def check_samples(vectors, n, zoo):
    assert vectors.shape == (n, zoo.layout.dim)
    assert vectors.dtype == torch.float32
    assert vectors.device.type == "cpu"
    assert not vectors.requires_grad
    assert vectors.isfinite().all()


# The class -----------------------------------------------------------------------------------------------------------


@every_generator
def test_fields_are_hyperparameters_and_the_constructor_only_stores(name):
    cls = plugins.load_generator(name)
    assert dataclasses.is_dataclass(cls)
    fields = set(cls.setting_names())
    maker = cls()
    assert set(vars(maker)) == fields
    assert maker.hyperparameters() == vars(maker)
    assert all(not name.endswith("_") for name in fields)
    again = cls(**vars(maker))
    assert vars(again) == vars(maker)


@every_generator
def test_it_says_what_it_is(name):
    cls = plugins.load_generator(name)
    assert (cls.__doc__ or "").strip().partition("\n")[0]
    assert set(cls.needs) <= {"score", "train"}
    assert isinstance(cls.deterministic, bool)


@every_generator
def test_presets_are_hyperparameters_it_accepts(name):
    cls = plugins.load_generator(name)
    for preset, values in cls.presets.items():
        assert preset in ("quick", "paper")
        maker = plugins.construct(cls, values, "hyperparameter")
        assert {key: getattr(maker, key) for key in values} == values


@pytest.mark.parametrize("name", plugins.generators())
def test_the_list_shows_every_hyperparameter(name):
    cls = plugins.load_generator(name)
    listed = plugins.generators()[name]
    if listed.target.startswith("generators."):  # others are listed without being imported
        assert set(listed.fields) == set(cls.setting_names())
        assert listed.about == (cls.__doc__ or "").partition("\n")[0]


# Hyperparameters -----------------------------------------------------------------------------------------------------


def refused(cls, field, value):
    with pytest.raises(BadRequest) as caught:
        plugins.construct(cls, {field: value}, "hyperparameter")
    message = str(caught.value)
    assert "\n" not in message
    return message


def typed_fields(name):
    cls = plugins.load_generator(name)
    hints = typing.get_type_hints(cls)
    return cls, [
        (field, hints[field.name]) for field in dataclasses.fields(cls) if field.name != "context"
    ]


@every_generator
def test_an_unknown_hyperparameter_is_refused_with_the_nearest(name):
    cls, fields = typed_fields(name)
    assert "nonsense_99" in refused(cls, "nonsense_99", 1)
    for field, _ in fields:
        assert f"'{field.name}'" in refused(cls, field.name + "x", 1)


@every_generator
def test_a_value_of_another_type_is_refused(name):
    cls, fields = typed_fields(name)
    for field, hint in fields:
        wrong = 3.5 if hint is str else "several"
        assert field.name in refused(cls, field.name, wrong)


@every_generator
def test_nonsense_numbers_are_refused(name):
    """A hyperparameter whose default is positive is a size, a rate or a count."""
    cls, fields = typed_fields(name)
    for field, hint in fields:
        if hint in (int, float) and field.default > 0:
            assert field.name in refused(cls, field.name, -1)
        if hint is float:
            assert field.name in refused(cls, field.name, math.nan)
            assert field.name in refused(cls, field.name, math.inf)


# fit and sample ------------------------------------------------------------------------------------------------------


@every_generator
def test_fit_returns_self_and_learns_only_what_ends_in_an_underscore(name, zoo):
    maker = short(plugins.load_generator(name))
    before = copy.deepcopy(vars(maker))
    assert fit(maker, zoo) is maker
    learned = set(vars(maker)) - set(before)
    assert learned
    assert all(attribute.endswith("_") for attribute in learned)
    assert {key: vars(maker)[key] for key in before} == before


@every_generator
def test_sample_gives_finite_float32_rows(name, zoo):
    maker = fitted(name, zoo)
    for n in (1, 3):
        check_samples(maker.sample(n, rng=rng()), n, zoo)


@every_generator
def test_the_zoo_is_not_modified(name, zoo):
    zoo = dataclasses.replace(zoo, base={"stem": torch.ones(3)})
    vectors, settings = zoo.vectors.clone(), copy.deepcopy(zoo.settings)
    samples = fitted(name, zoo).sample(2, rng=rng())
    samples.zero_()
    assert torch.equal(zoo.vectors, vectors)
    assert torch.equal(zoo.base["stem"], torch.ones(3))
    assert zoo.settings == settings


@every_generator
def test_samples_are_the_callers_own(name, zoo):
    maker = fitted(name, zoo)
    first = maker.sample(2, rng=rng())
    kept = first.clone()
    first.zero_()
    assert torch.equal(maker.sample(2, rng=rng()), kept)


@every_generator
def test_the_same_seeds_give_the_same_models(name, zoo):
    first = fitted(name, zoo, seed=1).sample(3, rng=rng(2))
    torch.rand(5)  # whatever else draws random numbers does not matter
    second = fitted(name, zoo, seed=1).sample(3, rng=rng(2))
    assert torch.equal(first, second)


@every_generator
def test_another_seed_gives_other_models_unless_deterministic(name):
    maker = fitted(name, make_zoo(20))
    first, second = (maker.sample(3, rng=rng(seed)) for seed in (1, 2))
    assert torch.equal(first, second) == maker.deterministic
    assert (len(first.unique(dim=0)) == 1) == maker.deterministic


@every_generator
def test_global_random_numbers_are_left_alone(name, zoo):
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    fitted(name, zoo).sample(2, rng=rng())
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == before_numpy).all()  # noqa: NPY002


@every_generator
@pytest.mark.parametrize("k", [1, 2])
def test_few_checkpoints(name, k):
    zoo = make_zoo(k)
    check_samples(fitted(name, zoo).sample(3, rng=rng()), 3, zoo)


@every_generator
def test_a_column_that_does_not_vary(name, zoo):
    vectors = zoo.vectors.clone()
    vectors[:, 3] = 0.7
    vectors[:, -1] = 0.0
    zoo = dataclasses.replace(zoo, vectors=vectors)
    check_samples(fitted(name, zoo).sample(3, rng=rng()), 3, zoo)


@every_generator
def test_checkpoints_that_are_all_the_same(name, zoo):
    zoo = dataclasses.replace(zoo, vectors=zoo.vectors[:1].expand(4, -1).clone())
    check_samples(fitted(name, zoo).sample(2, rng=rng()), 2, zoo)


@every_generator
@pytest.mark.parametrize(
    "shapes",
    [((),), ((1,),), ((2,),), ((7,), (1,)), ((3, 3, 3), (), (5,)), ((16, 20),)],
    ids=["scalar", "1", "2", "8", "33", "320"],
)
def test_any_layout(name, shapes):
    zoo = make_zoo(5, shapes)
    check_samples(fitted(name, zoo).sample(3, rng=rng()), 3, zoo)


# Each control is exactly what it says --------------------------------------------------------------------------------


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


def test_interpolation_is_the_mean_of_two():
    samples = Interpolation(members=2).fit(orthogonal(5), rng=rng()).sample(300, rng=rng())
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


@pytest.mark.parametrize("seed", range(20))
def test_greedy_soup_is_never_worse_than_the_best_checkpoint(seed):
    zoo = make_zoo(8, ((6,),), seed)
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
