"""Which of the checkpoints that were found are taken: by epoch, by what is told of them, and how many."""

import operator
import re
from collections.abc import Callable, Iterable, Sequence

from bench.errors import BadRequest, printable, unknown
from bench.formats.checkpoint import Checkpoint

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge, "<=": operator.le, "==": operator.eq, "!=": operator.ne,
    ">": operator.gt, "<": operator.lt, "=": operator.eq,
}  # fmt: skip
_WHERE = re.compile(r"\s*(?P<name>[^\s<>=!]+)\s*(?P<sign>>=|<=|==|!=|>|<|=)\s*(?P<value>\S+)\s*")


def chosen(
    found: Sequence[Checkpoint],
    *,
    epoch: str = "all",
    where: Iterable[str] = (),
    limit: int | None = None,
) -> list[Checkpoint]:
    """Return the checkpoints that are wanted, in their order.

    Args:
        found: all checkpoints.
        epoch: "all", "last" (of every run) or the number of one.
        where: conditions such as "test_acc>0.6"; a checkpoint of which that number is not told meets none.
        limit: how many at most, the first ones; None for no limit.

    Raises:
        BadRequest: a wrong value, or one that no checkpoint meets.
    """
    left = _of_epoch(found, epoch)
    for condition in where:
        left = _meeting(left, condition)
    if limit is not None and limit < 1:
        raise BadRequest(f"--limit is {limit}, expected at least 1")
    return left[:limit]


def _of_epoch(found: Sequence[Checkpoint], epoch: str) -> list[Checkpoint]:
    if epoch == "all":
        return list(found)
    known = [one for one in found if one.epoch is not None]
    if not known:
        raise BadRequest(f"--epoch {printable(epoch)}: neither names nor folders tell an epoch")
    if epoch == "last":
        last = {one.run: one.epoch for one in sorted(known, key=lambda one: one.epoch or 0)}
        return [one for one in known if one.epoch == last[one.run]]
    if not re.fullmatch(r"\d{1,18}", epoch):
        raise BadRequest(f"--epoch {printable(epoch)}: expected last, all or a number")
    left = [one for one in known if one.epoch == int(epoch)]
    if not left:
        epochs = sorted({one.epoch or 0 for one in known})
        raise BadRequest(f"--epoch {epoch}: there are epochs {epochs[0]} to {epochs[-1]}")
    return left


def _meeting(found: Sequence[Checkpoint], condition: str) -> list[Checkpoint]:
    name, holds = _condition(condition)
    numbers = [_numbers(one).get(name) for one in found]
    if all(number is None for number in numbers):
        raise unknown("number of --where", name, {n for one in found for n in _numbers(one)})
    pairs = zip(found, numbers, strict=True)
    left = [one for one, number in pairs if number is not None and holds(number)]
    if not left:
        told = [number for number in numbers if number is not None]
        raise BadRequest(
            f"--where {printable(condition)}: no checkpoint, {name} is {min(told):g} to {max(told):g}"
        )
    return left


def _numbers(one: Checkpoint) -> dict[str, float]:
    epoch = {} if one.epoch is None else {"epoch": float(one.epoch)}
    return {**epoch, **one.metrics}


def _condition(text: str) -> tuple[str, Callable[[float], bool]]:
    """Return the name and the test of a condition.

    Raises:
        BadRequest: it is none.
    """
    match = _WHERE.fullmatch(text)
    try:
        value = float(match["value"]) if match else None
    except ValueError:
        value = None
    if match is None or value is None:
        raise BadRequest(f"--where {printable(text)}: expected a comparison such as test_acc>0.6")
    compare = _COMPARE[match["sign"]]
    return match["name"], lambda number: compare(number, value)
