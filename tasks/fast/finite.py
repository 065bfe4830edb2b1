"""What is not finite (NaN or infinite) in what a model puts out is wrong, in every task, and is counted."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def not_finite(outputs: Float[Tensor, "*rows values"]) -> Bool[Tensor, "*rows"]:
    """Return which rows of outputs hold a value that is not finite.

    >>> not_finite(torch.tensor([[0.0, 1.0], [torch.nan, 1.0], [0.0, -torch.inf]]))
    tensor([False,  True,  True])
    """
    # Only finite values have a finite sum, which costs a tenth of looking at each of them. A GPU would have to wait.
    if outputs.device.type == "cpu" and math.isfinite(float(outputs.sum())):
        return torch.zeros(outputs.shape[:-1], dtype=torch.bool)
    return ~outputs.isfinite().all(-1)
