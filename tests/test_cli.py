import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bench.records.record import Record
from tests.standins import call

SMALL = ["--task", "fake", "--k", "4", "--samples", "3", "--set", "task.epochs=1"]
RUN = ["run", *SMALL, "--generator", "gaussian"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store that these tests share, but for those that ask what is not yet in it."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(autouse=True)
def _standins(monkeypatch, tmp_path, store):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_HOME", str(store))


@pytest.fixture
def _empty_store(_standins, monkeypatch, tmp_path):
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "home"))


def error_of(capsys, *arguments: str) -> tuple[int, str]:
    """Exit code and standard error, which is one line of error and no traceback."""
    capsys.readouterr()
    code = call(*arguments)
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert out == ""
    assert "Traceback" not in err
    assert len(lines) == 1, err
    return code, lines[0]


@pytest.mark.usefixtures("_empty_store")
def test_run_ends_with_a_table_that_has_everything(capsys, tmp_path):
    assert call(*RUN) == 0
    out, err = capsys.readouterr()
    for word in ("original", "average", "greedy_soup", "copy", "interpolation", "finetune", "noise 0.1",
                 "gaussian", "best", "selected", "mean", "median", "worst", "generated - generated",
                 "fit", "sample", "SGD", "record", "python -m bench leaderboard"):  # fmt: skip
        assert word in out, word
    path = Path(re.search(r"record\s+(\S+)", out)[1])
    assert Record.read(path).generator.name == "gaussian"
    assert "collect 4 checkpoints" in err


def test_profile_shows_where_the_time_went_and_leaves_the_record_alone(capsys, monkeypatch):
    monkeypatch.setattr("bench.system.profile.WINDOW", 0.1)
    assert call(*RUN, "--json") == 0
    plain = json.loads(capsys.readouterr().out)
    assert call(*RUN, "--json", "--profile", "--force") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["populations"] == plain["populations"]
    for stage in ("collect", "fit and sample", "score", "controls", "compare"):
        assert stage in err
        assert Path("results", "profile", f"{stage.replace(' ', '-')}.json.gz").exists()


def test_json_is_the_record_and_alone_on_standard_output(capsys):
    assert call(*RUN, "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["schema"] == 2
    assert Record.model_validate_json(json.dumps(record)).task.name == "fake"


def test_several_k_make_records_of_nested_zoos(capsys):
    assert call(*RUN, "--k", "2,4", "--json") == 0
    found = sorted(
        (Record.read(path) for path in Path("results").rglob("*.json")), key=lambda r: r.zoo.k
    )
    assert [record.zoo.k for record in found] == [2, 4]
    assert found[0].artifacts.zoo == found[1].artifacts.zoo
    assert found[0].key != found[1].key
    assert capsys.readouterr().out.count('"schema": 2') == 2
    assert "--k 2 " in found[0].command
    assert (
        call(*RUN, "--k", "2", "--results", "alone") == 0
    )  # the recorded command gives the same record
    alone = Record.read(next(Path("alone").rglob("*.json")))
    assert (alone.id, alone.populations) == (found[0].id, found[0].populations)


def test_good_models_are_compared_beside_all(capsys):
    assert call(*RUN, "--min-score", "0") == 0
    record = Record.read(next(Path("results").rglob("*.json")))
    good, all_ = record.judge.good, record.generated.similarity
    assert (good.originals, good.generated) == (4, 3)
    assert good.original_generated == pytest.approx(all_.originals.value)
    assert good.original_generated_max == pytest.approx(all_.nearest.value)
    assert "--min-score 0.0" in record.command
    assert call(*RUN, "--min-score", "1") == 0
    good = Record.read(next(Path("results").rglob("*.json"))).judge.good
    assert (good.originals, good.generated, good.original_generated) == (0, 0, None)


def test_align_is_recorded_and_another_run(capsys):
    whole = ["--track", "seeds", "--layers", "all"]
    assert call(*RUN, *whole) == call(*RUN, *whole, "--align") == 0
    found = {r.generator.aligned: r for r in map(Record.read, Path("results").rglob("*.json"))}
    assert set(found) == {False, True}
    assert found[True].key == found[False].key
    assert found[True].controls == found[False].controls
    assert found[True].generated != found[False].generated
    assert "--align" in found[True].command


def test_show_prints_the_same_table_and_a_picture(capsys, tmp_path):
    call(*RUN)
    printed = capsys.readouterr().out
    path = next(Path("results").rglob("*.json"))
    assert call("show", path) == 0
    assert capsys.readouterr().out == printed
    assert call("show", path, "--svg", "report.svg") == 0
    assert Path("report.svg").read_text().startswith("<svg")


def test_collect_writes_a_zoo_that_run_takes(capsys):
    assert (
        call("collect", "--task", "fake", "--k", "4", "--set", "task.epochs=1", "--output", "z")
        == 0
    )
    assert "4 checkpoints of 128 parameters" in capsys.readouterr().out
    assert call(*RUN, "--zoo", "z") == 0


def test_import_makes_a_zoo(capsys):
    for index in range(3):
        save_file({"w": torch.randn(4), "fixed": torch.ones(2)}, f"{index}.safetensors")
    files = [f"{index}.safetensors" for index in range(3)]
    assert call("zoo", "import", *files, "--output", "mine.zoo") == 0
    assert (
        "3 checkpoints of 4 parameters in 1 tensors, 1 tensors of the base"
        in capsys.readouterr().out
    )


def test_list_names_everything(capsys):
    assert call("list") == 0
    out = capsys.readouterr().out
    for word in ("cifar100", "imagenet", "convnext_base", "mlp3", "pdiff", "vae", "amplitude=0.1"):
        assert word in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--task", "digit"], 2, "unknown task 'digit': did you mean 'digits'?"),
        (["--generator", "pdif"], 2, "unknown generator 'pdif': did you mean 'pdiff'?"),
        (["--generator", "no_such_module:X"], 2, "cannot import 'no_such_module'"),
        (["--layers", "last-norm:2"], 2, "layers 'last-norm:2' match no parameter: expected last-norms:N"),
        (["--arch", "resnet81"], 2, "unknown architecture 'resnet81': did you mean 'resnet18'?"),
        (["--track", "seed"], 2, "unknown track 'seed': did you mean 'seeds'?"),
        (["--preset", "fast"], 2, "unknown preset 'fast': expected quick or paper"),
        (["--set", "sigma=1"], 2, "unknown hyperparameter of gaussian 'sigma'"),
        (["--generator", "noise", "--set", "amplitud=1"], 2, "did you mean 'amplitude'?"),
        (["--generator", "noise", "--set", "amplitude=much"], 2, "hyperparameter of noise amplitude=much"),
        (["--generator", "noise", "--set", "amplitude=-1"], 2, "amplitude is -1"),
        (["--set", "amplitude"], 2, "--set amplitude: expected name=value"),
        (["--set", "task.epoch=1"], 2, "unknown task setting 'epoch': did you mean 'epochs'?"),
        (["--set", "task.epochs=0"], 2, "epochs is 0, expected a number above 0"),
        (["--set", "task.epochs=[1]"], 2, "task setting epochs=[1]"),
        (["--k", "4,x"], 2, "--k 4,x: expected a number, or several with commas"),
        (["--align"], 2, "aligned in whole networks only"),
        (["--k", "0"], 2, "k is 0, expected at least 1"),
        (["--k", "-3"], 2, "k is -3, expected at least 1"),
        (["--samples", "0"], 2, "samples is 0, expected at least 1"),
        (["--samples", "-1"], 2, "samples is -1, expected at least 1"),
        (["--device", "tpu"], 2, "unknown device 'tpu'"),
        (["--device", "meta"], 2, "device 'meta' is not supported"),
        (["--set", "task.lr=Infinity"], 2, "lr is inf, expected a number above 0, and a finite one"),
        (["--min-score", "90"], 2, "--min-score is 90, accuracy is between 0 and 1: 0.9 for 90 %"),
        (["--min-score", "1.01"], 2, "accuracy is between 0 and 1: 0.0101 for 1.01 %"),
        (["--min-score", "-0.1"], 2, "--min-score is -0.1, accuracy is between 0 and 1"),
        (["--min-score", "nan"], 2, "min_score is nan, expected a finite number"),
        (["--data-dir", "mine"], 2, "the data of 'fake' come with the suite"),
        (["--seed", "9007199254740993"], 2, "seed is 9007199254740993, expected at most 2^53"),
        (["--layers", "a" * 301], 2, "layers has 301 characters, expected at most 300"),
        (["--set", f"x={'a' * 4010}"], 2, "the command has 4,1"),
        (["--set", "a b=1"], 2, "a setting is named 'a b'"),
        (["--set", "x=\udcff"], 2, "x is '\\udcff', expected a number, a text"),
        (["--zoo", "none.zoo"], 2, "no zoo at none.zoo: make one with"),
        (["--results", "/dev/null/results"], 2, "cannot write to /dev/null/results"),
    ],
)  # fmt: skip
def test_a_bad_request_is_one_line_and_exit_code_2(capsys, arguments, code, message):
    got, line = error_of(capsys, *RUN, *arguments)
    assert got == code
    assert message in line


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_where_there_is_none(capsys):
    code, line = error_of(capsys, *RUN, "--device", "cuda")
    assert code == 2
    assert "device 'cuda' is not there (0 CUDA devices seen): choose --device cpu" in line


@pytest.mark.parametrize("damage", ["nan", "truncated", "shapes"])
def test_a_bad_zoo_is_refused_before_work_is_done(capsys, damage):
    path = Path("bad.zoo")
    call("collect", "--task", "fake", "--k", "2", "--set", "task.epochs=1", "--output", str(path))
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        tensors, facts = {n: file.get_tensor(n) for n in file.keys()}, file.metadata()  # noqa: SIM118
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        vectors = tensors["vectors"].clone()
        tensors["vectors"] = (
            vectors[:, :-1].contiguous() if damage == "shapes" else vectors * torch.nan
        )
        save_file(tensors, path, facts)
    code, line = error_of(capsys, *RUN, "--zoo", str(path))
    assert code == 2
    assert "bad.zoo" in line


def test_a_pickle_that_runs_code_does_not_run(capsys):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (Path("ran"),))

    Path("evil.pth").write_bytes(pickle.dumps({"w": Evil()}))
    code, line = error_of(capsys, "zoo", "import", "evil.pth", "--output", "out.zoo")
    assert code == 2
    assert "evil.pth cannot be read as plain weights" in line
    assert not Path("ran").exists()
    assert not Path("out.zoo").exists()


def test_a_corrupt_record(capsys):
    call(*RUN)
    path = next(Path("results").rglob("*.json"))
    path.write_text(path.read_text().replace('"schema": 2', '"schema": 3'))
    code, line = error_of(capsys, "show", str(path))
    assert code == 2
    assert "schema" in line
    path.write_text("{")
    assert error_of(capsys, "show", str(path))[0] == 2


@pytest.mark.usefixtures("_empty_store")
def test_a_full_disk_costs_no_finished_stage(capsys, monkeypatch):
    import errno

    from bench.runs import checkpoints

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("bench.runs.stages.save_file", full)
        code, line = error_of(capsys, *RUN)
    assert code == 1
    assert "the disk is full" in line
    monkeypatch.setattr(checkpoints, "say", print)
    assert call(*RUN) == 0
    assert "collect 4 checkpoints" not in capsys.readouterr().out  # the zoo was kept


def test_debug_shows_the_traceback(capsys):
    with pytest.raises(Exception, match="unknown task"):
        call(*RUN, "--task", "digit", "--debug")


def test_progress_is_silent_where_standard_error_is_no_terminal():
    code = "from bench.system.progress import track; import time; [time.sleep(0.6) for _ in track(range(3), 'x')]"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1]
    )
    assert done.returncode == 0
    assert done.stdout == done.stderr == ""
