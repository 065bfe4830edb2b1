"""Checks of scores on replicates of the validation examples against the scores on the examples themselves."""

from collections.abc import Iterator

from bench.metrics import replicates
from bench.records.checks.case import Case, out_of_range
from bench.records.side import RESAMPLED


def problems(case: Case) -> Iterator[str]:
    """Yield a problem for each score whose replicates are not around it."""
    kind = case.record.task.metric.resampled
    for name, population in case.populations.items():
        for which in RESAMPLED:
            array = case.arrays.get(f"resampled_{which}.{name}")
            if array is None:
                continue
            score, values = getattr(population, which), array.astype(float).tolist()
            slack = replicates.slack(score, values, kind)
            place = f"side file: mean of resampled_{which}.{name}"
            mean = float(array.astype(float).mean())
            why = f"of populations.{name}.{which}"
            yield from out_of_range(place, mean, score - slack, score + slack, why)
