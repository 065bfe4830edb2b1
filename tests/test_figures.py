import dataclasses

import numpy as np
import pytest
import torch
from sklearn.manifold import trustworthiness

from bench.judge.population import GENERATED, ORIGINAL, Population
from bench.metrics.similarity import iou
from bench.records import side
from bench.records.record import Record
from bench.records.request import Request
from bench.runs import figures
from bench.runs.pipeline import NOISY, Run
from bench.system.store import file_hash

SMALL = {"epochs": 1, "batch_size": 20}
QUICK = {"autoencoder_iterations": 5, "denoiser_iterations": 5}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of a generator with latents and a path, and one of a generator without."""
    folder = tmp_path_factory.mktemp("runs")
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_HOME", str(folder / "home"))
        for name, own in (("pdiff", QUICK), ("gaussian", {})):
            request = Request(
                task="fake",
                generator=name,
                task_settings=SMALL,
                generator_settings=own,
                k=6,
                samples=4,
                results=folder,
            )
            run = Run(request)
            record, path = run.execute()
            zoo = run.zoo()[0]
            scored = run.score(zoo, run.generate(zoo).vectors, run.reference(zoo))
            evaluated = {one.key: one for one in scored}
            made[name] = run, record, path, zoo, evaluated, side.read(path.with_suffix(".npz"))
    return made


@pytest.mark.parametrize("name", ["pdiff", "gaussian"])
def test_the_record_names_the_side_file_with_its_hash(runs, name):
    _, record, path, *_ = runs[name]
    assert Record.read(path) == record
    file = path.with_suffix(".npz")
    assert record.artifacts.side.file == file.name
    assert record.artifacts.side.sha256 == file_hash(file)


@pytest.mark.parametrize("name", ["pdiff", "gaussian"])
def test_numbers_of_models_and_their_values_are_the_records(runs, name):
    _, record, _, _, evaluated, arrays = runs[name]
    for population, scores in record.populations.items():
        assert len(arrays[f"nearest.{population}"]) == len(scores.values)
        train = evaluated[population].train.float().numpy()
        np.testing.assert_array_equal(arrays[f"train.{population}"], train)
    nearest = record.generated.similarity.nearest.value
    assert arrays["nearest.generated"].mean() == pytest.approx(nearest, abs=1e-3)
    assert arrays["nearest.copy"].min() == 1.0


def test_the_iou_matrix_is_that_of_the_wrong_sets(runs):
    *_, evaluated, arrays = runs["pdiff"]
    wrong = torch.cat([evaluated["original"].wrong, evaluated["generated"].wrong])
    np.testing.assert_allclose(arrays["iou"], iou(wrong, wrong).numpy(), atol=1e-3)
    assert arrays["iou_originals"].tolist() == [6]


def test_outcomes_of_units_give_the_scores_back(runs):
    _, record, *_, arrays = runs["pdiff"]
    count, total = arrays["units"]
    assert count == total == record.protocol.val_size
    populations = {"generated": record.generated, **record.controls}
    for name, scores in populations.items():
        shares = arrays[f"right_mean.{name}"] / 255
        assert shares.mean() == pytest.approx(scores.mean, abs=1 / 510 + 1e-9)
        for statistic in side.STATISTICS:
            right = np.unpackbits(arrays[f"right_{statistic}.{name}"], count=count)
            value = getattr(scores, statistic)
            if statistic == "median":  # of an even number of models it lies between two
                assert min(abs(right.mean() - v) for v in scores.values) < 1e-9
            else:
                assert right.mean() == pytest.approx(value)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_scores_on_replicates_are_of_the_mean_and_the_models_that_all_examples_choose(sign):
    """The second model is the best; of the originals, training scores select the third."""
    replicates = torch.arange(12).reshape(3, 4).double()
    scores = torch.tensor([0.2, 0.9, 0.5]).double()
    one = Population(
        GENERATED, sign * scores, None, train=sign * scores.flip(0), train_loss=scores, replicates=replicates
    )  # fmt: skip
    other = dataclasses.replace(one, origin=ORIGINAL, train=sign * torch.tensor([0.1, 0.2, 0.3]))
    made = figures._resampled([one, other], sign)
    assert set(made) == {f"resampled_{w}.{p.key}" for w in side.RESAMPLED for p in (one, other)}
    assert {str(array.dtype) for array in made.values()} == {"float32"}
    assert made["resampled_mean.generated"].tolist() == [4, 5, 6, 7]
    assert made["resampled_best.generated"].tolist() == [4, 5, 6, 7]
    assert made["resampled_selected.generated"].tolist() == [4, 5, 6, 7]
    assert made["resampled_selected.original"].tolist() == [8, 9, 10, 11]
    assert figures._resampled([dataclasses.replace(one, replicates=None)], sign) == {}


def test_only_what_has_latents_shows_them(runs):
    latents = {f"latent.{name}" for name in figures.EMBEDDED}
    arrays = runs["pdiff"][-1]
    assert latents | {"map_path"} <= set(arrays)
    assert not (latents | {"map_path"}) & set(runs["gaussian"][-1])
    assert arrays["map_path"].shape == (5, 11, 2)


def test_parameters_are_those_of_the_models(runs):
    run, _, _, zoo, _, arrays = runs["pdiff"]
    index = arrays["weights_index"]
    np.testing.assert_allclose(
        arrays["weights.original"], zoo.vectors[:, index].numpy(), rtol=1e-3, atol=1e-3
    )
    assert arrays["weights.random"].shape == (figures.HEAT_MODELS, len(index))
    noisy = run.noisy(zoo)
    assert len(arrays[f"map.{NOISY}"]) == len(noisy)


def test_the_same_run_writes_the_same_file(runs, tmp_path, monkeypatch):
    run, _, path, *_ = runs["pdiff"]
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "home"))
    again = dataclasses.replace(run.request, results=tmp_path)
    _, other = Run(again).execute()
    first, second = (side.read(one.with_suffix(".npz")) for one in (path, other))
    assert set(first) == set(second)
    for name in set(first) - {"curve"}:  # SGD's seconds differ
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def test_the_largest_run_stays_below_the_limit(tmp_path):
    """The worst case: nothing compresses, and more of everything than is kept."""
    rng = np.random.default_rng(0)
    half = lambda *shape: rng.random(shape).astype(np.float16)  # noqa: E731
    names = ["original", "generated", "average", "greedy_soup", "copy", "interpolation", "gaussian"]
    names += ["finetune", *(f"noise {a}" for a in (0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10))]
    sizes = dict.fromkeys(names, 100) | {"original": side.MODELS}
    arrays = {f"nearest.{n}": half(sizes[n]) for n in names}
    arrays |= {f"train.{n}": rng.random(sizes[n]).astype(np.float32) for n in names}
    iou_ = half(2 * figures.IOU_MODELS, 2 * figures.IOU_MODELS)
    arrays["iou"] = np.tril(iou_) + np.tril(iou_, -1).T
    arrays |= {f"map.{n}": half(side.MODELS, 2) for n in figures.EMBEDDED}
    arrays |= {f"latent.{n}": half(side.MODELS, 2) for n in figures.EMBEDDED}
    for name in ("original", "generated", "random"):
        arrays[f"weights.{name}"] = half(figures.HEAT_MODELS, figures.HEAT_PARAMETERS)
    for name in names:
        share = rng.random(figures.UNITS) ** 3  # most units are right or wrong for nearly all
        arrays[f"right_mean.{name}"] = (255 * share).astype(np.uint8)
        for statistic in side.STATISTICS:
            bits = rng.random(figures.UNITS) < 0.5
            arrays[f"right_{statistic}.{name}"] = np.packbits(bits)
    arrays["curve"] = rng.random((figures.CURVE_POINTS, 2)).astype(np.float32)
    side.write(tmp_path / "a.npz", arrays)
    assert (tmp_path / "a.npz").stat().st_size < side.LIMIT


def test_near_points_stay_near_in_a_map():
    rng = torch.Generator().manual_seed(0)
    centres = 20 * torch.randn(4, 1, 30, generator=rng)
    points = (centres + torch.randn(4, 25, 30, generator=rng)).flatten(0, 1)
    found = figures.embed({"map.original": points[:60], "map.generated": points[60:]})
    flat = np.concatenate([found["map.original"], found["map.generated"]]).astype(float)
    assert trustworthiness(points.numpy(), flat, n_neighbors=5) > 0.9


def test_principal_coordinates_keep_distances_up_to_scale():
    points = torch.randn(12, 300, generator=torch.Generator().manual_seed(1))
    found = torch.from_numpy(figures._principal(points))
    ratio = torch.pdist(points) / torch.pdist(found)
    assert float(ratio.std() / ratio.mean()) < 1e-3


def test_too_few_points_give_no_map_and_equal_points_do_not_fail():
    assert figures.embed({"map.original": torch.randn(2, 3)}) == {}
    assert figures.embed({}) == {}
    found = figures.embed({"map.original": torch.ones(8, 3)})
    assert np.isfinite(found["map.original"]).all()


def test_a_single_original_has_no_other_to_be_near_to(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "home"))
    request = Request(
        task="fake", generator="copy", task_settings=SMALL, k=1, samples=2, results=tmp_path
    )
    _, path = Run(request).execute()
    arrays = side.read(path.with_suffix(".npz"))
    assert "nearest.original" not in arrays
    assert "nearest.generated" in arrays


def test_what_a_half_cannot_hold_becomes_its_largest():
    values = figures._half(torch.tensor([1e9, -1e9, 0.5]))
    assert np.isfinite(values).all()
    assert values[2] == 0.5
