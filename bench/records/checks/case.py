"""One record with the arrays of its side file, and what every check reads of them."""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from bench import declared
from bench.metrics.draws import Floats
from bench.records import side
from bench.records.population import Population
from bench.records.record import Record
from bench.system import seeds

HALF = 3e-4  # what float16 loses of a number up to 1: at most 2.44e-4
Number = float | int
FEW = 1e-9  # what rounding of float64 may lose


@dataclasses.dataclass(frozen=True)
class Case:
    """What is checked.

    Attributes:
        record: the record.
        arrays: those of its side file that have the right shape; what lacks is a problem that was told before.
        there: the names of all arrays of the side file; None where it cannot be read.
    """

    record: Record
    arrays: side.Arrays
    there: frozenset[str] | None = None

    @property
    def populations(self) -> Mapping[str, Population]:
        """Originals, generated models and controls by name."""
        return self.record.populations

    @property
    def sign(self) -> float:
        """1 where higher is better, otherwise -1."""
        return self.record.task.metric.sign

    @property
    def exact(self) -> bool:
        """Whether a score is a share of the validation units."""
        return self.record.task.metric.mean_over_units

    @functools.cached_property
    def seed(self) -> int:
        """What the bootstrap of every record of this board is seeded by."""
        return seeds.number(0, self.record.key, "bootstrap")

    @functools.cached_property
    def task(self) -> declared.Declared | None:
        """What the task declares, if it is the suite's own."""
        return declared.task(self.record.task.name)

    @functools.cached_property
    def generator(self) -> declared.Declared | None:
        """What the generator declares, if it is the suite's own."""
        return declared.generator(self.record.generator.name)

    def values(self, name: str) -> Floats:
        """A population's scores."""
        return np.array(self.populations[name].values)

    def signed(self, name: str) -> Floats:
        """A population's scores, more being better."""
        return self.sign * self.values(name)

    def kept(self, name: str, most: int = side.MODELS) -> side.Array:
        """Which of a population's models the side file has numbers of."""
        return side.evenly(self.populations[name].n, most)

    def whole(self, name: str, most: int = side.MODELS) -> bool:
        """Whether it has them of all of the population's models."""
        return self.populations[name].n <= most

    @functools.cached_property
    def units(self) -> tuple[int, int] | None:
        """How many validation units there are outcomes of, and how many there are in all."""
        array = self.arrays.get("units")
        return None if array is None else (int(array[0]), int(array[1]))

    def right(self, name: str, statistic: str) -> NDArray[np.bool_] | None:
        """Which units a population's best, selected, median or worst model gets right."""
        packed = self.arrays.get(f"right_{statistic}.{name}")
        if packed is None or self.units is None:
            return None
        return np.unpackbits(packed, count=self.units[0]).astype(bool)

    def wrong_share(self, name: str) -> Floats | None:
        """The share of a population that gets each unit wrong; exact for up to 255 models."""
        array = self.arrays.get(f"right_mean.{name}")
        if array is None:
            return None
        count, share = self.populations[name].n, array / 255
        return 1 - (np.round(share * count) / count if count <= 255 else share)

    def chosen(self, name: str, statistic: str) -> int:
        """Which of a population's models is its best, median or worst."""
        order = np.argsort(-self.signed(name), kind="stable")
        place = {"best": 0, "median": len(order) // 2, "worst": -1}[statistic]
        return int(order[place])


def near(
    a: Number | None, b: Number | None, relative: Number = 1e-6, absolute: Number = 1e-9
) -> bool:
    """Whether two numbers are equal up to rounding, or neither is there."""
    if a is None or b is None:
        return a is b
    return math.isclose(a, b, rel_tol=relative, abs_tol=absolute)


def told(place: str, says: object, expected: object, why: str = "") -> str:
    """A problem in words: where, what the record says, and what it should be."""
    reason = f" ({why})" if why else ""
    texts = short(says), short(expected)
    if texts[0] == texts[1]:  # the difference is in digits that people rarely need
        texts = str(says)[:200], str(expected)[:200]
    return f"{place} is {texts[0]}, expected {texts[1]}{reason}"


def short(value: object) -> str:
    """A value as people read it."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, tuple) and len(value) == 2:
        low, high = map(short, value)
        return low if low == high else f"{low} to {high}"
    return "null" if value is None else str(value)[:200]


def outside(place: str, says: Number, low: Number, high: Number, why: str = "") -> Iterator[str]:
    """The problem of a number that is not between two others."""
    if not low <= says <= high:
        yield told(place, says, (low, high), why)
