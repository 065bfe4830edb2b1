"""A study as a graph: its stages, and what needs what. Plain values; the store makes each stage once."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from bench.request import DIRECT, Request
from bench.store import digest
from bench.study.recipe import Kind, Needs


@dataclasses.dataclass(frozen=True)
class Node:
    """One stage.

    Attributes:
        id: the same for the same stage of any study.
        kind: collect (a zoo), controls (originals and every control scored), fit (a generator, and all that is sampled
            from it) or record (generated models scored and compared).
        label: for people.
        request: a run that the stage is part of.
        samples: how many models are sampled, each count by itself; of a fit.
        after: ids of the stages that it needs.
        needs: what it occupies.
    """

    id: str
    kind: Kind
    label: str
    request: Request
    samples: tuple[int, ...] = ()
    after: tuple[str, ...] = ()
    needs: Needs = dataclasses.field(default_factory=Needs)


def build(requests: Sequence[Request], needs: Mapping[Kind, Needs]) -> list[Node]:
    """Every stage of some runs, run by run, each after those that it needs.

    Runs share a zoo where task, preset and seed of the checkpoints are equal (the largest K is collected, the others
    are its first checkpoints), its controls where K and the number of samples are, and a fit where the generator and
    its seed are.
    """
    largest: dict[str, int] = {}
    for request in requests:
        zoo = zoo_id(request)
        largest[zoo] = max(request.k, largest.get(zoo, 0))
    nodes: dict[str, Node] = {}
    for request in requests:
        collected = None if request.zoo else largest[zoo_id(request)]
        for node in _stages(dataclasses.replace(request, collected=collected)):
            known = nodes.get(node.id, node)
            counts = tuple(sorted({*known.samples, *node.samples}))
            kind = needs.get(node.kind, Needs())
            nodes[node.id] = dataclasses.replace(known, samples=counts, needs=kind)
    return list(nodes.values())


def zoo_id(request: Request) -> str:
    """What decides which checkpoints a run gets, but for their number."""
    own = [request.task, request.preset, request.zoo_seed, request.data_dir, str(request.zoo)]
    return digest([*own, _plain(request.of_task())])


def _stages(request: Request) -> list[Node]:
    """The stages of one run."""
    zoo, collected = zoo_id(request), request.collected or request.k
    fit = [zoo, request.k, request.generator, _plain(request.of_generator())]
    fit += [request.seed, request.align]
    fitted = _words(request, "generator", "task", k=request.k, seed=request.seed)
    collect = _node("collect", [zoo], request, _words(request, "task", "layers", k=collected))
    controls = _node(
        "controls", [zoo, request.k, request.samples], request,
        _words(request, "task", "layers", k=request.k), collect,
    )  # fmt: skip
    fits = _node("fit", fit, request, fitted, collect)
    fits = dataclasses.replace(fits, samples=(request.samples,))
    own = [*fit, request.samples, request.min_score]
    return [collect, controls, fits, _node("record", own, request, fitted, controls, fits)]


def _node(kind: Kind, identity: list[Any], request: Request, label: str, *after: Node) -> Node:
    needed = tuple(node.id for node in after)
    return Node(digest([kind, *identity]), kind, f"{kind} {label}", request, after=needed)


def _plain(settings: Mapping[str, object]) -> object:
    """Settings as the plain data that a digest takes."""
    return json.loads(json.dumps(settings, default=str))


def _words(request: Request, *names: str, **numbers: int) -> str:
    """The parts of a label."""
    own = {name: request.settings.get(f"task.{name}") for name in DIRECT}
    given = [str(getattr(request, name, None) or own.get(name) or "") for name in names]
    words = [*given, str(own["arch"] or ""), *(f"{n}={value}" for n, value in numbers.items())]
    return " ".join(filter(None, words))
