"""Names of a generator's variants, which differ in settings, code, alignment or device. Pure functions, no widgets."""

import json

import pandas as pd

from bench.errors import printable
from leaderboard.load import VARIANT


def names(runs: pd.DataFrame) -> "pd.Series[str]":
    """Return a name for every run: its generator, with the settings in which the board's variants of it differ.

    If that makes the names unique, only settings that were asked for and differ from their defaults are named: an
    ablation is named by what was changed, and the unchanged generator by its name alone. Otherwise every setting in
    which variants differ is named.
    """
    keys = ["board", *VARIANT]
    kinds = runs.drop_duplicates(keys)
    kinds = kinds.assign(variant=kinds["generator"])
    several = kinds[kinds.duplicated(["board", "generator"], keep=False)]
    for _, variants in several.groupby(["board", "generator"], sort=False):
        short = _named(variants, set_only=True)
        kinds.loc[variants.index, "variant"] = (
            short if short.is_unique else _named(variants, set_only=False)
        )
    found = runs[keys].merge(kinds[[*keys, "variant"]], on=keys, how="left")["variant"]
    return found.map(printable).set_axis(runs.index)


def _named(variants: pd.DataFrame, *, set_only: bool) -> "pd.Series[str]":
    named = variants["generator"] + variants["hyperparameters"].map(
        _settings(variants, set_only=set_only)
    )
    if variants["source"].nunique() > 1:
        named += ", code " + variants["source"].str[:8]
    if variants["aligned"].nunique() > 1:
        named += variants["aligned"].map({True: ", aligned", False: ", not aligned"})
    if variants["device"].nunique() > 1:
        named += ", on " + variants["device"]
    return named


def _settings(variants: pd.DataFrame, *, set_only: bool) -> dict[str, str]:
    """Return for each set of hyperparameters, as JSON text, the part of the name with its differing settings.

    Args:
        variants: one row a variant.
        set_only: whether to name only settings that were asked for and differ from their defaults.
    """
    asked = dict(zip(variants["hyperparameters"], variants["changes"], strict=True))
    values = {text: json.loads(text) for text in asked}
    found = {}
    for text, settings in values.items():
        shown = json.loads(asked[text])["generator_settings"] if set_only else settings
        differing = [
            name
            for name, value in settings.items()
            if name in shown and any(other.get(name) != value for other in values.values())
        ]
        found[text] = "".join(f", {name}={_setting_text(settings[name])}" for name in differing)
    return found


def _setting_text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
