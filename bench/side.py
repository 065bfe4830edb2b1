"""A record's side file: small arrays that figures and the ranking need beyond the record. Imports no torch.

Populations are named as in the record's scores: "original", "generated", "average", ..., "noise 0.1". Values of models
come in the order of the record's ``values``; of more than ``MODELS`` models, those that ``evenly`` picks.

==================== ================= =======================================================================
array                shape, type       what
==================== ================= =======================================================================
nearest.POPULATION   (N,) float16      IoU of wrong predictions with the nearest original; of an original, with
                                       the nearest other one
train.POPULATION     (N,) float32      score on the training split
iou                  (n, n) float16    IoU between models: ``iou_originals`` (1,) int32 originals first, then
                                       generated models, both picked by ``evenly``
map.POPULATION       (N, 2) float16    t-SNE of parameters: original, generated, noise 0.1
map_path             (m, s, 2) float16 m denoising trajectories of s steps each, in the same map, noise first
latent.POPULATION    (N, 2) float16    t-SNE of the generator's latents: original, generated, noise 0.1
weights.NAME         (r, c) float16    parameter values of a few models: original, generated, random (initial)
weights_index        (c,) int32        which parameters these are
right_mean.POP       (u,) uint8        share of the population that gets a unit right, times 255, rounded
right_STAT.POP       (u / 8,) uint8    units that the population's best, selected, median or worst model gets
                                       right, as packed bits
units                (2,) int32        u, and how many units there are in all
curve                (p, 2) float32    SGD: seconds of training, validation score
==================== ================= =======================================================================
"""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.errors import BadRequest, BenchError
from bench.store import atomic

Arrays = Mapping[str, NDArray[Any]]

LIMIT = 300_000  # bytes of a file
UNPACKED = 8_000_000  # bytes that a file of this size may unpack to
MODELS = 400  # of a population
STATISTICS = ("best", "selected", "median", "worst")
POPULATION = r"(original|generated|average|greedy_soup|copy|interpolation|gaussian|finetune|noise [0-9.e+-]{1,12})"

# Name of an array (a pattern), its number of dimensions and its type.
KNOWN: dict[str, tuple[int, str]] = {
    rf"nearest\.{POPULATION}": (1, "float16"),
    rf"train\.{POPULATION}": (1, "float32"),
    "iou": (2, "float16"),
    "iou_originals": (1, "int32"),
    rf"(map|latent)\.{POPULATION}": (2, "float16"),
    "map_path": (3, "float16"),
    r"weights\.(original|generated|random)": (2, "float16"),
    "weights_index": (1, "int32"),
    rf"right_(mean|{'|'.join(STATISTICS)})\.{POPULATION}": (1, "uint8"),
    "units": (1, "int32"),
    "curve": (2, "float32"),
}


def evenly(count: int, most: int) -> NDArray[Any]:
    """Indices of at most ``most`` of ``count`` things, evenly spaced, first and last among them.

    >>> evenly(5, 3).tolist(), evenly(2, 3).tolist()
    ([0, 2, 4], [0, 1])
    """
    if count <= most:
        return np.arange(count)
    return np.linspace(0, count - 1, most).round().astype(int)


def write(path: Path, arrays: Arrays) -> None:
    """Write the arrays, atomically; the same arrays give the same bytes.

    Raises:
        BenchError: an array that is not of this format, or a file above the limit.
    """
    _check(arrays)
    with atomic(path) as temporary:
        with temporary.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **{n: arrays[n] for n in sorted(arrays)})
        size = temporary.stat().st_size
        if size > LIMIT:
            raise BenchError(f"the side file {path} has {size:,} bytes, expected at most {LIMIT:,}")


def read(path: Path) -> dict[str, NDArray[Any]]:
    """Read and validate a side file.

    Raises:
        BadRequest: it is missing, too large, damaged, or holds arrays that are not of this format.
    """
    try:
        size = path.stat().st_size
        if size > LIMIT:
            raise BadRequest(f"{path} has {size:,} bytes, expected at most {LIMIT:,}")
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > UNPACKED:
            raise BadRequest(f"{path} unpacks to {unpacked:,} bytes, expected {UNPACKED:,}")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name]) for name in file.files}
        _check(arrays)
    except FileNotFoundError:
        raise BadRequest(f"no side file at {path}") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise BadRequest(f"{path} is not a readable side file ({error})") from None
    except BenchError as error:
        raise BadRequest(f"{path}: {error}") from None
    return arrays


def _check(arrays: Arrays) -> None:
    """Names, dimensions, types and finite values.

    Raises:
        BenchError: the first array that is wrong.
    """
    for name, array in arrays.items():
        found = next((kind for known, kind in KNOWN.items() if re.fullmatch(known, name)), None)
        if found is None:
            raise BenchError(f"unknown array {name[:80]!a}")
        if (array.ndim, str(array.dtype)) != found:
            raise BenchError(
                f"array '{name}' has {array.ndim} dimensions of {array.dtype}, "
                f"expected {found[0]} of {found[1]}"
            )
        if not np.isfinite(array).all():
            raise BenchError(f"array '{name}' has values that are not finite")
