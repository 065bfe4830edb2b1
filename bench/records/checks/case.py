"""A record with the arrays of its side file, and the values that several checks read from them."""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from bench import declared
from bench.contract import registry
from bench.metrics.draws import Floats
from bench.records import side
from bench.records.population import Population
from bench.records.record import SCHEMA, Record
from bench.system import seeds

FLOAT16_ERROR = 3e-4  # above the rounding error of float16 for numbers up to 1, which is 2.44e-4
# Choices of layers that freeze a part of the network.
FROZEN = ("last-norms:", "norms:", "conv:first", "shortcut", "head")
LARGEST = 2**28  # values in a zoo; a larger one is not aligned
Number = float | int
FLOAT64_ERROR = 1e-9  # relative rounding error of a few operations in float64


@dataclasses.dataclass(frozen=True)
class Case:
    """A record and its side file, as the checks read them.

    Attributes:
        record: the record.
        arrays: arrays of its side file with the right shape and range; ``shapes`` reports those that are missing.
        array_names: names of all arrays of the side file; None where it cannot be read.
        schema: of the record's file; 1 does not say how the metric is resampled.
    """

    record: Record
    arrays: side.Arrays
    array_names: frozenset[str] | None = None
    schema: int = SCHEMA

    @property
    def populations(self) -> Mapping[str, Population]:
        """The originals, generated models and controls by name."""
        return self.record.populations

    @property
    def sign(self) -> float:
        """The sign of the metric: 1 where a higher score is better, otherwise -1."""
        return self.record.task.metric.sign

    @property
    def exact(self) -> bool:
        """True where a score is the share of validation units that a model gets right."""
        return self.record.task.metric.mean_over_units

    @functools.cached_property
    def seed(self) -> int:
        """The seed of the bootstrap in every record of this board."""
        return seeds.number(0, self.record.key, "bootstrap")

    @functools.cached_property
    def task(self) -> declared.Declared | None:
        """The fields and facts that the task's class declares; None for a task from outside the suite."""
        return declared.task(self.record.task.name)

    @functools.cached_property
    def generator(self) -> declared.Declared | None:
        """The fields and facts that the generator's class declares; None for one from outside the suite."""
        return declared.generator(self.record.generator.name)

    @functools.cached_property
    def alignable(self) -> bool | None:
        """Whether hidden units of the zoo's networks can be permuted, and are aligned; None where that is unknown."""
        task, zoo = self.record.task, self.record.zoo
        if self.task is None:
            return None
        frozen = any(part.startswith(FROZEN) for part in task.layers.split(","))
        architecture = registry.architectures().get(task.arch)
        tracks = None if architecture is None else architecture.alignable
        if tracks == () or frozen or zoo.k == 1 or zoo.k * zoo.d > LARGEST:
            return False
        if tracks is None or zoo.track not in ("trajectory", "seeds"):
            return None
        if zoo.track not in tracks:
            return False
        return True if task.layers == "all" else None

    @functools.cached_property
    def twinned(self) -> bool:
        """Whether the record has aligned twins of controls, or ought to."""
        there = any(one.aligned for one in self.record.controls.values())
        return there if self.alignable is None else self.alignable

    def values(self, name: str) -> Floats:
        """Return the scores of a population's models, in the metric's unit."""
        return np.array(self.populations[name].values)

    def signed(self, name: str) -> Floats:
        """Return the scores of a population's models, negated where a lower score is better."""
        return self.sign * self.values(name)

    def stored(self, name: str, most: int = side.MODELS) -> side.Array:
        """Return the indices of the population's models that the side file keeps numbers of."""
        return side.evenly(self.populations[name].n, most)

    def all_stored(self, name: str, most: int = side.MODELS) -> bool:
        """Return whether the side file keeps numbers of all of the population's models."""
        return self.populations[name].n <= most

    @functools.cached_property
    def units(self) -> tuple[int, int] | None:
        """The number of validation units whose outcomes are kept, and the number of all."""
        array = self.arrays.get("units")
        return None if array is None else (int(array[0]), int(array[1]))

    def right(self, name: str, statistic: str) -> NDArray[np.bool_] | None:
        """Return which kept units the best, selected, median or worst model gets right; None where unknown."""
        packed = self.arrays.get(f"right_{statistic}.{name}")
        if packed is None or self.units is None:
            return None
        return np.unpackbits(packed, count=self.units[0]).astype(bool)

    def wrong_share(self, name: str) -> Floats | None:
        """Return the share of a population's models that get each unit wrong; exact for up to 255 models."""
        array = self.arrays.get(f"right_mean.{name}")
        if array is None:
            return None
        count, share = self.populations[name].n, array / 255
        return 1 - (np.round(share * count) / count if count <= 255 else share)

    def model_index(self, name: str, statistic: str) -> int:
        """Return the index of a population's best, median or worst model."""
        order = np.argsort(-self.signed(name), kind="stable")
        place = {"best": 0, "median": len(order) // 2, "worst": -1}[statistic]
        return int(order[place])


def nearly_equal(
    a: Number | None, b: Number | None, relative: Number = 1e-6, absolute: Number = 1e-9
) -> bool:
    """Return whether two numbers are equal up to rounding, or both None."""
    if a is None or b is None:
        return a is b
    return math.isclose(a, b, rel_tol=relative, abs_tol=absolute)


def mismatch(place: str, says: object, expected: object, why: str = "") -> str:
    """Return a problem in words: the field, the record's value, the expected one, and the reason."""
    reason = f" ({why})" if why else ""
    texts = as_text(says), as_text(expected)
    if texts[0] == texts[1]:  # the difference is in digits that people rarely need
        texts = str(says)[:200], str(expected)[:200]
    return f"{place} is {texts[0]}, expected {texts[1]}{reason}"


def as_text(value: object) -> str:
    """Return a value as text: six significant digits, a pair as a range, at most 200 characters."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, tuple) and len(value) == 2:
        low, high = map(as_text, value)
        return low if low == high else f"{low} to {high}"
    return "null" if value is None else str(value)[:200]


def out_of_range(
    place: str, says: Number, low: Number, high: Number, why: str = ""
) -> Iterator[str]:
    """Yield a problem if a number is not between two others."""
    if not low <= says <= high:
        yield mismatch(place, says, (low, high), why)
