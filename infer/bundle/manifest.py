"""The manifest of a bundle: everything except its graphs. export writes it, infer reads it.

Decoding is strict (msgspec): an unknown or missing field, a wrong type or a NaN is an error that names its path.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import msgspec

from infer.bundle.reference import Reference
from infer.bundle.reference import problems as problems_of_reference
from infer.cohort.plausible import Plausible, Range
from infer.errors import BundleError
from infer.members import registry
from infer.members.member import Member, Precision
from infer.pictures.measure import JPEG_QUALITY, MEASURES

SCHEMA = 10  # raised whenever a reader of the previous schema would misread the bundle
MANIFEST = "manifest.json"
LARGEST_CHANGE = 0.01  # of a patient's probability, caused by a reduced precision
LARGEST_TOLERANCE = 0.01  # of the self-test's outputs that are probabilities, in a reduced precision
REDUCED: tuple[Precision, ...] = ("int8",)
AGREEING = 0.95  # share of the training patients whose members lie no further apart than Ensemble.disagreement

Probability = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class Provenance(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where a bundle comes from."""

    code_version: str
    created: str  # ISO date
    recipe: str
    seed: int
    reference_date: str  # at which ages were taken: an ISO date, SAMPLE_DATE, or the date where SAMPLE_DATE is missing
    table_sha256: str  # of the cohort's table
    data_summary: dict[str, int]  # patients, malignant, reactive, images
    options: dict[str, str]
    weak: str = ""  # why it should not have been exported, if it was all the same


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """p -> sigmoid(slope * logit(p) + intercept), with p first clipped to [clip, 1 - clip] (Platt 1999)."""

    slope: float
    intercept: float
    clip: float = 1e-6


class OperatingPoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Reactive below `refer_low`, malignant from `refer_high` on, refer in between."""

    refer_low: Probability
    refer_high: Probability


class Ensemble(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How the members' probabilities are combined."""

    calibration: dict[str, Calibration]
    weights: dict[str, Probability]
    operating_points: dict[str, OperatingPoint]
    recalibration: Calibration | None = None  # of the weighted mean, to a hospital's patients; None: it stays
    # Members whose calibrated probabilities, before any recalibration, lie further apart than this: nobody is decided.
    # None: they are decided all the same.
    disagreement: Probability | None = None


class Adapted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """On whom a bundle's decisions were adapted, after its networks were trained (export.adapting)."""

    source: str  # ID of the bundle that was adapted
    code_version: str
    created: str  # ISO date
    fitted: str  # what was: prevalence; prevalence, intercept; prevalence, intercept, slope
    prevalence: Annotated[float, msgspec.Meta(gt=0.0, lt=1.0)]  # share of malignant patients where probabilities hold
    patients: int  # on whom it was fitted
    malignant: int  # of these
    table_sha256: str  # of their table
    seen: str  # digests of their pictures, salted as reference.seen
    pixel_size: float | None  # --pixel-size with which these patients were read, and must be scored from now on
    reference: bool  # whether `reference` describes these patients; false: the training patients


class Magnification(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How large the networks see a cell: what a pixel covers, and what becomes of the manifest's `crop_size` pixels."""

    network_size: int  # pixels, square: what the backbone resizes a crop to
    pixel_size: float | None  # micrometres of the slide that a training picture's pixel covers; None: not known


class Drift(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Colour and size of the training pictures.

    Colour: mean, over patients, of a patient's mean crop colour, for the self-test's pictures. Size: smallest and
    largest of the files; a bundle without sizes was trained on pictures of 224 x 224.
    """

    rgb_mean: list[float]  # (3,) 0..255
    picture_width: Range = Range(224, 224)  # pixels
    picture_height: Range = Range(224, 224)  # pixels

    @property
    def sizes(self) -> str:
        """The size of the training pictures, as text."""
        smallest, largest = (
            f"{width:g} x {height:g}"
            for width, height in (
                (self.picture_width.low, self.picture_height.low),
                (self.picture_width.high, self.picture_height.high),
            )
        )
        return smallest if smallest == largest else f"{smallest} to {largest}"

    def knows_size(self, width: int, height: int) -> bool:
        """Whether a picture's size, in the training pictures' pixels, is within the range of the training pictures."""
        return width in self.picture_width and height in self.picture_height


class SelfTest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Generated pictures and the graphs' expected outputs; no real picture is stored."""

    seed: int
    images: int
    clinical: list[list[float]]  # (images, 3)
    expected: dict[str, list[float]]  # output name -> flat values, picture by picture
    tolerance: dict[str, float]  # provider -> largest absolute difference allowed


class Reduced(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The networks' outputs in a reduced precision, and the changes measured on patients scored in both."""

    expected: dict[str, list[float]]  # the self-test's outputs that depend on this precision
    tolerance: dict[str, float]  # largest absolute difference allowed from these, on any machine
    patients: int
    largest_change: Probability  # of the ensemble's probability
    changed_decisions: int  # at any operating point


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The whole manifest."""

    schema: int
    provenance: Provenance
    graphs: dict[str, str]  # file name -> SHA-256
    opset: int
    crop_size: int  # pixels of the training pictures, square
    magnification: Magnification
    members: dict[str, dict[str, Any]]  # one section each, defined by the member (infer.members)
    ensemble: Ensemble
    plausible: Plausible
    drift: Drift
    reference: Reference
    self_test: SelfTest
    int8: Reduced | None  # for CPUs; None: they compute in float32
    adapted: Adapted | None = None  # to a hospital's own patients; None: as it was trained

    @property
    def prevalence(self) -> float:
        """The share of malignant patients among those for whom the probabilities hold."""
        if self.adapted:
            return self.adapted.prevalence
        summary = self.provenance.data_summary
        return summary["malignant"] / summary["patients"]

    def reduced(self, precision: Precision) -> Reduced | None:
        """The record of a reduced precision; None for float32, or if the bundle does not have it."""
        return {"float32": None, "int8": self.int8}[precision]

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The precisions of the bundle besides float32."""
        return tuple(precision for precision in REDUCED if self.reduced(precision))


def load_members(manifest: Manifest) -> tuple[Member[Any], ...]:
    """The bundle's members, in the registry's order.

    Raises:
        ValueError: a member's section is invalid.
    """
    members = []
    for kind in registry.MEMBERS:
        if kind.name not in manifest.members:
            continue
        try:
            members.append(kind.load(manifest.members[kind.name], manifest.crop_size))
        except ValueError as error:  # includes msgspec's errors
            raise ValueError(f"members.{kind.name}: {error}") from error
    if not members:
        raise ValueError("members: is empty")
    return tuple(members)


def stand_ins(members: Iterable[Member[Any]], precision: Precision) -> dict[str, str]:
    """The graphs that replace others in a precision: file -> file of the replacement."""
    return {file: other for member in members for file, other in member.stand_ins.get(precision, {}).items()}


def graph_files(members: Iterable[Member[Any]], precisions: Iterable[Precision]) -> set[str]:
    """The graphs of a bundle with these members and precisions."""
    members = tuple(members)
    files = {file for member in members for file in member.graphs}
    return files.union(*(stand_ins(members, precision).values() for precision in precisions))


def reduced_outputs(members: Iterable[Member[Any]], precision: Precision) -> tuple[str, ...]:
    """The self-test's outputs that depend on the graphs of a precision."""
    return tuple(name for member in members for name in member.reduced_outputs.get(precision, ()))


def largest_tolerances(members: Iterable[Member[Any]]) -> dict[str, float]:
    """The self-test's outputs that are not probabilities -> the largest tolerance that a bundle may state."""
    return {name: value for member in members for name, value in member.unbounded_outputs.items()}


class _SchemaOnly(msgspec.Struct):
    schema: int


def encode(manifest: Manifest) -> bytes:
    """The manifest as indented JSON with sorted keys, so that diffs are readable."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=1) + b"\n"


def decode(data: bytes, path: str) -> Manifest:
    """Read and check a manifest.

    Raises:
        BundleError: it is not JSON, has another schema, or a field is missing, unknown or has a wrong type or value.
    """
    try:
        schema = msgspec.json.decode(data, type=_SchemaOnly).schema
        if schema != SCHEMA:
            raise BundleError(
                f"{path}: schema {schema}, this program reads schema {SCHEMA}: use the matching program version"
            )
        manifest = msgspec.json.decode(data, type=Manifest)
        if unknown := sorted(manifest.members.keys() - set(registry.names())):
            raise BundleError(f"{path}: unknown member {', '.join(unknown)}: use the matching program version")
        members = load_members(manifest)
    except (ValueError, UnicodeDecodeError) as error:  # msgspec's errors are ValueErrors
        raise BundleError(f"{path}: {error}. Export the bundle again") from error
    problems = _problems(manifest, members)
    if problems:
        raise BundleError(f"{path}: {'; '.join(problems)}. Export the bundle again")
    return manifest


def _problems(manifest: Manifest, members: Sequence[Member[Any]]) -> list[str]:
    """Checks that types cannot express: sizes, sums, orders."""
    ensemble, test, magnification = manifest.ensemble, manifest.self_test, manifest.magnification
    files = graph_files(members, manifest.precisions)
    checks = {
        f"graphs are not {', '.join(sorted(files))}": manifest.graphs.keys() == files,
        "crop_size, network_size and pixel_size must be positive": manifest.crop_size > 0
        and magnification.network_size > 0
        and (magnification.pixel_size is None or magnification.pixel_size > 0),
        "a calibration's slope is not positive, or its clip is not between 0 and 0.5": all(
            one.slope > 0 and 0 < one.clip < 0.5
            for one in (*ensemble.calibration.values(), *filter(None, [ensemble.recalibration]))
        ),
        "provenance.data_summary must have patients of both classes": 0
        < manifest.provenance.data_summary.get("malignant", 0)
        < manifest.provenance.data_summary.get("patients", 0),
        "a plausible range is empty, or minimum_images is below 1": (
            manifest.plausible.minimum_images >= 1
            and all(span.low < span.high for span in (manifest.plausible.age_years, manifest.plausible.lymph_count))
        ),
        f"ensemble must calibrate and weight {', '.join(sorted(manifest.members))}": set(ensemble.calibration)
        == set(ensemble.weights)
        == set(manifest.members),
        "ensemble weights must sum to 1": abs(sum(ensemble.weights.values()) - 1.0) < 1e-6,
        "ensemble lacks the operating point balanced": "balanced" in ensemble.operating_points,
        "an operating point's refer_low is above its refer_high": all(
            point.refer_low <= point.refer_high for point in ensemble.operating_points.values()
        ),
        "drift must have three colour channels": len(manifest.drift.rgb_mean) == 3,
        "int8 must state the self-test outputs expected of its graphs, a tolerance for each, and a "
        "comparison on patients in which no decision changed": all(
            _is_proven(manifest, members, precision) for precision in manifest.precisions
        ),
        "self_test must have clinical values and expected outputs for each image": len(test.clinical) == test.images > 0
        and all(len(row) == 3 for row in test.clinical)
        and all(values and len(values) % test.images == 0 for values in test.expected.values()),
    }
    measured = {*MEASURES, JPEG_QUALITY, *(name for member in members for name in member.measure_names)}
    return [
        *(problem for problem, holds in checks.items() if not holds),
        *problems_of_reference(manifest.reference, measured),
    ]


def _is_proven(manifest: Manifest, members: Sequence[Member[Any]], precision: Precision) -> bool:
    reduced, test = manifest.reduced(precision), manifest.self_test
    largest = largest_tolerances(members)
    return (
        reduced is not None
        and bool(reduced.expected)
        and reduced.expected.keys() == set(reduced_outputs(members, precision))
        and reduced.tolerance.keys() == reduced.expected.keys()
        and all(0 < value <= largest.get(name, LARGEST_TOLERANCE) for name, value in reduced.tolerance.items())
        and all(len(values) == len(test.expected.get(name, ())) for name, values in reduced.expected.items())
        and reduced.patients > 0
        and reduced.largest_change <= LARGEST_CHANGE
        and reduced.changed_decisions == 0
    )
