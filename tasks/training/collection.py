"""How the checkpoints of a problem are collected: a base, then steps of one run from it, or independent runs."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bench.contract.zoo import Layout, Zoo
from bench.errors import BadRequest
from bench.system.progress import track
from bench.system.randomness import derive, scoped
from bench.system.store import digest, home, stage
from tasks.networks.layers import select
from tasks.training.folding import neutral_statistics
from tasks.training.part import Part, take
from tasks.training.problem import Problem
from tasks.training.rows import Rows, load_tensors, save_tensors
from tasks.training.runs import Runs, TrainPart
from tasks.training.tracks import Curve, seeds, train_base, trajectory

TRACKS = ("trajectory", "seeds")
REFERENCE_RUNS = 25  # of a trajectory's reference that are trained before they are kept


@dataclasses.dataclass(frozen=True)
class Collection:
    """Collects checkpoints of one problem, and trains models a few steps further.

    Attributes:
        problem: what is trained.
        runs: trains independent runs.
        layers: which parameters are generated, a pattern of ``tasks.networks.layers``.
        track: "trajectory" (consecutive steps of one run, the rest frozen) or "seeds" (independent runs).
        every: optimizer steps between two checkpoints of a trajectory.
        subset_lr: constant learning rate of the generated part on a trajectory, and in ``finetune``; None takes the
            recipe's peak rate for normalization parameters, and a tenth of it where there are others.
        pretrained: None, "released" or a file of weights to start from.
        keeps_pretrained: whether pretrained weights are the base as they are, instead of where its training starts.
        facts: plain data that decides the base, but for its seed.
        force: whether to train a base again that is in the store.
    """

    problem: Problem
    runs: Runs
    layers: str
    track: str
    every: int
    subset_lr: float | None
    pretrained: str | None
    keeps_pretrained: bool
    facts: Mapping[str, Any]
    force: bool

    def collect(
        self,
        k: int,
        *,
        rng: torch.Generator,
        work: Path,
        settings: Mapping[str, Any],
        scores: Callable[[Zoo], Sequence[float]],
    ) -> Zoo:
        """Train K checkpoints: consecutive steps of one run, or independent runs.

        Args:
            k: how many.
            rng: the source of every random draw.
            work: folder of unfinished work.
            settings: what the zoo tells of how it was collected.
            scores: the validation scores of a zoo's checkpoints.
        """
        names = select(self.problem.blank(), self.layers)  # a bad pattern costs no training
        whole = self.track == "seeds" and self.layers == "all"
        # Of the base of whole networks only its curve is used: SGD's, in one run.
        model, curve = self.base(rng)
        layout = Layout.of({name: model.get_parameter(name) for name in names})
        rows = Rows(work, k, layout.dim)
        key = derive(rng, self.track)
        if self.track == "trajectory":
            part = Part(self.problem, model, layout)
            training = part.training(key, self._subset_lr(layout))
            trajectory(training, part.tensors, layout, rows, every=self.every)
        else:
            together = self.runs.together(layout, whole=whole)
            train = self._seeds(None if whole else model, layout)
            seeds(train, rows, key, together=together, device=self.problem.device)
        if whole:
            neutral_statistics(model)
        frozen = {n: t.cpu() for n, t in model.state_dict().items() if n not in layout.names}
        zoo = Zoo(rows.vectors.clone(), layout, frozen, settings=dict(settings))
        return self._timed(zoo, curve, rows.seconds, scores(zoo))

    def reference(
        self, zoo: Zoo, count: int, *, rng: torch.Generator, work: Path
    ) -> Float[Tensor, "m D"]:
        """Train runs that no generator sees: further seeds, or along a trajectory runs from the zoo's first checkpoint.

        Those end after numbers of steps that are spread evenly up to the length of the zoo.
        """
        rows = Rows(work, count, zoo.layout.dim)
        base = self.base_model(zoo)
        if self.track == "seeds":
            whole = self.layers == "all"
            train = self._seeds(None if whole else base, zoo.layout)
            together = self.runs.together(zoo.layout, whole=whole)
            seeds(train, rows, rng, together=together, device=self.problem.device)
            return rows.vectors.clone()
        ends = [max(1, len(zoo) * self.every * (run + 1) // count) for run in range(count)]
        train_part = self.runs.part(base, zoo.layout)
        for low in track(range(rows.done, count, REFERENCE_RUNS), "train the reference"):
            own = slice(low, min(low + REFERENCE_RUNS, count))
            keys = [derive(rng, run) for run in range(own.start, own.stop)]
            starts = zoo.vectors[:1].expand(len(keys), -1)
            lr = self._subset_lr(zoo.layout)
            vectors = train_part(starts, keys, steps=ends[own], lr=lr)
            rows.keep(vectors, [0.0] * len(keys), {})
        return rows.vectors.clone()

    def _timed(
        self, zoo: Zoo, curve: Curve, seconds: Float[Tensor, " K"], scores: Sequence[float]
    ) -> Zoo:
        """Return the zoo with its checkpoints' scores, SGD's curve, and how long it all took."""
        elapsed = curve[-1][0] + (seconds if self.track == "trajectory" else seconds.cumsum(0))
        return dataclasses.replace(
            zoo,
            scores=tuple(scores),
            curve=(*curve, *zip(elapsed.tolist(), scores, strict=True)),
            collect_s=float(elapsed[-1]),
            base_score=curve[-1][1],
        )

    def _seeds(
        self, base: nn.Module | None, layout: Layout
    ) -> Callable[[Sequence[torch.Generator]], Float[Tensor, "S D"]]:
        """Return what trains runs from starts of their own: whole networks without a base, else the generated part."""
        part: TrainPart | None = None

        def train(keys: Sequence[torch.Generator]) -> Float[Tensor, "S D"]:
            nonlocal part
            starts = [self.problem.fresh(self.pretrained, derive(key, "start")) for key in keys]
            if base is None:
                return self.runs.whole(starts, layout, keys)
            part = part or self.runs.part(base, layout)  # not before a run is left to train
            tensors = [[start.get_parameter(n) for n in layout.names] for start in starts]
            return part(torch.stack([take(of_start) for of_start in tensors]), keys)

        return train

    def finetune(
        self, zoo: Zoo, vectors: Float[Tensor, "N D"], *, steps: int, rng: torch.Generator
    ) -> Float[Tensor, "N D"]:
        """Take steps of the recipe's optimizer at ``subset_lr`` from each vector, on batches of its own."""
        keys = [derive(rng, index) for index in range(len(vectors))]
        train = self.runs.part(self.base_model(zoo), zoo.layout)
        return train(vectors, keys, steps=steps, lr=self._subset_lr(zoo.layout))

    def _subset_lr(self, layout: Layout) -> float:
        """Return the learning rate of the generated part: matrices and kernels bear less than scales and shifts."""
        factor = 1.0 if all(len(shape) == 1 for shape in layout.shapes) else 0.1
        return self.subset_lr or factor * self.problem.recipe.lr

    def initial(self, zoo: Zoo, count: int, *, rng: torch.Generator) -> Float[Tensor, "r D"]:
        """Return the generated part of networks at random initialisation."""
        vectors = []
        for index in range(count):
            with scoped(derive(rng, index)):
                model = self.problem.build(None)
            parameters = {name: model.get_parameter(name).detach() for name in zoo.layout.names}
            vectors.append(zoo.layout.flatten(parameters))
        return torch.stack(vectors)

    def base_model(self, zoo: Zoo) -> nn.Module:
        """Return the base of a zoo, with its first checkpoint in place.

        Raises:
            BadRequest: the zoo is of another network.
        """
        model = self.problem.blank()
        try:
            model.load_state_dict({**zoo.base, **zoo.layout.unflatten(zoo.vectors[0])})
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise BadRequest(f"the zoo does not fit {self.problem.name}: {reason}") from None
        return model.to(self.problem.device)

    def base(self, rng: torch.Generator) -> tuple[nn.Module, Curve]:
        """Return the trained network that a subset is frozen into, and SGD's curve on the way to it.

        It is shared by every choice of layers, track and K; an interrupted training goes on from its last epoch.
        """
        identity = {**self.facts, "seed": rng.initial_seed(), "device": self.problem.device}
        path = home() / "bases" / f"{digest(identity)}.safetensors"
        state = path.with_suffix(".partial")
        make = functools.partial(self._train_base, derive(rng, "base"), state)
        tensors = stage(path, load_tensors, make, save_tensors, force=self.force)
        state.unlink(missing_ok=True)
        curve = [(seconds, score) for seconds, score in tensors.pop("curve").tolist()]
        model = self.problem.blank()
        model.load_state_dict(tensors)
        return model.to(self.problem.device), curve

    def _train_base(self, key: torch.Generator, state: Path) -> dict[str, Tensor]:
        problem = self.problem
        model = problem.fresh(self.pretrained, key)
        score = functools.partial(problem.score, model)
        if self.pretrained and self.keeps_pretrained:
            curve = [(0.0, score())]
        else:
            curve = train_base(model, problem.training(model, key), score, state)
        return {"curve": torch.tensor(curve, dtype=torch.float64), **model.state_dict()}
