"""The named tasks, and how each architecture is trained on them. Imports nothing heavy: ``bench list`` reads it."""

from typing import Any

from bench.contract.declarations import Variant

ARCHITECTURES = {
    "mlp3": "MLP-3 of the paper: 3072-50-25-10 on colour, 784-50-10 on grey images",
    "convnet3": "ConvNet-3 of the paper: three blocks conv3x3(32)-BN-ReLU-maxpool, then linear",
    "resnet18": "timm resnet18; 3x3 stem up to 64 x 64 pixels",
    "resnet50": "timm resnet50; 3x3 stem up to 64 x 64 pixels",
    "vit_tiny": "timm vit_tiny_patch16_224; smaller patches on small images",
    "vit_base": "timm vit_base_patch16_224; smaller patches on small images",
    "convnext_tiny": "timm convnext_tiny; smaller patches on small images",
    "convnext_base": "timm convnext_base; smaller patches on small images",
    "fasterrcnn_small": "torchvision's Faster R-CNN over five convolutions, for images of 80 pixels",
    "fcos_small": "torchvision's FCOS over five convolutions, for images of 80 pixels",
    "fasterrcnn_resnet50_fpn": "torchvision's Faster R-CNN over ResNet-50 with a feature pyramid",
    "fcos_resnet50_fpn": "torchvision's FCOS over ResNet-50 with a feature pyramid",
    "fcn_small": "FCN over six convolutions, for images of 80 pixels",
    "fcn_resnet50": "torchvision's FCN over ResNet-50",
    "ddpm32": "diffusers UNet2DModel as google/ddpm-cifar10-32, 35.7 million parameters",
    "ddpm8": "diffusers UNet2DModel for 8 x 8 images, 164 thousand parameters",
}

_SMALL = {"lr": 0.1, "precision": "float32"}
_RESNET = {"lr": 0.1, "precision": "bfloat16"}
_DETECTOR = {"lr": 3e-3, "optimizer": "adamw", "weight_decay": 0.05, "precision": "float32"}
# As torchvision's references, for 8 images a step.
_PYRAMID = {"lr": 0.01, "weight_decay": 1e-4, "precision": "float32"}
_DIFFUSION = {"optimizer": "adamw", "weight_decay": 0.0}
_MODERN = {"lr": 1e-3, "optimizer": "adamw", "weight_decay": 0.05, "precision": "bfloat16"}

RECIPES: dict[str, dict[str, Any]] = {
    "mlp3": _SMALL,
    "convnet3": _SMALL,
    "resnet18": _RESNET,
    "resnet50": _RESNET,
    "vit_tiny": _MODERN,
    "vit_base": _MODERN,
    "convnext_tiny": _MODERN,
    "convnext_base": _MODERN,
    "fasterrcnn_small": _DETECTOR,
    "fcos_small": _DETECTOR,
    "fasterrcnn_resnet50_fpn": _PYRAMID,
    "fcos_resnet50_fpn": _PYRAMID,
    "fcn_small": {"lr": 3e-3, "optimizer": "adamw", "weight_decay": 0.01, "precision": "bfloat16"},
    # torchvision's own rate, 0.02 for batches of 32, scaled to batches of 8.
    "fcn_resnet50": {"lr": 5e-3, "weight_decay": 1e-4, "precision": "bfloat16"},
    "ddpm32": {**_DIFFUSION, "lr": 2e-4, "precision": "bfloat16"},
    "ddpm8": {**_DIFFUSION, "lr": 4e-3, "precision": "float32"},
}


def _classification(about: str, dataset: str, **settings: Any) -> Variant:
    return Variant("tasks.classification:Classification", about, {"dataset": dataset, **settings})


_PHOTOS = {"augment": "crop-flip"}
_GENERATION = "tasks.image_generation:ImageGeneration"

TASKS: dict[str, Variant] = {
    "digits": _classification(
        "handwritten digits of scikit-learn, 8 x 8 grey, 10 classes; embedded, no download",
        "digits",
        arch="convnet3",
        epochs=2,
        batch_size=25,
    ),
    "mnist": _classification("MNIST, 28 x 28 grey, 10 classes", "mnist", epochs=3),
    "cifar10": _classification("CIFAR-10, 32 x 32 colour, 10 classes", "cifar10", **_PHOTOS),
    "cifar100": _classification("CIFAR-100, 32 x 32 colour, 100 classes", "cifar100", **_PHOTOS),
    "stl10": _classification("STL-10, 96 x 96 colour, 10 classes", "stl10", **_PHOTOS),
    "flowers102": _classification("Flowers-102, 224 x 224, 102 classes", "flowers102", **_PHOTOS),
    "pets": _classification("Oxford-IIIT Pets, 224 x 224, 37 breeds", "pets", **_PHOTOS),
    "food101": _classification("Food-101, 224 x 224, 101 dishes", "food101", **_PHOTOS),
    "imagenet": _classification("ImageNet-1K, 224 x 224, 1000 classes", "imagenet", **_PHOTOS),
    "shapes": Variant(
        "tasks.detection:Detection",
        "boxes of five kinds of shapes in scenes of 80 x 80 that the suite draws; embedded",
        {"dataset": "shapes", "epochs": 18, "train_size": 200, "subset_lr": 3e-3},
        k=100,
        samples=50,
    ),
    "coco": Variant(
        "tasks.detection:Detection",
        "COCO, boxes of 80 categories, from released weights",
        {
            "dataset": "coco",
            "arch": "fasterrcnn_resnet50_fpn",
            "pretrained": "released",
            "epochs": 0,
            "batch_size": 4,  # within 4 GiB on a CPU
        },
    ),
    "shapes-seg": Variant(
        "tasks.segmentation:Segmentation",
        "classes of the pixels of the same scenes; embedded",
        {
            "layers": "head",
            "epochs": 50,
            "augment": "symmetries",
            "train_size": 200,
            "subset_lr": 3e-3,
        },
        k=100,
        samples=50,
    ),
    "coco-voc": Variant(
        "tasks.segmentation:Segmentation",
        "COCO, pixels of the 20 categories of PASCAL VOC, from released weights",
        {
            "dataset": "coco-voc",
            "arch": "fcn_resnet50",
            "layers": "backbone.layer4.2.bn2.*,backbone.layer4.2.bn3.*",
            "epochs": 0,
            "augment": "flip",
            "image_size": 520,
            "pretrained": "released",
            "train_size": 500,
        },
    ),
    "cifar10-ddpm": Variant(
        _GENERATION,
        "CIFAR-10 drawn by a DDPM UNet, scored by FID",
        {"dataset": "cifar10", "augment": "flip", "epochs": 10, "passes": 10},
    ),
    "digits-ddpm": Variant(
        _GENERATION,
        "digits drawn by a small DDPM UNet, scored by the Fréchet distance in a classifier's features; embedded",
        {
            "dataset": "digits",
            "arch": "ddpm8",
            "layers": "up_blocks.1.*norm*",
            "epochs": 20,
            "passes": 29,
            "subset_lr": 2e-3,
            "fid_images": 256,
            "sampler": "dpm-solver++",
            "steps": 12,
            "feature_network": "convnet3",
        },
        k=40,
        samples=24,
    ),
}
