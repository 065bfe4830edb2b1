"""Networks in whose features images are compared: InceptionV3, which the FID is defined by, or a classifier."""

import dataclasses
import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import (
    URL_INCEPTION_V3,
    FeatureExtractorInceptionV3,
)

from bench.errors import BadRequest, BenchError
from bench.system.progress import say
from bench.system.store import atomic, file_hash, home
from bench.system.weights import read_weights

INCEPTION, RELEASED = "inception", "released"
CLASSIFIERS = ("convnet3", "resnet18")  # both end in activations of 0 or more
NAMES = (INCEPTION, *CLASSIFIERS)
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
        """Return features of images, on their device, in float32 without tensor-core rounding."""
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            pieces = [self.model(self.prepare(some)).flatten(1) for some in images.split(BATCH)]
        return torch.cat(pieces).float()


def metric(network: str, weights: str) -> str:
    """Return the metric's name: FID for the reference network and weights alone, else named after the network.

    Args:
        network: one of ``NAMES``.
        weights: of InceptionV3, see ``weights_identity``.
    """
    if network != INCEPTION:
        return f"fd-{network}"
    known = weights_identity(weights)
    return "FID" if known == RELEASED else f"fd-inception-{known[:8]}"


# InceptionV3 ---------------------------------------------------------------------------------------------------------


def weights_identity(weights: str) -> str:
    """Identify weights of InceptionV3: "released" for the reference implementation's, else the SHA-256 of their file.

    Args:
        weights: "released", a file, or the SHA-256 of one that was used here before.

    Raises:
        BadRequest: no such file.
    """
    if weights == RELEASED:
        return weights
    known = re.fullmatch(r"[0-9a-f]{64}", weights)
    if not known and not Path(weights).is_file():
        raise BadRequest(f"no file {weights}: expected 'released' or weights of InceptionV3")
    found = weights if known else file_hash(Path(weights))
    return RELEASED if found.startswith(REFERENCE) else found


def inception(weights: str, device: str) -> FeatureNetwork:
    """Load torch-fidelity's InceptionV3 up to its 2,048 pooled features; grey images are given as three channels.

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
    name: str,
    model: nn.Module,
    inputs: Callable[[UInt8[Tensor, "n C H W"]], Tensor],
    tensors: dict[str, Tensor],
) -> FeatureNetwork:
    """Return a trained classifier up to its last linear layer.

    Args:
        name: one of ``CLASSIFIERS``.
        model: the classifier, in eval mode, with its weights in place; it is changed.
        inputs: images of 8 bits, on the device, to its inputs.
        tensors: its weights by name.
    """
    last = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1]
    model.set_submodule(last, nn.Identity())
    return FeatureNetwork(model, inputs, f"{name} {_content(tensors)}", tensors)


def _content(tensors: dict[str, Tensor]) -> str:
    """Return the SHA-256 of names and values."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return found.hexdigest()
