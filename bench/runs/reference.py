"""Comparison of a record with scores of a few models by public implementations, one model at a time.

A task's scorer runs many models at once, on features that they share, and has formulas of its own. Here each model is
loaded into the plain network, which runs over the raw validation data, and its outputs go to public implementations of
the metrics (``bench.contract.plain``). Scores on which both agree are unlikely to be wrong.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from bench.contract import Task
from bench.contract.plain import Comparable, Plain
from bench.contract.zoo import Layout, Zoo
from bench.errors import BadRequest
from bench.records.population import Population
from bench.records.record import Record
from bench.runs.checked import Check
from bench.system.progress import say, track
from bench.system.randomness import generator

MODELS = 3  # drawn from each population with the record's id as seed; the selected model is added


def compare(
    record: Record, task: Task, zoo: Zoo, populations: Mapping[str, Float[Tensor, "n D"]]
) -> list[Check]:
    """Compare the record's scores with those of other implementations.

    Args:
        record: the record to check.
        task: with the record's settings.
        zoo: the record's checkpoints.
        populations: vectors of the models that the record has scores of, by the populations' names.

    Raises:
        BadRequest: the task has no plain network.
    """
    if not isinstance(task, Comparable):
        raise BadRequest(
            f"{type(task).__name__} cannot be compared with other implementations, it has no method 'plain': "
            "leave --reference out"
        )
    plain, claimed = task.plain(zoo), record.populations
    checks: list[Check] = []
    for name, vectors in track(list(populations.items()), "populations scored by other code"):
        if name in claimed:
            rng = generator(0, record.id, "reference", name)
            checks += _population(
                f"reference.{name}",
                claimed[name],
                vectors,
                plain,
                zoo.layout,
                record.task.metric.name,
                rng,
            )
    return checks


def _population(
    field: str,
    claimed: Population,
    vectors: Float[Tensor, "n D"],
    plain: Plain,
    layout: Layout,
    metric: str,
    rng: torch.Generator,
) -> Iterator[Check]:
    """Yield checks of a few models' scores in one population, and of the selected model's further metrics."""
    if claimed.n != len(vectors):
        problem = f"the record has {claimed.n} scores of {len(vectors)} models"
        yield Check(f"{field}.values", problem)
        return
    selected = _selected(claimed)
    for row in chosen(len(vectors), selected, rng):
        measured = measure(plain, layout, vectors[row])
        if measured is None:
            say(f"note: {field}: model {row} puts out what is not finite, and is not compared")
            continue
        yield _agrees(f"{field}.values.{row}", claimed.values[row], measured[metric], plain)
        further = claimed.further if row == selected else {}
        for name in sorted({*further} & {*measured}):
            said = further[name].selected
            yield _agrees(f"{field}.further.{name}.selected", said, measured[name], plain)


def _selected(claimed: Population) -> int | None:
    """Return the row of the selected model; None where several models have its score."""
    rows = [row for row, score in enumerate(claimed.values) if score == claimed.selected]
    return rows[0] if len(rows) == 1 else None


def chosen(count: int, selected: int | None, rng: torch.Generator) -> Sequence[int]:
    """Return the sorted rows of the models to compare: ``MODELS`` random ones and the selected one."""
    drawn = torch.randperm(count, generator=rng)[:MODELS].tolist()
    return sorted({*drawn, *([] if selected is None else [selected])})


def measure(plain: Plain, layout: Layout, vector: Float[Tensor, " D"]) -> dict[str, float] | None:
    """Return one model's metrics by public implementations; None where its outputs are not finite."""
    plain.network.load_state_dict({**plain.base, **layout.unflatten(vector)})
    return plain.measure(plain.network)


def _agrees(field: str, claimed: float, measured: float, plain: Plain) -> Check:
    if math.isclose(claimed, measured, rel_tol=plain.relative, abs_tol=plain.absolute):
        return Check(field)
    return Check(field, f"the record says {claimed}, another implementation says {measured}")
