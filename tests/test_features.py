"""The networks of features: InceptionV3 against torch-fidelity, and classifiers."""

import urllib.error

import pytest
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from bench import plugins
from bench.contract.zoo import Layout, Zoo
from bench.errors import BadRequest, BenchError
from bench.metrics import frechet as fd
from tasks import image_generation
from tasks.fast import features
from tests.standins import image_data, untrained_inception


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    """Weights of the reference implementation's network, drawn at random."""
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    untrained_inception(path)
    return path


def test_the_distance_through_inception_is_torch_fidelitys(inception_file):
    data = image_data("fake", train=3, val=4)
    network = features.inception(str(inception_file), "cpu")
    found = [network(split.images) for split in (data.train, data.val)]
    theirs = FeatureExtractorInceptionV3(
        "theirs", ["2048"], feature_extractor_weights_path=str(inception_file)
    )
    for ours, split in zip(found, (data.train, data.val), strict=True):
        assert ours.shape == (len(split.labels), 2048)
        assert torch.equal(ours, theirs(split.images.expand(-1, 3, -1, -1))[0])
        assert (ours >= 0).all()
    distance = fd.frechet(*map(fd.Gaussian.of, found))
    assert distance.item() == pytest.approx(by_singular_values(*found), rel=1e-6)
    few = [one[:, :128].double() for one in found]  # all would take them half a minute
    expected = fid_statistics_to_metric(*map(fid_features_to_statistics, few), verbose=False)
    distance = fd.frechet(*map(fd.Gaussian.of, few))
    assert distance.item() == pytest.approx(expected["frechet_inception_distance"], rel=1e-6)


def by_singular_values(a, b):
    """The distance of few images: tr (C1 C2)^(1/2) is the sum of the singular values of their centred products."""
    a, b = (x.double() for x in (a, b))
    x, y = ((one - one.mean(0)) / (len(one) - 1) ** 0.5 for one in (a, b))
    common = torch.linalg.svdvals(x @ y.T).sum()
    apart = (a.mean(0) - b.mean(0)).square().sum()
    return float(apart + x.square().sum() + y.square().sum() - 2 * common)


def test_weights_that_were_used_are_found_again_by_their_hash(inception_file):
    known = features.weights_identity(str(inception_file))
    images = image_data("fake", train=2).train.images
    first = features.inception(str(inception_file), "cpu")(images)
    assert torch.equal(features.inception(known, "cpu")(images), first)


def test_only_the_reference_weights_give_an_fid(inception_file, monkeypatch):
    other = features.metric("inception", str(inception_file))
    known = features.weights_identity(str(inception_file))
    assert other == f"fd-inception-{known[:8]}"
    assert features.metric("inception", "released") == "FID"
    monkeypatch.setattr(features, "REFERENCE", known[:8])
    assert features.metric("inception", str(inception_file)) == "FID"
    assert features.metric("convnet3", "released") == "fd-convnet3"


def test_a_file_of_other_weights_is_refused(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"weight": torch.zeros(3)}, path)
    for _ in range(2):  # and stays so: nothing of it is kept
        with pytest.raises(BadRequest, match="does not hold weights of InceptionV3"):
            features.inception(str(path), "cpu")


def test_code_in_a_file_of_weights_does_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    torch.save({"weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(BadRequest, match="cannot be read as plain weights"):
        features.inception(str(tmp_path / "evil.pth"), "cpu")


def test_weights_that_are_not_there():
    with pytest.raises(BadRequest, match="no file nowhere: expected 'released'"):
        features.metric("inception", "nowhere")
    with pytest.raises(BadRequest, match="give the file"):
        features.inception("0" * 64, "cpu")


def test_without_a_network_the_error_says_what_to_do(monkeypatch):
    def offline(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(
        BenchError, match=r"could not be downloaded.*feature_weights=FILE.*=convnet3"
    ):
        features.inception("released", "cpu")


@pytest.mark.parametrize(("arch", "dim"), [("convnet3", 32), ("resnet18", 512)])
def test_a_classifiers_features(arch, dim, monkeypatch):
    monkeypatch.setattr(image_generation, "CLASSIFIER_EPOCHS", 1)
    settings = {"dataset": "fake", "feature_network": arch, "fid_images": 20}
    task, again = (plugins.load_task("digits-ddpm", "quick", settings) for _ in range(2))
    network = task.network(None)
    images = image_data("fake").val.images
    found = network(images)
    assert found.shape == (len(images), dim)
    assert (found >= 0).all()
    assert found.std(0).max() > 0
    base = {f"features.{name}": tensor for name, tensor in network.tensors.items()}
    zoo = Zoo(torch.zeros(1, 1), Layout(("a",), ((1,),)), base)
    for other in (again.network(None), again.network(zoo)):
        assert other.identity == network.identity
        assert torch.equal(other(images), found)
