import os
from pathlib import Path

import pytest
import torch

from bench.zoo import Layout, Zoo

BENCHMARKS = Path(__file__).parent / "benchmarks"

if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    # Workers, and the processes that they start, share the cores.
    threads = max(1, (os.cpu_count() or 1) // int(workers))
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    torch.set_num_threads(threads)


def pytest_ignore_collect(collection_path, config):
    """Benchmarks run only when their folder is named: they take minutes and want the machine to themselves."""
    asked = any(BENCHMARKS.name in argument for argument in config.args)
    return True if collection_path == BENCHMARKS and not asked else None


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
