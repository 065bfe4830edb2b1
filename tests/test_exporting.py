"""Zoos as folders of state dicts, and back."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.contract import registry
from bench.contract.declarations import Shape
from bench.contract.zoo import Layout, Zoo
from bench.errors import BadRequest
from bench.runs.exporting import export, read
from bench.runs.importing import import_zoo
from tests.standins import call

SHAPES = {
    "labels": Shape(1, 28, 3), "boxes": Shape(3, 64, 3), "masks": Shape(3, 16, 3), "noise": Shape(1, 8, 1),
}  # fmt: skip
# Those of millions of parameters, which have released weights, show nothing that these do not.
SMALL = [
    n for n, one in registry.architectures().items() if not one.loads or n in ("fcn_small", "ddpm8")
]


def of(model, few=None) -> Zoo:
    """A zoo of three random checkpoints of a network, of its first parameters or of all."""
    named = dict(list(model.named_parameters())[:few])
    layout = Layout.of(named)
    vectors = torch.randn(3, layout.dim, generator=torch.Generator().manual_seed(1))
    base = {n: t.detach().clone() for n, t in model.state_dict().items() if n not in named}
    settings = {"track": "seeds", "task": "x", "odd": None}
    return Zoo(
        vectors,
        layout,
        base,
        (0.5, 0.25, 1.0),
        ((0.1, 0.5), (0.2, 0.6), (0.3, 0.7)),
        0.1,
        None,
        settings,
    )


@pytest.mark.parametrize("name", SMALL)
def test_an_architecture_comes_back_with_the_same_hash(tmp_path, name):
    architecture = registry.architectures()[name]
    zoo = of(architecture.build(SHAPES[architecture.form]))
    for form in ("safetensors", "pth"):
        folder = export(zoo, tmp_path / form, form)
        again = import_zoo([folder])
        assert again.hash == zoo.hash
        assert {**vars(again), "vectors": 0, "base": 0, "hash": 0} == {
            **vars(zoo), "vectors": 0, "base": 0, "hash": 0
        }  # fmt: skip


@pytest.fixture
def zoo():
    return of(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)), 2)


def test_the_files_are_whole_networks_with_their_scores(zoo, tmp_path):
    zoo.save(tmp_path / "my.zoo")
    assert call("zoo", "export", tmp_path / "my.zoo", tmp_path / "out", "--matrix") == 0
    out = tmp_path / "out"
    names = ["0000_score0.5000", "0001_score0.2500", "0002_score1.0000"]
    files = [f"{name}.safetensors" for name in names]
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [*files, "base.safetensors", "matrix.npy", "zoo.json"]
    )
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    model.load_state_dict(load_file(out / files[1]))
    assert torch.equal(torch.cat([p.flatten() for p in model[0].parameters()]), zoo.vectors[1])
    assert np.array_equal(np.load(out / "matrix.npy"), zoo.vectors.numpy())
    told = json.loads((out / "zoo.json").read_text())
    assert (told["files"], told["hash"]) == (files, zoo.hash)
    assert call("zoo", "import", out, "--output", tmp_path / "again.zoo") == 0
    assert Zoo.load(tmp_path / "again.zoo").hash == zoo.hash
    assert call("zoo", "export", tmp_path / "my.zoo", out) == 2  # never into what is there


def test_changed_files_are_imported_as_others(zoo, tmp_path):
    folder = export(zoo, tmp_path / "out")
    path = folder / "0001_score0.2500.safetensors"
    save_file({name: tensor + 0 * tensor + 1 for name, tensor in load_file(path).items()}, path)
    with pytest.raises(BadRequest, match=r"not those that were exported.*remove zoo\.json"):
        import_zoo([folder])
    (folder / "zoo.json").unlink()
    (folder / "base.safetensors").unlink()
    assert len(import_zoo([folder])) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"files": ["../x.pth"]}, "expected files beside it"),
        ({"files": []}, "names no checkpoints"),
        ({"files": ["none.pth"]}, "no file"),
        ({"shapes": [[2, 2], [3]]}, "has shape"),
        ({"names": 3}, "names: "),
        ({"more": 3}, "more: "),
        ({"scores": [1]}, "not those that were exported"),
    ],
)
def test_manifests_that_cannot_be_used(zoo, tmp_path, change, message):
    folder = export(zoo, tmp_path / "out")
    told = json.loads((folder / "zoo.json").read_text())
    if "scores" in change:
        told["hash"] = "0" * 64
    (folder / "zoo.json").write_text(json.dumps({**told, **change}))
    with pytest.raises(BadRequest) as caught:
        read(folder)
    assert message in str(caught.value)
    assert str(caught.value).isprintable()
