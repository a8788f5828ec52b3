"""What the cell of each training picture looks like: its size, its nucleus, its chromatin and its outline, in numbers.

Measured on the outlined cell. `infer.pictures.measure` has a size too, but counts the red cells around: small
lymphocytes have more of these around them, so that there their nucleus seems to be a small part of the cell.
"""

import numpy as np
import pandas as pd

from infer.bundle.appearance import DENSITY, MEASURED, NUCLEUS, ROUNDNESS, SIZE, UNEVENNESS
from train.core.arrays import Pixels
from train.data.bags import Bags
from train.data.segmentation import Mask, find_cell


def of_cells(bags: Bags) -> pd.DataFrame:
    """A row (N) for each picture, columns MEASURED; empty (NaN) where no cell with a nucleus is found."""
    return pd.DataFrame([of_cell(crop) for crop in bags.crops.cpu().numpy()], columns=list(MEASURED), dtype=np.float64)


def of_cell(crop: Pixels) -> dict[str, float]:
    """MEASURED of the cell in a crop (H, W, 3) uint8; nothing if no cell with a nucleus is found."""
    cell = find_cell(crop)
    if cell is None or not cell.nucleus.any():
        return {}
    density = -np.log(cell.light[..., 1][cell.nucleus])
    return {
        SIZE: float(cell.whole.mean()),
        NUCLEUS: float(cell.nucleus.sum() / cell.whole.sum()),
        DENSITY: float(density.mean()),
        UNEVENNESS: float(density.std()),
        ROUNDNESS: roundness(cell.whole),
    }


def roundness(mask: Mask) -> float:
    """Area over 2 pi times the variance of its pixels' places: 1 for a disc, less for what is long or has corners.

    A pixel is a square, which has a variance of its own (1/6). The measure is 1 / (2 pi) over Hu's first invariant
    (Hu, IRE Transactions on Information Theory 1962).
    """
    y, x = np.nonzero(mask)
    return float(len(y) / (2 * np.pi * (y.var() + x.var() + 1 / 6)))
