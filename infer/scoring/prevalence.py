"""A bundle's probabilities for patients of whom another share is malignant.

A probability holds only where as many patients are malignant as among those it was fitted on. Where another share is,
and everything else is the same, all log odds move by the same amount (Saerens, Latinne & Decaestecker 2002). Thresholds
move with them, so no decision changes: an operating point is defined by whom it finds, which does not depend on how
many there are.
"""

import math
from dataclasses import replace

import msgspec

from infer.bundle.load import Bundle
from infer.bundle.manifest import Calibration, Manifest, OperatingPoint
from infer.bundle.reference import ClinicalAlone

LARGEST = 700.0  # log odds: beyond, exp overflows
AS_IT_IS = Calibration(slope=1.0, intercept=0.0)


def at_prevalence(manifest: Manifest, share: float) -> Manifest:
    """The manifest of a bundle as it is on the disk, with probabilities that hold at another prevalence.

    Args:
        share: of malignant patients among those to be scored, above 0 and below 1.
    """
    shift = log_odds_of(share) - log_odds_of(manifest.prevalence)
    clinical = msgspec.structs.replace(
        manifest.reference.clinical, intercept=manifest.reference.clinical.intercept + shift
    )
    moved = recalibrate(manifest, Calibration(slope=1.0, intercept=shift), clinical)
    if moved.adapted:
        moved = msgspec.structs.replace(moved, adapted=msgspec.structs.replace(moved.adapted, prevalence=share))
    return moved


def bundle_at(bundle: Bundle, share: float | None) -> Bundle:
    """A bundle with probabilities that hold at another prevalence; as it is on the disk where none is given."""
    return bundle if share is None else replace(bundle, manifest=at_prevalence(bundle.manifest, share))


def recalibrate(manifest: Manifest, by: Calibration, clinical: ClinicalAlone) -> Manifest:
    """The manifest with all log odds of the ensemble moved, and the same decisions.

    Args:
        by: log odds -> slope * log odds + intercept, on top of what the bundle does.
        clinical: what sex, age and count alone say from now on.
    """
    ensemble, reference = manifest.ensemble, manifest.reference
    before = ensemble.recalibration or AS_IT_IS
    return msgspec.structs.replace(
        manifest,
        ensemble=msgspec.structs.replace(
            ensemble,
            recalibration=Calibration(by.slope * before.slope, by.slope * before.intercept + by.intercept, before.clip),
            operating_points={
                name: OperatingPoint(moved(point.refer_low, by), moved(point.refer_high, by))
                for name, point in ensemble.operating_points.items()
            },
        ),
        reference=msgspec.structs.replace(
            reference,
            measures=reference.measures
            | {"probability": [moved(one, by) for one in reference.measures["probability"]]},
            clinical=clinical,
        ),
    )


def moved(probability: float, by: Calibration) -> float:
    """A probability, or a threshold, in the new log odds; 0 and 1 stay."""
    if probability in (0.0, 1.0):
        return probability
    odds = by.slope * log_odds_of(probability) + by.intercept
    return 1 / (1 + math.exp(-min(max(odds, -LARGEST), LARGEST)))


def log_odds_of(share: float) -> float:
    """Log odds of a share above 0 and below 1."""
    return math.log(share) - math.log1p(-share)
