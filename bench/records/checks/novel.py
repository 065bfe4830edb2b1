"""Novelty: advantages over the controls, how new models are, and the words that follow by the rule."""

import itertools
import math
from collections.abc import Iterator

import numpy as np

from bench.metrics import matched
from bench.metrics.matched import Models, Range
from bench.records import verdict
from bench.records.checks.case import HALF, Case, near, outside, told
from bench.records.fields import Interval
from bench.records.judged import Advantage, Judge
from bench.system import seeds

CONTROLS = ("noise", "interpolation", "gaussian")
# Beyond the variants of ``bench.metrics.matched`` a number was at most 0.04 of its interval's width, on 111 records.
WIDTHS = 0.15
LITTLE = 2e-4  # of a score of 1, or of the originals' distance: for intervals without width
PART = 1.5  # widths, where the side file has a part of the models only
ROUNDED = 2000  # errors: of fewer, two different sets have an IoU that is not rounded to 1
TOGETHER = 0.1  # share of models that a part of them may be wrong by


def problems(case: Case) -> Iterator[str]:
    """Yield where novelty is not what the rule and the side file give."""
    judge = case.record.judge
    yield from _rule(case, judge)
    yield from _collapsed(case, judge)
    if set(judge.advantages) != set(CONTROLS):
        yield told("judge.advantages", sorted(judge.advantages), sorted(CONTROLS))
        return
    if judge.rule != verdict.RULE or not _whole_record(case):
        return  # told elsewhere; the verdict reads them
    word = verdict.of(case.record)
    if judge.word != word:
        yield told("judge.word", judge.word, word, "by the rule on its numbers")
    yield from _novelties(case, judge)
    yield from _advantages(case, judge)
    yield from _sees_training(case, judge)


def _whole_record(case: Case) -> bool:
    """Return whether all populations are there that the verdict reads, with their similarities."""
    controls = case.record.controls
    named = {one.name for one in controls.values()}
    alike = all(one.similarity.originals for one in controls.values())
    return {*verdict.LIKENED, "finetune"} <= named and alike


def _rule(case: Case, judge: Judge) -> Iterator[str]:
    """A record with a side file is younger than the rule, and has all that the rule gives."""
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
            yield told("judge.rule", None, verdict.RULE, "the record is younger than the rule")
        return
    if judge.rule != verdict.RULE:
        yield told("judge.rule", judge.rule, verdict.RULE)
    for name, value in ruled.items():
        if value is None:
            yield told(f"judge.{name}", None, "a value", "the rule always gives one")


def _collapsed(case: Case, judge: Judge) -> Iterator[str]:
    """Yield where it is not said rightly whether generated models are more alike than originals."""
    within, usual = (case.populations[n].similarity.within for n in ("generated", "original"))
    collapsed = None if within is None or usual is None else within.value > usual.value
    if judge.collapsed is not collapsed:
        why = "by the two similarities within"
        yield told("judge.collapsed", judge.collapsed, collapsed, why)


def _novelties(case: Case, judge: Judge) -> Iterator[str]:
    """Yield where the median novelty is not that of the side file."""
    nearest = case.arrays.get("nearest.generated")
    if nearest is not None and judge.median_novelty is not None:
        median = float(np.median(1 - nearest.astype(float)))
        slack = HALF if case.whole("generated") else TOGETHER
        low, high, why = median - slack, median + slack, "of nearest.generated"
        yield from outside("judge.median_novelty", judge.median_novelty, low, high, why)


# Advantages ----------------------------------------------------------------------------------------------------------


def _members(case: Case, control: str) -> list[str]:
    """The populations that make up a control."""
    controls = case.record.controls.items()
    return [key for key, one in controls if one.name == control and not one.aligned]


def _control(case: Case, control: str) -> Models | None:
    """The models of a control; None where the side file lacks them."""
    members = _members(case, control)
    nearest = [case.arrays.get(f"nearest.{name}") for name in members]
    kept = [array for array in nearest if array is not None]
    if len(kept) < len(members) or len({len(array) for array in kept}) != 1:
        return None
    scores = np.stack([case.signed(name)[case.kept(name)] for name in members])
    return Models.of(scores, np.stack(kept), seeds.number(case.seed, "curve", control))


def _judged(case: Case, name: str, purpose: str, control: str) -> Models | None:
    """The models that are compared with a control."""
    nearest = case.arrays.get(f"nearest.{name}")
    if nearest is None:
        return None
    seed = seeds.number(seeds.number(case.seed, purpose), control)
    return Models.of(case.signed(name)[case.kept(name)], nearest, seed)


def _whole(case: Case, name: str, control: str) -> bool:
    return all(case.whole(one) for one in (name, *_members(case, control)))


def _slack(case: Case, found: Range, *, whole: bool) -> float:
    """How far a number may be from what was computed again."""
    scale = 1.0 if case.record.task.metric.higher_is_better else abs(case.record.original.median)
    return (WIDTHS if whole else PART) * found.width + LITTLE * scale


def _advantages(case: Case, judge: Judge) -> Iterator[str]:
    """The advantages over each control, and how many models are more novel than any of its models."""
    for name, says in judge.advantages.items():
        if says.typical is not None and name != "noise":
            yield told(f"judge.advantages.{name}.typical", "there", None, "it is of noise alone")
        elif says.beyond is not None:
            yield from _over(case, name, says, says.beyond)


def _over(case: Case, name: str, says: Advantage, beyond: float) -> Iterator[str]:
    """One control's numbers: its name, the advantages over it, and the share of models that is beyond it."""
    models, place = case.populations["generated"].n, f"judge.advantages.{name}"
    count = round((1 - beyond) * models)
    if not near(count, (1 - beyond) * models, relative=0, absolute=1e-6):
        yield told(f"{place}.beyond", beyond, f"a share of {models} models")
        return
    parts = {"mean": says.mean, **({"typical": says.typical} if name == "noise" else {})}
    for field, interval in parts.items():
        if (interval is None) is not (count == 0):
            wanted, why = None if interval else "a value", "by the share that is beyond"
            yield told(f"{place}.{field}", "there" if interval else None, wanted, why)
    control, judged = _control(case, name), _judged(case, "generated", "novelty", name)
    if control is None or judged is None:
        return
    whole, part = _whole(case, "generated", name), models / len(judged.values)
    sure, maybe = matched.inside(judged, control)
    apart = 0 if whole else math.ceil(TOGETHER * models)
    least, most = math.floor(sure * part) - apart, math.ceil(maybe * part) + apart
    if not least <= count <= most:
        why = "by the nearest originals in the side file"
        yield told(f"{place}.beyond", beyond, (1 - most / models, 1 - least / models), why)
        return
    count = min(maybe, max(sure, round(count / part)))
    for field, interval in parts.items():
        if interval and count:
            typical = field == "typical"
            found = matched.advantage(judged, control, count, typical=typical)
            yield from _range(f"{place}.{field}", interval, found, _slack(case, found, whole=whole))


def _range(place: str, says: Interval, found: Range, slack: float) -> Iterator[str]:
    for part, low, high in zip(("value", "low", "high"), found.least, found.most, strict=True):
        value = getattr(says, part)
        yield from outside(f"{place}.{part}", value, low - slack, high + slack, "by the side file")


# Whether trained models are called novel -----------------------------------------------------------------------------


def _sees_training(case: Case, judge: Judge) -> Iterator[str]:
    """Whether the rule calls the fine-tuned originals novel, where rounding leaves no doubt."""
    says, enough = judge.sees_training, case.whole("finetune")
    few = case.populations["finetune"].n < verdict.MODELS
    possible = {False} if few else _words(case) if enough else {True, False}
    if says is not None and says not in possible:
        yield told("judge.sees_training", says, not says, "by the rule on the fine-tuned originals")


def _words(case: Case) -> set[bool]:
    """What the rule may say of the fine-tuned originals: each condition that may hold, or may not."""
    conditions = [_new(case)]
    for control in CONTROLS:
        beside, judged = _control(case, control), _judged(case, "finetune", "finetune", control)
        if beside is None or judged is None:
            return {True, False}
        conditions.append(set(_beats(case, control, judged, beside)))
    never = any(True not in one for one in conditions)
    always = all(False not in one for one in conditions)
    return {False} if never else {True} if always else {True, False}


def _new(case: Case) -> set[bool]:
    """Whether most differ from every original; a side file rounds the small novelties of many errors to 0."""
    nearest = case.arrays.get("nearest.finetune")
    if nearest is None or float(np.median(nearest)) < 1:
        return {True} if nearest is not None else {True, False}
    errors = (1 - case.values("finetune").min()) * case.record.protocol.val_size
    return {False} if case.exact and errors < ROUNDED else {True, False}


def _beats(case: Case, control: str, judged: Models, beside: Models) -> Iterator[bool]:
    """Whether a control is beaten, at all ends of what the numbers may be."""
    for count in set(matched.inside(judged, beside)):
        beyond = 1 - count / len(judged.values)
        if count == 0:
            yield verdict.beats(Advantage(mean=None, beyond=beyond))
            continue
        lows = _lows(case, judged, beside, count)
        typical = _lows(case, judged, beside, count, typical=True) if control == "noise" else (1.0,)
        for low, usual in itertools.product(lows, typical):
            mean = Interval(value=low, low=low, high=low)
            yield verdict.beats(Advantage(mean=mean, beyond=beyond)) and usual > 0


def _lows(
    case: Case, judged: Models, beside: Models, count: int, *, typical: bool = False
) -> tuple[float, float]:
    """Between what the low end of an advantage's interval lies."""
    found = matched.advantage(judged, beside, count, typical=typical)
    slack = _slack(case, found, whole=True)
    return found.least[1] - slack, found.most[1] + slack
