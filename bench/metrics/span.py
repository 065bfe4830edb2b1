"""Span: what of a vector no affine combination of checkpoints explains."""

import torch
from jaxtyping import Float
from torch import Tensor

BLOCK = 16_384  # dimensions at a time: in float64 whole vectors would fill the memory
RANK = 1e-10  # of the largest eigenvalue: directions with less are none
ROUNDING = 8  # in units of the vectors' precision: a residual below is none


def span_residual(
    generated: Float[Tensor, "n D"], originals: Float[Tensor, "K D"]
) -> Float[Tensor, " n"] | None:
    """Return the share of each vector's squared deviation from the checkpoints' mean that they do not span.

    With x a vector's deviation from the mean of the checkpoints, C their own deviations as rows, and G = C C' of size
    K x K with eigenvalues l > 0 and eigenvectors u (least squares by normal equations):

        share = 1 - sum over (l, u) of (u' C x)^2 / l / |x|^2

    0 for averages, interpolations and extrapolations of checkpoints, and for models of their principal components; near
    1 for vectors of many dimensions that owe them nothing. Sums are in float64.

    0 for the mean itself, and where the residual is no more than the rounding of the vectors: the mean of float32
    vectors deviates from their exact mean, in directions of its own. NaN for vectors that are not finite.

    Args:
        generated: n vectors.
        originals: K checkpoints, finite.

    Returns:
        None where there are fewer dimensions than checkpoints, which may then span all.
    """
    if originals.shape[1] < len(originals):
        return None
    gram, products, squares, sizes = _sums(generated, originals)
    values, vectors = torch.linalg.eigh(gram)
    there = values > RANK * values[-1]
    explained = ((products @ vectors[:, there]).square() / values[there]).sum(1)
    left = squares - explained
    rounding = ROUNDING * torch.finfo(generated.dtype).eps
    left = torch.where(left <= rounding**2 * sizes, 0, left)
    return torch.where(left == 0, 0, left / squares)


def _sums(
    generated: Float[Tensor, "n D"], originals: Float[Tensor, "K D"]
) -> tuple[Float[Tensor, "K K"], Float[Tensor, "n K"], Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Sum products of deviations from the checkpoints' mean over all dimensions.

    Returns:
        Those of checkpoints with checkpoints, of vectors with checkpoints and with themselves; and the size of the
        numbers that the deviations come from: the squared norms of a vector and of a usual checkpoint.
    """
    zeros = torch.zeros(len(originals), len(originals), dtype=torch.float64)
    gram, products = zeros, zeros.new_zeros(len(generated), len(originals))
    squares, sizes = products.sum(1), products.sum(1)
    blocks = zip(generated.split(BLOCK, dim=1), originals.split(BLOCK, dim=1), strict=True)
    for vectors, checkpoints in ((a.double(), b.double()) for a, b in blocks):
        mean = checkpoints.mean(0)
        x, c = vectors - mean, checkpoints - mean
        gram, products, squares = gram + c @ c.T, products + x @ c.T, squares + x.square().sum(1)
        sizes = sizes + vectors.square().sum(1) + checkpoints.square().sum() / len(checkpoints)
    return gram, products, squares, sizes
