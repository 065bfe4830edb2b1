"""Measurement of time, which waits for the device, and of peak memory."""

import resource
import sys
import time
from types import TracebackType
from typing import Self

import torch


def synchronize(device: str | torch.device) -> None:
    """Wait until the device has done all work queued on it."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


class Stopwatch:
    """Seconds of wall time inside ``with`` blocks, the device synchronised at both ends; pauses do not count.

    Attributes:
        seconds: time so far; may start above zero to go on after an interruption.
    """

    def __init__(self, device: str | torch.device = "cpu", seconds: float = 0.0) -> None:
        self.device = device
        self.seconds = seconds

    def __enter__(self) -> Self:
        synchronize(self.device)
        self._start = time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        synchronize(self.device)
        self.seconds += time.perf_counter() - self._start


def peak_memory(device: str | torch.device) -> int:
    """Return the peak of memory so far, in bytes: of the device's allocator on a GPU, of the process elsewhere."""
    if torch.device(device).type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)  # kilobytes, but on macOS bytes
