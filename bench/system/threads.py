"""Threads of the numerical libraries: small work runs on one, where others would only wait for each other."""

import contextlib
from collections.abc import Iterator

import torch
from threadpoolctl import threadpool_limits


@contextlib.contextmanager
def one_thread(where: bool) -> Iterator[None]:
    """Compute on one thread in the block, if ``where`` is true.

    A small network gains nothing from a second thread: with another process on a core it loses a factor of 12 or more,
    because every operation waits for the slower thread. And the results of small work are then the same bits whatever
    the number of cores, which change the order of additions.
    """
    if not where:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):  # of the other libraries
            yield
    finally:
        torch.set_num_threads(before)
