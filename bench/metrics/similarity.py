"""Similarity of models: IoU of their wrong predictions (paper, equation 7), or the same of what they make."""

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torch.nn import functional

BLOCK = 10_000  # units at a time: as float32 the whole matrix would take four times the memory of the booleans
ROWS = 200  # models at a time, multiplied with themselves and all later ones


def pairwise(a: Shaped[Tensor, "N M"], b: Shaped[Tensor, "P M"]) -> Float[Tensor, "N P"]:
    """Return the similarity of every pair of models, in [0, 1]: IoU of wrong units, weighted Jaccard of features."""
    return iou(a, b) if a.dtype == torch.bool else weighted_jaccard(a, b)


def iou(a: Bool[Tensor, "N M"], b: Bool[Tensor, "P M"]) -> Float[Tensor, "N P"]:
    """Return intersection over union of wrong sets for every pair of rows; 1.0 where both are empty (Eq. 7).

    >>> iou(torch.tensor([[True, True, False]]), torch.tensor([[True, False, False]]))
    tensor([[0.5000]])
    """
    return iou_of(*overlaps(a, b))


def iou_of(
    both: Float[Tensor, "N P"], size_a: Float[Tensor, "N 1"], size_b: Float[Tensor, " P"]
) -> Float[Tensor, "N P"]:
    """Return the IoU of every pair of sets from what ``overlaps`` counted."""
    either = (size_a + size_b).sub_(both)
    return (both / either.clamp(min=1)).masked_fill_(either == 0, 1.0)


def overlaps(
    a: Bool[Tensor, "N M"], b: Bool[Tensor, "P M"]
) -> tuple[Float[Tensor, "N P"], Float[Tensor, "N 1"], Float[Tensor, " P"]]:
    """Count the members that every pair of rows shares, and those of every row of a and of b."""
    both = torch.zeros(len(a), len(b), device=a.device)  # counts below 2^24 are exact in float32
    size_a = torch.zeros(len(a), 1, device=a.device)
    size_b = torch.zeros(len(b), device=a.device)
    for low in range(0, a.shape[1], BLOCK):
        x = a[:, low : low + BLOCK].float()
        y = x if b is a else b[:, low : low + BLOCK].float()
        both += _products(x, y)
        size_a += x.sum(1, keepdim=True)
        size_b += y.sum(1)
    return both, size_a, size_b


def _products(x: Float[Tensor, "N M"], y: Float[Tensor, "P M"]) -> Float[Tensor, "N P"]:
    """Return the inner products of all pairs of rows; on a CPU each pair once where both matrices are the same."""
    if x.device.type != "cpu" or 0 in (len(x), len(y)):
        return x @ y.T
    if x is not y:
        return _convolved(x, y)
    products = x.new_empty(len(x), len(x))
    for low in range(0, len(x), ROWS):
        rows = slice(low, low + ROWS)
        block = _convolved(x[rows], x[low:])
        products[rows, low:] = block
        products[low:, rows] = block.T
    return products


def _convolved(x: Float[Tensor, "N M"], y: Float[Tensor, "P M"]) -> Float[Tensor, "N P"]:
    """Return the product ``x @ y.T`` as a convolution of one pixel, for which PyTorch uses all that a processor has.

    Its matrix product in float32 leaves AVX-512 unused on some: there this is twice as fast. The rows of ``y`` are the
    pixels of one image with channels last, which is how they lie: seen as anything else they would be copied.
    """
    image = y[None, None].permute(0, 3, 1, 2)
    return functional.conv2d(image, x[:, :, None, None])[0, :, 0]


def weighted_jaccard(a: Float[Tensor, "N M"], b: Float[Tensor, "P M"]) -> Float[Tensor, "N P"]:
    """Return the sum of minima over the sum of maxima for every pair of rows of numbers >= 0; 1.0 where all are 0.

    In [0, 1], 1 for equal rows alone, and on zeros and ones the intersection over union (Ruzicka 1958; Ioffe, ICDM
    2010). Minima and maxima add up to the sums and differ by the absolute differences, so that one distance is enough.

    >>> weighted_jaccard(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.5], [1.0, 2.0]]))
    tensor([[0.5000, 1.0000]])
    """
    a, b = a.double(), b.double()
    apart = torch.cdist(a, b, p=1)
    if a.shape == b.shape and torch.equal(a, b):
        apart = (apart + apart.T) / 2  # the last digit depends on the order of a pair
    together = a.sum(1, keepdim=True) + b.sum(1)
    alike = (together - apart) / (together + apart)
    return alike.masked_fill_(together == 0, 1.0).clamp_(0, 1).float()


def mean_off_diagonal(matrix: Float[Tensor, "N N"]) -> float | None:
    """Return the mean over pairs of different models; None for a single model."""
    n = len(matrix)
    if n < 2:
        return None
    return float((matrix.double().sum() - matrix.diagonal().double().sum()) / (n * (n - 1)))


def nearest_other(matrix: Float[Tensor, "K K"]) -> float | None:
    """Return the mean over models of the largest similarity to any other model; None for a single model.

    It is what a model of the same kind has by chance with its nearest original (of K - 1, not of K), and so what a
    generated model's nearest similarity is to be held against.

    >>> nearest_other(torch.tensor([[1.0, 0.5, 0.25], [0.5, 1.0, 0.25], [0.25, 0.25, 1.0]]))
    0.4166666666666667
    """
    nearest = nearest_others(matrix)
    return float(nearest.double().mean()) if len(nearest) else None


def nearest_others(matrix: Float[Tensor, "K K"]) -> Float[Tensor, " _"]:
    """Return every model's largest similarity to any other model: K of them, or none of a single model."""
    if len(matrix) < 2:
        return matrix.new_empty(0)
    return matrix.clone().fill_diagonal_(-torch.inf).max(1).values


def nearest_l2_ratio(
    generated: Float[Tensor, "n D"],
    originals: Float[Tensor, "K D"],
    reference: Float[Tensor, "m D"],
) -> float | None:
    """Return the median distance to the nearest original over the reference's; None where most of those are copies."""
    nearest, usual = (
        float(_distances(models, originals).min(1).values.quantile(0.5))
        for models in (generated, reference)
    )
    return nearest / usual if usual > 0 else None


def toward_mean(generated: Float[Tensor, "n D"], originals: Float[Tensor, "K D"]) -> float:
    """Return the median of a / (a + b), with distances a to the nearest original and b to the originals' mean.

    0 at an original, 1 at the mean; 0 where they are the same point.
    """
    nearest = _distances(generated, originals).min(1).values
    mean = _distances(generated, originals.double().mean(0, keepdim=True).float())[:, 0]
    return float((nearest / (nearest + mean).clamp(min=torch.finfo().tiny)).quantile(0.5))


def _distances(a: Float[Tensor, "N D"], b: Float[Tensor, "P D"]) -> Float[Tensor, "N P"]:
    """Return L2 distances, computed from differences: products would lose those of nearly equal vectors.

    In float32; in float64 where squares overflow, as those of a broken generator's vectors do.
    """
    distances = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    far = ~distances.isfinite().all(1)
    if bool(far.any()):
        distances = distances.double()
        distances[far] = torch.cdist(
            a[far].double(), b.double(), compute_mode="donot_use_mm_for_euclid_dist"
        )
    return distances
