"""Checks of times against each other, and against the side file's curve of SGD: validation score by training time."""

import math
from collections.abc import Iterator

import numpy as np

from bench.metrics.draws import Floats
from bench.records.checks.case import FLOAT64_ERROR, Case, mismatch, nearly_equal
from bench.records.side import CURVE_POINTS, evenly

FLOAT32_ERROR = 1e-6  # relative rounding error of a time or score in float32
LONGEST = 2000  # points that a curve may have before the first checkpoint
GPU_ERROR = 2e-3  # largest difference of a score that a GPU computes in another batch of models


def problems(case: Case) -> Iterator[str]:
    """Yield a problem for each time that does not follow from the others or from the curve."""
    yield from _derived(case)
    curve = case.arrays.get("curve")
    if curve is not None:
        seconds, scores = curve.astype(float).T
        yield from _collected(case, seconds, scores)
        yield from _time_to_target(case, seconds, scores)
    elif case.array_names is not None and "curve" not in case.array_names:
        yield from _without_curve(case)


def _derived(case: Case) -> Iterator[str]:
    """Check the numbers that are computed from other numbers of the record: speedups, target score, break-even."""
    timing, record = case.record.timing, case.record
    models, each, sgd = record.generated.n, timing.sample_per_model_s, timing.sgd_s
    fixed = None if timing.collect_s is None else timing.collect_s + timing.fit_s + timing.select_s
    share = None if fixed is None else (fixed + timing.sample_s) / models
    worse = min if record.task.metric.higher_is_better else max
    wanted = {
        "sample_per_model_s": (timing.sample_s / models, "sample_s over the number of models"),
        "speedup": (_quotient(sgd, each), "sgd_s over sample_per_model_s"),
        "speedup_amortised": (_quotient(sgd, share), "sgd_s over a model's share of all times"),
        "target_score": (
            worse(record.generated.selected, record.original.best),
            "the worse of the selected and the best original score",
        ),
    }
    for name, (value, why) in wanted.items():
        if not nearly_equal(getattr(timing, name), value, absolute=1e-12):
            yield mismatch(f"timing.{name}", getattr(timing, name), value, why)
    yield from _break_even(case, fixed)


def _quotient(seconds: float | None, share: float | None) -> float | None:
    """Return a quotient; None where a term is None or the divisor is 0."""
    return None if seconds is None or not share else seconds / share


def _break_even(case: Case, fixed: float | None) -> Iterator[str]:
    """Check the number of models from which on the generator takes less time than SGD."""
    timing = case.record.timing
    sgd, each, says = timing.sgd_s, timing.sample_per_model_s, timing.break_even_models
    models = None
    if sgd is not None and fixed is not None and sgd > each:
        models = fixed / (sgd - each)
    if models is None or not math.isfinite(models):
        if says is not None:
            yield mismatch("timing.break_even_models", says, None, "by the other times")
        return
    # A number that is nearly whole may be rounded to either side.
    possible = {
        max(1, math.ceil(models * factor)) for factor in (1 - FLOAT64_ERROR, 1 + FLOAT64_ERROR)
    }
    if says not in possible:
        yield mismatch("timing.break_even_models", says, max(possible), "by the other times")


def _without_curve(case: Case) -> Iterator[str]:
    """Check that a record without SGD's curve has no times of SGD."""
    if case.record.timing.sgd_s is not None:
        yield mismatch(
            "timing.sgd_s", case.record.timing.sgd_s, None, "no curve of SGD in the side file"
        )
    if case.record.zoo.track == "imported":
        for name, value in (
            ("timing.collect_s", case.record.timing.collect_s),
            ("zoo.base_score", case.record.zoo.base_score),
        ):
            if value is not None:
                yield mismatch(name, value, None, "the zoo was imported")


def _collected(case: Case, seconds: Floats, scores: Floats) -> Iterator[str]:
    """Check that the curve ends with the checkpoints' scores, and that ``base_score`` is the score before them."""
    record = case.record
    collect_s, base_score = record.timing.collect_s, record.zoo.base_score
    if not nearly_equal(collect_s, float(seconds[-1]) or None, relative=FLOAT32_ERROR):
        yield mismatch("timing.collect_s", collect_s, float(seconds[-1]), "when the curve ends")
    if case.task and base_score is None:
        yield mismatch("zoo.base_score", None, "a score", "the zoo was collected")
    found = list(_base_scores(case, scores))
    if not found:
        yield "populations.original: its values are not the last scores of the side file's curve"
    known = [score for score in found if score is not None]
    matches = (nearly_equal(base_score, score, FLOAT32_ERROR, FLOAT32_ERROR) for score in known)
    if case.task and len(known) == len(found) > 0 and not any(matches):
        yield mismatch("zoo.base_score", base_score, known[0], "of the curve")


def _base_scores(case: Case, scores: Floats) -> Iterator[float | None]:
    """Yield the score before the first checkpoint, for each length that the whole curve may have had.

    Of a long curve the side file keeps some points. Possible lengths are those for which the originals' scores are
    where they must be. None is yielded where the point before the first checkpoint was not kept.
    """
    originals = case.values("original")
    k, kept = len(originals), len(scores)
    slack = FLOAT32_ERROR if case.record.timing.device == "cpu" else GPU_ERROR
    lengths = [kept] if kept < CURVE_POINTS else range(max(k, kept), k + kept + LONGEST)
    for length in lengths:
        points, before = evenly(length, CURVE_POINTS), length - k
        collected = points >= before
        if np.allclose(
            scores[collected], originals[points[collected] - before], rtol=FLOAT32_ERROR, atol=slack
        ):
            base = np.flatnonzero(points == before - 1)
            yield float(scores[base[0]]) if len(base) else None


def _time_to_target(case: Case, seconds: Floats, scores: Floats) -> Iterator[str]:
    """Check that SGD's time to the target score is that of the curve's first point that reaches it.

    The best checkpoint is on the curve and reaches the target score, so there is always a time.
    """
    sgd_s, target = case.record.timing.sgd_s, case.sign * case.record.timing.target_score
    size = case.record.protocol.val_size
    slack = 0.25 / size if case.exact else FLOAT32_ERROR * max(1.0, abs(target))
    maybe = np.flatnonzero(case.sign * scores >= target - slack)
    surely = np.flatnonzero(case.sign * scores >= target + (-slack if case.exact else slack))
    if not len(maybe):
        if sgd_s is not None and len(scores) < CURVE_POINTS:
            yield mismatch("timing.sgd_s", sgd_s, None, "the curve never reaches the target score")
        return
    last = int(surely[0] if len(surely) else maybe[-1])
    possible = [float(seconds[index]) for index in maybe if index <= last]
    found = sgd_s is not None and (
        any(nearly_equal(sgd_s, one, FLOAT32_ERROR, FLOAT32_ERROR) for one in possible)
        or (len(scores) == CURVE_POINTS and _time_not_kept(sgd_s, seconds, last))
    )
    if not found:
        yield mismatch(
            "timing.sgd_s", sgd_s, possible[0], "when the curve reaches the target score"
        )


def _time_not_kept(sgd_s: float, seconds: Floats, last: int) -> bool:
    """Return whether it may be the time of a point that was not kept, before the first that reaches the target."""
    known = seconds[: last + 1]
    taken = np.isclose(known[:-1], sgd_s, rtol=FLOAT32_ERROR, atol=FLOAT32_ERROR).any()
    return bool(known[0] < sgd_s < known[-1]) and not taken
