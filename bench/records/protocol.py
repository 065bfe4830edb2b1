"""The versions of the protocol: the controls that a run has, and how many models of each. Imports no torch.

Version 2 (2026-11-26) has more controls, aligned twins, and more models of noise; scores are computed as before.
"""

import functools
from collections.abc import Collection, Mapping

from bench import declared
from bench.contract.control import Control

PROTOCOL = 2  # the current version; records of different versions are never ranked together
VERSIONS = range(1, PROTOCOL + 1)
# Controls of version 1, by the name of the generator, with their numbers of models as shares of the generator's.
FIRST = {
    "average": 1.0,
    "copy": 1.0,
    "finetune": 0.25,
    "gaussian": 1.0,
    "greedy_soup": 1.0,
    "interpolation": 1.0,
    "noise": 0.25,
}


@functools.cache
def controls(version: int, samples: int, *, alignable: bool) -> Mapping[Control, int]:
    """Return the controls of a run with their numbers of models.

    Args:
        version: of the protocol.
        samples: number of generated models.
        alignable: whether the hidden units of the zoo's networks can be permuted.
    """
    listed = declared.controls()
    if version == 1:
        known = [control for control in listed if control.name in FIRST]
        return {one: _models(one, FIRST[one.name] * samples) for one in known}
    if alignable:
        listed += declared.twins()
    twinned = {control.name for control in listed if control.aligned}
    return {one: _models(one, _share(one, twinned) * samples) for one in listed}


def _share(control: Control, twinned: Collection[str]) -> float:
    """Return a control's number of models as a share of the generator's, which it halves with its twin."""
    share = float(declared.facts(control)["share_of_models"])
    return share / 2 if control.name in twinned else share


def _models(control: Control, count: float) -> int:
    return 1 if declared.facts(control)["deterministic"] else max(1, int(count))
