import gc
import os
from pathlib import Path

import hypothesis
import pytest
import torch

import tests
from bench.contract.zoo import Layout, Zoo

# The same examples every time, however slow the machine is at the moment.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True)
hypothesis.settings.load_profile("suite")
BENCHMARKS = Path(__file__).parent / "benchmarks"
# What takes longest, longest first: a process that starts with one of these last would keep the others waiting.
LONG = ("study", "task_contract", "browser", "image_generation", "docs", "detection", "verify")


def pytest_configure(config):
    """Files are handed out in the order in which they stand, not those of many tests first."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items):
    """Long files come first."""
    ranks = {f"test_{name}": rank for rank, name in enumerate(LONG)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(LONG)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """One process more than cores: tests of studies and of the browser mostly wait."""
    return (os.cpu_count() or 1) + 1 if config.option.numprocesses == "auto" else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(specs):
    """Workers, and the processes that they start, share the cores; every library looks here when it is loaded."""
    threads = max(1, (os.cpu_count() or 1) // len(specs))
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """What is imported here stays: looking through it for garbage again and again takes a twentieth of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_ignore_collect(collection_path, config):
    """Benchmarks run only when their folder is named: they take minutes and want the machine to themselves."""
    asked = any(BENCHMARKS.name in argument for argument in config.args)
    return True if collection_path == BENCHMARKS and not asked else None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Every test function, whatever its parameters, has its first calls checked, and what is prepared for it."""
    function = item.nodeid.partition("[")[0]
    if tests.calls_of != function:
        tests.calls_of = function
        tests.calls.clear()


@pytest.fixture(autouse=True)
def _bench_home(tmp_path, monkeypatch):
    """Every test has a cache folder of its own."""
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "home"))


@pytest.fixture
def zoo() -> Zoo:
    """12 checkpoints of 41 values: a matrix, a vector and a scalar."""
    layout = Layout(("weight", "bias", "scale"), ((5, 7), (5,), ()))
    rng = torch.Generator().manual_seed(0)
    spread = torch.linspace(0.5, 2.0, layout.dim)
    vectors = torch.randn(12, layout.dim, generator=rng) * spread + 0.3
    return Zoo(vectors, layout, scores=tuple(i / 12 for i in range(12)))
