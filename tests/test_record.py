import copy
import datetime
import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import BadRequest
from bench.records.record import Record, content_hash

quick = settings(derandomize=True, deadline=None, max_examples=60)
NAN, INF = math.nan, math.inf


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


def valid():
    """A record as plain data: 3 checkpoints, 4 samples."""
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
    """The valid record with another value at the dotted path."""
    data = valid()
    *folders, last = path.split(".")
    inner = data
    for name in folders:
        inner = inner[int(name)] if isinstance(inner, list) else inner[name]
    inner[int(last) if isinstance(inner, list) else last] = value
    return data


def refused(data, folder, field):
    """Reading this data fails with one line that names the file and the field."""
    path = folder / "record.json"
    path.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
    with pytest.raises(BadRequest) as caught:
        Record.read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert field in message
    return message


# Valid records -------------------------------------------------------------------------------------------------------


def test_read_what_was_written(tmp_path):
    record = Record.model_validate_json(json.dumps(valid()))
    path = record.write(tmp_path)
    assert path == tmp_path / "fedcba9876543210" / "0123456789abcdef.json"
    assert Record.read(path) == record


def test_json_holds_exactly_the_data():
    record = Record.model_validate_json(json.dumps(valid()))
    assert json.loads(record.to_json()) == valid()
    assert record.to_json().endswith("}\n")


numbers = st.floats(-1e6, 1e6, allow_subnormal=False)


@quick
@given(st.lists(numbers, min_size=3, max_size=3))
def test_any_scores_come_back_bit_for_bit(values):
    data = valid()
    data["scores"]["original"] = population(values)
    record = Record.model_validate_json(json.dumps(data))
    assert Record.model_validate_json(record.to_json()) == record
    assert record.scores.original.values == values


def test_lower_is_better_has_best_below_worst():
    data = valid()
    data["task"]["higher_is_better"] = False
    for name, scores in data["scores"].items():
        for level in scores if name == "noise" else [scores]:
            level["best"], level["worst"] = level["worst"], level["best"]
    Record.model_validate_json(json.dumps(data))


def test_the_same_run_overwrites_its_own_record(tmp_path):
    record = Record.model_validate_json(json.dumps(valid()))
    assert record.write(tmp_path) == record.write(tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [f"{record.id}.json"]


def test_controls_by_name():
    record = Record.model_validate_json(json.dumps(valid()))
    controls = record.scores.controls()
    assert set(controls) >= {"average", "copy", "interpolation", "gaussian", "finetune"}
    assert controls["copy"] == record.scores.copy_
    assert [name for name in controls if name.startswith("noise")] == ["noise 0.01", "noise 0.1"]


# Files that cannot be used -------------------------------------------------------------------------------------------


def test_missing_file(tmp_path):
    with pytest.raises(BadRequest, match=r"none\.json"):
        Record.read(tmp_path / "none.json")


def test_folder(tmp_path):
    with pytest.raises(BadRequest, match="directory"):
        Record.read(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"\x00\xff\xfe binary", bytes(range(256)), b"[]", b"1", b"null", b"{}"]
)
def test_something_else(tmp_path, content):
    refused(content, tmp_path, "not a valid record")


@pytest.mark.parametrize("keep", [1, 10, 1000, -3])
def test_truncated(tmp_path, keep):
    refused(json.dumps(valid()).encode()[:keep], tmp_path, "not a valid record")


# Mutations -----------------------------------------------------------------------------------------------------------

SECTIONS = [name for name, value in valid().items() if isinstance(value, dict)]


@pytest.mark.parametrize("where", ["", *SECTIONS, "scores.original", "scores.noise.0"])
def test_unknown_field(tmp_path, where):
    path = f"{where}.surprise" if where else "surprise"
    refused(changed(path, 1), tmp_path, path)


@pytest.mark.parametrize("section", [*sorted({*SECTIONS} - {"tests"}), "id", "schema"])
def test_missing_field(tmp_path, section):
    data = valid()
    del data[section]
    assert "required" in refused(data, tmp_path, section)


LATER = {  # fields that records of the first release lack
    "novelty": ["typical_advantage_over_noise", "median_novelty", "beyond_interpolation", "beyond_gaussian",
                "nearest_l2_ratio_aligned", "toward_mean", "rule", "sees_training"],
    "generator": ["aligned"],
    "similarity": ["good"],
    "artifacts": ["side"],
}  # fmt: skip


@pytest.mark.parametrize("section", SECTIONS)
def test_missing_inner_field(tmp_path, section):
    for name in valid()[section]:
        data = valid()
        del data[section][name]
        if name in LATER.get(section, []):
            read = Record.model_validate_json(json.dumps(data))
            assert not getattr(getattr(read, section), name)
        else:
            refused(data, tmp_path, f"{section}.{name}")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("schema", 2),
        ("id", "0123"),
        ("id", "0123456789ABCDEF"),
        ("key", "../../../etc/pass"),
        ("created", "yesterday"),
        ("created", "2025-01-01T00:00:00"),
        ("created", "0001-01-01T00:00:00Z"),
        ("created", "0001-01-01T00:00:00+12:00"),
        ("created", "2023-12-31T23:59:59Z"),
        ("created", "9999-12-31T23:59:59Z"),
        ("created", "9999-12-31T23:59:59-12:00"),
        ("command", ""),
        ("task.name", ""),
        ("task.name", 7),
        ("task.dataset_hash", "z" * 64),
        ("task.higher_is_better", "yes"),
        ("task.settings", []),
        ("zoo.k", 0),
        ("zoo.k", "3"),
        ("zoo.d", 1.5),
        ("zoo.hash", "b" * 63),
        ("zoo.base_score", "0.7"),
        ("generator.uses", "score"),
        ("generator.uses_scores", 1),
        ("protocol.samples", 0),
        ("protocol.val_size", -1),
        ("environment.threads", 0),
        ("environment.packages", {"torch": 2}),
        ("artifacts.zoo.sha256", "d"),
        ("artifacts.zoo.file", "../../etc/passwd"),
        ("artifacts.generated.file", "a\\b"),
        ("artifacts.side.file", ".."),
        ("artifacts.side.file", "a\x00b"),
        ("novelty.rule", 0),
        ("verified", {"code": "0" * 64}),
        ("verified", {"code": "x", "record": "0" * 64}),
        ("novelty.verdict", "excellent"),
        ("tier", "certain"),
        ("novelty.collapsed", "no"),
        ("scores.generated.values", []),
        ("scores.generated.values.1", "0.7"),
        ("scores.noise", {}),
    ],
)
def test_wrong_type_or_value(tmp_path, path, value):
    refused(changed(path, value), tmp_path, path)


def whole_numbers_in(data):
    """Dotted paths of all whole numbers, but for those that plugins name themselves."""
    return [path for path in numbers_in(data) if isinstance(at(data, path), int)]


def at(data, path):
    for name in path.split("."):
        data = data[int(name)] if isinstance(data, list) else data[name]
    return data


@pytest.mark.parametrize("value", [2**53 + 1, -(2**53) - 1, 2**70, 10**400])
def test_whole_numbers_that_not_every_reader_has(tmp_path, value):
    paths = whole_numbers_in(valid())
    assert {
        "protocol.seed",
        "zoo.k",
        "environment.threads",
        "generator.hyperparameters.channels.0",
    } <= {*paths}
    for path in paths:
        refused(
            changed(path, value), tmp_path, path.split(".hyperparameters")[0].split(".settings")[0]
        )


def test_seeds_may_be_negative():
    data = changed("protocol.seed", -(2**53))
    assert Record.model_validate_json(json.dumps(data)).protocol.seed == -(2**53)


def test_a_clock_that_is_a_little_fast_is_no_problem(tmp_path):
    now = datetime.datetime.now(datetime.UTC)
    soon, later = (now + datetime.timedelta(minutes=minutes) for minutes in (4, 6))
    Record.model_validate_json(json.dumps(changed("created", soon.isoformat())))
    refused(changed("created", later.isoformat()), tmp_path, "in the future")


def test_every_wrong_field_is_told():
    data = changed("protocol.seed", 2**70)
    data["zoo"]["k"] = 0
    found, wrong = Record.parsed(json.dumps(data).encode())
    assert found is None
    assert [line.partition(":")[0] for line in wrong] == ["zoo.k", "protocol.seed"]


def test_names_of_fields_are_told_so_that_all_of_them_can_be_seen(tmp_path):
    data = valid() | {"a\n\x1b[31mb": 1}
    assert refused(data, tmp_path, "not a valid record").isprintable()


def test_scores_too_large_to_average(tmp_path):
    scores = population([1.0, 2.0]) | {"values": [1e308, 1.7e308], "best": 1.7e308, "worst": 1e308}
    scores |= dict.fromkeys(("selected", "mean", "median", "low", "high"), 1e308)
    refused(changed("scores.copy", scores), tmp_path, "not a valid record")


def test_a_file_too_large_to_be_a_record(tmp_path):
    refused(b" " * 20_000_001, tmp_path, "expected at most 20,000,000")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "record.json")
    with pytest.raises(BadRequest, match="no regular file"):
        Record.read(tmp_path / "record.json")


def test_the_hash_of_what_a_record_says():
    """However it is written, and whatever mark was left; not another tier."""
    data = valid()
    marked = data | {"verified": {"code": "a" * 64, "record": "b" * 64}}
    first = content_hash(json.dumps(data))
    assert content_hash(json.dumps(dict(reversed(marked.items())), indent=3)) == first
    assert content_hash(json.dumps(data | {"tier": "rescored"})) != first
    assert content_hash(json.dumps(changed("zoo.seed", 1))) != first


OUT_OF_RANGE = [-0.1, 1.1, 50.0]


@pytest.mark.parametrize("value", OUT_OF_RANGE)
@pytest.mark.parametrize("name", ["original", "original_max", "within"])
def test_iou_of_a_control_out_of_range(tmp_path, name, value):
    path = f"similarity.controls.copy.{name}"
    refused(changed(path, value), tmp_path, path)


@pytest.mark.parametrize("value", OUT_OF_RANGE)
@pytest.mark.parametrize(
    "name",
    ["original_original", "generated_generated", "original_generated", "original_generated_max"],
)
def test_iou_out_of_range(tmp_path, name, value):
    bounds = {"value": value, "low": value, "high": value}
    refused(changed(f"similarity.{name}", bounds), tmp_path, f"similarity.{name}")


@pytest.mark.parametrize("value", OUT_OF_RANGE)
def test_share_out_of_range(tmp_path, value):
    refused(changed("novelty.beyond_noise", value), tmp_path, "novelty.beyond_noise")


def test_interval_upside_down(tmp_path):
    bounds = {"value": 0.5, "low": 0.6, "high": 0.4}
    refused(changed("similarity.original_generated", bounds), tmp_path, "original_generated")


TIMES = ("fit_s", "collect_s", "sample_s", "sample_per_model_s", "select_s", "score_s", "sgd_s")
DERIVED = ("speedup", "speedup_amortised", "break_even_models", "peak_memory_bytes")


@pytest.mark.parametrize("name", TIMES + DERIVED)
def test_negative_time(tmp_path, name):
    refused(changed(f"timing.{name}", -1), tmp_path, f"timing.{name}")


@pytest.mark.parametrize("amplitude", [0.0, -0.1])
def test_noise_amplitude(tmp_path, amplitude):
    refused(changed("scores.noise.0.amplitude", amplitude), tmp_path, "amplitude")


def test_noise_amplitudes_in_disorder(tmp_path):
    refused(changed("scores.noise.0.amplitude", 0.2), tmp_path, "amplitudes")
    refused(changed("scores.noise.0.amplitude", 0.1), tmp_path, "amplitudes")


@pytest.mark.parametrize("value", [0.39, 0.61])
@pytest.mark.parametrize("path", ["similarity.original_generated", "novelty.advantage_over_noise"])
def test_value_outside_its_interval(tmp_path, path, value):
    refused(changed(path, {"value": value, "low": 0.4, "high": 0.6}), tmp_path, path)


def numbers_in(data, path=""):
    """Dotted paths of all numbers in nested plain data."""
    items = data.items() if isinstance(data, dict) else enumerate(data)
    for name, value in items:
        here = f"{path}.{name}" if path else str(name)
        if isinstance(value, dict | list):
            yield from numbers_in(value, here)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield here


OWN = ("task.settings.", "generator.hyperparameters.")  # plugins name these themselves


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_a_number_that_is_not_finite(tmp_path, value):
    paths = [path for path in numbers_in(valid()) if not path.startswith(OWN)]
    assert len(paths) > 100
    for path in paths:
        refused(changed(path, value), tmp_path, "not a valid record")


@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize("path", ["task.settings.lr", "generator.hyperparameters.channels.0"])
def test_a_setting_that_is_not_finite(tmp_path, path, value):
    """JSON has no such numbers, so the record would not come back as it was."""
    refused(changed(path, value), tmp_path, ".".join(path.split(".")[:2]))


@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize("path", ["scores.copy.mean", "novelty.nearest_l2_ratio", "timing.speedup"])
def test_the_message_names_the_number_that_is_not_finite(tmp_path, path, value):
    refused(changed(path, value), tmp_path, path)


# Numbers that contradict each other ----------------------------------------------------------------------------------

POPULATIONS = ["original", "generated", "average", "noise.1", "copy", "greedy_soup"]


@pytest.mark.parametrize("name", POPULATIONS)
def test_best_below_mean(tmp_path, name):
    data = valid()
    scores = data["scores"]["noise"][1] if name == "noise.1" else data["scores"][name]
    refused(changed(f"scores.{name}.best", scores["mean"] - 0.01), tmp_path, f"scores.{name}")


def test_selected_not_among_values(tmp_path):
    message = refused(changed("scores.generated.selected", 0.715), tmp_path, "scores.generated")
    assert "selected" in message


def test_interval_outside_the_values(tmp_path):
    assert "low" in refused(changed("scores.original.low", 0.6), tmp_path, "scores.original")
    assert "high" in refused(changed("scores.original.high", 0.8), tmp_path, "scores.original")


def test_median_of_other_values(tmp_path):
    message = refused(changed("scores.original.median", 0.72), tmp_path, "scores.original")
    assert "median" in message


def test_std_of_other_values(tmp_path):
    assert "std" in refused(changed("scores.original.std", 0.5), tmp_path, "scores.original")


def test_as_many_values_as_checkpoints(tmp_path):
    data = changed("scores.original", population([0.7, 0.71]))
    assert "k checkpoints" in refused(data, tmp_path, "scores.original")


def test_as_many_values_as_samples(tmp_path):
    data = changed("scores.generated", population([0.7, 0.71, 0.72]))
    refused(data, tmp_path, "scores.generated")
    data = changed("scores.generated", population([0.7]))  # a deterministic generator
    Record.model_validate_json(json.dumps(data))


@quick
@given(
    st.sampled_from(POPULATIONS),
    st.sampled_from(["best", "mean", "worst"]),
    st.floats(-2, 2).filter(lambda change: abs(change) > 1e-6),
)
def test_no_number_can_be_changed_alone(tmp_path_factory, name, field, change):
    data = valid()
    scores = data["scores"]["noise"][1] if name == "noise.1" else data["scores"][name]
    scores[field] += change
    refused(data, tmp_path_factory.mktemp("record"), f"scores.{name}")


@quick
@given(st.sampled_from(POPULATIONS), st.floats(-2, 2).filter(lambda change: abs(change) > 1e-6))
def test_no_single_value_can_be_changed_alone(tmp_path_factory, name, change):
    data = valid()
    scores = data["scores"]["noise"][1] if name == "noise.1" else data["scores"][name]
    scores["values"][0] += change
    refused(data, tmp_path_factory.mktemp("record"), f"scores.{name}")


def test_valid_is_not_shared():
    """The helpers above change their own copy."""
    before = copy.deepcopy(valid())
    changed("scores.noise.0.amplitude", 9)
    assert valid() == before


SHIPPED = sorted((Path(__file__).parents[1] / "leaderboard" / "results").rglob("*.json"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_records_are_valid_and_lie_where_their_key_says(path):
    record = Record.read(path)
    assert path.parts[-2:] == (record.key, f"{record.id}.json")
    assert record.environment.git_dirty is False
    assert record.command.startswith("python -m bench run --task ")
