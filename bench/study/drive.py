"""Execution of a study: records that exist are kept, missing ones are made, failures are reported at the end."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path

from bench import plugins
from bench.errors import BadRequest, BenchError
from bench.records.asked import Asked
from bench.records.record import Record
from bench.records.request import Request
from bench.study import local, on_ray
from bench.study.executor import Executor, Finished, Outcome, Setting, Started
from bench.study.graph import Node, build
from bench.study.past import Past
from bench.study.plan import Plan
from bench.study.recipe import KINDS, Cell, Kind, Needs, Recipe, requests
from bench.study.view import View
from bench.system import remote, store
from bench.system.identity import Code

EXECUTORS: dict[str, Callable[[Setting], AbstractContextManager[Executor]]] = {
    "local": local.opened,
    "ray": on_ray.opened,
}


@dataclasses.dataclass(frozen=True)
class Execution:
    """Options of a study's execution.

    Attributes:
        results: folder of the records.
        device: auto, cpu or cuda.
        data_dir: folder of real data; None stands for the suite's cache folder.
        executor, address: local or ray, and the address of a Ray cluster.
        retries: how often a stage is restarted after its process died.
    """

    results: Path
    device: str = "auto"
    data_dir: str | None = None
    executor: str = "local"
    address: str | None = None
    retries: int = 2


@dataclasses.dataclass
class Summary:
    """The result of a study's execution.

    Attributes:
        before, now: numbers of runs whose record existed before, and whose record was written now.
        stages: numbers of stages that ended in each state.
        failures: stages that failed, with the reason and the file of their output.
    """

    before: int = 0
    now: int = 0
    stages: dict[str, int] = dataclasses.field(default_factory=dict)
    failures: list[tuple[Node, str, Path]] = dataclasses.field(default_factory=list)

    def count(self, node: Node, outcome: Outcome, log: Path) -> None:
        """Add a stage that has ended to the summary."""
        self.stages[outcome.state] = self.stages.get(outcome.state, 0) + 1
        self.now += node.kind == "record" and outcome.fine
        if outcome.state == "failed":
            self.failures.append((node, outcome.error, log))


def run(recipe: Recipe, cells: Sequence[Cell], execution: Execution) -> Summary:
    """Make every missing record of some cells.

    Raises:
        BadRequest: the study cannot be run; nothing was started.
    """
    store.check_writable(execution.results)
    remote.check()
    check(recipe, cells)
    logs = store.home() / "logs" / recipe.name
    environment = {"BENCH_HOME": str(store.home().resolve()), "BENCH_STORE": remote.url() or ""}
    setting = Setting(environment, logs, modules(cells), execution.retries, execution.address)
    with EXECUTORS[execution.executor](setting) as executor:
        asked = placed(cells, execution, executor.gpus)
        left = unfinished(asked, execution.results)
        nodes = build(left, needs(recipe, asked[0].device))
        store.check_writable(logs)
        summary = Summary(before=len(asked) - len(left))
        past = Past()
        with View(recipe.title, nodes, past) as view, closing(executor.execute(nodes)) as events:
            for event in events:
                if isinstance(event, Started):
                    view.started(event)
                    continue
                event = _written(event, execution.results)
                past.keep(event.node, event.outcome)
                summary.count(event.node, event.outcome, setting.log(event.node))
                view.finished(event)
    return summary


def plan(recipe: Recipe, cells: Sequence[Cell], execution: Execution) -> Plan:
    """Return the plan of what ``run`` would do on this machine; a cluster may have other devices."""
    check(recipe, cells)
    with EXECUTORS["local"](Setting({}, Path())) as executor:
        asked = placed(cells, execution, executor.gpus)
    left = unfinished(asked, execution.results)
    return Plan(asked, left, build(left, needs(recipe, asked[0].device)))


def modules(cells: Sequence[Cell]) -> list[str]:
    """Return the names of the modules that the stages of some cells import."""
    loaded = {plugins.load_generator(cell.request.generator).__module__ for cell in cells}
    targets = {plugins.task_variant(cell.request.task).target for cell in cells}
    named = {target.partition(":")[0] for target in targets}
    return ["bench.runs.pipeline", "bench.study.work", "sklearn.manifold", *sorted(loaded | named)]


def check(recipe: Recipe, cells: Sequence[Cell]) -> None:
    """Check that all tasks and generators of some cells exist and accept their settings.

    Raises:
        BadRequest: one does not; the message names the recipe.
    """
    from bench.runs import prepared  # here, because it takes seconds

    try:
        for request in {repr(_task(r)): r for r in requests(cells)}.values():
            prepared.load_task(request, "cpu")
        for request in {repr(_generator(r)): r for r in requests(cells)}.values():
            prepared.generator(request, "cpu")
    except BadRequest as error:
        raise BadRequest(f"{recipe.name}: {error}") from None


def _task(request: Request) -> list[object]:
    return [request.task, request.preset, sorted(request.task_settings.items())]


def _generator(request: Request) -> list[object]:
    return [request.generator, request.preset, sorted(request.generator_settings.items())]


def placed(cells: Sequence[Cell], execution: Execution, gpus: int) -> list[Request]:
    """Return the runs of some cells, each once, with their device and folders.

    Raises:
        BadRequest: the device is unknown or missing.
    """
    if execution.device not in ("auto", "cpu", "cuda"):
        raise BadRequest(
            f"unknown device '{execution.device}' of a study: expected auto, cpu or cuda"
        )
    if execution.device == "cuda" and not gpus:
        raise BadRequest("device 'cuda' is not there: choose --device cpu")
    device = "cuda" if gpus and execution.device != "cpu" else "cpu"
    data_dir = str(Path(execution.data_dir).resolve()) if execution.data_dir else None
    return [
        dataclasses.replace(
            _absolute(request),
            device=device,
            data_dir=data_dir if _reads_folder(request) else None,
            results=execution.results,
        )
        for request in requests(cells)
    ]


def _reads_folder(request: Request) -> bool:
    """Return whether a run reads its data from a folder; other data come with the suite."""
    task = plugins.load_task(request.task, request.preset, request.task_settings)
    return not task.embedded


def _absolute(request: Request) -> Request:
    """Return a run with absolute paths of its files."""
    settings = dict(request.task_settings)
    weights = settings.get("pretrained")
    if weights and Path(str(weights)).exists():
        settings["pretrained"] = str(Path(str(weights)).resolve())
    zoo = request.zoo.resolve() if request.zoo else None
    return dataclasses.replace(request, task_settings=settings, zoo=zoo)


def needs(recipe: Recipe, device: str) -> dict[Kind, Needs]:
    """Return the resources of each kind of stage. All stages compute on one device: on a GPU each needs a share.

    Raises:
        BadRequest: the study computes on GPUs, and a kind of stage has no share of one.
    """
    by_kind = {kind: recipe.needs.get(kind, Needs()) for kind in KINDS}
    if device == "cpu":
        return {kind: part.model_copy(update={"gpus": 0.0}) for kind, part in by_kind.items()}
    for kind, part in by_kind.items():
        if not part.gpus:
            raise BadRequest(
                f"{recipe.name}: needs.{kind}.gpus is 0, but the study computes on GPUs: "
                "give it a share, or choose --device cpu"
            )
    return by_kind


def unfinished(asked: Sequence[Request], results: Path) -> list[Request]:
    """Return the runs without a record of the same code on the same kind of device."""
    known = records(results)
    distinct = {repr(_generator(request)): request for request in asked}
    code = Code()
    sources = {name: _source(code, request) for name, request in distinct.items()}

    def recorded(request: Request) -> bool:
        return any(
            record.generator.code == sources[repr(_generator(request))]
            and (record.timing.device == "cpu") == (request.device == "cpu")
            for record in known.get(request.asked, ())
        )

    return [request for request in asked if not recorded(request)]


def _source(code: Code, request: Request) -> str:
    """Return the identity of a run's generator: its code, and the files that its settings name."""
    from bench.runs import foreign, prepared  # here, because it takes seconds

    made = prepared.generator(request, "cpu")
    return code.of(made, foreign.hyperparameters(made))


def records(results: Path) -> Mapping[Asked, list[Record]]:
    """Read the records below a folder, by request, oldest first; files that are no valid records are ignored."""
    known: dict[Asked, list[Record]] = {}
    for path in sorted(results.rglob("*.json")):
        try:
            record = Record.read(path)
            known.setdefault(record.request, []).append(record)
        except BadRequest:
            continue  # 'bench check' reports it
    for made in known.values():
        made.sort(key=lambda record: record.created)
    return known


def _written(event: Finished, results: Path) -> Finished:
    """Write an event's files to the results folder; return the event, failed if they cannot be written."""
    try:
        for name, content in event.outcome.files.items():
            with store.atomic(results / name) as temporary:
                temporary.write_bytes(content)
    except BenchError as error:
        return Finished(event.node, Outcome("failed", error=str(error)))
    return event
