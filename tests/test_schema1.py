"""Records of schema 1: what they are in the schema of today, and what is refused."""

import copy
import json
import math
from collections import Counter
from pathlib import Path

import pytest

from bench.contract import Metric
from bench.records import schema1
from bench.records.population import Likeness, Similarity
from bench.records.record import Record
from tests import records

SHIPPED = sorted((Path(__file__).parents[1] / "leaderboard" / "results").rglob("*.json"))


def population(values, **more):
    ordered = sorted(values)
    mean = math.fsum(values) / len(values)
    spread = [(value - mean) ** 2 for value in values]
    return {
        "best": ordered[-1],
        "selected": values[0],
        "mean": mean,
        "median": (ordered[(len(values) - 1) // 2] + ordered[len(values) // 2]) / 2,
        "worst": ordered[0],
        "std": math.sqrt(sum(spread) / (len(values) - 1)) if len(values) > 1 else None,
        "low": (ordered[0] + mean) / 2,
        "high": (ordered[-1] + mean) / 2,
        "values": list(values),
        "further": {},
        "not_finite": None,
        **more,
    }


def interval(value):
    return {"value": value, "low": value - 0.02, "high": value + 0.02}


def old():
    """A record of schema 1 as plain data: 3 checkpoints, 4 samples."""
    similar = {"original": 0.5, "original_max": 0.6, "within": 0.55}
    return {
        "schema": 1,
        "id": "0123456789abcdef",
        "created": "2025-01-02T03:04:05Z",
        "command": "python -m bench run --task digits --generator pdiff",
        "key": "fedcba9876543210",
        "task": {
            "name": "digits",
            "kind": "classification",
            "dataset": "digits",
            "dataset_hash": "a" * 64,
            "arch": "convnet3",
            "layers": "last-norms:2",
            "metric": "accuracy",
            "higher_is_better": True,
            "units": "validation images",
            "settings": {"lr": 0.1, "epochs": 2},
        },
        "zoo": {
            "hash": "b" * 64,
            "track": "trajectory",
            "k": 3,
            "d": 128,
            "seed": 0,
            "base_score": 0.7,
        },
        "generator": {
            "name": "pdiff",
            "source": "c" * 64,
            "hyperparameters": {"sampler": "ddpm", "channels": [16, 32], "ema_decay": 0.995},
            "uses_scores": False,
            "uses": [],
            "aligned": False,
        },
        "protocol": {
            "version": 1,
            "preset": "quick",
            "samples": 4,
            "seed": 0,
            "selection": "highest train score",
            "train_size": 1000,
            "val_size": 500,
        },
        "scores": {
            "original": population([0.7, 0.71, 0.75]),
            "generated": population([0.73, 0.69, 0.74, 0.7]),
            "average": population([0.72]),
            "noise": [
                population([0.71, 0.7], amplitude=0.01),
                population([0.5, 0.45], amplitude=0.1),
            ],
            "copy": population([0.71, 0.75]),
            "interpolation": population([0.72, 0.73]),
            "gaussian": population([0.6, 0.65]),
            "finetune": population([0.76, 0.74]),
            "greedy_soup": population([0.72]),
        },
        "similarity": {
            "original_original": interval(0.6),
            "generated_generated": interval(0.65),
            "original_generated": interval(0.55),
            "original_generated_max": interval(0.7),
            "controls": {"copy": similar, "average": similar | {"within": None}},
            "good": {
                "min_score": 0.71,
                "originals": 2,
                "generated": 1,
                "original_original": 0.6,
                "generated_generated": None,
                "original_generated": 0.5,
                "original_generated_max": 0.7,
            },
        },
        "novelty": {
            "advantage_over_noise": interval(0.01),
            "advantage_over_interpolation": None,
            "advantage_over_gaussian": interval(-0.01),
            "typical_advantage_over_noise": interval(0.02),
            "median_novelty": 0.3,
            "beyond_noise": 0.25,
            "beyond_interpolation": 1.0,
            "beyond_gaussian": 0.5,
            "nearest_l2_ratio": 1.2,
            "nearest_l2_ratio_aligned": 1.1,
            "toward_mean": 0.5,
            "collapsed": True,
            "rule": 1,
            "verdict": "averages",
            "sees_training": True,
        },
        "tests": {
            "best_original": {"wins": 4, "losses": 1, "p": 0.375},
            "average": {"wins": 0, "losses": 0, "p": 1.0},
        },
        "timing": {
            "device": "cpu",
            "collect_s": 10.0,
            "fit_s": 5.0,
            "sample_s": 1.0,
            "sample_per_model_s": 0.25,
            "select_s": 0.5,
            "score_s": 0.5,
            "target_score": 0.73,
            "sgd_s": 4.0,
            "speedup": 16.0,
            "speedup_amortised": 1.0,
            "break_even_models": 5,
            "peak_memory_bytes": 1_000_000,
        },
        "environment": {
            "git_commit": "0" * 40,
            "git_dirty": False,
            "python": "3.11.7",
            "packages": {"torch": "2.6.0"},
            "cpu": "a processor",
            "gpu": None,
            "threads": 2,
        },
        "artifacts": {
            "zoo": {"file": "zoo.safetensors", "sha256": "d" * 64},
            "generated": {"file": "generated.safetensors", "sha256": "e" * 64},
            "side": {"file": "side.npz", "sha256": "f" * 64},
        },
        "tier": "claimed",
        "verified": None,
    }


def changed(path, value):
    """That record with another value at the dotted path."""
    data = old()
    *folders, last = path.split(".")
    inner = data
    for name in folders:
        inner = inner[int(name)] if isinstance(inner, list) else inner[name]
    inner[int(last) if isinstance(inner, list) else last] = value
    return data


def read(data):
    """The record, or the problems of one that is refused."""
    record, problems = Record.parsed(json.dumps(data).encode())
    return record or problems


def test_every_number_is_found_again():
    record, data = read(old()), old()
    names = ["average", "greedy_soup", "copy", "interpolation", "gaussian", "finetune"]
    assert list(record.populations) == ["original", "generated", *names, "noise 0.01", "noise 0.1"]
    for name, one in record.populations.items():
        scores = (
            data["scores"]["noise"][one.amplitude > 0.05] if one.amplitude else data["scores"][name]
        )
        assert {part: getattr(one, part) for part in scores if part != "further"} == {
            part: value for part, value in scores.items() if part != "further"
        }
        assert one.n == len(scores["values"])
    assert record.generated.similarity.within == Likeness(value=0.65, low=0.63, high=0.67)
    assert record.generated.similarity.originals.value == 0.55
    assert record.generated.similarity.nearest.value == 0.7
    assert record.original.similarity == Similarity(within=Likeness(value=0.6, low=0.58, high=0.62))
    assert record.populations["copy"].similarity == Similarity(
        originals=Likeness(value=0.5), nearest=Likeness(value=0.6), within=Likeness(value=0.55)
    )
    assert record.populations["gaussian"].similarity == Similarity()  # it is not among the controls
    judge, novelty = record.judge, data["novelty"]
    for control, advantage in judge.advantages.items():
        mean = advantage.mean and advantage.mean.model_dump()
        assert mean == novelty[f"advantage_over_{control}"]
        assert advantage.beyond == novelty[f"beyond_{control}"]
    assert judge.advantages["noise"].typical.model_dump() == novelty["typical_advantage_over_noise"]
    assert judge.origin.model_dump() == {name: novelty[name] for name in
                                         ("nearest_l2_ratio", "nearest_l2_ratio_aligned", "toward_mean")}  # fmt: skip
    assert (judge.word, judge.rule, judge.collapsed) == ("averages", 1, True)
    assert judge.tests.model_dump() == data["tests"]
    assert judge.good.model_dump() == data["similarity"]["good"]
    assert record.generator.code == data["generator"]["source"]
    for name in schema1.MEASURED:
        assert getattr(record.timing, name) == data["timing"][name]
    for part in ("zoo", "protocol", "environment", "artifacts"):
        assert getattr(record, part).model_dump(exclude_unset=True) == data[part]


@pytest.mark.parametrize(
    ("metric", "higher", "expected"),
    [
        ("accuracy", True, Metric("accuracy", scale=100, mean_over_units=True)),
        ("mAP", True, Metric("mAP", scale=100)),
        ("FID", False, Metric("FID", higher_is_better=False)),
        ("accuracy", False, Metric("accuracy", higher_is_better=False)),
        ("reward", True, Metric("reward")),
    ],
)
def test_facts_of_a_metric_follow_from_its_name(metric, higher, expected):
    data = changed("task.metric", metric)
    data["task"]["higher_is_better"] = higher
    assert read(data).task.metric == expected


@pytest.mark.parametrize(
    ("kind", "tests", "independent", "features"),
    [
        ("classification", None, True, False),
        ("detection", None, False, False),
        ("segmentation", None, False, False),
        ("image generation", None, True, True),
        ("my own", None, False, False),
        ("my own", old()["tests"], True, False),
    ],
)
def test_what_models_are_compared_by_follows_from_the_kind(kind, tests, independent, features):
    data = changed("task.kind", kind)
    compared = read(data | {"tests": tests}).task.compared
    assert (compared.units, compared.independent, compared.features) == (
        "validation images", independent, features,
    )  # fmt: skip


def test_the_command_is_shown_as_it_was_written():
    record = read(old())
    assert record.command == old()["command"]
    assert (record.request.task, record.request.generator) == ("digits", "pdiff")


def test_a_converted_record_is_valid_in_the_schema_of_today():
    record = read(old())
    again, problems = Record.parsed(record.to_json().encode())
    assert (again, problems) == (record, [])
    assert again.command == record.command


def test_what_the_first_release_did_not_know_is_null():
    data = old()
    for name in ("typical_advantage_over_noise", "median_novelty", "beyond_interpolation", "beyond_gaussian",
                 "nearest_l2_ratio_aligned", "toward_mean", "rule", "sees_training"):  # fmt: skip
        del data["novelty"][name]
    del (
        data["generator"]["aligned"],
        data["similarity"]["good"],
        data["artifacts"]["side"],
        data["tests"],
    )
    record = read(data)
    assert record.judge.rule is record.judge.median_novelty is record.judge.tests is None
    assert record.judge.origin.toward_mean is record.judge.good is record.artifacts.side is None
    assert record.judge.advantages["gaussian"].beyond is None
    assert not record.generator.aligned


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("surprise", 1),
        ("scores.surprise", 1),
        ("scores.original.surprise", 1),
        ("scores.noise.0.surprise", 1),
        ("novelty.surprise", 1),
        ("command", ""),
        ("command", 7),
        ("command", "make me a record"),
        ("command", "python -m bench run --task digits --generator pdiff --fast"),
        ("task.higher_is_better", "yes"),
        ("generator.uses_scores", 1),
        ("generator.uses", "score"),
        ("scores.noise", {}),
        ("scores.noise.0.amplitude", 0.0),
        ("scores.generated.values.1", "0.7"),
        ("scores.original.median", 0.72),
        ("scores.copy.mean", math.nan),
        ("similarity.controls.copy.within", 1.1),
        ("similarity.original_generated", {"value": 0.5, "low": 0.6, "high": 0.4}),
        ("similarity.generated_generated", {"value": 1.5, "low": 1.5, "high": 1.5}),
        ("novelty.beyond_noise", -0.1),
        ("novelty.verdict", "excellent"),
        ("zoo.k", 0),
        ("created", "yesterday"),
        ("timing.fit_s", -1.0),
        ("artifacts.zoo.file", "../../etc/passwd"),
    ],
)
def test_a_wrong_field_is_named_as_the_file_has_it(path, value):
    place = path.partition(".values.")[0].removesuffix(".median")
    assert any(problem.startswith(place) for problem in read(changed(path, value)))


@pytest.mark.parametrize(
    "name", [name for name in old() if name not in ("tests", "tier", "verified")]
)
def test_a_missing_field_is_named(name):
    data = old()
    del data[name]
    assert any(problem.startswith(f"{name}: Field required") for problem in read(data))


def test_what_contradicts_itself_is_refused():
    assert "uses_scores is not what uses says" in read(changed("generator.uses_scores", True))[0]
    assert "ascending" in read(changed("scores.noise.0.amplitude", 0.2))[0]
    assert "k checkpoints" in read(changed("scores.original", population([0.7, 0.71])))[0]
    assert "each sample" in read(changed("scores.generated", population([0.7, 0.71])))[0]
    other = {**old()["similarity"]["controls"], "other": old()["similarity"]["controls"]["copy"]}
    assert "'other', which is no population" in read(changed("similarity.controls", other))[0]


def test_the_schema_is_found_wherever_it_stands():
    data = old()
    schema = data.pop("schema")
    assert read({**data, "schema": schema}) == read({"schema": schema, **data})


def test_shipped_records_of_every_schema_lie_where_their_key_says():
    schemas = Counter(json.loads(path.read_bytes())["schema"] for path in SHIPPED)
    assert set(schemas) == {1, 2}
    assert schemas[1] >= 111
    for path in SHIPPED:
        record = Record.read(path)
        assert path.parts[-2:] == (record.key, f"{record.id}.json")
        assert record.environment.git_dirty is False
        assert record.command == record.request.command
        assert record.command.startswith("python -m bench run --task ")


def test_a_command_that_named_no_number_of_models_meant_that_of_its_time():
    shapes = "python -m bench run --task shapes --generator pdiff"
    for words, samples in (
        (shapes, 50),
        (f"{shapes} --samples 100", 100),
        (f"{shapes} --zoo a.zoo", None),
    ):
        assert schema1._asked(words).samples == samples
    assert schema1._asked(shapes).command == f"{shapes} --samples 50"


def test_valid_is_not_shared():
    """The helpers above change their own copy."""
    before = copy.deepcopy(old())
    changed("scores.noise.0.amplitude", 9)
    assert old() == before


def test_parts_of_a_converted_record_belong_together():
    for change in ({"x": {"mean": 0.5, "selected": 0.25}}, {}):
        data = records.distances()
        data["scores"]["generated"]["further"] = change
        made, (problem,) = Record.parsed(json.dumps(data).encode())
        assert made is None
        assert "other further metrics" in problem
