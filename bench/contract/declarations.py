"""Plain values by which a package declares its plugins. Imports nothing heavy."""

import dataclasses
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, TypeVar

from bench.errors import BadRequest, BenchError
from bench.system.data import Json, Settings

if TYPE_CHECKING:
    from pathlib import Path

    import torch

D = TypeVar("D")


@dataclasses.dataclass(frozen=True)
class Variant:
    """A named task: a class, its settings, and how large a run is by default.

    Attributes:
        target: ``module:Class`` of the task.
        about: one line for ``bench list``.
        settings: fields of the class that differ from its defaults.
        k, samples, held_out: checkpoints, generated models and models of the reference of a run that does not say how
            many.
    """

    target: str
    about: str
    settings: Settings = dataclasses.field(default_factory=dict)
    k: int = 200
    samples: int = 100
    held_out: int = 100

    @property
    def counts(self) -> dict[str, int]:
        """The numbers of models, by the option that sets each."""
        return {"k": self.k, "samples": self.samples, "held_out": self.held_out}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Declaration:
    """A function that is known by a name.

    Attributes:
        name: what settings call it.
        target: ``module:function``.
        about: one line for ``bench list``.
        form: the form of the data that it yields or takes.
        options: further keyword arguments of the function.
        ignored: fields that do not affect results, or whose effect the settings show.
    """

    ignored: ClassVar[tuple[str, ...]] = ("about",)

    name: str
    target: str
    about: str
    form: str
    options: Settings = dataclasses.field(default_factory=dict)

    @property
    def module(self) -> str:
        """The module that the function is written in."""
        return self.target.partition(":")[0]

    def function(self) -> Callable[..., object]:
        """Import the function.

        Raises:
            BadRequest: the function does not exist.
        """
        return _function(self.target)

    def facts(self) -> dict[str, Json]:
        """Return the declared values that decide the function's results."""
        fields = dataclasses.asdict(self)
        return {name: value for name, value in fields.items() if name not in self.ignored}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSet(Declaration):
    """A data set, the function that loads it, and the task that is named after it.

    The function is called as ``function(data_set, data_dir, **options)`` with this declaration and the folder of real
    data (None: the suite's own), and returns both splits. A task may add options, such as a limit.

    Attributes:
        form: what is known of an image: "labels" (one class; ``tasks.data.labelled.ImageData``), "boxes"
            (``tasks.data.coco.CocoData``) or "masks" (a class for every pixel; ``tasks.data.masks.MaskedData``).
        classes: how many; without the background.
        channels, size: of an image; the size is the side in pixels, the shorter one where sides differ.
        train, val: images in each split.
        embedded: whether the images come with the suite, so that no folder is read.
        source: the data set that it is made of, where the function loads another one.
        settings, k, samples, held_out: of the task that has the data set's name, see ``Variant``.
    """

    ignored: ClassVar[tuple[str, ...]] = ("about", "settings", "k", "samples", "held_out")

    classes: int
    channels: int
    size: int
    train: int
    val: int
    embedded: bool = False
    source: str | None = None
    settings: Settings = dataclasses.field(default_factory=dict)
    k: int = 200
    samples: int = 100
    held_out: int = 100

    @property
    def summary(self) -> str:
        """The form and the sizes, in one line."""
        images = f"{self.train:,} + {self.val:,} images"
        return f"{self.form}; {images}, {self.size} pixels a side, {self.classes} classes"

    def load(self, kind: type[D], data_dir: "Path | None", **options: object) -> D:
        """Load the training and validation splits.

        Args:
            kind: the type that the function must return.
            data_dir: the folder of real data; None stands for the suite's cache folder.
            options: further arguments of the function, from the task.

        Raises:
            BadRequest: the function does not exist, or files cannot be used.
            BenchError: the function returns another type.
        """
        data = self.function()(self, data_dir, **self.options, **options)
        if not isinstance(data, kind):
            returned = type(data).__name__
            raise BenchError(f"{self.target} returned {returned}, expected {kind.__name__}")
        return data


@dataclasses.dataclass(frozen=True)
class Shape:
    """The size of a network's input and output.

    Attributes:
        channels, size: of an image; the size is its side in pixels, the shorter one where sides differ.
        classes: outputs, with the background where there is one.
        released: whether the architecture is as released, whatever the size, so that released weights fit; otherwise
            small images may get a stem that does not shrink them.
    """

    channels: int
    size: int
    classes: int
    released: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture(Declaration):
    """A network architecture, the function that builds it, and how it is trained.

    The function is called as ``function(shape, **options)`` and returns an untrained ``torch.nn.Module``; with
    ``pretrained`` ("released" or a file of weights) beside the options where ``loads`` says that it can.

    Attributes:
        form: what the network says of an image: "labels", "boxes", "masks", or "noise" (what was added to the image).
        recipe: fields of ``tasks.training.recipe.Recipe`` that differ from its defaults.
        multiple: the side of an image must be a multiple of this, in pixels.
        loads: whether the function takes ``pretrained``.
        alignable: tracks whose zoos of whole networks have hidden units that can be permuted (``bench.judge.align``);
            None where that is not known.
        forward: ``module:function``, called as ``function(network, images)``, that runs a batch of images where calling
            the network with it does not; only for counting operations.
    """

    ignored: ClassVar[tuple[str, ...]] = ("about", "recipe", "multiple", "alignable", "forward")

    recipe: Settings = dataclasses.field(default_factory=dict)
    multiple: int = 1
    loads: bool = False
    alignable: tuple[str, ...] | None = None
    forward: str | None = None

    def build(self, shape: Shape, pretrained: str | None = None) -> "torch.nn.Module":
        """Build the network in eval mode, initialised from torch's global generator or with pretrained weights.

        Raises:
            BadRequest: the images have an unsupported size, or weights do not fit or cannot be read.
            BenchError: the released weights could not be downloaded.
        """
        if shape.size % self.multiple:
            raise BadRequest(
                f"'{self.name}' takes images whose side is a multiple of {self.multiple}, not {shape.size}"
            )
        if pretrained and not self.loads:
            raise BadRequest(f"'{self.name}' has no pretrained weights: leave --pretrained out")
        weights = {"pretrained": pretrained} if pretrained else {}
        import torch  # here, because it takes seconds

        network = self.function()(shape, **self.options, **weights)
        if not isinstance(network, torch.nn.Module):
            returned = type(network).__name__
            raise BenchError(f"{self.target} returned {returned}, expected torch.nn.Module")
        return network.eval()

    def run(self, network: "torch.nn.Module", images: "torch.Tensor") -> None:
        """Run a batch of images through the part of a network whose cost is the same for all images."""
        if self.forward is None:
            network(images)
        else:
            _function(self.forward)(network, images)


def imported(target: str) -> object:
    """Import an object.

    Args:
        target: ``module:name``.

    Raises:
        BadRequest: the object does not exist.
    """
    module, _, name = target.partition(":")
    try:
        value: object = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadRequest(f"cannot import {target}: {error}") from error
    return value


def _function(target: str) -> Callable[..., object]:
    function = imported(target)
    if not callable(function):
        raise BadRequest(f"{target} is no function")
    return function
