import json
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save_file

from bench import check, export, side
from bench.errors import BadRequest
from bench.pipeline import Run
from bench.record import Artifact, Record
from bench.request import Request
from bench.store import file_hash
from tasks import datasets
from tests.standins import call, image_data


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a finished run: its store and its record."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load", lambda name, data_dir=None: image_data(name))
        patch.setenv("BENCH_HOME", str(folder / "home"))
        settings = {"task.epochs": 1, "task.batch_size": 20}
        request = Request(
            task="digits", generator="gaussian", settings=settings, k=5, samples=4,
            results=folder / "results",
        )  # fmt: skip
        _, path = Run(request).execute()
    return folder, path


@pytest.fixture
def path(finished, tmp_path, monkeypatch):
    """A copy of the record and its side file; the store is where it was."""
    folder, original = finished
    monkeypatch.setenv("BENCH_HOME", str(folder / "home"))
    copy = tmp_path / original.parent.name / original.name
    copy.parent.mkdir()
    for suffix in (".json", ".npz"):
        copy.with_suffix(suffix).write_bytes(original.with_suffix(suffix).read_bytes())
    return copy


def changed(path, **fields):
    """Write other values at dotted names."""
    data = json.loads(path.read_text())
    for name, value in fields.items():
        *folders, last = name.split("__")
        inner = data
        for part in folders:
            inner = inner[part]
        assert last in inner
        inner[last] = value(inner[last]) if callable(value) else value
    path.write_text(json.dumps(data))


def with_arrays(path, change):
    """Write another side file, and name it in the record."""
    arrays = side.read(path.with_suffix(".npz"))
    change(arrays)
    side.write(path.with_suffix(".npz"), arrays)
    changed(path, artifacts__side__sha256=file_hash(path.with_suffix(".npz")))


def test_what_a_run_writes_is_all_right(path):
    assert check.check(path) == []
    assert check.files([path.parent.parent]) == [path]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"protocol__samples": 99}, "scores.generated has not one value for each sample"),
        ({"task__arch": "mlp3"}, "key is not that of its task"),
        ({"zoo__hash": "0" * 64}, "key is not that of its task"),
        ({"task__higher_is_better": False}, "expected worst <= median <= best"),
        ({"timing__sample_per_model_s": lambda v: 2 * v}, "sample_per_model_s is not sample_s"),
        ({"timing__speedup": lambda v: (v or 1) * 2}, "timing.speedup is not sgd_s over"),
        ({"timing__speedup_amortised": lambda v: (v or 1) * 2}, "speedup_amortised does not follow"),
        ({"timing__break_even_models": lambda v: (v or 5) + 1000}, "break_even_models does not"),
        ({"timing__target_score": lambda v: v / 2}, "target_score is not the worse"),
        ({"novelty__collapsed": lambda v: not v}, "collapsed does not follow"),
        ({"similarity__generated_generated": None, "novelty__collapsed": None}, "several alone"),
        ({"similarity__controls__copy__original_max": 0.5}, "copy"),
        ({"similarity__controls__average__original_max": 0.0}, "controls.average"),
        ({"similarity__controls": lambda v: {**v, "other": v["copy"]}}, "not the controls of"),
        ({"tests__best_original__p": lambda v: v / 2}, "p is not that of its wins"),
        ({"tests__average__wins": lambda v: v + 50}, "p is not that of its wins"),
        ({"id": "0" * 16}, "the file should be named 0000"),
        ({"artifacts__side__sha256": "0" * 64}, "is not the side file that it names"),
        ({"scores__original__best": 2.0}, "scores.original"),
    ],
)  # fmt: skip
def test_a_number_that_does_not_follow_is_named(path, fields, problem):
    changed(path, **fields)
    problems = check.check(path)
    assert any(problem in found for found in problems), problems


def test_an_accuracy_above_one_is_named(path):
    data = json.loads(path.read_text())
    for part in ("best", "selected", "mean", "median", "worst", "low", "high"):
        data["scores"]["average"][part] = 1.5
    data["scores"]["average"]["values"] = [1.5]
    path.write_text(json.dumps(data))
    assert any("not between 0 and 1" in problem for problem in check.check(path))


def scale(name, factor):
    def change(arrays):
        arrays[name] = (arrays[name] * factor).astype(arrays[name].dtype)

    return change


def put(name, array):
    return lambda arrays: arrays.__setitem__(name, array)


def lean(arrays):
    arrays["iou"][0, 1] = 0.123


def diagonal(arrays):
    np.fill_diagonal(arrays["iou"], 0.5)


def all_right(arrays):
    arrays["right_selected.generated"][:] = 255


def cut(arrays):
    arrays["right_best.copy"] = arrays["right_best.copy"][:-1]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lean, "iou is not symmetric"),
        (diagonal, "with itself is not 1"),
        (scale("iou", 1.5), "iou is not between"),
        (scale("nearest.generated", 0.5), "the mean of nearest.generated"),
        (scale("right_mean.gaussian", 0.5), "right_mean.gaussian is not the record's mean"),
        (all_right, "right_selected.generated is not the record's selected"),
        (cut, "right_best.copy has not"),
        (put("train.copy", np.ones(3, np.float32)), "train.copy has 3 models, expected 4"),
        (put("train.noise 7", np.ones(3, np.float32)), "a population that the record has not"),
        (put("units", np.array([5, 3], np.int32)), "5 of 3 units"),
        (put("units", np.array([5], np.int32)), "without their numbers of units"),
    ],
)
def test_a_side_file_that_does_not_follow_is_named(path, change, problem):
    with_arrays(path, change)
    problems = check.check(path)
    assert any(problem in found for found in problems), problems


def test_a_missing_side_file_and_one_without_a_record_are_named(path):
    path.with_suffix(".npz").rename(path.with_name("other.npz"))
    assert any("is missing" in problem for problem in check.check(path))
    assert path.with_name("other.npz") in check.files([path.parent])
    assert check.check(path.with_name("other.npz")) == ["a side file without its record beside it"]


def test_an_older_record_without_a_side_file_is_all_right(path):
    changed(path, artifacts__side=None)
    assert check.check(path) == []


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"schema": NaN}', "null", "\udc80"])
def test_what_is_no_record_is_one_line(path, text):
    path.write_bytes(text.encode(errors="surrogateescape"))
    (problem,) = check.check(path)
    assert "not a valid record" in problem
    assert "\n" not in problem


# Zips ------------------------------------------------------------------------------------------


def test_an_export_is_all_right_and_the_same_each_time(path, tmp_path):
    first = export.export(path, tmp_path / "a.zip")
    second = export.export(path, tmp_path / "b.zip")
    assert first.read_bytes() == second.read_bytes()
    assert check.check(first) == []
    with zipfile.ZipFile(first) as archive:
        assert archive.namelist() == [export.RECORD, export.SIDE, export.WEIGHTS]
        assert archive.read(export.RECORD) == path.read_bytes()
    small = export.export(path, tmp_path / "c.zip", weights=False)
    assert check.check(small) == []
    assert small.stat().st_size < first.stat().st_size


def test_an_export_of_what_is_missing_or_another_file_is_refused(path, tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "empty"))
    with pytest.raises(BadRequest, match="--no-weights"):
        export.export(path, tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()
    path.with_suffix(".npz").write_bytes(b"x")
    with pytest.raises(BadRequest, match="not the file that the record names"):
        export.export(path, tmp_path / "a.zip", weights=False)


def packed(tmp_path, **members):
    file = tmp_path / "sent.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "."), data)
    return file


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a\x1b[31m", "record.json/x"])
def test_other_members_are_refused_unread(path, tmp_path, name):
    file = tmp_path / "sent.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("record.json", path.read_bytes())
        archive.writestr(name, "x")
    (problem,) = check.check(file)
    assert "alone" in problem
    assert problem.isprintable()


def test_a_zip_bomb_is_refused_unread(tmp_path):
    (problem,) = check.check(packed(tmp_path, record__json=b" " * (check.RECORD_LIMIT + 1)))
    assert "expected at most" in problem


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_that_are_missing_or_there_twice_are_named(path, tmp_path):
    assert check.check(packed(tmp_path, side__npz=b"x")) == ["it has no record.json"]
    file = tmp_path / "twice.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("record.json", path.read_bytes())
        archive.writestr("record.json", path.read_bytes())
    assert check.check(file) == ["it has a file twice"]


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"x" * 100])
def test_what_is_no_zip_is_named(tmp_path, data):
    file = tmp_path / "a.zip"
    file.write_bytes(data)
    assert "not a readable zip" in check.check(file)[0]


def weights_of(path, tensors, tmp_path):
    """A zip whose record names these weights."""
    file = tmp_path / "w.safetensors"
    save_file(tensors, file)
    record = Record.read(path)
    named = Artifact(file=file.name, sha256=file_hash(file))
    artifacts = record.artifacts.model_copy(update={"generated": named, "side": None})
    text = record.model_copy(update={"artifacts": artifacts}).to_json()
    return packed(tmp_path, record__json=text, generated__safetensors=file.read_bytes())


def test_weights_must_be_the_records_finite_matrix(path, tmp_path):
    record = Record.read(path)
    good = np.ones((4, record.zoo.d), np.float32)
    assert check.check(weights_of(path, {"vectors": good}, tmp_path)) == []
    for tensors, problem in (
        ({"vectors": good[:2]}, "expected (4, "),
        ({"vectors": good.astype(np.float64)}, "float32"),
        ({"vectors": good * np.nan}, "not finite"),
        ({"other": good}, "not readable"),
    ):
        (found,) = check.check(weights_of(path, tensors, tmp_path))
        assert problem in found


def test_weights_that_are_not_the_named_ones_are_refused(path, tmp_path):
    file = packed(
        tmp_path,
        record__json=path.read_bytes(),
        side__npz=path.with_suffix(".npz").read_bytes(),
        generated__safetensors=b"x",
    )
    assert check.check(file) == ["generated.safetensors is not the file that the record names"]


# The commands ----------------------------------------------------------------------------------


def test_the_command_says_ok_or_what_is_wrong(path, tmp_path, capsys):
    assert call("check", path) == 0
    assert capsys.readouterr().out.splitlines() == [f"{path}: ok", "1 files, all ok"]
    changed(path, timing__target_score=0.0, novelty__collapsed=lambda v: not v)
    assert call("check", path.parent) == 1
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 3
    assert out[-1] == "1 files, 1 with problems"


def test_a_bad_request_is_exit_code_2(tmp_path, capsys):
    assert call("check", tmp_path / "nowhere") == 2
    assert "is not there" in capsys.readouterr().err
    assert call("check", tmp_path) == 2
    assert "nothing to check" in capsys.readouterr().err


def test_export_and_check_through_the_command_line(path, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("export", path) == 0
    assert call("check", f"{path.stem}.zip") == 0
    assert call("export", path, "--output", "small.zip", "--no-weights") == 0
    assert call("check", "small.zip") == 0
    assert "small.zip: ok" in capsys.readouterr().out
