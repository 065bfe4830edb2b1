"""Types of a record's fields, each with the check that runs when a record is read."""

import datetime
import math
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

LARGEST = 2**53  # largest whole number that every reader of JSON keeps exactly
FIRST = 2024  # year of the first record
# Largest accepted difference between the clocks of two machines.
SKEW = datetime.timedelta(minutes=5)

Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Short = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Count = Annotated[int, Field(ge=0, le=LARGEST)]
Positive = Annotated[int, Field(ge=1, le=LARGEST)]
Seed = Annotated[int, Field(ge=-LARGEST, le=LARGEST)]
Version = Annotated[int, Field(ge=1, le=1000)]
Seconds = Annotated[float, Field(ge=0)]
Ratio = Annotated[float, Field(ge=0)]
Unit = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(min_length=1, max_length=300)]
Tier = Literal["claimed", "rescored", "regenerated"]
Verdict = Literal["broken", "copies", "averages", "novel", "undecided"]
Role = Literal["original", "reference", "generated", "control"]


def _finite(value: Any) -> Any:
    """Return plain data; raise ValueError where it has NaN, inf or a whole number beyond 2^53."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in parts:
        _finite(part)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number is not finite")
    if isinstance(value, int) and abs(value) > LARGEST:
        raise ValueError(f"a whole number is beyond {LARGEST}")
    return value


def _plausible(created: datetime.datetime) -> datetime.datetime:
    """Return a time; raise ValueError where no record can have been made then."""
    try:
        moment = created.astimezone(datetime.UTC)
    except (OverflowError, ValueError):
        raise ValueError("this time cannot be told in UTC") from None
    if moment.year < FIRST:
        raise ValueError(f"this is before {FIRST}, when there was no record yet")
    if moment > datetime.datetime.now(datetime.UTC) + SKEW:
        raise ValueError("this is in the future")
    return created


def _plain(name: str) -> str:
    """Return a file name; raise ValueError where it has a folder or characters that cannot be printed."""
    if name in (".", "..") or not name.isprintable() or any(mark in name for mark in "/\\"):
        raise ValueError("not the plain name of a file")
    return name


Settings = Annotated[dict[str, Any], AfterValidator(_finite)]
Moment = Annotated[AwareDatetime, AfterValidator(_plausible)]
FileName = Annotated[Name, AfterValidator(_plain)]


class Model(BaseModel):
    """A part of a record: no unknown field, no conversion of types, no change after it is made."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, serialize_by_alias=True
    )


class Interval(Model):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low <= self.value <= self.high:
            raise ValueError("value is not between low and high")
        return self


def close(a: float | None, b: float | None) -> bool:
    """Return whether two numbers are equal up to rounding, or both None."""
    if a is None or b is None:
        return a is b
    return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9)
