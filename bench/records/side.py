"""A record's side file: small arrays that figures and the ranking need beyond the record. Imports no torch.

Populations are named as in the record: "original", "generated", "average", ..., "noise 0.1". Values of models come in
the order of the record's ``values``; of more than ``MODELS`` models, those that ``evenly`` picks are kept.

==================== ================= =======================================================================
array                shape, type       content
==================== ================= =======================================================================
nearest.POPULATION   (N,) float16      IoU of wrong predictions with the nearest original; of an original, with
                                       the nearest other one
train.POPULATION     (N,) float32      score on the training split
iou                  (n, n) float16    IoU between models: ``iou_originals`` (1,) int32 originals first, then
                                       generated models, both picked by ``evenly``
map.POPULATION       (N, 2) float16    t-SNE of parameters: original, generated, noise 0.1
map_path             (m, s, 2) float16 m denoising trajectories of s steps each, in the same map, noise first
latent.POPULATION    (N, 2) float16    t-SNE of the generator's latents: original, generated, noise 0.1
weights.NAME         (r, c) float16    parameter values of a few models: original, generated, reference, random
                                       (initial)
weights_index        (c,) int32        indices of these parameters in a model's vector
right_mean.POP       (u,) uint8        share of the population that gets a unit right, times 255, rounded
right_STAT.POP       (u / 8,) uint8    units that the population's best, selected, median or worst model gets
                                       right, as packed bits
units                (2,) int32        u, and the number of all validation units
resampled_mean.POP   (B,) float32      mean score of the population on each of B replicates of the validation
                                       examples; replicate b is the same for all populations of all records of
                                       the board. There where the metric's ``resampled`` is not "none"
resampled_STAT.POP   (B,) float32      the same of its best and selected model, chosen by all examples
curve                (p, 2) float32    SGD: seconds of training, validation score, one row a point
==================== ================= =======================================================================
"""

import functools
import hashlib
import io
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.errors import BadRequest, BenchError
from bench.system import reading
from bench.system.store import atomic

Array = NDArray[Any]  # the type of its values depends on its name, see ``KNOWN``
Arrays = Mapping[str, Array]

LIMIT = 300_000  # largest size of a side file in bytes
UNPACKED = 8_000_000  # largest size of its arrays in bytes
MODELS = 400  # models of a population that are kept
IOU_MODELS = 100  # of the originals, and of the generated models, in the IoU matrix
HEAT_MODELS, HEAT_PARAMETERS = 8, 512  # models, and parameters of each, whose values are kept
UNITS = 4000  # validation units whose outcomes are kept
CURVE_POINTS = 500  # points of the curve that are kept
EMBEDDED = ("original", "generated", "noise 0.1")  # populations on the maps
MAPPED = 5  # fewest points of a map
PATHS, STEPS = 5, 11  # denoising trajectories that are kept, and vectors along each
STATISTICS = ("best", "selected", "median", "worst")
RESAMPLED = ("mean", "best", "selected")  # scores of a population that are kept on every replicate
FEWEST_REPLICATES = 10  # of which a spread can be told
POPULATION = r"(aligned )?[a-z][a-z_]{0,39}( [0-9.e+-]{1,12})?"  # original, generated, or a control

# Name of an array (a pattern), its number of dimensions and its type.
KNOWN: dict[str, tuple[int, str]] = {
    rf"nearest\.{POPULATION}": (1, "float16"),
    rf"train\.{POPULATION}": (1, "float32"),
    "iou": (2, "float16"),
    "iou_originals": (1, "int32"),
    rf"(map|latent)\.{POPULATION}": (2, "float16"),
    "map_path": (3, "float16"),
    r"weights\.(original|generated|reference|random)": (2, "float16"),
    "weights_index": (1, "int32"),
    rf"right_(mean|{'|'.join(STATISTICS)})\.{POPULATION}": (1, "uint8"),
    "units": (1, "int32"),
    rf"resampled_({'|'.join(RESAMPLED)})\.{POPULATION}": (1, "float32"),
    "curve": (2, "float32"),
}


def evenly(count: int, most: int) -> Array:
    """Return at most ``most`` of the indices 0 to ``count`` - 1, evenly spaced, the first and the last among them.

    >>> evenly(5, 3).tolist(), evenly(2, 3).tolist()
    ([0, 2, 4], [0, 1])
    """
    if count <= most:
        return np.arange(count)
    return np.linspace(0, count - 1, most).round().astype(int)


def write(path: Path, arrays: Arrays) -> None:
    """Write the arrays to a side file, atomically; the same arrays give the same bytes.

    Raises:
        BenchError: an array is not of this format, or the file is larger than ``LIMIT``.
    """
    _check(arrays)
    with atomic(path) as temporary:
        with temporary.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **{n: arrays[n] for n in sorted(arrays)})
        size = temporary.stat().st_size
        if size > LIMIT:
            raise BenchError(f"the side file {path} has {size:,} bytes, expected at most {LIMIT:,}")


def read(
    path: Path, sha256: str | None = None, only: re.Pattern[str] | None = None
) -> dict[str, Array]:
    """Return the arrays of a side file.

    Args:
        path: path of the file.
        sha256: hash of the file in its record; None does not compare.
        only: matches the names of the arrays that are wanted; None for all.

    Raises:
        BadRequest: it is missing, no regular file, too large, damaged, holds arrays that are not of this format, or is
            another file than the record's.
    """
    data = reading.content(path, LIMIT, "side file")
    if sha256 not in (
        None,
        hashlib.sha256(data).hexdigest(),
    ):  # first: of no other file anything is read
        raise BadRequest(f"{path.name} is not the file that the record names")
    try:
        arrays, problems = unpacked(data, only)
    except BadRequest as error:
        raise BadRequest(f"{path} is not a readable side file ({error})") from None
    for problem in problems:
        raise BadRequest(f"{path}: {problem}")
    return arrays


def unpacked(
    data: bytes, only: re.Pattern[str] | None = None
) -> tuple[dict[str, Array], list[str]]:
    """Return the arrays of a side file's content that are of this format, and the problems of the others.

    The shape and type in an array's header are compared with the format and with the size of its data before the array
    is made.

    Raises:
        BadRequest: the whole file is damaged.
    """
    archive = reading.Archive(io.BytesIO(data))
    arrays: dict[str, Array] = {}
    problems: list[str] = []
    left = UNPACKED
    for member in dict.fromkeys(archive.names):
        name = member.removesuffix(".npy")
        if only and not only.fullmatch(name):
            continue
        try:
            content = archive.read(member, left)
            left -= len(content)
            arrays[name] = _array(name, content)
        except BadRequest as error:
            problems.append(str(error))
    if len(set(archive.names)) < len(archive.names):
        problems.append("an array is there twice")
    return arrays, problems


def _array(name: str, content: bytes) -> Array:
    """Return one array from a member of the side file, a file in numpy's format.

    Raises:
        BadRequest: the member is damaged, or no array of the side file's format.
    """
    start = 10 + int.from_bytes(content[8:10], "little")
    try:
        shape, fortran, dtype = _header(content[:start])
    except Exception as error:  # numpy evaluates the header as Python, where anything can go wrong
        raise BadRequest(f"array {name[:80]!a} has no readable header ({error})") from None
    for problem in _format(name, len(shape), dtype):
        raise BadRequest(problem)
    expected, there = math.prod(shape) * dtype.itemsize, len(content) - start
    if expected != there or min(shape) < 0:
        raise BadRequest(
            f"array '{name}' has {there:,} bytes, its shape {shape} needs {expected:,}"
        )
    array = np.frombuffer(content, dtype, offset=start).copy()
    array = array.reshape(shape, order="F" if fortran else "C")
    if not np.isfinite(array).all():
        raise BadRequest(f"array '{name}' has values that are not finite")
    return array


@functools.lru_cache(maxsize=256)  # most arrays of many files have one of a few shapes
def _header(content: bytes) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    """Return shape, whether the order is Fortran's, and type, from the header of a file in numpy's format."""
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)  # type: ignore[no-untyped-call]
    if version != (1, 0):
        raise ValueError(f"version {version} of the format, expected (1, 0)")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)  # type: ignore[no-untyped-call]
    return shape, fortran, dtype


def _check(arrays: Arrays) -> None:
    """Check that names, dimensions and types are those of the format, and that values are finite.

    Raises:
        BenchError: the first array that is wrong.
    """
    for name, array in arrays.items():
        for problem in _format(name, array.ndim, array.dtype):
            raise BenchError(problem)
        if not np.isfinite(array).all():
            raise BenchError(f"array '{name}' has values that are not finite")


def _format(name: str, dimensions: int, dtype: np.dtype[np.generic]) -> Iterator[str]:
    """Yield a problem if an array's name is unknown, or its dimensions or type are not those of its name."""
    found = next((kind for known, kind in KNOWN.items() if re.fullmatch(known, name)), None)
    if found is None:
        yield f"unknown array {name[:80]!a}"
    elif (dimensions, str(dtype)) != found:
        yield (
            f"array '{name}' has {dimensions} dimensions of {dtype}, "
            f"expected {found[0]} of {found[1]}"
        )
