"""Bounds of the IoU that follow from numbers of errors: for each pair of models, and for means over populations.

Where a score is a share of units, each model's number of errors is known, and an IoU is a fraction of two whole
numbers. The mean number of common errors of two populations follows from the share of each that gets each unit wrong.
If common errors were the same share of the smaller error set in every pair, the mean IoU would follow. In fact they
are less evenly shared, as where some pairs are copies of one original, and then the mean IoU is larger, at most as
large as if all error sets were equal or disjoint.
"""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bench.metrics.draws import Floats
from bench.records.checks.case import Case, out_of_range
from bench.records.side import IOU_MODELS, MODELS, evenly

# Largest accepted difference of the mean IoU from the estimate. Measured in 2,600 comparisons of 111 records: at most
# 0.013, and 0.019 where the models' own numbers of errors are not known.
KNOWN, GUESSED = 0.02, 0.04
SMALL = 0.5  # further difference, divided by the mean number of errors of a pair
# Divided by K: accepted part of the way from the estimate to the upper bound, for copies of one original.
CLUMPED = 5
SIGMAS = 4  # standard errors that a part of the units may differ from all units
# Different numbers of errors among originals, above which the nearest one is not checked.
MOST_COUNTS = 2000


def problems(case: Case) -> Iterator[str]:
    """Yield a problem for each similarity that the numbers of errors make impossible."""
    if case.exact:
        yield from _pairs(case)
        yield from _nearest(case)
    yield from _means(case)


def errors(case: Case, name: str) -> NDArray[np.int64]:
    """Return the number of units that each model gets wrong, where scores are shares of units."""
    return np.round((1 - case.values(name)) * case.record.protocol.val_size).astype(np.int64)


def possible_iou(
    iou: NDArray[np.float16], a: NDArray[np.int64], b: NDArray[np.int64], units: int
) -> NDArray[np.bool_]:
    """Return whether each IoU, rounded to float16, is possible for error sets of these sizes."""
    total = a + b
    rough = iou.astype(float) * total / (1 + iou.astype(float))
    possible = np.zeros(np.broadcast(iou, total).shape, dtype=bool)
    for common in (np.floor(rough), np.ceil(rough), np.floor(rough) - 1, np.ceil(rough) + 1):
        either = np.maximum(total - common, 1)
        ratio = (common.astype(np.float32) / either.astype(np.float32)).astype(np.float16)
        inside = (common <= np.minimum(a, b)) & (common >= np.maximum(0, total - units))
        possible |= inside & (ratio == iou)
    # The IoU of two empty sets is 1.
    found: NDArray[np.bool_] = np.where(total == 0, iou == 1, possible)
    return found


def _pairs(case: Case) -> Iterator[str]:
    matrix = case.arrays.get("iou")
    if matrix is None:
        return
    sizes = [errors(case, n)[case.stored(n, IOU_MODELS)] for n in ("original", "generated")]
    every = np.concatenate(sizes)
    fine = possible_iou(matrix, every[:, None], every[None], case.record.protocol.val_size)
    if not fine.all():
        row, column = np.argwhere(~fine)[0]
        pair = f"{every[row]} and {every[column]} errors"
        count = f"{int((~fine).sum())} of {fine.size} entries of iou cannot be"
        yield f"side file: {count}, such as {matrix[row, column]:.4g} of models with {pair}"


def _nearest(case: Case) -> Iterator[str]:
    originals = np.unique(errors(case, "original"))
    if len(originals) > MOST_COUNTS:
        return
    for name in case.populations:
        nearest = case.arrays.get(f"nearest.{name}")
        if nearest is None:
            continue
        counts = errors(case, name)[case.stored(name)]
        size = case.record.protocol.val_size
        fine = possible_iou(nearest[:, None], counts[:, None], originals[None], size).any(1)
        if not fine.all():
            worst = int(np.argmin(fine))
            which = f"{nearest[worst]:.4g} of a model with {counts[worst]} errors"
            yield f"side file: nearest.{name} cannot be with any original, such as {which}"


# On average ----------------------------------------------------------------------------------------------------------


def _means(case: Case) -> Iterator[str]:
    for name, population in case.populations.items():
        place, alike = f"populations.{name}.similarity", population.similarity
        if alike.originals is not None:
            yield from _mean(
                case, f"{place}.originals.value", alike.originals.value, name, "original"
            )
        if alike.within is not None:
            yield from _mean(case, f"{place}.within.value", alike.within.value, name, name)


def _mean(case: Case, place: str, says: float, ours: str, theirs: str) -> Iterator[str]:
    """Compare the mean IoU of two populations, or within one, with the numbers of errors."""
    a, b = case.wrong_share(ours), case.wrong_share(theirs)
    if a is None or b is None or case.units is None:
        return
    count = case.populations[ours].n
    if ours != theirs:
        common = float((a * b).sum())
    elif count > 1:
        common = float(((count * a) ** 2 - count * a).sum() / (count * (count - 1)))
    else:
        return
    usual, most = _estimated_mean(
        _error_counts(case, ours, a), _error_counts(case, theirs, b), common, within=ours == theirs
    )
    clumped = min(1.0, CLUMPED / case.record.zoo.k) * max(0.0, most - usual)
    kept, total = case.units
    either = max(1.0, float(a.sum() + b.sum()) - common)
    slack = (KNOWN if case.exact else GUESSED) + SMALL / either
    slack += SIGMAS * math.sqrt(0.25 / either * (1 - kept / total))
    why = "by what they get wrong"
    yield from out_of_range(
        place, says, max(0.0, usual - slack), min(1.0, usual + clumped + slack), why
    )


def _error_counts(case: Case, name: str, wrong: Floats) -> Floats:
    """Return the number of kept units that models get wrong: each model, or some evenly spaced in score."""
    count = case.populations[name].n
    few = evenly(count, MODELS)
    if case.exact:
        sizes = 1 - np.sort(case.values(name))[few]
    else:
        known = {}
        for statistic, place in (("best", 0), ("median", count // 2), ("worst", count - 1)):
            right = case.right(name, statistic)
            if right is not None:
                known[place] = float((~right).sum())
        if not known:
            return np.full(len(few), wrong.sum())
        places = sorted(known)
        sizes = np.interp(few, places, [known[place] for place in places])
    mean = float(sizes.mean())
    scaled: Floats = sizes * (float(wrong.sum()) / mean if mean > 0 else 1.0)
    return scaled


def _estimated_mean(a: Floats, b: Floats, common: float, *, within: bool) -> tuple[float, float]:
    """Return the mean IoU if common errors are the same share of the smaller set in all pairs, and its upper bound.

    Args:
        a, b: sizes of the error sets of two populations.
        common: mean number of common errors over pairs.
        within: whether they are one population, in which no model is a pair with itself.
    """
    pairs = ~np.eye(len(a), len(b), dtype=bool) if within else np.ones((len(a), len(b)), dtype=bool)
    smaller = np.minimum(a[:, None], b[None])[pairs]
    total = (a[:, None] + b[None])[pairs]
    mean = float(smaller.mean())
    both = min(1.0, common / mean) * smaller if mean > 0 else smaller
    either = total - both
    usual = np.divide(both, either, out=np.ones_like(both), where=either > 0)
    most = np.divide(both, total - smaller, out=np.ones_like(both), where=total > smaller)
    return float(usual.mean()), float(most.mean())
