import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.metrics import matched, novelty
from bench.metrics.matched import Models
from bench.system import randomness, seeds


def halves(seed, rows, columns, steps=2048):
    """Similarities that float16 holds exactly."""
    rng = np.random.default_rng(seed)
    return (rng.integers(1, steps, (rows, columns)) / steps).astype(np.float16)


def theirs(control, similar, models, own, sign):
    """What the metrics give: the advantage with its intervals."""
    rng = randomness.generator(0, "board")
    curve = novelty.Curve(
        torch.from_numpy(control),
        1 - torch.from_numpy(similar.astype(np.float64)),
        rng=randomness.derive(rng, "curve"),
        higher_is_better=sign > 0,
    )
    return curve, novelty.advantage(
        torch.from_numpy(models),
        1 - torch.from_numpy(own.astype(np.float64)),
        curve,
        rng=randomness.derive(rng, "models"),
    )


def ours(control, similar, models, own, sign):
    seed = seeds.number(0, "board")
    return (
        Models.of(sign * control, similar, seeds.number(seed, "curve")),
        Models.of(sign * models, own, seeds.number(seed, "models")),
    )


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("levels", [1, 8])
@pytest.mark.parametrize("seed", range(3))
def test_the_curve_and_the_advantage_are_those_of_the_metrics(seed, levels, sign):
    rng = np.random.default_rng(seed)
    control, models = rng.random((levels, 12)), rng.random(30)
    similar, own = halves(seed, levels, 12, 64), halves(seed + 9, 1, 30, 64)[0]
    curve, expected = theirs(control, similar, models, own, sign)
    beside, judged = ours(control, similar, models, own, sign)
    least, most = matched.inside(judged, beside)
    assert least <= round((1 - expected.beyond) * 30) <= most
    count = round((1 - expected.beyond) * 30)
    worst = matched.curves(beside)[0]  # of equal novelties the worst first: the same as one knot
    place = worst.place(curve.knots.numpy())
    np.testing.assert_allclose(worst.fitted[place], curve.fitted.numpy(), atol=1e-12)
    if count:
        for typical, number in ((False, expected.mean), (True, expected.typical)):
            found = matched.advantage(judged, beside, count, typical=typical)
            least = (number[0], min(number[0], number[1]), max(number[0], number[2]))
            for low, value, high in zip(found.least, least, found.most, strict=True):
                assert low - 1e-9 <= value <= high + 1e-9


def test_models_that_rounding_cannot_move_have_one_advantage():
    control, similar = np.array([[0.9, 0.5]]), np.array([[0.75, 0.25]], np.float16)
    models, own = np.array([1.0, 1.0, 0.25]), np.array([0.9, 0.5, 0.3], np.float16)
    beside, judged = ours(control, similar, models, own, 1)
    assert matched.inside(judged, beside) == (3, 3)
    found = matched.advantage(judged, beside, 3)
    assert found.least == found.most
    assert found.least[0] == pytest.approx((0.1 + 0.1 - 0.65) / 3)


def test_models_at_the_edge_of_a_control_may_be_within_it_or_not():
    control, similar = np.array([[0.9, 0.5]]), np.array([[0.75, 0.25]], np.float16)
    models, own = np.array([1.0, 0.0, 0.5]), np.array([0.25, 0.25, 0.5], np.float16)
    beside, judged = ours(control, similar, models, own, 1)
    assert matched.inside(judged, beside) == (1, 3)
    found = matched.advantage(judged, beside, 2)
    assert found.least[0] < found.most[0]


def test_rounding_of_what_was_measured_stays_within_the_range():
    """Real IoU, kept as float16: what the record was computed from lies between the variants, or nearly."""
    rng = np.random.default_rng(5)
    exact, own = rng.random((8, 25)) * 0.1 + 0.9, rng.random(100) * 0.1 + 0.9
    control, models = np.sort(rng.random((8, 25)), axis=0), rng.random(100)
    _, expected = theirs(control, exact, models, own, 1)
    beside, judged = ours(control, exact.astype(np.float16), models, own.astype(np.float16), 1)
    count = round((1 - expected.beyond) * 100)
    found = matched.advantage(judged, beside, count)
    slack = 0.15 * found.width
    for low, value, high in zip(found.least, expected.mean, found.most, strict=True):
        assert low - slack <= value <= high + slack
    assert found.most[0] - found.least[0] < found.width


@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 300))
def test_many_fits_are_as_good_as_each_alone(seed, knots, rows):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=knots) * 10.0 ** rng.integers(-3, 4)
    weights = rng.integers(0, 3, (rows, knots)).astype(float)
    weights[:, 0] += weights.sum(1) == 0
    found = matched._isotonic(scores, weights)
    expected = novelty._isotonic(scores * weights, weights)
    for row, fitted, wanted in zip(weights, found, expected, strict=True):
        first = int(np.flatnonzero(row)[0])
        scale = max(1.0, np.abs(scores).max())
        np.testing.assert_allclose(fitted[first:], wanted[first:], atol=1e-9 * scale)
