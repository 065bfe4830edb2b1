"""Running statistics of batch normalization, expressed in its parameters."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def fold_statistics(
    model: nn.Module, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Express batch normalization's running statistics in its weight and bias.

    w (x - m) / sqrt(v + e) + b equals w' x / sqrt(1 + e) + b' with w' = w sqrt(1 + e) / sqrt(v + e) and
    b' = b - w m / sqrt(v + e). So networks that differ in their statistics can share one base, with mean 0 and variance
    1, and each is described by its parameters alone.

    Args:
        model: names its batch normalizations.
        parameters, buffers: by name, any batch dimensions in front.
    """
    folded: dict[str, Tensor] = dict(parameters)
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            weight, bias = parameters[f"{name}.weight"], parameters[f"{name}.bias"]
            scale = (buffers[f"{name}.running_var"] + module.eps).rsqrt()
            folded[f"{name}.weight"] = weight * scale * (1 + module.eps) ** 0.5
            folded[f"{name}.bias"] = bias - weight * scale * buffers[f"{name}.running_mean"]
    return folded


def neutral_statistics(model: nn.Module) -> None:
    """Set every batch normalization's running mean to 0 and variance to 1: the base of folded networks."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.reset_running_stats()
