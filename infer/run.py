"""One run from options to exit code: check everything, then score, then write down what happened."""

import datetime as dt
import logging
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from infer import __version__
from infer.bundle import REFERENCE, Bundle, load_bundle
from infer.cohort import Cohort, read_cohort
from infer.errors import EXIT_MEANING, OutputError, UsageError
from infer.models import Networks, self_test
from infer.progress import Progress
from infer.results import Results, Tally
from infer.scoring import PatientResult, score_cohort
from infer.sessions import ONNXRUNTIME_VERSION, Device, available_cpus, choose_device

LOG = logging.getLogger("lympho")
MOST_WORKERS = 16  # decoding threads by default: each may hold a picture of 25 million pixels


@dataclass(frozen=True)
class Options:
    """What the command line asked for."""

    patients: Path
    out: Path
    annotations: Path | None = None
    bundle: Path = REFERENCE
    device: str = "auto"  # auto, cuda, cpu
    operating_point: str = "balanced"
    reference_date: dt.date | None = None  # today if not given
    date_format: str | None = None
    max_refused: float = 0.5  # share of the patients
    batch_size: int = 32  # pictures
    workers: int = 0  # decoding threads; 0 is one for each processor
    dry_run: bool = False


def run(options: Options) -> int:
    """Score a cohort and return the exit code, 0 or 3.

    The output folder is touched only once bundle, cohort and device have been found good.

    Raises:
        LymphoError: with the exit code of what stopped the run; no result file is left.
    """
    started = dt.datetime.now(dt.UTC)
    date = options.reference_date or started.date()
    if options.out.resolve().is_relative_to(options.patients.resolve()):
        raise UsageError(f"{options.out}: lies inside the cohort, which is never written to. Choose another folder")
    for name, path in (("--bundle", options.bundle), ("--annotations", options.annotations)):
        if path is not None and path.resolve().is_relative_to(options.out.resolve()):
            raise UsageError(f"{name} {path}: lies in {options.out}, which this run would overwrite")
    bundle = load_bundle(options.bundle)
    points = bundle.manifest.ensemble.operating_points
    if options.operating_point not in points:
        raise UsageError(f"--operating-point {options.operating_point}: this bundle has {', '.join(sorted(points))}")
    cohort = read_cohort(
        options.patients,
        bundle.manifest.plausible,
        annotations=options.annotations,
        reference_date=date,
        date_format=options.date_format,
    )
    device = choose_device(options.device, bundle.graphs["moe_head.onnx"])
    networks = Networks(bundle, device, options.batch_size, available_cpus())
    self_test(networks, bundle)
    tally = Tally()
    if options.dry_run:
        _check_writable(options.out)
        for _ in _counted(cohort, None, bundle, options, tally):
            pass
        return _end(tally, options)
    with Results(options.out, bundle.short_id) as results:
        for result in _counted(cohort, networks, bundle, options, tally):
            results.write(result)
        code = _end(tally, options)
        results.finish(run_record(options, cohort, bundle, device, date, started, tally, code))
    return code


def run_record(
    options: Options,
    cohort: Cohort,
    bundle: Bundle,
    device: Device,
    date: dt.date,
    started: dt.datetime,
    tally: Tally,
    code: int,
) -> dict[str, Any]:
    """run.json: what ran, on what, with which bundle and provider, and how it ended. Holds no patient's values."""
    asked = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(options).items()}
    return {
        "program": {"name": "lympho", "version": __version__, "python": platform.python_version()},
        "libraries": {"onnxruntime": ONNXRUNTIME_VERSION, "numpy": np.__version__},
        "options": asked | {"reference_date": date.isoformat()},
        "cohort": {"table": str(cohort.table), "table_sha256": cohort.table_sha256, "patients": len(cohort.patients)},
        "bundle": {"id": bundle.bundle_id, "folder": str(bundle.folder), "schema": bundle.manifest.schema},
        "device": {"asked": options.device, "provider": device.provider, "note": device.note},
        "started": started.isoformat(timespec="seconds"),
        "ended": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        **tally.as_record(),
        "exit_code": code,
        "exit_meaning": EXIT_MEANING[code],
    }


def _counted(
    cohort: Cohort, networks: Networks | None, bundle: Bundle, options: Options, tally: Tally
) -> Iterator[PatientResult]:
    LOG.info("bundle %s, %d patients, %s", bundle.short_id, len(cohort.patients), networks or "dry run")
    progress = Progress(len(cohort.patients))
    workers = options.workers or min(available_cpus(), MOST_WORKERS)
    for result in score_cohort(cohort, networks, bundle.manifest, options.operating_point, workers):
        tally.add(result)
        if result.reason:
            LOG.warning("%s %s (%s)", result.patient_id, result.status, result.reason.partition(":")[0])
        if result.unusual_colour:
            LOG.warning("%s: colours are far from those of the training patients", result.patient_id)
        progress.advance(len(result.images))
        yield result


def _end(tally: Tally, options: Options) -> int:
    code = tally.exit_code(options.max_refused)
    counts = ", ".join(f"{tally.patients[status]} {status}" for status in ("scored", "refused", "failed"))
    LOG.info("%s; exit code %d: %s", counts, code, EXIT_MEANING[code])
    return code


def _check_writable(folder: Path) -> None:
    """For a dry run: could results be written there?"""
    existing = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(f"{existing}: cannot be written")
