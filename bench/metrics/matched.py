"""Advantages over a control at equal novelty, computed from a side file; ``bench.metrics.novelty`` without torch.

A side file keeps each model's IoU with its nearest original as float16. Rounding moves models past each other, so
that a number cannot be had exactly; it lies between those of a few *variants*: models of one rounded novelty are taken
in the best and in the worst order, and what is judged by one step of rounding less novel, as it is, and one more.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from bench.metrics.draws import RESAMPLES, TYPICAL, Floats, Stream, percentiles

TOGETHER = 100  # isotonic fits in one call
Half = NDArray[np.float16]
Triple = tuple[float, float, float]  # value, low, high


class Models(NamedTuple):
    """Models with their scores and similarities, as a hashable key of cached results.

    Attributes:
        scores: one per model, times -1 where lower is better; a control's level by level, equally many each.
        similarities: IoU with the nearest original.
        levels: number of the control's levels.
        seed: of the bootstrap over models, or draws of a control.
    """

    scores: bytes
    similarities: bytes
    levels: int
    seed: int

    @classmethod
    def of(cls, scores: Floats, nearest: Half, seed: int) -> Self:
        """Return the models of a control (scores with one row per level), or of one row of scores."""
        rows = np.atleast_2d(scores)
        return cls(rows.tobytes(), nearest.tobytes(), len(rows), seed)

    @property
    def values(self) -> Floats:
        """The scores as numbers."""
        return np.frombuffer(self.scores)

    @property
    def nearest(self) -> Half:
        """The similarities as numbers."""
        return np.frombuffer(self.similarities, np.float16)

    @property
    def novelties(self) -> Floats:
        """The novelties: 1 - IoU with the nearest original."""
        return 1 - self.nearest.astype(float)


class Range(NamedTuple):
    """The bounds of a number and its interval, and how wide the interval is."""

    least: Triple
    most: Triple
    width: float


class Curve(NamedTuple):
    """A control's score at novelty; see ``bench.metrics.novelty.Curve``.

    Attributes:
        knots: novelty of each of its models, ascending.
        fitted: the curve there.
        resampled: that of every bootstrap resample.
    """

    knots: Floats
    fitted: Floats
    resampled: Floats

    def place(self, novelties: Floats) -> NDArray[np.intp]:
        """Return the knot that stands for each novelty: the last that is not above it, or the first."""
        return np.maximum(np.searchsorted(self.knots, novelties, side="right") - 1, 0)


@functools.lru_cache(maxsize=3)  # all records of one board share their controls
def curves(control: Models) -> tuple[Curve, ...]:
    """Return a control's lowest and highest curve: models of one rounded novelty in the worst and in the best order."""
    scores, novelties = control.values, control.novelties
    draws = len(scores) // control.levels
    counts = Stream(control.seed).resamples(draws)
    bounds = []
    for sign in (1, -1):  # with 1, models of one novelty are pooled, as in the metric
        order = np.lexsort((sign * scores, novelties))
        draw = np.tile(np.arange(draws), control.levels)[order]
        fitted = _isotonic(scores[order], np.ones((1, len(order))))[0]
        bounds.append(Curve(novelties[order], fitted, _isotonic(scores[order], counts[:, draw])))
    return tuple(bounds)


def _isotonic(scores: Floats, weights: Floats) -> Floats:
    """Fit non-increasing least squares for every row of weights; models without weight take the value before them.

    One call does many fits: each starts so far below the one before it that models of two fits are never pooled.
    """
    apart = 2 * float(np.ptp(scores)) + 1
    fits = []
    for low in range(0, len(weights), TOGETHER):
        rows = weights[low : low + TOGETHER]
        there, offsets = rows > 0, apart * np.arange(len(rows))[:, None]
        lowered = (scores - offsets)[there]
        fitted = isotonic_regression(lowered, weights=rows[there], increasing=False).x
        counts = there.cumsum(1)
        first = np.concatenate([[0], counts[:-1, -1].cumsum()])[:, None]
        fits.append(fitted[first + np.maximum(counts - 1, 0)] + offsets)
    return np.concatenate(fits)


def inside(judged: Models, control: Models) -> tuple[int, int]:
    """Count the models that are certainly, and those that are possibly, no more novel than the control's most novel."""
    reach = control.novelties.max()
    return int((judged.novelties < reach).sum()), int((judged.novelties <= reach).sum())


@functools.lru_cache(
    maxsize=12
)  # the fine-tuned originals are the same in all records of one board
def advantage(judged: Models, control: Models, count: int, *, typical: bool = False) -> Range:
    """Return the bounds of the mean advantage over a control.

    Args:
        judged: the generated models.
        control: the control's models.
        count: how many generated models lie within the control's range of novelty, at least 1.
        typical: whether to take the 40th percentile instead of the mean.
    """
    table = np.array(list(_variants(judged, control, count, typical=typical)))
    width = float(np.median(table[:, 2] - table[:, 1]))
    table[:, 1] = table[:, :2].min(1)
    table[:, 2] = table[:, ::2].max(1)
    return Range(_triple(table.min(0)), _triple(table.max(0)), width)


def _triple(row: Floats) -> Triple:
    value, low, high = row.tolist()
    return value, low, high


def _variants(judged: Models, control: Models, count: int, *, typical: bool) -> Iterator[Triple]:
    middle = _typical if typical else _mean
    for rows in _members(judged, control, count):
        scores, near = judged.values[rows], judged.nearest[rows]
        resampled = Stream(judged.seed).integers(count, RESAMPLES, count)
        steps = (np.nextafter(near, np.float16(2)), near, np.nextafter(near, np.float16(-1)))
        places = {
            (index, place.tobytes()): (curve, place)  # steps that lead to the same knots count once
            for index, curve in enumerate(curves(control))
            for place in (curve.place(1 - step.astype(float)) for step in steps)
        }
        for curve, place in places.values():
            above = scores - curve.fitted[place]
            again = np.take_along_axis(curve.resampled, place[resampled], axis=1)
            np.subtract(scores[resampled], again, out=again)
            yield (float(middle(above[None])[0]), *percentiles(middle(again)))


def _members(judged: Models, control: Models, count: int) -> Sequence[NDArray[np.intp]]:
    """Return one or two sets of ``count`` indices: certain models, and the worst or the best of the uncertain ones."""
    novelties, reach = judged.novelties, control.novelties.max()
    sure, maybe = np.flatnonzero(novelties < reach), np.flatnonzero(novelties == reach)
    more = count - len(sure)
    maybe = maybe[np.argsort(judged.values[maybe], kind="stable")]
    chosen = [maybe[:more]]
    if 0 < more < len(maybe):
        chosen.append(maybe[len(maybe) - more :])
    return [np.sort(np.concatenate([sure, few])) for few in chosen]


def _mean(values: Floats) -> Floats:
    means: Floats = values.mean(1)
    return means


def _typical(values: Floats) -> Floats:
    """Return the quantile ``TYPICAL`` of every row; faster than ``np.quantile``, as two ranks are enough."""
    position = TYPICAL * (values.shape[1] - 1)
    low = int(position)
    high = min(low + 1, values.shape[1] - 1)
    ranked = np.partition(values, (low, high), axis=1)
    quantiles: Floats = ranked[:, low] + (position - low) * (ranked[:, high] - ranked[:, low])
    return quantiles
