"""A small valid manifest, and variants with one error."""

import json
from typing import Any

import msgspec

from infer.bundle.appearance import MEASURED, Appearance, ClassAppearance
from infer.bundle.manifest import (
    SCHEMA,
    Adapted,
    Calibration,
    Drift,
    Ensemble,
    Magnification,
    Manifest,
    OperatingPoint,
    Provenance,
    SelfTest,
    encode,
)
from infer.bundle.reference import LABELS, LEVELS, ClinicalAlone, Reference, Span, Spread, Usual
from infer.cohort.plausible import Plausible, Range
from infer.members.naive_bayes import NaiveBayes
from infer.members.registry import names
from tests.bundles import GRAPHS

CLASSES = 15
FEATURES = CLASSES + 6
RANGES = {"age_years": Range(15.0, 100.0), "lymph_count": Range(2.0, 350.0)}
USUAL = Usual(
    limit=0.03, spans={"sharpness": Span(0.5, 1.0, 2.0)}, ranges=RANGES, scores=[number / 100 for number in range(130)]
)
REFERENCE = Reference(
    patients=130,
    measures={"probability": list(LEVELS), "share_0": [0.5] * 50},
    by_label={label: {"share_0": Spread(0.25, 0.5, 0.75)} for label in LABELS},
    clinical=ClinicalAlone(female=-0.5, log_count=2.0, age_years=0.05, intercept=-7.0),
    usual=USUAL,
)
# A class with small and a class with large values, one like most; the others are too rare.
APPEARANCE = Appearance(
    quartiles={
        "cell_size": [0.3, 0.4, 0.5],
        "nucleus_share": [0.65, 0.75, 0.85],
        "chromatin_density": [1.5, 1.6, 1.7],
        "chromatin_unevenness": [0.3, 0.35, 0.4],
        "roundness": [0.9, 0.95, 0.98],
    },
    classes={
        f"share_{number}": ClassAppearance(20 + number, 200 + number, dict(zip(MEASURED, medians, strict=True)))
        for number, medians in enumerate(
            [(0.2, 0.6, 1.4, 0.2, 0.8), (0.6, 0.9, 1.8, 0.5, 0.99), (0.4, 0.75, 1.6, 0.35, 0.95)]
        )
    },
)
ADAPTED = Adapted(
    source="1" * 64,
    code_version="0.1.0",
    created="2026-02-03",
    fitted="prevalence, intercept, slope",
    prevalence=0.3,
    patients=60,
    malignant=18,
    table_sha256="2" * 64,
    seen="",
    pixel_size=None,
    reference=True,
)
PLAUSIBLE = Plausible(age_years=Range(0.0, 120.0), lymph_count=Range(0.0, 1000.0), minimum_images=10)


def make_manifest() -> Manifest:
    """All fields filled with arbitrary values."""
    return Manifest(
        schema=SCHEMA,
        provenance=Provenance(
            code_version="0.1.0",
            created="2026-01-02",
            recipe="test",
            seed=3,
            reference_date="2019-07-01",
            table_sha256="0" * 64,
            data_summary={"patients": 2, "malignant": 1, "reactive": 1, "images": 20},
            options={"epochs": "1"},
        ),
        graphs={name: f"{number:064x}" for number, name in enumerate(GRAPHS)},
        opset=20,
        crop_size=112,
        magnification=Magnification(network_size=224, pixel_size=0.1),
        members={
            "baseline": {},
            "scan": {
                "class_fusion": [min(number, CLASSES - 1) for number in range(20)],
                "naive_bayes": msgspec.to_builtins(make_naive_bayes()),
            },
            "moe": {},
            "imagenet": {},
        },
        ensemble=Ensemble(
            calibration={member: Calibration(slope=1.5, intercept=-0.25) for member in names()},
            weights={"baseline": 0.5, "scan": 0.25, "moe": 0.125, "imagenet": 0.125},
            operating_points={"balanced": OperatingPoint(refer_low=0.4, refer_high=0.6)},
        ),
        plausible=PLAUSIBLE,
        reference=REFERENCE,
        drift=Drift(rgb_mean=[200.0, 180.0, 190.0]),
        self_test=SelfTest(
            seed=1,
            images=2,
            clinical=[[0.0, 4.5, 40.0], [1.0, 7.5, 60.0]],
            expected={"baseline": [0.25, 0.75], "scan": [0.05] * 40},
            tolerance={"CPUExecutionProvider": 1e-4},
        ),
        int8=None,
    )


def make_naive_bayes() -> NaiveBayes:
    """Two classes half a unit apart in every scaled feature."""
    return NaiveBayes(
        count_floor=0.3,
        quantiles=[0.9] * (FEATURES - 1),
        feature_low=[0.0] * FEATURES,
        feature_range=[1.0] * FEATURES,
        prior=[0.5, 0.5],
        mean=[[0.25] * FEATURES, [0.75] * FEATURES],
        variance=[[0.1] * FEATURES, [0.2] * FEATURES],
    )


def altered(path: str, value: Any) -> bytes:
    """The manifest as JSON with one field, named as in `a.b.c`, set to a value, or removed if it is `None`."""
    document: dict[str, Any] = json.loads(encode(make_manifest()))
    *parents, last = path.split(".")
    place = document
    for name in parents:
        place = place[name]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return json.dumps(document).encode()
