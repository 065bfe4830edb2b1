"""What a generator may learn about the data beside the checkpoints, and which of it its hyperparameters ask for."""

from collections.abc import Mapping, Sequence

from bench.system.data import Json, Settings

NEEDS = ("score", "train")
Where = Mapping[str, Mapping[str, Sequence[Json]]]  # values by hyperparameter, by need


def used(needs: Sequence[str], where: Where, settings: Settings) -> tuple[str, ...]:
    """Return what a generator with these hyperparameters is given.

    Args:
        needs: all that its class may be given.
        where: the needs that depend on hyperparameters, and the values of which any one asks for it.
        settings: its hyperparameters.

    >>> where = {"score": {"condition": ["score"]}}
    >>> used(("score", "train"), where, {"condition": "none"})
    ('train',)
    """
    return tuple(
        need
        for need in needs
        if need not in where
        or any(settings.get(name) in values for name, values in where[need].items())
    )
