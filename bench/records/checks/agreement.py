"""Checks of error consistency: which populations have it, and its means over the models of the side file's matrix.

Where a score is a share of units, the number of units that each model gets wrong is known. With their IoU that gives
the number that a pair shares, and so the pair's kappa.
"""

from collections.abc import Iterator

import numpy as np

from bench.metrics.draws import Floats, mean_off_diagonal
from bench.records.checks.alike import SUBSET_ERROR, blocks
from bench.records.checks.case import Case, mismatch, out_of_range
from bench.records.checks.implied import errors
from bench.records.population import Kappa
from bench.records.side import IOU_MODELS

ROUNDED = 2.0**-12  # largest rounding error of an IoU in float16
EXACT = 1e-6  # rounding of means
MEANS = ("originals", "nearest", "within")  # the fields of a kappa


def problems(case: Case) -> Iterator[str]:
    """Yield a problem for each kappa that is missing, contradicts another, or is not that of the side file."""
    if not case.complete:
        return
    for name in case.populations:
        yield from _whole(case, name)
    copy = case.populations["copy"].similarity.kappa if "copy" in case.populations else None
    if copy and copy.nearest is not None and abs(copy.nearest - 1) > EXACT:
        place = "populations.copy.similarity.kappa.nearest"
        yield mismatch(place, copy.nearest, 1.0, "of a copy and its original")
    if case.exact and case.record.protocol.val_size:
        yield from _means(case)


def _whole(case: Case, name: str) -> Iterator[str]:
    """Check which numbers a population has, and that the nearest original agrees no less than originals on average."""
    population, place = case.populations[name], f"populations.{name}.similarity.kappa"
    kappa, drawn = population.similarity.kappa, case.record.task.compared.features
    if kappa is None or drawn:
        if (kappa is None) is not drawn:
            wrong = "no wrong units" if drawn else "wrong units"
            yield f"{place}: expected where models have wrong units, these have {wrong}"
        return
    original = population.role == "original"
    there = {
        "originals": not original,
        "nearest": not original or population.n > 1,
        "within": population.n > 1,
    }
    for part, expected in there.items():
        if (getattr(kappa, part) is not None) is not expected:
            yield f"{place}.{part}: expected {'a number' if expected else 'null'}"
    usual = kappa.within if original else kappa.originals
    if usual is not None and kappa.nearest is not None and kappa.nearest < usual - EXACT:
        yield f"{place}: the nearest original agrees less than originals do on average"


def _means(case: Case) -> Iterator[str]:
    """Compare the means of originals and generated models with those of the pairs in the side file's matrix."""
    found = blocks(case)
    if not found:
        return
    wrong = {
        name: errors(case, name)[case.stored(name, IOU_MODELS)].astype(float)
        for name in ("original", "generated")
    }
    units = case.record.protocol.val_size
    among, own, cross = (
        kappas(iou, wrong[rows], wrong[columns], units)
        for iou, rows, columns in zip(
            found,
            ("original", "generated", "generated"),
            ("original", "generated", "original"),
            strict=True,
        )
    )
    others = tuple(matrix - np.diag(np.full(len(matrix), np.inf)) for matrix in among)
    yield from _compare(case, "original", {"within": among, "nearest": (others[0], among[1])})
    yield from _compare(case, "generated", {"within": own, "originals": cross, "nearest": cross})


def kappas(iou: Floats, a: Floats, b: Floats, units: int) -> tuple[Floats, Floats]:
    """Return the kappa of every pair of models, and by how much the rounding of the IoU can have changed it.

    Args:
        iou: of every pair, rounded to float16.
        a, b: how many units the models get wrong, of rows and of columns.
        units: how many there are.
    """
    total, chance = a[:, None] + b[None], a[:, None] * b[None]
    both = np.round(iou * total / (1 + iou))
    off = np.floor(ROUNDED * total + 0.5)  # 0 where the nearest whole number is certain
    possible = units * total - 2 * chance
    scale = np.where(possible > 0, possible, 1.0)
    found = np.where(possible > 0, 2 * (units * both - chance) / scale, 1.0)
    return found, np.where(possible > 0, 2 * units * off / scale, 0.0)


def _compare(case: Case, name: str, pairs: dict[str, tuple[Floats, Floats]]) -> Iterator[str]:
    """Compare a population's means with those of the pairs that the side file has, and their possible errors."""
    kappa = case.populations[name].similarity.kappa or Kappa()
    whole = all(case.all_stored(one, IOU_MODELS) for one in ("original", name))
    for part in MEANS:
        says = getattr(kappa, part)
        if says is None or part not in pairs:
            continue
        found, off = pairs[part]
        value = _mean(part, found)
        if value is None:
            continue
        slack = EXACT + float(off.max(initial=0)) + (0 if whole else SUBSET_ERROR)
        # The nearest of all originals agrees at least as much as the nearest of those that are kept.
        high = 1.0 if part == "nearest" and not whole else value + slack
        place = f"populations.{name}.similarity.kappa.{part}"
        yield from out_of_range(place, says, value - slack, high, "by the side file")


def _mean(part: str, found: Floats) -> float | None:
    """Return the mean that a part of a kappa is; None for a single model."""
    if part == "within":
        return mean_off_diagonal(found)
    if part == "nearest":
        nearest = found.max(1)
        return float(nearest.mean()) if np.isfinite(nearest).all() else None
    return float(found.mean())
