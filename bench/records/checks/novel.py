"""Checks of novelty: the advantages over the controls, the share of models beyond them, and the verdict."""

import itertools
import math
from collections.abc import Iterator

import numpy as np

from bench.metrics import matched
from bench.metrics.matched import Models, Range
from bench.records import rule1, versions
from bench.records.checks.case import FLOAT16_ERROR, Case, mismatch, nearly_equal, out_of_range
from bench.records.fields import Interval
from bench.records.judged import Advantage, Judge
from bench.system import seeds

CONTROLS = ("noise", "interpolation", "gaussian")
# Largest accepted distance from the range of ``bench.metrics.matched``, in widths of the interval; measured on 111
# records: at most 0.04.
WIDTHS = 0.15
# Share of a score of 1, or of the originals' median distance: for intervals of width 0.
SCORE_ERROR = 2e-4
SUBSET_WIDTHS = 1.5  # as WIDTHS, where the side file keeps a part of the models only
# Errors; two different sets of fewer have an IoU that float16 does not round to 1.
EXACT_ERRORS = 2000
# Largest accepted difference of a share or median, where a part of the models is kept.
SUBSET_ERROR = 0.1


def problems(case: Case) -> Iterator[str]:
    """Yield a problem for each number or word on novelty that the rule or the side file contradicts."""
    judge = case.record.judge
    yield from _rule(case, judge)
    yield from _collapsed(case, judge)
    if set(judge.advantages) != set(CONTROLS):
        yield mismatch("judge.advantages", sorted(judge.advantages), sorted(CONTROLS))
        return
    if judge.rule is None or not _whole_record(case):
        return  # ``_rule`` and other checks report it; the verdict cannot be computed
    yield from _novelties(case, judge)
    yield from _advantages(case, judge)
    if judge.rule == rule1.RULE:
        word = rule1.of(case.record)
        if judge.word != word:
            yield mismatch("judge.word", judge.word, word, "by the rule on its numbers")
        yield from _sees_training(case, judge)


def _whole_record(case: Case) -> bool:
    """Return whether the record has all populations and similarities that the verdict is computed from."""
    controls = case.record.controls
    named = {one.name for one in controls.values()}
    alike = all(one.similarity.originals for one in controls.values())
    return {*rule1.LIKENED, "finetune"} <= named and alike


def _rule(case: Case, judge: Judge) -> Iterator[str]:
    """Check that a record with a side file has the version of the rule and all numbers that the rule gives."""
    advantages, given = judge.advantages, ("interpolation", "gaussian")
    ruled: dict[str, object] = {
        "median_novelty": judge.median_novelty,
        "word": judge.word,
        "sees_training": judge.sees_training,
        "origin.toward_mean": judge.origin.toward_mean,
        **{f"advantages.{n}.beyond": advantages[n].beyond for n in given if n in advantages},
    }
    maybe = [judge.origin.nearest_l2_ratio_aligned, *(one.typical for one in advantages.values())]
    if judge.rule is None:
        there = [value for value in (*ruled.values(), *maybe) if value is not None]
        if there or case.record.artifacts.side:
            yield mismatch("judge.rule", None, rule1.RULE, "the record is younger than the rule")
        return
    if judge.rule != rule1.RULE:
        del ruled["sees_training"]
        if judge.sees_training is not None:
            why = "rule 1 alone gives it"
            yield mismatch("judge.sees_training", judge.sees_training, None, why)
    for name, value in ruled.items():
        if value is None:
            yield mismatch(f"judge.{name}", None, "a value", "the rule always gives one")


def _collapsed(case: Case, judge: Judge) -> Iterator[str]:
    """Check ``judge.collapsed``: by the variety beside the reference, and in version 1 by similarities."""
    if versions.of(case.record)["collapsed"] > 1:
        judged = judge.against_reference.get("generated")
        variety, why = judged and judged.variety, "by the interval of the variety"
        collapsed = variety.collapsed if variety else None
    else:
        within, usual = (case.populations[n].similarity.within for n in ("generated", "original"))
        collapsed = None if within is None or usual is None else within.value > usual.value
        why = "by the two similarities within"
    if judge.collapsed is not collapsed:
        yield mismatch("judge.collapsed", judge.collapsed, collapsed, why)


def _novelties(case: Case, judge: Judge) -> Iterator[str]:
    """Yield a problem where the median novelty is not that of the side file."""
    nearest = case.arrays.get("nearest.generated")
    if nearest is not None and judge.median_novelty is not None:
        median = float(np.median(1 - nearest.astype(float)))
        slack = FLOAT16_ERROR if case.all_stored("generated") else SUBSET_ERROR
        low, high, why = median - slack, median + slack, "of nearest.generated"
        yield from out_of_range("judge.median_novelty", judge.median_novelty, low, high, why)


# Advantages ----------------------------------------------------------------------------------------------------------


def _members(case: Case, control: str) -> list[str]:
    """Return the names of the populations that make up a control, such as all levels of noise."""
    controls = case.record.controls.items()
    return [key for key, one in controls if one.name == control and not one.aligned]


def _control_models(case: Case, control: str) -> Models | None:
    """Return the scores and novelties of a control's models; None where the side file lacks them."""
    members = _members(case, control)
    nearest = [case.arrays.get(f"nearest.{name}") for name in members]
    kept = [array for array in nearest if array is not None]
    if len(kept) < len(members) or len({len(array) for array in kept}) != 1:
        return None
    scores = np.stack([case.signed(name)[case.stored(name)] for name in members])
    return Models.of(scores, np.stack(kept), seeds.number(case.seed, "curve", control))


def _judged_models(case: Case, name: str, purpose: str, control: str) -> Models | None:
    """Return the scores and novelties of the models that are compared with a control; None where unknown.

    Args:
        case: the record.
        name: name of the population.
        purpose: name of the comparison, from which the seed of its bootstrap follows.
        control: name of the control.
    """
    nearest = case.arrays.get(f"nearest.{name}")
    if nearest is None:
        return None
    seed = seeds.number(seeds.number(case.seed, purpose), control)
    return Models.of(case.signed(name)[case.stored(name)], nearest, seed)


def _all_stored(case: Case, name: str, control: str) -> bool:
    return all(case.all_stored(one) for one in (name, *_members(case, control)))


def _tolerance(case: Case, found: Range, *, whole: bool) -> float:
    """Return the largest accepted difference between a number and its recomputed range, in the metric's unit."""
    scale = 1.0 if case.record.task.metric.higher_is_better else abs(case.record.original.median)
    return (WIDTHS if whole else SUBSET_WIDTHS) * found.width + SCORE_ERROR * scale


def _advantages(case: Case, judge: Judge) -> Iterator[str]:
    """Check the advantage over each control, and the share of models beyond its range of novelty."""
    for name, says in judge.advantages.items():
        if says.typical is not None and name != "noise":
            yield mismatch(
                f"judge.advantages.{name}.typical", "there", None, "it is of noise alone"
            )
        elif says.beyond is not None:
            yield from _against_control(case, name, says, says.beyond)


def _against_control(case: Case, name: str, says: Advantage, beyond: float) -> Iterator[str]:
    """Check the advantages over one control, and the share of models beyond its range of novelty."""
    models, place = case.populations["generated"].n, f"judge.advantages.{name}"
    count = round((1 - beyond) * models)
    if not nearly_equal(count, (1 - beyond) * models, relative=0, absolute=1e-6):
        yield mismatch(f"{place}.beyond", beyond, f"a share of {models} models")
        return
    parts = {"mean": says.mean, **({"typical": says.typical} if name == "noise" else {})}
    for field, interval in parts.items():
        if (interval is None) is not (count == 0):
            wanted, why = None if interval else "a value", "by the share that is beyond"
            yield mismatch(f"{place}.{field}", "there" if interval else None, wanted, why)
    control, judged = (
        _control_models(case, name),
        _judged_models(case, "generated", "novelty", name),
    )
    if control is None or judged is None:
        return
    whole, part = _all_stored(case, "generated", name), models / len(judged.values)
    sure, maybe = matched.inside(judged, control)
    apart = 0 if whole else math.ceil(SUBSET_ERROR * models)
    least, most = math.floor(sure * part) - apart, math.ceil(maybe * part) + apart
    if not least <= count <= most:
        why = "by the nearest originals in the side file"
        yield mismatch(f"{place}.beyond", beyond, (1 - most / models, 1 - least / models), why)
        return
    count = min(maybe, max(sure, round(count / part)))
    for field, interval in parts.items():
        if interval and count:
            typical = field == "typical"
            found = matched.advantage(judged, control, count, typical=typical)
            yield from _compare_interval(
                f"{place}.{field}", interval, found, _tolerance(case, found, whole=whole)
            )


def _compare_interval(place: str, says: Interval, found: Range, slack: float) -> Iterator[str]:
    for part, low, high in zip(("value", "low", "high"), found.least, found.most, strict=True):
        value = getattr(says, part)
        yield from out_of_range(
            f"{place}.{part}", value, low - slack, high + slack, "by the side file"
        )


# Novelty of fine-tuned originals -------------------------------------------------------------------------------------


def _sees_training(case: Case, judge: Judge) -> Iterator[str]:
    """Check whether the rule calls the fine-tuned originals novel, unless rounding leaves both possible."""
    says, enough = judge.sees_training, case.all_stored("finetune")
    few = case.populations["finetune"].n < rule1.MODELS
    possible = {False} if few else _possible_words(case) if enough else {True, False}
    if says is not None and says not in possible:
        yield mismatch(
            "judge.sees_training", says, not says, "by the rule on the fine-tuned originals"
        )


def _possible_words(case: Case) -> set[bool]:
    """Return whether the rule may call the fine-tuned originals novel: False, True, or both within rounding."""
    conditions = [_differ_from_originals(case)]
    for control in CONTROLS:
        compared, judged = (
            _control_models(case, control),
            _judged_models(case, "finetune", "finetune", control),
        )
        if compared is None or judged is None:
            return {True, False}
        conditions.append(set(_may_beat(case, control, judged, compared)))
    never = any(True not in one for one in conditions)
    always = all(False not in one for one in conditions)
    return {False} if never else {True} if always else {True, False}


def _differ_from_originals(case: Case) -> set[bool]:
    """Return whether most fine-tuned originals may differ from every original: True, False, or both.

    Where models make many errors, float16 rounds an IoU just below 1 to 1.
    """
    nearest = case.arrays.get("nearest.finetune")
    if nearest is None or float(np.median(nearest)) < 1:
        return {True} if nearest is not None else {True, False}
    errors = (1 - case.values("finetune").min()) * case.record.protocol.val_size
    return {False} if case.exact and errors < EXACT_ERRORS else {True, False}


def _may_beat(case: Case, control: str, judged: Models, compared: Models) -> Iterator[bool]:
    """Yield whether the fine-tuned originals beat a control, for each end of the ranges that rounding leaves."""
    for count in set(matched.inside(judged, compared)):
        beyond = 1 - count / len(judged.values)
        if count == 0:
            yield rule1.beats(Advantage(mean=None, beyond=beyond))
            continue
        lows = _lower_ends(case, judged, compared, count)
        typical = (
            _lower_ends(case, judged, compared, count, typical=True)
            if control == "noise"
            else (1.0,)
        )
        for low, usual in itertools.product(lows, typical):
            mean = Interval(value=low, low=low, high=low)
            yield rule1.beats(Advantage(mean=mean, beyond=beyond)) and usual > 0


def _lower_ends(
    case: Case, judged: Models, compared: Models, count: int, *, typical: bool = False
) -> tuple[float, float]:
    """Return the lowest and the highest possible lower end of an advantage's interval."""
    found = matched.advantage(judged, compared, count, typical=typical)
    slack = _tolerance(case, found, whole=True)
    return found.least[1] - slack, found.most[1] + slack
