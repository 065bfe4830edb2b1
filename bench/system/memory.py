"""Settings of glibc's allocator that keep freed memory in the process, because fresh memory is slow on a CPU."""

import ctypes
import sys

# From glibc's malloc.h. Larger blocks than this are mapped anew each time; more free memory than this is given back.
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1


def keep_freed() -> None:
    """Let glibc keep freed memory for the next tensor; without glibc, do nothing.

    By default a large block goes back to the system as soon as it is free, and the next tensor pays a page fault for
    every 4 kB: half of the time of a convolutional network on two cores.
    """
    set_thresholds(mapped=2**30, kept=2**31 - 1)


def set_thresholds(*, mapped: int, kept: int) -> None:
    """Set the size in bytes from which glibc maps a block anew, and the free bytes it keeps at the end of its heap."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, mapped)
        mallopt(_TRIM_THRESHOLD, kept)
