"""Images that a record's models draw, beside real ones: ``python -m tests.drawings RECORD docs/digits.png``.

The zoo and the generated weights are looked for under BENCH_HOME, as ``bench verify`` looks for them.
"""

from pathlib import Path
from typing import Annotated

import torch
import typer
from PIL import Image, ImageDraw
from torchvision.utils import make_grid

from bench.contract.zoo import Zoo
from bench.records.record import Population, Record
from bench.runs import pipeline, prepared
from bench.runs.stages import load_sampled
from bench.runs.verify import request
from bench.system import store

SIDE = 8  # images along each side of a grid
HEIGHT = 400  # pixels of a grid, at most
GAP, GREY = 2, 110  # between images
MARGIN, TITLE = 12, 18


def grid(images: torch.Tensor) -> Image.Image:
    """The first images with gaps between them, enlarged by whole pixels."""
    tiled = make_grid(images[: SIDE * SIDE], nrow=SIDE, padding=GAP, pad_value=GREY)
    picture = Image.fromarray(tiled.permute(1, 2, 0).numpy())
    factor = max(1, HEIGHT // picture.height)
    size = (factor * picture.width, factor * picture.height)
    return picture.resize(size, Image.Resampling.NEAREST)


def beside(pictures: dict[str, Image.Image]) -> Image.Image:
    """Titled pictures in a row."""
    width = sum(picture.width + MARGIN for picture in pictures.values()) + MARGIN
    height = max(picture.height for picture in pictures.values()) + TITLE + 2 * MARGIN
    sheet = Image.new("RGB", (width, height), "white")
    left = MARGIN
    for title, picture in pictures.items():
        ImageDraw.Draw(sheet).text((left, MARGIN), title, "black")
        sheet.paste(picture, (left, MARGIN + TITLE))
        left += picture.width + MARGIN
    return sheet


def selected(population: Population) -> int:
    """The model that was chosen on the training split."""
    return population.values.index(population.selected)


def main(
    record: Path,
    output: Path,
    device: Annotated[str, typer.Option()] = "cpu",
    data_dir: Annotated[str | None, typer.Option()] = None,
) -> None:
    """Draw with the selected original and the selected generated model, from the same noise."""
    read = Record.read(record)
    path = store.home() / "zoos" / read.artifacts.zoo.file
    run = pipeline.Run(request(read, path, prepared.choose_device(device), data_dir))
    zoo = Zoo.load(path).head(read.zoo.k)
    sampled = load_sampled(store.home() / "generated" / read.artifacts.generated.file)
    original = selected(read.original)
    generated = selected(read.generated)
    vectors = torch.stack([zoo.vectors[original], sampled.vectors[generated]])
    real = run.task.data.val.images
    drawn = run.task.draw(zoo, vectors, "val", SIDE * SIDE).cpu()
    metric = read.task.metric.name
    beside(
        {
            "real": grid(real),
            f"original, {metric} {read.original.selected:.3g}": grid(drawn[0]),
            f"{read.generator.name}, {metric} {read.generated.selected:.3g}": grid(drawn[1]),
        }
    ).save(output)


if __name__ == "__main__":
    typer.run(main)
