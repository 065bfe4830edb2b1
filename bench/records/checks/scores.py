"""Checks of scores: the number of models, their range, the selected model, the bootstrap interval, and the controls."""

import functools
import math
from collections.abc import Iterator

import numpy as np

from bench.contract.control import Control
from bench.metrics import draws
from bench.records import protocol
from bench.records.checks.case import FLOAT64_ERROR, Case, mismatch, nearly_equal, out_of_range
from bench.records.population import Population
from bench.system import seeds

MANY = 5000  # models; for more the bootstrap is not drawn again, which would take too long
# Further metrics that lie between 0 and 1.
SHARES = ("precision", "recall", "pixel accuracy", "AP50", "AP75")
GRID = 1e-4  # largest distance of a count from a whole number, after a division in float32


def problems(case: Case) -> Iterator[str]:
    """Yield a problem for each wrong number of a population."""
    yield from _controls(case)
    for name, population in case.populations.items():
        yield from _numbers(case, name, population)
        yield from _selected(case, name, population)
        yield from _further(case, name, population)
    yield from _base(case)
    yield from _copies(case)
    yield from _repeated(case)


def _controls(case: Case) -> Iterator[str]:
    """Yield a problem for each control that the protocol does not have, and for each that is missing."""
    known, there = prescribed(case), case.record.controls
    for name in sorted(set(there) - set(known)):
        yield f"populations.{name} is no control of the protocol on these checkpoints"
    for name in known:
        if name not in there:
            yield f"populations has no control {name}"


def prescribed(case: Case) -> dict[str, int]:
    """Return the names of the controls that the protocol prescribes, with their numbers of models."""
    said = case.record.protocol
    # ``identity`` reports a version that there never was.
    version = said.version if said.version in protocol.VERSIONS else protocol.PROTOCOL
    found = protocol.controls(version, said.samples, alignable=case.twinned)
    return {str(control): count for control, count in found.items()}


def sizes(case: Case, name: str) -> tuple[int, ...]:
    """Return the possible numbers of models in a population."""
    population, samples = case.populations[name], case.record.protocol.samples
    if population.role == "original":
        return (case.record.zoo.k,)
    if population.role == "reference":
        return (case.record.protocol.held_out,)
    if population.role == "control":
        known = prescribed(case)
        return (known[name],) if name in known else (1, samples)
    if case.generator is None or "deterministic" not in case.generator.facts:
        return (1, samples)
    return (1,) if case.generator.facts["deterministic"] else (samples,)


def _numbers(case: Case, name: str, population: Population) -> Iterator[str]:
    place, count, wanted = f"populations.{name}", population.n, sizes(case, name)
    if count not in wanted:
        yield mismatch(place, f"of {count} models", " or ".join(map(str, wanted)))
    sign = case.sign
    ordered = [sign * value for value in (population.worst, population.median, population.best)]
    if ordered != sorted(ordered):
        yield f"{place}: expected worst <= median <= best, in the direction of the metric"
    slack = 1e-9 * max(1.0, abs(population.mean))
    if not population.low - slack <= population.mean <= population.high + slack:
        yield mismatch(
            f"{place}.mean", population.mean, (population.low, population.high), "interval"
        )
    low, high = case.record.task.metric.bounds
    if not low <= min(population.values) <= max(population.values) <= high:
        yield f"{place}: {case.record.task.metric.name} is not {_span(low, high)} in all of its models"
    if case.exact and not _are_shares(population.values, case.record.protocol.val_size):
        val_size = case.record.protocol.val_size
        yield f"{place}: its values are no shares of {val_size} validation examples"
    yield from _interval(case, name, population)


def _span(low: float, high: float) -> str:
    return "between 0 and 1" if high == 1 else "0 or more"


def _are_shares(values: list[float], size: int) -> bool:
    counts = np.array(values) * size
    return bool((np.abs(counts - np.round(counts)) < GRID * max(1.0, size / 1000)).all())


def _interval(case: Case, name: str, population: Population) -> Iterator[str]:
    """Compare the bootstrap interval of the mean with the same draws, made again; normal for many models."""
    seed = seeds.number(case.seed, name)
    slack = 1e-7 * max(1.0, abs(population.mean)) + FLOAT64_ERROR
    if len(population.values) > MANY:
        spread = 1.96 * float(population.std or 0) / math.sqrt(len(population.values))
        wanted = (population.mean - spread, population.mean + spread)
        slack += 0.2 * spread
    else:
        wanted = _mean_interval(tuple(population.values), seed)
    for bound, value in zip(("low", "high"), wanted, strict=True):
        says = getattr(population, bound)
        if abs(says - value) > slack:
            yield mismatch(
                f"populations.{name}.{bound}", says, value, "of the bootstrap of its values"
            )


@functools.lru_cache(maxsize=64)  # the controls of a board are the same in all of its records
def _mean_interval(values: tuple[float, ...], seed: int) -> draws.Interval:
    return draws.Stream(seed).mean_interval(np.array(values))


def _selected(case: Case, name: str, population: Population) -> Iterator[str]:
    """Check that the selected model is one of those with the best training score."""
    train = case.arrays.get(f"train.{name}")
    if train is None:
        return
    if case.exact and not _are_shares(
        train.astype(float).tolist(), case.record.protocol.train_size
    ):
        train_size = case.record.protocol.train_size
        yield f"side file: train.{name} is no share of {train_size} training examples"
    if case.all_stored(name):
        best = case.values(name)[case.sign * train == (case.sign * train).max()]
        if not np.isclose(best, population.selected, rtol=1e-9, atol=0).any():
            wanted = " or ".join(sorted({f"{value:.6g}" for value in best})[:5])
            why = "of the models with the best training score"
            yield mismatch(f"populations.{name}.selected", population.selected, wanted, why)


def _further(case: Case, name: str, population: Population) -> Iterator[str]:
    """Check further metrics and ``not_finite``: the same of all populations, each in its range."""
    first = case.record.original
    place = f"populations.{name}.further"
    if set(population.further) != set(first.further):
        yield mismatch(
            place, sorted(population.further), sorted(first.further), "as of the originals"
        )
    if case.task and case.record.task.kind == "classification" and population.further:
        yield mismatch(place, sorted(population.further), "none", "of the kind classification")
    for metric, found in population.further.items():
        if metric in SHARES or metric.startswith("mAP"):
            for part in ("mean", "selected"):
                yield from out_of_range(f"{place}.{metric}.{part}", getattr(found, part), 0, 1)
        if population.n == 1 and not nearly_equal(found.mean, found.selected):
            yield mismatch(f"{place}.{metric}.selected", found.selected, found.mean, "of one model")
    if (population.not_finite is None) is not (first.not_finite is None):
        yield mismatch(
            f"populations.{name}.not_finite", population.not_finite, "counted in all or in none"
        )


def _base(case: Case) -> Iterator[str]:
    score = case.record.zoo.base_score
    if score is not None:
        yield from out_of_range("zoo.base_score", score, *case.record.task.metric.bounds)


def _copies(case: Case) -> Iterator[str]:
    """Check that each copy has the scores of an original, on both splits."""
    made = case.record.generator
    names = [name for name in ("copy", "generated") if name in case.populations]
    if made.name != "copy" or made.aligned:
        names.remove("generated")
    originals = case.record.original
    for name in names:
        unknown = sorted(set(case.populations[name].values) - set(originals.values))
        if unknown:
            yield mismatch(f"populations.{name}.values", unknown[0], "the score of an original")
        elif not _pairs_of_originals(case, name):
            yield f"side file: train.{name} has scores that no original with the same score has"
        count = case.populations[name].not_finite
        if count and not originals.not_finite:
            yield mismatch(
                f"populations.{name}.not_finite", count, originals.not_finite, "of copies"
            )


def _pairs_of_originals(case: Case, name: str) -> bool:
    """Return whether each copy's pair of scores is that of an original, as far as the side file tells."""
    known = case.all_stored("original") and "train.original" in case.arrays
    return not known or _pairs(case, name) <= _pairs(case, "original")


def _pairs(case: Case, name: str) -> set[tuple[float, float]]:
    """Return the pairs of validation and training score of a population's models."""
    train = case.arrays.get(f"train.{name}")
    values = case.values(name)[case.stored(name)].tolist()
    return set() if train is None else set(zip(values, train.tolist(), strict=True))


def _repeated(case: Case) -> Iterator[str]:
    """Check that a deterministic control that is also the generator has the same numbers in both populations."""
    made = case.record.generator
    single = case.generator is not None and case.generator.facts.get("deterministic")
    name = str(Control(made.name, aligned=made.aligned))
    if not single or name not in case.populations:
        return
    why = f"as of the control {name}, which is the same model"
    for part in ("values", "further", "not_finite"):
        says, wanted = (getattr(case.populations[one], part) for one in ("generated", name))
        if says != wanted:
            yield mismatch(f"populations.generated.{part}", says, wanted, why)
    for kind in ("nearest", "train", "right_best"):
        ours, theirs = (case.arrays.get(f"{kind}.{one}") for one in ("generated", name))
        if ours is not None and theirs is not None and not np.array_equal(ours, theirs):
            yield f"side file: {kind}.generated is not {kind}.{name}, which is the same model"
