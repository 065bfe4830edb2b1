"""Profiling of a run: torch's profiler around each stage."""

import contextlib
import dataclasses
import functools
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table
from torch.autograd.profiler_util import FunctionEventAvg
from torch.profiler import ProfilerActivity, profile

from bench.system.timing import Stopwatch

TOP = 5  # operations shown of each stage
WINDOW = 2.0  # seconds of each stage that are traced: reading a trace takes many times as long as making it


@dataclasses.dataclass(frozen=True)
class Operation:
    """One kind of operation: its name, calls, and the seconds spent in it and not in what it calls."""

    name: str
    calls: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Stage:
    """One profiled stage: wall seconds, the costliest operations of its first seconds, and the file of their trace."""

    name: str
    seconds: float
    operations: list[Operation]
    trace: Path


class Profile:
    """Profiles stages one by one and keeps a trace of each, for Perfetto or chrome://tracing.

    Args:
        folder: of the traces, one file per stage.
        device: the device of the run.
    """

    def __init__(self, folder: Path, device: str) -> None:
        self.folder, self.device = folder, device
        self.stages: list[Stage] = []

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure the time of the block, and profile its first ``WINDOW`` seconds."""
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the library's own messages help nobody
        activities = [ProfilerActivity.CPU]
        if self.device.startswith("cuda"):
            activities.append(ProfilerActivity.CUDA)
        watch = Stopwatch(self.device)
        profiler = profile(activities=activities)
        stop = functools.cache(profiler.stop)  # a second call would crash
        profiler.start()
        try:
            with after(WINDOW, stop), watch:
                yield
        finally:
            stop()
        self.folder.mkdir(parents=True, exist_ok=True)
        trace = self.folder / f"{name.replace(' ', '-')}.json.gz"
        profiler.export_chrome_trace(str(trace))
        operations = [self._operation(event) for event in profiler.key_averages()]
        operations.sort(key=lambda operation: -operation.seconds)
        self.stages.append(Stage(name, watch.seconds, operations[:TOP], trace))

    def _operation(self, event: FunctionEventAvg) -> Operation:
        cuda = self.device.startswith("cuda")
        microseconds = event.self_device_time_total if cuda else event.self_cpu_time_total
        return Operation(str(event.key), event.count, microseconds / 1e6)

    def show(self) -> None:
        """Print every stage with its slowest operations, on standard error."""
        console = Console(stderr=True)
        total = sum(stage.seconds for stage in self.stages) or 1.0
        table = Table(title="where the time went", title_justify="left")
        for column in ("stage", "seconds", "share", "operation", "own seconds", "calls"):
            table.add_column(
                column, justify="left" if column in ("stage", "operation") else "right"
            )
        for stage in self.stages:
            table.add_row(stage.name, f"{stage.seconds:.2f}", f"{stage.seconds / total:.0%}")
            for operation in stage.operations:
                cells = (operation.name[:40], f"{operation.seconds:.2f}", f"{operation.calls:,}")
                table.add_row("", "", "", *cells)
            table.add_section()
        console.print(table)
        console.print(f"operations: of the first {WINDOW:g} s of each stage", soft_wrap=True)
        console.print(f"traces: {self.folder} (open them at ui.perfetto.dev)", soft_wrap=True)


@contextlib.contextmanager
def after(seconds: float, act: Callable[[], None]) -> Iterator[None]:
    """Call ``act`` once, in the main thread, if the block takes longer than ``seconds``; never without SIGALRM."""
    if not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGALRM, lambda *_: act())
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
