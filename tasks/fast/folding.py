"""Fold batch normalization into the convolution before it: a pass over memory less for every candidate."""

import dataclasses
from collections import Counter
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_conv_bn_weights


@dataclasses.dataclass(frozen=True)
class Fold:
    """A convolution, the normalization after it, and the convolution that does what both do."""

    convolution: nn.Conv2d
    norm: nn.BatchNorm2d
    both: nn.Conv2d

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the present weights of the two."""
        norm = self.norm
        weight, bias = fuse_conv_bn_weights(
            self.convolution.weight, self.convolution.bias,
            norm.get_buffer("running_mean"), norm.get_buffer("running_var"), norm.eps, norm.weight, norm.bias,
        )  # fmt: skip
        self.both.weight.copy_(weight)
        self.both.get_parameter("bias").copy_(bias)


def fold(module: fx.GraphModule) -> list[Fold]:
    """Change a graph in place: a convolution alone stands where it and its normalization stood, with their weights.

    Args:
        module: in eval mode. The modules that are folded stay as they are, and are called no more.
    """
    modules: dict[Any, nn.Module] = dict(module.named_modules())
    calls = Counter(node.target for node in module.graph.nodes)
    folds: list[Fold] = []
    for node in list(module.graph.nodes):
        norm, before = modules.get(node.target), next(iter(node.all_input_nodes), node)
        convolution = modules.get(before.target)
        if (
            type(norm) is nn.BatchNorm2d
            and norm.track_running_stats
            and type(convolution) is nn.Conv2d
            and len(before.users) == calls[before.target] == 1
        ):
            both = fuse_conv_bn_eval(convolution, norm)
            module.set_submodule(f"folded_{len(folds)}", both)
            before.target = f"folded_{len(folds)}"
            node.replace_all_uses_with(before)
            module.graph.erase_node(node)
            folds.append(Fold(convolution, norm, both))
    module.recompile()
    return folds
