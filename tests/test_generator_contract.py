"""What every generator promises, checked for each one that has a name; and that each promise can be broken."""

import dataclasses

import pytest

from bench import plugins
from bench.contract import Generator
from bench.testing import BrokenPromise, check_generator
from bench.testing.generators import PROMISES
from tests import wrong

SHORT = {"timesteps": 10, "sampler_steps": 2, "ode_steps": 2, "chunk_size": 16, "n_embd": 8, "dim_per_token": 16,
         "d_model": 8}  # fmt: skip  # and every field named "iterations" is 2


def short(cls):
    """Return hyperparameters with which a generator trains for a moment only."""
    names = cls.setting_names()
    values = {name: 2 for name in names if name.endswith("iterations")}
    return values | {name: value for name, value in SHORT.items() if name in names}


@pytest.mark.parametrize("name", plugins.generators())
def test_every_generator_keeps_its_promises(name):
    cls = plugins.load_generator(name)
    check_generator(cls, **short(cls))


def test_the_right_one_breaks_none():
    check_generator(wrong.Right)
    check_generator(wrong.Right, width=0.5)


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_every_promise_can_be_broken(promise):
    cls = wrong.GENERATORS[promise.__name__]
    with pytest.raises(BrokenPromise) as caught:
        check_generator(cls)
    message = str(caught.value)
    assert message.startswith(f"{cls.__name__} breaks '{promise.__name__.replace('_', ' ')}': ")
    assert "\n" not in message


class Duck:
    """Looks like a generator."""

    def fit(self, zoo, *, rng):
        return self

    def sample(self, n, *, rng):
        return None


class Plain(wrong.Right):
    """Forgot the decorator."""


@dataclasses.dataclass
class Half(Generator):
    """Has no sample."""

    def fit(self, zoo, *, rng):
        return self


@pytest.mark.parametrize(
    ("cls", "reason"),
    [
        (Duck, "Duck is not derived from bench.contract.Generator"),
        (Plain, "Plain is not decorated with @dataclass"),
        (Half, "Half has no sample"),
    ],
)
def test_what_is_no_generator_is_told_in_one_line(cls, reason):
    with pytest.raises(BrokenPromise, match=f"^{reason}$"):
        check_generator(cls)


def test_the_list_shows_every_hyperparameter():
    for name, listed in plugins.generators().items():
        cls = plugins.load_generator(name)
        assert listed.target == f"{cls.__module__}:{cls.__name__}"
        assert set(listed.fields) == set(cls.setting_names())
        assert listed.about == (cls.__doc__ or "").partition("\n")[0]


def test_an_unknown_hyperparameter_is_refused_with_the_nearest():
    for name in plugins.generators():
        cls = plugins.load_generator(name)
        for field in cls.setting_names():
            with pytest.raises(wrong.BadRequest, match=f"'{field}'"):
                plugins.construct(cls, {f"{field}x": 1}, "hyperparameter")


def test_which_generators_have_latents_and_a_path():
    made = {name: plugins.load_generator(name) for name in plugins.generators()}
    latents = {"flow", "pdiff", "sane", "vae"}
    assert {name for name, cls in made.items() if cls.has_latents} == latents
    paths = {"flow", "pdiff", "rpg", "weight_transformer"}
    assert {name for name, cls in made.items() if cls.has_path} == paths
