"""One number per patient of what scoring measures before any network: in the pictures, and of the patient."""

import numpy as np
import pandas as pd

from infer.pictures.measure import CENTRE, JPEG_QUALITY, measured
from train.core.arrays import Floats
from train.data.bags import Bags


def of_patients(bags: Bags) -> dict[str, Floats]:
    """Sex (1 female), count in 10^9/L, age in years, number of pictures: (P,) each."""
    sex, count, age = bags.clinical.astype(np.float64).T
    pictures = np.diff(bags.offsets).astype(np.float64)
    return {"sex": sex, "lymph_count": count, "age_years": age, "pictures": pictures}


def of_pictures(bags: Bags) -> dict[str, Floats]:
    """Each patient's means (P,) of what is measured on pictures; of the JPEG quality only if all are JPEGs."""
    table = pd.DataFrame([measured(crop) for crop in bags.crops.cpu().numpy()]).drop(columns=CENTRE)
    if bags.jpeg_quality is not None and not np.isnan(bags.jpeg_quality).any():
        table[JPEG_QUALITY] = bags.jpeg_quality
    return {str(name): np.array([table[name][a:b].mean() for a, b in bags.ranges()]) for name in table}
