"""The promises of every generator; ``bench.contract.generator`` states the contract in words."""

import copy
import dataclasses
import functools
import math
import typing
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from bench import plugins
from bench.contract import Generator, Layout, Zoo
from bench.contract.needs import NEEDS
from bench.errors import BadRequest
from bench.records.values import plain
from bench.runs import foreign
from bench.testing.promises import check, derived, documented, ensure, rng, untouched

SHAPES = (
    (4, 3),
    (3,),
    (),
)  # tensors of the zoo that most promises are checked on: a matrix, a vector, a scalar
CHECKPOINTS, SAMPLES = 20, 8
# Zoos at the edge: checkpoints, and shapes of their tensors.
EDGES = (
    (1, SHAPES),
    (2, ((1,),)),
    (5, ((),)),
    (5, ((7,), (1,))),
    (5, ((3, 3, 3), (), (5,))),
    (5, ((16, 20),)),
)


def check_generator(cls: type[object], **settings: object) -> None:
    """Check every promise of a generator: its class, its hyperparameters, ``fit`` and ``sample``.

    The generator is fitted a dozen times, on small zoos.

    Args:
        cls: a class derived from ``bench.contract.Generator``.
        settings: hyperparameters that differ from the defaults, such as a short training.

    Raises:
        BrokenPromise: the first promise that it breaks, and why, in one line.
    """
    plugin = derived(cls, Generator)  # type: ignore[type-abstract]
    check(PROMISES, Subject(plugin, settings), cls.__name__)


@dataclasses.dataclass(frozen=True)
class Subject:
    """A generator's class, and the objects that its promises share.

    Attributes:
        cls: the class.
        settings: hyperparameters of every instance that is fitted.
    """

    cls: type[Generator]
    settings: dict[str, object]

    @functools.cached_property
    def zoo(self) -> Zoo:
        """The zoo that most promises use; none may change it."""
        return make_zoo(CHECKPOINTS, SHAPES)

    @functools.cached_property
    def fitted(self) -> Generator:
        """The instance that is fitted on the zoo."""
        return self.fit(self.zoo)

    def new(self) -> Generator:
        """Return a new instance with the settings."""
        return plugins.construct(self.cls, self.settings, "hyperparameter")

    def fit(self, zoo: Zoo) -> Generator:
        """Fit a new instance on a zoo; return it."""
        return fit(self.new(), zoo)

    def fields(self) -> list[tuple[str, Any, object]]:
        """Return name, type (a class, or a hint such as ``tuple[int, ...]``) and default of every hyperparameter."""
        hints = typing.get_type_hints(self.cls)
        names = self.cls.setting_names()
        return [
            (f.name, hints[f.name], f.default)
            for f in dataclasses.fields(self.cls)
            if f.name in names
        ]


def make_zoo(k: int, shapes: tuple[tuple[int, ...], ...]) -> Zoo:
    """Return a zoo of k random checkpoints with a tensor of each shape."""
    layout = Layout(tuple(f"tensor{i}" for i in range(len(shapes))), shapes)
    return Zoo(
        torch.randn(k, layout.dim, generator=rng()),
        layout,
        {"stem": torch.ones(3)},
        settings={"seed": 0},
    )


def score(vectors: Float[Tensor, "n D"]) -> Float[Tensor, " n"]:
    """Return n scores, which are higher the closer a vector's values are to 0.3."""
    return -(vectors - 0.3).square().mean(dim=1)


def train(
    vectors: Float[Tensor, "n D"], *, steps: int, rng: torch.Generator
) -> Float[Tensor, "n D"]:
    """Move vectors by random steps towards the point with the highest score."""
    for _ in range(steps):
        vectors = vectors + 0.1 * (0.3 - vectors) * torch.rand(vectors.shape, generator=rng)
    return vectors


def fit(maker: Generator, zoo: Zoo) -> Generator:
    """Fit a generator with seed 0 and the arguments that it needs; return the result of its ``fit``."""
    given: dict[str, Callable[..., Tensor]] = {"score": score, "train": train}
    return maker.fit(zoo, rng=rng(), **{need: given[need] for need in maker.uses()})


# The class -----------------------------------------------------------------------------------------------------------


def it_says_what_it_is(subject: Subject) -> None:
    """Check the docstring and the class variables."""
    cls = subject.cls
    ensure(documented(cls), "it has no docstring")
    unknown = set(cls.needs) - set(NEEDS)
    ensure(not unknown, f"needs has {', '.join(sorted(unknown))}, expected score or train")
    for need, where in cls.needs_where.items():
        known = need in cls.needs and set(where) <= set(cls.setting_names())
        ensure(known, f"needs_where has {need} by {', '.join(where)}: no need and hyperparameters")
    for name in ("deterministic", "has_latents", "has_path"):
        ensure(isinstance(getattr(cls, name), bool), f"{name} is no bool")


def the_constructor_only_stores(subject: Subject) -> None:
    """Check that an instance holds its hyperparameters as they were given, and nothing else."""
    made = subject.cls()
    names = set(subject.cls.setting_names())
    stored = set(vars(made)) - {"context"}
    ensure(
        stored == names,
        f"the constructor sets {', '.join(sorted(stored ^ names))}, which is no field",
    )
    again = subject.cls(**made.settings())
    changed = [name for name in names if getattr(again, name) != getattr(made, name)]
    ensure(not changed, f"the constructor changes {', '.join(changed)}")
    ensure(
        not (wrong := [n for n in names if n.endswith("_")]),
        f"the field {wrong} ends in _, as what it learns does",
    )


def its_hyperparameters_are_plain_data(subject: Subject) -> None:
    """Check that records and command lines can hold every hyperparameter."""
    made = subject.new()
    ensure(
        foreign.hyperparameters(made) == plain(made.settings()),
        "hyperparameters() are not its fields",
    )


def its_presets_are_hyperparameters(subject: Subject) -> None:
    """Check that each preset has a plain name and sets hyperparameters of the class."""
    for preset, values in subject.cls.presets.items():
        ensure(
            preset.isidentifier(), f"a preset is named '{preset}', expected letters, digits and _"
        )
        made = plugins.construct(subject.cls, values, f"hyperparameter of the preset {preset}")
        changed = [
            name for name, value in values.items() if plain(getattr(made, name)) != plain(value)
        ]
        ensure(not changed, f"the preset {preset} does not set {', '.join(changed)}")


def a_value_of_another_type_is_refused(subject: Subject) -> None:
    """Check that every field has a type that values can be checked against."""
    for name, hint, _ in subject.fields():
        try:
            TypeAdapter(hint).validate_python(object())
        except ValidationError:
            continue
        ensure(False, f"{name} takes anything: give it a type")


def nonsense_numbers_are_refused(subject: Subject) -> None:
    """Check that negative values of numbers with a positive default are refused, and NaN and infinity of all floats."""
    for name, hint, default in subject.fields():
        if hint in (int, float) and isinstance(default, int | float) and default > 0:
            ensure_refused(subject.cls, name, -1)
        if hint is float:
            ensure_refused(subject.cls, name, math.nan)
            ensure_refused(subject.cls, name, math.inf)


def ensure_refused(cls: type[Generator], name: str, value: int | float) -> None:
    """Check that a value is refused in one line that names its field."""
    try:
        plugins.construct(cls, {name: value}, "hyperparameter")
    except BadRequest as error:
        message = str(error)
        ensure(
            name in message and "\n" not in message, f"refusing {name}={value} it says {message!r}"
        )
    else:
        ensure(
            False, f"{name}={value} is taken: refuse it in __post_init__ with bench.contract.check"
        )


# fit and sample ------------------------------------------------------------------------------------------------------


def fit_returns_itself_and_learns_what_ends_in_an_underscore(subject: Subject) -> None:
    """Check that ``fit`` changes no hyperparameter, and that names of learned attributes end in _."""
    made = subject.new()
    before = copy.deepcopy(vars(made))
    ensure(fit(made, subject.zoo) is made, "fit returned something else")
    learned = set(vars(made)) - set(before)
    ensure(bool(learned), "fit learned nothing")
    ensure(
        not (wrong := [n for n in learned if not n.endswith("_")]), f"fit sets {', '.join(wrong)}"
    )
    changed = [name for name, value in before.items() if vars(made)[name] != value]
    ensure(not changed, f"fit changes {', '.join(changed)}")


def samples_are_finite_float32_rows(subject: Subject) -> None:
    """Check the form of the samples that ``sample`` returns."""
    for n in (1, 3):
        ensure_samples(subject.fitted, subject.zoo, n)


def ensure_samples(maker: Generator, zoo: Zoo, n: int) -> None:
    """Check the form of n samples: float32, n x D, on the CPU, finite, without a gradient."""
    samples = maker.sample(n, rng=rng())
    foreign.check_vectors(samples, n, zoo, f"{type(maker).__name__}.sample")
    ensure(not samples.requires_grad, "the samples require a gradient")


def small_and_constant_zoos_are_no_problem(subject: Subject) -> None:
    """Check zoos of one or two checkpoints, of various shapes, with constant columns, and of equal checkpoints."""
    zoos = [make_zoo(k, shapes) for k, shapes in EDGES]
    fixed = zoos[-1].vectors.clone()
    fixed[:, 3], fixed[:, -1] = 0.7, 0.0
    zoos.append(dataclasses.replace(zoos[-1], vectors=fixed))
    zoos.append(dataclasses.replace(zoos[-1], vectors=fixed[:1].repeat(4, 1)))
    for zoo in zoos:
        ensure_samples(subject.fit(zoo), zoo, 3)


def the_zoo_is_not_changed(subject: Subject) -> None:
    """Check that neither fitting, nor sampling, nor changing the samples changes the zoo."""
    zoo = make_zoo(CHECKPOINTS, SHAPES)
    expected, settings = zoo.hash, copy.deepcopy(zoo.settings)
    subject.fit(zoo).sample(SAMPLES, rng=rng()).detach().zero_()
    ensure(
        dataclasses.replace(zoo).hash == expected,
        "vectors, layout or base of the zoo are not what they were",
    )
    ensure(zoo.settings == settings, "the settings of the zoo are not what they were")


def samples_belong_to_the_caller(subject: Subject) -> None:
    """Check that changing samples in place does not change later samples."""
    first = subject.fitted.sample(SAMPLES, rng=rng())
    kept = first.clone()
    first.detach().zero_()
    ensure(
        torch.equal(subject.fitted.sample(SAMPLES, rng=rng()), kept),
        "a changed sample comes back changed",
    )


def the_same_seeds_give_the_same_models(subject: Subject) -> None:
    """Check that fits and samples are repeatable, whatever else draws random numbers."""
    first = subject.fitted.sample(SAMPLES, rng=rng())
    torch.rand(5)
    np.random.rand(5)  # noqa: NPY002 - what other code does
    second = subject.fit(make_zoo(CHECKPOINTS, SHAPES)).sample(SAMPLES, rng=rng())
    ensure(torch.equal(first, second), "samples of two fits with one seed differ")


def another_seed_gives_other_models_unless_deterministic(subject: Subject) -> None:
    """Check that all samples are equal if ``deterministic`` is true, and differ otherwise."""
    first, second = (subject.fitted.sample(SAMPLES, rng=rng(seed)) for seed in (1, 2))
    alike = torch.equal(first, second) and len(first.unique(dim=0)) == 1
    differ = not torch.equal(first, second) and len(first.unique(dim=0)) > 1
    says = f"deterministic is {subject.cls.deterministic}"
    ensure(alike if subject.cls.deterministic else differ, f"{says}, the samples say otherwise")


def global_random_numbers_are_left_alone(subject: Subject) -> None:
    """Check that fitting and sampling use no global random generator of torch or numpy."""
    with untouched():
        subject.fit(subject.zoo).sample(2, rng=rng())


# Figures -------------------------------------------------------------------------------------------------------------


def latents_are_there_where_promised(subject: Subject) -> None:
    """Check that latents are a matrix with one row per vector, which depends on that vector alone."""
    if not subject.cls.has_latents:
        return
    vectors = subject.zoo.vectors
    latents = foreign.check_view(subject.fitted.latents(vectors), len(vectors), 2, "latents")
    ensure(
        torch.equal(latents, subject.fitted.latents(vectors)), "latents of the same vectors differ"
    )
    ensure(
        torch.allclose(latents[:2], subject.fitted.latents(vectors[:2]), atol=1e-4),
        "a latent depends on its neighbours",
    )
    ensure(not torch.allclose(latents[0], latents[1]), "different vectors have one latent")


def the_sampling_path_is_there_where_promised(subject: Subject) -> None:
    """Check that a sampling path ends at the samples of the same seed, and begins elsewhere."""
    if not subject.cls.has_path:
        return
    path = foreign.check_view(subject.fitted.sampling_path(3, 3, rng=rng()), 3, 3, "sampling_path")
    ensure(
        path.shape[1] <= 3 and path.shape[2] == subject.zoo.layout.dim,
        f"the path has shape {tuple(path.shape)}",
    )
    ensure(
        torch.allclose(path[:, -1], subject.fitted.sample(3, rng=rng()), atol=1e-5),
        "it does not end at the samples",
    )
    ensure(not torch.allclose(path[:, 0], path[:, -1]), "it does not move")


PROMISES: tuple[Callable[[Subject], None], ...] = (
    it_says_what_it_is,
    the_constructor_only_stores,
    its_hyperparameters_are_plain_data,
    its_presets_are_hyperparameters,
    a_value_of_another_type_is_refused,
    nonsense_numbers_are_refused,
    fit_returns_itself_and_learns_what_ends_in_an_underscore,
    samples_are_finite_float32_rows,
    small_and_constant_zoos_are_no_problem,
    the_zoo_is_not_changed,
    samples_belong_to_the_caller,
    the_same_seeds_give_the_same_models,
    another_seed_gives_other_models_unless_deterministic,
    global_random_numbers_are_left_alone,
    latents_are_there_where_promised,
    the_sampling_path_is_there_where_promised,
)
