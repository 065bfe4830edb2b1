"""Scores that no units add up to, beside what goes with them: training scores, units that are right, other metrics.

Accuracies are held against outcomes exactly (``bench.records.checks.outcomes``). Of mAP, mean IoU and distances there
is only this: among the models of one zoo, those with one training score, or one share of units right, have nearly one
score.
"""

from collections.abc import Iterator

import numpy as np

from bench.metrics.draws import Floats
from bench.records.checks.case import Case, told
from bench.records.side import STATISTICS

NEAR, FEW = 20, 10  # models, and points of units, that a score is looked up among
# A population's mean was at most 0.0012 from what its training scores say (of a distance 0.027 of the originals'
# median); and a score at most 0.008 beyond those of models with as many units right.
TRAINED, DISTANCE, RIGHT = 0.02, 0.15, 0.05
PIXELS = 0.05  # between the accuracy of all pixels and of the units, which are some; measured: 0.01
AHEAD = 0.02  # by which mAP may exceed AP50, of which it is a mean with smaller ones
STEEP = 2  # by how much a score may change with the training score beyond all other models'


def problems(case: Case) -> Iterator[str]:
    """Where scores are not those of such models."""
    if case.exact:
        return
    for name in case.populations:
        if case.populations[name].amplitude is None:  # noisy models are too different
            yield from _trained(case, name)
            yield from _right(case, name)
        yield from _precision(case, name)
        yield from _pixels(case, name)


def _trained(case: Case, name: str) -> Iterator[str]:
    """The mean score is near that of models with such training scores."""
    train = {one: case.arrays.get(f"train.{one}") for one in case.populations}
    own = train.pop(name)
    others = [(one, array.astype(float)) for one, array in train.items() if array is not None]
    if own is None or sum(len(array) for _, array in others) < 2 * NEAR:
        return
    trained = case.sign * np.concatenate([array for _, array in others])
    scores = np.concatenate([case.signed(one)[case.kept(one)] for one, _ in others])
    ours = case.sign * own.astype(float)
    expected = float(np.mean([np.median(some) for some in _nearest(ours, trained, scores, NEAR)]))
    found = float(case.signed(name)[case.kept(name)].mean())
    record = case.record
    distance = DISTANCE * abs(record.original.median)
    scale = TRAINED if record.task.metric.percent else distance
    beyond = STEEP * float(
        np.mean(np.maximum(0, ours - trained.max()) + np.maximum(0, trained.min() - ours))
    )
    if abs(found - expected) > scale + beyond:
        why = "by the scores of models with such training scores"
        yield told(
            f"populations.{name}.mean", case.sign * found, f"about {case.sign * expected:.4g}", why
        )


def _nearest(ours: Floats, places: Floats, values: Floats, count: int) -> Iterator[Floats]:
    """For each number the values of those that are nearest to it, as many below as above if there are."""
    order = np.argsort(places, kind="stable")
    for middle in np.searchsorted(places[order], ours):
        low = max(0, min(int(middle) - count // 2, len(order) - count))
        yield values[order[low : low + count]]


def _points(case: Case, name: str) -> list[tuple[float, float]]:
    """Shares of units right with the scores that go with them: of the population, and of its single models."""
    wrong, population = case.wrong_share(name), case.populations[name]
    points = [] if wrong is None else [(1 - float(wrong.mean()), population.mean)]
    for statistic in STATISTICS:
        right = case.right(name, statistic)
        if right is not None:
            chosen = statistic != "selected"
            score = (
                case.values(name)[case.chosen(name, statistic)] if chosen else population.selected
            )
            points.append((float(right.mean()), float(score)))
    return points


def _right(case: Case, name: str) -> Iterator[str]:
    """No score is above those of models that find as many boxes: precision cannot make up for boxes that are missed."""
    ours = _points(case, name)
    others = [point for one in case.populations if one != name for point in _points(case, one)]
    if case.record.task.metric.name != "mAP" or len(others) < 2 * FEW or not ours:
        return
    shares, scores = np.array(others).T
    found = _nearest(np.array(ours)[:, 0], shares, scores, FEW)
    for (share, score), near in zip(ours, found, strict=True):
        if score > near.max() + RIGHT:
            why = f"as of other models with {share:.1%} of the units right"
            yield told(f"populations.{name}: a score", score, f"at most {near.max():.4g}", why)


def _precision(case: Case, name: str) -> Iterator[str]:
    """mAP is a mean over overlaps of which 0.5 is the easiest, and 0.75 a harder one."""
    population = case.populations[name]
    at50, at75 = (population.further.get(f"AP{overlap}") for overlap in (50, 75))
    if case.record.task.metric.name != "mAP" or at50 is None:
        return
    for part in ("mean", "selected"):
        most, score = getattr(at50, part), getattr(population, part)
        if score > most + AHEAD:
            yield told(f"populations.{name}.{part}", score, f"at most {most:.4g}", "its AP50")
        if at75 and getattr(at75, part) > most + AHEAD:
            yield told(
                f"populations.{name}.further.AP75.{part}",
                getattr(at75, part),
                f"at most {most:.4g}",
            )


def _pixels(case: Case, name: str) -> Iterator[str]:
    """Units are pixels of every image."""
    found, wrong = case.populations[name].further.get("pixel accuracy"), case.wrong_share(name)
    if found is None or wrong is None or case.task is None:
        return
    share = 1 - float(wrong.mean())
    if abs(found.mean - share) > PIXELS:
        wanted = f"about {share:.4g}"
        yield told(
            f"populations.{name}.further.pixel accuracy.mean", found.mean, wanted, "of the units"
        )
