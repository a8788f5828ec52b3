"""Names for the kinds of arrays that this package passes around."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]  # of patients or pictures
Labels = npt.NDArray[np.int64]  # 1 malignant, 0 reactive
Classes = npt.NDArray[np.int64]  # cell classes
Booleans = npt.NDArray[np.bool_]
Pixels = npt.NDArray[np.uint8]  # (..., height, width, 3) red, green, blue
