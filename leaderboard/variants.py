"""Names that tell generators apart: by settings, code, alignment, device. Pure functions, no widgets."""

import json

import pandas as pd

from bench.errors import printable
from leaderboard.load import VARIANT


def names(runs: pd.DataFrame) -> "pd.Series[str]":
    """Return every run's generator with the settings that tell it from others of its name on the board.

    These are the settings that were asked for and are no defaults, where they suffice: an ablation is called by what
    was taken away, and what it was taken from by its name alone. Otherwise it is every setting in which they differ.
    """
    keys = ["board", *VARIANT]
    kinds = runs.drop_duplicates(keys)
    kinds = kinds.assign(variant=kinds["generator"])
    several = kinds[kinds.duplicated(["board", "generator"], keep=False)]
    for _, own in several.groupby(["board", "generator"], sort=False):
        short = _named(own, set_only=True)
        kinds.loc[own.index, "variant"] = short if short.is_unique else _named(own, set_only=False)
    found = runs[keys].merge(kinds[[*keys, "variant"]], on=keys, how="left")["variant"]
    return found.map(printable).set_axis(runs.index)


def _named(own: pd.DataFrame, *, set_only: bool) -> "pd.Series[str]":
    named = own["generator"] + own["hyperparameters"].map(_settings(own, set_only=set_only))
    if own["source"].nunique() > 1:
        named += ", code " + own["source"].str[:8]
    if own["aligned"].nunique() > 1:
        named += own["aligned"].map({True: ", aligned", False: ", not aligned"})
    if own["device"].nunique() > 1:
        named += ", on " + own["device"]
    return named


def _settings(own: pd.DataFrame, *, set_only: bool) -> dict[str, str]:
    """Return for every set of hyperparameters, as text, those whose value differs in another set."""
    asked = dict(zip(own["hyperparameters"], own["changes"], strict=True))
    values = {text: json.loads(text) for text in asked}
    found = {}
    for text, mine in values.items():
        shown = json.loads(asked[text])["generator_settings"] if set_only else mine
        differing = [
            name
            for name, value in mine.items()
            if name in shown and any(other.get(name) != value for other in values.values())
        ]
        found[text] = "".join(f", {name}={_short(mine[name])}" for name in differing)
    return found


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
