"""One way to measure: our path and the plain one in turn, in one run, after both were seen to compute the same."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest

from bench.system import memory


def pytest_addoption(parser):
    parser.addoption("--short", action="store_true", help="smaller sizes, for every push")


def as_a_script() -> None:
    """glibc's own way with freed memory: its thresholds grow to these by themselves."""
    memory.set_thresholds(mapped=32 * 2**20, kept=64 * 2**20)


@pytest.fixture
def short(request) -> bool:
    """Whether the short form was asked for."""
    return bool(request.config.getoption("--short"))


@pytest.fixture
def versus(benchmark, short):
    """Measure ``ours``, set up as a run is, against ``plain``, set up as a script is.

    In the short form both are set up as a run: what a second's page faults cost differs twofold from call to call.
    """

    def measure(
        ours: Callable[[], Any],
        plain: Callable[[], Any],
        agree: Callable[[Any, Any], None],
        *,
        scale: float = 1.0,
        rounds: int = 3,
    ) -> None:
        """Store the ratio plain seconds / our seconds, the median over rounds, in ``extra_info``.

        Args:
            ours, plain: what is timed; one call of each comes first and is not.
            agree: asserts that the results of both are equal.
            scale: how many times the work of ``plain`` the work of ``ours`` is.
            rounds: pairs of calls; the two of a pair follow each other, so that a slow phase of the machine hits both.
        """
        seconds: list[float] = []

        def plainly() -> Any:
            if not short:
                as_a_script()
            start = time.perf_counter()
            result = plain()
            seconds.append((time.perf_counter() - start) * scale)
            memory.keep_freed()
            return result

        def before() -> None:
            plainly()

        expected = plainly()
        agree(ours(), expected)
        seconds.clear()

        benchmark.pedantic(ours, setup=before, rounds=rounds)
        if benchmark.stats:  # there are none under --benchmark-disable
            own = benchmark.stats.stats.data
            ratios = [p / o for p, o in zip(seconds, own, strict=True)]
            benchmark.extra_info["ratio"] = statistics.median(ratios)
            benchmark.extra_info["ratios"] = ratios
            benchmark.extra_info["plain_s"] = statistics.median(seconds)
            benchmark.extra_info["plain_measured_share"] = 1 / scale

    return measure
