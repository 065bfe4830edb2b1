"""The suite's architectures, and how each is trained. Imports nothing heavy: ``bench list`` reads it."""

from typing import Any

from bench.contract.declarations import Architecture

_SMALL = {"lr": 0.1, "precision": "float32"}
_RESNET = {"lr": 0.1, "precision": "auto"}
_MODERN = {"lr": 1e-3, "optimizer": "adamw", "weight_decay": 0.05, "precision": "auto"}
_DETECTOR = {"lr": 3e-3, "optimizer": "adamw", "weight_decay": 0.05, "precision": "float32"}
# As torchvision's references, for 8 images a step.
_PYRAMID = {"lr": 0.01, "weight_decay": 1e-4, "precision": "float32"}
_DIFFUSION = {"optimizer": "adamw", "weight_decay": 0.0}
# As DeepWeightFlow's: Adam.
_ADAM = {"lr": 1e-3, "optimizer": "adamw", "weight_decay": 0.0, "precision": "float32"}
# Normalization statistics of one trained network differ between units; networks of independent runs have none.
_NORMALIZED = ("seeds",)
_PLAIN = ("trajectory", "seeds")


def _paper(name: str, about: str, alignable: tuple[str, ...]) -> Architecture:
    return Architecture(
        name=name,
        target=f"tasks.networks.paper:{name}",
        about=about,
        form="labels",
        recipe=_SMALL,
        alignable=alignable,
    )


def _modelzoo(name: str, size: str, activation: str, about: str) -> Architecture:
    return Architecture(
        name=name,
        target=f"tasks.networks.modelzoo:{size}",
        about=f"{size} CNN of Model Zoos, {activation}; {about}",
        form="labels",
        options={"activation": activation},
        recipe=_ADAM,
        alignable=_PLAIN,
    )


def _timm(name: str, model: str, remark: str, recipe: dict[str, Any]) -> Architecture:
    return Architecture(
        name=name,
        target="tasks.networks.timm_models:build",
        about=f"timm {model}; {remark}",
        form="labels",
        options={"model": model},
        recipe=recipe,
        loads=True,
        alignable=_NORMALIZED if model.startswith("resnet") else (),
    )


def _detector(name: str, about: str, recipe: dict[str, Any], *, loads: bool) -> Architecture:
    return Architecture(
        name=name,
        target=f"tasks.networks.detectors:{name}",
        about=about,
        form="boxes",
        alignable=(),
        recipe=recipe,
        loads=loads,
        forward="tasks.networks.detectors:forward",
    )


def _fcn(name: str, about: str, recipe: dict[str, Any]) -> Architecture:
    return Architecture(
        name=name,
        target=f"tasks.networks.fcn:{name}",
        about=about,
        form="masks",
        alignable=(),
        recipe=recipe,
        multiple=8,
        loads=True,
    )


def _ddpm(name: str, about: str, recipe: dict[str, Any], multiple: int) -> Architecture:
    return Architecture(
        name=name,
        target="tasks.networks.unets:build",
        about=about,
        form="noise",
        alignable=(),
        options={"config": name},
        recipe={**_DIFFUSION, **recipe},
        multiple=multiple,
        loads=True,
        forward="tasks.networks.unets:forward",
    )


_STEM = "3x3 stem up to 64 x 64 pixels"
_PATCHES = "smaller patches on small images"

_DECLARED = (
    _paper(
        "mlp3",
        "MLP-3 of the paper: 3072-50-25-10 on colour, 784-50-10 on grey images",
        _PLAIN,
    ),
    _paper(
        "convnet3",
        "ConvNet-3 of the paper: three blocks conv3x3(32)-BN-ReLU-maxpool, then linear",
        _NORMALIZED,
    ),
    Architecture(
        name="mlp_32_32",
        target="tasks.networks.deepweightflow:mlp_32_32",
        about="MLP of DeepWeightFlow: 784-32-32-10 on MNIST",
        form="labels",
        recipe=_ADAM,
        alignable=_PLAIN,
    ),
    Architecture(
        name="resnet20",
        target="tasks.networks.deepweightflow:resnet20",
        about="ResNet-20 for CIFAR, 272 thousand parameters, as DeepWeightFlow's",
        form="labels",
        options={"width": 16},
        recipe=_RESNET,
        alignable=_NORMALIZED,
    ),
    _modelzoo("modelzoo_small", "small", "tanh", "MNIST, Fashion-MNIST, USPS, SVHN, STL-10"),
    _modelzoo("modelzoo_small_gelu", "small", "gelu", "CIFAR-10 of 28 pixels a side"),
    _modelzoo("modelzoo_large", "large", "gelu", "CIFAR-10"),
    _modelzoo("modelzoo_large_tanh", "large", "tanh", "STL-10 of 32 pixels a side"),
    _timm("resnet18", "resnet18", _STEM, _RESNET),
    _timm("resnet50", "resnet50", _STEM, _RESNET),
    _timm("vit_tiny", "vit_tiny_patch16_224", _PATCHES, _MODERN),
    _timm("vit_base", "vit_base_patch16_224", _PATCHES, _MODERN),
    _timm("convnext_tiny", "convnext_tiny", _PATCHES, _MODERN),
    _timm("convnext_base", "convnext_base", _PATCHES, _MODERN),
    _detector(
        "fasterrcnn_small",
        "torchvision's Faster R-CNN over five convolutions, for images of 80 pixels",
        _DETECTOR,
        loads=False,
    ),
    _detector(
        "fcos_small",
        "torchvision's FCOS over five convolutions, for images of 80 pixels",
        _DETECTOR,
        loads=False,
    ),
    _detector(
        "fasterrcnn_resnet50_fpn",
        "torchvision's Faster R-CNN over ResNet-50 with a feature pyramid",
        _PYRAMID,
        loads=True,
    ),
    _detector(
        "fcos_resnet50_fpn",
        "torchvision's FCOS over ResNet-50 with a feature pyramid",
        _PYRAMID,
        loads=True,
    ),
    _fcn(
        "fcn_small",
        "FCN over six convolutions, for images of 80 pixels",
        {"lr": 3e-3, "optimizer": "adamw", "weight_decay": 0.01},
    ),
    _fcn(
        "fcn_resnet50",
        "torchvision's FCN over ResNet-50",
        # torchvision's own rate, 0.02 for batches of 32, scaled to batches of 8.
        {"lr": 5e-3, "weight_decay": 1e-4, "precision": "auto"},
    ),
    _ddpm(
        "ddpm32",
        "diffusers UNet2DModel as google/ddpm-cifar10-32, 35.7 million parameters",
        {"lr": 2e-4, "precision": "auto"},
        multiple=8,
    ),
    _ddpm(
        "ddpm8",
        "diffusers UNet2DModel for 8 x 8 images, 164 thousand parameters",
        {"lr": 4e-3, "precision": "float32"},
        multiple=2,
    ),
)

ARCHITECTURES = {one.name: one for one in _DECLARED}
