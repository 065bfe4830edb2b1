"""Times: what follows from other times, and from the curve of SGD's training that the side file keeps."""

import math
from collections.abc import Iterator

import numpy as np

from bench.metrics.draws import Floats
from bench.records.checks.case import FEW, Case, near, told
from bench.records.side import CURVE_POINTS, evenly

SINGLE = 1e-6  # what float32 loses of a time or a score, relatively
LONGEST = 2000  # points that a curve may have before the checkpoints
OTHERWISE = 2e-3  # by which a score may differ that a GPU computes among other models


def problems(case: Case) -> Iterator[str]:
    """Where times do not follow."""
    yield from _derived(case)
    curve = case.arrays.get("curve")
    if curve is not None:
        seconds, scores = curve.astype(float).T
        yield from _collected(case, seconds, scores)
        yield from _reached(case, seconds, scores)
    elif case.there is not None and "curve" not in case.there:
        yield from _nothing_known(case)


def _derived(case: Case) -> Iterator[str]:
    """Numbers that are made of other numbers of the record."""
    timing, record = case.record.timing, case.record
    models, each, sgd = record.generated.n, timing.sample_per_model_s, timing.sgd_s
    fixed = None if timing.collect_s is None else timing.collect_s + timing.fit_s + timing.select_s
    share = None if fixed is None else (fixed + timing.sample_s) / models
    worse = min if record.task.metric.higher_is_better else max
    wanted = {
        "sample_per_model_s": (timing.sample_s / models, "sample_s over the number of models"),
        "speedup": (_over(sgd, each), "sgd_s over sample_per_model_s"),
        "speedup_amortised": (_over(sgd, share), "sgd_s over a model's share of all times"),
        "target_score": (
            worse(record.generated.selected, record.original.best),
            "the worse of the selected and the best original score",
        ),
    }
    for name, (value, why) in wanted.items():
        if not near(getattr(timing, name), value, absolute=1e-12):
            yield told(f"timing.{name}", getattr(timing, name), value, why)
    yield from _pays(case, fixed)


def _over(seconds: float | None, share: float | None) -> float | None:
    """A quotient, where there is one."""
    return None if seconds is None or not share else seconds / share


def _pays(case: Case, fixed: float | None) -> Iterator[str]:
    """How many models until the generator has paid for itself."""
    timing = case.record.timing
    sgd, each, says = timing.sgd_s, timing.sample_per_model_s, timing.break_even_models
    models = None
    if sgd is not None and fixed is not None and sgd > each:
        models = fixed / (sgd - each)
    if models is None or not math.isfinite(models):
        if says is not None:
            yield told("timing.break_even_models", says, None, "by the other times")
        return
    # A number that is nearly whole may be rounded to either side.
    possible = {max(1, math.ceil(models * factor)) for factor in (1 - FEW, 1 + FEW)}
    if says not in possible:
        yield told("timing.break_even_models", says, max(possible), "by the other times")


def _nothing_known(case: Case) -> Iterator[str]:
    """Without a curve nothing is known of SGD."""
    if case.record.timing.sgd_s is not None:
        yield told(
            "timing.sgd_s", case.record.timing.sgd_s, None, "no curve of SGD in the side file"
        )
    if case.record.zoo.track == "imported":
        for name, value in (
            ("timing.collect_s", case.record.timing.collect_s),
            ("zoo.base_score", case.record.zoo.base_score),
        ):
            if value is not None:
                yield told(name, value, None, "the zoo was imported")


def _collected(case: Case, seconds: Floats, scores: Floats) -> Iterator[str]:
    """The curve ends with the checkpoints, one after another, and before them is the network they began with."""
    record = case.record
    collect_s, base_score = record.timing.collect_s, record.zoo.base_score
    if not near(collect_s, float(seconds[-1]) or None, relative=SINGLE):
        yield told("timing.collect_s", collect_s, float(seconds[-1]), "when the curve ends")
    if case.task and base_score is None:
        yield told("zoo.base_score", None, "a score", "the zoo was collected")
    found = list(_bases(case, scores))
    if not found:
        yield "populations.original: its values are not the last scores of the side file's curve"
    known = [score for score in found if score is not None]
    matches = (near(base_score, score, SINGLE, SINGLE) for score in known)
    if case.task and len(known) == len(found) > 0 and not any(matches):
        yield told("zoo.base_score", base_score, known[0], "of the curve")


def _bases(case: Case, scores: Floats) -> Iterator[float | None]:
    """The last score before the checkpoints', for each length that the whole curve may have had.

    Of a long curve some points are kept; its length is the one that puts the originals' scores where they are. None
    where that very point was left out.
    """
    originals = case.values("original")
    k, kept = len(originals), len(scores)
    slack = SINGLE if case.record.timing.device == "cpu" else OTHERWISE
    lengths = [kept] if kept < CURVE_POINTS else range(max(k, kept), k + kept + LONGEST)
    for length in lengths:
        points, before = evenly(length, CURVE_POINTS), length - k
        own = points >= before
        if np.allclose(scores[own], originals[points[own] - before], rtol=SINGLE, atol=slack):
            base = np.flatnonzero(points == before - 1)
            yield float(scores[base[0]]) if len(base) else None


def _reached(case: Case, seconds: Floats, scores: Floats) -> Iterator[str]:
    """SGD's time to the target score is that of the first point that reaches it.

    The best checkpoint, which is on the curve, does; so there is always a time.
    """
    sgd_s, target = case.record.timing.sgd_s, case.sign * case.record.timing.target_score
    size = case.record.protocol.val_size
    slack = 0.25 / size if case.exact else SINGLE * max(1.0, abs(target))
    maybe = np.flatnonzero(case.sign * scores >= target - slack)
    surely = np.flatnonzero(case.sign * scores >= target + (-slack if case.exact else slack))
    if not len(maybe):
        if sgd_s is not None and len(scores) < CURVE_POINTS:
            yield told("timing.sgd_s", sgd_s, None, "the curve never reaches the target score")
        return
    last = int(surely[0] if len(surely) else maybe[-1])
    possible = [float(seconds[index]) for index in maybe if index <= last]
    found = sgd_s is not None and (
        any(near(sgd_s, one, SINGLE, SINGLE) for one in possible)
        or (len(scores) == CURVE_POINTS and _between(sgd_s, seconds, last))
    )
    if not found:
        yield told("timing.sgd_s", sgd_s, possible[0], "when the curve reaches the target score")


def _between(sgd_s: float, seconds: Floats, last: int) -> bool:
    """Whether it may be the time of a point that was left out before the first that is known to reach the target."""
    earlier = seconds[: last + 1]
    taken = np.isclose(earlier[:-1], sgd_s, rtol=SINGLE, atol=SINGLE).any()
    return bool(earlier[0] < sgd_s < earlier[-1]) and not taken
