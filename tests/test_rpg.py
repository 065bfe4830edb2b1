"""Recurrent diffusion: what the denoiser is told, its loss, what it draws with and without a checkpoint's number."""

import sys
import types

import pytest
import torch
from torch import nn

from bench.contract.zoo import Layout, Zoo
from bench.errors import BadRequest
from bench.system.randomness import generator
from generators.networks.denoisers import time_embedding
from generators.networks.recurrent import Prototypes, TokenDenoiser, positions, sequence
from generators.networks.tokens import Tokens
from generators.rpg import Rpg

LAYOUT = Layout(("a.weight", "a.bias", "b.weight"), ((3, 4), (3,), (2, 3)))
SMALL = {"dim_per_token": 5, "d_model": 8, "num_layers": 1, "layer_channels": (1, 4, 1), "kernel_size": 3,
         "iterations": 2, "timesteps": 50, "beta_end": 0.4, "sampler_steps": 10,
         "ema_decay": 0.9}  # fmt: skip


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def small(**settings):
    return Rpg(**SMALL | settings)


def zoo_of(vectors) -> Zoo:
    return Zoo(vectors, LAYOUT)


# The recurrent network -----------------------------------------------------------------------------------------------


def test_positions_are_of_the_tensor_and_of_the_token_in_it():
    layer, part = torch.tensor([0, 0, 3]), torch.tensor([0, 1, 7])
    found = positions(layer, part, 12)
    assert torch.allclose(found[:, :6], time_embedding(layer, 6))
    assert torch.allclose(found[:, 6:], time_embedding(part, 6))
    assert positions(layer, part, 7).shape == (3, 7)
    assert len(positions(*torch.cartesian_prod(torch.arange(9), torch.arange(9)).T, 8).unique(dim=0)) == 81  # fmt: skip


def test_a_token_is_told_of_those_before_it():
    torch.manual_seed(0)
    recurrent = sequence("lstm", 6, 2, d_state=1, d_conv=1, expand=1)
    features = draw(1, 5, 6)
    other = features.clone()
    other[:, 2] += 1
    apart = (recurrent(features) - recurrent(other)).abs().amax(2)[0]
    assert (apart[:2] == 0).all()
    assert (apart[2:] > 0).all()


def test_prototypes_depend_on_the_number_of_the_checkpoint_where_there_is_one():
    torch.manual_seed(0)
    index = torch.tensor([2, 0, 2])
    numbered = Prototypes(draw(4, 6), nn.Linear(6, 6), 3)(index)
    assert torch.equal(numbered[0], numbered[2])
    assert not torch.allclose(numbered[0], numbered[1])
    alike = Prototypes(draw(4, 6), nn.Linear(6, 6), 0)(index)
    assert alike.shape == (3, 4, 6)
    assert torch.equal(alike[0], alike[1])


def test_mamba_is_made_where_its_package_is_there(monkeypatch):
    class Mamba2(nn.Linear):
        def __init__(self, width, **options):
            super().__init__(width, width)
            self.options = options

    monkeypatch.setitem(sys.modules, "mamba_ssm", types.SimpleNamespace(Mamba2=Mamba2))
    made = small(recurrence="mamba", num_layers=2).fit(
        zoo_of(draw(2, LAYOUT.dim)), rng=generator(0)
    )
    blocks = made.networks_.module["recurrent"].recurrent
    assert [block.options for block in blocks] == [{"d_state": 32, "d_conv": 4, "expand": 2}] * 2
    monkeypatch.setitem(sys.modules, "mamba_ssm", None)
    with pytest.raises(BadRequest, match="recurrence is 'mamba', expected the package mamba_ssm"):
        small(recurrence="mamba").fit(zoo_of(draw(2, LAYOUT.dim)), rng=generator(0))


# The denoiser --------------------------------------------------------------------------------------------------------


def test_the_denoiser_is_what_was_published():
    """Every convolution sees (x + W c) temb(t); of six, the first two are added to the fifth and the fourth."""
    torch.manual_seed(0)
    network = TokenDenoiser(10, 4, (1, 3, 5, 7, 5, 3, 1), 3).eval()
    x, t, told = draw(6, 10), torch.tensor([0, 1, 5, 20, 300, 999]), draw(6, 4, seed=1)
    time, outputs, h = time_embedding(t, 64), [], x[:, None]
    for number, conv in enumerate(network.convolutions):
        inside = (h + network.told[number](told)[:, None]) * network.time[number](time)[:, None]
        h = nn.functional.conv1d(inside, conv.weight[:, :, 0], conv.bias, padding=1)
        if number < 5:
            h = nn.functional.elu(h / (1 + 1e-5) ** 0.5)  # normalization before any training
        if number in (3, 4):
            h = h + outputs[4 - number]
        outputs.append(h)
    assert torch.allclose(network(x, t, told), h[:, 0], atol=1e-5)


@pytest.mark.parametrize("some", [0, 4])
def test_the_loss_ignores_padding_and_what_is_not_drawn(some):
    made = small(diffusion_batch=some)
    made.tokens_ = Tokens.of_tensors(LAYOUT, 5)
    x0, seen = draw(3, LAYOUT.dim), []

    class Tell(nn.Module):
        def forward(self, index):
            return index[:, None, None].expand(-1, len(made.tokens_), 1).float()

    class Denoise(nn.Module):
        def forward(self, x, t, told):
            seen.append((x, t, told))
            return 100.0 * (x == 0) + 0.5  # padding is 0, and values never

    networks = nn.ModuleDict({"recurrent": Tell(), "denoiser": Denoise()})
    loss = made.loss(
        networks,
        made.process().scheduler(),
        x0,
        torch.tensor([7, 8, 9]),
        torch.Generator().manual_seed(5),
    )
    rng = torch.Generator().manual_seed(5)
    noise = made.tokens_.cut(torch.randn(3, LAYOUT.dim, generator=rng)).flatten(0, 1)
    drawn = torch.randperm(len(noise), generator=rng)[:some] if some else torch.arange(len(noise))
    real = made.tokens_.mask.repeat(3, 1)[drawn]
    assert torch.allclose(loss, (noise[drawn][real] - 0.5).square().mean())
    [(x, t, told)] = seen
    a = (1 - torch.linspace(1e-4, 0.4, 50)).cumprod(0)[t][:, None]
    clean = made.tokens_.cut(x0).flatten(0, 1)[drawn]
    assert torch.allclose(x, a.sqrt() * clean + (1 - a).sqrt() * noise[drawn], atol=1e-6)
    assert torch.equal(told[:, 0], 7.0 + drawn // len(made.tokens_))


# Fit and sample ------------------------------------------------------------------------------------------------------


def test_with_numbers_it_learns_checkpoints_and_without_it_mixes_their_tokens():
    """Every tensor of a checkpoint is 1, or every one is -1: tokens that agree are of one checkpoint."""
    layout = Layout(("a", "b", "c", "d"), ((5,),) * 4)
    vectors = torch.tensor([1.0, -1.0]).repeat(4)[:, None] + 0.01 * draw(8, 20)

    def agree(conditioning):
        made = small(
            conditioning=conditioning, iterations=150, learning_rate=2e-2, layer_channels=(1, 8, 1)
        )
        drawn = made.fit(Zoo(vectors, layout), rng=generator(0)).sample(40, rng=generator(1))
        signs = drawn.unflatten(1, (4, 5)).mean(2).sign()
        return (signs.sum(1).abs() == 4).float().mean()

    assert agree("index") > 0.9
    assert agree("none") < 0.5


def test_models_are_denoised_in_parts_as_they_are_all_at_once(monkeypatch):
    made = small().fit(zoo_of(draw(4, LAYOUT.dim)), rng=generator(0))
    whole = made.sample(5, rng=generator(1))
    monkeypatch.setattr("generators.rpg._VALUES", 2 * LAYOUT.dim)
    assert torch.allclose(made.sample(5, rng=generator(1)), whole, atol=1e-5)


def test_many_parameters_and_two_checkpoints():
    layout = Layout(("a", "b"), ((90_000,), (10_000,)))
    made = small(dim_per_token=5_000, diffusion_batch=8)
    made.fit(Zoo(draw(2, layout.dim), layout), rng=generator(0))
    assert made.sample(1, rng=generator(1)).shape == (1, 100_000)


def test_the_paper_preset_is_what_was_published():
    """From the official program's configuration of small CNNs (commit 65da1eb)."""
    made = Rpg(**Rpg.presets["paper"])
    assert (made.dim_per_token, made.d_model, made.num_layers) == (256, 256, 2)
    assert (made.d_state, made.d_conv, made.expand) == (32, 4, 2)
    assert (made.layer_channels, made.kernel_size) == ((1, 32, 64, 128, 64, 32, 1), 7)
    assert (made.iterations, made.batch_size, made.learning_rate) == (30_000, 8, 1e-4)
    assert (made.timesteps, made.beta_start, made.beta_end) == (1_000, 1e-4, 2e-2)
    assert (made.weight_decay, made.sampler, made.sampler_steps) == (0, "ddpm", 1_000)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"conditioning": "label"}, "conditioning is 'label', expected one of index, none"),
        ({"recurrence": "gru"}, "recurrence is 'gru', expected one of lstm, mamba"),
        ({"layer_channels": (1, 8, 4, 1)}, r"layer_channels is \(1, 8, 4, 1\), expected an odd"),
        ({"layer_channels": (2, 8, 2)}, r"layer_channels is \(2, 8, 2\), expected an odd"),
        ({"kernel_size": 4}, "kernel_size is 4, expected an odd number"),
        ({"batch_size": 1}, "batch_size is 1, expected at least 2"),
        ({"eta": 1.5}, "eta is 1.5, expected 0 to 1"),
    ],
)
def test_hyperparameters_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(BadRequest, match=message):
        Rpg(**settings)
