"""Distances in weight space, as far as a few parameters of a few models tell them."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

from bench.contract import registry
from bench.metrics.draws import Floats
from bench.records.checks.case import Case, outside, told
from bench.records.side import HEAT_MODELS, HEAT_PARAMETERS

ROUNDED = 2**-12  # of a vector's length: what float16 loses
ERRORS = 1.5  # standard errors by which the mean of a few originals may be from that of all
PART = 0.1  # by which ``toward_mean`` of eight models may be from that of all; measured: 0.07
TIMES = (
    3  # how often what a step is estimated to be it may be; measured: half of the estimate at most
)
FROZEN = (
    "last-norms:",
    "norms:",
    "conv:first",
    "shortcut",
    "head",
)  # choices that freeze a part of these networks
LARGEST = 2**28  # values of a zoo of which distances are aligned


def problems(case: Case) -> Iterator[str]:
    """Where distances are none that the weights allow."""
    if case.record.judge.rule is None:
        return
    yield from _nulls(case)
    found = _distances(case)
    if found:
        yield from _toward_mean(case, found)
        yield from _ratio(case, found)


class Distances(NamedTuple):
    """Of eight generated models at most, in the parameters that are kept.

    Attributes:
        nearest: to the nearest of eight originals.
        mean: to the mean of these originals.
        usual: median distance of these originals to the nearest other; None for a single one.
        rounding: by which rounding may change any distance.
        error: by which the mean of all originals may be from that of these.
    """

    nearest: Floats
    mean: Floats
    usual: float | None
    rounding: float
    error: float


def _distances(case: Case) -> Distances | None:
    arrays = [case.arrays.get(f"weights.{name}") for name in ("original", "generated")]
    if arrays[0] is None or arrays[1] is None:
        return None
    originals, generated = (array.astype(float) for array in arrays if array is not None)
    centre, k, few = originals.mean(0), case.record.zoo.k, len(originals)
    spread = math.sqrt(((originals - centre) ** 2).sum() / max(1, few - 1))
    among = cdist(originals, originals) + np.diag(np.full(few, np.inf))
    lengths = np.linalg.norm(np.concatenate([originals, generated]), axis=1)
    return Distances(
        nearest=cdist(generated, originals).min(1),
        mean=cdist(generated, centre[None])[:, 0],
        usual=float(np.median(among.min(1))) if few > 1 else None,
        rounding=ROUNDED * float(lengths.max()),
        error=ERRORS * spread * math.sqrt(max(0.0, 1 / few - 1 / k)),
    )


def _toward_mean(case: Case, found: Distances) -> Iterator[str]:
    """Nearer to one of eight originals is nearer to some original; and the mean of all is near that of eight."""
    says, k = case.record.judge.origin.toward_mean, case.record.zoo.k
    if says is None:
        return
    off = found.rounding
    far = found.nearest + off
    high = float(
        np.median(far / np.maximum(far + np.maximum(found.mean - off - found.error, 0), 1e-30))
    )
    near = np.maximum(found.nearest - off, 0)
    low = float(np.median(near / (near + found.mean + off + 1e-30))) if k <= HEAT_MODELS else 0.0
    everything = case.record.zoo.d <= HEAT_PARAMETERS and case.whole("generated", HEAT_MODELS)
    slack = 1e-3 if everything and k <= HEAT_MODELS else PART
    low, high = max(0.0, low - slack), min(1.0, high + slack)
    yield from outside(
        "judge.origin.toward_mean", says, low, high, "by the weights in the side file"
    )
    made = case.record.generator
    average = made.name == "average" and case.generator is not None and not made.aligned
    if average and found.error > off and says < 0.99:
        yield told("judge.origin.toward_mean", says, 1.0, "of the average itself")


def _ratio(case: Case, found: Distances) -> Iterator[str]:
    """Along a trajectory eight originals are so many steps apart; originals of independent runs are all as far."""
    says, k = case.record.judge.origin.nearest_l2_ratio, case.record.zoo.k
    if says is None or found.usual is None or case.record.zoo.track == "imported":
        return
    steps = max(1.0, (k - 1) / (HEAT_MODELS - 1))
    most = float(np.median(found.nearest)) + found.rounding
    least = max(found.usual - found.rounding, 1e-30)
    yield from outside(
        "judge.origin.nearest_l2_ratio",
        says,
        0.0,
        TIMES * steps * most / least,
        "by the weights in the side file",
    )


def _nulls(case: Case) -> Iterator[str]:
    """Distances are null where there is none, and nowhere else."""
    origin, zoo, task = case.record.judge.origin, case.record.zoo, case.record.task
    nearest = case.arrays.get("nearest.original")
    coincide = nearest is not None and float(np.median(nearest)) == 1
    if origin.nearest_l2_ratio is None and zoo.k > 1 and not coincide:
        yield told(
            "judge.origin.nearest_l2_ratio", None, "a distance", f"of {zoo.k} different originals"
        )
    if origin.nearest_l2_ratio is not None and zoo.k == 1:
        yield told(
            "judge.origin.nearest_l2_ratio", origin.nearest_l2_ratio, None, "of a single original"
        )
    says, possible = origin.nearest_l2_ratio_aligned, _alignable(case)
    if case.task is None or possible is None:
        return
    if says is not None and not possible:
        yield told(
            "judge.origin.nearest_l2_ratio_aligned",
            says,
            None,
            f"units of {task.arch}'s {task.layers}",
        )
    if says is None and possible and not coincide:
        yield told(
            "judge.origin.nearest_l2_ratio_aligned",
            None,
            "a distance",
            f"units of whole {task.arch}s",
        )


def _alignable(case: Case) -> bool | None:
    """Return whether hidden units of a record's networks can be permuted; None where that is not clear."""
    task, zoo = case.record.task, case.record.zoo
    frozen = any(part.startswith(FROZEN) for part in task.layers.split(","))
    architecture = registry.architectures().get(task.arch)
    tracks = None if architecture is None else architecture.alignable
    if tracks == () or frozen or zoo.k == 1 or zoo.k * zoo.d > LARGEST:
        return False
    if tracks is None or zoo.track not in ("trajectory", "seeds"):
        return None
    if zoo.track not in tracks:
        return False
    return True if task.layers == "all" else None
