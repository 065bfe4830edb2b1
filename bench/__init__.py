"""The harness: collect checkpoints, fit a generator, sample, score, compare, record.

>>> import bench
>>> bench.run  # doctest: +ELLIPSIS
<function run at ...>

Names are imported on first use: ``import bench`` alone loads no torch.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench import testing as testing
    from bench.api import load_zoo as load_zoo
    from bench.api import read_record as read_record
    from bench.api import run as run

__version__ = "0.1.0"
__all__ = ["load_zoo", "read_record", "run", "testing"]


def __getattr__(name: str) -> object:
    """Import a public name of the library on its first use."""
    if name == "testing":
        return importlib.import_module("bench.testing")
    if name in __all__:
        return getattr(importlib.import_module("bench.api"), name)
    raise AttributeError(f"module 'bench' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
