"""The stages of a run: collect, fit, sample, score, compare, record. Each is cached by the content of its input."""

import dataclasses
import functools
import hashlib
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from bench.contract import (
    Control,
    Evaluation,
    Generator,
    Score,
    Scorer,
    Train,
)
from bench.contract.evaluation import check_evaluation
from bench.contract.zoo import Zoo
from bench.errors import BenchError
from bench.judge.align import Comparer, align_zoo, found_groups
from bench.judge.population import GENERATED, ORIGINAL, REFERENCE, Origin, Population
from bench.records import protocol, side
from bench.records.record import Record
from bench.records.request import Request
from bench.records.values import recorded
from bench.runs import figures, foreign, known, prepared
from bench.runs.assemble import Files, Heading, assemble, heading
from bench.runs.checkpoints import Checkpoints
from bench.runs.stages import (
    VERSION,
    Reference,
    Sampled,
    load_population,
    load_sampled,
    save_population,
    save_sampled,
)
from bench.system import identity, memory, store
from bench.system.progress import say, track
from bench.system.randomness import derive, generator
from bench.system.threads import one_thread
from bench.system.timing import Stopwatch, peak_memory

# How often sampling is timed, but for a generator that is so slow that fewer times take this many seconds in all.
REPEATS, REPEATING_S = 5, 30.0
SMALL = 10_000  # parameters of a checkpoint below which generators are fitted on one thread
NOISY = Control("noise", 0.1)  # the level that maps of parameters and latents show


class Run:
    """One request being carried out; each stage reads its result from the store, or computes and saves it.

    Attributes:
        task, generator: the plugins, with their settings.
        device: the device that holds the tensors.
        code: the code of plugins, which is read once.
        stage: returns the context manager that a stage of a given name runs in, such as a profiler's.
        protocol: the version of the protocol; an earlier one repeats an earlier record.
    """

    def __init__(
        self,
        request: Request,
        stage: Callable[[str], AbstractContextManager[object]] = nullcontext,
        protocol: int = protocol.PROTOCOL,
    ) -> None:
        self.request, self.stage, self.protocol = request, stage, protocol
        memory.keep_freed()
        self.device = prepared.choose_device(request.device)
        self.task = prepared.load_task(request, self.device)
        self.code = identity.Code()
        with foreign.preserved():
            self.generator = prepared.generator(request, self.device)
        for plugin in (self.task, self.generator):
            self.code.check_loaded(type(plugin))
        prepared.check_min_score(request.min_score, self.task.metric)
        self._fitted: tuple[Generator, str, int, float] | None = (
            None  # generator, hash of the zoo, seed, seconds of fitting
        )
        self._scorers: dict[tuple[str, str], Scorer] = {}  # by zoo and split
        self._comparer: tuple[str, Comparer] | None = None  # of the zoo of this hash
        self._aligned: tuple[str, Zoo] | None = None  # hash of a zoo, and that zoo aligned
        self._checkpoints = Checkpoints(request, self.task, self.device, lambda: self.task_code)

    def execute(self) -> tuple[Record, Path]:
        """Carry out all stages; return the record and the file it was written to."""
        results = self.request.results
        store.check_writable(results)  # fail before the work, not after it
        with self.stage("collect"):
            zoo, zoo_path = self.zoo()
        if self.request.zoo:  # one that the task cannot score costs no fit
            self.evaluate(zoo, zoo.vectors, ORIGINAL)
        say(f"fit {self.request.generator} and sample {self.request.samples} models")
        with self.stage("fit and sample"):
            sampled = self.generate(zoo)
        with self.stage("reference"):
            reference = self.reference(zoo)
        populations = self.score(zoo, sampled.vectors, reference)
        head = heading(self, zoo)
        with self.stage("figures"):
            side_file = self.write_side(head, zoo, sampled, reference, populations)
        with self.stage("compare"):
            files = Files(zoo_path, sampled.path, reference.path if reference else None, side_file)
            record = assemble(self, head, zoo, sampled, populations, files)
        return record, record.write(results)

    def generate(self, zoo: Zoo, samples: int | None = None, *, timed: bool = True) -> Sampled:
        """Return the generator's samples, fitted to the zoo, which is aligned first where ``aligns`` says so.

        Args:
            zoo: the checkpoints.
            samples: number of models, by default the request's; samples of all counts come from one fit.
            timed: whether to sample again for the time that it takes.
        """
        seen = self.aligned(zoo) if self.aligns(zoo) else zoo
        count = samples or self.request.samples
        return self.sample(self.generator, self.request.generator, seen, count, timed=timed)

    def aligns(self, zoo: Zoo) -> bool:
        """Return whether the generator sees aligned checkpoints: the request or, where that can be, its method asks."""
        return self.request.align or (self.generator.aligns and found_groups(zoo) is not None)

    def aligned(self, zoo: Zoo) -> Zoo:
        """Return the zoo with its hidden units aligned, which is done once for the zoo that was asked for last.

        Raises:
            BadRequest: hidden units cannot be permuted.
        """
        if self._aligned is None or self._aligned[0] != zoo.hash:
            self._aligned = (zoo.hash, align_zoo(zoo))
        return self._aligned[1]

    def score(
        self, zoo: Zoo, generated: Float[Tensor, "n D"], reference: Reference | None
    ) -> list[Population]:
        """Score originals, reference, generated models and every control on both splits."""
        say("score originals and generated models")
        made = dataclasses.replace(GENERATED, aligned=self.aligns(zoo))
        with self.stage("score"):
            populations = [
                self.evaluate(zoo, zoo.vectors, ORIGINAL),
                self.evaluate(zoo, generated, made),
            ]
            if reference:
                populations.append(self.evaluate(zoo, reference.vectors, REFERENCE))
        return populations + self.score_controls(zoo)

    def score_controls(self, zoo: Zoo) -> list[Population]:
        """Score every control on both splits; they do not depend on the generator."""
        populations = []
        say("score the controls")
        with self.stage("controls"):
            for control, vectors in track(self.control_vectors(zoo), "controls"):
                populations.append(self.evaluate(zoo, vectors, Origin.of(control)))
        return populations

    def write_side(
        self,
        head: Heading,
        zoo: Zoo,
        sampled: Sampled,
        reference: Reference | None,
        populations: Sequence[Population],
    ) -> Path | None:
        """Write the record's side file; return its path, or None where that fails, which costs no record."""
        say("prepare the figures")
        path = self.request.results / head.key / f"{head.id}.npz"
        with figures.optional("side file"):
            side.write(path, self.side_arrays(zoo, sampled, reference, populations))
            return path
        return None

    def side_arrays(
        self,
        zoo: Zoo,
        sampled: Sampled,
        reference: Reference | None,
        populations: Sequence[Population],
    ) -> dict[str, side.Array]:
        """Return the arrays of the side file."""
        vectors = {"original": zoo.vectors, "generated": sampled.vectors}
        vectors |= {"reference": reference.vectors} if reference else {}
        return figures.arrays(
            zoo,
            vectors | {str(NOISY): self.noisy(zoo)},
            sampled.views,
            populations,
            self.task.initial(zoo, side.HEAT_MODELS, rng=generator(0, zoo.hash, "initial")),
            sign=self.task.metric.sign,
        )

    # Stages --------------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Make the trained network that this and other zoos are collected from; nothing for a given zoo."""
        with one_thread(self.small):
            self._checkpoints.prepare()

    def zoo(self) -> tuple[Zoo, Path]:
        """Return the zoo (given, cached or collected) and the path of its file."""
        with one_thread(self.small):
            return self._checkpoints.zoo()

    def reference(self, zoo: Zoo) -> Reference | None:
        """Return models of the zoo's process that no generator sees; None where there are none."""
        with one_thread(self.small):
            return self._checkpoints.reference(zoo)

    @functools.cached_property
    def small(self) -> bool:
        """Whether the task's networks are trained and scored on one thread."""
        return self.device == "cpu" and self.task.small

    @functools.cached_property
    def task_code(self) -> list[str]:
        """The hash of the task's code and the versions of its libraries, which zoos and scores depend on."""
        return [self.code.of(self.task, self.task.settings()), *identity.libraries()]

    def sample(
        self,
        maker: Generator,
        name: str,
        zoo: Zoo,
        count: int,
        seed: str | None = None,
        *,
        timed: bool = False,
    ) -> Sampled:
        """Fit a generator and return its samples.

        Args:
            maker: the generator.
            name: under which the samples are kept, and seeded.
            zoo: the checkpoints that it is fitted to.
            count: number of samples; 1 of a deterministic generator.
            seed: by default the request's.
            timed: whether to sample again for the time that it takes; nobody asks for a control's.
        """
        count = 1 if maker.deterministic else count
        seed = str(self.request.seed) if seed is None else seed
        settings = foreign.hyperparameters(maker)
        facts = [VERSION, name, self.code.of(maker, settings), recorded(settings)]
        facts += [zoo.hash, seed, count, self.device, *identity.libraries()]
        facts += [self.task.identity(), self.task_code] if maker.uses() else []
        facts += [["repeats", REPEATS, REPEATING_S]] if timed else []  # files without stay apart
        path = store.home() / "generated" / f"{store.digest(facts)}.safetensors"

        def make() -> Sampled:
            with foreign.preserved(), one_thread(self.device == "cpu" and zoo.layout.dim < SMALL):
                made = self._fit_and_sample(
                    maker, zoo, count, generator(0, seed, name), path, timed
                )
            zoo.check_unchanged()
            if recorded(foreign.hyperparameters(maker)) != recorded(settings):
                raise BenchError(
                    f"{type(maker).__name__} changed its own hyperparameters while it was fitted: what it learns "
                    "belongs into attributes whose names end in _"
                )
            return made

        return store.stage(path, load_sampled, make, save_sampled, force=self.request.force)

    def _fit_and_sample(
        self,
        maker: Generator,
        zoo: Zoo,
        count: int,
        rng: torch.Generator,
        path: Path,
        timed: bool,
    ) -> Sampled:
        fit_s = self._fit(maker, zoo, rng)
        with Stopwatch(self.device) as sampling:
            vectors = maker.sample(count, rng=derive(rng, "sample"))
        foreign.check_vectors(vectors, count, zoo, f"{type(maker).__name__}.sample")
        vectors = vectors.detach().clone()  # the generator may go on with its own
        # The models that are kept have warmed the generator up, at the very number that is timed.
        repeats = tuple(self._repeats(maker, count, rng)) if timed else ()
        sample_s = statistics.median(repeats or (sampling.seconds,))
        peak = peak_memory(self.device)
        views = self._views(maker, zoo, vectors, rng)
        return Sampled(vectors, fit_s, sample_s, peak, path, repeats, views)

    def _repeats(self, maker: Generator, count: int, rng: torch.Generator) -> Iterator[float]:
        """Yield the seconds of sampling again, at most ``REPEATS`` times and until ``REPEATING_S`` have passed."""
        clock = Stopwatch(self.device)
        for repeat in range(REPEATS):
            before = clock.seconds
            with clock:
                maker.sample(count, rng=derive(rng, "sample again", repeat))
            yield clock.seconds - before
            if clock.seconds >= REPEATING_S:
                return

    def _fit(self, maker: Generator, zoo: Zoo, rng: torch.Generator) -> float:
        """Fit a generator, unless it was fitted last with the same zoo and seed; return the seconds that took."""
        if self._fitted and self._fitted[0] is maker:
            _, known, seed, seconds = self._fitted
            if (known, seed) == (zoo.hash, rng.initial_seed()):
                return seconds
        allowed = {"score": self._score(zoo), "train": self._train(zoo)}
        zoo_copy = zoo.copy()  # the generator may change it
        with Stopwatch(self.device) as fitting:
            maker.fit(
                zoo_copy, rng=derive(rng, "fit"), **{need: allowed[need] for need in maker.uses()}
            )
        self._fitted = (maker, zoo.hash, rng.initial_seed(), fitting.seconds)
        return fitting.seconds

    def _views(
        self, maker: Generator, zoo: Zoo, vectors: Float[Tensor, "n D"], rng: torch.Generator
    ) -> dict[str, Tensor]:
        """Return latents and the sampling path of a fitted generator, for figures; empty where it offers neither."""
        views: dict[str, Tensor] = {}
        if maker.has_latents:
            shown = {"original": zoo.vectors, "generated": vectors, str(NOISY): self.noisy(zoo)}
            with figures.optional("latents"):
                views |= {f"latent.{n}": self._latents(maker, rows) for n, rows in shown.items()}
        if maker.has_path:
            with figures.optional("sampling path"):
                path = maker.sampling_path(side.PATHS, side.STEPS, rng=derive(rng, "path"))
                views["path"] = foreign.check_view(path, side.PATHS, 3, "sampling_path")
        return views

    def _latents(self, maker: Generator, vectors: Float[Tensor, "n D"]) -> Tensor:
        """Return a fitted generator's latents of at most ``MODELS`` models."""
        few = vectors[torch.from_numpy(side.evenly(len(vectors), side.MODELS))]
        return foreign.check_view(maker.latents(few.clone()), len(few), 2, "latents")

    def noisy(self, zoo: Zoo) -> Float[Tensor, "n D"]:
        """Return the originals with added noise that figures show."""
        _, maker, count = next(entry for entry in self.controls(zoo) if entry[0] == NOISY)
        return self.control_models(NOISY, maker, count, zoo)

    def _score(self, zoo: Zoo) -> Score:
        sign = self.task.metric.sign
        return lambda vectors: sign * self.scorer(zoo, "train")(vectors).scores

    def _train(self, zoo: Zoo) -> Train:
        return lambda vectors, *, steps, rng: self.task.finetune(zoo, vectors, steps=steps, rng=rng)

    def evaluate(self, zoo: Zoo, vectors: Float[Tensor, "N D"], origin: Origin) -> Population:
        """Score a population on both splits; rows that are checkpoints of the zoo are not scored twice."""
        content = _content(vectors)
        facts = [VERSION, zoo.hash, content, self.task.identity(), self.task_code, self.device]
        path = store.home() / "evaluated" / f"{store.digest(facts)}.safetensors"

        def make() -> Population:
            with one_thread(self.small):
                made = self._evaluate(zoo, vectors, origin)
            zoo.check_unchanged()
            if _content(vectors) != content:
                raise BenchError(f"{type(self.task).__name__} changed the models that it scored")
            if made.weights is None:
                made = dataclasses.replace(made, weights=self.weights(zoo, vectors, made))
            return made

        load = functools.partial(load_population, origin=origin)
        return store.stage(path, load, make, save_population, force=self.request.force)

    def _evaluate(self, zoo: Zoo, vectors: Float[Tensor, "N D"], origin: Origin) -> Population:
        places = known.places(vectors, zoo.vectors)
        if vectors is not zoo.vectors and bool((places >= 0).all()):
            copied = self.evaluate(zoo, zoo.vectors, ORIGINAL).rows(places)
            return dataclasses.replace(copied, origin=origin)
        train, select_s = self._timed(zoo, vectors, "train")
        val, score_s = self._timed(zoo, vectors, "val")
        return Population(
            origin,
            val.scores.double(),
            val.wrong,
            val.features,
            train.scores.double(),
            train.extra.get("loss", torch.zeros(len(vectors), dtype=torch.float64)),
            {name: values for name, values in val.extra.items() if name != "loss"},
            val.not_finite,
            val.outputs,
            val.replicates,
            select_s=select_s,
            score_s=score_s,
        )

    def weights(
        self, zoo: Zoo, vectors: Float[Tensor, "N D"], population: Population
    ) -> Float[Tensor, "N W"]:
        """Return the parameters by which models are compared."""
        if self._comparer is None or self._comparer[0] != zoo.hash:
            self._comparer = (zoo.hash, Comparer(zoo))
        compare = self._comparer[1]
        if vectors is zoo.vectors:
            return compare.originals
        originals = self.evaluate(zoo, zoo.vectors, ORIGINAL).coordinates
        return compare(vectors, torch.cdist(population.coordinates, originals).argmin(1))

    def _timed(
        self, zoo: Zoo, vectors: Float[Tensor, "N D"], split: str
    ) -> tuple[Evaluation, float]:
        """Score models; return their evaluation and the seconds that took, without making the scorer."""
        scorer = self.scorer(zoo, split)
        with Stopwatch(self.device) as scoring:
            evaluation = scorer(vectors)
        return evaluation, scoring.seconds

    def scorer(self, zoo: Zoo, split: str) -> Scorer:
        """Return the task's scorer of a zoo's models on a split, made once; its evaluations are checked.

        A call of the scorer raises ``BenchError`` where the task breaks its contract.
        """
        key = (zoo.hash, split)
        if key not in self._scorers:
            self._scorers[key] = self.task.scorer(zoo, split)
        scorer, name = self._scorers[key], type(self.task).__name__
        replicated = self.task.metric.replicated(split)

        def checked(vectors: Float[Tensor, "N D"]) -> Evaluation:
            evaluation = scorer(vectors)
            check_evaluation(evaluation, len(vectors), name, replicated=replicated)
            return evaluation

        return checked

    def controls(self, zoo: Zoo) -> Iterator[tuple[Control, Generator, int]]:
        """Yield every control beside a zoo with its generator and number of models.

        Generators are made one at a time: a fitted one holds a copy of the checkpoints.
        """
        alignable = found_groups(zoo) is not None
        listed = protocol.controls(self.protocol, self.request.samples, alignable=alignable)
        for control, count in listed.items():
            settings = {} if control.amplitude is None else {"amplitude": control.amplitude}
            maker = prepared.make_generator(
                control.name, settings, self.request.preset, self.device
            )
            yield control, maker, count

    def control_vectors(self, zoo: Zoo) -> Iterator[tuple[Control, Float[Tensor, "n D"]]]:
        """Yield every control beside a zoo with its models."""
        for control, maker, count in self.controls(zoo):
            yield control, self.control_models(control, maker, count, zoo)

    def control_models(
        self, control: Control, maker: Generator, count: int, zoo: Zoo
    ) -> Float[Tensor, "n D"]:
        """Return a control's models; they are seeded by the zoo, so that all runs share them.

        All amplitudes of a sweep have one name, and so the same random numbers.
        """
        name = str(dataclasses.replace(control, amplitude=None))
        seen = self.aligned(zoo) if control.aligned else zoo
        return self.sample(maker, name, seen, count, zoo.hash).vectors


def run(request: Request, *, profiled: bool = False) -> tuple[Record, Path]:
    """Carry out a request; return the record and its file.

    Args:
        request: the run.
        profiled: whether to print the times of stages and keep traces in ``<results>/profile``.
    """
    if not profiled:
        return Run(request).execute()
    from bench.system.profile import Profile  # here, because few runs need it

    profile = Profile(request.results / "profile", prepared.choose_device(request.device))
    finished = Run(request, profile.stage).execute()
    profile.show()
    return finished


def nested(
    request: Request, sizes: Sequence[int], *, profiled: bool = False
) -> Iterator[tuple[Record, Path]]:
    """Carry out one run per zoo size; yield records and files.

    The largest zoo is collected once, the others are its first checkpoints.
    """
    for k in sizes:
        yield run(dataclasses.replace(request, k=k, collected=max(sizes)), profiled=profiled)


def _content(vectors: Float[Tensor, "N D"]) -> str:
    return hashlib.sha256(vectors.contiguous().numpy().data).hexdigest()
