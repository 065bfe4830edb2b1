"""Times of a run, and the speedups and the break-even computed from them."""

import math
from collections.abc import Sequence

from bench.contract import Metric
from bench.records.facts import Timing


def timing(
    *,
    device: str,
    curve: Sequence[tuple[float, float]],
    collect_s: float | None,
    fit_s: float,
    sample_s: float,
    samples: int,
    select_s: float,
    score_s: float,
    selected: float,
    best: float,
    metric: Metric,
    peak_memory_bytes: int,
) -> Timing:
    """Return a run's times, speedups and break-even; ``bench.records.facts.Timing`` defines them.

    Args:
        curve: (seconds of training, validation score) of SGD, in order.
        samples: models that ``sample_s`` and ``select_s`` are for.
        selected: validation score of the selected generated model.
        best: validation score of the best original.
        metric: of the scores.
    """
    sign, worse = metric.sign, min if metric.higher_is_better else max
    target = worse(selected, best)
    sgd_s = next((seconds for seconds, score in curve if sign * score >= sign * target), None)
    per_model = sample_s / samples
    fixed = None if collect_s is None else collect_s + fit_s + select_s
    return Timing(
        device=device,
        collect_s=collect_s,
        fit_s=fit_s,
        sample_s=sample_s,
        sample_per_model_s=per_model,
        select_s=select_s,
        score_s=score_s,
        target_score=target,
        sgd_s=sgd_s,
        speedup=sgd_s / per_model if sgd_s is not None and per_model > 0 else None,
        speedup_amortised=(
            None if sgd_s is None or fixed is None else sgd_s / ((fixed + sample_s) / samples)
        ),
        break_even_models=(
            None
            if sgd_s is None or fixed is None or sgd_s <= per_model
            else max(1, math.ceil(fixed / (sgd_s - per_model)))
        ),
        peak_memory_bytes=peak_memory_bytes,
    )
