"""Checks of times against each other, and against the side file's curve of SGD: validation score by training time."""

import statistics
from collections.abc import Iterator, Sequence

import numpy as np

from bench.metrics.draws import Floats
from bench.records.checks.case import Case, mismatch, nearly_equal
from bench.records.side import CURVE_POINTS, evenly
from bench.records.speed import AMORTISED, Cost, Sgd, has_base, speed

FLOAT32_ERROR = 1e-6  # relative rounding error of a time or score in float32
LONGEST = 2000  # points that a curve may have before the first checkpoint
GPU_ERROR = 2e-3  # largest difference of a score that a GPU computes in another batch of models
# What each number follows from.
REASONS = {
    "target_score": "the worse of the selected and the best original score",
    "sample_s": "the median of sample_repeats_s",
    "sample_per_model_s": "sample_s over the number of models",
    "select_per_model_s": "select_s over the number of models",
    "speedup": "sgd_s over sample_per_model_s; null of broken models",
    "speedup_marginal": "marginal_s over what one more model costs; null of broken models",
    **{
        f"speedup_amortised_{models}": f"SGD over all that {models} models cost; null of broken models"
        for models in AMORTISED
    },
    "break_even_models": "by the other times; null of broken models",
}


def problems(case: Case) -> Iterator[str]:
    """Yield a problem for each time that does not follow from the others or from the curve."""
    yield from _derived(case)
    yield from _marginal(case)
    curve = case.arrays.get("curve")
    if curve is not None:
        seconds, scores = curve.astype(float).T
        yield from _collected(case, seconds, scores)
        yield from _time_to_target(case, seconds, scores)
    elif case.array_names is not None and "curve" not in case.array_names:
        yield from _without_curve(case)


def _derived(case: Case) -> Iterator[str]:
    """Check the numbers that are computed from other numbers of the record: speed-ups, target score, break-even."""
    timing, record = case.record.timing, case.record
    sgd = Sgd(timing.base_s, timing.sgd_s, timing.marginal_s)
    wanted = {**vars(speed(Cost.of(record), sgd, record.judge.word))}
    worse = min if record.task.metric.higher_is_better else max
    wanted["target_score"] = worse(record.generated.selected, record.original.best)
    if timing.sample_repeats_s:
        wanted["sample_s"] = statistics.median(timing.sample_repeats_s)
    for name, value in wanted.items():
        if not nearly_equal(getattr(timing, name), value, absolute=1e-12):
            yield mismatch(f"timing.{name}", getattr(timing, name), value, REASONS[name])
    if timing.sample_repeats_s is None and record.protocol.version > 1:
        yield mismatch("timing.sample_repeats_s", None, "the time of each sampling")


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


def _marginal(case: Case) -> Iterator[str]:
    """Check SGD's time from the base to the target against the other times, and that it is null where it must be."""
    timing, record = case.record.timing, case.record
    says, sgd_s, base_s = timing.marginal_s, timing.sgd_s, timing.base_s
    if not _based(case):
        if base_s is not None:
            yield mismatch("timing.base_s", base_s, None, "no checkpoint starts from a base")
        if not nearly_equal(says, sgd_s):
            yield mismatch("timing.marginal_s", says, sgd_s, "sgd_s, since there is no base")
        return
    if base_s is None or sgd_s is None:
        if says is not None:
            yield mismatch("timing.marginal_s", says, None, "base_s or sgd_s is null")
        return
    before = case.sign * ((record.zoo.base_score or 0.0) - timing.target_score)
    if before >= _slack(case) and says is not None:
        yield mismatch("timing.marginal_s", says, None, "the base reaches the target score")
    if before >= -_slack(case) and says is None:
        return
    if sgd_s > base_s:
        if not nearly_equal(says, sgd_s - base_s):
            yield mismatch("timing.marginal_s", says, sgd_s - base_s, "from base_s to sgd_s")
    elif says is None or not 0 < says <= (timing.collect_s or 0.0) - base_s:
        yield mismatch("timing.marginal_s", says, "a time", "while the checkpoints were collected")


def _based(case: Case) -> bool:
    record = case.record
    return has_base(record.zoo.track, record.task.layers, record.zoo.base_score)


def _slack(case: Case) -> float:
    """Return by how much scores may differ that are equal before rounding."""
    target = case.record.timing.target_score
    size = case.record.protocol.val_size
    return 0.25 / size if case.exact else FLOAT32_ERROR * max(1.0, abs(target))


def _collected(case: Case, seconds: Floats, scores: Floats) -> Iterator[str]:
    """Check that the curve ends with the checkpoints' scores, and that the base is the point before them."""
    record = case.record
    collect_s, base_score = record.timing.collect_s, record.zoo.base_score
    if not nearly_equal(collect_s, float(seconds[-1]) or None, relative=FLOAT32_ERROR):
        yield mismatch("timing.collect_s", collect_s, float(seconds[-1]), "when the curve ends")
    if case.task and base_score is None:
        yield mismatch("zoo.base_score", None, "a score", "the zoo was collected")
    found = list(_bases(case, seconds, scores))
    if not found:
        yield "populations.original: its values are not the last scores of the side file's curve"
    known = [point for point in found if point is not None]
    if not case.task or len(known) < len(found) or not known:
        return
    fits = [second for second, score in known if _as_float32(base_score, score)]
    if not fits:
        yield mismatch("zoo.base_score", base_score, known[0][1], "of the curve")
    elif record.timing.sample_repeats_s and _based(case):
        base_s = record.timing.base_s
        if not any(_as_float32(base_s, second) for second in fits):
            yield mismatch("timing.base_s", base_s, fits[0], "of the curve")


def _as_float32(number: float | None, rounded: float) -> bool:
    return nearly_equal(number, rounded, FLOAT32_ERROR, FLOAT32_ERROR)


def _bases(case: Case, seconds: Floats, scores: Floats) -> Iterator[tuple[float, float] | None]:
    """Yield the point before the first checkpoint, for each length that the whole curve may have had.

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
            yield (float(seconds[base[0]]), float(scores[base[0]])) if len(base) else None


def _time_to_target(case: Case, seconds: Floats, scores: Floats) -> Iterator[str]:
    """Check that SGD's times to the target score are those of the curve's first points that reach it.

    The best checkpoint is on the curve and reaches the target score, so there is always a time.
    """
    timing, whole = case.record.timing, len(scores) < CURVE_POINTS
    possible, last = _reaching(case, seconds, scores)
    if not possible:
        if timing.sgd_s is not None and whole:
            why = "the curve never reaches the target score"
            yield mismatch("timing.sgd_s", timing.sgd_s, None, why)
        return
    why = "when the curve reaches the target score"
    if not _among(timing.sgd_s, possible) and (
        whole or not _time_not_kept(timing.sgd_s, seconds, last)
    ):
        yield mismatch("timing.sgd_s", timing.sgd_s, possible[0], why)
    if whole and timing.base_s is not None and timing.marginal_s is not None:
        k = case.record.zoo.k
        later = [one - timing.base_s for one in _reaching(case, seconds[-k:], scores[-k:])[0]]
        if not _among(timing.marginal_s, later, FLOAT32_ERROR * float(seconds[-1])):
            yield mismatch("timing.marginal_s", timing.marginal_s, later[0] if later else None, why)


def _reaching(case: Case, seconds: Floats, scores: Floats) -> tuple[list[float], int]:
    """Return the times of points that may be the first to reach the target score, and the index of the last of them."""
    target, slack = case.sign * case.record.timing.target_score, _slack(case)
    maybe = np.flatnonzero(case.sign * scores >= target - slack)
    surely = np.flatnonzero(case.sign * scores >= target + (-slack if case.exact else slack))
    if not len(maybe):
        return [], -1
    last = int(surely[0] if len(surely) else maybe[-1])
    return [float(seconds[index]) for index in maybe if index <= last], last


def _among(says: float | None, possible: Sequence[float], absolute: float = FLOAT32_ERROR) -> bool:
    return any(nearly_equal(says, one, FLOAT32_ERROR, absolute) for one in possible)


def _time_not_kept(sgd_s: float | None, seconds: Floats, last: int) -> bool:
    """Return whether it may be the time of a point that was not kept, before the first that reaches the target."""
    if sgd_s is None:
        return False
    known = seconds[: last + 1]
    taken = np.isclose(known[:-1], sgd_s, rtol=FLOAT32_ERROR, atol=FLOAT32_ERROR).any()
    return bool(known[0] < sgd_s < known[-1]) and not taken
