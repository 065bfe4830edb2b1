"""The data set ``shapes``: drawn scenes in COCO's format, the same ones on every machine.

Each scene has up to six objects of five classes. The classes differ in shape alone: colour, size (a sixth of the
image's side up to all of it), stretch and a small rotation are random. Later objects hide parts of earlier ones; an
object that is hidden too far is not annotated. Behind the objects are a smooth texture and clutter (sticks and half
discs, which are no objects); noise is added to every pixel. Some scenes have a crowd, which is many small objects of
one class outlined as one, and some scenes have no object.

Random numbers are whole and textures are computed in whole numbers, so that no machine rounds differently. Objects are
painted with the masks that pycocotools decodes from their annotations: polygons for objects that are fully visible, run
lengths for objects that are partly hidden.
"""

import io
import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from PIL import Image
from pycocotools import mask as masks

from bench.contract.declarations import DataSet
from bench.errors import BenchError
from bench.system import store
from bench.system.randomness import generator
from tasks.data import coco
from tasks.data.coco import CocoData

CLASSES = ("disc", "square", "triangle", "star", "cross")
SPLITS = ("train", "val")
SIDE = 80  # side of an image in pixels
FORMAT = 1  # part of the folder's name: raise it when the drawing changes
LEAST = 30  # visible pixels below which an object is not annotated; nor is it below a third of its pixels
# Least distance of an object's colour to the mean colour of its image, summed over channels.
CONTRAST = 45

Points = list[tuple[float, float]]  # x and y of the corners of an outline
Mask = Bool[np.ndarray, "S S"]


def load(data_set: DataSet, data_dir: Path | None, *, limit: int | None = None) -> CocoData:
    """Draw as many scenes as the declaration says, and read them.

    Args:
        data_set: declaration, with the number of images of each split.
        data_dir: ignored: scenes are drawn into the cache folder.
        limit: largest number of images of each split; None takes all.
    """
    return coco.read(data_set.name, folder(data_set.train, data_set.val), limit)


def folder(train: int, val: int) -> Path:
    """Return a folder of scenes in COCO's layout in the cache; draw them if they are not there yet.

    Args:
        train, val: number of scenes of each split.
    """
    counts = {"train": train, "val": val}
    root = store.home() / "scenes" / store.digest([FORMAT, SIDE, counts, CLASSES])
    return store.stage(
        root / "annotations" / "instances_val2017.json",  # the file that is written last
        load=lambda _: _complete(root),
        make=lambda: _draw(root, counts),
        save=lambda _root, _path: None,
    )


def _files(root: Path) -> list[Path]:
    """Return the paths of all files of a folder of scenes."""
    names = [f"annotations/instances_{split}2017.json" for split in SPLITS]
    return [root / name for name in (*names, *(f"{split}2017.zip" for split in SPLITS))]


def _complete(root: Path) -> Path:
    """Return ``root``.

    Raises:
        BenchError: a file is missing.
    """
    if not all(path.is_file() for path in _files(root)):
        raise BenchError(f"{root} is not complete")
    return root


def _draw(root: Path, counts: Mapping[str, int]) -> Path:
    """Draw both splits into a folder; of each, write first a zip file of images, then the annotations."""
    for split, count in counts.items():
        scenes = [Scene(generator(0, "shapes", split, index)) for index in range(count)]
        with store.atomic(root / f"{split}2017.zip") as path, zipfile.ZipFile(path, "w") as archive:
            for index, scene in enumerate(scenes, 1):
                archive.writestr(_name(index), _bytes(scene.pixels), zipfile.ZIP_DEFLATED)
        path = root / "annotations" / f"instances_{split}2017.json"
        store.write_text(path, json.dumps(_content(scenes)))
    return root


def _name(number: int) -> str:
    """Return the file name of the image with an id."""
    return f"{number:012}.bmp"


def _bytes(pixels: UInt8[np.ndarray, "S S 3"]) -> bytes:
    """Encode pixels as BMP, which has no compression that could differ between machines."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "BMP")
    return file.getvalue()


def _content(scenes: Sequence["Scene"]) -> dict[str, Any]:
    """Return the content of COCO's annotation file for the scenes."""
    images = [
        {"id": number, "file_name": _name(number), "width": SIDE, "height": SIDE}
        for number in range(1, len(scenes) + 1)
    ]
    annotations = [
        {"image_id": number, **annotation}
        for number, scene in enumerate(scenes, 1)
        for annotation in scene.annotations()
    ]
    return {
        "images": images,
        "annotations": [{"id": number, **entry} for number, entry in enumerate(annotations, 1)],
        "categories": [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)],
    }


class Scene:
    """A scene of random objects, drawn from back to front.

    Args:
        rng: generator of all random numbers of the scene.

    Attributes:
        pixels: the finished image, S x S x 3.
    """

    def __init__(self, rng: torch.Generator) -> None:
        self._rng = rng
        self._objects: list[tuple[int, Points, Mask]] = []  # class, outline, visible pixels
        self._crowds: list[tuple[int, Mask]] = []  # class, visible pixels
        canvas = self._background()
        for _ in range(self._whole(0, 5)):
            self._paint(canvas, self._clutter())
        if self._whole(0, 12) == 0:
            self._crowd(canvas)
        for _ in range(self._whole(0, 7)):
            self._object(canvas)
        noise = self._grid(SIDE, -15, 16)
        self.pixels: UInt8[np.ndarray, "S S 3"] = np.clip(canvas + noise, 0, 255).astype(np.uint8)

    def annotations(self) -> list[dict[str, Any]]:
        """Return the annotations of the objects and crowds that are visible, without ids."""
        entries = []
        for category, outline, visible in self._objects:
            whole = _inside(outline)
            if visible.sum() < max(LEAST, whole.sum() / 3):
                continue
            hidden = bool((visible != whole).any())
            entries.append(_annotation(category, visible, None if hidden else outline))
        crowds = [(category, mask) for category, mask in self._crowds if mask.any()]
        return entries + [
            _annotation(category, mask, None) | {"iscrowd": 1} for category, mask in crowds
        ]

    def _whole(self, low: int, high: int) -> int:
        """Draw a whole number from ``low`` to ``high - 1``."""
        return int(torch.randint(low, high, (), generator=self._rng))

    def _grid(self, side: int, low: int, high: int) -> Any:
        """Draw an array of side x side x 3 whole numbers from ``low`` to ``high - 1``."""
        shape = (side, side, 3)
        return torch.randint(low, high, shape, generator=self._rng).numpy().astype(np.int64)

    def _background(self) -> Any:
        """Return a canvas, S x S x 3, of a random colour plus two layers of smooth noise."""
        canvas = np.zeros((SIDE, SIDE, 3), np.int64) + self._grid(1, 60, 196)
        for cells, depth in ((3, 50), (10, 30)):
            canvas += _smooth(self._grid(cells + 1, -depth, depth + 1))
        return canvas

    def _paint(self, canvas: Any, mask: Mask) -> None:
        """Fill a mask with a random colour that differs from the image's mean; hide the objects behind it.

        A quarter of the colour that was there shines through.
        """
        mean = canvas.mean((0, 1)).astype(np.int64)
        colour = self._grid(1, 0, 256)[0, 0]
        while abs(colour - mean).sum() < CONTRAST:
            colour = self._grid(1, 0, 256)[0, 0]
        canvas[mask] = (3 * colour + canvas[mask]) // 4
        for _, _, visible in self._objects:
            visible &= ~mask
        for _, visible in self._crowds:
            visible &= ~mask

    def _clutter(self) -> Mask:
        """Return the mask of a random stick or half disc, turned by any angle."""
        outline = _STICK if self._whole(0, 2) else _HALF
        return _inside(self._placed(outline, self._whole(10, SIDE // 2), turn=180))

    def _object(self, canvas: Any) -> None:
        """Draw an object of a random class and size."""
        category = self._whole(0, len(CLASSES))
        # The smaller of two draws: small objects are more frequent than large ones.
        size = min(self._whole(SIDE // 6, SIDE) for _ in range(2))
        outline = self._placed(_outline(category), size)
        mask = _inside(outline)
        self._paint(canvas, mask)
        self._objects.append((category, outline, mask))

    def _crowd(self, canvas: Any) -> None:
        """Draw a crowd: eight small objects of one class close together."""
        category = self._whole(0, len(CLASSES))
        left, top = self._whole(0, SIDE - 30), self._whole(0, SIDE - 30)
        crowd = np.zeros((SIDE, SIDE), bool)
        for _ in range(8):
            spot = (left + self._whole(0, 30), top + self._whole(0, 30))
            mask = _inside(self._placed(_outline(category), self._whole(8, 12), spot=spot))
            self._paint(canvas, mask)
            crowd |= mask
        self._crowds.append((category, crowd))

    def _placed(
        self, outline: Points, size: int, *, turn: int = 20, spot: tuple[int, int] | None = None
    ) -> Points:
        """Return an outline in pixels, rounded to hundredths: stretched, rotated and moved at random.

        Args:
            outline: corners within a circle of radius 1.
            size: diameter of that circle in pixels; each direction is shrunk to 75% of it or more.
            turn: largest angle of the rotation, in degrees.
            spot: position of the centre, x and y in pixels; None draws it.
        """
        angle = math.radians(self._whole(-turn, turn + 1))
        wide, high = (size * self._whole(75, 101) / 200 for _ in range(2))
        x0, y0 = spot or (self._whole(0, SIDE), self._whole(0, SIDE))
        cos, sin = math.cos(angle), math.sin(angle)
        return [
            (round(x0 + wide * x * cos - high * y * sin, 2), round(y0 + wide * x * sin + high * y * cos, 2))
            for x, y in outline
        ]  # fmt: skip


def _outline(category: int) -> Points:
    """Return the corners of an object of a class, within a circle of radius 1."""
    if CLASSES[category] == "cross":
        quarter = [(0.95, -0.3), (0.95, 0.3), (0.3, 0.3)]
        turns = [quarter]
        for _ in range(3):
            turns.append([(-y, x) for x, y in turns[-1]])
        return [point for turn in turns for point in turn]
    corners = {"disc": 24, "square": 4, "triangle": 3, "star": 10}[CLASSES[category]]
    radii = (1.0, 0.42) if CLASSES[category] == "star" else (1.0,)
    return _round(corners, corners, radii)


def _round(count: int, corners: int, radii: Sequence[float] = (1.0,)) -> Points:
    """Return the first ``count`` of ``corners`` points around the origin, from the top on, at ``radii`` in turn."""
    return [
        (radii[i % len(radii)] * math.cos(angle), radii[i % len(radii)] * math.sin(angle))
        for i in range(count)
        for angle in (2 * math.pi * (i / corners - 0.25),)
    ]


_STICK: Points = [(-1.0, -0.12), (1.0, -0.12), (1.0, 0.12), (-1.0, 0.12)]
_HALF: Points = _round(13, 24)


def _smooth(grid: Any) -> Any:
    """Interpolate a coarse grid bilinearly to SIDE x SIDE, in whole numbers."""
    cells = len(grid) - 1
    steps = np.arange(SIDE) * cells
    low, part = steps // SIDE, steps % SIDE
    rows = grid[low] * (SIDE - part)[:, None, None] + grid[low + 1] * part[:, None, None]
    whole = rows[:, low] * (SIDE - part)[:, None] + rows[:, low + 1] * part[:, None]
    return whole // SIDE**2


def _inside(outline: Points) -> Mask:
    """Return the mask of the pixels inside an outline, as pycocotools decodes it."""
    flat = [value for point in outline for value in point]
    mask: Mask = masks.decode(masks.frPyObjects([flat], SIDE, SIDE))[:, :, 0].astype(bool)
    return mask


def _annotation(category: int, visible: Mask, outline: Points | None) -> dict[str, Any]:
    """Return COCO's entry of an object, without ids.

    Args:
        category: index of the class in ``CLASSES``.
        visible: visible pixels; box and area are theirs.
        outline: polygon to take as the mask; None encodes the visible pixels as run lengths.
    """
    rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
    box = [columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]]
    flat = [value for point in outline or [] for value in point]
    return {
        "category_id": category + 1,
        "iscrowd": 0,
        "area": int(visible.sum()),
        "bbox": [int(value) for value in box],
        "segmentation": [flat] if outline else _run_lengths(visible),
    }


def _run_lengths(visible: Mask) -> dict[str, Any]:
    """Encode a mask as COCO's uncompressed run lengths: pixels outside and inside in turn, column by column."""
    flat = visible.T.reshape(-1)
    changes = np.flatnonzero(np.diff(flat.astype(np.int8), prepend=0)).tolist()
    counts = np.diff([0, *changes, flat.size]).tolist()
    return {"size": list(visible.shape), "counts": counts}
