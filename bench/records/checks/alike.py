"""Similarity: what follows from the IoU matrix, and from each model's IoU with the nearest original."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bench.metrics import draws
from bench.metrics.draws import Floats, Stream, mean_off_diagonal
from bench.records.checks.case import HALF, Case, near, outside, told
from bench.records.record import GoodModels, Interval
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
    """What the numbers of the record alone say."""
    alike = case.record.similarity
    wanted = set(case.record.scores.controls())
    if set(alike.controls) != wanted:
        lacks = ", ".join(sorted(wanted - set(alike.controls))) or "nothing"
        yield f"similarity.controls: not the controls of scores (it lacks {lacks})"
    if alike.original_generated.value > alike.original_generated_max.value + 1e-9:
        yield "similarity: the nearest original is less similar than originals are on average"
    for name, control in alike.controls.items():
        if control.original > control.original_max + 1e-9:
            yield f"similarity.controls.{name}: the nearest original is less similar than the average one"
        single = name in case.populations and len(case.populations[name].values) == 1
        if (control.within is None) is not single:
            yield f"similarity.controls.{name}.within: expected for several models, and for several alone"
    copy = alike.controls.get("copy")
    if copy and not math.isclose(copy.original_max, 1.0, abs_tol=1e-6):
        yield "similarity.controls.copy: a copy's similarity to the nearest original is 1"


# Means over pairs, with their intervals ------------------------------------------------------------------------------


def blocks(case: Case) -> tuple[Floats, Floats, Floats] | None:
    """IoU among originals, among generated models, and of generated models with originals."""
    found = case.arrays.get("iou")
    if found is None:
        return None
    matrix, count = found.astype(float), len(case.kept("original", IOU_MODELS))
    return matrix[:count, :count], matrix[count:, count:], matrix[count:, :count]


def _within(case: Case) -> Iterator[str]:
    """Mean IoU over pairs of one population."""
    found = blocks(case)
    seed = seeds.number(case.seed, "similarity")
    for index, name in enumerate(("original", "generated")):
        place = f"similarity.{name}_{name}"
        says: Interval | None = getattr(case.record.similarity, f"{name}_{name}")
        mean = mean_off_diagonal(found[index]) if found else None
        if (says is None) is not (len(case.populations[name].values) == 1):
            yield f"{place}: expected for several models, and for several alone"
        elif says and found and mean is not None:
            bounds = Stream(seeds.number(seed, name)).pair_interval(found[index])
            share = IOU_MODELS / len(case.populations[name].values)
            yield from _interval(place, says, mean, bounds or (mean, mean), share)


def _cross(case: Case) -> Iterator[str]:
    """Mean IoU of generated models with originals, and with the nearest."""
    alike, found = case.record.similarity, blocks(case)
    models, k = len(case.populations["generated"].values), len(case.populations["original"].values)
    stream = Stream(seeds.number(case.seed, "similarity"))
    if found:
        cross, share = found[2], min(IOU_MODELS / models, IOU_MODELS / k)
        whole = case.whole("original", IOU_MODELS) and case.whole("generated", IOU_MODELS)
        bounds = stream.cross_interval(cross)
        says = alike.original_generated
        place = "similarity.original_generated"
        yield from _interval(place, says, float(cross.mean()), bounds, 1.0 if whole else share)
    nearest = case.arrays.get("nearest.generated")
    if nearest is None:
        return
    own = nearest.astype(float)
    stream = Stream(seeds.number(case.seed, "similarity"))
    if case.whole("generated"):  # what was drawn before, for the mean with all originals
        for size in (models, k):
            stream.skip(size)
    place, says = "similarity.original_generated_max", alike.original_generated_max
    share = len(own) / models
    yield from _interval(place, says, float(own.mean()), stream.mean_interval(own), share)


def _interval(
    place: str, says: Interval, value: float, bounds: draws.Interval, share: float
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
    wanted = (value, min(bounds[0], value), max(bounds[1], value))
    for part, expected in zip(("value", "low", "high"), wanted, strict=True):
        found = getattr(says, part)
        span = (expected - slack, expected + slack)
        yield from outside(f"{place}.{part}", found, *span, "by the side file")
    own, usual = says.high - says.low, width * math.sqrt(share)
    if share < 1 and own < 0.6 * usual - HALF:
        yield told(f"{place}: its interval", f"{own:.2g} wide", f"about {usual:.2g}")


def _controls(case: Case) -> Iterator[str]:
    """Controls and their nearest originals."""
    for name, control in case.record.similarity.controls.items():
        nearest = case.arrays.get(f"nearest.{name}")
        if nearest is None:
            continue
        mean, slack = float(nearest.astype(float).mean()), HALF if case.whole(name) else PART
        place, why = f"similarity.controls.{name}.original_max", f"of nearest.{name}"
        yield from outside(place, control.original_max, mean - slack, mean + slack, why)
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
    good = case.record.similarity.good
    if good is None:
        return
    chosen = {
        name: case.signed(name) >= case.sign * good.min_score for name in ("original", "generated")
    }
    for name, field in (("original", "originals"), ("generated", "generated")):
        count, says = int(chosen[name].sum()), getattr(good, field)
        if count != says:
            yield told(f"similarity.good.{field}", says, count, "by values and min_score")
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
                yield told(f"similarity.good.{name}", says, value, "by the side file")
        elif not near(says, value, relative=0, absolute=slack):
            yield told(f"similarity.good.{name}", says, value, "by the side file")


# Distances -----------------------------------------------------------------------------------------------------------


def _triangle(case: Case) -> Iterator[str]:
    """1 - IoU is a distance: two models are no farther apart than both are from a third."""
    alike, found = case.record.similarity, blocks(case)
    for name, control in alike.controls.items():
        least, place = 2 * control.original - 1, f"similarity.controls.{name}.within"
        if control.within is not None and control.within < least - HALF:
            why = "all are that near to the originals"
            yield told(place, control.within, f"at least {least:.6g}", why)
    if not found:
        return
    apart = 1 - found[0].mean(1)  # of each original from all
    slack = HALF if case.whole("original", IOU_MODELS) else HALF + float(np.ptp(apart))
    for name, control in alike.controls.items():
        beyond = 1 - control.original_max
        low, high = 1 - apart.max() - beyond - 2 * slack, 1 - apart.min() + beyond + 2 * slack
        place = f"similarity.controls.{name}.original"
        yield from outside(place, control.original, low, high, "by the nearest originals")
