"""The options of a run, and the checks that they are consistent."""

import datetime as dt
import math
import os
from dataclasses import dataclass
from pathlib import Path

from infer.bundle.load import REFERENCE
from infer.bundle.manifest import Adapted, Magnification
from infer.cohort.dates import check_date_format
from infer.cohort.sexes import parse_sex_codes
from infer.cohort.shard import parse_shard
from infer.errors import UsageError
from infer.scoring.unusual import Ood

SAME_PIXEL_SIZE = 0.001  # share by which two pixel sizes may differ and be one: pictures are not rescaled
LARGEST_SCALE = 4.0  # and 1/4 the smallest: a number beyond is another unit rather than another camera
LONGEST_SETTLE = 86_400.0  # seconds: after a day, a folder is no longer being copied


@dataclass(frozen=True)
class Options:
    """The options given on the command line."""

    patients: Path
    out: Path
    annotations: Path | None = None
    bundle: Path = REFERENCE
    device: str = "auto"  # auto, cuda, cpu
    operating_point: str = "balanced"
    reference_date: dt.date | None = None  # today if not given
    date_format: str | None = None
    sample_date_format: str | None = None  # of SAMPLE_DATE, if it differs from date_format
    sex_codes: str | None = None  # meaning of the codes in GENDER, e.g. M=male,F=female
    pixel_size: float | None = None  # micrometres that a pixel of these pictures covers; as in training if not given
    prevalence: float | None = None  # share of malignant patients among those scored; as in the bundle if not given
    ood: Ood = "refer"  # what becomes of a patient unlike the training patients: refer, refuse, warn
    max_refused: float = 0.5  # share of the patients
    settle: float = 0.0  # seconds for which a patient's folder must have been unchanged
    batch_size: int | None = None  # pictures; by default chosen to suit the device
    workers: int = 0  # decoding processes; 0: chosen to suit the device
    threads: int | None = None  # CPU cores for networks and decoding; by default all that this process may use
    dry_run: bool = False
    fresh: bool = False  # start over instead of resuming an interrupted run in OUT
    shard: str | None = None  # I/N: only the patients of this shard
    ray: str | None = None  # auto, local, HOST:PORT: score on the nodes of a Ray cluster
    csv_dialect: str = "plain"  # of the tables: plain, excel-fr
    report: bool = False  # write evidence pages too
    language: str = "en"  # of the pages: en, fr
    history: Path | None = None  # file with a line for each run, for drift over nights
    drift: str = "tell"  # tell, fail: whether drift alone makes the exit code 3
    fhir: str | None = None  # r4, r5: write FHIR documents of this version, too
    fhir_identifier_system: str | None = None  # URI of the patient IDs' system
    codes: Path | None = None  # file of the codes that a site chooses
    metrics: Path | None = None  # file for a monitor, about this run


def check_options(options: Options) -> None:
    if options.date_format is not None:
        check_date_format(options.date_format)
    if options.sample_date_format is not None:
        check_date_format(options.sample_date_format, "--sample-date-format", births=False)
    if options.sex_codes is not None:
        parse_sex_codes(options.sex_codes)
    if options.pixel_size is not None and not 0 < options.pixel_size < math.inf:
        raise UsageError("--pixel-size: must be a number above 0, in micrometres")
    check_prevalence("--prevalence", options.prevalence)
    if not 0 <= options.settle <= LONGEST_SETTLE:
        raise UsageError(f"--settle: must be from 0 to {LONGEST_SETTLE:.0f} seconds")
    if not 0 <= options.max_refused <= 1:
        raise UsageError("--max-refused: must be a share from 0 to 1")
    if options.shard is not None:
        _check_shard(options)
    if options.ray is not None and options.dry_run:
        raise UsageError("--ray: a dry run scores nothing, so it needs no cluster. Leave one of the two out")
    if (options.fhir is None) != (options.fhir_identifier_system is None):
        raise UsageError(
            "--fhir and --fhir-identifier-system: give both or none. An ID alone does not say whose patient it is"
        )
    if options.codes is not None and options.fhir is None:
        raise UsageError("--codes: is for FHIR documents, and needs --fhir")
    if is_inside(options.out, options.patients):
        raise UsageError(f"{options.out}: lies inside the cohort, which is never written to. Choose another folder")
    for name, path in (
        ("--bundle", options.bundle),
        ("--annotations", options.annotations),
        ("--codes", options.codes),
    ):
        if path is not None and is_inside(path, options.out):
            raise UsageError(
                f"{name} {path}: lies in {options.out}, which this run would overwrite. Choose another output folder"
            )


def _check_shard(options: Options) -> None:
    parse_shard(options.shard or "")
    if options.reference_date is None:
        raise UsageError("--shard: needs --reference-date, so that all shards take ages at the same day")
    for given, name, instead in (
        (options.report, "--report", "write the pages after the merge, with python -m infer.report"),
        (options.fhir is not None, "--fhir", "write the documents after the merge, with python -m infer.fhir"),
        (options.history is not None, "--history", "give it to python -m infer.merge"),
        (options.drift == "fail", "--drift fail", "give it to python -m infer.merge"),
    ):
        if given:
            raise UsageError(f"{name}: judges whole runs, and a shard is none: {instead}")


def check_prevalence(option: str, share: float | None) -> None:
    """A share of malignant patients must be one; click's ranges let nan pass.

    Raises:
        UsageError: it is given, and not above 0 and below 1.
    """
    if share is not None and not 0 < share < 1:
        raise UsageError(f"{option}: must be a share between 0 and 1, such as .3 where 30% are malignant")


def check_adapted(pixel_size: float | None, adapted: Adapted | None) -> None:
    """Pictures must be read as those were that a bundle was adapted to.

    Raises:
        UsageError: they are not.
    """
    if adapted is None or adapted.pixel_size == pixel_size:
        return
    wanted = "Leave the option out" if adapted.pixel_size is None else f"Give --pixel-size {adapted.pixel_size:g}"
    raise UsageError(f"--pixel-size: this bundle was adapted to pictures read with another value. {wanted}")


def picture_scale(pixel_size: float | None, magnification: Magnification) -> float:
    """The factor by which pictures are rescaled to the training pictures' pixels; exactly 1 if they are not.

    Args:
        pixel_size: what a pixel of the pictures covers, in micrometres; None: what it does in training.

    Raises:
        UsageError: the bundle does not state a pixel size, or the two differ too much to be in the same unit.
    """
    if pixel_size is None:
        return 1.0
    known = magnification.pixel_size
    if known is None:
        raise UsageError(
            f"--pixel-size {pixel_size:g}: this bundle does not state a pixel size, so it is not known by how much to "
            "rescale. Leave the option out, or use a bundle that was trained with --pixel-size"
        )
    scale = pixel_size / known
    if not 1 / LARGEST_SCALE <= scale <= LARGEST_SCALE:
        raise UsageError(
            f"--pixel-size {pixel_size:g}: is {scale:.3g} times the bundle's {known:g}, not from 1/4 to 4 times. "
            "Give micrometres per pixel, not nanometres and not pixels per micrometre"
        )
    return 1.0 if abs(scale - 1) <= SAME_PIXEL_SIZE else scale


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a path is a folder or lies in it, symbolic links followed."""
    return _resolved(path).is_relative_to(_resolved(folder))


def _resolved(path: Path) -> Path:
    """Like Path.resolve, but a loop of symbolic links is no error here: it is reported when the path is opened."""
    return Path(os.path.realpath(path))
