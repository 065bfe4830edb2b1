"""The executor that runs stages in processes of this machine, as many at once as it has room for."""

import contextlib
import dataclasses
import functools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from graphlib import TopologicalSorter
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from bench.errors import BenchError, unexpected
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
from bench.study.work import carry_out, print_to

GRACE = 5.0  # seconds that a stage has to stop before it is killed


@contextlib.contextmanager
def opened(setting: Setting) -> Iterator[Executor]:
    """Yield an executor on this machine."""
    yield Executor(len(_devices()), functools.partial(_execute, setting))


def _execute(setting: Setting, nodes: Sequence[Node]) -> Generator[Event]:
    agenda, room, jobs = Agenda(nodes), Room.of_machine(), Jobs(setting)
    try:
        while agenda.active:
            for node in agenda.ready():
                if (lacking := agenda.missing(node)) is not None:
                    outcome = skipped(lacking)
                    agenda.end(node, outcome)
                    yield Finished(node, outcome)
                elif (devices := room.take(node.needs)) is not None:
                    agenda.begin(node)
                    jobs.start(node, devices)
                    yield Started(node)
            for job, outcome in jobs.finished():
                room.give_back(job.node.needs, job.devices)
                agenda.end(job.node, outcome)
                yield Finished(job.node, outcome)
    finally:
        jobs.stop()


class Agenda:
    """The order of stages: those that wait for no other can begin, in their given order."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = {node.id: node for node in nodes}
        self._order = TopologicalSorter({node.id: node.after for node in nodes})
        self._order.prepare()
        self._ready: set[str] = set()
        self._ended: dict[str, Outcome] = {}

    @property
    def active(self) -> bool:
        """Whether a stage has not ended yet."""
        return len(self._ended) < len(self._nodes)

    def ready(self) -> list[Node]:
        """Return the stages that can begin now."""
        self._ready |= set(self._order.get_ready())
        return [node for name, node in self._nodes.items() if name in self._ready]

    def missing(self, node: Node) -> Node | None:
        """Return the first failed or skipped stage among those that a stage needs; None if there is none."""
        return missing(node, self._nodes, self._ended)

    def begin(self, node: Node) -> None:
        """Note that a stage has begun."""
        self._ready.remove(node.id)

    def end(self, node: Node, outcome: Outcome) -> None:
        """Note that a stage has ended: stages that waited for it can begin."""
        self._ready.discard(node.id)
        self._ended[node.id] = outcome
        self._order.done(node.id)


@dataclasses.dataclass
class Room:
    """Free resources of this machine.

    Attributes:
        cpus, memory_gb: free cores and main memory.
        gpus: the free share of each device, by what ``CUDA_VISIBLE_DEVICES`` calls it.
        taken: number of running stages.
    """

    cpus: int
    memory_gb: float
    gpus: dict[str, float]
    taken: int = 0

    @classmethod
    def of_machine(cls) -> "Room":
        """Return the resources of this machine, all free."""
        affinity = getattr(os, "sched_getaffinity", None)
        cpus = len(affinity(0)) if affinity else os.cpu_count() or 1
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
        return cls(cpus, memory, dict.fromkeys(_devices(), 1.0))

    def take(self, needs: Needs) -> tuple[str, ...] | None:
        """Take a stage's resources; return its devices, or None without room. A single stage always has room."""
        share = min(needs.gpus, 1.0)
        free = [name for name, left in self.gpus.items() if left >= share - 1e-9]
        devices = tuple(free[: max(1, round(needs.gpus))]) if needs.gpus else ()
        enough = len(devices) >= min(needs.gpus, 1) and needs.cpus <= self.cpus
        if self.taken and not (enough and needs.memory_gb <= self.memory_gb):
            return None
        self._change(needs, devices, -1)
        return devices

    def give_back(self, needs: Needs, devices: tuple[str, ...]) -> None:
        """Free the resources of a stage that has ended."""
        self._change(needs, devices, 1)

    def _change(self, needs: Needs, devices: tuple[str, ...], sign: int) -> None:
        self.taken -= sign
        self.cpus += sign * needs.cpus
        self.memory_gb += sign * needs.memory_gb
        for name in devices:
            self.gpus[name] += sign * min(needs.gpus, 1.0)


def _devices() -> list[str]:
    """Return the GPUs that this process may use."""
    import torch  # here, because the command line must not wait for it

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else map(str, range(torch.cuda.device_count()))
    return list(names)[: torch.cuda.device_count()]


@dataclasses.dataclass
class Job:
    """A stage in a process."""

    node: Node
    devices: tuple[str, ...]
    process: BaseProcess
    answer: Connection
    left: int


class Jobs:
    """The running stages, each in its own process: peak memory is measured per stage, and a crash affects no other.

    On Linux the processes are forked from a server that has only imported the modules they need.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self._context: ForkServerContext | SpawnContext = multiprocessing.get_context("spawn")
        if sys.platform == "linux":
            self._context = multiprocessing.get_context("forkserver")
            self._context.set_forkserver_preload(list(setting.modules))
            with _interrupts_ignored():
                forkserver.ensure_running()
        self._jobs: list[Job] = []

    def start(self, node: Node, devices: tuple[str, ...], left: int | None = None) -> None:
        """Start the process of a stage, which may be restarted ``left`` times."""
        left = self.setting.retries if left is None else left
        environment = dict(self.setting.environment)
        if devices:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
        answer, theirs = self._context.Pipe(duplex=False)
        arguments = (node, environment, self.setting.log(node), theirs)
        process = self._context.Process(target=_serve, args=arguments, daemon=True)
        try:
            process.start()
        except (EOFError, OSError) as error:
            raise BenchError(
                f"no process could be started ({unexpected(error)}): was the one that starts them killed, by hand or "
                "for memory? Run the command again, finished stages are kept"
            ) from error
        theirs.close()
        self._jobs.append(Job(node, devices, process, answer, left))

    def finished(self) -> Iterator[tuple[Job, Outcome]]:
        """Wait up to a second for stages to end; yield those that have, with their outcomes."""
        waiting: list[Connection] = [job.answer for job in self._jobs]
        for answer in wait(waiting, timeout=1.0):
            job = next(job for job in self._jobs if job.answer is answer)
            self._jobs.remove(job)
            outcome = self._outcome(job)
            if outcome is not None:
                yield job, outcome

    def _outcome(self, job: Job) -> Outcome | None:
        """Return the outcome of a stage; None if its process died and was restarted."""
        outcome: Outcome | None = None
        with contextlib.suppress(EOFError, OSError):
            outcome = job.answer.recv()
        job.process.join(GRACE)
        if outcome is not None:
            return outcome
        reason = f"its process died ({_reason(job.process.exitcode)})"
        with (
            contextlib.suppress(OSError),  # the disk may be full
            self.setting.log(job.node).open("a", encoding="utf-8") as log,
        ):
            print(reason, file=log)
        if job.left > 0:
            self.start(job.node, job.devices, job.left - 1)
            return None
        return Outcome("failed", error=f"{reason} {self.setting.retries + 1} times")

    def stop(self) -> None:
        """Stop all running stages."""
        for job in self._jobs:
            job.process.terminate()
        for job in self._jobs:
            job.process.join(GRACE)
            if job.process.is_alive():
                job.process.kill()
                job.process.join()
        self._jobs.clear()


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Ignore Ctrl-C in processes that are started within the block and in their children: the driver stops them."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _reason(exitcode: int | None) -> str:
    """Return the reason why a process ended."""
    if exitcode is None or exitcode >= 0:
        return f"exit code {exitcode}"
    hint = ": out of memory?" if exitcode == -signal.SIGKILL else ""
    return f"{signal.Signals(-exitcode).name}{hint}"


def _serve(node: Node, environment: Mapping[str, str], log: Path, answer: Connection) -> None:
    """Carry out one stage in this process, and send its outcome to the driver."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the driver stops them
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that half-written files are removed
    threading.Thread(target=_stop_with_driver, daemon=True).start()
    os.environ.update(environment)
    print_to(log)
    answer.send(carry_out(node))


def _stop_with_driver() -> None:
    """Wait for the driver's process to end, then stop this one."""
    driver = multiprocessing.parent_process()
    if driver is not None:
        wait([driver.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(GRACE)
        os._exit(1)
