"""The manifest of a bundle: everything a bundle knows beside its graphs. export writes it, infer reads it.

Decoding is strict (msgspec): an unknown field, a missing one, a wrong type or a NaN is an error that names its path.
"""

from typing import Annotated, Literal

import msgspec

from infer.errors import BundleError

SCHEMA = 5  # raised whenever a reader of the previous schema would misread the bundle
MANIFEST = "manifest.json"

GRAPHS = (
    "baseline.onnx", "scan.onnx", "moe_encoder.onnx", "moe_head.onnx", "imagenet_encoder.onnx", "imagenet_head.onnx"
)  # fmt: skip
INT8 = "moe_encoder.int8.onnx"  # the mixtures' encoders in integers
# Graphs that take another's place where the networks compute less precisely; a bundle need not have them.
Precision = Literal["float32", "int8", "float16"]
INSTEAD: dict[Precision, dict[str, str]] = {
    "float32": {},
    "int8": {"moe_encoder.onnx": INT8},
    # Not SCAN: it gives a picture one class, and a picture between two would change to the other.
    "float16": {
        "baseline.onnx": "baseline.float16.onnx",
        "moe_encoder.onnx": "moe_encoder.float16.onnx",
        "imagenet_encoder.onnx": "imagenet_encoder.float16.onnx",
    },
}
ALL_GRAPHS = frozenset(GRAPHS).union(*(of_one.values() for of_one in INSTEAD.values()))
# Of the self-test's outputs those that hang on the graphs in this precision.
OUTPUTS: dict[Precision, tuple[str, ...]] = {
    "int8": ("moe", "moe_maps", "moe_image", "moe_gate"),
    "float16": (
        "baseline", "moe", "moe_maps", "moe_image", "moe_gate", "imagenet_contribution", "imagenet"
    ),
}  # fmt: skip
LARGEST_CHANGE = 0.01  # of a patient's probability
LARGEST_TOLERANCE = {"moe_maps": 1.0, "imagenet_contribution": 1.0}  # of what is no probability; of those .01
CLUSTERS = 20  # SCAN's classes before fusion
MEMBERS = ("baseline", "scan", "moe", "imagenet")

Probability = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class Provenance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a bundle comes from."""

    code_version: str
    created: str  # ISO date
    recipe: str
    seed: int
    reference_date: str  # at which ages were taken: an ISO date, SAMPLE_DATE, or one where the other is missing
    table_sha256: str  # of the cohort's table
    data_summary: dict[str, int]  # patients, malignant, reactive, images
    options: dict[str, str]


class Range(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Plausible values, both ends included."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


class Plausible(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Outside these a patient is refused."""

    age_years: Range
    lymph_count: Range  # 10^9/L; the low end itself is excluded, a count is above 0
    minimum_images: int


class NaiveBayes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Gaussian naive Bayes on 21 features (infer.members.features), min-max scaled. Rows: reactive, malignant."""

    count_floor: float  # 10^9/L; a count below it is read as it, else the odds of malignant would rise again; 0: none
    quantiles: list[float]  # (20,) the 90th training percentile of each feature but the last
    feature_low: list[float]  # (21,) training minimum
    feature_range: list[float]  # (21,) training maximum - minimum, 1 where they agree
    prior: list[float]  # (2,)
    mean: list[list[float]]  # (2, 21)
    variance: list[list[float]]  # (2, 21)


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """p -> sigmoid(slope * logit(p) + intercept), with p first kept off 0 and 1 by `clip` (Platt 1999)."""

    slope: float
    intercept: float
    clip: float = 1e-6


class OperatingPoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Below `refer_low` reactive, from `refer_high` on malignant, between them refer."""

    refer_low: Probability
    refer_high: Probability


class Ensemble(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the members' probabilities become one."""

    calibration: dict[str, Calibration]
    weights: dict[str, Probability]
    operating_points: dict[str, OperatingPoint]


class Drift(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the training pictures are like.

    Colour: mean and standard deviation over patients of a patient's mean crop colour. Size: of the files, smallest and
    largest; a bundle that says nothing was trained on pictures of 224 x 224.
    """

    rgb_mean: list[float]  # (3,) 0..255
    rgb_std: list[float]  # (3,)
    picture_width: Range = Range(224, 224)  # pixels
    picture_height: Range = Range(224, 224)  # pixels

    @property
    def sizes(self) -> str:
        """The training pictures' size, in words."""
        smallest, largest = (
            f"{width:g} x {height:g}"
            for width, height in (
                (self.picture_width.low, self.picture_height.low),
                (self.picture_width.high, self.picture_height.high),
            )
        )
        return smallest if smallest == largest else f"{smallest} to {largest}"

    def knows_size(self, width: int, height: int) -> bool:
        """Whether a picture of so many pixels is no smaller and no larger than those of the training."""
        return width in self.picture_width and height in self.picture_height


class SelfTest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Generated pictures and what the graphs make of them; no real picture is stored."""

    seed: int
    images: int
    clinical: list[list[float]]  # (images, 3)
    expected: dict[str, list[float]]  # output name -> flat values, picture after picture
    tolerance: dict[str, float]  # provider -> largest absolute difference allowed


class Reduced(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the networks give in another precision, and what it was seen to change in patients scored both ways."""

    expected: dict[str, list[float]]  # of the self-test's outputs those that hang on it
    tolerance: dict[str, float]  # largest absolute difference from these allowed, on any machine
    patients: int
    largest_change: Probability  # of an ensemble's probability
    changed_decisions: int  # at any operating point


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of it."""

    schema: int
    provenance: Provenance
    graphs: dict[str, str]  # file name -> SHA-256
    opset: int
    crop_size: int  # pixels, square
    class_fusion: list[int]  # (20,) SCAN class -> class after fusion, 0..14
    naive_bayes: NaiveBayes
    ensemble: Ensemble
    plausible: Plausible
    drift: Drift
    self_test: SelfTest
    int8: Reduced | None  # for processors; None: they compute in float32
    float16: Reduced | None  # for GPUs; None: they compute in float32

    def reduced(self, precision: Precision) -> Reduced | None:
        """What is known of a precision, or None if it is float32 or the bundle does not have it."""
        return {"float32": None, "int8": self.int8, "float16": self.float16}[precision]

    @property
    def files(self) -> set[str]:
        """The graphs that such a bundle has."""
        return set(GRAPHS).union(*(INSTEAD[one].values() for one in INSTEAD if self.reduced(one)))


class _SchemaOnly(msgspec.Struct):
    schema: int


def encode(manifest: Manifest) -> bytes:
    """The manifest as indented JSON with sorted keys, so that a diff can be read."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=1) + b"\n"


def decode(data: bytes, path: str) -> Manifest:
    """Read and check a manifest.

    Raises:
        BundleError: not JSON, of another schema, or a field is missing, unknown, of a wrong type, size or value.
    """
    try:
        schema = msgspec.json.decode(data, type=_SchemaOnly).schema
        if schema != SCHEMA:
            raise BundleError(f"{path}: schema {schema}, this program reads schema {SCHEMA}: use the matching version")
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{path}: {error}. Export the bundle again") from error
    problems = _problems(manifest)
    if problems:
        raise BundleError(f"{path}: {'; '.join(problems)}. Export the bundle again")
    return manifest


def _problems(manifest: Manifest) -> list[str]:
    """What types cannot say: sizes, sums, orders."""
    bayes, ensemble, test = manifest.naive_bayes, manifest.ensemble, manifest.self_test
    classes = max(manifest.class_fusion, default=-1) + 1
    features = classes + 6
    checks = {
        f"graphs are not {', '.join(sorted(manifest.files))}": manifest.graphs.keys() == manifest.files,
        f"class_fusion must give {CLUSTERS} classes numbers from 0 without gaps": (
            # Not range(classes): a damaged number may be huge.
            len(manifest.class_fusion) == CLUSTERS
            and sorted(set(manifest.class_fusion)) == list(range(len(set(manifest.class_fusion))))
        ),
        f"naive_bayes must describe {features} features": len(bayes.quantiles) == features - 1
        and len(bayes.prior) == len(bayes.mean) == len(bayes.variance) == 2
        and all(len(row) == features for row in (bayes.feature_low, bayes.feature_range, *bayes.mean, *bayes.variance)),
        "naive_bayes has a prior, variance or range that is not above 0": all(
            value > 0 for row in (bayes.prior, bayes.feature_range, *bayes.variance) for value in row
        ),
        "naive_bayes has a count_floor below 0": bayes.count_floor >= 0,
        "a calibration does not rise, or its clip is not between 0 and .5": all(
            one.slope > 0 and 0 < one.clip < 0.5 for one in ensemble.calibration.values()
        ),
        "a plausible range is empty, or minimum_images is below 1": (
            manifest.plausible.minimum_images >= 1
            and all(span.low < span.high for span in (manifest.plausible.age_years, manifest.plausible.lymph_count))
        ),
        f"ensemble must calibrate and weigh {', '.join(MEMBERS)}": set(ensemble.calibration)
        == set(ensemble.weights)
        == set(MEMBERS),
        "ensemble weights must sum to 1": abs(sum(ensemble.weights.values()) - 1.0) < 1e-6,
        "ensemble lacks the operating point balanced": "balanced" in ensemble.operating_points,
        "an operating point's refer_low lies above its refer_high": all(
            point.refer_low <= point.refer_high for point in ensemble.operating_points.values()
        ),
        "drift must give three colours": len(manifest.drift.rgb_mean) == len(manifest.drift.rgb_std) == 3
        and all(value > 0 for value in manifest.drift.rgb_std),
        "int8 and float16 must give what the self-test expects of their graphs, a tolerance of each output, and a "
        "proof of patients of whom none got another decision": all(
            _is_proven(reduced, OUTPUTS[one], test) for one in OUTPUTS if (reduced := manifest.reduced(one))
        ),
        "self_test must hold clinical values and expected outputs for each image": len(test.clinical) == test.images > 0
        and all(len(row) == 3 for row in test.clinical)
        and all(values and len(values) % test.images == 0 for values in test.expected.values()),
    }
    return [problem for problem, holds in checks.items() if not holds]


def _is_proven(reduced: Reduced, outputs: tuple[str, ...], test: SelfTest) -> bool:
    return (
        reduced.expected.keys() == set(outputs)
        and reduced.tolerance.keys() == reduced.expected.keys()
        and all(0 < value <= LARGEST_TOLERANCE.get(name, 0.01) for name, value in reduced.tolerance.items())
        and all(len(values) == len(test.expected.get(name, ())) for name, values in reduced.expected.items())
        and reduced.patients > 0
        and reduced.largest_change <= LARGEST_CHANGE
        and reduced.changed_decisions == 0
    )
