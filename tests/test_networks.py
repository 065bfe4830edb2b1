"""The shared backbone: shapes at every length, scale, standardisation, training."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bench.contract.zoo import Layout
from bench.errors import BadRequest, BenchError
from bench.system.randomness import generator
from generators.networks import training
from generators.networks.autoencoders import total_strides
from generators.networks.backbone import BLOCKS, Backbone
from generators.networks.blocks import NORMALIZATIONS, norm
from generators.networks.denoisers import ConvDenoiser, DenseDenoiser, time_embedding
from generators.networks.standardizer import Standardizer

SMALL = {"channels": (4, 8), "stride": 4, "width": 16, "latent_dim": 6}


@pytest.fixture(autouse=True)
def _one_thread():
    """Small tensors: more threads only wait for each other, for ever on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@given(
    dim=st.integers(1, 200_000),
    channels=st.lists(st.integers(1, 300), min_size=1, max_size=6),
    stride=st.integers(1, 20),
)
def test_strides_keep_feature_maps_as_large_as_the_vector(dim, channels, stride):
    totals = (1, *total_strides(dim, channels, stride))
    for width, before, after in zip(channels, totals, totals[1:], strict=False):
        assert after % before == 0
        assert after <= before * stride
        assert after == before or after <= min(width, dim // 8)


@settings(max_examples=30, deadline=None)
@given(dim=st.integers(1, 5000), blocks=st.sampled_from(BLOCKS), n=st.integers(1, 3))
def test_shapes_at_every_length(dim, blocks, n):
    backbone = Backbone(**SMALL, blocks=blocks)
    features = backbone.new_encoder(dim, 10)(torch.randn(n, dim))
    vectors = backbone.new_decoder(dim)(torch.randn(n, 6))
    assert features.shape == (n, 10)
    assert vectors.shape == (n, dim)
    assert features.isfinite().all()
    assert vectors.isfinite().all()


@pytest.mark.parametrize("dim", [1000, 40_000, 155_135])
def test_parameters_grow_in_proportion_to_the_length(dim):
    backbone = Backbone()
    with torch.device("meta"):
        networks_ = nn.ModuleList([backbone.new_encoder(dim, 128), backbone.new_decoder(dim)])
    count = sum(p.numel() for p in networks_.parameters())
    assert count < 300 * dim + 100_000


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("blocks", BLOCKS)
@pytest.mark.parametrize("dim", [1, 2, 37])
def test_every_normalization_trains(blocks, normalization, dim):
    backbone = Backbone(**SMALL, blocks=blocks, normalization=normalization)
    encoder, decoder = backbone.new_encoder(dim, 6), backbone.new_decoder(dim)
    out = decoder(encoder(torch.zeros(2, dim)))
    out.square().sum().backward()
    assert out.shape == (2, dim)
    for parameter in encoder.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


@pytest.mark.parametrize("blocks", BLOCKS)
def test_instance_normalization_keeps_the_scale(blocks):
    torch.manual_seed(0)
    encoder = Backbone(**SMALL, blocks=blocks).new_encoder(200, 6)
    v = torch.randn(1, 200)
    near, far = encoder(v), encoder(10 * v)
    assert (far - near).norm() > 2 * near.norm()


def test_instance_normalization_is_that_of_torch():
    torch.manual_seed(0)
    x = torch.randn(3, 5, 1, 11)
    ours = norm("instance", 5, 5)(x)
    torch.testing.assert_close(ours, nn.functional.instance_norm(x), atol=1e-5, rtol=1e-4)


@settings(max_examples=20, deadline=None)
@given(latent_dim=st.integers(1, 200), n=st.integers(1, 3))
def test_denoisers_keep_the_shape(latent_dim, n):
    z, t = torch.randn(n, latent_dim), torch.randint(1000, (n,))
    for denoiser in (
        ConvDenoiser(latent_dim, (4, 6, 8), 5, "instance"),
        DenseDenoiser(latent_dim, 16, 2, "instance"),
    ):
        out = denoiser(z, t)
        assert out.shape == z.shape
        assert (out == 0).all()  # it starts as the zero function


def test_the_denoiser_knows_the_time():
    denoiser = ConvDenoiser(16, (4, 6), 5, "none")
    nn.init.normal_(denoiser.project.conv.weight)
    z = torch.randn(1, 16).expand(2, -1)
    early, late = denoiser(z, torch.tensor([0, 999]))
    assert not torch.allclose(early, late)


def test_time_embedding():
    e = time_embedding(torch.tensor([0, 1]), 64)
    assert e[0].tolist() == [0.0] * 32 + [1.0] * 32
    assert e[1, 0] == pytest.approx(math.sin(1))
    assert e[1, 33] == pytest.approx(math.cos(10_000 ** (-1 / 32)))


def test_standardizer_of_each_parameter():
    vectors = torch.randn(50, 4) * torch.tensor([1.0, 1e-6, 100.0, 0.0]) + 0.1
    standardizer = Standardizer.fit(vectors, None)
    values = standardizer.apply(vectors)
    torch.testing.assert_close(values[:, :3].mean(0), torch.zeros(3), atol=1e-2, rtol=0)
    torch.testing.assert_close(values[:, :3].std(0, correction=0), torch.ones(3), atol=1e-2, rtol=0)
    torch.testing.assert_close(standardizer.undo(values), vectors)
    assert (standardizer.undo(torch.randn(50, 4))[:, 3] == vectors[:, 3]).all()


def test_standardizer_of_each_tensor():
    vectors = torch.cat([torch.randn(20, 6) * 3 + 1, torch.full((20, 1), 0.3)], dim=1)
    standardizer = Standardizer.fit(vectors, Layout(("w", "s"), ((2, 3), ())))
    assert standardizer.mean[:6].unique().tolist() == pytest.approx([vectors[:, :6].mean().item()])
    assert standardizer.std[:6].unique().tolist() == pytest.approx(
        [vectors[:, :6].std(correction=0).item()]
    )
    assert (standardizer.undo(torch.randn(20, 7))[:, 6] == vectors[:, 6]).all()


def test_batches_hold_distinct_rows():
    rows = torch.arange(10.0)[:, None]
    assert training.batch(rows, 4, generator(0)).unique().numel() == 4
    assert sorted(training.batch(rows, 99, generator(0))[:, 0].tolist()) == list(range(10))
    assert training.batch(rows[:1], 4, generator(0)).tolist() == [[0.0], [0.0]]


def test_schedules():
    assert training.decay("constant", 100)(99) == 1
    cosine = [training.decay("cosine", 100)(i) for i in range(101)]
    assert cosine[0] == pytest.approx(0.2)
    assert cosine[50] == pytest.approx(0.5)
    assert cosine[100] == pytest.approx(0)


def test_ema_is_the_moving_average():
    layer = nn.Linear(1, 1, bias=False)
    average = training.ema(layer, 0.9)
    expected = None
    for value in (1.0, 2.0, 3.0):
        nn.init.constant_(layer.weight, value)
        average.update_parameters(layer)
        expected = value if expected is None else 0.9 * expected + 0.1 * value
    assert average.module.weight.item() == pytest.approx(expected)


def _minimise(layer, loss, **options):
    defaults = {"part": "toy", "iterations": 120, "learning_rate": 0.1}
    Backbone().minimise(layer, loss, **(defaults | options))


def test_minimise_fits_a_line():
    torch.manual_seed(0)
    layer, x = nn.Linear(1, 1), torch.linspace(-1, 1, 20)[:, None]
    _minimise(layer, lambda: (layer(x) - 2 * x - 1).square().mean())
    assert layer.weight.item() == pytest.approx(2, abs=0.02)
    assert layer.bias.item() == pytest.approx(1, abs=0.02)
    assert not layer.training


def test_a_loss_that_is_not_finite_is_an_error_that_says_where():
    layer, calls = nn.Linear(1, 1), []

    def loss():
        calls.append(1)
        return layer.weight.sum() * (math.nan if len(calls) > 60 else 1)

    with pytest.raises(BenchError, match=r"toy is nan at iteration 100: .*lower learning rate"):
        _minimise(layer, loss)


def test_long_inputs_take_smaller_steps():
    groups = training.parameter_groups(nn.Linear(4096, 2), 1e-3)
    assert [group["lr"] for group in groups] == [0.25e-3, 1e-3]


@pytest.mark.parametrize(
    "bad",
    [
        {"blocks": "cube"},
        {"normalization": "layer"},
        {"standardize": "model"},
        {"schedule": "linear"},
        {"channels": ()},
        {"channels": (4, 0)},
        {"kernel": 4},
        {"kernel": -1},
        {"stride": 0},
        {"width": 0},
        {"latent_dim": 0},
        {"batch_size": 1},
        {"weight_decay": -1.0},
        {"weight_decay": math.nan},
    ],
    ids=str,
)
def test_bad_hyperparameters(bad):
    with pytest.raises(BadRequest, match=next(iter(bad))):
        Backbone(**bad)
