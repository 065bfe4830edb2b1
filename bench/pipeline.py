"""The main job: collect -> fit -> sample -> score -> compare -> record. Every stage is cached by its content."""

import dataclasses
import datetime
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bench import compare, plugins, store
from bench.environment import describe
from bench.errors import BadRequest, BenchError
from bench.progress import say, track
from bench.randomness import derive, generator
from bench.record import (
    Artifact,
    Artifacts,
    Generator,
    Novelty,
    Protocol,
    Record,
    Scores,
    Task,
    Timing,
)
from bench.record import Zoo as ZooFacts
from bench.timing import Stopwatch, peak_memory
from bench.zoo import Zoo

VERSION = 1  # of the protocol: records of different versions are never ranked together
NOISE = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # amplitudes of the noise control
SELECTION = "highest train score, ties by lowest train loss, then the first"


@dataclasses.dataclass(frozen=True)
class Request:
    """What a run is asked to do; the command line's options.

    Attributes:
        task, generator: names, or ``module:Class``.
        settings: hyperparameters of the generator; those named ``task.<name>`` are settings of the task.
        k, samples: checkpoints in the zoo, models to generate.
        seed: of the generator's fit and samples; ``zoo_seed`` of the checkpoints.
        zoo: file of a zoo to use instead of collecting one.
        results: folder that the record is written to.
        force: make every stage again.
    """

    task: str
    generator: str
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    k: int = 200
    samples: int = 100
    seed: int = 0
    zoo_seed: int = 0
    preset: str = "quick"
    device: str = "auto"
    data_dir: str | None = None
    zoo: Path | None = None
    results: Path = Path("results")
    force: bool = False

    def __post_init__(self) -> None:
        for name in ("k", "samples"):
            if getattr(self, name) < 1:
                raise BadRequest(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.preset not in ("quick", "paper"):
            raise BadRequest(f"unknown preset '{self.preset}': expected quick or paper")


def choose_device(name: str) -> str:
    """The device to compute on; "auto" takes a GPU where there is one.

    Raises:
        BadRequest: a device that is not there.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(name)
    except RuntimeError:
        raise BadRequest(f"unknown device '{name}': expected auto, cpu, cuda or cuda:N") from None
    if kind.type == "cuda" and (kind.index or 0) >= torch.cuda.device_count():
        raise BadRequest(
            f"device '{name}' is not there ({torch.cuda.device_count()} CUDA devices seen): "
            "choose --device cpu"
        )
    if kind.type not in ("cpu", "cuda"):
        raise BadRequest(f"device '{name}' is not supported: expected auto, cpu, cuda or cuda:N")
    return name


@dataclasses.dataclass(frozen=True)
class Sampled:
    """Vectors that a generator made, and what that took."""

    vectors: Float[Tensor, "n D"]
    fit_s: float
    sample_s: float
    peak_memory_bytes: int
    path: Path


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """One population on both splits. ``select_s`` and ``score_s``: scoring it on train and on validation."""

    val: Float[Tensor, " N"]
    train: Float[Tensor, " N"]
    train_loss: Float[Tensor, " N"]
    wrong: Bool[Tensor, "N M"]
    select_s: float
    score_s: float


class Run:
    """One request being carried out; each stage reads what is in the store, or makes it.

    Attributes:
        task, generator: the plugins, with their settings.
        device: where tensors live.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.device = choose_device(request.device)
        own = {n: v for n, v in request.settings.items() if not n.startswith("task.")}
        of_task = {n.removeprefix("task."): v for n, v in request.settings.items() if n not in own}
        self.task = load_task(request, of_task, self.device)
        self.generator = make_generator(request.generator, own, request.preset, self.device)

    def execute(self) -> tuple[Record, Path]:
        """All stages; returns the record and the file it was written to."""
        results = self.request.results
        with store.atomic(results / ".writable") as probe:  # fail before the work, not after it
            probe.touch()
        (results / ".writable").unlink(missing_ok=True)
        zoo, zoo_path = self.zoo()
        say(f"fit {self.request.generator} and sample {self.request.samples} models")
        sampled = self.sample(self.generator, self.request.generator, zoo, self.request.samples)
        say("score originals and generated models")
        evaluated = {"original": self.evaluate(zoo, zoo.vectors)}
        evaluated["generated"] = self.evaluate(zoo, sampled.vectors)
        say("score the controls")
        for name, control, count in track(self._controls(), "controls"):
            made = self.sample(control, name.partition(" ")[0], zoo, count, control=True)
            evaluated[name] = self.evaluate(zoo, made.vectors)
        record = self._record(zoo, zoo_path, sampled, evaluated)
        return record, record.write(results)

    # Stages --------------------------------------------------------------------------------------------------------

    def zoo(self) -> tuple[Zoo, Path]:
        """The checkpoints: given, cached or collected."""
        if self.request.zoo:
            zoo = Zoo.load(self.request.zoo)
            return zoo.head(self.request.k), self.request.zoo
        k, seed = self.request.k, self.request.zoo_seed
        identity = {**self.task.identity(), "k": k, "seed": seed, "device": self.device}
        for scoring_only in ("train_size",):
            identity.pop(scoring_only, None)
        path = store.home() / "zoos" / f"{store.digest([VERSION, identity])}.safetensors"

        def make() -> Zoo:
            say(f"collect {k} checkpoints")
            collected: Zoo = self.task.collect(k, rng=generator(seed, "zoo"))
            return collected

        zoo = store.stage(path, Zoo.load, make, Zoo.save, force=self.request.force)
        return zoo, path

    def sample(
        self, maker: Any, name: str, zoo: Zoo, count: int, *, control: bool = False
    ) -> Sampled:
        """Fit a generator and sample from it. Controls are seeded by the zoo, so that all runs share them."""
        count = 1 if maker.deterministic else count
        seed = zoo.hash if control else str(self.request.seed)
        identity = [VERSION, name, plugins.source_hash(type(maker)), maker.hyperparameters()]
        identity += [zoo.hash, seed, count, self.device]
        identity += [self.task.identity()] if maker.needs else []
        path = store.home() / "generated" / f"{store.digest(identity)}.safetensors"

        def make() -> Sampled:
            return self._fit_and_sample(maker, zoo, count, generator(0, seed, name), path)

        return store.stage(path, _load_sampled, make, _save_sampled, force=self.request.force)

    def _fit_and_sample(
        self, maker: Any, zoo: Zoo, count: int, rng: torch.Generator, path: Path
    ) -> Sampled:
        allowed = {"score": self._score(zoo), "train": self._train(zoo)}
        with Stopwatch(self.device) as fitting:
            maker.fit(zoo, rng=derive(rng, "fit"), **{need: allowed[need] for need in maker.needs})
        maker.sample(1, rng=derive(rng, "warm up"))
        with Stopwatch(self.device) as sampling:
            vectors = maker.sample(count, rng=derive(rng, "sample"))
        check_vectors(vectors, count, zoo, type(maker).__name__)
        return Sampled(vectors, fitting.seconds, sampling.seconds, peak_memory(self.device), path)

    def _score(self, zoo: Zoo) -> Any:
        sign = 1.0 if self.task.higher_is_better else -1.0
        return lambda vectors: sign * self.task.evaluate(zoo, vectors, "train").scores

    def _train(self, zoo: Zoo) -> Any:
        return lambda vectors, *, steps, rng: self.task.finetune(zoo, vectors, steps=steps, rng=rng)

    def evaluate(self, zoo: Zoo, vectors: Float[Tensor, "N D"]) -> Evaluated:
        """Score a population on both splits; rows that are checkpoints of the zoo are not scored twice."""
        content = hashlib.sha256(vectors.contiguous().numpy()).hexdigest()
        identity = [VERSION, zoo.hash, content, self.task.identity(), self.device]
        path = store.home() / "evaluated" / f"{store.digest(identity)}.safetensors"
        return store.stage(
            path,
            _load_evaluated,
            lambda: self._evaluate(zoo, vectors),
            _save_evaluated,
            force=self.request.force,
        )

    def _evaluate(self, zoo: Zoo, vectors: Float[Tensor, "N D"]) -> Evaluated:
        known = {row.numpy().tobytes(): index for index, row in enumerate(zoo.vectors)}
        sources = [known.get(row.numpy().tobytes()) for row in vectors]
        if vectors is not zoo.vectors and None not in sources:
            originals = self.evaluate(zoo, zoo.vectors)
            rows = torch.tensor(sources)
            return dataclasses.replace(
                originals,
                **{n: getattr(originals, n)[rows] for n in ("val", "train", "train_loss", "wrong")},
            )
        with Stopwatch(self.device) as selecting:
            train = self.task.evaluate(zoo, vectors, "train")
        with Stopwatch(self.device) as scoring:
            val = self.task.evaluate(zoo, vectors, "val")
        loss = train.extra.get("loss", torch.zeros(len(vectors), dtype=torch.float64))
        return Evaluated(
            val.scores.double(), train.scores.double(), loss, val.wrong, selecting.seconds,
            scoring.seconds,
        )  # fmt: skip

    def _controls(self) -> list[tuple[str, Any, int]]:
        """Name, generator and number of models of every control; the costly ones have a quarter of the models."""
        samples = self.request.samples
        few = max(1, samples // 4)
        sizes = {"finetune": few}
        controls = [
            (
                name,
                make_generator(name, {}, self.request.preset, self.device),
                sizes.get(name, samples),
            )
            for name in plugins.CONTROLS
            if name != "noise"
        ]
        for amplitude in NOISE:
            settings = {"amplitude": amplitude}
            noise = make_generator("noise", settings, self.request.preset, self.device)
            controls.append((f"noise {amplitude:g}", noise, few))
        return controls

    # The record ----------------------------------------------------------------------------------------------------

    def _record(
        self, zoo: Zoo, zoo_path: Path, sampled: Sampled, evaluated: dict[str, Evaluated]
    ) -> Record:
        request, task, settings = self.request, self.task, self.task.identity()
        sizes = {f"{split}_size": task.size(split) for split in ("train", "val")}
        facts = Task(
            name=request.task, kind=task.kind, dataset=settings["dataset"],
            dataset_hash=settings["dataset_hash"], arch=settings["arch"], layers=settings["layers"],
            metric=task.metric, higher_is_better=task.higher_is_better, units=task.units,
            settings=settings,
        )  # fmt: skip
        comparable = [
            VERSION,
            facts.name,
            facts.dataset_hash,
            facts.arch,
            facts.layers,
            facts.metric,
        ]
        key = store.digest([*comparable, zoo.hash, len(zoo), request.samples, sizes])
        hyperparameters = json.loads(json.dumps(self.generator.hyperparameters()))
        source = plugins.source_hash(type(self.generator))
        identity = [key, request.generator, source, hyperparameters, request.seed, self.device]
        scores, similarity, novelty = compare.compare(
            {name: (e.val, e.train, e.train_loss, e.wrong) for name, e in evaluated.items()},
            sampled.vectors, zoo.vectors, higher_is_better=task.higher_is_better,
            rng=generator(0, key, "bootstrap"),
        )  # fmt: skip
        return Record(
            schema=1,
            id=store.digest(identity),
            created=datetime.datetime.now(datetime.UTC).replace(microsecond=0),
            command=command(request),
            key=key,
            task=facts,
            zoo=ZooFacts(
                hash=zoo.hash,
                track=str(zoo.settings.get("track", "imported")),
                k=len(zoo),
                d=zoo.layout.dim,
                seed=None if request.zoo else request.zoo_seed,
                base_score=zoo.base_score,
            ),  # fmt: skip
            generator=Generator(
                name=request.generator,
                source=source,
                hyperparameters=hyperparameters,
                uses_scores="score" in self.generator.needs,
                uses=list(self.generator.needs),
            ),  # fmt: skip
            protocol=Protocol(
                version=VERSION,
                preset=request.preset,
                samples=request.samples,
                seed=request.seed,
                selection=SELECTION,
                **sizes,
            ),  # fmt: skip
            scores=scores,
            similarity=similarity,
            novelty=novelty,
            timing=self._timing(zoo, sampled, evaluated["generated"], scores),
            environment=describe(self.device),
            artifacts=Artifacts(zoo=_artifact(zoo_path), generated=_artifact(sampled.path)),
        )

    def _timing(self, zoo: Zoo, sampled: Sampled, generated: Evaluated, scores: Scores) -> Timing:
        count = len(sampled.vectors)
        return compare.timing(
            device=torch.cuda.get_device_name(self.device) if self.device != "cpu" else "cpu",
            curve=zoo.curve,
            collect_s=zoo.collect_s or None,
            fit_s=sampled.fit_s,
            sample_s=sampled.sample_s,
            samples=count,
            select_s=generated.select_s,
            score_s=generated.score_s,
            scores=scores,
            higher_is_better=self.task.higher_is_better,
            peak_memory_bytes=sampled.peak_memory_bytes,
        )


def run(request: Request) -> tuple[Record, Path]:
    """Carry out a request; returns the record and its file."""
    return Run(request).execute()


def load_task(request: Request, settings: Mapping[str, Any], device: str) -> Any:
    """The task with its preset and settings, ready for a device."""
    target, _, _ = plugins.tasks().get(request.task, (request.task, {}, ""))
    task = plugins.load_task(request.task, {}) if ":" in target else None
    preset = type(task).presets.get(request.preset, {}) if task is not None else {}
    task = plugins.load_task(request.task, {**preset, **settings})
    task.device, task.data_dir = device, request.data_dir
    return task


def make_generator(name: str, settings: Mapping[str, Any], preset: str, device: str) -> Any:
    """The generator with its preset and settings, ready for a device."""
    cls = plugins.load_generator(name)
    values = {**cls.presets.get(preset, {}), **settings}
    made = plugins.construct(cls, values, f"hyperparameter of {name}")
    made.device = device
    return made


def check_vectors(vectors: Any, count: int, zoo: Zoo, name: str) -> None:
    """Refuse samples that are no n x D float32 matrix of finite numbers.

    Raises:
        BenchError: the generator broke its contract.
    """
    expected = (count, zoo.layout.dim)
    if (
        not isinstance(vectors, Tensor)
        or vectors.shape != expected
        or vectors.dtype != torch.float32
    ):
        got = (
            f"{tuple(vectors.shape)} {vectors.dtype}"
            if isinstance(vectors, Tensor)
            else type(vectors)
        )
        raise BenchError(f"{name}.sample returned {got}, expected float32 of shape {expected}")
    broken = int((~vectors.isfinite().all(dim=1)).sum())
    if broken:
        raise BenchError(f"{name}.sample returned {broken} of {count} vectors with NaN or inf")


def command(request: Request) -> str:
    """The command line that repeats the run; folders and the device are the reader's own and left out."""
    parts = [f"python -m bench run --task {request.task} --generator {request.generator}"]
    if request.zoo:
        parts.append(f"--zoo {request.zoo.name}")
    defaults = {field.name: field.default for field in dataclasses.fields(Request)}
    for name in ("k", "samples", "seed", "zoo_seed", "preset"):
        if getattr(request, name) != defaults[name]:
            parts.append(f"--{name.replace('_', '-')} {getattr(request, name)}")
    direct = ("arch", "layers", "track")
    for name, value in request.settings.items():
        option = name.removeprefix("task.")
        if name.startswith("task.") and option in direct:
            parts.append(f"--{option} {value}")
        elif name == "task.pretrained":
            parts.append(f"--pretrained {Path(str(value)).name}")
        else:
            parts.append(f"--set {name}={value}")
    return " ".join(parts)


def _artifact(path: Path) -> Artifact:
    return Artifact(file=path.name, sha256=store.file_hash(path))


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts of a stage's file."""
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {})["facts"])
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise BenchError(f"the cached stage {path} is damaged ({error})") from error


def _write(tensors: dict[str, Tensor], facts: dict[str, Any], path: Path) -> None:
    with store.atomic(path) as temporary:
        save_file(tensors, temporary, {"facts": json.dumps(facts)})


def _load_sampled(path: Path) -> Sampled:
    tensors, facts = _read(path)
    return Sampled(tensors["vectors"], **facts, path=path)


def _save_sampled(sampled: Sampled, path: Path) -> None:
    facts = {name: getattr(sampled, name) for name in ("fit_s", "sample_s", "peak_memory_bytes")}
    _write({"vectors": sampled.vectors.contiguous()}, facts, path)


def _load_evaluated(path: Path) -> Evaluated:
    tensors, facts = _read(path)
    return Evaluated(**tensors, **facts)


def _save_evaluated(evaluated: Evaluated, path: Path) -> None:
    fields = dataclasses.asdict(evaluated)
    tensors = {n: v.contiguous() for n, v in fields.items() if isinstance(v, Tensor)}
    _write(tensors, {n: v for n, v in fields.items() if n not in tensors}, path)
