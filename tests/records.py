"""Made records and side files, for tests of the leaderboard."""

import copy
import json
import math
import statistics

import numpy as np

from bench.records import side, verdict, versions
from bench.records.judged import KINDS
from bench.records.record import Record
from bench.system.store import file_hash

CONTROLS = ("average", "copy", "interpolation", "gaussian", "finetune", "greedy_soup")
MARKUP = (
    "<script>alert(1)</script>[a](https://evil.test) ![i](x) $y$ :red[z] :smile: `c`\u202e\n# h"
)


def population(*values, **fields):
    """The numbers of some scores, higher being better."""
    ordered = sorted(values)
    mean = sum(values) / len(values)
    return {
        "best": ordered[-1], "selected": ordered[-1], "mean": mean, "median": statistics.median(values),
        "worst": ordered[0], "std": None if len(values) == 1 else statistics.stdev(values), "low": mean, "high": mean,
        "values": list(values),
    } | fields  # fmt: skip


def interval(value):
    return {"value": value, "low": value, "high": value}


NOISE = [{"amplitude": a, **population(0.9 - a, 0.95 - a)} for a in (0.1, 0.3)]
ALIKE = {"original": 0.8, "original_max": 0.9, "within": None}
BASE = {
    "schema": 1, "id": "0" * 16, "created": "2026-01-01T00:00:00Z",
    "command": "python -m bench run --task digits --generator pdiff", "key": "a" * 16,
    "task": {
        "name": "digits", "kind": "classification", "dataset": "digits", "dataset_hash": "1" * 64,
        "arch": "convnet3", "layers": "last-norms:2", "metric": "accuracy", "higher_is_better": True,
        "units": "image", "settings": {},
    },
    "zoo": {"hash": "2" * 64, "track": "trajectory", "k": 3, "d": 128, "seed": 0, "base_score": 0.9},
    "generator": {
        "name": "pdiff", "source": "3" * 64, "hyperparameters": {"steps": 10, "lr": 0.1},
        "uses_scores": False, "uses": [], "aligned": False,
    },
    "protocol": {
        "version": 1, "preset": "quick", "samples": 2, "seed": 0, "selection": "train",
        "train_size": 1000, "val_size": 797,
    },
    "scores": {
        "original": population(0.9, 0.91, 0.92), "generated": population(0.88, 0.94), "noise": NOISE,
        **{name: population(0.9, 0.93) for name in CONTROLS}, "average": population(0.93),
    },
    "similarity": {
        "original_original": interval(0.8), "generated_generated": interval(0.9),
        "original_generated": interval(0.85), "original_generated_max": interval(0.95),
        "controls": dict.fromkeys((*CONTROLS, "noise 0.1", "noise 0.3"), ALIKE),
    },
    "novelty": {
        "advantage_over_noise": None, "advantage_over_interpolation": None,
        "advantage_over_gaussian": None, "beyond_noise": 0.0, "nearest_l2_ratio": None,
        "collapsed": True, "rule": None, "verdict": None,
    },
    "timing": {
        "device": "cpu", "collect_s": 1.0, "fit_s": 2.0, "sample_s": 0.2, "sample_per_model_s": 0.1,
        "select_s": 0.1, "score_s": 0.1, "target_score": 0.9, "sgd_s": 1.0, "speedup": 10.0,
        "speedup_amortised": 0.5, "break_even_models": 4, "peak_memory_bytes": 1,
    },
    "environment": {
        "git_commit": None, "git_dirty": None, "python": "3.11", "packages": {}, "cpu": "cpu",
        "gpu": None, "threads": 1,
    },
    "artifacts": {name: {"file": "f", "sha256": "4" * 64} for name in ("zoo", "generated")},
    "tests": None,
}  # fmt: skip


def content(**fields):
    """A valid record as plain data; ``task__name="x"`` changes one field."""
    made = copy.deepcopy(BASE)
    for path, value in fields.items():
        *parents, last = path.split("__")
        place = made
        for parent in parents:
            place = place[parent]
        assert last in place
        place[last] = value
    return made


def distances():
    """A record's content whose scores are distances of drawn images, lower being better, as plain data."""
    made = content(
        task__name="digits-ddpm", task__kind="image generation", task__metric="fd-convnet3",
        task__higher_is_better=False, timing__target_score=0.9,
    )  # fmt: skip
    scores = made["scores"]
    for one in [*scores["noise"], *(scores[name] for name in scores if name != "noise")]:
        one["best"], one["worst"] = one["worst"], one["best"]
        one["selected"] = one["best"]
        one["further"] = {"kd-convnet3": {"mean": 0.5, "selected": 0.25}}
    return made


def record(**fields):
    """A valid record; its fields are those of a file of schema 1."""
    return parsed(content(**fields))


def parsed(data):
    """The record of plain data in any schema."""
    made, problems = Record.parsed(json.dumps(data).encode())
    assert made is not None, problems
    return made


def judgement(shares, *, models=50, held=50, nearer=0):
    """The numbers of a population against the reference, as plain data.

    Args:
        shares: of new models, copies, averages and broken ones.
        models, held: numbers of models that were compared.
        nearer: models that are nearer to a checkpoint than any of the reference.
    """
    parts = {
        kind: {"value": share, "low": max(0, share - 0.1), "high": min(1, share + 0.1)}
        for kind, share in zip(KINDS, shares, strict=True)
    }
    p = math.comb(models, nearer) / math.comb(models + held, nearer)
    single = {"quality": None, "variety": None, "fidelity": None}
    several = {
        "quality": {"difference": {"value": -0.01, "low": -0.02, "high": 0.005}, "margin": 0.005, "equivalence": 0.9},
        "variety": {"distance": interval(0.5), "vendi": interval(0.4)},
        "fidelity": {"outputs": 0.03, "weights": 0.001},
    }  # fmt: skip
    return {
        "composition": {**parts, "residual": 0.02, "p": 0.5},
        "copying": {"nearer": nearer, "p": p},
        "span_residual": 0.25,
        **(several if models > 1 else single),
    }


def judged(*shares, nearer=0, resolution=0.9, models=100, held=100, **fields):
    """A record of rule 2, whose generated models are made of these shares; the word is the rule's.

    Args:
        shares: of new models, copies, averages and broken ones; new alone by default.
        nearer: generated models that are nearer to a checkpoint than any of the reference.
        resolution: of the board.
        models, held: numbers of models that are generated, and held out.
        fields: those of ``record``.
    """
    values = [0.88 + 0.06 * i / models for i in range(models)]
    fields = {"protocol__samples": models, "scores__generated": population(*values)} | fields
    made = json.loads(record(**fields).to_json())
    every = made["populations"]
    scores = population(*(0.89 + 0.04 * i / held for i in range(held)))
    every["reference"] = {
        **every["original"],
        **scores,
        "name": "reference",
        "role": "reference",
        "n": held,
    }
    every["reference"]["similarity"] = every["copy"]["similarity"]
    every["original"]["similarity"]["nearest"] = {"value": 0.875, "low": 0.85, "high": 0.9}
    for one in every.values():
        one["similarity"]["kappa"] = {"originals": 0.5, "nearest": 0.75, "within": 0.625}
    every["original"]["similarity"]["kappa"] |= {"originals": None, "nearest": 0.6875}
    made["reference"] = {"origin": "training", "runs": held}
    made["protocol"] |= {"version": 2, "held_out": held}
    made["versions"] = versions.CURRENT
    made["artifacts"]["reference"] = made["artifacts"]["zoo"]
    judge = made["judge"] | {"rule": verdict.RULE, "word": "undecided", "resolution": resolution}
    judge["against_reference"] = {
        key: judgement(_controls_shares(one), models=one["n"])
        for key, one in every.items()
        if key != "original"
    }
    own = judgement(shares or (1, 0, 0, 0), models=models, held=held, nearer=nearer)
    judge["against_reference"]["generated"] = own
    judge["collapsed"] = own["variety"]["distance"]["high"] < 1 if own["variety"] else None
    made["judge"] = judge
    made["judge"]["word"] = verdict.of(parsed(made))
    return parsed(made)


def _controls_shares(population):
    """What a population is made of: the reference of new models, a copy or checkpoint with noise of copies."""
    kinds = {"reference": "new", "copy": "copies", "noise": "copies"}
    return [float(kind == kinds.get(population["name"], "averages")) for kind in KINDS]


def seed(number, *values, **fields):
    """The run of one seed, with the scores of its generated models."""
    return record(id=f"{number:016x}", protocol__seed=number,
                  scores__generated=population(*values), **fields)  # fmt: skip


def written(folder, made, arrays=None):
    """Write a record, with a side file where arrays are given; its path."""
    if arrays is not None:
        path = folder / made.key / f"{made.id}.npz"
        side.write(path, arrays)
        data = json.loads(made.to_json())
        data["artifacts"]["side"] = {"file": path.name, "sha256": file_hash(path)}
        made = parsed(data)
    return made.write(folder)


def outcomes(made, right):
    """Arrays of a side file that say which of the units every population gets right, all models alike."""
    bits = np.packbits(np.asarray(right, dtype=bool))
    arrays = {"units": np.array([len(right), len(right)], dtype=np.int32)}
    for name in made.populations:
        arrays[f"right_mean.{name}"] = (255 * np.asarray(right)).astype(np.uint8)
        arrays |= {f"right_{statistic}.{name}": bits for statistic in side.STATISTICS}
    return arrays
