"""Checks of rule 2: the populations against the reference, the board's resolution, and the word."""

import math
from collections.abc import Iterator

from bench import declared
from bench.contract.control import Control
from bench.records import rule1, verdict
from bench.records.checks.case import FLOAT64_ERROR, Case, mismatch, nearly_equal
from bench.records.facts import IMPORTED
from bench.records.judged import MARGIN, CopyTest, Judge, Judgement
from bench.records.population import Population


def problems(case: Case) -> Iterator[str]:
    """Yield a problem for each number against the reference that others contradict, and for a wrong word."""
    judge = case.record.judge
    if judge.rule in (None, rule1.RULE):
        if judge.against_reference or judge.resolution is not None:
            yield mismatch("judge.rule", judge.rule, verdict.RULE, "there is a reference")
        return
    if judge.rule != verdict.RULE:
        yield mismatch("judge.rule", judge.rule, verdict.RULE)
        return
    yield from _populations(case, judge)
    for key, judgement in judge.against_reference.items():
        if key in case.populations:
            yield from _judgement(case, key, judgement)
    yield from _resolution(case, judge)
    word = verdict.of(case.record)
    if judge.word != word:
        yield mismatch("judge.word", judge.word, word, "by rule 2 on its numbers")


def _populations(case: Case, judge: Judge) -> Iterator[str]:
    """Check that with a reference every population but the originals is judged, and without one none is."""
    there, kept = "reference" in case.populations, case.record.artifacts.reference
    if there is not bool(kept):
        file, why = kept.file if kept else None, "by its population"
        yield mismatch("artifacts.reference", file, "a file" if there else None, why)
    yield from _origin(case)
    if judge.against_reference:
        wanted = {key for key in case.populations if there and key != "original"}
        if set(judge.against_reference) != wanted:
            yield mismatch(
                "judge.against_reference", sorted(judge.against_reference), sorted(wanted)
            )


def _origin(case: Case) -> Iterator[str]:
    """Check where the reference comes from: rows of other runs only where the checkpoints were made elsewhere."""
    says, held = case.record.reference, case.populations.get("reference")
    if says is None or held is None:
        if (says is None) is not (held is None):
            expected = "where it comes from" if held else None
            yield mismatch("reference", says, expected, "by its population")
        return
    origin = "other runs" if case.record.zoo.track == IMPORTED else "training"
    if says.origin != origin:
        yield mismatch("reference.origin", says.origin, origin, "by zoo.track")
    if says.runs > held.n or (origin == "training" and says.runs != held.n):
        yield mismatch("reference.runs", says.runs, held.n, "by the number of its models")


def _judged(case: Case, key: str) -> tuple[list[float], list[float]]:
    """Return the scores of the models that are judged, and of the reference that they are judged beside.

    A part of the mixture is judged by every other one of its models; of the reference, the others stand beside them.
    """
    own, held = case.populations[key].values, case.populations["reference"].values
    halved = len(own) > 1 and (key == "reference" or _is_part(case.populations[key]))
    beside = held[1::2] if key == "reference" else held
    return (own[::2] if halved else own), beside


def _is_part(population: Population) -> bool:
    if population.role != "control":
        return False
    control = Control(population.name, population.amplitude, population.aligned)
    return bool(declared.part_of_mixtures(control))


def _judgement(case: Case, key: str, judgement: Judgement) -> Iterator[str]:
    """Check the numbers of one population against the reference."""
    if "reference" not in case.populations:
        return
    own, held = _judged(case, key)
    field = f"judge.against_reference.{key}"
    yield from _copying(judgement.copying, len(own), len(held), f"{field}.copying")
    quality = judgement.quality
    if (quality is None) is not (min(len(own), len(held)) < 2):
        yield mismatch(f"{field}.quality", quality, "a value for two models or more")
    elif quality is not None:
        usual = math.fsum(held) / len(held)
        apart = case.sign * (math.fsum(own) / len(own) - usual)
        if not nearly_equal(quality.difference.value, apart, absolute=1e-6):
            yield mismatch(f"{field}.quality.difference", quality.difference.value, apart)
        margin = MARGIN * (1.0 if case.record.task.metric.percent else abs(usual))
        if not nearly_equal(quality.margin, margin, absolute=1e-6):
            yield mismatch(f"{field}.quality.margin", quality.margin, margin)


def _copying(test: CopyTest, models: int, held: int, field: str) -> Iterator[str]:
    """Check the p-value of the copy test, which follows from the three numbers of models."""
    if test.nearer > models:
        yield mismatch(f"{field}.nearer", test.nearer, models, "there are no more models")
        return
    p = math.comb(models, test.nearer) / math.comb(models + held, test.nearer)
    if not nearly_equal(test.p, p, relative=FLOAT64_ERROR, absolute=0):
        yield mismatch(f"{field}.p", test.p, p, "by the exact test")


def _resolution(case: Case, judge: Judge) -> Iterator[str]:
    """Check the resolution: the reference's new share minus the largest of any control."""
    if "reference" not in judge.against_reference:
        if judge.resolution is not None:
            yield mismatch("judge.resolution", judge.resolution, None, "there is no reference")
        return
    new = {key: one.composition.new.value for key, one in judge.against_reference.items()}
    parts = [key for key in new if key in case.populations and _is_part(case.populations[key])]
    resolution = new["reference"] - max((new[key] for key in parts), default=0.0)
    if not nearly_equal(judge.resolution, resolution):
        yield mismatch("judge.resolution", judge.resolution, resolution, "by the new shares")
