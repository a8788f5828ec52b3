"""A picture's crop in one call, as tests want it."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from infer.pictures.decode import decode_crop, read_picture


def read_crop(path: Path, root: Path, size: int) -> npt.NDArray[np.uint8]:
    """The central `size` x `size` pixels of a picture file in the resolved folder `root`."""
    return decode_crop(read_picture(path, root), size)[0]
