"""Checks of distances in weight space, within the bounds that the side file's parameters of a few models give."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

from bench.metrics.draws import Floats
from bench.records import versions
from bench.records.checks.case import Case, mismatch, out_of_range
from bench.records.side import HEAT_MODELS, HEAT_PARAMETERS

FLOAT16_RELATIVE = 2**-12  # relative rounding error of a vector in float16
ERRORS = 1.5  # standard errors that the mean of the kept originals may be from the mean of all
# Largest difference of ``toward_mean`` between eight models and all; measured: 0.07.
SUBSET_ERROR = 0.1
MOST_RATIO = 3  # largest accepted ratio of the distance to its estimate; measured: at most 0.5


def problems(case: Case) -> Iterator[str]:
    """Yield a problem for each distance that the weights make impossible."""
    if case.record.judge.rule is None:
        return
    found = _distances(case)
    if versions.of(case.record)["origin"] > 1:
        yield from _beside_reference(case)
        if found and not case.twinned:  # the side file's weights are not aligned
            yield from _toward_mean(case, found)
            yield from _ratio_to_reference(case, found)
        return
    yield from _nulls(case)
    if found:
        yield from _toward_mean(case, found)
        yield from _ratio(case, found)


def _beside_reference(case: Case) -> Iterator[str]:
    """Check that the distance over the reference's is there where there is a reference, and there alone."""
    origin, there = case.record.judge.origin, "reference" in case.populations
    if origin.nearest_l2_ratio is not None and not there:
        why = "there is no reference"
        yield mismatch("judge.origin.nearest_l2_ratio", origin.nearest_l2_ratio, None, why)
    if origin.nearest_l2_ratio_aligned is not None:
        why = "of schema 1 alone"
        says = origin.nearest_l2_ratio_aligned
        yield mismatch("judge.origin.nearest_l2_ratio_aligned", says, None, why)


def _ratio_to_reference(case: Case, found: "Distances") -> Iterator[str]:
    """Check the distance to the nearest original, relative to that of the reference.

    The kept originals are at least as far from a model as all are, and those of a trajectory several steps apart.
    """
    says, held = case.record.judge.origin.nearest_l2_ratio, case.arrays.get("weights.reference")
    if says is None or held is None:
        return
    originals = case.arrays["weights.original"].astype(float)
    usual = float(np.median(cdist(held.astype(float), originals).min(1)))
    steps = max(1.0, (case.record.zoo.k - 1) / (HEAT_MODELS - 1))
    most = float(np.median(found.nearest)) + found.rounding
    high = MOST_RATIO * steps * most / max(usual - found.rounding, 1e-30)
    why = "by the weights in the side file"
    yield from out_of_range("judge.origin.nearest_l2_ratio", says, 0.0, high, why)


class Distances(NamedTuple):
    """Euclidean distances of at most eight generated models, in the parameters that the side file keeps.

    Attributes:
        nearest: to the nearest of at most eight originals, one a model.
        mean: to the mean of these originals, one a model.
        usual: median distance of these originals to the nearest other; None for a single original.
        rounding: largest change of a distance by float16.
        error: largest distance between the mean of all originals and the mean of these.
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
        rounding=FLOAT16_RELATIVE * float(lengths.max()),
        error=ERRORS * spread * math.sqrt(max(0.0, 1 / few - 1 / k)),
    )


def _toward_mean(case: Case, found: Distances) -> Iterator[str]:
    """Check ``toward_mean``, the position between the nearest original (0) and the originals' mean (1).

    The distance to the nearest original is at most that to the nearest of those that are kept, and the mean of all
    originals lies near the mean of those.
    """
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
    everything = case.record.zoo.d <= HEAT_PARAMETERS and case.all_stored("generated", HEAT_MODELS)
    slack = 1e-3 if everything and k <= HEAT_MODELS else SUBSET_ERROR
    low, high = max(0.0, low - slack), min(1.0, high + slack)
    yield from out_of_range(
        "judge.origin.toward_mean", says, low, high, "by the weights in the side file"
    )
    made = case.record.generator
    average = made.name == "average" and case.generator is not None and not made.aligned
    if average and found.error > off and says < 0.99:
        yield mismatch("judge.origin.toward_mean", says, 1.0, "of the average itself")


def _ratio(case: Case, found: Distances) -> Iterator[str]:
    """Check the distance to the nearest original, relative to that between originals.

    The kept originals of a trajectory are several steps apart; those of independent runs are as far apart as all.
    """
    says, k = case.record.judge.origin.nearest_l2_ratio, case.record.zoo.k
    if says is None or found.usual is None or case.record.zoo.track == "imported":
        return
    steps = max(1.0, (k - 1) / (HEAT_MODELS - 1))
    most = float(np.median(found.nearest)) + found.rounding
    least = max(found.usual - found.rounding, 1e-30)
    yield from out_of_range(
        "judge.origin.nearest_l2_ratio",
        says,
        0.0,
        MOST_RATIO * steps * most / least,
        "by the weights in the side file",
    )


def _nulls(case: Case) -> Iterator[str]:
    """Check that distances are null where they are not defined, and there where they are."""
    origin, zoo, task = case.record.judge.origin, case.record.zoo, case.record.task
    nearest = case.arrays.get("nearest.original")
    coincide = nearest is not None and float(np.median(nearest)) == 1
    if origin.nearest_l2_ratio is None and zoo.k > 1 and not coincide:
        yield mismatch(
            "judge.origin.nearest_l2_ratio", None, "a distance", f"of {zoo.k} different originals"
        )
    if origin.nearest_l2_ratio is not None and zoo.k == 1:
        yield mismatch(
            "judge.origin.nearest_l2_ratio", origin.nearest_l2_ratio, None, "of a single original"
        )
    says, possible = origin.nearest_l2_ratio_aligned, case.alignable
    if possible is None:
        return
    if says is not None and not possible:
        yield mismatch(
            "judge.origin.nearest_l2_ratio_aligned",
            says,
            None,
            f"units of {task.arch}'s {task.layers}",
        )
    if says is None and possible and not coincide:
        yield mismatch(
            "judge.origin.nearest_l2_ratio_aligned",
            None,
            "a distance",
            f"units of whole {task.arch}s",
        )
