"""A separate random seed for each part of a run, independent of what ran before."""

import zlib

import numpy as np
import torch


def seeded(seed: int, part: str) -> np.random.Generator:
    """Seed torch for one part of a run and return a NumPy generator for it, independent of what ran before."""
    code = zlib.crc32(f"{seed} {part}".encode())
    torch.manual_seed(code)
    return np.random.default_rng(code)
