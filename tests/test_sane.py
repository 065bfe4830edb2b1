"""SANE: its losses, windows and kernel density against independent computations, and what is kept by score."""

import inspect
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn

from bench.contract.zoo import Layout, Zoo
from bench.errors import BadRequest
from bench.system.randomness import derive, generator
from generators.networks.token_autoencoder import TokenAutoencoder, nt_xent
from generators.networks.training import one_cycle
from generators.sane import Sane

BRIEF = {"d_model": 8, "nhead": 2, "num_layers": 1, "lat_dim": 3, "batch_size": 4, "iterations": 2}
LAYOUT = Layout(("0.weight", "0.bias", "2.weight", "2.bias"), ((5, 4), (5,), (2, 5), (2,)))


def zoo_of(k=6, layout=LAYOUT) -> Zoo:
    return Zoo(torch.randn(k, layout.dim, generator=generator(0)), layout)


def fitted(zoo=None, score=None, **settings) -> Sane:
    made = Sane(**BRIEF | settings)
    given = {"score": score} if made.uses() else {}
    return made.fit(zoo or zoo_of(), rng=generator(0), **given)


# The losses ----------------------------------------------------------------------------------------------------------


def test_the_contrastive_loss_is_simclrs():
    """Algorithm 1 of Chen et al. 2020, a pair at a time."""
    one, other = torch.randn(2, 5, 7, generator=generator(1), dtype=torch.float64)
    views = [*one, *other]
    terms = []
    for i, view in enumerate(views):
        likeness = [math.exp(F.cosine_similarity(view, each, dim=0) / 0.3) for each in views]
        terms.append(-math.log(likeness[(i + 5) % 10] / (sum(likeness) - likeness[i])))
    assert nt_xent(one, other, 0.3).item() == pytest.approx(np.mean(terms))


class Half(nn.Module):
    """Stands for an autoencoder: latents are half of each token, and what it puts into padding is no number."""

    def __init__(self, mask):
        super().__init__()
        self.mask = mask

    def encode(self, tokens, start):
        self.start, self.tokens = start, tokens
        return tokens / 2

    def decode(self, z, start):
        return z.masked_fill(~self.mask[start : start + z.shape[1]], math.nan)

    def project(self, z):
        return z.flatten(1)


def loss(made, network, values, rng):
    """The loss of a network that only stands for an autoencoder."""
    return inspect.unwrap(Sane.loss)(made, network, values, rng)


def test_the_reconstruction_is_that_of_values_alone():
    made = fitted(gamma=0.0, noise=0.0, erase=0.0)
    values = torch.randn(3, LAYOUT.dim, generator=generator(2))
    network = Half(made.tokens_.mask)
    error = loss(made, network, values, generator(0))
    assert error.item() == pytest.approx(values.square().mean().item() / 4)
    made.gamma = 0.25
    both = loss(made, network, values, generator(0))
    contrast = nt_xent(*[made.tokens_.cut(values).flatten(1)] * 2, made.temperature)
    assert both.item() == pytest.approx((0.75 * error + 0.25 * contrast).item())


def test_windows_are_drawn_from_the_whole_network():
    made = fitted(windowsize=3, gamma=0.0)
    network, draws, starts = Half(made.tokens_.mask), generator(0), set()
    for _ in range(40):
        assert loss(made, network, torch.ones(2, LAYOUT.dim), draws).isfinite()
        assert network.tokens.shape[1] == 3
        starts.add(network.start)
    assert starts == set(range(len(made.tokens_) - 2))


def test_a_view_is_noisy_and_partly_erased():
    tokens = torch.full((4, 50, 50), 2.0)
    view = Sane(noise=0.1, erase=0.3).view(tokens, generator(0))
    kept = view[view != 0]
    assert (view == 0).float().mean().item() == pytest.approx(0.3, abs=0.02)
    assert (kept.mean().item(), kept.std().item()) == pytest.approx((2.0, 0.2), abs=0.01)
    assert torch.equal(Sane(noise=0.0, erase=0.0).view(tokens, generator(0)), tokens)


@pytest.mark.parametrize("iterations", [5, 12, 100])
def test_the_learning_rate_is_that_of_one_cycle(iterations):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2.0, total_steps=iterations)
    for iteration in range(iterations):
        found = 2.0 * one_cycle(iterations)(iteration)
        assert found == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6, abs=1e-9)
        optimizer.step()
        if iteration < iterations - 1:
            schedule.step()


# The autoencoder -----------------------------------------------------------------------------------------------------


def test_a_token_is_told_where_it_is():
    where = torch.tensor([[0, 0, 0], [1, 0, 1], [2, 1, 0]])
    network = TokenAutoencoder(where, 4, 3, width=8, layers=1, heads=2, window=3, projection=5)
    token, layer, channel = (embed.weight for embed in network.positions.embed)
    assert (len(token), len(layer), len(channel)) == (3, 2, 2)
    expected = torch.cat([token[2] + layer[1], channel[0]])
    assert torch.equal(network._at(torch.zeros(1, 1, 4), 2)[0], expected)
    x = torch.randn(2, 3, 4, generator=generator(0))
    assert network.decode(network.encode(x)).shape == x.shape
    assert network.project(network.encode(x)).shape == (2, 5)
    assert not any("bias" in name for name, _ in network.encoder.named_parameters())


def test_windows_with_a_halo():
    made = fitted(halo_window=3)
    tokens = torch.randn(2, len(made.tokens_), made.tokens_.length, generator=generator(0))
    network = made.autoencoder_.encode
    with torch.no_grad():
        apart = [network(tokens[:, i : i + 3], i) for i in range(0, tokens.shape[1], 3)]
        torch.testing.assert_close(made._in_windows(network, tokens), torch.cat(apart, 1))
        made.halo = 100  # sees everything
        torch.testing.assert_close(made._in_windows(network, tokens), network(tokens))
        made.halo = 1
        torch.testing.assert_close(
            made._in_windows(network, tokens)[:, 3:6], network(tokens[:, 2:7], 2)[:, 1:4]
        )


def test_it_reconstructs_checkpoints_that_vary_along_a_few_directions():
    axes = torch.randn(2, LAYOUT.dim, generator=generator(1))
    vectors = 3 + torch.randn(40, 2, generator=generator(2)) @ axes
    made = fitted(
        Zoo(vectors, LAYOUT), iterations=100, d_model=32, batch_size=16, learning_rate=3e-3,
        noise=0.0, erase=0.0, bandwidth=0.0, density="joint",
    )  # fmt: skip
    drawn = made.sample(30, rng=generator(3))
    error = torch.cdist(drawn, vectors).min(1).values.square().mean() / LAYOUT.dim
    assert error < 0.1 * vectors.var(0).mean()


# The kernel density --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("density", ["token", "joint"])
def test_the_kernel_density_is_scipys(density):
    made = fitted(lat_dim=1, bandwidth=0.3, density=density)
    anchors = torch.randn(6, len(made.tokens_), 1, generator=generator(4)) * 3
    made.anchors_ = anchors
    drawn = made.draw(3_000, generator(5))
    width = 0.3 * anchors.double().std(0, correction=0).square().mean().sqrt().item()
    for token in (0, 4):
        here = anchors[:, token, 0].double().numpy()
        kernel = stats.gaussian_kde(here, bw_method=width / here.std(ddof=1))
        grid = np.linspace(-15, 15, 200)
        shares = [kernel.integrate_box_1d(-np.inf, x) for x in grid]
        found = (drawn[:, token, 0].double().numpy()[:, None] < grid).mean(0)
        assert np.abs(found - shares).max() < 1.63 / math.sqrt(3_000)  # Kolmogorov and Smirnov, 1 %


def test_tokens_are_drawn_on_their_own_or_together():
    made = fitted(bandwidth=0.0, density="token")
    made.anchors_ = torch.arange(10.0)[:, None, None].expand(10, len(made.tokens_), 3)
    drawn = made.draw(2_000, generator(0))[:, :, 0]
    assert torch.corrcoef(drawn.T).fill_diagonal_(0).abs().max() < 0.1
    assert all(len(column.unique()) == 10 for column in drawn.T)
    made.density = "joint"
    assert (made.draw(50, generator(0)).flatten(1).std(1) == 0).all()
    made.bandwidth = 100.0
    noise = made.draw(2_000, generator(0)).flatten(1)
    assert torch.corrcoef(noise.T).fill_diagonal_(0).abs().max() < 0.15


# Models kept by their score ------------------------------------------------------------------------------------------


def near_one(vectors):
    return -(vectors - 1).square().mean(1)


def test_the_score_is_asked_for_where_models_are_kept_by_it():
    assert Sane().uses() == ()
    assert Sane(selection="subsample").uses() == Sane(selection="bootstrap").uses() == ("score",)


def test_subsampling_keeps_the_best_of_many():
    scored = []

    def score(vectors):
        scored.append(vectors)
        return near_one(vectors)

    made = fitted(score=score, selection="subsample", draws=9, keep=4)
    rng = generator(7)
    kept = made.sample(6, rng=rng)
    assert [len(vectors) for vectors in scored] == [9, 9]
    first = made._decode_all(made.draw(9, derive(rng, "latents", 0)))
    assert torch.equal(first, scored[0])
    assert torch.equal(kept[:4], first[near_one(first).argsort(descending=True)[:4]])
    assert torch.equal(kept[4:], scored[1][near_one(scored[1]).argsort(descending=True)[:2]])


def test_a_score_that_is_no_number_is_the_worst():
    made = fitted(score=lambda v: torch.tensor([math.nan, 1.0, math.nan, 2.0]), selection="subsample",
                  draws=4, keep=2)  # fmt: skip
    z = made.draw(4, generator(0))
    assert torch.equal(made._best(z)[0], z[[3, 1]])


def test_bootstrapping_moves_the_anchors_to_better_models():
    best = []
    for rounds in (1, 6):
        made = fitted(
            score=near_one, selection="bootstrap", draws=30, keep=5, bootstrap_iterations=rounds
        )
        assert len(made.anchors_) == 5
        best.append(near_one(made.sample(20, rng=generator(1))).mean())
    assert best[0] < best[1]
    assert best[0] > near_one(fitted().sample(20, rng=generator(1))).mean()


# Zoos of all kinds ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2])
def test_what_does_not_vary_comes_back_exactly(k):
    vectors = zoo_of(k).vectors
    vectors[:, 3:7] = 0.7
    made = fitted(Zoo(vectors, LAYOUT), standardize="parameter")
    drawn = made.sample(3, rng=generator(0))
    assert drawn.isfinite().all()
    assert (drawn[:, 3:7] == vectors[0, 3:7]).all()
    assert k == 2 or torch.equal(drawn, vectors.expand(3, -1))


def test_a_million_parameters():
    layout = Layout(("a.weight", "a.bias", "b.weight"), ((1_000, 999), (1_000,), (30, 7)))
    made = fitted(zoo_of(2, layout), windowsize=16, halo_window=256, iterations=1)
    assert (made.tokens_.length, len(made.tokens_)) == (289, 4_030)
    assert made.sample(1, rng=generator(0)).shape == (1, layout.dim)


def test_the_paper_preset_is_what_was_published():
    """From the published program's configuration of convolutional networks (commit 888543c)."""
    made = Sane(**Sane.presets["paper"])
    assert (made.i_dim, made.lat_dim, made.d_model, made.num_layers, made.nhead) == (
        289, 128, 1024, 8, 8
    )  # fmt: skip
    assert (made.windowsize, made.halo_window, made.halo) == (64, 128, 64)
    assert (made.gamma, made.temperature, made.projection, made.noise) == (0.05, 0.1, 30, 0.1)
    assert (made.batch_size, made.learning_rate, made.weight_decay) == (32, 1e-4, 3e-9)
    assert (made.density, made.bandwidth, made.draws, made.keep) == ("token", 0.2, 50, 10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"d_model": 7}, "d_model is 7, expected an even multiple of nhead"),
        ({"nhead": 0}, "nhead is 0, expected at least 1"),
        ({"keep": 60}, "draws is 50, expected at least keep, which is 60"),
        ({"selection": "best"}, "selection is 'best'"),
        ({"gamma": 1.1}, "gamma is 1.1, expected 0 to 1"),
        ({"erase": 1.0}, "erase is 1.0, expected 0 or more and less than 1"),
    ],
)
def test_hyperparameters_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(BadRequest, match=message):
        Sane(**settings)
