"""The executor that runs stages as tasks of a Ray cluster, which orders, places and restarts them."""

import contextlib
import dataclasses
import functools
import importlib
import os
import socket
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from bench.errors import BadRequest
from bench.study.executor import (
    Event,
    Executor,
    Finished,
    Outcome,
    Setting,
    Started,
    missing,
    skipped,
)
from bench.study.graph import Node
from bench.study.recipe import Needs
from bench.system.progress import say

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

GRACE = 5.0  # seconds to wait for stages to stop
LOOK = 0.5  # seconds between two checks for new events


@contextlib.contextmanager
def opened(setting: Setting) -> Iterator[Executor]:
    """Yield an executor on the cluster at ``setting.address`` or ``RAY_ADDRESS``, or on one that is started here.

    Raises:
        BadRequest: Ray is not installed, or there is no cluster at the address.
    """
    try:
        ray = importlib.import_module("ray")
    except ImportError:
        raise BadRequest(
            "--executor ray needs Ray, which is not installed: pip install 'pgen-bench[ray]'"
        ) from None
    address = setting.address or os.environ.get("RAY_ADDRESS") or "local"
    _answers(address)
    local_options = (
        {"include_dashboard": False, "object_store_memory": 2**28} if address == "local" else {}
    )
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error", **local_options)
    except (ConnectionError, ValueError) as error:
        raise BadRequest(f"no Ray cluster at {address}: {error}") from None
    try:
        gpus = int(ray.cluster_resources().get("GPU", 0))
        yield Executor(gpus, functools.partial(_execute, ray, setting))
    finally:
        ray.shutdown()


def _answers(address: str) -> None:
    """Check that a server listens at the address; Ray itself would wait for minutes.

    Raises:
        BadRequest: none does.
    """
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and "://" not in address:
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            raise BadRequest(f"no Ray cluster at {address}: {error}") from None


def _execute(ray: ModuleType, setting: Setting, nodes: Sequence[Node]) -> Generator[Event]:
    for needs in {node.needs for node in nodes}:
        _warn(ray, needs)
    board = ray.remote(num_cpus=0)(Board).remote()
    tasks = _submit(ray, setting, nodes, board)
    ended: dict[str, Outcome] = {}
    known = {node.id: node for node in nodes}
    try:
        while len(ended) < len(nodes):
            waiting = [tasks[name] for name in known if name not in ended]
            ready, _ = ray.wait(waiting, num_returns=len(waiting), timeout=LOOK)
            with contextlib.suppress(ray.exceptions.RayError):
                for name, where in ray.get(board.take.remote()):
                    yield Started(known[name], where)
            for name in [name for name in known if name not in ended and tasks[name] in set(ready)]:
                outcome = _outcome(ray, tasks[name])
                lacking = missing(known[name], known, ended)
                ended[name] = skipped(lacking) if lacking else outcome
                _keep_log(setting, known[name], outcome)
                yield Finished(known[name], ended[name])
    finally:
        _stop(ray, [task for name, task in tasks.items() if name not in ended])


def _submit(
    ray: ModuleType, setting: Setting, nodes: Sequence[Node], board: "ActorHandle[Board]"
) -> "dict[str, ObjectRef[Outcome]]":
    """Submit all stages as tasks, each with the tasks that it needs; return the tasks by stage."""
    # One process per stage, so that peak memory is measured per stage.
    stage = ray.remote(max_calls=1)(_stage)
    environment = dict(setting.environment)
    if environment.get("BENCH_STORE"):  # then each machine has a local one of its own
        del environment["BENCH_HOME"]
    tasks: dict[str, ObjectRef[Outcome]] = {}
    for node in nodes:
        options = stage.options(
            num_cpus=node.needs.cpus,
            num_gpus=node.needs.gpus,
            memory=int(node.needs.memory_gb * 1e9),
            max_retries=setting.retries,
            name=node.label,
        )
        needed = [tasks[name] for name in node.after]
        tasks[node.id] = options.remote(node, environment, board, *needed)
    return tasks


def _stage(
    node: Node, environment: Mapping[str, str], board: "ActorHandle[Board]", *needed: Outcome
) -> Outcome:
    """Carry out one stage, as a task on some machine of the cluster."""
    from bench.study.work import carry_out, print_to

    if not all(outcome.fine for outcome in needed):
        return Outcome("skipped")
    board.start.remote(node.id, socket.gethostname())
    os.environ.update(environment)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        print_to(log)
        outcome = carry_out(node)
        return dataclasses.replace(outcome, log=log.read_text(encoding="utf-8", errors="replace"))


class Board:
    """The actor to which tasks report that they begin."""

    def __init__(self) -> None:
        self._started: list[tuple[str, str]] = []

    def start(self, node: str, where: str) -> None:
        """Note that a stage begins on the machine ``where``."""
        self._started.append((node, where))

    def take(self) -> list[tuple[str, str]]:
        """Return the stages that have begun since the last call, with their machines."""
        started, self._started = self._started, []
        return started


def _outcome(ray: ModuleType, task: "ObjectRef[Outcome]") -> Outcome:
    try:
        outcome: Outcome = ray.get(task)
    except ray.exceptions.RayError as error:
        first = str(error).strip().partition("\n")[0]
        return Outcome("failed", error=f"{type(error).__name__}: {first}", log=str(error))
    return outcome


def _keep_log(setting: Setting, node: Node, outcome: Outcome) -> None:
    if outcome.log:
        setting.log(node).write_text(outcome.log, encoding="utf-8")


def _stop(ray: ModuleType, tasks: "Sequence[ObjectRef[Outcome]]") -> None:
    """Cancel tasks; running ones are interrupted, so that they remove half-written files."""
    for task in tasks:
        ray.cancel(task)
    if tasks:
        ray.wait(list(tasks), num_returns=len(tasks), timeout=GRACE)


def _warn(ray: ModuleType, needs: Needs) -> None:
    """Print a note if no machine of the cluster has the resources that a stage needs; it waits for one to join."""
    wanted = {"CPU": needs.cpus, "GPU": needs.gpus, "memory": needs.memory_gb * 1e9}
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(
        all(machine.get(name, 0) >= amount for name, amount in wanted.items())
        for machine in machines
    ):
        say(
            f"no machine of the cluster has {needs.cpus} cores, {needs.gpus:g} GPUs and {needs.memory_gb:g} GB: "
            "stages that need them wait until one joins"
        )
