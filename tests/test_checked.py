import jaxtyping
import pytest
import torch

import tests
from bench.metrics.similarity import mean_off_diagonal

OBLONG = torch.ones(2, 3)  # where a square matrix is expected


def test_a_wrong_shape_is_refused():
    with pytest.raises(jaxtyping.TypeCheckError, match="mean_off_diagonal"):
        mean_off_diagonal(OBLONG)


def test_only_the_first_calls_of_a_function_are_checked():
    for _ in range(tests.CHECKED):
        mean_off_diagonal(torch.ones(2, 2))
    mean_off_diagonal(OBLONG)


def test_every_test_checks_anew():
    with pytest.raises(jaxtyping.TypeCheckError):
        mean_off_diagonal(OBLONG)
