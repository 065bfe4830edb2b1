"""What tests of models that are not finite share."""

import itertools
import math
import os
from pathlib import Path

import torch

from bench import plugins
from tests.standins import QUICK

NAN, INF = math.nan, math.inf
BAD = (NAN, INF, -INF)
counter = itertools.count()


def work_folder() -> Path:
    return Path(os.environ["BENCH_HOME"]) / "work" / str(next(counter))


def make(name, **changes):
    kind = plugins.load_task(name, "quick", {}).kind
    return plugins.load_task(name, "quick", {**QUICK[kind], **changes})


def spoilt(tensor: torch.Tensor, share: float, rng: torch.Generator) -> torch.Tensor:
    """The same with NaN, inf and -inf at random places."""
    which = torch.randint(len(BAD), tensor.shape, generator=rng)
    return torch.tensor(BAD)[which].where(torch.rand(tensor.shape, generator=rng) < share, tensor)


def right_by_hand(logits: list[float], label: int) -> bool:
    finite = all(math.isfinite(value) for value in logits)
    return finite and logits.index(max(logits)) == label
