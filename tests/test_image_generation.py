"""Image generation: scores against plain implementations, similarity, weights, and whole runs."""

import json
import warnings

import numpy as np
import pytest
import scipy.linalg
import torch
from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel
from safetensors.torch import save_file
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from bench import plugins
from bench.contract import Metric
from bench.contract.zoo import Zoo
from bench.errors import BadRequest, BenchError
from bench.metrics import frechet
from bench.metrics.similarity import pairwise
from bench.records import check, report, side
from bench.records.record import Record, comparability_key
from bench.records.request import Request
from bench.runs import pipeline
from bench.runs.verify import verify
from bench.system.randomness import generator
from tasks import image_generation
from tasks.fast import image_scoring
from tasks.fast.image_scoring import COMPARED
from tasks.training import steps
from tests.networks import Shape, build
from tests.standins import image_data, untrained_inception

GREY, COLOUR = Shape(1, 8, 0), Shape(3, 8, 0)
SMALL = {
    "dataset": "fake",
    "epochs": 1,
    "passes": 1,
    "batch_size": 20,
    "fid_images": 20,
    "steps": 2,
    "sampler": "ddim",
}


@pytest.fixture(autouse=True)
def _standins(monkeypatch):
    monkeypatch.setattr(image_generation, "CLASSIFIER_EPOCHS", 1)


def make(**settings):
    return plugins.load_task("digits-ddpm", "quick", {**SMALL, **settings})


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """Three checkpoints, and the task that they were collected by."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setattr(image_generation, "CLASSIFIER_EPOCHS", 1)
        return make().collect(3, rng=generator(0), work=tmp_path_factory.mktemp("work"))


# Scores --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_score_is_the_distance_of_images_that_diffusers_draws(zoo, split, monkeypatch):
    task = make()
    found = task.scorer(zoo, split)(zoo.vectors)
    start = torch.randn(20, 1, 8, 8, generator=generator(0, "noise", split))
    monkeypatch.setattr(
        "diffusers.pipelines.ddim.pipeline_ddim.randn_tensor", lambda *_, **__: start
    )
    network = task.network(zoo)
    real = network(getattr(image_data("fake"), split).images).double().numpy()
    for vector, score in zip(zoo.vectors, found.scores, strict=True):
        model = task.base_model(zoo)
        model.load_state_dict(zoo.layout.unflatten(vector), strict=False)
        pipe = DDIMPipeline(model, DDIMScheduler())
        pipe.set_progress_bar_config(disable=True)
        drawn = pipe(batch_size=20, num_inference_steps=2, output_type="np").images
        images = torch.from_numpy((drawn * 255).round().astype(np.uint8)).permute(0, 3, 1, 2)
        ours = network(images).double().numpy()
        (m1, c1), (m2, c2) = ((np.mean(x, 0), np.cov(x, rowvar=False)) for x in (ours, real))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", scipy.linalg.LinAlgWarning)  # few images, many features
            root = scipy.linalg.sqrtm(c1 @ c2).real
        expected = np.sum((m1 - m2) ** 2) + np.trace(c1 + c2 - 2 * root)
        assert score.item() == pytest.approx(expected, rel=1e-3)  # a pixel may round otherwise


def test_a_score_in_features_of_inception(zoo, tmp_path, monkeypatch):
    """From a file to the score, on images that the task drew; torch-fidelity's own network and formula stand beside."""
    path = tmp_path / "weights.pth"
    untrained_inception(path)
    monkeypatch.setattr("tasks.image_generation.FEWEST", 3)  # it takes a tenth of a second an image
    task = make(feature_network="inception", feature_weights=str(path), fid_images=3)
    task.data = image_data("fake", train=4)
    known = task.identity()["feature_weights"]
    assert task.metric.name == f"fd-inception-{known[:8]}"
    score = task.scorer(zoo, "train")(zoo.vectors[:1]).scores.item()
    network = FeatureExtractorInceptionV3("x", ["2048"], feature_extractor_weights_path=str(path))
    images = [task.draw(zoo, zoo.vectors[:1], "train", 3)[0], task.data.train.images]
    ours, real = (network(some.expand(-1, 3, -1, -1))[0].double() for some in images)
    x, y = ((one - one.mean(0)) / (len(one) - 1) ** 0.5 for one in (ours, real))
    common = torch.linalg.svdvals(x @ y.T).sum()  # the trace of the root, where images are few
    apart = (ours.mean(0) - real.mean(0)).square().sum()
    expected = apart + x.square().sum() + y.square().sum() - 2 * common
    assert score == pytest.approx(expected.item(), rel=1e-6)
    again = make(
        feature_network="inception", feature_weights=known, fid_images=3
    )  # as verifying a record does
    again.data = task.data
    assert again.identity() == task.identity()


def test_further_metrics_are_those_of_validation_alone(zoo):
    task = make()
    assert task.scorer(zoo, "train")(zoo.vectors).extra == {}
    found = task.scorer(zoo, "val")(zoo.vectors).extra
    assert set(found) == {"fd-convnet3 unbiased", "kd-convnet3", "precision", "recall"}
    assert all(values.isfinite().all() for values in found.values())


def test_splits_have_noise_and_real_images_of_their_own(zoo):
    task = make()
    train, val = (task.scorer(zoo, split)(zoo.vectors) for split in ("train", "val"))
    assert not torch.allclose(train.features, val.features)
    scorers = [task._candidates(zoo, split) for split in ("train", "val")]
    assert not torch.equal(scorers[0].noise, scorers[1].noise)
    assert not torch.equal(scorers[0].reference.root, scorers[1].reference.root)


def test_reloading_a_row_gives_back_its_recorded_score(zoo, tmp_path):
    zoo.save(tmp_path / "zoo")
    loaded = Zoo.load(tmp_path / "zoo")
    for row in range(3):
        found = make().scorer(loaded, "val")(loaded.vectors[row : row + 1])
        assert found.scores.item() == zoo.scores[row]


def test_a_zoo_is_scored_by_its_own_classifier_wherever_it_is(zoo, monkeypatch):
    """Here its weights are not in the store; another training would not give these."""
    monkeypatch.setattr(image_generation.Classification, "collection", None)
    assert make().scorer(zoo, "val")(zoo.vectors).scores.tolist() == list(zoo.scores)


def test_the_score_of_a_network_is_the_one_it_has_as_a_candidate(zoo):
    task = make()
    alone = task.score(task.base_model(zoo))  # with the first checkpoint in place
    assert task.network(None).identity == task.network(zoo).identity  # trained again, the same
    found = task.scorer(zoo, "val")(zoo.vectors[:1])
    assert alone == pytest.approx(found.scores.item(), rel=1e-6)


def test_a_candidate_whose_images_are_not_finite_is_the_worst_and_stops_no_other(zoo):
    task, vectors = make(), zoo.vectors.clone()
    vectors[1] *= 1e30
    drawn = task.draw(zoo, vectors, "val", 3)
    assert (drawn[1] == drawn[1, 0]).all()  # the stand-in
    assert not torch.equal(drawn[0, 0], drawn[0, 1])
    found = task.scorer(zoo, "val")(vectors)
    assert found.not_finite.tolist() == [0, 20, 0]
    assert found.scores.tolist()[::2] == list(zoo.scores)[::2]
    assert found.scores[1] > found.scores[::2].max()
    for values in (found.scores, *found.extra.values(), found.features):
        assert values.isfinite().all()


def test_half_precision_is_refused_where_it_moves_the_distance(zoo, monkeypatch):
    task = make(draw_precision="bfloat16")
    mixed = task.scorer(zoo, "train")(zoo.vectors).scores
    exact = make().scorer(zoo, "train")(zoo.vectors).scores
    assert not torch.equal(mixed, exact)
    assert torch.allclose(mixed, exact, rtol=0.2)
    monkeypatch.setattr(frechet, "standard_error", lambda *_: torch.zeros(1))
    with pytest.raises(BenchError, match="in bfloat16 the first checkpoint's fd-convnet3 moves by"):
        make(draw_precision="bfloat16").scorer(zoo, "train")(zoo.vectors)


# Similarity ----------------------------------------------------------------------------------------------------------


def test_similarity_of_models(zoo):
    """Symmetric, 1 for equal weights, in [0, 1], and falling with noise of growing amplitude."""
    task = make(fid_images=64)
    own = zoo.vectors[0]
    noise = torch.randn(own.shape, generator=torch.Generator().manual_seed(0))
    amplitudes = [0.0, 0.03, 0.1, 0.3, 1.0, 3.0]
    vectors = torch.stack([own + amplitude * own.std() * noise for amplitude in amplitudes])
    found = task.scorer(zoo, "val")(vectors).features
    assert found.shape == (6, 64 * 32)
    matrix = pairwise(found, found)
    assert torch.equal(matrix, matrix.T)
    assert torch.equal(matrix.diagonal(), torch.ones(6))
    assert matrix.min() >= 0
    assert matrix.max() <= 1
    assert (matrix[0].diff() < 0).all()
    assert pairwise(found[:1], found[:1]).item() == 1.0


def test_few_features_of_few_images_are_compared(zoo, monkeypatch):
    monkeypatch.setattr("tasks.fast.image_scoring.COMPARED", 8)
    found = make().scorer(zoo, "val")(zoo.vectors).features
    assert found.shape == (3, 8 * 8)
    assert COMPARED == 64


# Training ------------------------------------------------------------------------------------------------------------


def test_the_trained_base_is_the_moving_average_of_what_was_trained():
    task = make()
    model = task.problem.fresh(None, generator(0))
    start = {n: p.detach().clone() for n, p in model.named_parameters()}
    training = task.problem.training(model, generator(0, "data"))
    averages = start
    for count in range(1, 4):
        training.run(count - 1, count)
        rate = min(task.ema, (1 + count) / (10 + count))
        live = dict(training.live.named_parameters())
        averages = {n: rate * a + (1 - rate) * live[n].detach() for n, a in averages.items()}
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter, averages[name], atol=1e-6)
        assert not torch.equal(parameter, live[name])


def test_training_finds_the_noise_in_images():
    task = make(epochs=30)
    model = task.problem.fresh(None, generator(0))
    before = task.problem.whole_loss(model, generator(1))(0).item()
    task.problem.training(model, generator(0)).run(0, 90)
    assert task.problem.whole_loss(model, generator(1))(0).item() < 0.7 * before


def test_a_killed_training_goes_on_as_if_nothing_had_happened(monkeypatch, tmp_path):
    settings = {"epochs": 3, "augment": "flip"}
    whole = make(**settings).collect(2, rng=generator(0), work=tmp_path / "whole")
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "killed"))
    task, scored = make(**settings), []

    def die_in_the_third_epoch(model):
        scored.append(1)
        if len(scored) == 4:
            raise KeyboardInterrupt
        return 1.0

    monkeypatch.setattr(task, "score", die_in_the_third_epoch)
    with pytest.raises(KeyboardInterrupt):
        task.collect(2, rng=generator(0), work=tmp_path / "work")
    epochs, run = [], steps.Training.run

    def counted(self, start, end):
        epochs.append(start // self.per_epoch)
        run(self, start, end)

    monkeypatch.setattr(steps.Training, "run", counted)
    resumed = make(**settings).collect(2, rng=generator(0), work=tmp_path / "work")
    assert torch.equal(resumed.vectors, whole.vectors)
    base = {n: t for n, t in resumed.base.items() if not n.startswith("features.")}
    assert all(torch.equal(whole.base[name], tensor) for name, tensor in base.items())


def test_seeds_and_fine_tuning_move_the_chosen_layers_alone(tmp_path):
    task = make(track="seeds")
    found = task.collect(2, rng=generator(0), work=tmp_path)
    assert not torch.equal(found.vectors[0], found.vectors[1])
    assert all(name.startswith("up_blocks.1") and "norm" in name for name in found.layout.names)
    moved = task.finetune(found, found.vectors, steps=2, rng=generator(1))
    assert 0 < (moved - found.vectors).norm() < found.vectors.norm()


# Weights from elsewhere ----------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    """A UNet that diffusers saved as a folder, and the same as one file."""
    torch.manual_seed(3)
    model = build("ddpm8", GREY)
    model.save_pretrained(tmp_path / "folder")
    save_file(model.state_dict(), tmp_path / "unet.safetensors")
    return model, tmp_path


@pytest.mark.parametrize("name", ["folder", "unet.safetensors"])
def test_pretrained_weights_are_the_base_as_they_are(saved, name):
    model, folder = saved
    task = make(pretrained=str(folder / name))
    zoo = task.collect(2, rng=generator(0), work=folder / "work")
    assert torch.equal(zoo.base["conv_in.weight"], model.conv_in.weight)
    assert zoo.curve[0] == (0.0, zoo.base_score)
    assert len(task.identity()["pretrained"]) == 64  # the content, not where it lies


def test_a_folder_of_a_whole_pipeline_is_read_too(saved):
    model, folder = saved
    DDIMPipeline(model, DDIMScheduler()).save_pretrained(folder / "pipeline")
    found = build("ddpm8", GREY, pretrained=str(folder / "pipeline"))
    assert torch.equal(found.conv_in.weight, model.conv_in.weight)


def test_weights_of_another_network_are_refused(saved):
    _, folder = saved
    with pytest.raises(BadRequest, match="its in_channels is 1, expected 3"):
        build("ddpm8", COLOUR, pretrained=str(folder / "folder"))
    with pytest.raises(BadRequest, match="does not hold weights of 'ddpm8'"):
        build("ddpm8", COLOUR, pretrained=str(folder / "unet.safetensors"))
    with pytest.raises(BadRequest, match="no weights at nowhere"):
        build("ddpm8", GREY, pretrained="nowhere")
    (folder / "empty").mkdir()
    with pytest.raises(BadRequest, match="is no folder of a diffusers UNet2DModel"):
        build("ddpm8", GREY, pretrained=str(folder / "empty"))


def test_released_weights(monkeypatch):
    with pytest.raises(BadRequest, match="'ddpm8' has no released weights"):
        build("ddpm8", GREY, pretrained="released")

    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(UNet2DModel, "from_pretrained", offline)
    with pytest.raises(
        BenchError, match=r"google/ddpm-cifar10-32 could not be downloaded.*no route"
    ):
        build("ddpm32", Shape(3, 32, 0), pretrained="released")


def test_the_released_architecture():
    """DDPM's own count for CIFAR-10 (Ho et al. 2020, appendix B): 35.7 million parameters."""
    with torch.device("meta"):
        model = build("ddpm32", Shape(3, 32, 0))
    assert sum(parameter.numel() for parameter in model.parameters()) == 35_746_307


# Requests ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fid_images": 19}, "fid_images is 19, expected at least 20"),
        ({"steps": 1001}, "steps is 1001"),
        ({"sampler": "ddpm"}, "unknown sampler 'ddpm'"),
        ({"ema": 1.0}, "ema is 1.0"),
        ({"feature_network": "vit_tiny"}, "unknown feature network"),
        ({"feature_network": "inception", "feature_weights": "nowhere"}, "no file nowhere"),
        ({"val_size": 100}, "val_size"),
        ({"draw_precision": "half"}, "unknown draw_precision"),
    ],
)
def test_settings_that_cannot_be_met(settings, message):
    with pytest.raises(BadRequest, match=message):
        make(**settings)


def test_an_image_that_the_network_cannot_halve():
    with pytest.raises(BadRequest, match="a multiple of 8, not 28"):
        build("ddpm32", Shape(1, 28, 0))


def test_the_number_of_images_is_in_the_command_and_in_the_key():
    task = make(fid_images=30)
    assert task.size("train") == task.size("val") == 30
    request = Request(
        task="digits-ddpm", generator="pdiff", task_settings={"fid_images": 30}, k=40, samples=100
    )
    assert request.asked.command.endswith("--generator pdiff --fid-images 30")


def test_images_drawn_otherwise_are_never_ranked_together(run):
    record, _, _ = run
    for name, value in (("steps", 3), ("sampler", "dpm-solver++"), ("draw_precision", "bfloat16")):
        settings = {**SMALL, "feature_network": "convnet3", name: value}
        other = record.task.model_copy(update={"settings": make(**settings).identity()})
        assert comparability_key(other, record.zoo, record.protocol) != record.key
    same = record.task.model_copy(update={"settings": make().identity()})
    assert comparability_key(same, record.zoo, record.protocol) == record.key


def test_real_images_are_seen_once_by_all_runs(zoo, monkeypatch):
    first = make().scorer(zoo, "val")(zoo.vectors).scores
    monkeypatch.setattr(image_scoring.Reference, "of", None)  # calling it would fail
    assert torch.equal(make().scorer(zoo, "val")(zoo.vectors).scores, first)


# Whole runs ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A record of a whole run, its file and its store."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_HOME", str(folder / "home"))
        patch.setattr(image_generation, "CLASSIFIER_EPOCHS", 1)
        request = Request(
            task="digits-ddpm", generator="gaussian", task_settings=SMALL, k=5, samples=4, held_out=3,
            results=folder / "results", device="cpu",
        )  # fmt: skip
        record, path = pipeline.run(request)
    return record, path, folder


def test_a_record_of_images(run):
    record, path, _ = run
    assert record.task.metric == Metric(
        "fd-convnet3", higher_is_better=False, resampled="jackknife"
    )
    assert record.protocol.selection.startswith("lowest train score")
    assert (record.protocol.train_size, record.protocol.val_size) == (20, 20)
    generated = record.generated
    assert generated.best == min(generated.values)
    assert generated.worst == max(generated.values)
    assert set(generated.further) == {"fd-convnet3 unbiased", "kd-convnet3", "precision", "recall"}
    assert record.judge.tests is None
    assert check.check(path) == []
    assert Record.read(path) == record


def test_what_is_said_of_images(run):
    record, _, _ = run
    text = "\n".join(report.sentences(record))
    assert "fd-convnet3 of 20 images is too large" in text
    shown = report.picture(record, "r/k/i.json")
    assert "overlap" in shown
    assert "IoU" not in shown
    assert "kd-convnet3" in shown


def test_a_side_file_of_images_has_similarities_and_no_outcomes(run):
    _, path, _ = run
    arrays = side.read(path.with_suffix(".npz"))
    assert not [name for name in arrays if name.startswith("right_")]
    assert arrays["nearest.copy"].max() == 1
    assert np.array_equal(arrays["iou"], arrays["iou"].T)


def test_verifying_a_record_of_images_finds_the_one_field_that_was_changed(run, monkeypatch):
    _, path, folder = run
    monkeypatch.setenv("BENCH_HOME", str(folder / "home"))
    data = json.loads(path.read_text())
    data["populations"]["generated"]["further"]["recall"]["mean"] += 1e-6
    other = Record.model_validate_json(json.dumps(data))
    checks = verify(other, side_file=path.with_suffix(".npz"), from_seed=True)
    assert [one.field for one in checks if one.problem] == [
        "populations.generated.further.recall.mean"
    ]
