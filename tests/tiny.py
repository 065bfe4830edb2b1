"""A task and a generator that take no time, and that do on command what processes do: be slow, fail and die.

The commands are files in the store: ``die/<stage>`` kills the process of the next such stage, ``slow`` holds the
seconds that a zoo takes. What was made is counted in ``made/``.
"""

import dataclasses
import os
import signal
import time
import uuid
from typing import Any, ClassVar

import torch

from bench.contract import Compared, Evaluation, Generator, Metric, Scorer, Task
from bench.contract.zoo import Layout, Zoo
from bench.errors import BenchError
from bench.system.randomness import derive, generator
from bench.system.store import home

LAYOUT = Layout(("weight", "bias"), ((4,), (2,)))
UNITS = 30


def obey(stage: str) -> None:
    """Count the stage, and die in it if that is asked for."""
    order = home() / "die" / stage
    if order.exists():
        order.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    made = home() / "made"
    made.mkdir(parents=True, exist_ok=True)
    (made / f"{stage}-{uuid.uuid4().hex}").touch()


@dataclasses.dataclass(eq=False)
class Tiny(Task):
    """Vectors around one of a fixed direction; a unit is wrong where a fixed projection has the wrong sign."""

    kind: ClassVar[str] = "classification"
    metric: ClassVar[Metric] = Metric("accuracy", scale=100, mean_over_units=True)
    compared: ClassVar[Compared] = Compared("projection")
    beside_base: ClassVar[tuple[str, ...]] = ("layers",)

    arch: str = "line"
    layers: str = "all"
    spread: float = 0.3
    broken: bool = False

    def prepare(self, *, rng: torch.Generator) -> None:
        obey("base")

    def collect(self, k: int, *, rng: torch.Generator, work: Any) -> Zoo:
        obey("collect")
        slow = home() / "slow"
        if slow.exists():
            time.sleep(float(slow.read_text()))
        if self.broken:
            raise BenchError("training diverged")
        noise = torch.stack(
            [torch.randn(LAYOUT.dim, generator=derive(rng, row)) for row in range(k)]
        )
        vectors = 1 + self.spread * noise
        seconds = torch.arange(1, k + 1) / 10
        scores = self.scorer(Zoo(vectors, LAYOUT), "val")(vectors.clone()).scores.tolist()
        curve = tuple(zip(seconds.tolist(), scores, strict=True))
        settings = {"track": "trajectory"}
        return Zoo(vectors, LAYOUT, {}, tuple(scores), curve, k / 10, 0.5, settings)

    def scorer(self, zoo: Zoo, split: str) -> Scorer:
        directions = torch.randn(UNITS, LAYOUT.dim, generator=generator(0, split))
        wanted = directions.sum(1) > 0

        def score(vectors: torch.Tensor) -> Evaluation:
            wrong = (vectors @ directions.T > 0) != wanted
            loss = (vectors - 1).square().mean(1).double().nan_to_num(nan=torch.inf)
            return Evaluation(1 - wrong.double().mean(1), wrong, {"loss": loss})

        return score

    def finetune(self, zoo: Zoo, vectors: torch.Tensor, *, steps: int, rng: torch.Generator):
        obey("controls")  # twice a stage: sampling is warmed up
        return vectors.lerp(torch.ones(LAYOUT.dim), 0.1)

    def identity(self) -> dict[str, Any]:
        return {**self.settings(), "dataset": "tiny", "dataset_hash": "0" * 64}

    def size(self, split: str) -> int:
        if split == "train":
            obey("record")  # nothing else asks for it
        return UNITS


@dataclasses.dataclass
class Jitter(Generator):
    """A checkpoint with noise."""

    amplitude: float = 0.1

    def fit(self, zoo, *, rng):
        obey("fit")
        self.vectors_ = zoo.vectors
        return self

    def sample(self, n, *, rng):
        rows = torch.randint(len(self.vectors_), (n,), generator=rng)
        noise = torch.randn(n, LAYOUT.dim, generator=rng)
        return self.vectors_[rows] + self.amplitude * noise
