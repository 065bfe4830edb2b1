"""A transformer autoencoder over tokens of weights, and the contrastive loss of its latents."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


class Positions(nn.Module):
    """Learned embeddings of three numbers that say where a token is: in the network, which layer, and where in it.

    Half of the features is the sum of the first two embeddings, the other half the third.
    """

    def __init__(self, counts: Sequence[int], width: int) -> None:
        super().__init__()
        self.embed = nn.ModuleList(nn.Embedding(count, width // 2) for count in counts)

    def forward(self, where: Int[Tensor, "t 3"]) -> Float[Tensor, "t width"]:
        """Return the embeddings of some positions."""
        token, layer, channel = (
            embed(numbers) for embed, numbers in zip(self.embed, where.T, strict=True)
        )
        return torch.cat([token + layer, channel], -1)


def transformer(width: int, layers: int, heads: int) -> nn.TransformerEncoder:
    """Make layers as those of GPT-2, which normalise first and have no bias, but see what comes after, too."""
    layer = nn.TransformerEncoderLayer(
        width,
        heads,
        4 * width,
        dropout=0.0,
        activation="gelu",
        batch_first=True,
        norm_first=True,
        bias=False,
    )
    last = nn.LayerNorm(width, bias=False)
    return nn.TransformerEncoder(layer, layers, norm=last, enable_nested_tensor=False)


def projection_head(inputs: int, features: int) -> nn.Sequential:
    """Make two layers without bias, each of them linear, layer normalization, ReLU."""
    return nn.Sequential(
        nn.Linear(inputs, features, bias=False),
        nn.LayerNorm(features),
        nn.ReLU(),
        nn.Linear(features, features, bias=False),
        nn.LayerNorm(features),
        nn.ReLU(),
    )


class TokenAutoencoder(nn.Module):
    """Tokens to as many latents and back, by a transformer each way; both are told the positions.

    A head projects the latents of a window to the features that a contrastive loss compares.
    """

    def __init__(
        self,
        where: Int[Tensor, "T 3"],
        length: int,
        latent: int,
        *,
        width: int,
        layers: int,
        heads: int,
        window: int,
        projection: int,
    ) -> None:
        """Make the networks.

        Args:
            where: the positions of all tokens.
            length: values of a token.
            latent: length of a token's latent.
            width: features of a token inside; even.
            layers: of each transformer.
            heads: of each layer.
            window: tokens that the head projects.
            projection: features that it projects them to.
        """
        super().__init__()
        self.register_buffer("where", where, persistent=False)
        self.positions = Positions([int(count) + 1 for count in where.amax(0)], width)
        self.enter, self.to_latent = nn.Linear(length, width), nn.Linear(width, latent)
        self.from_latent, self.leave = nn.Linear(latent, width), nn.Linear(width, length)
        self.encoder = transformer(width, layers, heads)
        self.decoder = transformer(width, layers, heads)
        self.head = projection_head(window * latent, projection)

    def encode(
        self, tokens: Float[Tensor, "n t length"], start: int = 0
    ) -> Float[Tensor, "n t latent"]:
        """Return the latents of neighbouring tokens, the first of which is number ``start`` of the network."""
        z: Tensor = self.to_latent(self.encoder(self.enter(tokens) + self._at(tokens, start)))
        return z

    def decode(self, z: Float[Tensor, "n t latent"], start: int = 0) -> Float[Tensor, "n t length"]:
        """Return the tokens of latents of neighbouring tokens."""
        tokens: Tensor = self.leave(self.decoder(self.from_latent(z) + self._at(z, start)))
        return tokens

    def project(self, z: Float[Tensor, "n window latent"]) -> Float[Tensor, "n projection"]:
        """Return the features of the latents of a window."""
        features: Tensor = self.head(z.flatten(1))
        return features

    def _at(self, x: Float[Tensor, "n t _"], start: int) -> Float[Tensor, "t width"]:
        embedded: Tensor = self.positions(self.get_buffer("where")[start : start + x.shape[1]])
        return embedded


def nt_xent(
    one: Float[Tensor, "b f"], other: Float[Tensor, "b f"], temperature: float
) -> Float[Tensor, ""]:
    """Return the normalised temperature-scaled cross entropy of two views of each of b things.

    Of all other views, each is to be told the one of the same thing by its cosine (Chen et al. 2020, arXiv 2002.05709,
    Eq. 1 and algorithm 1).
    """
    views = F.normalize(torch.cat([one, other]), dim=1)
    likeness = views @ views.T / temperature
    likeness = likeness.masked_fill(torch.eye(len(views), device=views.device).bool(), -torch.inf)
    partners = torch.arange(len(views), device=views.device).roll(len(one))
    return F.cross_entropy(likeness, partners)
