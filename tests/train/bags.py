"""Bags created in memory, for tests without files."""

from collections.abc import Sequence

import numpy as np
import torch

from train.data.bags import Bags


def make_bags(labels: Sequence[int], images: Sequence[int], *, seed: int = 0, size: int = 2) -> Bags:
    """Patients p0, p1, ... with random pictures 0.png, 1.png, ... of `size` pixels and random clinical values."""
    rng = np.random.default_rng(seed)
    number = len(labels)
    clinical = np.stack([rng.integers(0, 2, number), rng.uniform(4, 40, number), rng.uniform(20, 90, number)], axis=1)
    return Bags(
        crops=torch.from_numpy(rng.integers(0, 256, (sum(images), size, size, 3), dtype=np.uint8)),
        offsets=np.concatenate([[0], np.cumsum(images)]).astype(np.int64),
        patient_ids=[f"p{index}" for index in range(number)],
        image_names=[f"{index}.png" for count in images for index in range(count)],
        labels=np.array(labels, dtype=np.int64),
        clinical=clinical.astype(np.float32),
        facts={"table_sha256": "0", "reference_date": "2019-07-01"},
    )
