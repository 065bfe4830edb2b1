"""Copying: are generated models nearer to the checkpoints than trained models that no generator saw?"""

import math

from jaxtyping import Float
from torch import Tensor

from bench.errors import BenchError


def copy_test(generated: Float[Tensor, " n"], reference: Float[Tensor, " m"]) -> tuple[int, float]:
    """Test exactly whether generated models lie nearer to the zoo than models trained apart from it.

    Under the null hypothesis, generated and reference models are drawn alike and apart from the zoo, so that all orders
    of the n + m distances are equally likely. The statistic is the number k of generated models before the first
    reference model, that of Rosenbaum's exceedance test (1954):

        p = P(at least k) = product over i < k of (n - i) / (n + m - i) = C(n, k) / C(n + m, k)

    Ties with the nearest reference model are not counted, which can only raise p. A distance that is NaN is nearer than
    none.

    Args:
        generated, reference: distance of each model to its nearest checkpoint of the zoo.

    Returns:
        How many generated models are nearer than all reference models, and p (1 where there are none).

    Raises:
        BenchError: no reference models, or one without a distance.

    >>> import torch
    >>> copy_test(torch.tensor([0.1, 0.2, 0.9]), torch.tensor([0.3, 0.4, 0.5]))
    (2, 0.2)
    """
    if not len(reference) or bool(reference.isnan().any()):
        raise BenchError("the copy test needs reference models, all with a distance to the zoo")
    nearer = int((generated.double() < reference.double().min()).sum())
    n, m = len(generated), len(reference)
    return nearer, math.comb(n, nearer) / math.comb(n + m, nearer)
