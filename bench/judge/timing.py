"""Times of a run in the form of a record, with what follows from them."""

from collections.abc import Sequence

from bench.contract import Metric
from bench.records import facts
from bench.records.facts import Timing
from bench.records.fields import Verdict
from bench.records.speed import Cost, has_base, of_sgd, speed


def timing(
    *,
    device: str,
    zoo: facts.Zoo,
    layers: str,
    curve: Sequence[tuple[float, float]],
    collect_s: float | None,
    fit_s: float,
    sample_s: float,
    sample_repeats_s: Sequence[float],
    models: int,
    select_s: float,
    score_s: float,
    selected: float,
    best: float,
    metric: Metric,
    word: Verdict | None,
    peak_memory_bytes: int,
) -> Timing:
    """Return a run's times, speed-ups and break-even; ``bench.records.facts.Timing`` defines them.

    Args:
        zoo: facts of the checkpoints.
        layers: the generated part of the network.
        curve: (seconds of training, validation score) of SGD, in order; its last points are the checkpoints.
        sample_s: seconds of sampling all models.
        sample_repeats_s: the timed repeats that this is the median of; empty in files from before there were any.
        models: how many ``sample_s`` and ``select_s`` are for.
        selected: validation score of the selected generated model.
        best: validation score of the best original.
        metric: of the scores.
        word: the verdict; there is no speed-up where it is "broken".
    """
    target = (min if metric.higher_is_better else max)(selected, best)
    based = has_base(zoo.track, layers, zoo.base_score)
    sgd = of_sgd(curve, zoo.k, target=target, sign=metric.sign, based=based)
    cost = Cost.measured(
        collect_s=collect_s, fit_s=fit_s, sample_s=sample_s, select_s=select_s, models=models
    )
    return Timing(
        device=device,
        collect_s=collect_s,
        fit_s=fit_s,
        sample_s=sample_s,
        sample_repeats_s=list(sample_repeats_s) or None,
        select_s=select_s,
        score_s=score_s,
        target_score=target,
        base_s=sgd.base_s,
        sgd_s=sgd.target_s,
        marginal_s=sgd.marginal_s,
        peak_memory_bytes=peak_memory_bytes,
        **vars(speed(cost, sgd, word)),
    )
