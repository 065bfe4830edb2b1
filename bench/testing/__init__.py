"""Contract tests, which check any generator or task class against the promises of its contract.

>>> import bench
>>> from generators.controls.average import Average
>>> bench.testing.check_generator(Average)
"""

from bench.testing.generators import check_generator
from bench.testing.promises import BrokenPromise
from bench.testing.tasks import check_task

__all__ = ["BrokenPromise", "check_generator", "check_task"]
