"""The part of run.json that describes the run, without its counts. Contains no patient's values."""

import datetime as dt
import hashlib
import platform
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import simplejpeg
from PIL import features

import infer
from infer import __version__
from infer.bundle.load import Bundle
from infer.cohort.patient import Cohort
from infer.engine.fallback import Engine
from infer.engine.sessions import ONNXRUNTIME_VERSION


def what_ran(options: dict[str, Any], cohort: Cohort, bundle: Bundle, engine: Engine, date: dt.date) -> dict[str, Any]:
    """Program, options, cohort, bundle and device of a run.

    Args:
        options: by name, as given on the command line.
        date: at which ages are taken for patients without a sample date.
    """
    asked = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
    return {
        "program": {"name": "lympho", "version": __version__, "python": platform.python_version()},
        "libraries": libraries(),
        "options": asked | {"reference_date": date.isoformat()},
        "reference_date_asked_for": str(options["reference_date"]) if options["reference_date"] else None,
        "machine": platform.node(),
        "shards": [],
        "nodes": [],
        "cohort": {
            "table": str(cohort.table),
            "table_sha256": cohort.table_sha256,
            "patients": len(cohort.patients),
            "patients_in_table": cohort.patients_in_table,
            "read_as": dict(cohort.readings),
            "folders_without_row": list(cohort.folders_without_row),
        },
        "bundle": {
            "id": bundle.bundle_id,
            "folder": str(bundle.folder),
            "schema": bundle.manifest.schema,
            "weights": {member.name: bundle.manifest.ensemble.weights[member.name] for member in engine.members},
            "weak": bundle.manifest.provenance.weak or None,
            "thresholds": thresholds(bundle, str(options["operating_point"])),
            "prevalence": options["prevalence"] or bundle.manifest.prevalence,
            "adapted_from": bundle.manifest.adapted.source if bundle.manifest.adapted else None,
        },
        "device": {
            "asked": options["device"],
            "provider": engine.device.provider,
            "note": engine.device.note,
            "precision": engine.precision,
            "nodes": engine.nodes,
            "batch_size": engine.batch_size_now,
            "processors": engine.processors,
            "batches_side_by_side": engine.callers,
        },
    }


def thresholds(bundle: Bundle, point: str) -> dict[str, float | None]:
    """Below which probability the decision is reactive, from which malignant; above which disagreement neither."""
    ensemble = bundle.manifest.ensemble
    of = ensemble.operating_points[point]
    return {"refer_low": of.refer_low, "refer_high": of.refer_high, "refer_disagreement": ensemble.disagreement}


def libraries() -> dict[str, str]:
    """Versions of the libraries that decode and compute."""
    return {
        "onnxruntime": ONNXRUNTIME_VERSION,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "jpeg": str(features.version("jpg")),
        "simplejpeg": simplejpeg.__version__,
    }


def program_digest() -> str:
    """Digest of all modules of this package, with their names: two builds of one version may compute differently."""
    root = Path(infer.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
