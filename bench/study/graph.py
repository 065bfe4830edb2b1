"""The graph of a study's stages and their dependencies, as plain values; the store makes each stage once."""

import dataclasses
import functools
import json
from collections import Counter
from collections.abc import Mapping, Sequence

from bench import plugins
from bench.records.asked import TASK_OPTIONS
from bench.records.request import Request
from bench.study.recipe import Kind, Needs
from bench.system.data import Json, Settings
from bench.system.store import digest


@dataclasses.dataclass(frozen=True)
class Node:
    """One stage of a study.

    Attributes:
        id: equal for equal stages of any study.
        kind: base (which several zoos are collected from), collect (a zoo), controls (originals and every control
            scored), fit (a generator, and all that is sampled from it) or record (generated models scored, compared).
        label: a description for people.
        request: a run that the stage is part of.
        samples: of a fit, the numbers of models, each of which is sampled by itself.
        after: ids of the stages that it needs.
        needs: the resources that it occupies.
    """

    id: str
    kind: Kind
    label: str
    request: Request
    samples: tuple[int, ...] = ()
    after: tuple[str, ...] = ()
    needs: Needs = dataclasses.field(default_factory=Needs)


def build(requests: Sequence[Request], needs: Mapping[Kind, Needs]) -> list[Node]:
    """Return every stage of some runs, run by run, each after those that it needs.

    Runs share a base if they differ only in settings that do not affect it; a zoo if training and seed are equal (the
    largest K is collected, the others are its first checkpoints); the zoo's controls if K and the number of samples are
    equal too; and a fit if the generator and its seed are equal.
    """
    zoos = [Shared.of(request) for request in requests]
    largest: dict[str, int] = {}
    for request, shared in zip(requests, zoos, strict=True):
        largest[shared.zoo] = max(request.k, largest.get(shared.zoo, 0))
    several = Counter(base for base, _ in {(shared.base, shared.zoo) for shared in zoos})
    nodes: dict[str, Node] = {}
    for request, shared in zip(requests, zoos, strict=True):
        collected = None if request.zoo else largest[shared.zoo]
        request = dataclasses.replace(request, collected=collected)
        for node in _stages(request, shared, based=several[shared.base] > 1 and not request.zoo):
            known = nodes.get(node.id, node)
            counts = tuple(sorted({*known.samples, *node.samples}))
            resources = needs.get(node.kind, Needs())
            nodes[node.id] = dataclasses.replace(known, samples=counts, needs=resources)
    return _with_distinct_labels(list(nodes.values()))


@dataclasses.dataclass(frozen=True)
class Shared:
    """Hashes of the settings that determine a run's base, its zoo (except for its size) and its scores."""

    base: str
    zoo: str
    scores: str

    @classmethod
    def of(cls, request: Request) -> "Shared":
        """Return the hashes of a run, from all settings of its task, defaults included."""
        task = plugins.load_task(request.task, request.preset, request.task_settings)
        settings = task.settings()
        facts = [
            request.task,
            request.zoo_seed,
            request.data_dir,
            str(request.zoo),
            request.collect,
        ]

        def part(without: Sequence[str]) -> str:
            return digest([*facts, _plain({n: v for n, v in settings.items() if n not in without})])

        # The size of the training split affects how models are scored, not the checkpoints.
        return cls(part(task.beside_base), part(["train_size"]), part([]))


def _stages(request: Request, shared: Shared, *, based: bool) -> list[Node]:
    """Return the stages of one run; with a stage for its base if ``based``, because other zoos need the base too."""
    zoo_seed = {"zoo_seed": request.zoo_seed} if request.zoo_seed else {}
    words = functools.partial(_words, request, "task", "layers", "track", "arch", **zoo_seed)
    fit = [shared.scores, request.k, request.generator, _plain(request.generator_settings)]
    fit += [request.preset, request.seed, request.align]
    zoo, scores = [shared.zoo], [shared.scores, request.k, request.samples]
    bases = (
        [_node("base", [shared.base], request, _words(request, "task", "arch", **zoo_seed))]
        if based
        else []
    )
    collect = _node("collect", zoo, request, words(k=request.collected or request.k), *bases)
    controls = _node("controls", scores, request, words(k=request.k), collect)
    fitted = (
        f"{request.generator} {words(k=request.k, seed=request.seed, **request.generator_settings)}"
    )
    fits = _node("fit", fit, request, fitted, collect)
    fits = dataclasses.replace(fits, samples=(request.samples,))
    scored = [*fit, request.samples, request.min_score]
    record = _node("record", scored, request, fitted, controls, fits)
    return [*bases, collect, controls, fits, record]


def _with_distinct_labels(nodes: list[Node]) -> list[Node]:
    """Return the stages; equal labels are extended by the task's settings in which their stages differ."""
    alike: dict[str, list[Settings]] = {}
    for node in nodes:
        alike.setdefault(node.label, []).append(node.request.task_settings)
    return [
        dataclasses.replace(
            node, label=" ".join([node.label, *_differing(node, alike[node.label])])
        )
        for node in nodes
    ]


def _differing(node: Node, others: Sequence[Settings]) -> list[str]:
    settings = node.request.task_settings
    return [
        f"{n}={value}" for n, value in settings.items() if any(o.get(n) != value for o in others)
    ]


def _node(kind: Kind, identity: list[Json], request: Request, label: str, *after: Node) -> Node:
    needed = tuple(node.id for node in after)
    return Node(digest([kind, *identity]), kind, f"{kind} {label}", request, after=needed)


def _plain(settings: Mapping[str, object]) -> object:
    """Return settings as plain JSON data, for a digest."""
    return json.loads(json.dumps(settings, default=str))


def _words(request: Request, *names: str, **numbers: object) -> str:
    """Return the part of a label that names a request's fields and given numbers."""
    settings = {**dict.fromkeys(TASK_OPTIONS), **request.task_settings}
    said = [settings[n] if n in TASK_OPTIONS else getattr(request, n) for n in names]
    given = [str(value or "") for value in said]
    return " ".join(filter(None, [*given, *(f"{n}={value}" for n, value in numbers.items())]))
