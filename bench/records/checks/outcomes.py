"""Checks of scores and paired tests against the outcomes of validation units, exactly or within statistical bounds."""

import itertools
import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bench.metrics.exact import mcnemar
from bench.records.checks.case import Case, mismatch, nearly_equal, out_of_range
from bench.records.judged import Paired
from bench.records.population import Population
from bench.records.side import IOU_MODELS, STATISTICS

SIGMAS = 6  # standard errors that a share among the kept units may be from that among all
TESTS = {"best_original": ("original", "best"), "average": ("average", "selected")}


def problems(case: Case) -> Iterator[str]:
    """Yield a problem for each contradiction between outcomes, scores and paired tests."""
    for name, population in case.populations.items():
        yield from _mean(case, name, population)
        yield from _single(case, name)
        if case.exact:
            yield from _statistics(case, name, population)
    yield from _tests(case)
    yield from _matrix(case)


def _sampling_error(case: Case, share: float) -> float:
    """Return how far a share among the kept units may be from that among all units; 0 where all are kept."""
    assert case.units is not None
    kept, total = case.units
    part = 1 - kept / total
    return SIGMAS * math.sqrt(max(share * (1 - share), 1 / kept) / kept * part)


def _mean(case: Case, name: str, population: Population) -> Iterator[str]:
    """Check that the mean share of units that a population gets right is its mean score."""
    wrong = case.wrong_share(name)
    if wrong is None or case.units is None or not case.exact:
        return
    share = 1 - float(wrong.mean())
    rounding = 1e-6 if population.n <= 255 else 0.5 / 255 + 1e-6
    slack = rounding + _sampling_error(case, population.mean)
    if abs(share - population.mean) > slack:
        why = "of right_mean in the side file"
        yield mismatch(
            f"populations.{name}.mean", population.mean, (share - slack, share + slack), why
        )


def _single(case: Case, name: str) -> Iterator[str]:
    """Check that single models agree with units that all, or none, of their population get right."""
    wrong = case.wrong_share(name)
    if wrong is None or case.populations[name].n > 255:
        return
    for statistic in STATISTICS:
        right = case.right(name, statistic)
        if right is not None and ((right & (wrong == 1)) | (~right & (wrong == 0))).any():
            yield f"side file: right_{statistic}.{name} and right_mean.{name} contradict each other"


def _statistics(case: Case, name: str, population: Population) -> Iterator[str]:
    """Check that the share of units that a single model gets right is its score."""
    values = case.values(name)
    for statistic in STATISTICS:
        right = case.right(name, statistic)
        if right is None or case.units is None:
            continue
        chosen = statistic == "selected"
        score = population.selected if chosen else float(values[case.model_index(name, statistic)])
        kept, total = case.units
        correct, count = int(right.sum()), round(score * total)
        low, high = max(0, count - (total - kept)), min(count, kept)
        slack = _sampling_error(case, score) * kept
        low, high = (
            max(low, math.floor(score * kept - slack)),
            min(high, math.ceil(score * kept + slack)),
        )
        if not low <= correct <= high:
            wanted = low if low == high else f"{low} to {high}"
            why = f"of {kept} units, by its score"
            yield mismatch(
                f"side file: right_{statistic}.{name}", f"right {correct} times", wanted, why
            )


# Paired tests --------------------------------------------------------------------------------------------------------


def _tests(case: Case) -> Iterator[str]:
    tests, tested = case.record.judge.tests, case.record.task.compared.tested
    if tested and tests is None:
        yield mismatch("judge.tests", None, "wins and losses", "units are independent")
    if not tested and tests is not None:
        yield mismatch(
            "judge.tests", "there", None, "units are not independent, or not right or wrong"
        )
    for name, (population, statistic) in TESTS.items() if tests else ():
        paired: Paired = getattr(tests, name)
        units = case.units[1] if case.units else case.record.protocol.val_size
        if paired.wins + paired.losses > units:
            says = f"{paired.wins} wins and {paired.losses} losses"
            yield mismatch(f"judge.tests.{name}", says, f"at most {units} units in all")
            continue
        p = mcnemar(paired.wins, paired.losses)
        if not nearly_equal(p, paired.p, absolute=1e-300):
            why = f"of {paired.wins} wins and {paired.losses} losses"
            yield mismatch(f"judge.tests.{name}.p", paired.p, p, why)
        yield from _paired(case, name, paired, population, statistic)


def _paired(
    case: Case, name: str, paired: Paired, population: str, statistic: str
) -> Iterator[str]:
    """Check wins and losses against the scores, and against the outcomes of the two models."""
    place, size = f"judge.tests.{name}", case.record.protocol.val_size
    scores = case.record.generated.selected, getattr(case.populations[population], statistic)
    if case.exact and round((scores[0] - scores[1]) * size) != paired.wins - paired.losses:
        wanted = round((scores[0] - scores[1]) * size)
        yield mismatch(
            f"{place}: wins - losses", paired.wins - paired.losses, wanted, "by the scores"
        )
    ours, theirs = case.right("generated", "selected"), case.right(population, statistic)
    if ours is None or theirs is None or case.units is None:
        return
    kept, total = case.units
    for part, only in (("wins", ours & ~theirs), ("losses", theirs & ~ours)):
        found, says = int(only.sum()), getattr(paired, part)
        slack = _sampling_error(case, found / kept) * total
        high = min(found + total - kept, math.ceil(found / kept * total + slack))
        low = max(found, math.floor(found / kept * total - slack))
        yield from out_of_range(f"{place}.{part}", says, low, high, f"of {kept} of {total} units")


# The IoU matrix ------------------------------------------------------------------------------------------------------


def _rows_with_outcomes(case: Case) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Yield each row of the IoU matrix whose model's outcomes are kept, with the units that the model gets wrong."""
    offset = 0
    for name in ("original", "generated"):
        rows = case.stored(name, IOU_MODELS).tolist()
        for statistic in ("best", "median", "worst"):
            right, model = case.right(name, statistic), case.model_index(name, statistic)
            if right is not None and model in rows:
                yield offset + rows.index(model), ~right
        offset += len(rows)


def _matrix(case: Case) -> Iterator[str]:
    """Check the IoU of each two models whose outcomes are kept."""
    found = case.arrays.get("iou")
    if found is None or case.units is None:
        return
    for (row, ours), (column, theirs) in itertools.combinations(_rows_with_outcomes(case), 2):
        either = int((ours | theirs).sum())
        wanted = int((ours & theirs).sum()) / either if either else 1.0
        slack = 5e-4 + _sampling_error(case, 0.5) * math.sqrt(case.units[0] / max(1, either))
        if abs(float(found[row, column]) - wanted) > slack:
            why = "by the outcomes of the two models"
            yield mismatch(
                f"side file: iou[{row}, {column}]", float(found[row, column]), wanted, why
            )
