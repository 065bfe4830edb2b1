import numpy as np
import pytest
import torch

from bench.metrics import draws, similarity, statistics
from bench.metrics.draws import Stream
from bench.system import randomness, seeds

SEEDS = [(0, "bootstrap"), (7, "a board", "noise 0.1"), (2**53, "x")]


def rng(seed, *purpose):
    return randomness.generator(seed, *purpose)


@pytest.mark.parametrize("named", SEEDS)
def test_a_purpose_has_the_number_that_seeds_torch(named):
    assert seeds.number(*named) == rng(*named).initial_seed()
    derived = randomness.derive(rng(*named), "curve", "noise")
    assert seeds.number(seeds.number(*named), "curve", "noise") == derived.initial_seed()


@pytest.mark.parametrize("named", SEEDS)
@pytest.mark.parametrize("high", [1, 2, 25, 1000])
def test_draws_are_torchs_one_after_another(named, high):
    ours, theirs = Stream(seeds.number(*named)), rng(*named)
    for shape in ((3, 5), (2000, high)):
        expected = torch.randint(high, shape, generator=theirs).numpy()
        np.testing.assert_array_equal(ours.integers(high, *shape), expected)


@pytest.mark.parametrize("n", [1, 2, 7, 300])
def test_intervals_are_those_of_the_metrics(n):
    values = torch.rand(n, generator=rng(1, "values"), dtype=torch.float64)
    matrix = torch.rand(n, n, generator=rng(2, "matrix"))
    matrix = (matrix + matrix.T) / 2
    seed = seeds.number(0, "interval")
    expected = statistics.mean_interval(values, rng(0, "interval"))
    assert Stream(seed).mean_interval(values.numpy()) == pytest.approx(expected, abs=1e-12)
    assert Stream(seed, block=1000).mean_interval(values.numpy()) == pytest.approx(
        expected, abs=1e-12
    )
    pairs = statistics.pair_interval(matrix, rng(0, "interval"))
    ours = Stream(seed).pair_interval(matrix.double().numpy())
    assert (ours is None) is (pairs is None) is (n < 3)
    if pairs:
        assert ours == pytest.approx(pairs, abs=1e-12)
    mean = similarity.mean_off_diagonal(matrix)
    assert draws.mean_off_diagonal(matrix.double().numpy()) == pytest.approx(mean)


@pytest.mark.parametrize("shape", [(4, 9), (1, 3)])
def test_what_is_drawn_after_an_interval_goes_on_where_that_ended(shape):
    """The mean with the nearest original is drawn after that with all, from one source."""
    matrix = torch.rand(shape, generator=rng(3, "cross"))
    nearest = matrix.max(dim=1).values
    theirs = rng(0, "similarity")
    cross = statistics.cross_interval(matrix, theirs)
    after = statistics.mean_interval(nearest, theirs)
    ours = Stream(seeds.number(0, "similarity"))
    assert ours.cross_interval(matrix.double().numpy()) == pytest.approx(cross, abs=1e-12)
    skipped = Stream(seeds.number(0, "similarity"))
    for size in shape:
        skipped.skip(size)
    for stream in (ours, skipped):
        found = stream.mean_interval(nearest.double().numpy())
        if stream is skipped:
            assert found == pytest.approx(after, abs=1e-12)
    assert after != cross
