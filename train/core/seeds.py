"""One seed for each part of a run, whatever ran before."""

import zlib

import numpy as np
import torch


def seeded(seed: int, part: str) -> np.random.Generator:
    """Seed torch for one part of a run and return a generator for it, whatever ran before."""
    code = zlib.crc32(f"{seed} {part}".encode())
    torch.manual_seed(code)
    return np.random.default_rng(code)
