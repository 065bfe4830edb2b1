"""Similarity: what follows from the IoU matrix, and from each model's IoU with the nearest original."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bench.metrics import draws
from bench.metrics.draws import Floats, Stream, mean_off_diagonal
from bench.records.checks.case import HALF, Case, near, outside, told
from bench.records.judged import GoodModels
from bench.records.population import Likeness
from bench.records.side import IOU_MODELS
from bench.system import seeds

ULP = 6e-4  # by which two float16 up to 1 may differ that came from numbers which differ in their last digit
PART = 0.05  # how far means of good models among those of the matrix may be from those among all


def problems(case: Case) -> Iterator[str]:
    """Where similarities are not those of the side file."""
    yield from _consistent(case)
    yield from _within(case)
    yield from _cross(case)
    yield from _controls(case)
    yield from _good(case)
    yield from _rows(case)
    yield from _triangle(case)


def _consistent(case: Case) -> Iterator[str]:
    """Yield where the similarities of the record alone contradict each other."""
    for name, population in case.populations.items():
        place, alike = f"populations.{name}.similarity", population.similarity
        if (alike.within is None) is not (population.n == 1):
            yield f"{place}.within: expected for several models, and for several alone"
        if population.role == "original":
            continue  # their similarity to the originals is that within them
        if alike.originals is None or alike.nearest is None:
            yield f"{place}: the similarity to the originals is missing"
        elif alike.originals.value > alike.nearest.value + 1e-9:
            yield f"{place}: the nearest original is less similar than originals are on average"
    copy = case.populations["copy"].similarity.nearest if "copy" in case.populations else None
    if copy and not math.isclose(copy.value, 1.0, abs_tol=1e-6):
        yield "populations.copy.similarity.nearest: a copy's similarity to the nearest original is 1"


# Means over pairs, with their intervals ------------------------------------------------------------------------------


def blocks(case: Case) -> tuple[Floats, Floats, Floats] | None:
    """IoU among originals, among generated models, and of generated models with originals."""
    found = case.arrays.get("iou")
    if found is None:
        return None
    matrix, count = found.astype(float), len(case.kept("original", IOU_MODELS))
    return matrix[:count, :count], matrix[count:, count:], matrix[count:, :count]


def _within(case: Case) -> Iterator[str]:
    """Yield where the mean similarity over pairs of one population is not that of the side file."""
    found = blocks(case)
    seed = seeds.number(case.seed, "similarity")
    for index, name in enumerate(("original", "generated")):
        population = case.populations[name]
        says = population.similarity.within
        mean = mean_off_diagonal(found[index]) if found else None
        if says and found and mean is not None:
            bounds = Stream(seeds.number(seed, name)).pair_interval(found[index])
            share = IOU_MODELS / population.n
            place = f"populations.{name}.similarity.within"
            yield from _interval(place, says, mean, bounds or (mean, mean), share)


def _cross(case: Case) -> Iterator[str]:
    """Yield where similarities of generated models with originals are not those of the side file."""
    made, k = case.populations["generated"], case.populations["original"].n
    found, nearest = blocks(case), case.arrays.get("nearest.generated")
    place, seed = "populations.generated.similarity", seeds.number(case.seed, "similarity")
    if found and made.similarity.originals:
        cross, share = found[2], min(IOU_MODELS / made.n, IOU_MODELS / k)
        whole = case.whole("original", IOU_MODELS) and case.whole("generated", IOU_MODELS)
        bounds, mean = Stream(seed).cross_interval(cross), float(cross.mean())
        says = made.similarity.originals
        yield from _interval(f"{place}.originals", says, mean, bounds, 1.0 if whole else share)
    if nearest is None or made.similarity.nearest is None:
        return
    own, stream = nearest.astype(float), Stream(seed)
    if case.whole("generated"):  # what was drawn before, for the mean with all originals
        for size in (made.n, k):
            stream.skip(size)
    says, mean = made.similarity.nearest, float(own.mean())
    bounds = stream.mean_interval(own)
    yield from _interval(f"{place}.nearest", says, mean, bounds, len(own) / made.n)


def _interval(
    place: str, says: Likeness, value: float, bounds: draws.Interval, share: float
) -> Iterator[str]:
    """A mean and its interval against those of the side file's models.

    Of a part of the models another mean and a wider interval are had: measured are means less than half of that width
    away, and widths of at least 0.95 of what the number of models makes of it.

    Args:
        place, says: what the record says.
        value, bounds: what the side file's models give.
        share: how large a part of the models these are; at least 1 for all.
    """
    width = bounds[1] - bounds[0]
    slack = HALF if share >= 1 else width + HALF
    low, high = says.bounds
    wanted = (value, min(bounds[0], value), max(bounds[1], value))
    parts = zip(("value", "low", "high"), (says.value, low, high), wanted, strict=True)
    for part, found, expected in parts:
        span = (expected - slack, expected + slack)
        yield from outside(f"{place}.{part}", found, *span, "by the side file")
    own, usual = high - low, width * math.sqrt(share)
    if share < 1 and own < 0.6 * usual - HALF:
        yield told(f"{place}: its interval", f"{own:.2g} wide", f"about {usual:.2g}")


def _controls(case: Case) -> Iterator[str]:
    """Yield where controls' similarity to the nearest original is not that of the side file."""
    for name, control in case.record.controls.items():
        nearest, says = case.arrays.get(f"nearest.{name}"), control.similarity.nearest
        if nearest is None or says is None:
            continue
        mean, slack = float(nearest.astype(float).mean()), HALF if case.whole(name) else PART
        place, why = f"populations.{name}.similarity.nearest", f"of nearest.{name}"
        yield from outside(place, says.value, mean - slack, mean + slack, why)
        if name == "copy" and (nearest != 1).any():
            yield "side file: nearest.copy has copies that are like no original"


def _rows(case: Case) -> Iterator[str]:
    """The nearest original of a model in the matrix is the one that is most like it."""
    found = blocks(case)
    if not found:
        return
    among = found[0] - 2 * np.eye(len(found[0]))
    for name, matrix in (("original", among), ("generated", found[2])):
        nearest = case.arrays.get(f"nearest.{name}")
        if nearest is None:
            continue
        rows, places = case.kept(name, IOU_MODELS), case.kept(name)
        both = np.isin(rows, places)
        ours = nearest[np.searchsorted(places, rows[both])].astype(float)
        most = matrix.max(1)[both]
        apart = np.abs(ours - most) if case.whole("original", IOU_MODELS) else most - ours
        if apart.max(initial=0) > ULP:
            yield f"side file: nearest.{name} is not the largest IoU with an original in iou"


# Good models ---------------------------------------------------------------------------------------------------------


def _good(case: Case) -> Iterator[str]:
    """The same comparisons among good models."""
    good = case.record.judge.good
    if good is None:
        return
    chosen = {
        name: case.signed(name) >= case.sign * good.min_score for name in ("original", "generated")
    }
    for name, field in (("original", "originals"), ("generated", "generated")):
        count, says = int(chosen[name].sum()), getattr(good, field)
        if count != says:
            yield told(f"judge.good.{field}", says, count, "by values and min_score")
    found = blocks(case)
    if found:
        yield from _good_means(case, good, chosen, found)


def _good_means(
    case: Case,
    good: GoodModels,
    chosen: dict[str, NDArray[np.bool_]],
    found: tuple[Floats, Floats, Floats],
) -> Iterator[str]:
    whole = all(case.whole(name, IOU_MODELS) for name in chosen)
    ours, theirs = (chosen[name][case.kept(name, IOU_MODELS)] for name in ("generated", "original"))
    among, own = found[0][theirs][:, theirs], found[1][ours][:, ours]
    cross = found[2][ours][:, theirs]
    wanted = {
        "original_original": mean_off_diagonal(among) if len(among) else None,
        "generated_generated": mean_off_diagonal(own) if len(own) else None,
        "original_generated": float(cross.mean()) if cross.size else None,
        "original_generated_max": float(cross.max(1).mean()) if cross.size else None,
    }
    for name, value in wanted.items():
        says, slack = getattr(good, name), HALF if whole else PART
        if name == "original_generated_max" and not whole:
            continue  # the nearest of all is nearer than the nearest of some
        if says is None or value is None:
            if says is not value and whole:
                yield told(f"judge.good.{name}", says, value, "by the side file")
        elif not near(says, value, relative=0, absolute=slack):
            yield told(f"judge.good.{name}", says, value, "by the side file")


# Distances -----------------------------------------------------------------------------------------------------------


def _triangle(case: Case) -> Iterator[str]:
    """1 - IoU is a distance: two models are no farther apart than both are from a third."""
    found = blocks(case)
    for name, control in case.record.controls.items():
        alike, place = control.similarity, f"populations.{name}.similarity"
        if alike.originals and alike.within:
            least = 2 * alike.originals.value - 1
            if alike.within.value < least - HALF:
                why = "all are that near to the originals"
                yield told(f"{place}.within", alike.within.value, f"at least {least:.6g}", why)
        if found and alike.originals and alike.nearest:
            low, high = _reach(case, found[0], 1 - alike.nearest.value)
            says = alike.originals.value
            yield from outside(f"{place}.originals", says, low, high, "by the nearest originals")


def _reach(case: Case, among: Floats, beyond: float) -> tuple[float, float]:
    """Return between what the mean IoU with originals lies of models that are so far from the nearest one.

    Args:
        case: the record.
        among: IoU among originals.
        beyond: 1 - IoU with the nearest original.
    """
    apart = 1 - among.mean(1)  # of each original from all
    slack = HALF if case.whole("original", IOU_MODELS) else HALF + float(np.ptp(apart))
    return 1 - apart.max() - beyond - 2 * slack, 1 - apart.min() + beyond + 2 * slack
