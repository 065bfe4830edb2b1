"""Networks in whose features images are compared: InceptionV3, which the FID is defined by, or a classifier."""

import dataclasses
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import (
    URL_INCEPTION_V3,
    FeatureExtractorInceptionV3,
)

from bench.errors import BadRequest, BenchError
from bench.importing import read_weights
from bench.progress import say
from bench.randomness import generator
from bench.store import atomic, file_hash, home
from tasks.catalog import TASKS
from tasks.classification import Classification
from tasks.datasets import Split
from tasks.images import Images

INCEPTION, RELEASED = "inception", "released"
CLASSIFIERS = ("convnet3", "resnet18")  # both end in activations of 0 or more
NAMES = (INCEPTION, *CLASSIFIERS)
EPOCHS = 10  # of a classifier
REFERENCE = "6726825d"  # how the SHA-256 of the reference implementation's weights begins
BATCH = 64  # images at once: InceptionV3 makes them 299 x 299


@dataclasses.dataclass(frozen=True)
class FeatureNetwork:
    """A network whose features are numbers of 0 or more.

    Attributes:
        model: what ``prepare`` makes of images to features; in eval mode.
        prepare: images of 8 bits, on the device, to its inputs.
        identity: names its weights.
        tensors: its weights where they are its own, by name; none of InceptionV3, which is the same everywhere.
    """

    model: Callable[[Tensor], Tensor]
    prepare: Callable[[UInt8[Tensor, "n C H W"]], Tensor]
    identity: str
    tensors: dict[str, Tensor] = dataclasses.field(default_factory=dict)

    @torch.inference_mode()
    def __call__(self, images: UInt8[Tensor, "n C H W"]) -> Float[Tensor, "n d"]:
        """Features of images, on their device, in float32 without tensor-core rounding."""
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            pieces = [self.model(self.prepare(some)).flatten(1) for some in images.split(BATCH)]
        return torch.cat(pieces).float()


def metric(network: str, weights: str) -> str:
    """FID for the reference implementation's network and weights alone; any other is named after its network.

    Args:
        network: one of ``NAMES``.
        weights: of InceptionV3, see ``weights_identity``.
    """
    if network != INCEPTION:
        return f"fd-{network}"
    known = weights_identity(weights)
    return "FID" if known in (RELEASED, REFERENCE) else f"fd-inception-{known[:8]}"


# InceptionV3 ---------------------------------------------------------------------------------------------------------


def weights_identity(weights: str) -> str:
    """What names weights of InceptionV3: "released", or the SHA-256 of their file.

    Args:
        weights: "released", a file, or the SHA-256 of one that was used here before.

    Raises:
        BadRequest: no such file.
    """
    if weights == RELEASED or re.fullmatch(r"[0-9a-f]{64}", weights):
        return weights
    if not Path(weights).is_file():
        raise BadRequest(f"no file {weights}: expected 'released' or weights of InceptionV3")
    found = file_hash(Path(weights))
    return RELEASED if found.startswith(REFERENCE) else found


def inception(weights: str, device: str) -> FeatureNetwork:
    """torch-fidelity's InceptionV3 up to its 2,048 pooled features, exactly; grey images are given as three channels.

    Args:
        weights: see ``weights_identity``.
        device: where it runs.

    Raises:
        BadRequest: a file that does not hold its weights.
        BenchError: the released weights could not be downloaded.
    """
    name = weights_identity(weights)
    path = home() / "features" / f"inception-{name}.pth"
    if not path.is_file():
        # torch-fidelity unpickles whatever its file holds: it gets one that is written here, of tensors alone.
        tensors = _weights(weights)
        with atomic(path) as temporary:
            torch.save(tensors, temporary)
    try:
        model = FeatureExtractorInceptionV3(
            INCEPTION, ["2048"], feature_extractor_weights_path=str(path)
        ).to(device)
    except RuntimeError as error:
        path.unlink()
        reason = " ".join(str(error).split())[:200]
        raise BadRequest(f"{weights} does not hold weights of InceptionV3 ({reason})") from None
    return FeatureNetwork(
        model=lambda images: model(images)[0],
        prepare=lambda images: images.expand(-1, 3, -1, -1),
        identity=f"{INCEPTION} {name}",
    )


def _weights(weights: str) -> dict[str, Tensor]:
    if weights == RELEASED:
        return _download()
    if not Path(weights).is_file():
        raise BadRequest(
            f"weights of InceptionV3 with SHA-256 {weights} were not used here before: give the file, "
            "--set task.feature_weights=FILE"
        )
    return read_weights(Path(weights))


def _download() -> dict[str, Tensor]:
    path = home() / "features" / "download.pth"
    path.parent.mkdir(parents=True, exist_ok=True)
    say("download the weights of InceptionV3, 91 MB")
    try:
        torch.hub.download_url_to_file(URL_INCEPTION_V3, str(path), REFERENCE, progress=False)
        return read_weights(path)
    except (OSError, RuntimeError) as error:
        raise BenchError(
            f"the weights of InceptionV3 could not be had from {URL_INCEPTION_V3} ({error}): give a file, "
            "--set task.feature_weights=FILE, or take another network, --set task.feature_network=convnet3, "
            "whose distance is not called FID"
        ) from error
    finally:
        path.unlink(missing_ok=True)


# A classifier of the task's own data ---------------------------------------------------------------------------------


def classifier(
    arch: str,
    dataset: str,
    *,
    device: str,
    data_dir: str | None,
    tensors: dict[str, Tensor] | None = None,
) -> FeatureNetwork:
    """A classifier up to its last linear layer, trained by the suite on the data set's training split.

    Args:
        arch: one of ``CLASSIFIERS``.
        dataset: what it classifies, trained as the named task of that data set is.
        device: where it runs, and is trained.
        data_dir: the folder of real data.
        tensors: its weights, if it was trained before; None takes it from the store, or trains it.
    """
    settings: dict[str, Any] = {**TASKS[dataset].settings, "arch": arch, "epochs": EPOCHS}
    task = Classification(**settings)
    task.device, task.data_dir = device, data_dir  # type: ignore[misc]
    if tensors is None:
        model, _ = task.base(generator(0, "features"))
        tensors = {n: t.detach().cpu().clone() for n, t in model.state_dict().items()}
    else:
        model = task.build().to(device)
        model.load_state_dict(tensors)
    last = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1]
    model.set_submodule(last, nn.Identity())
    one = Split(task.data.train.images[:1], task.data.train.labels[:1])
    inputs = Images.of(task.data, one, task.shape.size, device).inputs
    return FeatureNetwork(model, inputs, f"{arch} {_content(tensors)}", tensors)


def _content(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of names and values."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return found.hexdigest()
