"""Folding of batch normalization into the convolution before it, which saves a pass over memory for every candidate."""

import dataclasses
from collections import Counter
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_conv_bn_weights


@dataclasses.dataclass(frozen=True)
class Fold:
    """A convolution, the normalization after it, and the one convolution that replaces both.

    Attributes:
        convolution, norm: the replaced layers; they keep their parameters, but are not called.
        folded: the convolution that computes the same as both.
    """

    convolution: nn.Conv2d
    norm: nn.BatchNorm2d
    folded: nn.Conv2d

    @torch.no_grad()
    def refresh(self) -> None:
        """Compute the weights of the folded convolution from the current ones of both layers."""
        norm = self.norm
        weight, bias = fuse_conv_bn_weights(
            self.convolution.weight, self.convolution.bias,
            norm.get_buffer("running_mean"), norm.get_buffer("running_var"), norm.eps, norm.weight, norm.bias,
        )  # fmt: skip
        self.folded.weight.copy_(weight)
        self.folded.get_parameter("bias").copy_(bias)


def fold(module: fx.GraphModule) -> list[Fold]:
    """Fold each batch normalization of a graph into the convolution before it, if nothing else uses its output.

    Args:
        module: the graph, in eval mode; it is changed in place. The folded layers stay in it, but are not called.

    Returns:
        The folds; ``refresh`` must be called after a parameter of the folded layers has changed.
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
            folded = fuse_conv_bn_eval(convolution, norm)
            module.set_submodule(f"folded_{len(folds)}", folded)
            before.target = f"folded_{len(folds)}"
            node.replace_all_uses_with(before)
            module.graph.erase_node(node)
            folds.append(Fold(convolution, norm, folded))
    module.recompile()
    return folds
