"""What is usual, from a hospital's own patients instead of the training patients.

Their pictures may differ from the training pictures in a way that does not matter, as validation has shown: then the
bundle must not hold up everybody for it. A patient is compared with the patients on whom it has been tried.
"""

import msgspec

from export.adapting.local import Local
from export.adapting.recalibration import recalibrate
from export.reference import reference_of
from infer.bundle.manifest import Drift, Manifest
from infer.bundle.reference import LABELS, ClinicalAlone, Reference
from infer.cohort.plausible import Range
from train.core.arrays import Floats


def local_reference(manifest: Manifest, local: Local, probability: Floats, clinical: ClinicalAlone) -> Reference:
    """The section on these patients.

    Args:
        probability: (P,) recalibrated, of patients who had no part in the fit.
        clinical: what sex, age and count alone say.
    """
    known = manifest.reference
    found = {name: local.measures[name] for name in known.measures if name in local.measures}
    of_members = {name: found[name] for name in known.by_label[LABELS[0]] if name in found}
    found["probability"] = probability
    return reference_of(found, of_members, local.labels, clinical, known.seen, known.appearance, known.usual.limit)


def recalibrated_clinical(manifest: Manifest, local: Local, what: str) -> ClinicalAlone:
    """Sex, age and count alone, recalibrated as the ensemble is."""
    known = manifest.reference.clinical
    fitted = recalibrate(local.alone, local.labels, manifest.prevalence, what)
    return ClinicalAlone(
        female=fitted.slope * known.female,
        log_count=fitted.slope * known.log_count,
        age_years=fitted.slope * known.age_years,
        intercept=fitted.slope * known.intercept + fitted.intercept,
    )


def with_sizes(drift: Drift, local: Local) -> Drift:
    """The range of picture sizes, widened to these patients'."""
    widths, heights = ([size[side] for size in local.sizes] for side in (0, 1))
    return msgspec.structs.replace(
        drift,
        picture_width=_widened(drift.picture_width, widths),
        picture_height=_widened(drift.picture_height, heights),
    )


def _widened(known: Range, sides: list[int]) -> Range:
    return Range(min([known.low, *sides]), max([known.high, *sides]))
