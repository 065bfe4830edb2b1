"""The kinds of inputs: how one of each is written, damaged, and what of the suite then reads it."""

import contextlib
import copy
import functools
import io
import json
import random
import shutil
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file, save_file

from bench.contract.zoo import Zoo
from bench.contract.zoo_header import read_header
from bench.errors import BenchError
from bench.judge.population import ORIGINAL
from bench.records import check, report, side
from bench.records import export as packing
from bench.records.record import Record
from bench.records.request import Request
from bench.records.scale import Scale
from bench.runs import stages
from bench.runs.importing import import_zoo
from bench.system import store
from leaderboard import load, opened, plots, static
from tasks.data import coco, datasets, decoding
from tasks.data.catalog import DATA_SETS
from tasks.data.sources import Spec
from tests import records
from tests.fuzz.mutations import (
    NUMBERS,
    odd_tensor,
    other,
    places,
    some_arrays,
    some_bytes,
    some_values,
    text_of,
)

KINDS = {
    "record": 20,
    "board": 1,
    "side": 10,
    "figures": 3,
    "zip": 6,
    "zoo": 15,
    "stage": 15,
    "weights": 15,
    "coco": 20,
    "image": 25,
}  # by name, how often one is drawn
Read = Callable[[], Iterable[str] | None]  # reads an input; returns lines of text, or raises
Writer = Callable[
    [random.Random, Path], Read
]  # writes a damaged input to a folder; returns what reads it


def prepared(folder: Path, kinds: Sequence[str]) -> dict[str, Writer]:
    """Return the writers of some kinds; whole inputs, of which they damage copies, are made in a folder."""
    folder.mkdir(parents=True)
    decoding.formats()
    run = functools.cache(lambda: _run(folder))
    made: dict[str, Callable[[], Writer]] = {
        "record": lambda: functools.partial(_record, _records(run())),
        "board": lambda: functools.partial(_board, _records(run())),
        "side": lambda: functools.partial(_side, run()),
        "figures": lambda: functools.partial(_figures, run()),
        "zip": lambda: functools.partial(_zip, _zipped(run(), folder)),
        "zoo": lambda: functools.partial(_zoo, _stored("zoos", run())),
        "stage": lambda: functools.partial(_stage, _stages(run())),
        "weights": lambda: _weights,
        "coco": lambda: _coco,
        "image": lambda: functools.partial(_image, _images()),
    }
    return {kind: made[kind]() for kind in kinds}


# Records -------------------------------------------------------------------------------------------------------------


def _run(folder: Path) -> Path:
    """Carry out a tiny run; return its record's file, which has a side file beside it."""
    settings = {"arch": "mlp3", "epochs": 1, "batch_size": 20, "track": "seeds", "layers": "all"}
    request = Request(
        task="fake", generator="gaussian", task_settings=settings, k=6, samples=5, held_out=4, device="cpu",
        results=folder / "results",
    )  # fmt: skip
    from bench.runs.pipeline import Run

    return Run(request).execute()[1]


def _records(path: Path) -> list[Any]:
    """Return records as plain data: the run's, and made ones of both schemas and several kinds."""
    made = (
        records.record(),
        records.judged(),
        records.judged(0.2, 0.3, 0.5, 0.0, models=9, held=9),
        records.parsed(records.distances()),
    )
    return [
        json.loads(path.read_text()),
        records.content(),
        records.distances(),
        *(json.loads(one.to_json()) for one in made),
    ]


def _scored(rng: random.Random, data: Any) -> None:
    """Give a population other scores, with the statistics that follow from them."""
    places_ = [
        c for c, key in places(data) if key == "values" and isinstance(c[key], list) and c[key]
    ]
    one = rng.choice(places_)
    for _ in range(rng.choice((1, 1, 3))):
        one["values"][rng.randrange(len(one["values"]))] = float(
            rng.choice([n for n in NUMBERS if abs(n) < 1e309 and n == n and n < 10**308])
        )
    with contextlib.suppress(OverflowError, ValueError):  # scores that have no mean
        one.update({n: v for n, v in records.population(*one["values"]).items() if n in one})


def _changed(rng: random.Random, seeds: list[Any]) -> Any:
    data = copy.deepcopy(rng.choice(seeds))
    if rng.random() < 0.3:
        _scored(rng, data)
    return some_values(rng, data) if rng.random() < 0.9 else data


def _written(rng: random.Random, place: Path, data: Any) -> Path:
    """Write a record's file, where its key and id say if they are plain names."""
    names = [data.get(n) if isinstance(data, dict) else None for n in ("key", "id")]
    key, name = (
        n if isinstance(n, str) and n.isalnum() and n.isascii() and len(n) < 50 else "0" * 16
        for n in names
    )
    path = place / key / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text_of(rng, data))
    return path


def _record(seeds: list[Any], rng: random.Random, place: Path) -> Read:
    path = _written(rng, place, _changed(rng, seeds))
    return lambda: [*check.check(path), *_shown(path)]


def _shown(path: Path) -> list[str]:
    """Show a record as 'bench show' does; return its lines, which have nothing unprintable."""
    console = Console(file=io.StringIO(), width=report.WIDTH)
    console.print(report.render(Record.read(path), str(path)))
    shown = console.file.getvalue().splitlines()
    return [f"unprintable\n{line}" for line in shown if not line.isprintable()]


def _board(seeds: list[Any], rng: random.Random, place: Path) -> Read:
    for _ in range(rng.choice((1, 2, 4))):
        _written(rng, place, _changed(rng, seeds))
    (place / "good").mkdir()
    (place / "good" / "good.json").write_text(json.dumps(seeds[3]))
    return lambda: _pages(place)


def _pages(folder: Path) -> list[str]:
    """Make every page of the leaderboard from the records below a folder."""
    frame, broken = load.load([folder])
    if frame.empty:
        return ["no record is left:\nthe good one is lost"]
    pages = list(static.pages(frame))  # every page, by the functions that make the application's
    names = [name for name, _ in pages if not name.isprintable()]
    return [*names, *(f"{item.path} {item.reason}" for item in broken)]


# Side files ----------------------------------------------------------------------------------------------------------


def _with_side(rng: random.Random, source: Path, place: Path) -> Path:
    """Write the run's record with a damaged side file, whose hash it mostly names; return its path."""
    data, arrays = json.loads(source.read_text()), side.read(source.with_suffix(".npz"))
    target = place / source.parent.name / source.name
    target.parent.mkdir()
    file = target.with_suffix(".npz")
    if rng.random() < 0.4:
        file.write_bytes(some_bytes(rng, source.with_suffix(".npz").read_bytes()))
    else:
        with zipfile.ZipFile(
            file, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
        ) as archive:
            for name, array in some_arrays(rng, arrays).items():
                content = io.BytesIO()
                np.save(content, array)
                written = content.getvalue()
                if rng.random() < 0.02:
                    written = some_bytes(rng, written[:128]) + written[128:]
                archive.writestr(f"{name}.npy".replace("\udc80", ""), written)
    if rng.random() < 0.9:
        data["artifacts"]["side"]["sha256"] = store.file_hash(file)
    target.write_text(json.dumps(data))
    return target


def _side(source: Path, rng: random.Random, place: Path) -> Read:
    path = _with_side(rng, source, place)
    return lambda: check.check(path)


def _figures(source: Path, rng: random.Random, place: Path) -> Read:
    if rng.random() < 0.5:
        path = _with_side(rng, source, place)
    else:
        path = _written(rng, place, _changed(rng, _records(source)))
    return lambda: _drawn(opened.open_record(path, label=rng.choice(("", "a", "<b>"))))


def _drawn(one: opened.Shown) -> None:
    """Draw every figure of a run, as its pages do."""
    several = (
        plots.score_against_similarity, plots.distributions, plots.four_comparisons,
        functools.partial(plots.quality_and_cost, models=100),
    )  # fmt: skip
    single = (
        plots.composition, plots.iou_heat_map, plots.parameter_heat_map, plots.parameter_histogram,
    )  # fmt: skip
    maps = (
        plots.embedding(one, "map"),
        plots.embedding(one, "map", paths=True),
        plots.embedding(one, "latent"),
    )
    drawn = [*(draw([one]) for draw in several), *(draw(one) for draw in single), *maps]
    for figure in drawn:
        if figure is not None:
            figure.to_json()
    report.sentences(one.record), Scale.of(one.record), one.record.command


# Zips ----------------------------------------------------------------------------------------------------------------


def _zipped(path: Path, folder: Path) -> dict[str, bytes]:
    """Return the members of an exported record."""
    with zipfile.ZipFile(packing.export(path, folder / "export.zip")) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _zip(members: dict[str, bytes], rng: random.Random, place: Path) -> Read:
    changed = dict(members)
    for _ in range(rng.choice((0, 1, 1, 2))):
        name = rng.choice(list(changed))
        match rng.randrange(4):
            case 0:
                changed[name] = some_bytes(rng, changed[name])
            case 1:
                changed[rng.choice(("../a", "/etc/passwd", "a\nb", name.upper()))] = changed.pop(
                    name
                )
            case 2:
                changed[name] = bytes(10_000_000) + changed[name]
            case 3:
                changed["record.json"] = text_of(
                    rng, some_values(rng, json.loads(members["record.json"]))
                )
        if not changed:
            break
    path = place / "export.zip"
    method = rng.choice(
        (
            zipfile.ZIP_STORED,
            zipfile.ZIP_DEFLATED,
            zipfile.ZIP_DEFLATED,
            zipfile.ZIP_BZIP2,
            zipfile.ZIP_LZMA,
        )
    )
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in changed.items():
            archive.writestr(name, content)
    if rng.random() < 0.6:
        path.write_bytes(some_bytes(rng, path.read_bytes()))
    return lambda: check.check(path)


# Zoos, stages and weights --------------------------------------------------------------------------------------------


def _stored(kind: str, path: Path) -> list[Path]:
    """Return the files of a kind in the store, where the run left them."""
    assert path.is_file()
    return sorted((store.home() / kind).glob("*.safetensors"))


def _stages(path: Path) -> list[tuple[Path, Callable[[Path], object]]]:
    """Return the files of stages with what reads them."""
    population = functools.partial(stages.load_population, origin=ORIGINAL)
    loaders = {
        "generated": stages.load_sampled,
        "references": stages.load_reference,
        "evaluated": population,
    }
    return [(file, load_) for kind, load_ in loaders.items() for file in _stored(kind, path)[:3]]


def _tensors(rng: random.Random, source: Path, target: Path) -> None:
    """Write a file of tensors with damaged bytes, header, facts or tensors."""
    content = source.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header, body = json.loads(content[8 : 8 + size]), content[8 + size :]
    match rng.randrange(4):
        case 0:
            target.write_bytes(some_bytes(rng, content))
            return
        case 1:
            header = some_values(rng, header)
        case 2:
            facts = header["__metadata__"]
            for name in facts:
                facts[name] = text_of(rng, some_values(rng, json.loads(facts[name]))).decode(
                    errors="replace"
                )
        case 3:
            tensors = load_file(source)
            name = rng.choice(list(tensors))
            tensors[rng.choice((name, "vectors", "x"))] = odd_tensor(rng, tensors[name])
            try:
                save_file(
                    {n: t.contiguous() for n, t in tensors.items() if t.numel() < 10**6},
                    target,
                    header["__metadata__"],
                )
            except Exception:  # what safetensors cannot hold
                target.write_bytes(content[:-1])
            return
    text = json.dumps(header).encode()
    target.write_bytes(len(text).to_bytes(8, "little") + text + body)


def _zoo(sources: list[Path], rng: random.Random, place: Path) -> Read:
    path = place / "a.zoo"
    _tensors(rng, rng.choice(sources), path)

    def read() -> list[str]:
        problems = []
        try:
            read_header(path)
        except BenchError as error:
            problems.append(str(error))
        zoo = Zoo.load(path)
        zoo.head(max(1, len(zoo) - 1)).copy().check_unchanged()
        zoo.layout.unflatten(zoo.vectors)
        zoo.save(path)
        return problems

    return read


def _stage(
    sources: list[tuple[Path, Callable[[Path], object]]], rng: random.Random, place: Path
) -> Read:
    source, load_ = rng.choice(sources)
    path = place / "a.safetensors"
    _tensors(rng, source, path)
    return lambda: load_(path) and None


def _weights(rng: random.Random, place: Path) -> Read:
    """Write one to three state dicts, of which some are odd."""
    paths = []
    for number in range(rng.choice((1, 2, 3))):
        state: Any = {
            "a.weight": torch.full((3, 2), float(number)),
            "b": torch.arange(4.0),
            "n": torch.tensor(number),
        }
        for name in list(state):
            if rng.random() < 0.3:
                state[rng.choice((name, name, "x", "a\nb"))] = odd_tensor(rng, state[name])
        if rng.random() < 0.1:
            state[rng.choice(("state_dict", "x"))] = other(rng, {"a": 1})
        path = place / f"{number}{rng.choice(('.pth', '.pt', '.safetensors'))}"
        try:
            if path.suffix == ".safetensors":
                save_file(state, path)
            else:
                torch.save(state, path, _use_new_zipfile_serialization=rng.random() < 0.7)
        except Exception:  # what the format cannot hold
            torch.save({"a.weight": torch.zeros(3, 2)}, path.with_suffix(".pth"))
            path = path.with_suffix(".pth")
        if rng.random() < 0.4:
            path.write_bytes(some_bytes(rng, path.read_bytes()))
        paths.append(path)
    return lambda: import_zoo(paths, runs=rng.choice((None, "file", r"(\d)"))).hash and None


# Data sets -----------------------------------------------------------------------------------------------------------


def _annotations() -> Any:
    return {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 24 + n, "height": 20} for n in (1, 2)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 3, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 3, 8, 9], "area": 72.0, "iscrowd": 0,
             "segmentation": [[2, 3, 10, 3, 10, 12, 2, 12]]},
            {"id": 2, "image_id": 2, "category_id": 3, "bbox": [1.5, 1.0, 5.0, 5.0], "area": 25.0},
            {"id": 3, "image_id": 2, "category_id": 1, "bbox": [0, 0, 10, 20], "area": 200, "iscrowd": 1,
             "segmentation": {"size": [20, 26], "counts": [0, 200, 320]}},
        ],
    }  # fmt: skip


def _coco(rng: random.Random, place: Path) -> Read:
    (place / "annotations").mkdir()
    for split in ("train", "val"):
        data = _annotations()
        folder = place / f"{split}2017"
        folder.mkdir()
        for image in data["images"]:
            Image.new("RGB", (image["width"], image["height"])).save(folder / image["file_name"])
        if split == "train" or rng.random() < 0.3:
            data = some_values(rng, data)
        (place / "annotations" / f"instances_{split}2017.json").write_bytes(text_of(rng, data))
        if rng.random() < 0.2:
            shutil.make_archive(str(folder), "zip", folder)
            shutil.rmtree(folder)
            if rng.random() < 0.5:
                file = folder.with_suffix(".zip")
                file.write_bytes(some_bytes(rng, file.read_bytes()))

    def read() -> None:
        data = coco.read("fuzz", place, rng.choice((None, 1)))
        for split in (data.train, data.val):
            for row in range(len(split)):
                split.image(row)
                with contextlib.suppress(BenchError):  # of boxes alone there is none
                    coco.semantic_mask(split, row, data.category_ids)

    return read


def _images() -> list[tuple[str, bytes]]:
    """Return small images of many formats and modes."""
    made = []
    rng = np.random.default_rng(0)
    for mode in ("1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16", "I", "F"):
        pixels = Image.fromarray(rng.integers(0, 255, (16, 20), np.uint8)).convert("RGB")
        image = (
            pixels.convert(mode)
            if mode not in ("I;16",)
            else Image.fromarray(rng.integers(0, 65535, (16, 20), np.uint16))
        )
        for kind in (
            "PNG",
            "JPEG",
            "GIF",
            "BMP",
            "TIFF",
            "WEBP",
            "PPM",
            "TGA",
            "ICO",
            "JPEG2000",
            "PCX",
            "SGI",
            "DDS",
            "ICNS",
            "AVIF",
        ):
            content = io.BytesIO()
            try:
                image.save(content, kind)
            except (
                OSError,
                ValueError,
                KeyError,
                RuntimeError,
                TypeError,
            ):  # no such mode in this format
                continue
            made.append((kind, content.getvalue()))
    return made


def _image(images: list[tuple[str, bytes]], rng: random.Random, place: Path) -> Read:
    _, content = rng.choice(images)
    (place / "image").write_bytes(some_bytes(rng, content))
    spec = Spec(DATA_SETS[rng.choice(("mnist", "cifar10"))], "fuzz", "", "")

    def read() -> None:
        data = (place / "image").read_bytes()
        try:
            decoding.remarks_on(data, rng.choice((None, (20, 16))))
            decoded = decoding.as_mode(decoding.open_image(data), spec.mode)
            datasets._fitted(decoded.image, spec)
        except decoding.UNREADABLE as error:
            raise decoding.refusal("image", error) from error

    return read
