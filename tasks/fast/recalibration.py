"""Statistics of batch normalization that are computed anew for every candidate, from the same images for all of them.

Averages of networks, and generated ones, have other activations than the networks that they are made of, so that
statistics of training do not fit them (REPAIR; Jordan et al. 2022, arXiv 2211.08403).
"""

import copy
import functools
from collections.abc import Callable, Mapping, Sequence

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

Statistics = tuple[Tensor, Tensor]  # mean and variance of a layer's inputs, one value a channel


def normalizations(model: nn.Module, names: Sequence[str]) -> dict[str, _BatchNorm]:
    """Return the batch normalizations of a network, all of whose scales and shifts must be generated.

    Args:
        model: the network.
        names: of the generated parameters.

    Raises:
        BadRequest: the network has none, or scales or shifts are not generated.
    """
    found = {name: one for name, one in model.named_modules() if isinstance(one, _BatchNorm)}
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
    """Converts candidates between two descriptions: with their own statistics of some images, and with the base's.

    With the base's, they are scored and trained as any others.

    Args:
        model: the base, in eval mode, on the device.
        layout: which parameters the candidates' vectors hold.
        inputs: the network's inputs for the images.

    Raises:
        BadRequest: see ``normalizations``.
    """

    def __init__(self, model: nn.Module, layout: Layout, inputs: Float[Tensor, "B *input"]) -> None:
        self.layout, self.inputs = layout, channels_last(inputs)
        self.eps = {name: one.eps for name, one in normalizations(model, layout.names).items()}
        self.base = {name: _running(model.get_submodule(name)) for name in self.eps}
        self.model, self.own = copy.deepcopy(model), copy.deepcopy(model)
        self._seen: dict[str, Statistics] = {}
        self._widest = 0  # values of a layer's inputs
        for network in (self.model, self.own):
            for name, one in normalizations(network, layout.names).items():
                one.register_forward_pre_hook(functools.partial(self._look, name))
        for one in normalizations(self.own, layout.names).values():
            # Without running statistics it takes those of the batch, which is all of the images.
            one.running_mean = one.running_var = one.num_batches_tracked = None
        self.together = (
            1  # candidates; on a CPU kernels of several take longer than one after another
        )
        if inputs.device.type != "cpu":
            with torch.no_grad():
                self._statistics(self.model, {})
            self.together = max(1, of_candidates(inputs.device).work // (4 * self._widest))

    def fold(self, vectors: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        """Return vectors that do with the base's statistics what the given ones do with those of the images."""
        return self._converted(vectors, self.own, lambda name, seen: (seen, self.base[name]))

    def unfold(self, vectors: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        """Return vectors that do with the images' statistics what the given ones do with those of the base."""
        return self._converted(vectors, self.model, lambda name, seen: (self.base[name], seen))

    @torch.no_grad()
    def _converted(
        self,
        vectors: Float[Tensor, "N D"],
        network: nn.Module,
        exchange: Callable[[str, Statistics], tuple[Statistics, Statistics]],
    ) -> Float[Tensor, "N D"]:
        converted = vectors.clone()
        run = functools.partial(self._statistics, network)
        for low in track(range(0, len(vectors), self.together), "normalization statistics"):
            some = slice(low, low + self.together)
            tensors = self.layout.unflatten(vectors[some].to(self.inputs.device))
            with as_reference(self.inputs.device.type):
                seen = _alone(run, tensors) if self.together == 1 else vmap(run)(tensors)
            for name, eps in self.eps.items():
                names = f"{name}.weight", f"{name}.bias"
                affine = tensors[names[0]], tensors[names[1]]
                tensors |= zip(
                    names, exchanged(affine, *exchange(name, seen[name]), eps), strict=True
                )
            converted[some] = self.layout.flatten(tensors).cpu()
        return converted

    def _statistics(
        self, network: nn.Module, tensors: Mapping[str, Tensor]
    ) -> dict[str, Statistics]:
        functional_call(network, dict(tensors), (self.inputs,))
        return dict(self._seen)

    def _look(self, name: str, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        axes = [axis for axis in range(inputs[0].ndim) if axis != 1]
        variance, mean = torch.var_mean(inputs[0], axes)
        self._seen[name], self._widest = (mean, variance), max(self._widest, inputs[0].numel())


def exchanged(
    affine: tuple[Tensor, Tensor], own: Statistics, other: Statistics, eps: float
) -> tuple[Tensor, Tensor]:
    """Return the scale and shift that do with other statistics what the given ones do with their own.

    Args:
        affine: scale and shift of a batch normalization.
        own, other: mean and variance of its inputs.
        eps: what it adds to a variance.
    """
    scale, shift = affine
    (mean, deviation), (mean2, deviation2) = ((m, (v + eps).sqrt()) for m, v in (own, other))
    new = scale * deviation2 / deviation
    return new, shift - scale * mean / deviation + new * mean2 / deviation2


def _alone(
    run: Callable[[Mapping[str, Tensor]], Mapping[str, Statistics]], tensors: Mapping[str, Tensor]
) -> dict[str, Statistics]:
    """Run a function of one candidate's tensors as ``vmap`` would."""
    found = run({name: tensor[0] for name, tensor in tensors.items()})
    return {name: (mean[None], variance[None]) for name, (mean, variance) in found.items()}


def _running(norm: nn.Module) -> Statistics:
    return norm.get_buffer("running_mean").clone(), norm.get_buffer("running_var").clone()
