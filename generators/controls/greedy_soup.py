"""Greedy soup of checkpoints."""

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor

from bench.contract import Generator, Score
from bench.contract.zoo import Zoo


@dataclass
class GreedySoup(Generator):
    """Checkpoints averaged in the order of their training score, each kept if the average does not get worse."""

    needs: ClassVar[tuple[str, ...]] = ("score",)
    deterministic: ClassVar[bool] = True
    made_of: ClassVar[str] = "averages"
    aligned_too: ClassVar[bool] = True

    def fit(self, zoo: Zoo, *, rng: torch.Generator, score: Score) -> Self:  # type: ignore[override]
        """Choose the soup by Wortsman et al. 2022 (arXiv 2203.05482), recipe 1, held out: the training split."""
        scores = score(zoo.vectors)
        order = scores.argsort(descending=True, stable=True).tolist()
        total, count, best = zoo.vectors[order[0]].double(), 1, float(scores[order[0]])
        for index in order[1:]:
            candidate = total + zoo.vectors[index]
            mean = (candidate / (count + 1)).float()
            if (reached := float(score(mean[None])[0])) >= best:
                total, count, best = candidate, count + 1, reached
        self.soup_ = (total / count).float()
        return self

    def sample(self, n: int, *, rng: torch.Generator) -> Float[Tensor, "n D"]:
        """Return the soup n times."""
        return self.soup_.expand(n, -1).clone()
