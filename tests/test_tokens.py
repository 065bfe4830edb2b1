"""Tokens of vectors: cutting and pasting, their positions, and the loss that ignores padding."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.contract.zoo import Layout
from generators.networks.tokens import Tokens

NAMES = st.sampled_from(["weight", "bias", "a.weight", "a.bias", "b.c.weight", "b.c.bias", "scale"])
SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)
LAYOUTS = st.dictionaries(NAMES, SHAPES, min_size=1).map(lambda d: Layout(tuple(d), (*d.values(),)))
MLP = Layout(("0.weight", "0.bias", "2.weight", "2.bias"), ((3, 4), (3,), (2, 3), (2,)))


@given(layout=LAYOUTS, length=st.integers(1, 9), n=st.integers(1, 3))
def test_cut_and_paste_is_the_identity(layout, length, n):
    vectors = torch.randn(n, layout.dim, generator=torch.Generator().manual_seed(0))
    for tokens in (
        Tokens.of_tensors(layout, length),
        Tokens.of_channels(layout, length),
        Tokens.of_channels(layout),
    ):
        cut = tokens.cut(vectors)
        assert cut.shape == (n, len(tokens), tokens.length)
        assert tokens.mask.sum() == layout.dim
        assert (cut[:, ~tokens.mask] == 0).all()
        assert tokens.mask.any(1).all(), "no token is padding alone"
        assert torch.equal(tokens.paste(cut.masked_fill(~tokens.mask, math.nan)), vectors)
        positions = torch.stack([tokens.layer, tokens.channel, tokens.part])
        assert len(positions.unique(dim=1).T) == len(tokens), "no two tokens have one position"


def test_tensors_are_cut_into_runs():
    tokens = Tokens.of_tensors(MLP, 5)
    cut = tokens.cut(torch.arange(1.0, 24)[None])[0]
    assert cut.int().tolist() == [
        [1, 2, 3, 4, 5], [6, 7, 8, 9, 10], [11, 12, 0, 0, 0],
        [13, 14, 15, 0, 0],
        [16, 17, 18, 19, 20], [21, 0, 0, 0, 0],
        [22, 23, 0, 0, 0],
    ]  # fmt: skip
    assert tokens.layer.tolist() == [0, 0, 0, 1, 2, 2, 3]
    assert tokens.part.tolist() == [0, 1, 2, 0, 0, 1, 0]
    assert not tokens.channel.any()


def test_a_channel_has_its_weights_and_its_bias():
    whole = Tokens.of_channels(MLP)
    cut = whole.cut(torch.arange(1.0, 24)[None])[0]
    assert cut.int().tolist() == [
        [1, 2, 3, 4, 13], [5, 6, 7, 8, 14], [9, 10, 11, 12, 15],
        [16, 17, 18, 22, 0], [19, 20, 21, 23, 0],
    ]  # fmt: skip
    assert whole.layer.tolist() == [0, 0, 0, 1, 1]
    assert whole.channel.tolist() == [0, 1, 2, 0, 1]
    split = Tokens.of_channels(MLP, 3)
    cut = split.cut(torch.arange(1.0, 24)[None])[0]
    assert cut[:3].int().tolist() == [[1, 2, 3], [4, 13, 0], [5, 6, 7]]
    assert split.part.tolist() == [0, 1] * 5
    assert split.channel.tolist() == [0, 0, 1, 1, 2, 2, 0, 0, 1, 1]


@given(layout=LAYOUTS.filter(lambda layout: layout.dim), length=st.integers(1, 9))
def test_the_error_ignores_padding_exactly(layout, length):
    rng = torch.Generator().manual_seed(0)
    vectors, others = torch.randn(2, 3, layout.dim, generator=rng, dtype=torch.float64)
    for tokens in (Tokens.of_tensors(layout, length), Tokens.of_channels(layout, length)):
        found = tokens.cut(vectors).masked_fill(~tokens.mask, math.nan).requires_grad_()
        error = tokens.error(found, tokens.cut(others))
        assert math.isclose(error.detach(), (vectors - others).square().mean(), rel_tol=1e-12)
        error.backward()
        assert (found.grad[:, ~tokens.mask] == 0).all()
        assert torch.allclose(tokens.paste(found.grad), 2 * (vectors - others) / vectors.numel())


def test_a_million_values():
    layout = Layout(("a.weight", "a.bias", "b.weight"), ((900, 1_000), (900,), (99_100,)))
    vectors = torch.arange(2.0 * layout.dim).view(2, -1)
    tokens = Tokens.of_channels(layout, 300)
    assert torch.equal(tokens.paste(tokens.cut(vectors)), vectors)
