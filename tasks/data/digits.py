"""``digits``: the handwritten digits that ship with scikit-learn.

The 1,797 images (values 0..16 scaled to 0..255) are split by ``train_test_split(..., train_size=1000, stratify=labels,
random_state=0)``.
"""

from pathlib import Path

import numpy as np
import torch

from bench.contract.declarations import DataSet
from tasks.data.labelled import ImageData, Split


def load(data_set: DataSet, data_dir: Path | None) -> ImageData:
    """Return 1,000 training and 797 validation images of 8x8, 1 channel."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    images = np.rint(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    parts = train_test_split(
        np.arange(len(labels)), train_size=1000, stratify=labels, random_state=0
    )
    train, val = (
        Split(torch.from_numpy(images[part]), torch.from_numpy(labels[part]).long())
        for part in parts
    )
    return ImageData.of(data_set.name, train, val, tuple(map(str, range(10))))
