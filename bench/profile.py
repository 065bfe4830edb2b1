"""Where the time of a run goes: torch's profiler around each stage."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table
from torch.autograd.profiler_util import FunctionEventAvg
from torch.profiler import ProfilerActivity, profile

from bench.timing import Stopwatch

TOP = 5  # operations shown of each stage


@dataclasses.dataclass(frozen=True)
class Operation:
    """One kind of operation: its name, calls, and the seconds spent in it and not in what it calls."""

    name: str
    calls: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Stage:
    """One profiled stage: wall seconds, its costliest operations, and the file of its trace."""

    name: str
    seconds: float
    operations: list[Operation]
    trace: Path


class Profile:
    """Profiles stages one by one and keeps a trace of each, for Perfetto or chrome://tracing.

    Args:
        folder: traces go there, one file a stage.
        device: where the work is done.
    """

    def __init__(self, folder: Path, device: str) -> None:
        self.folder, self.device = folder, device
        self.stages: list[Stage] = []

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Profile what happens inside the block."""
        activities = [ProfilerActivity.CPU]
        if self.device.startswith("cuda"):
            activities.append(ProfilerActivity.CUDA)
        watch = Stopwatch(self.device)
        with profile(activities=activities) as profiler, watch:
            yield
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
        """Print every stage with its costliest operations, on standard error."""
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
                own = (operation.name[:40], f"{operation.seconds:.2f}", f"{operation.calls:,}")
                table.add_row("", "", "", *own)
            table.add_section()
        console.print(table)
        console.print(f"traces: {self.folder} (open them at ui.perfetto.dev)", soft_wrap=True)
