"""Plugins that each break one promise of the contract, by the promise: no promise can fail to fail."""

import dataclasses
from typing import Any, ClassVar

import numpy as np
import torch

from bench.contract import Evaluation, Generator, Metric, check
from bench.errors import BadRequest as BadRequest
from bench.metrics.statistics import resamples
from bench.testing import generators
from bench.testing import tasks as of_tasks
from tests.tiny import UNITS, Tiny


@dataclasses.dataclass
class Right(Generator):
    """A checkpoint with noise, which breaks no promise."""

    has_latents: ClassVar[bool] = True
    has_path: ClassVar[bool] = True
    width: float = 0.1

    def __post_init__(self):
        check(0 < self.width < float("inf"), f"width is {self.width}, expected above 0")

    def fit(self, zoo, *, rng):
        self.vectors_ = zoo.vectors
        return self

    def sample(self, n, *, rng):
        rows = torch.randint(len(self.vectors_), (n,), generator=rng)
        noise = torch.randn(n, self.vectors_.shape[1], generator=rng)
        return self.vectors_[rows] + self.width * noise

    def latents(self, vectors):
        return vectors[:, :1].clone()

    def sampling_path(self, n, steps, *, rng):
        ends = self.sample(n, rng=rng)
        return torch.linspace(0, 1, steps)[:, None] * ends[:, None]


@dataclasses.dataclass
class Undocumented(Right):
    pass


@dataclasses.dataclass
class Setting(Right):
    """Its constructor computes."""

    def __post_init__(self):
        super().__post_init__()
        self.half = self.width / 2


@dataclasses.dataclass
class Opaque(Right):
    """A hyperparameter that no command line can hold."""

    source: bytes = b""


@dataclasses.dataclass
class Preset(Right):
    """A preset of something else."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {"paper": {"widht": 0.2}}


@dataclasses.dataclass
class Untyped(Right):
    """A hyperparameter of any type."""

    mode: Any = 1


@dataclasses.dataclass
class Unchecked(Right):
    """Takes any width."""

    def __post_init__(self):
        pass


@dataclasses.dataclass
class Anonymous(Right):
    """Learns under a name that looks like a hyperparameter's."""

    def fit(self, zoo, *, rng):
        self.count = len(zoo)
        return super().fit(zoo, rng=rng)


@dataclasses.dataclass
class Double(Right):
    """Samples in float64."""

    def sample(self, n, *, rng):
        return super().sample(n, rng=rng).double()


@dataclasses.dataclass
class Standardizing(Right):
    """Divides by the standard deviation of columns."""

    def sample(self, n, *, rng):
        return super().sample(n, rng=rng) / self.vectors_.std(dim=0, correction=0)


@dataclasses.dataclass
class Scaling(Right):
    """Scales the zoo in its place."""

    def fit(self, zoo, *, rng):
        zoo.vectors.mul_(2)
        return super().fit(zoo, rng=rng)


@dataclasses.dataclass
class Sharing(Right):
    """Gives away what it learned."""

    deterministic: ClassVar[bool] = True

    def fit(self, zoo, *, rng):
        self.vectors_ = zoo.vectors.clone()
        return self

    def sample(self, n, *, rng):
        return self.vectors_[:1].expand(n, -1) if n > 1 else self.vectors_[:1]


@dataclasses.dataclass
class Global(Right):
    """Draws while it is fitted from where everybody draws."""

    def fit(self, zoo, *, rng):
        self.vectors_ = zoo.vectors + torch.randn(1)
        return self


@dataclasses.dataclass
class Deterministic(Right):
    """Says that all samples are one."""

    deterministic: ClassVar[bool] = True


@dataclasses.dataclass
class Seeding(Right):
    """Seeds where everybody draws."""

    def fit(self, zoo, *, rng):
        np.random.seed(0)  # noqa: NPY002 - what such code does
        return super().fit(zoo, rng=rng)


@dataclasses.dataclass
class Collapsed(Right):
    """One latent for all."""

    def latents(self, vectors):
        return torch.zeros(len(vectors), 1)


@dataclasses.dataclass
class Backwards(Right):
    """A path that ends where it should begin."""

    def sampling_path(self, n, steps, *, rng):
        return super().sampling_path(n, steps, rng=rng).flip(1)


GENERATORS = {
    generators.it_says_what_it_is.__name__: Undocumented,
    generators.the_constructor_only_stores.__name__: Setting,
    generators.its_hyperparameters_are_plain_data.__name__: Opaque,
    generators.its_presets_are_hyperparameters.__name__: Preset,
    generators.a_value_of_another_type_is_refused.__name__: Untyped,
    generators.nonsense_numbers_are_refused.__name__: Unchecked,
    generators.fit_returns_itself_and_learns_what_ends_in_an_underscore.__name__: Anonymous,
    generators.samples_are_finite_float32_rows.__name__: Double,
    generators.small_and_constant_zoos_are_no_problem.__name__: Standardizing,
    generators.the_zoo_is_not_changed.__name__: Scaling,
    generators.samples_belong_to_the_caller.__name__: Sharing,
    generators.the_same_seeds_give_the_same_models.__name__: Global,
    generators.another_seed_gives_other_models_unless_deterministic.__name__: Deterministic,
    generators.global_random_numbers_are_left_alone.__name__: Seeding,
    generators.latents_are_there_where_promised.__name__: Collapsed,
    generators.the_sampling_path_is_there_where_promised.__name__: Backwards,
}


# Tasks ---------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(eq=False)
class RightTask(Tiny):
    """Breaks no promise."""

    def finetune(self, zoo, vectors, *, steps, rng):
        share = 0.1 * torch.rand(len(vectors), 1, generator=rng)
        return vectors.lerp(torch.ones_like(vectors), share)


@dataclasses.dataclass(eq=False)
class Silent(RightTask):
    """Names its metric and does not say what it is."""

    metric: ClassVar[str] = "accuracy"


@dataclasses.dataclass(eq=False)
class Doubling(RightTask):
    """Its constructor computes."""

    def __post_init__(self):
        self.spread = 2 * self.spread


@dataclasses.dataclass(eq=False)
class OpaqueTask(RightTask):
    """A setting that no command line can hold."""

    source: bytes = b""


@dataclasses.dataclass(eq=False)
class PresetTask(RightTask):
    """A preset of something else."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {"fast": {"spread": 0.2}}


@dataclasses.dataclass(eq=False)
class Nameless(RightTask):
    """Does not say what its data are."""

    def identity(self):
        return {**super().identity(), "dataset_hash": "1"}


@dataclasses.dataclass(eq=False)
class Empty(RightTask):
    """No examples."""

    def size(self, split):
        return 0


@dataclasses.dataclass(eq=False)
class Scoreless(RightTask):
    """Checkpoints without scores."""

    def collect(self, k, *, rng, work):
        return dataclasses.replace(super().collect(k, rng=rng, work=work), scores=())


@dataclasses.dataclass(eq=False)
class Unseeded(RightTask):
    """The same zoo whatever the seed."""

    def collect(self, k, *, rng, work):
        return super().collect(k, rng=torch.Generator().manual_seed(0), work=work)


@dataclasses.dataclass(eq=False)
class Misremembering(RightTask):
    """Reads other layers from a zoo than it was collected with."""

    @classmethod
    def of_zoo(cls, facts):
        return {"layers": "head"}


class Changed:
    """A scorer that does something else with what another one returns."""

    def __init__(self, scorer, change):
        self.scorer, self.change = scorer, change

    def __call__(self, vectors):
        return self.change(self.scorer(vectors), vectors)


def with_scores(evaluation: Evaluation, scores: torch.Tensor) -> Evaluation:
    return dataclasses.replace(evaluation, scores=scores)


@dataclasses.dataclass(eq=False)
class Single(RightTask):
    """Scores in float32."""

    def scorer(self, zoo, split):
        return Changed(
            super().scorer(zoo, split), lambda made, _: with_scores(made, made.scores.float())
        )


@dataclasses.dataclass(eq=False)
class Outputs(RightTask):
    """Gives its models coordinates."""

    def outputs(self, vectors):
        return vectors.nan_to_num(0)

    def scorer(self, zoo, split):
        return Changed(
            super().scorer(zoo, split),
            lambda made, vectors: dataclasses.replace(made, outputs=self.outputs(vectors)),
        )


@dataclasses.dataclass(eq=False)
class Alike(Outputs):
    """Puts all models at one point."""

    def outputs(self, vectors):
        return torch.ones(len(vectors), 5)


@dataclasses.dataclass(eq=False)
class Numbered(Outputs):
    """Puts models where their number says."""

    def outputs(self, vectors):
        return torch.arange(len(vectors))[:, None].float()


@dataclasses.dataclass(eq=False)
class Relative(RightTask):
    """A score that depends on who else is scored."""

    def scorer(self, zoo, split):
        return Changed(
            super().scorer(zoo, split),
            lambda made, _: with_scores(made, made.scores + len(made.scores)),
        )


@dataclasses.dataclass(eq=False)
class Redrawing(RightTask):
    """Draws the examples of every call anew."""

    metric: ClassVar[Metric] = Metric(
        "accuracy", scale=100, mean_over_units=True, resampled="bootstrap"
    )

    def counts(self, vectors):
        seed = int(vectors.abs().nan_to_num(0).sum() * 1e6)
        return resamples(UNITS, torch.Generator().manual_seed(seed), 100)

    def scorer(self, zoo, split):
        def change(made, vectors):
            drawn = self.counts(vectors) @ (~made.wrong).double().T / UNITS
            return dataclasses.replace(made, replicates=drawn.T.contiguous())

        healthy = super().scorer(zoo, split)
        return Changed(healthy, change) if split == "val" else healthy


@dataclasses.dataclass(eq=False)
class Resampled(Redrawing):
    """Breaks no promise, and gives replicates."""

    def counts(self, vectors):
        return resamples(UNITS, torch.Generator().manual_seed(0), 100)


@dataclasses.dataclass(eq=False)
class Doubled(Resampled):
    """Replicates that are no shares."""

    def counts(self, vectors):
        return 2 * super().counts(vectors)


@dataclasses.dataclass(eq=False)
class Unmoved(Resampled):
    """Draws every example once."""

    def counts(self, vectors):
        return torch.ones(100, UNITS, dtype=torch.float64)


@dataclasses.dataclass(eq=False)
class Meddling(RightTask):
    """Rounds the models that it scores."""

    def scorer(self, zoo, split):
        def change(made, vectors):
            vectors.round_()
            return made

        return Changed(super().scorer(zoo, split), change)


@dataclasses.dataclass(eq=False)
class Fragile(RightTask):
    """Weights that are not finite give a score that is none."""

    def scorer(self, zoo, split):
        return Changed(
            super().scorer(zoo, split),
            lambda made, vectors: with_scores(made, made.scores + 0 * vectors[:, 0]),
        )


@dataclasses.dataclass(eq=False)
class Lazy(RightTask):
    """Does not train further."""

    def finetune(self, zoo, vectors, *, steps, rng):
        return vectors.clone()


@dataclasses.dataclass(eq=False)
class Trained(RightTask):
    """Calls checkpoints untrained."""

    def initial(self, zoo, count, *, rng):
        return zoo.vectors[:count].clone()


@dataclasses.dataclass(eq=False)
class Repeating(RightTask):
    """Holds checkpoints out that generators see."""

    def reference(self, zoo, count, *, rng, work):
        return zoo.vectors[:count] + 0.0


TASKS = {
    of_tasks.it_says_what_it_is.__name__: Silent,
    of_tasks.the_constructor_only_stores.__name__: Doubling,
    of_tasks.its_settings_are_plain_data.__name__: OpaqueTask,
    of_tasks.its_presets_are_settings.__name__: PresetTask,
    of_tasks.its_identity_is_plain_data_and_repeatable.__name__: Nameless,
    of_tasks.its_size_is_a_number_of_examples.__name__: Empty,
    of_tasks.collect_gives_checkpoints_with_scores.__name__: Scoreless,
    of_tasks.the_seed_decides_the_zoo.__name__: Unseeded,
    of_tasks.a_zoo_tells_the_settings_of_its_task.__name__: Misremembering,
    of_tasks.a_scorer_returns_an_evaluation.__name__: Single,
    of_tasks.outputs_tell_models_apart.__name__: Alike,
    of_tasks.replicates_are_the_same_for_all_models.__name__: Redrawing,
    of_tasks.a_reloaded_checkpoint_has_its_recorded_score.__name__: Relative,
    of_tasks.scoring_changes_nothing.__name__: Meddling,
    of_tasks.a_broken_model_is_scored_like_any.__name__: Fragile,
    of_tasks.finetune_moves_every_model.__name__: Lazy,
    of_tasks.a_reference_is_none_or_new_models.__name__: Repeating,
    of_tasks.untrained_models_are_none_or_repeatable.__name__: Trained,
}
