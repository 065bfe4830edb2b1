import pytest
import torch
from safetensors.torch import save_file

from bench.contract import registry
from bench.errors import BadRequest
from tasks.networks.layers import select
from tests.networks import Shape, build

NAMES = [one.name for one in registry.architectures().values() if one.form == "labels"]


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("arch", "shape", "count"),
    [
        ("convnet3", Shape(3, 32, 10), 24_714),
        ("convnet3", Shape(3, 32, 100), 70_884),
        ("mlp3", Shape(3, 32, 10), 155_135),
        ("mlp3", Shape(1, 28, 10), 39_760),
        ("mlp_32_32", Shape(1, 28, 10), 26_506),
        ("resnet20", Shape(3, 32, 10), 272_474),
        ("modelzoo_small", Shape(1, 28, 10), 2_464),
        ("modelzoo_small_gelu", Shape(3, 28, 10), 2_864),
        ("modelzoo_large", Shape(3, 32, 10), 10_853),
    ],
)
def test_parameter_counts_follow_the_papers_layers(arch, shape, count):
    assert parameters(build(arch, shape)) == count


def test_networks_of_model_zoos_have_the_names_of_their_files():
    for arch, numbers in (
        ("modelzoo_small", (0, 3, 6, 9, 11)),
        ("modelzoo_large", (0, 4, 8, 13, 16)),
    ):
        model = build(arch, Shape(3, 32, 10))
        names = [f"module_list.{i}.{kind}" for i in numbers for kind in ("weight", "bias")]
        assert list(model.state_dict()) == names
    with pytest.raises(BadRequest, match="takes images of 22 pixels a side or more"):
        build("modelzoo_large", Shape(3, 21, 10))
    with pytest.raises(BadRequest, match="takes images of 20 pixels a side or more"):
        build("modelzoo_small", Shape(1, 19, 10))


def test_networks_of_deepweightflow_have_the_names_of_their_files():
    mlp = build("mlp_32_32", Shape(1, 28, 10))
    assert list(mlp.state_dict()) == [
        f"fc{i}.{kind}" for i in (1, 2, 3) for kind in ("weight", "bias")
    ]
    shortcuts = {
        n for n, _ in build("resnet20", Shape(3, 8, 10)).named_parameters() if "shortcut" in n
    }
    assert shortcuts == {
        f"layer{i}.0.shortcut.{name}" for i in (2, 3) for name in ("0.weight", "1.weight", "1.bias")
    }


@pytest.mark.parametrize("arch", NAMES)
@pytest.mark.parametrize("size", [8, 32])
def test_small_images_give_logits(arch, size):
    if arch in ("vit_base", "convnext_base", "resnet50") and size == 8:
        pytest.skip("the smaller sibling covers it")
    if arch.startswith("modelzoo") and size == 8:
        pytest.skip("it takes larger images")
    model = build(arch, Shape(3, size, 7))
    with torch.inference_mode():
        assert model(torch.randn(2, 3, size, size)).shape == (2, 7)


def test_a_resnet_keeps_the_resolution_of_small_images():
    model = build("resnet18", Shape(3, 32, 10))
    assert model.conv1.kernel_size == (3, 3)
    assert model.conv1.stride == (1, 1)
    assert isinstance(model.maxpool, torch.nn.Identity)
    assert build("resnet18", Shape(3, 224, 10)).conv1.kernel_size == (7, 7)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_pretrained_weights_from_a_local_file_with_another_number_of_classes(tmp_path, suffix):
    source = build("resnet18", Shape(3, 224, 1000)).state_dict()
    path = tmp_path / f"weights{suffix}"
    torch.save(source, path) if suffix == ".pth" else save_file(source, path)
    model = build("resnet18", Shape(3, 64, 5, released=True), pretrained=str(path))
    assert torch.equal(model.layer4[1].conv2.weight, source["layer4.1.conv2.weight"])
    assert torch.equal(model.conv1.weight, source["conv1.weight"])
    assert model.fc.weight.shape == (5, 512)


def test_weights_of_another_architecture_are_one_clear_line(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"something": torch.zeros(3)}, path)
    with pytest.raises(BadRequest, match="does not hold weights of 'resnet18'"):
        build("resnet18", Shape(3, 224, 5, released=True), pretrained=str(path))
    with pytest.raises(BadRequest, match="has no pretrained weights"):
        build("mlp3", Shape(3, 32, 5), pretrained=str(path))


def test_default_layers_are_the_papers_2048_parameters():
    model = build("resnet18", Shape(3, 32, 100))
    names = select(model, "last-norms:2")
    assert names == tuple(
        f"layer4.1.{norm}.{kind}" for norm in ("bn1", "bn2") for kind in ("weight", "bias")
    )
    for pattern in ("norms:10-14", "norms:14-16", "norms:16-18"):
        chosen = select(model, pattern)
        assert sum(model.get_parameter(name).numel() for name in chosen) == 2048, pattern
    assert select(model, "norms:16-18") == names


def test_other_patterns():
    model = build("resnet18", Shape(3, 32, 100))
    everything = [name for name, _ in model.named_parameters()]
    assert select(model, "all") == tuple(everything)
    assert select(model, "linear") == ("fc.weight", "fc.bias")
    assert select(model, "conv:first") == ("conv1.weight",)
    assert select(model, "shortcut") == tuple(
        f"layer2.0.downsample.{name}" for name in ("0.weight", "1.weight", "1.bias")
    )
    assert select(model, "fc.bias, conv1.*") == ("conv1.weight", "fc.bias")


@pytest.mark.parametrize("arch", ["vit_tiny", "convnext_tiny", "resnet50"])
def test_last_norms_of_every_family(arch):
    model = build(arch, Shape(3, 32, 10))
    assert len(select(model, "last-norms:2")) == 4


@pytest.mark.parametrize(
    ("arch", "pattern", "message"),
    [
        ("resnet18", "last-norm:2", "match no parameter"),
        ("resnet18", "last-norms:99", "the model has 20 normalization layers"),
        ("resnet18", "last-norms:0", "the model has 20 normalization layers"),
        ("resnet18", "norms:9-99", "expected 1 <= A < B <= 18"),
        ("mlp3", "last-norms:2", "the model has 0 normalization layers; choose all"),
        ("mlp3", "conv:first", "match no parameter"),
    ],
)
def test_a_bad_pattern_is_explained(arch, pattern, message):
    with pytest.raises(BadRequest, match=message):
        select(build(arch, Shape(3, 32, 10)), pattern)
