"""The promises of every task; ``bench.contract.task`` states the contract in words."""

import dataclasses
import functools
import json
import re
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench import plugins
from bench.contract import Evaluation, Task, Zoo
from bench.contract.evaluation import check_evaluation
from bench.contract.metric import Compared, Metric
from bench.contract.presets import PRESETS
from bench.metrics import replicates
from bench.records.values import plain
from bench.runs.foreign import preserved
from bench.testing.promises import check, derived, documented, ensure, rng

CHECKPOINTS = 3
ROUNDING = 0.01  # how far outputs of equal models may be apart, over the largest distance of those of checkpoints
SPLITS = ("train", "val")
IDENTITY = ("dataset", "dataset_hash", "arch", "layers")  # texts that every identity has
FACTS = {
    "kind": str,
    "metric": Metric,
    "compared": Compared,
}  # class variables and their types


def check_task(cls: type[object], **settings: object) -> None:
    """Check every promise of a task: its class, its zoos and its scorers.

    The task collects three zoos of three checkpoints.

    Args:
        cls: a class derived from ``bench.contract.Task``.
        settings: those that differ from the defaults, such as a short training on few data.

    Raises:
        BrokenPromise: the first promise that it breaks, and why, in one line.
    """
    plugin = derived(cls, Task)  # type: ignore[type-abstract]
    check(PROMISES, Subject(plugin, settings), cls.__name__)


@dataclasses.dataclass(frozen=True)
class Subject:
    """A task's class, and the objects that its promises share.

    Attributes:
        cls: the class.
        settings: settings of every instance.
    """

    cls: type[Task]
    settings: dict[str, object]

    @functools.cached_property
    def task(self) -> Task:
        """The instance that most promises use."""
        return self.new()

    @functools.cached_property
    def zoo(self) -> Zoo:
        """The checkpoints of seed 0, which no promise may change."""
        return self.collect(0)

    @functools.cached_property
    def evaluations(self) -> dict[str, Evaluation]:
        """The evaluations of the zoo's checkpoints, by split."""
        return {
            split: self.task.scorer(self.zoo, split)(self.zoo.vectors.clone()) for split in SPLITS
        }

    def new(self) -> Task:
        """Return a new instance with the settings."""
        return plugins.construct(self.cls, self.settings, "task setting")

    def collect(self, seed: int) -> Zoo:
        """Collect a zoo with a new instance, in a temporary folder."""
        with tempfile.TemporaryDirectory() as folder:
            return self.new().collect(CHECKPOINTS, rng=rng(seed), work=Path(folder) / "work")


# The class -----------------------------------------------------------------------------------------------------------


def it_says_what_it_is(subject: Subject) -> None:
    """Check the docstring and the class variables."""
    ensure(documented(subject.cls), "it has no docstring")
    for name, kind in FACTS.items():
        fact = getattr(subject.task, name, None)
        ensure(
            isinstance(fact, kind) and fact != "", f"{name} is {fact!r}, expected a {kind.__name__}"
        )


def the_constructor_only_stores(subject: Subject) -> None:
    """Check that an instance made from another one's settings has the same settings."""
    settings = subject.new().settings()
    again = subject.cls(**settings).settings()
    ensure(again == settings, f"the constructor makes {again} of {settings}")


def its_settings_are_plain_data(subject: Subject) -> None:
    """Check that records and command lines can hold every setting."""
    plain(subject.new().settings())


def its_presets_are_settings(subject: Subject) -> None:
    """Check that each preset has a known name and sets fields of the class."""
    for preset, values in subject.cls.presets.items():
        ensure(preset in PRESETS, f"there is no preset '{preset}': expected {' or '.join(PRESETS)}")
        plugins.construct(
            subject.cls, {**values, **subject.settings}, f"setting of the preset {preset}"
        )


def its_identity_is_plain_data_and_repeatable(subject: Subject) -> None:
    """Check the form of the identity, which results are stored under, and that equal instances share it."""
    identity = subject.task.identity()
    missing = [name for name in IDENTITY if not isinstance(identity.get(name), str)]
    ensure(not missing, f"its identity has no text {', '.join(missing)}")
    content = identity["dataset_hash"]
    ensure(
        bool(re.fullmatch("[0-9a-f]{64}", content)),
        f"dataset_hash is {content}, expected a SHA-256 in hexadecimal",
    )
    ensure(
        json.loads(json.dumps(plain(identity))) == plain(identity), "its identity is no JSON data"
    )
    ensure(
        subject.new().identity() == identity,
        "a second instance with the same settings has another identity",
    )


def its_size_is_a_number_of_examples(subject: Subject) -> None:
    """Check that the size of both splits is a positive whole number."""
    for split in SPLITS:
        size = subject.task.size(split)
        ensure(
            isinstance(size, int) and size >= 1, f"size('{split}') is {size!r}, expected at least 1"
        )


# Checkpoints ---------------------------------------------------------------------------------------------------------


def collect_gives_checkpoints_with_scores(subject: Subject) -> None:
    """Check the zoo's checkpoints, scores and time, and that its file holds all of it."""
    zoo = subject.zoo
    ensure(isinstance(zoo, Zoo), f"collect returned {type(zoo).__name__}, expected a Zoo")
    ensure(
        len(zoo) == len(zoo.scores) == CHECKPOINTS,
        f"{len(zoo)} checkpoints, {len(zoo.scores)} scores",
    )
    ensure(zoo.collect_s > 0, f"collect_s is {zoo.collect_s}")
    loaded = reloaded(zoo)
    ensure(loaded.hash == zoo.hash, "its file holds another zoo")
    ensure(loaded.settings == json.loads(json.dumps(zoo.settings)), "its file holds other settings")


def reloaded(zoo: Zoo) -> Zoo:
    """Save a zoo to a temporary file; return the zoo read from it."""
    with tempfile.TemporaryDirectory() as folder:
        zoo.save(path := Path(folder) / "zoo")
        return Zoo.load(path)


def the_seed_decides_the_zoo(subject: Subject) -> None:
    """Check that equal seeds give equal zoos, whatever the state of global random generators."""
    with preserved():
        torch.manual_seed(5)
        np.random.seed(5)  # noqa: NPY002 - what other code does
        same, other = subject.collect(0), subject.collect(1)
    ensure(same.hash == subject.zoo.hash, "two zoos of one seed differ")
    ensure(other.hash != subject.zoo.hash, "two zoos of different seeds are equal")


def a_zoo_tells_the_settings_of_its_task(subject: Subject) -> None:
    """Check that a task made from the settings in a zoo's file has the same network."""
    told = subject.cls.of_zoo(reloaded(subject.zoo).settings)
    made = plugins.construct(subject.cls, {**subject.settings, **told}, "setting of the zoo")
    made.adopt(subject.zoo, frozenset())
    for name in ("arch", "layers"):
        ensure(
            made.identity()[name] == subject.task.identity()[name], f"the zoo tells another {name}"
        )


# Scores --------------------------------------------------------------------------------------------------------------


def a_scorer_returns_an_evaluation(subject: Subject) -> None:
    """Check the form of the evaluations on both splits."""
    for split, evaluation in subject.evaluations.items():
        replicated = subject.task.metric.replicated(split)
        check_evaluation(evaluation, CHECKPOINTS, subject.cls.__name__, replicated=replicated)
        ensure(
            evaluation.scores.dtype == torch.float64,
            f"scores are {evaluation.scores.dtype}, expected float64",
        )


def outputs_tell_models_apart(subject: Subject) -> None:
    """Check outputs on validation, if there are any: a row a model, equal for equal models, not for all checkpoints."""
    if subject.evaluations["val"].outputs is None:
        return
    vectors = torch.cat([subject.zoo.vectors, subject.zoo.vectors[:1]])
    outputs = subject.task.scorer(subject.zoo, "val")(vectors).outputs
    ensure(
        outputs is not None and len(outputs) == len(vectors),
        f"{len(vectors)} models do not have as many rows of outputs",
    )
    assert outputs is not None
    distances = torch.cdist(outputs, outputs)
    apart = float(distances[:-1, :-1].max())
    ensure(apart > 0, "all checkpoints have equal outputs")
    same = float(distances[0, -1])
    ensure(
        same <= ROUNDING * apart,
        f"the outputs of two equal models are {same:.3g} apart, those of checkpoints at most {apart:.3g}",
    )


def replicates_are_the_same_for_all_models(subject: Subject) -> None:
    """Check replicates, if there are any: the same from a new scorer in any company, different, around the scores."""
    found, vectors = subject.evaluations["val"], subject.zoo.vectors
    if found.replicates is None:
        return
    scorer = subject.new().scorer(subject.zoo, "val")
    alone, others = scorer(vectors[:1].clone()).replicates, scorer(vectors[1:].clone()).replicates
    assert alone is not None
    assert others is not None
    same = torch.equal(torch.cat([alone, others]), found.replicates)
    ensure(same, "a model has other replicates in another call")
    moved = found.replicates != found.scores[:, None]
    ensure(bool(moved.any() or (found.scores == 0).all()), "no replicate differs from the score")
    for score, row in zip(found.scores.tolist(), found.replicates.tolist(), strict=True):
        ensure(
            replicates.plausible(score, row, subject.task.metric.resampled),
            f"a model with score {score:.4g} has replicates of mean {statistics.fmean(row):.4g}",
        )


def a_reloaded_checkpoint_has_its_recorded_score(subject: Subject) -> None:
    """Check that a saved checkpoint, scored alone by a new instance, has its recorded score bit for bit."""
    zoo = reloaded(subject.zoo)
    scorer = subject.new().scorer(zoo, "val")
    for row, recorded in enumerate(zoo.scores):
        score = scorer(zoo.vectors[row : row + 1].clone()).scores.item()
        ensure(
            score == recorded,
            f"checkpoint {row} was recorded with {recorded!r} and scores {score!r}",
        )


def scoring_changes_nothing(subject: Subject) -> None:
    """Check that scoring changes neither the zoo nor the models, and that scores are repeatable."""
    vectors, zoo = subject.zoo.vectors.clone(), subject.zoo
    scorer = subject.task.scorer(zoo, "val")
    again = scorer(vectors)
    ensure(torch.equal(vectors, zoo.vectors), "the models are not what they were")
    ensure(dataclasses.replace(zoo).hash == zoo.hash, "the zoo is not what it was")
    ensure(
        torch.equal(again.scores, subject.evaluations["val"].scores),
        "a second call gives other scores",
    )


def a_broken_model_is_scored_like_any(subject: Subject) -> None:
    """Check that a model with weights that are not finite does not change the scores of other models."""
    vectors = subject.zoo.vectors.clone()
    vectors[0] = torch.nan
    evaluation = subject.task.scorer(subject.zoo, "val")(vectors)
    check_evaluation(evaluation, CHECKPOINTS, subject.cls.__name__)
    rest, expected = evaluation.scores[1:], subject.evaluations["val"].scores[1:]
    ensure(torch.equal(rest, expected), "other models of the same call have other scores")


def finetune_moves_every_model(subject: Subject) -> None:
    """Check that fine-tuning changes every vector differently and repeatably, and not the given ones in place."""
    zoo, start = subject.zoo, subject.zoo.vectors[:1].repeat(2, 1)
    given = start.clone()
    first, second = (subject.task.finetune(zoo, given, steps=2, rng=rng(5)) for _ in range(2))
    form = (tuple(first.shape), first.dtype, first.device.type)
    ensure(form == (tuple(start.shape), torch.float32, "cpu"), f"finetune returned {form}")
    ensure(torch.equal(given, start), "it changes the vectors that it is given")
    ensure(torch.equal(first, second), "the same seed gives other models")
    ensure(bool((first != start).any(1).all()), "a model does not move")
    ensure(not torch.equal(first[0], first[1]), "both models see the same batches")


def a_reference_is_none_or_new_models(subject: Subject) -> None:
    """Check that held-out models are repeatable, go on after an interruption, and are no checkpoints."""
    zoo = subject.zoo

    def reference(seed: int) -> Tensor | None:
        with tempfile.TemporaryDirectory() as folder:
            return subject.new().reference(zoo, 2, rng=rng(seed), work=Path(folder) / "work")

    first, second, other = reference(1), reference(1), reference(2)
    if first is None or second is None or other is None:
        return
    form = (tuple(first.shape), first.dtype, first.device.type)
    ensure(form == ((2, zoo.layout.dim), torch.float32, "cpu"), f"reference returned {form}")
    ensure(torch.equal(first, second), "the same seed gives another reference")
    ensure(not torch.equal(first, other), "another seed gives the same reference")
    ensure(not torch.equal(first[0], first[1]), "two models of the reference are equal")
    distances = torch.cdist(first, zoo.vectors, compute_mode="donot_use_mm_for_euclid_dist")
    ensure(bool((distances > 0).all()), "a model of the reference is a checkpoint")


def untrained_models_are_none_or_repeatable(subject: Subject) -> None:
    """Check the shape of untrained vectors, and that they are repeatable and differ from the checkpoints."""
    first, second = (subject.task.initial(subject.zoo, 2, rng=rng(1)) for _ in range(2))
    if first is None or second is None:
        return
    ensure(
        tuple(first.shape) == (2, subject.zoo.layout.dim), f"initial returned {tuple(first.shape)}"
    )
    ensure(torch.equal(first, second), "the same seed gives other models")
    ensure(
        not torch.allclose(first[0], subject.zoo.vectors[0]), "an untrained model is a checkpoint"
    )


PROMISES: tuple[Callable[[Subject], None], ...] = (
    it_says_what_it_is,
    the_constructor_only_stores,
    its_settings_are_plain_data,
    its_presets_are_settings,
    its_identity_is_plain_data_and_repeatable,
    its_size_is_a_number_of_examples,
    collect_gives_checkpoints_with_scores,
    the_seed_decides_the_zoo,
    a_zoo_tells_the_settings_of_its_task,
    a_scorer_returns_an_evaluation,
    outputs_tell_models_apart,
    replicates_are_the_same_for_all_models,
    a_reloaded_checkpoint_has_its_recorded_score,
    scoring_changes_nothing,
    a_broken_model_is_scored_like_any,
    finetune_moves_every_model,
    a_reference_is_none_or_new_models,
    untrained_models_are_none_or_repeatable,
)
