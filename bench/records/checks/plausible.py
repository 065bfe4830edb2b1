"""Checks of scores that are no mean over units, against training scores, shares of units right, and other metrics.

Accuracies are compared with outcomes exactly (``bench.records.checks.outcomes``). For mAP, mean IoU and distances
there is no such identity. But among the models of one zoo, those with nearly the same training score, or share of
units right, have nearly the same score.
"""

from collections.abc import Iterator

import numpy as np

from bench.metrics.draws import Floats
from bench.records.checks.case import Case, mismatch
from bench.records.side import STATISTICS

MODELS, POINTS = 20, 10  # similar models, and points of ``_points``, that a score is compared with
# Largest accepted differences: of a mean score from the estimate by training scores (measured: 0.0012), the same of a
# distance as a share of the originals' median (0.027), and of an mAP above those of models with as many units right
# (0.008).
TRAINED, DISTANCE, RIGHT = 0.02, 0.15, 0.05
# Largest accepted difference of the accuracies of all pixels and of the units; measured: 0.01.
PIXELS = 0.05
AP_SLACK = 0.02  # by which mAP or AP75 may exceed AP50
# Change of the score per change of the training score, outside the range of all other models.
STEEP = 2


def problems(case: Case) -> Iterator[str]:
    """Yield a problem for each score that is far from those of similar models of the same zoo."""
    if case.exact:
        return
    for name in case.populations:
        # Noise-added originals are not similar to other models.
        if case.populations[name].amplitude is None:
            yield from _by_training_scores(case, name)
            yield from _by_units(case, name)
        yield from _precision(case, name)
        yield from _pixels(case, name)


def _by_training_scores(case: Case, name: str) -> Iterator[str]:
    """Compare a population's mean score with the scores of other models with nearly the same training scores."""
    train = {one: case.arrays.get(f"train.{one}") for one in case.populations}
    training = train.pop(name)
    others = [(one, array.astype(float)) for one, array in train.items() if array is not None]
    if training is None or sum(len(array) for _, array in others) < 2 * MODELS:
        return
    trained = case.sign * np.concatenate([array for _, array in others])
    scores = np.concatenate([case.signed(one)[case.stored(one)] for one, _ in others])
    ours = case.sign * training.astype(float)
    expected = float(
        np.mean([np.median(group) for group in _nearest(ours, trained, scores, MODELS)])
    )
    found = float(case.signed(name)[case.stored(name)].mean())
    record = case.record
    distance = DISTANCE * abs(record.original.median)
    scale = TRAINED if record.task.metric.percent else distance
    beyond = STEEP * float(
        np.mean(np.maximum(0, ours - trained.max()) + np.maximum(0, trained.min() - ours))
    )
    if abs(found - expected) > scale + beyond:
        why = "by the scores of models with such training scores"
        yield mismatch(
            f"populations.{name}.mean", case.sign * found, f"about {case.sign * expected:.4g}", why
        )


def _nearest(ours: Floats, places: Floats, values: Floats, count: int) -> Iterator[Floats]:
    """Yield for each number the ``count`` values whose places are nearest to it in rank.

    Half of them lie below the number and half above, except at the ends.
    """
    order = np.argsort(places, kind="stable")
    for middle in np.searchsorted(places[order], ours):
        low = max(0, min(int(middle) - count // 2, len(order) - count))
        yield values[order[low : low + count]]


def _points(case: Case, name: str) -> list[tuple[float, float]]:
    """Return pairs of share of units right and score: the population's means, and those of its single models."""
    wrong, population = case.wrong_share(name), case.populations[name]
    points = [] if wrong is None else [(1 - float(wrong.mean()), population.mean)]
    for statistic in STATISTICS:
        right = case.right(name, statistic)
        if right is not None:
            chosen = statistic != "selected"
            score = (
                case.values(name)[case.model_index(name, statistic)]
                if chosen
                else population.selected
            )
            points.append((float(right.mean()), float(score)))
    return points


def _by_units(case: Case, name: str) -> Iterator[str]:
    """Check that no mAP is far above those of other models that find as many boxes.

    A higher precision cannot make up for boxes that are missed.
    """
    ours = _points(case, name)
    others = [point for one in case.populations if one != name for point in _points(case, one)]
    if case.record.task.metric.name != "mAP" or len(others) < 2 * POINTS or not ours:
        return
    shares, scores = np.array(others).T
    found = _nearest(np.array(ours)[:, 0], shares, scores, POINTS)
    for (share, score), near in zip(ours, found, strict=True):
        if score > near.max() + RIGHT:
            why = f"as of other models with {share:.1%} of the units right"
            yield mismatch(f"populations.{name}: a score", score, f"at most {near.max():.4g}", why)


def _precision(case: Case, name: str) -> Iterator[str]:
    """Check that mAP and AP75 are at most AP50: mAP is a mean over overlaps of which 0.5 is the easiest."""
    population = case.populations[name]
    at50, at75 = (population.further.get(f"AP{overlap}") for overlap in (50, 75))
    if case.record.task.metric.name != "mAP" or at50 is None:
        return
    for part in ("mean", "selected"):
        most, score = getattr(at50, part), getattr(population, part)
        if score > most + AP_SLACK:
            yield mismatch(f"populations.{name}.{part}", score, f"at most {most:.4g}", "its AP50")
        if at75 and getattr(at75, part) > most + AP_SLACK:
            yield mismatch(
                f"populations.{name}.further.AP75.{part}",
                getattr(at75, part),
                f"at most {most:.4g}",
            )


def _pixels(case: Case, name: str) -> Iterator[str]:
    """Compare the pixel accuracy with the share of units right; units are some pixels of every image."""
    found, wrong = case.populations[name].further.get("pixel accuracy"), case.wrong_share(name)
    if found is None or wrong is None or case.task is None:
        return
    share = 1 - float(wrong.mean())
    if abs(found.mean - share) > PIXELS:
        wanted = f"about {share:.4g}"
        yield mismatch(
            f"populations.{name}.further.pixel accuracy.mean", found.mean, wanted, "of the units"
        )
