"""Feature networks by which sets of images are compared: InceptionV3, which defines the FID, or a classifier."""

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
CLASSIFIERS = ("convnet3", "resnet18")  # the features of both are 0 or more
NAMES = (INCEPTION, *CLASSIFIERS)
REFERENCE = "6726825d"  # first digits of the SHA-256 of the reference implementation's weights
BATCH = 64  # images at once: InceptionV3 resizes them to 299 x 299


@dataclasses.dataclass(frozen=True)
class FeatureNetwork:
    """A network that computes features of images, d numbers of 0 or more for each.

    Attributes:
        model: the network, in eval mode: from its inputs to features.
        prepare: function from 8-bit images, on the device, to the inputs of the network.
        identity: text that names the network and its weights.
        tensors: weights of a classifier that was trained here, by name; empty for InceptionV3, whose weights are the
            same everywhere.
    """

    model: Callable[[Tensor], Tensor]
    prepare: Callable[[UInt8[Tensor, "n C H W"]], Tensor]
    identity: str
    tensors: dict[str, Tensor] = dataclasses.field(default_factory=dict)

    @torch.inference_mode()
    def __call__(self, images: UInt8[Tensor, "n C H W"]) -> Float[Tensor, "n d"]:
        """Return the features of images, on their device, computed in float32 without tensor-core rounding."""
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            pieces = [self.model(self.prepare(batch)).flatten(1) for batch in images.split(BATCH)]
        return torch.cat(pieces).float()


def metric(network: str, weights: str) -> str:
    """Return the name of the distance in a network's features: "FID" only with the reference weights of InceptionV3.

    Args:
        network: one of ``NAMES``.
        weights: weights of InceptionV3, see ``weights_identity``; ignored for a classifier.
    """
    if network != INCEPTION:
        return f"fd-{network}"
    identity = weights_identity(weights)
    return "FID" if identity == RELEASED else f"fd-inception-{identity[:8]}"


# InceptionV3 ---------------------------------------------------------------------------------------------------------


def weights_identity(weights: str) -> str:
    """Return the identity of weights of InceptionV3: "released" for the reference weights, else their file's SHA-256.

    Args:
        weights: "released", a file, or the SHA-256 of a file that was used on this machine before.

    Raises:
        BadRequest: the file does not exist.
    """
    if weights == RELEASED:
        return weights
    is_hash = re.fullmatch(r"[0-9a-f]{64}", weights)
    if not is_hash and not Path(weights).is_file():
        raise BadRequest(f"no file {weights}: expected 'released' or weights of InceptionV3")
    digest = weights if is_hash else file_hash(Path(weights))
    return RELEASED if digest.startswith(REFERENCE) else digest


def inception(weights: str, device: str) -> FeatureNetwork:
    """Load torch-fidelity's InceptionV3 up to its 2,048 pooled features; grey images are repeated in three channels.

    Args:
        weights: see ``weights_identity``.
        device: device of the network and of the images.

    Raises:
        BadRequest: the file does not exist, or does not hold weights of InceptionV3.
        BenchError: the released weights could not be downloaded.
    """
    name = weights_identity(weights)
    path = home() / "features" / f"inception-{name}.pth"
    if not path.is_file():
        # torch-fidelity unpickles any objects in its file; so it gets a file written here, of tensors alone.
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
    """Download or read weights of InceptionV3; arguments and errors as of ``inception``."""
    if weights == RELEASED:
        return _download()
    if not Path(weights).is_file():
        raise BadRequest(
            f"weights of InceptionV3 with SHA-256 {weights} were not used here before: give the file, "
            "--set task.feature_weights=FILE"
        )
    return read_weights(Path(weights))


def _download() -> dict[str, Tensor]:
    """Download the reference weights of InceptionV3.

    Raises:
        BenchError: the download failed.
    """
    path = home() / "features" / "download.pth"
    path.parent.mkdir(parents=True, exist_ok=True)
    say("download the weights of InceptionV3, 91 MB")
    try:
        torch.hub.download_url_to_file(URL_INCEPTION_V3, str(path), REFERENCE, progress=False)
        return read_weights(path)
    except (OSError, RuntimeError) as error:
        raise BenchError(
            f"the weights of InceptionV3 could not be downloaded from {URL_INCEPTION_V3} ({error}): give a file, "
            "--set task.feature_weights=FILE, or take another network, --set task.feature_network=convnet3, "
            "whose distance is not called FID"
        ) from error
    finally:
        path.unlink(missing_ok=True)


# A classifier trained on the task's data -----------------------------------------------------------------------------


def classifier(
    name: str,
    model: nn.Module,
    inputs: Callable[[UInt8[Tensor, "n C H W"]], Tensor],
    tensors: dict[str, Tensor],
) -> FeatureNetwork:
    """Return a trained classifier without its last linear layer as a feature network.

    Args:
        name: one of ``CLASSIFIERS``.
        model: the trained classifier, in eval mode; its last layer is removed in place.
        inputs: function from 8-bit images, on the device, to the inputs of the classifier.
        tensors: weights of the classifier by name.
    """
    last = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1]
    model.set_submodule(last, nn.Identity())
    return FeatureNetwork(model, inputs, f"{name} {_content(tensors)}", tensors)


def _content(tensors: dict[str, Tensor]) -> str:
    """Return the SHA-256 of the names and values of tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
