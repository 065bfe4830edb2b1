"""Examples in docstrings are true: those of every module, in one process that imports the libraries once."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("bench", "generators", "tasks", "leaderboard", "tests")


def names() -> list[str]:
    """Return the modules whose source holds an example."""
    files = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    parts = [
        file.relative_to(ROOT).with_suffix("").parts
        for file in files
        if ">>> " in file.read_text("utf-8")
    ]
    return [".".join(some[:-1] if some[-1] == "__init__" else some) for some in parts]


@pytest.mark.parametrize("name", [name for name in names() if name != __name__])
def test_examples_are_true(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0
