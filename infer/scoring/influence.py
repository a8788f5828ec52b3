"""By how much each picture moves its patient's result: exact, because every member takes means or shares over pictures.

The influence of a picture is the log odds of malignancy with all pictures minus the log odds without this one. Above
0, its presence speaks for malignant.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from infer.bundle.manifest import Ensemble
from infer.members.member import Opinion
from infer.scoring.ensemble import calibrated_logit, log_odds

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Influences:
    """Of each picture, in the order in which they were added."""

    ensemble: Floats  # (N,) in the ensemble's log odds
    members: dict[str, Floats]  # (N,) each, in the member's own calibrated log odds


def influences(opinions: Mapping[str, Opinion], ensemble: Ensemble, pictures: int) -> Influences | None:
    """The influence of each picture of a patient; None for a patient of one picture.

    Args:
        opinions: by member, over all the patient's pictures.
        pictures: their number.

    Raises:
        ValueError: a member left out no picture, or not each once.
    """
    for name, opinion in opinions.items():
        if len(opinion.without) != (pictures if pictures > 1 else 0):
            raise ValueError(f"{name}: {len(opinion.without)} probabilities without a picture, for {pictures} pictures")
    if pictures == 1:
        return None
    # (1 + N,) each: all pictures, then without each in turn
    logits = {
        name: calibrated_logit(np.array([opinion.probability, *opinion.without]), ensemble.calibration[name])
        for name, opinion in opinions.items()
    }
    odds = log_odds(logits, ensemble)
    slope = ensemble.recalibration.slope if ensemble.recalibration else 1.0
    return Influences(
        slope * (odds[0] - odds[1:]), {name: slope * (logit[0] - logit[1:]) for name, logit in logits.items()}
    )
