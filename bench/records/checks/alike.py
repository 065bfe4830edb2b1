"""Checks of similarities against the side file: its IoU matrix, and each model's IoU with the nearest original."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bench.metrics import draws
from bench.metrics.draws import Floats, Stream, mean_off_diagonal
from bench.records.checks.case import FLOAT16_ERROR, Case, mismatch, nearly_equal, out_of_range
from bench.records.judged import GoodModels
from bench.records.population import Likeness, Similarity
from bench.records.side import IOU_MODELS
from bench.system import seeds

# Largest difference of two IoU that were rounded to neighbouring float16 values.
NEIGHBOURING = 6e-4
# Largest difference between a mean over the models that the side file keeps and the mean over all.
SUBSET_ERROR = 0.05


def problems(case: Case) -> Iterator[str]:
    """Yield a problem for each similarity that the side file contradicts."""
    yield from _consistent(case)
    yield from _within(case)
    yield from _nearest_other(case)
    yield from _cross(case)
    yield from _controls(case)
    yield from _good(case)
    yield from _nearest_in_matrix(case)
    yield from _triangle(case)


def _consistent(case: Case) -> Iterator[str]:
    """Yield a problem for each pair of similarities in the record that contradict each other."""
    for name, population in case.populations.items():
        place, alike = f"populations.{name}.similarity", population.similarity
        if (alike.within is None) is not (population.n == 1):
            yield f"{place}.within: expected for several models, and for several alone"
        if population.role == "original":
            yield from _of_originals(case, alike)
            continue
        if alike.originals is None or alike.nearest is None:
            yield f"{place}: the similarity to the originals is missing"
        elif alike.originals.value > alike.nearest.value + 1e-9:
            yield f"{place}: the nearest original is less similar than originals are on average"
    copy = case.populations["copy"].similarity.nearest if "copy" in case.populations else None
    if copy and not math.isclose(copy.value, 1.0, abs_tol=1e-6):
        yield "populations.copy.similarity.nearest: a copy's similarity to the nearest original is 1"


def _of_originals(case: Case, alike: Similarity) -> Iterator[str]:
    """Check the originals' own numbers: all of them are nearer to the nearest other one than to each other."""
    place = "populations.original.similarity"
    if alike.originals is not None:
        yield f"{place}.originals: an original's similarity to the originals is within"
    if case.complete and (alike.nearest is None) is not (case.record.zoo.k == 1):
        yield f"{place}.nearest: expected for several originals, and for several alone"
    if alike.nearest and alike.within and alike.nearest.value < alike.within.value - 1e-9:
        yield f"{place}: the nearest other original is less similar than originals are on average"


# Means over pairs, with their intervals ------------------------------------------------------------------------------


def blocks(case: Case) -> tuple[Floats, Floats, Floats] | None:
    """Return the IoU among originals, among generated models, and of generated models (rows) with originals."""
    found = case.arrays.get("iou")
    if found is None:
        return None
    matrix, count = found.astype(float), len(case.stored("original", IOU_MODELS))
    return matrix[:count, :count], matrix[count:, count:], matrix[count:, :count]


def _within(case: Case) -> Iterator[str]:
    """Yield a problem where the mean similarity over pairs of one population is not that of the side file."""
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


def _nearest_other(case: Case) -> Iterator[str]:
    """Yield a problem where the originals' similarity to the nearest other one is not that of the side file."""
    nearest, says = case.arrays.get("nearest.original"), case.record.original.similarity.nearest
    if nearest is None or says is None:
        return
    own, seed = nearest.astype(float), seeds.number(case.seed, "similarity")
    bounds = Stream(seeds.number(seed, "original nearest")).mean_interval(own)
    place, share = "populations.original.similarity.nearest", len(own) / case.record.zoo.k
    yield from _interval(place, says, float(own.mean()), bounds, share)


def _cross(case: Case) -> Iterator[str]:
    """Yield a problem where the similarity of generated models to originals is not that of the side file."""
    made, k = case.populations["generated"], case.populations["original"].n
    found, nearest = blocks(case), case.arrays.get("nearest.generated")
    place, seed = "populations.generated.similarity", seeds.number(case.seed, "similarity")
    if found and made.similarity.originals:
        cross, share = found[2], min(IOU_MODELS / made.n, IOU_MODELS / k)
        whole = case.all_stored("original", IOU_MODELS) and case.all_stored("generated", IOU_MODELS)
        bounds, mean = Stream(seed).cross_interval(cross), float(cross.mean())
        says = made.similarity.originals
        yield from _interval(f"{place}.originals", says, mean, bounds, 1.0 if whole else share)
    if nearest is None or made.similarity.nearest is None:
        return
    own, stream = nearest.astype(float), Stream(seed)
    # The stream has drawn the interval of the mean over all originals before.
    if case.all_stored("generated"):
        for size in (made.n, k):
            stream.skip(size)
    says, mean = made.similarity.nearest, float(own.mean())
    bounds = stream.mean_interval(own)
    yield from _interval(f"{place}.nearest", says, mean, bounds, len(own) / made.n)


def _interval(
    place: str, says: Likeness, value: float, bounds: draws.Interval, share: float
) -> Iterator[str]:
    """Compare a mean and its interval with those of the models that the side file keeps.

    Where it keeps a part of the models only, their mean differs and their interval is wider. On existing records the
    means differed by less than half of that width, and intervals were at least 0.95 times as wide as the number of
    models implies.

    Args:
        place: name of the record's field, for messages.
        says: the record's mean and interval.
        value: mean over the side file's models.
        bounds: 95 % interval of this mean.
        share: the share of the population that the side file keeps; at least 1 for all.
    """
    width = bounds[1] - bounds[0]
    slack = FLOAT16_ERROR if share >= 1 else width + FLOAT16_ERROR
    low, high = says.bounds
    wanted = (value, min(bounds[0], value), max(bounds[1], value))
    parts = zip(("value", "low", "high"), (says.value, low, high), wanted, strict=True)
    for part, found, expected in parts:
        span = (expected - slack, expected + slack)
        yield from out_of_range(f"{place}.{part}", found, *span, "by the side file")
    width_says, width_expected = high - low, width * math.sqrt(share)
    if share < 1 and width_says < 0.6 * width_expected - FLOAT16_ERROR:
        yield mismatch(
            f"{place}: its interval", f"{width_says:.2g} wide", f"about {width_expected:.2g}"
        )


def _controls(case: Case) -> Iterator[str]:
    """Yield a problem where a control's similarity to the nearest original is not that of the side file."""
    for name, control in case.record.controls.items():
        nearest, says = case.arrays.get(f"nearest.{name}"), control.similarity.nearest
        if nearest is None or says is None:
            continue
        mean, slack = (
            float(nearest.astype(float).mean()),
            FLOAT16_ERROR if case.all_stored(name) else SUBSET_ERROR,
        )
        place, why = f"populations.{name}.similarity.nearest", f"of nearest.{name}"
        yield from out_of_range(place, says.value, mean - slack, mean + slack, why)
        if name == "copy" and (nearest != 1).any():
            yield "side file: nearest.copy has copies that are like no original"


def _nearest_in_matrix(case: Case) -> Iterator[str]:
    """Check that each model's IoU with the nearest original is the largest IoU in its row of the matrix."""
    found = blocks(case)
    if not found:
        return
    among = found[0] - 2 * np.eye(len(found[0]))
    for name, matrix in (("original", among), ("generated", found[2])):
        nearest = case.arrays.get(f"nearest.{name}")
        if nearest is None:
            continue
        rows, places = case.stored(name, IOU_MODELS), case.stored(name)
        both = np.isin(rows, places)
        ours = nearest[np.searchsorted(places, rows[both])].astype(float)
        most = matrix.max(1)[both]
        apart = np.abs(ours - most) if case.all_stored("original", IOU_MODELS) else most - ours
        if apart.max(initial=0) > NEIGHBOURING:
            yield f"side file: nearest.{name} is not the largest IoU with an original in iou"


# Good models ---------------------------------------------------------------------------------------------------------


def _good(case: Case) -> Iterator[str]:
    """Check the number of good models, and the mean similarities among good models only."""
    good = case.record.judge.good
    if good is None:
        return
    chosen = {
        name: case.signed(name) >= case.sign * good.min_score for name in ("original", "generated")
    }
    for name, field in (("original", "originals"), ("generated", "generated")):
        count, says = int(chosen[name].sum()), getattr(good, field)
        if count != says:
            yield mismatch(f"judge.good.{field}", says, count, "by values and min_score")
    found = blocks(case)
    if found:
        yield from _good_means(case, good, chosen, found)


def _good_means(
    case: Case,
    good: GoodModels,
    chosen: dict[str, NDArray[np.bool_]],
    found: tuple[Floats, Floats, Floats],
) -> Iterator[str]:
    whole = all(case.all_stored(name, IOU_MODELS) for name in chosen)
    ours, theirs = (
        chosen[name][case.stored(name, IOU_MODELS)] for name in ("generated", "original")
    )
    among, own = found[0][theirs][:, theirs], found[1][ours][:, ours]
    cross = found[2][ours][:, theirs]
    wanted = {
        "original_original": mean_off_diagonal(among) if len(among) else None,
        "generated_generated": mean_off_diagonal(own) if len(own) else None,
        "original_generated": float(cross.mean()) if cross.size else None,
        "original_generated_max": float(cross.max(1).mean()) if cross.size else None,
    }
    for name, value in wanted.items():
        says, slack = getattr(good, name), FLOAT16_ERROR if whole else SUBSET_ERROR
        if name == "original_generated_max" and not whole:
            continue  # the nearest of all originals is nearer than the nearest of a part
        if says is None or value is None:
            if says is not value and whole:
                yield mismatch(f"judge.good.{name}", says, value, "by the side file")
        elif not nearly_equal(says, value, relative=0, absolute=slack):
            yield mismatch(f"judge.good.{name}", says, value, "by the side file")


# Distances -----------------------------------------------------------------------------------------------------------


def _triangle(case: Case) -> Iterator[str]:
    """Check the triangle inequality of the distance 1 - IoU between controls and originals."""
    found = blocks(case)
    for name, control in case.record.controls.items():
        alike, place = control.similarity, f"populations.{name}.similarity"
        if alike.originals and alike.within:
            least = 2 * alike.originals.value - 1
            if alike.within.value < least - FLOAT16_ERROR:
                why = "all are that near to the originals"
                yield mismatch(f"{place}.within", alike.within.value, f"at least {least:.6g}", why)
        if found and alike.originals and alike.nearest:
            low, high = _mean_bounds(case, found[0], 1 - alike.nearest.value)
            says = alike.originals.value
            yield from out_of_range(
                f"{place}.originals", says, low, high, "by the nearest originals"
            )


def _mean_bounds(case: Case, among: Floats, distance: float) -> tuple[float, float]:
    """Return the lowest and the highest mean IoU with originals that models at this distance can have.

    Args:
        case: the record.
        among: IoU among originals.
        distance: 1 - IoU with the nearest original.
    """
    apart = 1 - among.mean(1)  # mean distance of each original from all originals
    slack = (
        FLOAT16_ERROR
        if case.all_stored("original", IOU_MODELS)
        else FLOAT16_ERROR + float(np.ptp(apart))
    )
    return 1 - apart.max() - distance - 2 * slack, 1 - apart.min() + distance + 2 * slack
