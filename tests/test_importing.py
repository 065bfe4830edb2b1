import collections
import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from bench.contract.whole_runs import held_rows, told, usual_count
from bench.contract.zoo import Zoo
from bench.contract.zoo_header import read_header
from bench.errors import BadRequest
from bench.runs.importing import import_zoo, labels, read_weights


def state(seed):
    """Two tensors that vary with the seed, and three that do not."""
    rng = torch.Generator().manual_seed(seed)
    return {
        "stem.weight": torch.ones(3, 2),
        "norm.weight": torch.randn(4, generator=rng),
        "norm.running_mean": torch.zeros(4),
        "norm.num_batches_tracked": torch.tensor(5),
        "head.scale": torch.randn((), generator=rng),
    }


def save(tensors, path):
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return path


@pytest.fixture(params=[".pth", ".pt", ".safetensors"])
def files(request, tmp_path):
    """Three checkpoints in a folder, written in another order than that of their names."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    paths = [folder / f"{name}{request.param}" for name in ("a", "b", "c")]
    for seed in (2, 0, 1):
        save(state(seed), paths[seed])
    return paths


def one_line(caught):
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


def refused(paths, *expected, base=None):
    with pytest.raises(BadRequest) as caught:
        import_zoo(paths, base)
    message = one_line(caught)
    for text in expected:
        assert text in message


# What becomes what ---------------------------------------------------------------------------------------------------


def test_state_dicts_become_a_zoo(files):
    zoo = import_zoo(files)
    assert zoo.vectors.shape == (3, 5)
    assert set(zoo.layout.names) == {"norm.weight", "head.scale"}
    for seed in range(3):
        row = {name: tensor[seed] for name, tensor in zoo.layout.unflatten(zoo.vectors).items()}
        assert torch.equal(row["norm.weight"], state(seed)["norm.weight"])
        assert torch.equal(row["head.scale"], state(seed)["head.scale"])


def test_what_is_equal_in_all_is_the_base(files):
    zoo = import_zoo(files)
    assert set(zoo.base) == {"stem.weight", "norm.running_mean", "norm.num_batches_tracked"}
    assert all(torch.equal(tensor, state(0)[name]) for name, tensor in zoo.base.items())


def test_a_folder_is_read_in_the_order_of_the_names(files):
    (files[0].parent / "notes.txt").write_text("not a checkpoint")
    from_folder, from_files = import_zoo([files[0].parent]), import_zoo(files)
    assert from_folder.hash == from_files.hash
    assert from_folder.settings == {"imported": [path.name for path in files]}


def test_files_are_read_in_the_order_of_their_names(files):
    assert import_zoo(files[::-1]).hash == import_zoo(files).hash


def test_counters_that_differ_are_no_parameters(tmp_path):
    paths = []
    for seed in range(2):
        tensors = state(seed) | {"norm.num_batches_tracked": torch.tensor(seed)}
        paths.append(save(tensors, tmp_path / f"{seed}.pth"))
    zoo = import_zoo(paths)
    assert "norm.num_batches_tracked" not in zoo.layout.names
    assert "norm.num_batches_tracked" in zoo.base


def test_a_single_file_gives_one_checkpoint_of_everything(files):
    zoo = import_zoo(files[:1])
    assert len(zoo) == 1
    assert set(zoo.layout.names) == {"stem.weight", "norm.weight", "head.scale"}


def test_equal_files_are_checkpoints_of_everything(files):
    zoo = import_zoo([files[0], files[0]])
    assert len(zoo) == 2
    assert set(zoo.layout.names) == {"stem.weight", "norm.weight", "head.scale"}


def test_base_adds_what_the_checkpoints_do_not_have(files, tmp_path):
    base = {"body.weight": torch.full((2, 2), 3.0), "norm.weight": torch.zeros(4)}
    zoo = import_zoo(files, save(base, tmp_path / "base.pth"))
    assert torch.equal(zoo.base["body.weight"], base["body.weight"])
    assert "norm.weight" not in zoo.base
    assert "stem.weight" in zoo.base


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_floating_point_type_becomes_float32(tmp_path, dtype):
    paths = [
        save({"w": torch.arange(3).to(dtype) + seed}, tmp_path / f"{seed}.safetensors")
        for seed in range(2)
    ]
    zoo = import_zoo(paths)
    assert zoo.vectors.dtype == torch.float32
    assert zoo.vectors.tolist() == [[0, 1, 2], [1, 2, 3]]


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_a_state_dict_inside_a_training_checkpoint(tmp_path, key):
    torch.save({key: state(0), "epoch": 3}, tmp_path / "checkpoint.pth")
    assert set(read_weights(tmp_path / "checkpoint.pth")) == set(state(0))


def test_parameters_and_ordered_dicts_are_plain_weights(tmp_path):
    module = torch.nn.Linear(2, 3)
    torch.save(module.state_dict(), tmp_path / "module.pth")
    torch.save(collections.OrderedDict(w=torch.nn.Parameter(torch.ones(2))), tmp_path / "p.pth")
    assert set(read_weights(tmp_path / "module.pth")) == {"weight", "bias"}
    assert import_zoo([tmp_path / "p.pth"]).vectors.tolist() == [[1, 1]]


# What cannot be used -------------------------------------------------------------------------------------------------


def test_no_files(tmp_path):
    refused([], "checkpoints")
    refused([tmp_path], "checkpoints")


@pytest.mark.parametrize("name", ["none.pth", "none.safetensors", "none"])
def test_missing_file(tmp_path, name):
    refused([tmp_path / name], str(tmp_path / name))


def test_missing_base(files, tmp_path):
    refused(files, "base.pth", base=tmp_path / "base.pth")


def test_different_tensors(files):
    other = state(5)
    del other["head.scale"]
    save(other, files[2])
    refused(files, files[2].name, "'head.scale'")
    save(state(5) | {"extra": torch.zeros(1)}, files[2])
    refused(files, files[2].name, "'extra'")


def test_different_shapes(files):
    save(state(5) | {"norm.weight": torch.zeros(5)}, files[1])
    refused(files, files[1].name, "'norm.weight'", "(5,)", "(4,)")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite(files, bad):
    save(state(5) | {"head.scale": torch.tensor(bad)}, files[1])
    refused(files, "checkpoint 1")


@pytest.mark.parametrize("tensors", [{}, {"steps": torch.tensor(3)}])
def test_no_floating_point_tensors(tmp_path, tensors):
    for suffix in (".pth", ".safetensors"):
        refused([save(tensors, tmp_path / f"weights{suffix}")], "weights")


@pytest.mark.parametrize("content", [[torch.zeros(2)], {"a": 1.0}, {3: torch.zeros(2)}, 7, "text"])
def test_not_names_and_tensors(tmp_path, content):
    torch.save(content, tmp_path / "weights.pth")
    refused([tmp_path / "weights.pth"], "weights.pth", "state dict")


@pytest.mark.parametrize("keep", [0, 1, 20, 100, -1])
def test_truncated(files, keep):
    content = files[1].read_bytes()
    files[1].write_bytes(content[:keep])
    refused(files, str(files[1]))


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"text", b"\x80\x02}", bytes(range(256)), b"PK\x03\x04"])
def test_something_else(tmp_path, suffix, content):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    refused([path], str(path))


def test_pickled_arrays_are_refused(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(
        pickle.dumps({"weight": [1.0, 2.0], "thing": collections.Counter("ab")}, protocol=2)
    )
    refused([path], str(path))


# A pickle is a program -----------------------------------------------------------------------------------------------


class Attack:
    """Unpickling this would make a folder."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def _plain_pickle(content, path):
    path.write_bytes(pickle.dumps(content, protocol=2))


def _old_format(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


def _replaced_in_zip(content, path):
    """An honest checkpoint whose pickle was replaced."""
    honest = path.with_suffix(".honest")
    torch.save({"weight": torch.zeros(2)}, honest)
    with zipfile.ZipFile(honest) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            own = name.endswith("data.pkl")
            target.writestr(name, pickle.dumps(content, protocol=2) if own else source.read(name))


@pytest.mark.parametrize("write", [torch.save, _plain_pickle, _old_format, _replaced_in_zip])
@pytest.mark.parametrize("wrap", [lambda a: a, lambda a: {"weight": torch.zeros(2), "x": a}])
def test_code_in_a_checkpoint_does_not_run(tmp_path, write, wrap):
    marker, path = tmp_path / "marker", tmp_path / "weights.pth"
    write(wrap(Attack(marker)), path)
    refused([path], str(path))
    assert not marker.exists()


def test_the_attack_would_work(tmp_path):
    """Otherwise the test above could not fail."""
    write_to, marker = tmp_path / "weights.pth", tmp_path / "marker"
    torch.save(Attack(marker), write_to)
    torch.load(write_to, weights_only=False)
    assert marker.exists()


# Which run a checkpoint comes from -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("runs", "names", "expected"),
    [
        ("file", ["seed0.pt", "seed1.pt"], ["seed0.pt", "seed1.pt"]),
        ("folder", ["zoo/a/1.pth", "zoo/a/2.pth", "zoo/b/1.pth"], ["a", "a", "b"]),
        ("folder", ["zoo/x/a/1.pth", "zoo/y/a/1.pth"], ["x/a", "y/a"]),
        ("folder", ["zoo/1.pth", "zoo/2.pth"], ["zoo", "zoo"]),
        (r"seed(\d+)", ["0012_acc0.95_seed0020_tag.pth", "0013_acc0.95_seed0021_tag.pth"], ["0020", "0021"]),
        (r"seed\d+", ["seed1.pth", "seed22.pth"], ["seed1", "seed22"]),
        (r"([^/]+)/checkpoint_", ["zoo/NN_1/checkpoint_000050/checkpoints"], ["NN_1"]),
    ],
)  # fmt: skip
def test_the_runs_of_files(runs, names, expected, tmp_path):
    assert labels([Path(name) for name in names], runs) == tuple(expected)
    # Where the files lie does not matter, unless an expression asks for it.
    assert labels([tmp_path / name for name in names], runs) == tuple(expected)


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ("seed(", "neither file, folder nor a regular expression"),
        ("(a)(b)", "has 2 groups, expected one"),
        ("seed([0-9]+)", "finds no run in this path"),
        ("x*", "finds no run in this path"),
    ],
)
def test_runs_that_cannot_be_told(files, runs, message):
    with pytest.raises(BadRequest) as caught:
        import_zoo(files, runs=runs)
    assert message in one_line(caught)


def test_a_zoo_keeps_its_runs_in_its_file(files, tmp_path):
    zoo, plain = import_zoo(files, runs="file"), import_zoo(files)
    assert zoo.runs == tuple(path.name for path in files)
    assert zoo.hash == plain.hash
    assert zoo.head(2).runs == zoo.copy().runs[:2] == zoo.runs[:2]
    for one in (zoo, plain):
        one.save(tmp_path / "my.zoo")
        assert Zoo.load(tmp_path / "my.zoo").runs == one.runs
        assert read_header(tmp_path / "my.zoo").runs == one.runs


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (["a", "b"], "the runs of 2 checkpoints are told, the zoo has 3"),
        (["a", "b", 3], "a run is named '3', expected 1 to 300 printable characters"),
        (["a", "b", ""], "a run is named '', expected"),
        (["a", "b", "x\n"], "printable characters"),
        (["a", "b", "\udc80"], "is not a readable zoo"),
        (["a", "b", "x" * 301], "printable characters"),
        ("abc", "is not a readable zoo"),
        ({"a": 1}, "is not a readable zoo"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("read", [read_header, Zoo.load])
def test_runs_in_a_file_are_checked(files, tmp_path, runs, message, read):
    path = tmp_path / "my.zoo"
    import_zoo(files).save(path)
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()["zoo"])
    save_file(tensors, path, {"zoo": json.dumps({**facts, "runs": runs})})
    with pytest.raises(BadRequest) as caught:
        read(path)
    assert message in one_line(caught)
    assert str(path) in one_line(caught)


def meta():
    return torch.ones(3, device="meta")


def in_old_format(tensors, path):
    torch.save(tensors, path, _use_new_zipfile_serialization=False)


def compressed(tensors, path):
    torch.save(tensors, path)
    with zipfile.ZipFile(path) as archive:
        members = {entry: archive.read(entry) for entry in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


ODD = {
    "sparse": lambda: torch.eye(3).to_sparse(),
    "csr": lambda: torch.eye(3).to_sparse_csr(),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "quantized": lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
    "float8": lambda: torch.ones(3).to(torch.float8_e4m3fn),
    "complex64": lambda: torch.ones(3, dtype=torch.complex64),
    "meta": meta,
    "meta of any size": lambda: torch.ones(1, device="meta").expand(10**12),
    "expanded": lambda: torch.ones(1).expand(10**12),
    "strided": lambda: torch.as_strided(torch.ones(9), (9, 10**9), (1, 0)),
}


@pytest.mark.filterwarnings("ignore")  # torch calls some of these kinds experimental
@pytest.mark.parametrize("write", [torch.save, in_old_format])
def test_tensors_that_are_not_dense_values_of_the_file_are_refused(tmp_path, write):
    for name, make in ODD.items():
        path = tmp_path / f"{name}.pth"
        write({"weight": torch.ones(2), "odd": make()}, path)
        refused([path], name)
        refused([path, path], name)


@pytest.mark.parametrize("write", [torch.save, in_old_format])
def test_one_memory_under_many_names_is_refused_and_tied_weights_are_not(tmp_path, write):
    shared = torch.rand(100_000)
    write({"a": shared, "b": shared}, tmp_path / "tied.pth")
    assert import_zoo([tmp_path / "tied.pth"]).layout.dim == 200_000
    write({str(number): shared for number in range(50)}, tmp_path / "many.pth")
    refused([tmp_path / "many.pth"], "its tensors would take 20,000,000")


def test_a_file_that_unpacks_to_more_than_it_holds_is_refused(tmp_path):
    compressed({"weight": torch.zeros(1_000_000)}, tmp_path / "bomb.pth")
    refused([tmp_path / "bomb.pth"], "unpacks to")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_that_are_no_regular_file_are_refused(tmp_path, suffix):
    os.mkfifo(tmp_path / f"pipe{suffix}")
    (tmp_path / f"loop{suffix}").symlink_to(f"loop{suffix}")
    (tmp_path / f"zero{suffix}").symlink_to("/dev/zero")
    for name in ("pipe", "loop", "zero"):
        refused([tmp_path / f"{name}{suffix}"], name)


# Which runs are held out ---------------------------------------------------------------------------------------------

RUNS = [f"run{number // 10}" for number in range(200)]  # twenty runs of ten rows


@pytest.mark.parametrize("count", [1, 10, 11, 95, 100, 190])
def test_whole_runs_are_held_out(count):
    rows = held_rows(RUNS, count)
    held, left = ({RUNS[row] for row in group} for group in (rows, set(range(200)) - set(rows)))
    assert not held & left
    assert len(rows) == -(-count // 10) * 10
    assert held_rows(RUNS, len(rows)) == rows
    # Fewer rows are of the same runs, and the order of rows does not matter.
    assert set(held_rows(RUNS, 1)) <= set(rows)
    assert {RUNS[::-1][row] for row in held_rows(RUNS[::-1], count)} == held


def test_which_runs_are_held_out_is_drawn():
    first = [RUNS[held_rows(RUNS, 1)[0]]]
    others = [f"another {label}" for label in RUNS]
    assert first != ["run0"] or others[held_rows(others, 1)[0]] != "another run0"


@pytest.mark.parametrize("count", [191, 200, 10**6])
def test_at_least_one_run_stays(count):
    with pytest.raises(BadRequest, match="at least one has to stay: lower --held-out"):
        held_rows(RUNS, count)


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        (RUNS, 100),
        (RUNS * 5, 100),
        (RUNS[:100], 50),
        (["a"] * 120 + ["b"] * 80, 80),  # most rows are of one run, which stays
        (["a"] * 100 + ["b"] * 100, 100),
        (["a", "b"], 1),
        (["a", "b", "c"], 1),
    ],
)
def test_half_of_the_rows_stay_where_nobody_says(runs, expected):
    usual = usual_count(runs, 100)
    assert usual == expected
    assert len(held_rows(runs, usual)) == usual


@pytest.mark.parametrize(
    ("runs", "settings", "expected"),
    [
        (("a", "b"), {}, ("a", "b")),
        (("a", "a"), {}, ()),
        ((), {}, ()),
        (("a", "b"), {"track": "seeds"}, ()),
    ],
)
def test_rows_are_held_out_by_run_where_there_are_several_and_no_reference_can_be_trained(
    runs, settings, expected
):
    assert told(runs, settings) == expected
