"""Results of stages and their files."""

import functools
import json

import pytest
import torch
from safetensors.torch import save_file

from bench.errors import BenchError
from bench.judge.population import GENERATED, ORIGINAL, Population
from bench.runs.stages import load_population, load_reference, load_sampled, save_population

WRONG = torch.tensor([[True, False], [False, False], [True, True]])
FEATURES = torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])


def population(**fields):
    values = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    made = {
        "val": values,
        "train": values + 1,
        "train_loss": values + 2,
        "select_s": 1.5,
        "score_s": 2.5,
    }
    return Population(GENERATED, **{"wrong": None, **made, **fields})


KINDS = {
    "units": population(wrong=WRONG),
    "replicates": population(wrong=WRONG, replicates=FEATURES.double()),
    "features": population(features=FEATURES, further={"recall": torch.tensor([0.5, 0.25, 0.75])}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_population_comes_back_from_its_file_as_whoever_asks_for_it(kind, tmp_path):
    one = KINDS[kind]
    save_population(one, tmp_path / "file")
    again = load_population(tmp_path / "file", ORIGINAL)
    assert again.origin == ORIGINAL
    assert (again.wrong is None) == (one.wrong is None)
    assert torch.equal(again.compared, one.compared)
    assert (again.replicates is None) == (one.replicates is None)
    if one.replicates is not None:
        assert torch.equal(again.replicates, one.replicates)
    assert torch.equal(again.train_loss, one.train_loss)
    assert (again.select_s, again.score_s) == (1.5, 2.5)
    assert {name: values.tolist() for name, values in again.further.items()} == {
        name: values.tolist() for name, values in one.further.items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_some_models_of_a_population(kind):
    one, index = KINDS[kind], torch.tensor([2, 0, 2])
    some = one.rows(index)
    assert torch.equal(some.val, one.val[index])
    assert torch.equal(some.compared, one.compared[index])
    if one.replicates is not None:
        assert torch.equal(some.replicates, one.replicates[index])
    assert all(torch.equal(some.further[name], v[index]) for name, v in one.further.items())
    assert set(some.further) == set(one.further)


SAMPLING = {"fit_s": 1.0, "sample_s": 1.0, "peak_memory_bytes": 1}
SCORING = {"select_s": 1.0, "score_s": 1.0}
LOADERS = {
    "sampled": (load_sampled, {"vectors": torch.ones(2, 3)}, SAMPLING),
    "population": (functools.partial(load_population, origin=ORIGINAL), {"val": torch.ones(2)}, SCORING),
    "reference": (load_reference, {"vectors": torch.ones(2, 3)}, {}),
}  # fmt: skip
NO_FACTS = ["", "null", "[]", '"a"', "[" * 100_000, "1", '{"x": 1}']
NO_TENSORS = [{}, *({name: value} for name in ("vectors", "val", "wrong", "further.a", "x") for value in (
    torch.ones(2, 3, 4), torch.tensor(1.0), torch.ones(2, 3, dtype=torch.int8), torch.full((2, 3), torch.nan)
))]  # fmt: skip


@pytest.mark.parametrize("kind", LOADERS)
def test_a_damaged_stage_is_one_error_whatever_is_wrong(kind, tmp_path):
    load, tensors, facts = LOADERS[kind]
    path = tmp_path / "file"
    save_file(tensors, path, {"facts": json.dumps(facts)})
    load(path)
    whole = path.read_bytes()
    texts = [json.dumps(facts | {name: "a"}) for name in facts]
    for text in [*NO_FACTS, *texts] if facts else []:
        save_file(tensors, path, {"facts": text})
        with pytest.raises(BenchError, match="is damaged"):
            load(path)
    for wrong in NO_TENSORS:
        save_file({**tensors, **wrong} if kind == "population" and wrong else wrong, path)
        with pytest.raises(BenchError, match="is damaged"):
            load(path)
    for content in (b"", whole[:20], whole[:-1]):
        path.write_bytes(content)
        with pytest.raises(BenchError, match="is damaged"):
            load(path)
