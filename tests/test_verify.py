import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch

from bench.errors import BadRequest
from bench.records import rule1, side
from bench.records.record import Record
from bench.records.request import Request
from bench.runs import pipeline
from bench.runs.checked import tier
from bench.runs.stages import (
    Reference,
    load_reference,
    load_sampled,
    save_reference,
    save_sampled,
)
from bench.runs.verify import flatten, verify
from tests.standins import call

SETTINGS = {"epochs": 1, "batch_size": 20}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a finished run: its store and its record."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_HOME", str(folder / "home"))
        made(folder, held_out=4)
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A copy of that run; the record and its file."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    path = next((tmp_path / "results").rglob("*.json"))
    return Record.read(path), path


def made(tmp_path, generator="gaussian", **values):
    request = Request(
        task="fake", generator=generator, task_settings=SETTINGS | values.pop("task_settings", {}), k=5, samples=4,
        results=tmp_path / "results", device="cpu", **values,
    )  # fmt: skip
    return pipeline.run(request)


def changed(path, field, value):
    """The record with another value at the dotted name, written where it was."""
    data = json.loads(path.read_text())
    *folders, last = field.split(".")
    inner = data
    for name in folders:
        inner = inner[int(name)] if isinstance(inner, list) else inner[name]
    inner[last] = value
    path.write_text(json.dumps(data))
    return Record.read(path)


def wrong(checks):
    return [check.field for check in checks if check.problem]


@pytest.mark.parametrize(
    ("generator", "values"),
    [
        (
            "noise",
            {
                "generator_settings": {"amplitude": 0.5},
                "task_settings": {"layers": "linear"},
                "held_out": 4,
            },
        ),
        (
            "copy",
            {"task_settings": {"track": "seeds", "layers": "all"}, "align": True, "held_out": 4},
        ),
        (
            "greedy_soup",
            {"min_score": 0.1, "collected": 7, "seed": 3, "zoo_seed": 2, "held_out": 3},
        ),
    ],
)
def test_an_honest_record_agrees_in_every_field(tmp_path, generator, values):
    record, _ = made(tmp_path, generator, **values)
    agrees(record, verify(record, from_seed=True))


def agrees(record, checks):
    """All was computed again, and as the record says."""
    assert wrong(checks) == []
    assert tier(checks, from_seed=True) == "regenerated"
    names = {check.field for check in checks}
    assert {"populations.generated.mean", "populations.copy.similarity.originals.value", "judge.word", "key",
            "timing.speedup", "artifacts.zoo", "judge.tests.average.p", "generated weights", "reference weights",
            "artifacts.reference", "populations.reference.mean", "judge.resolution", "judge.rule",
            "judge.advantages.noise.beyond",
            "judge.against_reference.generated.composition.new.value", "judge.against_reference.reference.copying.p",
            } <= names  # fmt: skip


def test_an_honest_record_agrees_and_verifying_it_leaves_the_store_as_it_is(tmp_path, run):
    record, _ = run
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "home").rglob("*.safetensors")}
    agrees(record, verify(record, from_seed=True))
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "home").rglob("*.safetensors")}
    assert before == after


def test_one_changed_digit_is_caught(run):
    """Each by itself: no field is computed from another one of the record."""
    record, path = run
    flat = flatten(record.model_dump(by_alias=True))
    fields = (
        "populations.generated.similarity.nearest.low", "populations.copy.similarity.originals.value",
        "judge.origin.toward_mean", "timing.fit_s", "judge.tests.average.p", "judge.resolution",
        "judge.against_reference.generated.fidelity.weights", "judge.against_reference.copy.quality.difference.value",
    )  # fmt: skip
    for field in fields:
        value = flat[field]
        other = changed(path, field, value - 1e-6 if value > 1e-5 else value + 1e-6)
    other = changed(path, "judge.word", "novel")
    assert set(wrong(verify(other))) == {*fields, "judge.word"}


def test_scores_that_were_made_up_consistently_are_caught(tmp_path, run):
    """Not only one number: a whole population that is in itself what a record may hold."""
    record, path = run
    better = record.populations["greedy_soup"].model_dump() | {"values": [1.0]}
    better |= dict.fromkeys(("best", "selected", "mean", "median", "worst", "low", "high"), 1.0)
    found = wrong(verify(changed(path, "populations.greedy_soup", better)))
    assert {"populations.greedy_soup.mean", "populations.greedy_soup.values.0"} <= set(found)


def test_swapped_weights_are_caught(tmp_path, run):
    record, _ = run
    file = tmp_path / "home" / "generated" / record.artifacts.generated.file
    sampled = load_sampled(file)
    rng = torch.Generator().manual_seed(0)
    noisy = sampled.vectors + torch.randn(sampled.vectors.shape, generator=rng)
    save_sampled(dataclasses.replace(sampled, vectors=noisy), file)
    found = wrong(verify(record, from_seed=True))
    assert {"artifacts.generated", "generated weights", "judge.origin.nearest_l2_ratio"} <= set(
        found
    )


def test_another_reference_is_caught(tmp_path, run):
    record, _ = run
    file = tmp_path / "home" / "references" / record.artifacts.reference.file
    held = load_reference(file)
    save_reference(Reference(held.vectors.roll(1, 0) + 0.1, file), file)
    found = wrong(verify(record, from_seed=True))
    assert {
        "artifacts.reference",
        "reference weights",
        "populations.reference.mean",
        "judge.against_reference.generated.composition.residual",
    } <= set(found)
    file.unlink()
    with pytest.raises(BadRequest, match="is not there: run the record's command again"):
        verify(record)


def test_a_record_without_the_reference_that_it_should_have_is_caught(run):
    _, path = run
    changed(path, "artifacts.reference", None)
    data = json.loads(path.read_text())
    del data["populations"]["reference"]
    data["reference"] = None
    data["judge"] |= {"against_reference": {}, "resolution": None, "collapsed": None}
    data["judge"]["origin"]["nearest_l2_ratio"] = None
    path.write_text(json.dumps(data))
    found = verify(Record.read(path), from_seed=True)
    assert wrong(found) == ["reference weights"]


def test_a_wrong_hash_is_caught(run):
    _, path = run
    for name in ("zoo", "generated", "reference"):
        record = changed(path, f"artifacts.{name}.sha256", "0" * 64)
    assert wrong(verify(record)) == ["artifacts.zoo", "artifacts.generated", "artifacts.reference"]


def test_the_word_of_rule_1_is_computed_by_that_rule(run):
    _, path = run
    changed(path, "judge.rule", 1)
    word = rule1.of(Record.read(path))
    record = changed(path, "judge.word", "broken" if word != "broken" else "copies")
    (found,) = [check for check in verify(record) if check.problem]
    assert (found.field, found.problem.split()[-1]) == ("judge.word", word)


def test_weights_of_another_seed_are_caught_from_the_seed_alone(tmp_path, run):
    _, path = run
    record = changed(path, "protocol.seed", 1)
    assert "generated weights" in wrong(verify(record, from_seed=True))


def test_a_record_of_an_earlier_rule_is_verified_but_for_its_novelty(tmp_path, run):
    _, path = run
    changed(path, "judge.rule", None)
    record = changed(path, "judge.advantages.noise.mean", None)
    checks = verify(record)
    assert wrong(checks) == []
    assert "judge.advantages.noise.beyond" in {check.field for check in checks}
    assert tier(checks, from_seed=False) == "rescored"


def test_a_record_of_an_earlier_protocol_is_verified_by_that_one(tmp_path, run):
    asked = Request(
        task="fake", generator="gaussian", task_settings=SETTINGS, k=5, samples=4, results=tmp_path / "earlier",
        device="cpu",
    )  # fmt: skip
    earlier, _ = pipeline.Run(asked, protocol=1).execute()
    assert set(earlier.controls) < set(run[0].controls)
    assert wrong(verify(earlier, from_seed=True)) == []


def test_the_command_says_field_by_field_what_agrees(tmp_path, run, capsys):
    _, path = run
    capsys.readouterr()
    assert call("verify", path, "--device", "cpu") == 0
    out = capsys.readouterr().out
    assert "populations.generated: agrees" in out
    assert out.endswith("verified: rescored\n")
    assert Record.read(path).tier == "claimed"
    assert call("verify", path, "--device", "cpu", "--from-seed", "--mark") == 0
    assert Record.read(path).tier == "regenerated"


def test_the_command_names_what_differs_and_exits_with_1(tmp_path, run, capsys):
    _, path = run
    changed(path, "judge.origin.toward_mean", 0.125)
    before = path.read_bytes()
    capsys.readouterr()
    assert call("verify", path, "--device", "cpu", "--mark") == 1
    out = capsys.readouterr().out
    assert "judge.origin.toward_mean: the record says 0.125, computed again it is " in out
    assert out.endswith("not verified: the record does not agree with its weights\n")
    assert path.read_bytes() == before


def test_weights_that_are_not_there(tmp_path, run, capsys):
    record, path = run
    Path(tmp_path / "home" / "generated" / record.artifacts.generated.file).unlink()
    capsys.readouterr()
    assert call("verify", path) == 2
    err = capsys.readouterr().err
    assert "is not there: run the record's command again" in err


def test_a_side_file_is_computed_again(run):
    record, path = run
    file = path.with_suffix(".npz")
    checks = [check for check in verify(record, side_file=file) if "side" in check.field]
    assert {"artifacts.side", "side file.iou", "side file.right_mean.copy"} <= {
        check.field for check in checks
    }
    assert not wrong(checks)
    arrays = side.read(file)
    arrays["nearest.generated"] = arrays["nearest.generated"] / 2
    side.write(file, arrays)
    assert wrong(verify(record, side_file=file)) == [
        "artifacts.side",
        "side file.nearest.generated",
    ]


def test_a_missing_side_file_is_a_bad_request(run, capsys):
    _, path = run
    path.with_suffix(".npz").unlink()
    assert call("verify", path) == 2
    assert path.with_suffix(".npz").name in capsys.readouterr().err
