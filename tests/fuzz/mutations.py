"""Mutations of inputs: of bytes, of JSON, of numbers, and of tensors and arrays. All draw from a given generator."""

import copy
import json
import math
import random
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

TEXTS = (
    "", " ", "a", "a\nb", "\x1b[31mred", "\u202e", "\x00", "\udc80", "../../etc/passwd", "/etc/passwd", "/dev/zero",
    "..", "NaN", "null", "1e400", "os:system", "x" * 400, "[bold]x[/]", "<script>alert(1)</script>", "noise 0.1",
    "noise 1e999", "original", "generated", "reference", "classification", "detection", "segmentation", "digits",
    "image generation", "cifar10", "fake", "all", "trajectory", "seeds", "imported", "0001-01-01T00:00:00Z",
    "2026-01-01T00:00:00Z", "9999-12-31T23:59:59-12:00", "0" * 16, "0" * 64, "%s%n{0}", "'", '"', "`", "é",
)  # fmt: skip
NUMBERS = (
    0, 1, -1, 2, 3, 5, 7, 100, 255, 256, 400, 1000, 65535, 65536, 2**31 - 1, 2**31, 2**53, 2**53 + 1, 2**63, 2**70,
    -(2**53), -(2**63), 10**9, 10**400, 0.0, -0.0, 0.5, 1.0, 1.5, -0.5, 1e-9, 1e-320, 5e-324, 1e9, 1e16, 1e300, 1e308,
    -1e308, 1.7976931348623157e308, math.nan, math.inf, -math.inf, 3.4e38, 65504.0, 65536.0, 0.1, 0.999999999,
)  # fmt: skip
TYPES = (
    torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.uint8, torch.bool, torch.complex64,
    torch.float8_e4m3fn, torch.float8_e5m2,
)  # fmt: skip
OTHERS = (None, True, False, [], {}, [[]], [0], {"a": 1}, [None], ["a"])


def some_bytes(rng: random.Random, data: bytes) -> bytes:
    """Return content with a few of its bytes flipped, overwritten, removed, repeated or put elsewhere."""
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5, 20))):
        if not damaged:
            break
        at = rng.randrange(len(damaged))
        if rng.random() < 0.3:  # headers matter most, and they stand at both ends
            at = rng.choice((at % 64, len(damaged) - 1 - at % 64)) % len(damaged)
        size = rng.choice((1, 1, 2, 4, 8, 64, 1000))
        match rng.randrange(7):
            case 0 | 1:
                damaged[at] ^= 1 << rng.randrange(8)
            case 2:
                damaged[at : at + size] = rng.randbytes(min(size, len(damaged) - at))
            case 3:
                damaged[at : at + size] = rng.choice((b"\x00", b"\xff")) * min(
                    size, len(damaged) - at
                )
            case 4:
                del damaged[at : at + size]
            case 5:
                damaged[at:at] = damaged[at : at + size]
            case 6:
                del damaged[at:]
    return bytes(damaged)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container of nested plain data with each of its keys or indices."""
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, part in list(items):
        yield value, key
        yield from places(part)


def other(rng: random.Random, value: Any) -> Any:
    """Return a value to stand in the place of another: mostly of its type, and near to it or at a limit."""
    kind = rng.random()
    if kind < 0.1:
        return copy.deepcopy(rng.choice(OTHERS))
    if kind < 0.2:
        return rng.choice(TEXTS)
    if kind < 0.3:
        return rng.choice(NUMBERS)
    match value:
        case bool():
            return not value
        case int():
            return rng.choice(
                (
                    value + 1,
                    value - 1,
                    -value,
                    2 * value,
                    int(rng.choice([n for n in NUMBERS if type(n) is int])),
                )
            )
        case float():
            return rng.choice(
                (
                    -value,
                    value * 2,
                    value / 3,
                    value + 1,
                    math.nextafter(value, 0.0),
                    rng.choice(NUMBERS),
                    rng.random(),
                )
            )
        case str():
            return rng.choice((*TEXTS, value + rng.choice(TEXTS), value[:-1], value.upper()))
        case list() if value:
            return rng.choice(
                (value[:-1], value + value, [*value, value[0]], value[::-1], [], value[:1])
            )
        case dict() if value:
            key = rng.choice(list(value))
            return rng.choice((
                {n: v for n, v in value.items() if n != key}, {**value, rng.choice(TEXTS): value[key]}, {},
                {rng.choice(TEXTS) if n == key else n: v for n, v in value.items()},
            ))  # fmt: skip
    return rng.choice((rng.choice(NUMBERS), rng.choice(TEXTS), []))


def some_values(rng: random.Random, data: Any, most: int = 3) -> Any:
    """Return plain data with a few of its values replaced, removed, renamed, or exchanged for others of the data."""
    changed = copy.deepcopy(data)
    for _ in range(rng.randint(1, most)):
        every = list(places(changed))
        if not every:
            break
        container, key = rng.choice(every)
        if rng.random() < 0.1:
            far, name = rng.choice(every)
            container[key] = copy.deepcopy(far[name])
        elif rng.random() < 0.1:
            del container[key]
        else:
            container[key] = other(rng, container[key])
    return changed


def text_of(rng: random.Random, data: Any) -> bytes:
    """Return plain data as JSON, now and then nested too deep, damaged, or repeated."""
    text = json.dumps(data, default=str).encode()
    kind = rng.random()
    if kind < 0.02:
        return b'{"a":' * 100_000 + text
    if kind < 0.04:
        return text.replace(b"1", b"[" * 5000, 1)
    return some_bytes(rng, text) if kind < 0.15 else text


def some_arrays(rng: random.Random, arrays: dict[str, Any]) -> dict[str, Any]:
    """Return the arrays of a side file with one to three of them changed in values, shape, type or name."""
    changed = dict(arrays)
    for name in rng.sample(sorted(arrays), min(len(arrays), rng.randint(1, 3))):
        array = np.array(changed[name])
        match rng.randrange(9):
            case 0:
                del changed[name]
                continue
            case 1:
                changed[rng.choice((*arrays, *TEXTS, "map.x", "weights.generated"))] = array
                continue
            case 2:
                array = array.reshape(
                    rng.choice(((-1,), (1, *array.shape), (*array.shape, 1), array.shape[::-1]))
                )
            case 3:
                array = array[: rng.randrange(3)] if array.ndim else array
            case 4:
                array = np.concatenate([array, array]) if array.ndim else array
            case 5:
                array = array.astype(
                    rng.choice(
                        ("float16", "float32", "float64", "int32", "uint8", "complex64", "bool")
                    )
                )
            case 6 | 7:
                _put(rng, array)
            case 8:
                array = np.full_like(array, rng.choice((0, 1, 100, 255)))
        changed[name] = array
    return changed


def _put(rng: random.Random, array: Any) -> None:
    """Overwrite a few values of an array with others, of its type."""
    for _ in range(rng.choice((1, 1, 10)) if array.size else 0):
        value = np.float64(rng.choice([n for n in NUMBERS if abs(n) < 1e300 or n != n]))
        with np.errstate(all="ignore"):
            array.flat[rng.randrange(array.size)] = value.astype(array.dtype)


def odd_tensor(rng: random.Random, tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor of another type, shape, layout or device, or with other values."""
    few, flat = tensor.float(), tensor.flatten()
    kinds: tuple[Callable[[], torch.Tensor], ...] = (
        lambda: tensor.to(rng.choice(TYPES)),
        lambda: torch.full_like(few, rng.choice((math.nan, math.inf, 3e38, -3e38, 1e-45, 0.0))),
        lambda: tensor[None],
        lambda: tensor.t(),
        lambda: flat[:-1],
        lambda: tensor.new_zeros(0),
        lambda: tensor.new_zeros(()),
        lambda: tensor.to_sparse(),
        lambda: few[None].to_sparse_csr(),
        lambda: tensor.to("meta"),
        lambda: flat[:1].expand(10 ** rng.randrange(13)),
        lambda: flat[None].expand(50, -1),
        lambda: torch.as_strided(flat, (2, 10**9), (0, 0)),
        lambda: torch.nested.nested_tensor([tensor, tensor]),
        lambda: torch.quantize_per_tensor(few, 0.1, 0, torch.qint8),
        lambda: torch.nn.Parameter(few),
    )
    try:
        with warnings.catch_warnings(action="ignore"):  # torch calls some kinds experimental
            return rng.choice(kinds)()
    except (RuntimeError, IndexError):  # of this tensor there is none of this kind
        return tensor
