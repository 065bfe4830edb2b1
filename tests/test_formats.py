"""Checkpoints in the layouts that other programs write, built here from random weights of a tiny network."""

import argparse
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bench.contract.zoo import Zoo
from bench.errors import BadRequest
from bench.formats import choice, find
from bench.formats.checkpoint import Checkpoint
from bench.runs.importing import Choice, import_zoo
from bench.system.weights import read_weights


def network(seed):
    """A network with batch normalization whose parameters and statistics follow from the seed; in eval mode."""
    rng = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=rng)
        model[1].running_mean.normal_(generator=rng)
        model[1].running_var.uniform_(0.5, 2, generator=rng)
        model[1].num_batches_tracked.fill_(seed + 1)
    return model


def state(seed):
    return network(seed).state_dict()


def plain(seed):
    """A state dict without normalization."""
    rng = torch.Generator().manual_seed(seed)
    return {"a.weight": torch.randn(2, 3, generator=rng), "a.bias": torch.randn(2, generator=rng)}


def write(content, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    return path


def rows(zoo: Zoo):
    return [zoo.layout.unflatten(row) for row in zoo.vectors]


def assert_holds(zoo, seeds):
    """Check that the zoo's rows are the plain state dicts of these seeds."""
    assert len(zoo) == len(seeds)
    for row, seed in zip(rows(zoo), seeds, strict=True):
        assert all(torch.equal(row[name], tensor) for name, tensor in plain(seed).items())


def message(call, *args, **named):
    with pytest.raises(BadRequest) as caught:
        call(*args, **named)
    text = str(caught.value)
    assert text.isprintable()
    return text


# Normalization -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module.", "model."])
def test_statistics_that_differ_are_folded_and_prefixes_go(tmp_path, prefix, capsys):
    for seed in range(3):
        write({prefix + n: t for n, t in state(seed).items()}, tmp_path / f"{seed}.pth")
    zoo = import_zoo([tmp_path])
    assert set(zoo.layout.names) == {n for n, _ in network(0).named_parameters()}
    assert "1 normalization layers" in capsys.readouterr().err
    x = torch.randn(5, 3)
    for seed, row in enumerate(rows(zoo)):
        again = network(9)
        again.load_state_dict({**zoo.base, **row})
        assert torch.allclose(again(x), network(seed)(x), atol=1e-5)


def test_statistics_that_are_equal_are_the_base_and_counters_no_parameters(tmp_path):
    same = {n: t for n, t in state(7).items() if n.startswith("1.running")}
    for seed in range(2):
        counter = {"1.num_batches_tracked": torch.tensor(float(seed))}
        write({**state(seed), **same, **counter}, tmp_path / f"{seed}.pth")
    zoo = import_zoo([tmp_path])
    assert torch.equal(zoo.base["1.running_var"], same["1.running_var"])
    assert "1.num_batches_tracked" in zoo.base
    assert torch.equal(rows(zoo)[1]["1.weight"], state(1)["1.weight"])


def test_a_variance_below_0_and_statistics_without_weights_are_refused(tmp_path):
    broken = {**state(1), "1.running_var": torch.tensor([1.0, 1, -1, 1])}
    files = [write(state(0), tmp_path / "0.pth"), write(broken, tmp_path / "1.pth")]
    assert "1.pth: '1.running_var'" in message(import_zoo, files)
    for seed, path in enumerate(files):
        write({n: t for n, t in state(seed).items() if n != "1.bias"}, path)
    assert "cannot be folded: there is no '1.bias'" in message(import_zoo, files)


def test_whole_numbers_that_differ_are_refused(tmp_path):
    files = [write({**plain(0), "n": torch.tensor(i)}, tmp_path / f"{i}.pth") for i in range(2)]
    assert "'n' holds whole numbers that differ" in message(import_zoo, files)


# Files ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"model_state_dict": s, "optimizer": {"state": {}, "param_groups": []}},
        lambda s: {"net": s, "acc": np.float64(0.9), "epoch": 3, "history": np.ones(3)},
        lambda s: {"state_dict": s, "args": argparse.Namespace(lr=0.1), "state_dict_ema": {}},
        lambda s: {"state_dict_ema": s},
        lambda s: {"model": {"state_dict": s}},
        lambda s: {**s, "accuracy": np.float32(0.5), "epoch": 7},
        lambda s: {"state_dict": {f"module.{n}": t for n, t in s.items()}, "ema": plain(5)},
        lambda s: {**{f"module.{n}": t for n, t in s.items()}, "n_averaged": torch.tensor(2)},
    ],
)
def test_usual_wrappers(tmp_path, wrap):
    assert_holds(import_zoo([write(wrap(plain(4)), tmp_path / "0.pth")]), [4])


class Custom:
    """A class of somebody's program."""


def _sparse():
    return torch.eye(3).to_sparse()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"a": torch.zeros(2), "optimizer": {"lr": 1}}, ("'a' (a tensor)", "'optimizer' (dict)")),
        ({"\x1b[31mred": 1, "b": {}}, ("red' (int)", "'b' (dict)")),
        ([torch.zeros(2)], ("holds list",)),
        ({"model": Custom()}, ("pickled tests.test_formats.Custom", "not opened")),
        ({"w": torch.ones(2), "m": torch.ones(2), "p": torch.ones(2), "props": {}}, ("SANE", "w, m, p")),
        ({"w": torch.ones(2), "m": torch.ones(2), "p": torch.ones(2)}, ("SANE",)),
        ({"a": torch.ones(2).to(torch.float8_e4m3fn)}, ("'a' is float8_e4m3fn",)),
        ({"a": torch.ones(2, dtype=torch.complex64)}, ("'a' is complex64",)),
        (_sparse, ("'a' is sparse_coo",)),
    ],
)  # fmt: skip
def test_what_is_no_state_dict_is_refused_by_name(tmp_path, content, expected):
    content = {"a": content()} if callable(content) else content
    text = message(read_weights, write(content, tmp_path / "x.pth"))
    assert all(part in text for part in (str(tmp_path / "x.pth"), *expected)), text
    assert "weights_only" not in text


def test_a_folder_of_any_files(tmp_path):
    names = [
        "0.PTH", "1.bin", "2.ckpt", "3", "4.pth.tar", "5.Safetensors",
        "step_6/weights.pt", "step_7/deep/weights.pt",
    ]  # fmt: skip
    for seed, name in enumerate(names):
        write(plain(seed), tmp_path / name)
    for name in (
        "._0.pth",
        "optimizer.pt",
        "step_6/scheduler.pt",
        "step_6/rng_state.pth",
        ".git/x.pt",
    ):
        write({"wrong": torch.zeros(1)}, tmp_path / name)
    (tmp_path / "LICENSE").write_text("text")
    assert_holds(import_zoo([tmp_path]), range(len(names)))
    shutil.copy(
        tmp_path / "5.Safetensors", tmp_path / "8"
    )  # as a cache keeps it: known by its first bytes
    assert len(import_zoo([tmp_path])) == 9


def test_what_names_tell(tmp_path):
    for seed, name in enumerate(("0012_acc0.9531_seed0020_tag", "0013_acc0.96_seed0021_tag")):
        write(plain(seed), tmp_path / f"{name}.pth")
    zoo = import_zoo([tmp_path])
    assert zoo.scores == (0.9531, 0.96)
    assert zoo.runs == ("seed0020", "seed0021")
    assert zoo.epochs == (12, 13)
    zoo.save(tmp_path / "my.zoo")
    again = Zoo.load(tmp_path / "my.zoo")
    assert (again.runs, again.epochs, again.scores) == (zoo.runs, zoo.epochs, zoo.scores)
    assert (zoo.head(1).epochs, zoo.rows([1]).epochs) == ((12,), (13,))
    found = find.find([tmp_path / "mlp_seed7.pt", tmp_path / "resnet18_seed12.pt"])
    assert [one.run for one in found] == ["seed7", "seed12"]


def test_the_last_state_of_a_training_hides_its_current_one(tmp_path):
    for run in ("car_1", "car_2"):
        write(plain(int(run[-1])), tmp_path / run / "checkpoints" / "model_final.pth")
        write(plain(9), tmp_path / run / "checkpoints" / "model_current.pth")
    assert_holds(import_zoo([tmp_path]), [1, 2])


# Layouts -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def ray(tmp_path):
    """Two trials of three epochs, the second one reported as a table."""
    for trial in range(2):
        folder = tmp_path / "tune_zoo_mnist" / f"NN_tune_trainable_seed={trial}"
        lines = []
        for epoch in range(3):
            inside = folder / f"checkpoint_{epoch:06d}"
            write(plain(10 * trial + epoch), inside / "checkpoints")
            write({"state": torch.zeros(2)}, inside / "optimizer")
            if epoch:  # before training nothing is reported
                lines.append({"training_iteration": epoch, "test_acc": trial / 2 + epoch / 10})
        (folder / "params.json").write_text(json.dumps({"lr": 0.1 * (trial + 1), "nlin": "tanh"}))
        if trial:
            table = [",".join(lines[0]), *(",".join(map(str, one.values())) for one in lines)]
            (folder / "progress.csv").write_text("\n".join(table))
        else:
            (folder / "result.json").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path


@pytest.mark.parametrize(
    ("wanted", "seeds"),
    [
        (Choice(), [0, 1, 2, 10, 11, 12]),
        (Choice("ray", epoch="last"), [2, 12]),
        (Choice(epoch="1"), [1, 11]),
        (Choice(where=("test_acc>0.15",)), [2, 11, 12]),
        (Choice(where=("test_acc >= 0.1", "lr<0.15")), [1, 2]),
        (Choice(epoch="last", limit=1), [2]),
    ],
)
def test_trees_of_ray(ray, wanted, seeds):
    zoo = import_zoo([ray], choice=wanted)
    assert_holds(zoo, seeds)
    assert zoo.epochs == tuple(seed % 10 for seed in seeds)
    trials = [f"tune_zoo_mnist/NN_tune_trainable_seed={seed // 10}" for seed in seeds]
    assert zoo.runs == tuple(trials)
    told = all(seed % 10 for seed in seeds)
    scores = [(seed // 10) / 2 + (seed % 10) / 10 for seed in seeds]
    assert zoo.scores == (pytest.approx(scores) if told else ())


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"epoch": "7"}, "there are epochs 0 to 2"),
        ({"epoch": "first"}, "expected last, all or a number"),
        ({"where": ("test_acc>2",)}, "test_acc is 0.1 to 0.7"),
        ({"where": ("tset_acc>0",)}, "did you mean 'test_acc'?"),
        ({"where": ("test_acc",)}, "expected a comparison"),
        ({"where": ("test_acc>x",)}, "expected a comparison"),
        ({"limit": 0}, "expected at least 1"),
        ({"form": "rya"}, "did you mean 'ray'?"),
        ({"form": "hf"}, "no checkpoints to import"),
    ],
)
def test_choices_that_cannot_be_met(ray, wanted, expected):
    assert expected in message(import_zoo, [ray], choice=Choice(**wanted))


def test_results_that_are_no_json(ray):
    for path in ray.rglob("result.json"):
        path.write_text('{"training_iteration": 1}\n[2]\n')
    assert "line 2 is no JSON object" in message(import_zoo, [ray])


def test_files_without_epochs(tmp_path):
    path = write(plain(0), tmp_path / "a.pth")
    assert "tell an epoch" in message(choice.chosen, [Checkpoint((path,))], epoch="last")


def test_adapters(tmp_path):
    for seed in range(2):
        folder = tmp_path / f"checkpoint-{seed + 1}00"
        write(plain(seed), folder / "adapter_model.safetensors")
        write({"x": torch.zeros(1)}, folder / "optimizer.pt")
        (folder / "adapter_config.json").write_text("{}")
    zoo = import_zoo([tmp_path])
    assert_holds(zoo, range(2))
    assert zoo.epochs == (100, 200)
    (tmp_path / "checkpoint-100" / "adapter_model.safetensors").unlink()
    assert "neither adapter_model.safetensors" in message(import_zoo, [tmp_path])


def test_shards_and_other_forms_of_the_hub(tmp_path):
    for seed in range(4):
        folder = tmp_path / f"model{seed}"
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        shards = [{name: tensor} for name, tensor in plain(seed).items()]
        ends = {0: "safetensors", 1: "bin"}
        stem, end = {1: "pytorch_model"}.get(seed, "model"), ends.get(seed, "safetensors")
        if seed < 3:
            names = [f"{stem}-{n}-of-00002.{end}" for n in ("00001", "00002")]
            for name, shard in zip(names, shards, strict=True):
                write(shard, folder / name)
            if seed < 2:
                table = {
                    key: name for name, shard in zip(names, shards, strict=True) for key in shard
                }
                (folder / f"{stem}.{end}.index.json").write_text(json.dumps({"weight_map": table}))
        else:  # both forms of the same weights
            write(plain(seed), folder / "model.safetensors")
            write(plain(seed), folder / "pytorch_model.bin")
    assert find.told(tmp_path) == "hf"
    assert_holds(import_zoo([tmp_path]), range(4))
    files = sorted((tmp_path / "model0").glob("*.safetensors"))
    assert_holds(import_zoo(files), [0])
    assert "shard 2 of 2 is missing" in message(import_zoo, files[:1])
    files[1].unlink()
    assert "00002-of-00002.safetensors is missing" in message(import_zoo, [tmp_path])


@pytest.mark.parametrize("table", [{}, {"weight_map": {"a": "../x.bin"}}, {"weight_map": 3}, []])
def test_an_index_that_lists_nothing_usable(tmp_path, table):
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(table))
    assert "lists no shards" in message(import_zoo, [tmp_path])


def test_databases(tmp_path):
    lmdb = pytest.importorskip("lmdb")
    for number, runs in enumerate((["a1"], ["b2", "c3"])):
        folder = tmp_path / "mnist" / "_".join(runs)
        folder.mkdir(parents=True)
        told = {}
        with (
            lmdb.open(str(folder), map_size=1 << 20) as database,
            database.begin(write=True) as out,
        ):
            for place, run in enumerate(runs):
                checkpoints = {}
                for step in range(2):
                    name, tensors = f"{run}_{step}", plain(10 * (number + place) + step).values()
                    flat = torch.cat([tensor.flatten() for tensor in tensors])
                    sizes = torch.tensor([float(tensor.numel()) for tensor in tensors])
                    out.put(name.encode(), flat.numpy().tobytes())
                    out.put(f"{name}_arch".encode(), sizes.numpy().tobytes())
                    checkpoints[name] = {"test_loss": step / 2}
                told[run] = {"checkpoints": checkpoints, "metadata": {}}
        whole = told["a1"] if number == 0 else told
        (folder / "runs.json").write_text(json.dumps(whole))
    base = write(plain(0), tmp_path / "base.pth")
    zoo = import_zoo([tmp_path / "mnist"], base)
    assert_holds(zoo, [0, 1, 10, 11, 20, 21])
    assert zoo.runs == ("a1", "a1", "b2", "b2", "c3", "c3")
    assert zoo.epochs == (0, 1) * 3
    few = import_zoo([tmp_path / "mnist"], choice=Choice(epoch="last", where=("test_loss>0.1",)))
    assert few.layout.names == ("000", "001")
    assert len(few) == 3
    write({"a.weight": torch.zeros(3)}, base)
    assert "those of --base have 3" in message(import_zoo, [tmp_path / "mnist"], base)
    (tmp_path / "mnist" / "a1" / "runs.json").write_text("[]")
    assert "lists no checkpoints" in message(import_zoo, [tmp_path / "mnist"])


def test_a_base_of_another_network(tmp_path):
    path = write(plain(0), tmp_path / "0.pth")
    base = write({"a.bias": torch.zeros(9)}, tmp_path / "base.pth")
    assert "that of --base has (9,)" in message(import_zoo, [path], base)
