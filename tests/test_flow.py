"""Flow matching: its parts against closed forms and scikit-learn, and what it draws."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from bench.contract.zoo import Layout, Zoo
from bench.errors import BadRequest
from bench.system.randomness import generator
from generators.flow import Flow
from generators.networks.principal import PrincipalAxes
from generators.networks.velocity import VelocityNetwork


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def zoo_of(vectors) -> Zoo:
    return Zoo(vectors, Layout(("weight",), ((vectors.shape[1],),)))


# Principal components ------------------------------------------------------------------------------------------------


@given(
    k=st.integers(2, 12), dim=st.integers(1, 40), kept=st.integers(1, 15), seed=st.integers(0, 99)
)
def test_principal_axes_are_scikit_learns(k, dim, kept, seed):
    vectors = draw(k, dim, seed=seed) @ torch.diag(torch.linspace(3, 0.5, dim)) + 2
    axes = PrincipalAxes.fit(vectors, kept)
    most = min(kept, k - 1, dim)
    theirs = PCA(most).fit(vectors.double().numpy())
    assert axes.axes.shape == (most, dim)
    found = axes.undo(axes.apply(vectors))
    expected = theirs.inverse_transform(theirs.transform(vectors.double().numpy()))
    assert np.allclose(found.numpy(), expected, atol=1e-4)
    assert torch.allclose(axes.axes @ axes.axes.T, torch.eye(most), atol=1e-4)


def test_all_directions_give_the_checkpoints_back():
    vectors = draw(9, 500)
    axes = PrincipalAxes.fit(vectors, 1_000)
    assert len(axes.axes) == 8
    assert torch.allclose(axes.undo(axes.apply(vectors)), vectors, atol=1e-5)


def test_checkpoints_that_do_not_vary_have_one_empty_direction():
    vectors = draw(1, 30).repeat(4, 1)
    axes = PrincipalAxes.fit(vectors, 10)
    assert axes.axes.shape == (1, 30)
    assert torch.allclose(axes.undo(axes.apply(vectors)), vectors, atol=1e-6)


# The flow ------------------------------------------------------------------------------------------------------------


def between_gaussians(mean, std, source):
    """The velocity that carries N(0, source^2) to N(mean, std^2) when points are paired at random."""

    def velocity(x, t):
        variance = ((1 - t) * source) ** 2 + (t * std) ** 2
        return mean + (t * std**2 - (1 - t) * source**2) / variance * (x - t * mean)

    return velocity


def test_the_exact_velocity_carries_a_gaussian_to_a_gaussian():
    """Its path is known: x0 goes to mean + std / source x0."""
    made = Flow(components=0, iterations=1, source_std=0.5, ode_steps=200).fit(
        zoo_of(draw(4, 3)), rng=generator(0)
    )
    made.mean_, made.spread_ = torch.zeros(3), torch.ones(())
    made.network_ = between_gaussians(torch.tensor([1.0, -2.0, 0.0]), 1.5, 0.5)
    path = made.sampling_path(50, 2, rng=generator(1))
    start, end = path[:, 0], path[:, -1]
    assert start.std() == pytest.approx(0.5, rel=0.2)
    assert torch.allclose(end, torch.tensor([1.0, -2.0, 0.0]) + 3 * start, atol=1e-3)
    assert torch.equal(made.sample(50, rng=generator(1)), end)


def test_a_trained_flow_has_the_velocity_between_gaussians():
    mean, std = torch.tensor([0.4, -0.8]), 0.9
    points = mean + std * draw(4_000, 2)
    made = Flow(
        components=0, source_std=1.0, path_noise=0.0, iterations=1_500, batch_size=256, dropout=0.0,
        hidden=64, learning_rate=3e-3,
    ).fit(zoo_of(points), rng=generator(0))  # fmt: skip
    exact = between_gaussians(0, std / made.spread_, 1.0)
    for time in (0.1, 0.5, 0.9):
        x = draw(500, 2, seed=3)
        t = torch.full((500, 1), time)
        with torch.no_grad():
            error = (made.network_(x, t) - exact(x, t)).square().mean().sqrt()
        assert error < 0.25, time
    drawn = made.sample(2_000, rng=generator(1))
    assert torch.allclose(drawn.mean(0), mean, atol=0.12)
    assert torch.allclose(drawn.std(0), torch.full((2,), std), atol=0.12)


def test_the_loss_is_that_of_its_formula():
    made = Flow(components=0, source_std=0.3, path_noise=0.2)
    x1 = draw(6, 4)
    seen = {}

    def network(x, t):
        seen["x"], seen["t"] = x, t
        return torch.zeros_like(x)

    loss = made.loss(network, x1, torch.Generator().manual_seed(5))
    rng = torch.Generator().manual_seed(5)
    x0 = 0.3 * torch.randn(6, 4, generator=rng)
    t = torch.rand(6, 1, generator=rng)
    noise = 0.2 * torch.randn(6, 4, generator=rng)
    assert torch.allclose(loss, (x1 - x0).square().mean())
    assert torch.equal(seen["t"], t)
    assert torch.allclose(seen["x"], (1 - t) * x0 + t * x1 + noise)


def test_the_network_begins_as_no_velocity_and_drops_after_two_layers():
    network = VelocityNetwork(7, (16, 8, 16), time_width=4, dropout=0.1)
    assert torch.equal(network(draw(3, 7), torch.rand(3, 1)), torch.zeros(3, 7))
    kinds = [type(layer).__name__ for layer in network.layers]
    assert kinds == ["Linear", "LayerNorm", "GELU", "Dropout"] * 2 + [
        "Linear",
        "LayerNorm",
        "GELU",
        "Linear",
    ]


def test_models_are_affine_combinations_of_the_checkpoints():
    vectors = draw(6, 300) + 1
    drawn = Flow(iterations=50).fit(zoo_of(vectors), rng=generator(0)).sample(5, rng=generator(1))
    apart = (drawn - vectors.mean(0)).T.double()
    span = (vectors - vectors.mean(0)).T.double()
    explained = span @ torch.linalg.lstsq(span, apart, driver="gelsd").solution
    assert torch.allclose(explained, apart, atol=1e-5)


def test_long_training_copies_and_short_training_does_not():
    """What the audits of the field found: the longer it trains, the nearer its models are to checkpoints."""
    vectors = draw(8, 200)

    def nearest(iterations):
        made = Flow(iterations=iterations, dropout=0.0, learning_rate=2e-3).fit(
            zoo_of(vectors), rng=generator(0)
        )
        return torch.cdist(made.sample(40, rng=generator(1)), vectors).min(1).values.median()

    usual = torch.cdist(vectors, vectors).fill_diagonal_(math.inf).min(1).values.median()
    assert nearest(1_500) < 0.35 * usual < nearest(50)


@pytest.mark.parametrize("spread", [1e-4, 1e3])
def test_checkpoints_of_any_scale_are_learned(spread):
    vectors = 5 + spread * draw(20, 50)
    drawn = Flow(iterations=300).fit(zoo_of(vectors), rng=generator(0)).sample(30, rng=generator(1))
    found = (drawn - vectors.mean(0)).square().mean().sqrt() / (
        vectors - vectors.mean(0)
    ).square().mean().sqrt()
    assert 0.3 < found < 1.5


def test_equal_checkpoints_give_themselves():
    vectors = draw(1, 30).repeat(4, 1)
    drawn = Flow(iterations=5).fit(zoo_of(vectors), rng=generator(0)).sample(3, rng=generator(1))
    assert torch.allclose(drawn, vectors[:3], atol=1e-5)


def test_the_paper_preset_is_what_was_published():
    """From the official program's configuration of MLPs (commit eeb79fd)."""
    made = Flow(**Flow.presets["paper"])
    assert (made.components, made.hidden, made.time_width, made.dropout) == (99, 512, 64, 0.1)
    assert (made.source_std, made.path_noise, made.ode_steps) == (0.01, 0.001, 99)
    assert (made.iterations, made.batch_size) == (30_000, 8)
    assert (made.learning_rate, made.weight_decay) == (5e-4, 1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"components": -1}, "components is -1, expected at least 0"),
        ({"hidden": 1}, "hidden is 1, expected at least 2"),
        ({"dropout": 1.0}, "dropout is 1.0, expected 0 or more and less than 1"),
        ({"source_std": 0.0}, "source_std is 0.0, expected a positive number"),
        ({"ode_steps": 0}, "ode_steps is 0, expected at least 1"),
    ],
)
def test_hyperparameters_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(BadRequest, match=message):
        Flow(**settings)
