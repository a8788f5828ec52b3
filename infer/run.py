"""One run from options to exit code: check everything, then score, then write down what happened."""

import contextlib
import datetime as dt
import logging
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from infer import __version__
from infer.bundle import REFERENCE, Bundle, load_bundle
from infer.cohort import Cohort, read_cohort
from infer.errors import EXIT_MEANING, OutputError, UsageError
from infer.going_on import Past, find_past, unchanged
from infer.journal import FORMAT, Entry, Header, Identity
from infer.lock import check_free
from infer.models import Networks, proven
from infer.progress import Progress
from infer.results import Results
from infer.rows import entry_of
from infer.scoring import score_cohort
from infer.sessions import ONNXRUNTIME_VERSION, available_cpus, choose_device
from infer.tally import Tally

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
    batch_size: int | None = None  # pictures; what suits the device if not given
    workers: int = 0  # decoding threads; 0 is one for each processor
    dry_run: bool = False
    fresh: bool = False  # start over where a run that was cut off left OUT unfinished


def run(options: Options) -> int:
    """Score a cohort and return the exit code, 0 or 3.

    The output folder is touched only once bundle, cohort and device have been found good.

    Raises:
        LymphoError: with the exit code of what stopped the run; no result file is left, finished patients are kept.
    """
    started = _now()
    _check_folders(options)
    bundle = load_bundle(options.bundle)
    points = bundle.manifest.ensemble.operating_points
    if options.operating_point not in points:
        raise UsageError(f"--operating-point {options.operating_point}: this bundle has {', '.join(sorted(points))}")
    asked = Identity(
        code=__version__,
        bundle=bundle.bundle_id,
        operating_point=options.operating_point,
        reference_date=options.reference_date.isoformat() if options.reference_date else None,
        date_format=options.date_format,
        numerics="",
    )
    past = find_past(options.out, asked, fresh=options.fresh)
    today = options.reference_date or started.date()
    date = dt.date.fromisoformat(past.stored.header.date) if past.stored else today
    cohort = _read_cohort(options, bundle, date)
    device = choose_device(options.device, bundle.graphs["moe_head.onnx"])
    networks = Networks(bundle, device, options.batch_size, available_cpus())
    identity = replace(asked, numerics=proven(networks, bundle))
    past = past.if_same(identity)
    if past.stored is None and date != today:  # a date was pinned with results that do not count
        date, cohort = today, _read_cohort(options, bundle, today)
    LOG.info("bundle %s, %d patients, %s", bundle.short_id, len(cohort.patients), networks)
    tally = Tally()
    if options.dry_run:
        check_free(options.out)
        _check_writable(options.out)
        for _ in _entries(cohort, None, bundle, options, tally):
            pass
        return _end(tally, options)
    header = Header(FORMAT, identity, date.isoformat())
    with Results(options.out, header, _iso(started), past.stored) as results:
        kept = _keep(results, cohort, past, options, tally)
        rest = replace(cohort, patients=tuple(patient for patient in cohort.patients if patient.line not in kept))
        told = 0
        for line, entry in _entries(rest, networks, bundle, options, tally):
            for downgrade in networks.downgrades[told:]:
                LOG.warning("%s", downgrade)
                results.note(downgrade)
            told = len(networks.downgrades)
            results.write(line, entry)
        code = _end(tally, options)
        earlier = past.stored.starts if past.stored else ()
        record = {
            **_what_ran(options, cohort, bundle, networks, date),
            "starts": [*earlier, _iso(started)],
            "kept_from_earlier_starts": len(kept),
            "started_over": past.started_over,
            "downgrades": [*(past.stored.downgrades if past.stored else ()), *networks.downgrades],
            "ended": _iso(_now()),
            **tally.as_record(),
            "exit_code": code,
            "exit_meaning": EXIT_MEANING[code],
        }
        results.finish(record, [patient.line for patient in cohort.patients])
    return code


def _what_ran(options: Options, cohort: Cohort, bundle: Bundle, networks: Networks, date: dt.date) -> dict[str, Any]:
    """For run.json: what ran, on what, with which bundle and provider. Holds no patient's values."""
    asked = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(options).items()}
    return {
        "program": {"name": "lympho", "version": __version__, "python": platform.python_version()},
        "libraries": {"onnxruntime": ONNXRUNTIME_VERSION, "numpy": np.__version__},
        "options": asked | {"reference_date": date.isoformat()},
        "cohort": {
            "table": str(cohort.table),
            "table_sha256": cohort.table_sha256,
            "patients": len(cohort.patients),
            "folders_without_row": list(cohort.folders_without_row),
        },
        "bundle": {"id": bundle.bundle_id, "folder": str(bundle.folder), "schema": bundle.manifest.schema},
        "device": {
            "asked": options.device,
            "provider": networks.device.provider,
            "note": networks.device.note,
            "nodes": networks.nodes,
        },
    }


def _read_cohort(options: Options, bundle: Bundle, date: dt.date) -> Cohort:
    return read_cohort(
        options.patients,
        bundle.manifest.plausible,
        annotations=options.annotations,
        reference_date=date,
        date_format=options.date_format,
    )


def _keep(results: Results, cohort: Cohort, past: Past, options: Options, tally: Tally) -> dict[int, int]:
    """Take over what an earlier start finished and nobody changed: line in the table -> place in the journal."""
    if past.started_over:
        LOG.warning("starts over: %s", past.started_over)
    if past.stored is None:
        return {}
    LOG.info("goes on: reading the pictures of %d finished patients again", len(past.stored.places))
    kept = unchanged(cohort, past.stored.places, _workers(options))
    for line, offset in kept.items():
        tally.add(results.keep(line, offset))
    LOG.info("goes on: %d patients are kept", len(kept))
    return kept


def _entries(
    cohort: Cohort, networks: Networks | None, bundle: Bundle, options: Options, tally: Tally
) -> Iterator[tuple[int, Entry]]:
    """Score the cohort, count and tell: each patient's line in the table and its entry, in the table's order."""
    progress = Progress(len(cohort.patients))
    scored = score_cohort(cohort, networks, bundle.manifest, options.operating_point, _workers(options))
    with contextlib.closing(scored):
        for patient, result in zip(cohort.patients, scored, strict=True):
            entry = entry_of(result, bundle.short_id)
            tally.add(entry)
            if entry.code:
                LOG.warning("%s %s (%s)", entry.patient_id, entry.status, entry.code)
            if entry.unusual_colour:
                LOG.warning("%s: colours are far from those of the training patients", entry.patient_id)
            progress.advance(len(result.images))
            yield patient.line, entry


def _end(tally: Tally, options: Options) -> int:
    code = tally.exit_code(options.max_refused)
    counts = ", ".join(f"{tally.patients[status]} {status}" for status in ("scored", "refused", "failed"))
    LOG.info("%s; exit code %d: %s", counts, code, EXIT_MEANING[code])
    return code


def _workers(options: Options) -> int:
    return options.workers or min(available_cpus(), MOST_WORKERS)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _iso(moment: dt.datetime) -> str:
    return moment.isoformat(timespec="seconds")


def _check_folders(options: Options) -> None:
    if options.out.resolve().is_relative_to(options.patients.resolve()):
        raise UsageError(f"{options.out}: lies inside the cohort, which is never written to. Choose another folder")
    for name, path in (("--bundle", options.bundle), ("--annotations", options.annotations)):
        if path is not None and path.resolve().is_relative_to(options.out.resolve()):
            raise UsageError(f"{name} {path}: lies in {options.out}, which this run would overwrite")


def _check_writable(folder: Path) -> None:
    """For a dry run: could results be written there?"""
    existing = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(f"{existing}: cannot be written")
