"""``shapes``: scenes that the suite draws itself, in COCO's format, the same ones on every machine.

Each scene has up to six objects of five kinds, told apart by form alone: colour, size (a sixth of the side to all of
it), stretch and a small turn are random. Later objects hide parts of earlier ones, and what is hidden too far is not
annotated. The background is a soft texture; sticks and half discs, which are no objects, lie in it; everything is under
pixel noise. Some scenes have a crowd, many small objects of a kind outlined as one, and some have nothing.

Everything random is a whole number, and textures are computed in whole numbers, so that no machine rounds differently.
A pixel belongs to an object where pycocotools says so: the images are painted with the very masks that are annotated,
polygons where an object is seen whole, run lengths where it is partly hidden.
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
SIDE = 80  # of an image, in pixels
FORMAT = 1  # raise it when what is drawn changes
LEAST = 30  # fewer visible pixels, or less than a third of the object's, are not annotated
CONTRAST = (
    45  # least distance of an object's colour to the mean colour of its image, summed over channels
)

Numbers = torch.Generator
Points = list[tuple[float, float]]
Mask = Bool[np.ndarray, "S S"]


def load(data_set: DataSet, data_dir: Path | None, *, limit: int | None = None) -> CocoData:
    """Draw as many scenes as the declaration says, and read them.

    Args:
        data_set: its counts are those of the scenes.
        data_dir: not needed.
        limit: at most this many images of each split; None takes all.
    """
    return coco.read(data_set.name, folder(data_set.train, data_set.val), limit)


def folder(train: int, val: int) -> Path:
    """Draw scenes into a folder, in COCO's layout, unless they lie there already; return the folder."""
    counts = {"train": train, "val": val}
    root = store.home() / "scenes" / store.digest([FORMAT, SIDE, counts, CLASSES])
    return store.stage(
        root / "annotations" / "instances_val2017.json",  # the last of its files
        load=lambda _: _complete(root),
        make=lambda: _draw(root, counts),
        save=lambda _root, _path: None,
    )


def _files(root: Path) -> list[Path]:
    names = [f"annotations/instances_{split}2017.json" for split in SPLITS]
    return [root / name for name in (*names, *(f"{split}2017.zip" for split in SPLITS))]


def _complete(root: Path) -> Path:
    if not all(path.is_file() for path in _files(root)):
        raise BenchError(f"{root} is not complete")
    return root


def _draw(root: Path, counts: Mapping[str, int]) -> Path:
    """Draw both splits: the images into a zip file, then the annotations."""
    for split, count in counts.items():
        scenes = [Scene(generator(0, "shapes", split, index)) for index in range(count)]
        with store.atomic(root / f"{split}2017.zip") as path, zipfile.ZipFile(path, "w") as archive:
            for index, scene in enumerate(scenes, 1):
                archive.writestr(_name(index), _bytes(scene.pixels), zipfile.ZIP_DEFLATED)
        path = root / "annotations" / f"instances_{split}2017.json"
        store.write_text(path, json.dumps(_content(scenes)))
    return root


def _name(number: int) -> str:
    return f"{number:012}.bmp"


def _bytes(pixels: UInt8[np.ndarray, "S S 3"]) -> bytes:
    """Return a file of these pixels: BMP, which has no compression that could differ between machines."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "BMP")
    return file.getvalue()


def _content(scenes: Sequence["Scene"]) -> dict[str, Any]:
    """Return COCO's annotations of the scenes."""
    images = [
        {"id": number, "file_name": _name(number), "width": SIDE, "height": SIDE}
        for number in range(1, len(scenes) + 1)
    ]
    found = [
        {"image_id": number, **annotation}
        for number, scene in enumerate(scenes, 1)
        for annotation in scene.annotations()
    ]
    return {
        "images": images,
        "annotations": [{"id": number, **one} for number, one in enumerate(found, 1)],
        "categories": [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)],
    }


class Scene:
    """One image being drawn, back to front.

    Args:
        rng: the source of everything random in it.

    Attributes:
        pixels: the finished image.
    """

    def __init__(self, rng: Numbers) -> None:
        self._rng = rng
        self._objects: list[tuple[int, Points, Mask]] = []  # kind, outline, pixels not hidden
        self._crowds: list[tuple[int, Mask]] = []
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
        """Return the annotations of visible objects and crowds."""
        found = []
        for kind, outline, seen in self._objects:
            whole = _inside(outline)
            if seen.sum() < max(LEAST, whole.sum() / 3):
                continue
            hidden = bool((seen != whole).any())
            found.append(_annotation(kind, seen, None if hidden else outline))
        crowds = [(kind, mask) for kind, mask in self._crowds if mask.any()]
        return found + [_annotation(kind, mask, None) | {"iscrowd": 1} for kind, mask in crowds]

    def _whole(self, low: int, high: int) -> int:
        """Return a whole number, ``high`` not among them."""
        return int(torch.randint(low, high, (), generator=self._rng))

    def _grid(self, side: int, low: int, high: int) -> Any:
        """Draw side x side x 3 whole numbers."""
        shape = (side, side, 3)
        return torch.randint(low, high, shape, generator=self._rng).numpy().astype(np.int64)

    def _background(self) -> Any:
        """Return a random colour, and two layers of smooth noise on it."""
        canvas = np.zeros((SIDE, SIDE, 3), np.int64) + self._grid(1, 60, 196)
        for cells, depth in ((3, 50), (10, 30)):
            canvas += _smooth(self._grid(cells + 1, -depth, depth + 1))
        return canvas

    def _paint(self, canvas: Any, mask: Mask) -> None:
        """Fill a mask with a colour that differs from the image's mean, and hide what lies behind."""
        mean = canvas.mean((0, 1)).astype(np.int64)
        colour = self._grid(1, 0, 256)[0, 0]
        while abs(colour - mean).sum() < CONTRAST:
            colour = self._grid(1, 0, 256)[0, 0]
        canvas[mask] = (3 * colour + canvas[mask]) // 4
        for _, _, seen in self._objects:
            seen &= ~mask
        for _, seen in self._crowds:
            seen &= ~mask

    def _clutter(self) -> Mask:
        """Return a stick or a half disc."""
        kind = _STICK if self._whole(0, 2) else _HALF
        return _inside(self._placed(kind, self._whole(10, SIDE // 2), turn=180))

    def _object(self, canvas: Any) -> None:
        kind = self._whole(0, len(CLASSES))
        # Small objects are more frequent: the size is the smaller one of two.
        size = min(self._whole(SIDE // 6, SIDE) for _ in range(2))
        outline = self._placed(_outline(kind), size)
        mask = _inside(outline)
        self._paint(canvas, mask)
        self._objects.append((kind, outline, mask))

    def _crowd(self, canvas: Any) -> None:
        """Draw eight small objects of one kind close together."""
        kind = self._whole(0, len(CLASSES))
        left, top = self._whole(0, SIDE - 30), self._whole(0, SIDE - 30)
        crowd = np.zeros((SIDE, SIDE), bool)
        for _ in range(8):
            spot = (left + self._whole(0, 30), top + self._whole(0, 30))
            mask = _inside(self._placed(_outline(kind), self._whole(8, 12), spot=spot))
            self._paint(canvas, mask)
            crowd |= mask
        self._crowds.append((kind, crowd))

    def _placed(
        self, outline: Points, size: int, *, turn: int = 20, spot: tuple[int, int] | None = None
    ) -> Points:
        """Return the outline stretched, turned up to so many degrees, and moved to a spot; in hundredths of a pixel."""
        angle = math.radians(self._whole(-turn, turn + 1))
        wide, high = (size * self._whole(75, 101) / 200 for _ in range(2))
        x0, y0 = spot or (self._whole(0, SIDE), self._whole(0, SIDE))
        cos, sin = math.cos(angle), math.sin(angle)
        return [
            (round(x0 + wide * x * cos - high * y * sin, 2), round(y0 + wide * x * sin + high * y * cos, 2))
            for x, y in outline
        ]  # fmt: skip


def _outline(kind: int) -> Points:
    """Return the corners of a kind of object, within a circle of radius 1."""
    if CLASSES[kind] == "cross":
        quarter = [(0.95, -0.3), (0.95, 0.3), (0.3, 0.3)]
        turns = [quarter]
        for _ in range(3):
            turns.append([(-y, x) for x, y in turns[-1]])
        return [point for turn in turns for point in turn]
    corners = {"disc": 24, "square": 4, "triangle": 3, "star": 10}[CLASSES[kind]]
    radii = (1.0, 0.42) if CLASSES[kind] == "star" else (1.0,)
    return _round(corners, corners, radii)


def _round(count: int, corners: int, radii: Sequence[float] = (1.0,)) -> Points:
    """Return the first of so many corners around a circle from the top on, at these distances in turn."""
    return [
        (radii[i % len(radii)] * math.cos(angle), radii[i % len(radii)] * math.sin(angle))
        for i in range(count)
        for angle in (2 * math.pi * (i / corners - 0.25),)
    ]


_STICK: Points = [(-1.0, -0.12), (1.0, -0.12), (1.0, 0.12), (-1.0, 0.12)]
_HALF: Points = _round(13, 24)


def _smooth(grid: Any) -> Any:
    """Return a coarse grid of whole numbers as a texture of SIDE x SIDE: bilinear, in whole numbers."""
    cells = len(grid) - 1
    steps = np.arange(SIDE) * cells
    low, part = steps // SIDE, steps % SIDE
    rows = grid[low] * (SIDE - part)[:, None, None] + grid[low + 1] * part[:, None, None]
    whole = rows[:, low] * (SIDE - part)[:, None] + rows[:, low + 1] * part[:, None]
    return whole // SIDE**2


def _inside(outline: Points) -> Mask:
    """Return the pixels inside an outline, as pycocotools sees them."""
    flat = [value for point in outline for value in point]
    mask: Mask = masks.decode(masks.frPyObjects([flat], SIDE, SIDE))[:, :, 0].astype(bool)
    return mask


def _annotation(kind: int, seen: Mask, outline: Points | None) -> dict[str, Any]:
    """Return COCO's entry of an object: box and area of the visible part; its outline, or else its run lengths."""
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    box = [columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]]
    flat = [value for point in outline or [] for value in point]
    return {
        "category_id": kind + 1,
        "iscrowd": 0,
        "area": int(seen.sum()),
        "bbox": [int(value) for value in box],
        "segmentation": [flat] if outline else _run_lengths(seen),
    }


def _run_lengths(seen: Mask) -> dict[str, Any]:
    """Return COCO's uncompressed encoding: counts of pixels outside and inside in turn, column by column."""
    flat = seen.T.reshape(-1)
    changes = np.flatnonzero(np.diff(flat.astype(np.int8), prepend=0)).tolist()
    counts = np.diff([0, *changes, flat.size]).tolist()
    return {"size": list(seen.shape), "counts": counts}
