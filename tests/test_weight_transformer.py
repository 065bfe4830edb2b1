"""The transformer over weight tokens: its sampler on a known distribution, its loss, what it is told, what it draws."""

import dataclasses

import pytest
import torch

from bench.contract.zoo import Layout, Zoo
from bench.errors import BadRequest
from bench.system.randomness import generator
from generators.networks.diffusion import Process, along
from generators.networks.tokens import Tokens
from generators.networks.transformer import TokenTransformer, frequencies
from generators.weight_transformer import WeightTransformer

LAYOUT = Layout(("a.weight", "a.bias", "b.weight"), ((3, 4), (3,), (2, 3)))
SMALL = {"chunk_size": 5, "n_embd": 8, "n_layer": 1, "n_head": 2, "iterations": 2, "timesteps": 50,
         "beta_end": 0.4, "sampler_steps": 4,
         "ema_decay": 0.9}  # fmt: skip


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def small(**settings):
    return WeightTransformer(**SMALL | settings)


def zoo_of(vectors) -> Zoo:
    return Zoo(vectors, LAYOUT)


def closeness(vectors):
    return -(vectors - 0.3).square().mean(1)


# Diffusion -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
@pytest.mark.parametrize("prediction", ["sample", "epsilon"])
def test_the_exact_denoiser_of_a_gaussian_draws_that_gaussian(sampler, prediction):
    mean, std = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.5, 1.0, 2.0])
    process = Process(1_000, 1e-4, 2e-2, prediction, sampler, 200, eta=0.5)
    remaining = process.scheduler().alphas_cumprod

    def exact(x, t):
        a, s = remaining[t].sqrt()[:, None], (1 - remaining[t])[:, None]
        x0 = mean + a * std**2 / (a**2 * std**2 + s) * (x - a * mean)
        return x0 if prediction == "sample" else (x - a * x0) / s.sqrt()

    *_, drawn = process.reverse(exact, draw(4_000, 3), torch.Generator().manual_seed(1))
    assert torch.allclose(drawn.mean(0), mean, atol=0.12)
    assert torch.allclose(drawn.std(0), std, rtol=0.08)


def test_ddim_follows_its_formula():
    process = Process(10, 0.05, 0.3, "sample", "ddim", 2)
    a = (1 - torch.linspace(0.05, 0.3, 10)).cumprod(0)
    x = draw(4, 3)
    first, second, last = process.reverse(lambda x, t: x.tanh(), x, torch.Generator())
    noise = (x - a[9].sqrt() * x.tanh()) / (1 - a[9]).sqrt()
    assert torch.equal(first, x)
    assert torch.allclose(second, a[4].sqrt() * x.tanh() + (1 - a[4]).sqrt() * noise, atol=1e-6)
    assert torch.allclose(last, second.tanh(), atol=1e-6)


def test_states_along_the_way():
    states = [torch.tensor(number) for number in range(11)]
    assert [int(s) for s in along(states, 11, 3)] == [0, 5, 10]
    assert [int(s) for s in along(states, 11, 1)] == [10]
    assert len(along(states, 11, 99)) == 11


# The network ---------------------------------------------------------------------------------------------------------


def test_the_network_begins_as_zero_and_tells_positions_and_numbers_apart():
    torch.manual_seed(0)
    network = TokenTransformer(6, 5, width=8, layers=1, heads=2, rates=[[1.0, 0.1], [0.5]])
    x, t, score = draw(3, 6, 5), torch.tensor([1.0, 5.0, 9.0]), torch.tensor([0.0, 1.0, -1.0])
    assert torch.equal(network(x, t, score), torch.zeros(3, 6, 5))
    torch.nn.init.normal_(network.leave)
    out = network(x, t, score)
    order = torch.tensor([1, 0, 2, 3, 4, 5])
    assert not torch.allclose(network(x[:, order], t, score)[:, order], out, atol=1e-3)
    assert not torch.allclose(network(x, t + 1, score), out, atol=1e-3)
    assert not torch.allclose(network(x, t, score + 1), out, atol=1e-3)
    assert torch.allclose(network(x[:1], t[:1], score[:1]), out[:1], atol=1e-5)


def test_numbers_are_embedded_by_sines_and_cosines():
    found = frequencies(torch.tensor([[2.0]]), torch.tensor([1.0, 0.25]))
    angles = torch.tensor([2.0, 0.5])
    assert torch.allclose(found, torch.cat([angles.sin(), angles.cos()])[None])


def test_the_loss_is_that_of_its_formula_and_ignores_padding():
    made = small()
    made.tokens_ = Tokens.of_tensors(LAYOUT, 5)
    x0, seen = draw(3, LAYOUT.dim), {}

    def network(tokens, t):
        seen["x"], seen["t"] = tokens, t
        return torch.full_like(tokens, 7.0).masked_fill(made.tokens_.mask, 0.5)

    loss = made.loss(
        network,
        made.process().scheduler(),
        x0,
        x0.new_zeros(3, 0),
        torch.Generator().manual_seed(5),
    )
    rng = torch.Generator().manual_seed(5)
    t = torch.randint(50, (3,), generator=rng)
    noise = torch.randn(3, LAYOUT.dim, generator=rng)
    a = (1 - torch.linspace(1e-4, 0.4, 50)).cumprod(0)[t][:, None]
    assert torch.allclose(loss, (x0 - 0.5).square().mean())
    assert torch.equal(seen["t"], t.float())
    noisy = made.tokens_.paste(seen["x"])
    assert torch.allclose(noisy, a.sqrt() * x0 + (1 - a).sqrt() * noise, atol=1e-6)
    assert not seen["x"][:, ~made.tokens_.mask].any()


# Fit and sample ------------------------------------------------------------------------------------------------------


def test_a_longer_training_comes_nearer_to_the_checkpoints():
    vectors = 3 + 0.01 * torch.tensor([[1.0, -1.0, 1.0], [-1.0, 1.0, -1.0]]).repeat(8, 1)

    def nearest(iterations):
        made = small(n_embd=16, iterations=iterations, learning_rate=1e-2, sampler_steps=10)
        zoo = Zoo(vectors, Layout(("a",), ((3,),)))
        drawn = made.fit(zoo, rng=generator(0)).sample(20, rng=generator(1))
        return torch.cdist(drawn, vectors).min(1).values.mean()

    assert nearest(100) < 0.4 * nearest(1)


def test_it_is_asked_for_a_score_above_the_best():
    vectors = draw(6, LAYOUT.dim)
    made = small(condition="score", above=0.25)
    assert made.uses() == ("score",)
    assert small().uses() == ()
    made.fit(zoo_of(vectors), rng=generator(0), score=closeness)
    scores = closeness(vectors)
    expected = (scores - scores.mean()) / scores.std(correction=0)
    assert torch.allclose(made.known_[:, 0], expected, atol=1e-5)
    asked = []
    network = made.network_.module
    network.register_forward_pre_hook(lambda _, given: asked.append(given[2]))
    made.sample(3, rng=generator(1))
    assert torch.allclose(torch.stack(asked), (expected.max() + 0.25).expand(4, 3))


def test_what_it_draws_depends_on_the_score_that_it_is_asked_for():
    vectors = torch.linspace(-1, 1, 8)[:, None] + 0.01 * draw(8, LAYOUT.dim)
    made = small(condition="score", iterations=100, learning_rate=1e-2, above=0.0, n_embd=16)
    made.fit(zoo_of(vectors), rng=generator(0), score=lambda v: v.mean(1))
    low = dataclasses.replace(made)
    vars(low).update(vars(made) | {"known_": made.known_ - 3})
    best, worst = (one.sample(20, rng=generator(1)).mean() for one in (made, low))
    assert best > worst + 0.3


def test_scores_that_are_not_finite_count_as_the_worst():
    made = small(condition="score")
    known = made._known(draw(3, 4), lambda v: torch.tensor([1.0, float("nan"), 3.0]))
    assert torch.allclose(known[:, 0], torch.tensor([-0.7071, -0.7071, 1.4142]), atol=1e-3)


@pytest.mark.parametrize("normalizer", ["centre", "parameter", "global", "none"])
def test_normalisation_is_undone_and_equal_checkpoints_give_themselves(normalizer):
    made = small(normalizer=normalizer)
    vectors = 2 + draw(5, LAYOUT.dim)
    map = made._standardizer(vectors)
    assert torch.allclose(map.undo(map.apply(vectors)), vectors, atol=1e-5)
    if normalizer == "global":
        assert map.apply(vectors).std(correction=0) == pytest.approx(0.538, rel=1e-3)
    if normalizer in ("centre", "parameter"):
        assert map.apply(vectors).square().mean() == pytest.approx(1, rel=1e-3)
        same = vectors[:1].repeat(3, 1)
        drawn = made.fit(zoo_of(same), rng=generator(0)).sample(2, rng=generator(1))
        assert torch.allclose(drawn, same[:2], atol=1e-6)


def test_many_parameters_and_two_checkpoints():
    layout = Layout(("a", "b"), ((90_000,), (10_000,)))
    made = small(chunk_size=10_000).fit(Zoo(draw(2, layout.dim), layout), rng=generator(0))
    assert made.sample(1, rng=generator(1)).shape == (1, 100_000)


def test_the_paper_preset_is_what_was_published():
    """Of HyperDiffusion: its transformer, its diffusion, its training of 6,000 epochs."""
    made = WeightTransformer(**WeightTransformer.presets["paper"])
    assert (made.n_embd, made.n_layer, made.n_head, made.timesteps) == (2880, 12, 16, 500)
    assert (made.batch_size, made.learning_rate, made.normalizer) == (32, 2e-4, "none")
    assert made.iterations == 6_000 * -(-200 // 32)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"condition": "loss"}, "condition is 'loss', expected one of none, score"),
        ({"normalizer": "x"}, "normalizer is 'x', expected one of"),
        ({"n_embd": 10}, "n_embd is 10, expected a multiple of n_head, which is"),
        ({"sampler_steps": 2000}, "sampler_steps is 2000, expected 1 to timesteps, which is 1000"),
        ({"beta_end": 1.0}, "beta_start is 0.0001 and beta_end 1.0, expected"),
        ({"above": -0.1}, "above is -0.1, expected at least 0"),
        ({"ema_decay": 1.0}, "ema_decay is 1.0, expected 0 <= decay < 1"),
    ],
)
def test_hyperparameters_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(BadRequest, match=message):
        WeightTransformer(**settings)
