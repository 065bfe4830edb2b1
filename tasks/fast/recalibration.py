"""Statistics of batch normalization that are computed anew for every candidate, from the same images for all of them.

Averages of networks, and generated ones, have other activations than the networks that they are made of, so that
statistics of training do not fit them (REPAIR; Jordan et al. 2022, arXiv 2211.08403).
"""

import copy
import functools
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.batchnorm import _BatchNorm

from bench.contract.zoo import Layout
from bench.errors import BadRequest
from bench.system.progress import track
from tasks.data.source import channels_last
from tasks.fast.budget import of_candidates
from tasks.fast.scoring import as_reference

Moments = tuple[Tensor, Tensor]  # mean and variance of a layer's inputs, a value for each channel


def normalizations(model: nn.Module, names: Sequence[str]) -> dict[str, _BatchNorm]:
    """Return the batch normalizations of a network, all of whose scales and shifts must be generated.

    Args:
        model: the network.
        names: of the generated parameters.

    Raises:
        BadRequest: the network has none, or scales or shifts are not generated.
    """
    found = {
        name: one
        for name, one in model.named_modules()
        if isinstance(one, _BatchNorm) and one.track_running_stats
    }
    if not found:
        raise BadRequest(
            "statistics are recalibrated, but the network has no batch normalization: "
            "leave --set task.statistics out"
        )
    for name in found:
        if not {f"{name}.weight", f"{name}.bias"} <= set(names):
            raise BadRequest(
                f"statistics can be recalibrated in whole networks only, and '{name}' is not generated: "
                "say --layers all, or leave --set task.statistics out"
            )
    return found


class Recalibration:
    """Measures candidates' statistics of some images, and describes candidates by the base's statistics instead.

    Described so, they are scored and trained as any others.

    Args:
        model: the base, in eval mode, on the device.
        layout: which parameters the candidates' vectors hold.
        inputs: the network's inputs for the images.

    Raises:
        BadRequest: see ``normalizations``.
    """

    def __init__(self, model: nn.Module, layout: Layout, inputs: Float[Tensor, "B *input"]) -> None:
        self.layout, self.inputs, self.model = layout, channels_last(inputs), copy.deepcopy(model)
        self.eps, self.base = dict[str, float](), dict[str, Moments]()
        self._seen, self._widest = dict[str, Moments](), 1  # values of a layer's inputs
        for name, norm in normalizations(self.model, layout.names).items():
            moments = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
            self.eps[name], self.base[name] = norm.eps, (moments[0].cpu(), moments[1].cpu())
            norm.register_forward_pre_hook(functools.partial(self._look, name))
            # Without running statistics it takes those of the batch, which is all of the images.
            norm.running_mean = norm.running_var = norm.num_batches_tracked = None
        # Candidates that run at once; on a CPU kernels of several take longer than one after another.
        self.together = 1
        if inputs.device.type != "cpu":
            self._run({})
            self.together = max(1, of_candidates(inputs.device).work // (4 * self._widest))

    def _look(self, name: str, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        axes = [axis for axis in range(inputs[0].ndim) if axis != 1]
        variance, mean = torch.var_mean(inputs[0], axes)
        self._seen[name], self._widest = (mean, variance), max(self._widest, inputs[0].numel())

    @torch.no_grad()
    def _run(self, tensors: Mapping[str, Tensor]) -> dict[str, Moments]:
        """Return the statistics of one candidate."""
        functional_call(self.model, dict(tensors), (self.inputs,))
        return dict(self._seen)

    def statistics(self, vectors: Float[Tensor, "N D"]) -> dict[str, Moments]:
        """Return every candidate's statistics of the images, N in front, by the layers' names."""
        chunks = track(vectors.split(self.together), "normalization statistics")
        parts = [self._of_chunk(chunk.to(self.inputs.device)) for chunk in chunks]
        return {
            name: (
                torch.cat([part[name][0] for part in parts]).cpu(),
                torch.cat([part[name][1] for part in parts]).cpu(),
            )
            for name in self.eps
        }

    def _of_chunk(self, vectors: Float[Tensor, "n D"]) -> dict[str, Moments]:
        tensors = self.layout.unflatten(vectors)
        with as_reference(self.inputs.device.type):
            if self.together > 1:
                together: dict[str, Moments] = vmap(self._run)(tensors)
                return together
            seen = self._run({name: tensor[0] for name, tensor in tensors.items()})
            return {name: (mean[None], variance[None]) for name, (mean, variance) in seen.items()}

    def fold(
        self, vectors: Float[Tensor, "N D"], own: Mapping[str, Moments]
    ) -> Float[Tensor, "N D"]:
        """Return vectors that do with the base's statistics what the given ones do with their own."""
        return self._described(vectors, own, self.base)

    def unfold(
        self, vectors: Float[Tensor, "N D"], own: Mapping[str, Moments]
    ) -> Float[Tensor, "N D"]:
        """Return vectors that do with statistics of their own what the given ones do with the base's."""
        return self._described(vectors, self.base, own)

    def _described(
        self,
        vectors: Float[Tensor, "N D"],
        before: Mapping[str, Moments],
        after: Mapping[str, Moments],
    ) -> Float[Tensor, "N D"]:
        tensors = self.layout.unflatten(vectors)
        for name, eps in self.eps.items():
            scale, shift = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
            (mean, variance), (mean2, variance2) = before[name], after[name]
            slope = scale / (variance + eps).sqrt()  # of a feature
            tensors[f"{name}.weight"] = slope * (variance2 + eps).sqrt()
            tensors[f"{name}.bias"] = shift + slope * (mean2 - mean)
        return self.layout.flatten(tensors)
