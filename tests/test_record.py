"""The record: what is written is read back, and what is wrong is named."""

import copy
import datetime
import json
import math
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import BadRequest
from bench.records.record import Record, comparability_key, content_hash
from tests.test_schema1 import old, population

quick = settings(derandomize=True, deadline=None, max_examples=60)
NAN, INF = math.nan, math.inf


def valid():
    """A record as plain data: 3 checkpoints, 4 samples."""
    record, _ = Record.parsed(json.dumps(old()).encode())
    return json.loads(record.to_json())


def changed(path, value):
    """The valid record with another value at the dotted path."""
    data = valid()
    *folders, last = parts(path)
    inner = data
    for name in folders:
        inner = inner[int(name)] if isinstance(inner, list) else inner[name]
    inner[int(last) if isinstance(inner, list) else last] = value
    return data


def parts(path):
    """The names of a dotted path; "noise 0.1" is one of them."""
    names = path.replace("noise 0.", "noise 0,").split(".")
    return [name.replace("noise 0,", "noise 0.") for name in names]


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
    data["populations"]["original"] |= population(values)
    record = Record.model_validate_json(json.dumps(data))
    assert Record.model_validate_json(record.to_json()) == record
    assert record.original.values == values


def test_lower_is_better_has_best_below_worst():
    data = valid()
    data["task"]["metric"] = {"name": "error", "higher_is_better": False}
    for one in data["populations"].values():
        one["best"], one["worst"] = one["worst"], one["best"]
    Record.model_validate_json(json.dumps(data))


def test_the_same_run_overwrites_its_own_record(tmp_path):
    record = Record.model_validate_json(json.dumps(valid()))
    assert record.write(tmp_path) == record.write(tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [f"{record.id}.json"]


def test_controls_by_name():
    record = Record.model_validate_json(json.dumps(valid()))
    controls = record.controls
    assert set(controls) == set(record.populations) - {"original", "generated"}
    assert controls["copy"] == record.populations["copy"]
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

SECTIONS = [
    name for name, value in valid().items() if isinstance(value, dict) and name != "versions"
]


@pytest.mark.parametrize(
    "where",
    ["", *SECTIONS, "populations.original", "populations.original.similarity", "judge.origin"],
)
def test_unknown_field(tmp_path, where):
    path = f"{where}.surprise" if where else "surprise"
    refused(changed(path, 1), tmp_path, path)


@pytest.mark.parametrize("section", [*SECTIONS, "id", "schema"])
def test_missing_field(tmp_path, section):
    data = valid()
    del data[section]
    assert "required" in refused(data, tmp_path, section)


OPTIONAL = {  # fields of which some records say nothing
    "judge": [
        "rule", "median_novelty", "sees_training", "tests", "good", "against_reference", "resolution",
    ],
    "zoo": ["official", "collected_on"],
    "protocol": ["held_out"],
    "generator": ["aligned"],
    "artifacts": ["side", "reference"],
}  # fmt: skip
EMPTY = (
    "request",
    "populations",
)  # a part of which every field may be missing, and one without fields of its own


@pytest.mark.parametrize("section", [name for name in SECTIONS if name not in EMPTY])
def test_missing_inner_field(tmp_path, section):
    for name in valid()[section]:
        data = valid()
        del data[section][name]
        if name in OPTIONAL.get(section, []):
            read = Record.model_validate_json(json.dumps(data))
            assert not getattr(getattr(read, section), name)
        else:
            refused(data, tmp_path, f"{section}.{name}")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("schema", 3),
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
        ("request", None),
        ("request.k", 0),
        ("request.surprise", 1),
        ("task.name", ""),
        ("task.name", 7),
        ("task.dataset_hash", "z" * 64),
        ("task.metric", "accuracy"),
        ("task.metric.higher_is_better", "yes"),
        ("task.metric.scale", 10),
        ("task.metric.version", 0),
        ("task.metric.name", ""),
        ("task.metric.surprise", 1),
        ("task.compared.units", ""),
        ("task.compared.features", 1),
        ("task.settings", []),
        ("zoo.k", 0),
        ("zoo.k", "3"),
        ("zoo.d", 1.5),
        ("zoo.hash", "b" * 63),
        ("zoo.base_score", "0.7"),
        ("generator.uses", "score"),
        ("protocol.samples", 0),
        ("protocol.val_size", -1),
        ("environment.threads", 0),
        ("environment.packages", {"torch": 2}),
        ("artifacts.zoo.sha256", "d"),
        ("artifacts.zoo.file", "../../etc/passwd"),
        ("artifacts.generated.file", "a\\b"),
        ("artifacts.side.file", ".."),
        ("artifacts.side.file", "a\x00b"),
        ("judge.rule", 0),
        ("verified", {"code": "0" * 64}),
        ("verified", {"code": "x", "record": "0" * 64}),
        ("judge.word", "excellent"),
        ("tier", "certain"),
        ("judge.collapsed", "no"),
        ("populations", []),
        ("populations.generated.values", []),
        ("populations.generated.values.1", "0.7"),
        ("populations.generated.role", "teacher"),
    ],
)
def test_wrong_type_or_value(tmp_path, path, value):
    place = path
    if path.startswith(("task.metric.", "task.compared.")) and value in ("", 0):
        place = path.rpartition(".")[0]  # these check themselves
    refused(changed(path, value), tmp_path, place)


def whole_numbers_in(data):
    """Dotted paths of all whole numbers, but for those that plugins name themselves."""
    return [path for path in numbers_in(data) if isinstance(at(data, path), int)]


def at(data, path):
    for name in parts(path):
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
        place = path.split(".hyperparameters")[0].split(".settings")[0].removesuffix(".version")
        refused(changed(path, value), tmp_path, place)


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
    copies = valid()["populations"]["copy"] | scores
    refused(changed("populations.copy", copies), tmp_path, "not a valid record")


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


@pytest.mark.parametrize("value", [-0.1, 1.1, 50.0])
@pytest.mark.parametrize("name", ["original", "generated", "copy"])
def test_similarity_out_of_range(tmp_path, name, value):
    path = f"populations.{name}.similarity.within"
    refused(changed(path, {"value": value, "low": None, "high": None}), tmp_path, path)
    refused(changed(path, {"value": value, "low": value, "high": value}), tmp_path, path)


@pytest.mark.parametrize("value", [-0.1, 1.1, 50.0])
def test_share_out_of_range(tmp_path, value):
    path = "judge.advantages.noise.beyond"
    refused(changed(path, value), tmp_path, path)


def test_interval_upside_down(tmp_path):
    path = "populations.generated.similarity.originals"
    refused(changed(path, {"value": 0.5, "low": 0.6, "high": 0.4}), tmp_path, path)
    refused(changed(path, {"value": 0.5, "low": 0.4, "high": None}), tmp_path, path)


TIMES = (
    "fit_s", "collect_s", "sample_s", "sample_per_model_s", "select_s", "select_per_model_s", "score_s", "base_s",
    "sgd_s", "marginal_s",
)  # fmt: skip
DERIVED = (
    "speedup", "speedup_marginal", "speedup_amortised_1", "speedup_amortised_10", "speedup_amortised_100",
    "break_even_models", "peak_memory_bytes",
)  # fmt: skip


@pytest.mark.parametrize("name", TIMES + DERIVED)
def test_negative_time(tmp_path, name):
    refused(changed(f"timing.{name}", -1), tmp_path, f"timing.{name}")


@pytest.mark.parametrize("amplitude", [0.0, -0.1])
def test_noise_amplitude(tmp_path, amplitude):
    refused(changed("populations.noise 0.1.amplitude", amplitude), tmp_path, "amplitude")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("populations.noise 0.1.amplitude", 0.2),
        ("populations.noise 0.1.aligned", True),
        ("populations.copy.name", "average"),
    ],
)
def test_a_population_stands_under_what_it_is(tmp_path, path, value):
    name = parts(path)[1]
    assert "should be named" in refused(changed(path, value), tmp_path, f"populations.{name}")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("populations.original.role", "control"),
        ("populations.generated.name", "vae"),
        ("populations.generated.amplitude", 0.1),
    ],
)
def test_originals_and_generated_models_are_called_so(tmp_path, path, value):
    refused(changed(path, value), tmp_path, "not a valid record")


@pytest.mark.parametrize("name", ["original", "generated"])
def test_originals_and_generated_models_are_there(tmp_path, name):
    data = valid()
    del data["populations"][name]
    assert f"has no {name} models" in refused(data, tmp_path, "populations")


def test_a_new_control_is_no_change_of_schema():
    data = valid()
    twin = data["populations"]["average"] | {"aligned": True}
    data["populations"] |= {
        "aligned average": twin,
        "my_soup": twin | {"name": "my_soup", "aligned": False},
    }
    record = Record.model_validate_json(json.dumps(data))
    assert {"aligned average", "my_soup"} < set(record.controls)


def test_a_corrected_metric_is_another_board():
    first, data = Record.model_validate_json(json.dumps(valid())), valid()
    data["task"]["metric"]["version"] = 2
    second = Record.model_validate_json(json.dumps(data))
    keys = [comparability_key(one.task, one.zoo, one.protocol) for one in (first, second)]
    assert keys[0] != keys[1]


@pytest.mark.parametrize("value", [0.39, 0.61])
@pytest.mark.parametrize(
    "path", ["populations.generated.similarity.originals", "judge.advantages.noise.mean"]
)
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
@pytest.mark.parametrize(
    "path", ["populations.copy.mean", "judge.origin.nearest_l2_ratio", "timing.speedup"]
)
def test_the_message_names_the_number_that_is_not_finite(tmp_path, path, value):
    refused(changed(path, value), tmp_path, path)


# Numbers that contradict each other ----------------------------------------------------------------------------------

POPULATIONS = ["original", "generated", "average", "noise 0.1", "copy", "greedy_soup"]


@pytest.mark.parametrize("name", POPULATIONS)
def test_best_below_mean(tmp_path, name):
    data = valid()
    scores = data["populations"][name]
    refused(
        changed(f"populations.{name}.best", scores["mean"] - 0.01), tmp_path, f"populations.{name}"
    )


def test_selected_not_among_values(tmp_path):
    message = refused(
        changed("populations.generated.selected", 0.715), tmp_path, "populations.generated"
    )
    assert "selected" in message


def test_interval_outside_the_values(tmp_path):
    assert "low" in refused(
        changed("populations.original.low", 0.6), tmp_path, "populations.original"
    )
    assert "high" in refused(
        changed("populations.original.high", 0.8), tmp_path, "populations.original"
    )


def test_median_of_other_values(tmp_path):
    message = refused(
        changed("populations.original.median", 0.72), tmp_path, "populations.original"
    )
    assert "median" in message


def test_n_is_the_number_of_values(tmp_path):
    assert "n is not" in refused(changed("populations.copy.n", 3), tmp_path, "populations.copy")


def test_std_of_other_values(tmp_path):
    assert "std" in refused(
        changed("populations.original.std", 0.5), tmp_path, "populations.original"
    )


def test_as_many_values_as_checkpoints(tmp_path):
    own = valid()["populations"]["original"]
    data = changed("populations.original", own | population([0.7, 0.71]) | {"n": 2})
    assert "k checkpoints" in refused(data, tmp_path, "populations.original")


def test_as_many_values_as_samples(tmp_path):
    own = valid()["populations"]["generated"]
    data = changed("populations.generated", own | population([0.7, 0.71, 0.72]) | {"n": 3})
    refused(data, tmp_path, "populations.generated")
    one = own | population([0.7]) | {"n": 1}  # of a deterministic generator
    data = changed("populations.generated", one)
    Record.model_validate_json(json.dumps(data))


@quick
@given(
    st.sampled_from(POPULATIONS),
    st.sampled_from(["best", "mean", "worst"]),
    st.floats(-2, 2).filter(lambda change: abs(change) > 1e-6),
)
def test_no_number_can_be_changed_alone(tmp_path_factory, name, field, change):
    data = valid()
    scores = data["populations"][name]
    scores[field] += change
    refused(data, tmp_path_factory.mktemp("record"), f"populations.{name}")


@quick
@given(st.sampled_from(POPULATIONS), st.floats(-2, 2).filter(lambda change: abs(change) > 1e-6))
def test_no_single_value_can_be_changed_alone(tmp_path_factory, name, change):
    data = valid()
    scores = data["populations"][name]
    scores["values"][0] += change
    refused(data, tmp_path_factory.mktemp("record"), f"populations.{name}")


def test_valid_is_not_shared():
    """The helpers above change their own copy."""
    before = copy.deepcopy(valid())
    changed("populations.noise 0.1.amplitude", 9)
    assert valid() == before
