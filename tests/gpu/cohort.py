"""Step `cohort`: the same patients on the CPU and on the GPU, as by default and in float32."""

import csv
import re
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

from infer.bundle.manifest import LARGEST_CHANGE, OperatingPoint
from infer.scoring.ensemble import decide
from tests.gpu.check import Check, Ran, StepError

FLOAT32_CHANGE = 1e-3  # of a probability, between a CPU and a GPU in float32: what the self-test allows a GPU
CPU_DEFAULT, CPU_FLOAT32 = "cpu", "cpu-float32"
GPU_DEFAULT, GPU_FLOAT32, AGAIN = "gpu", "gpu-float32", "-again"
COMPARED = (  # a run, what it is compared with, and by how much a patient's probability may differ
    (GPU_FLOAT32, CPU_FLOAT32, FLOAT32_CHANGE),
    (GPU_DEFAULT, CPU_FLOAT32, LARGEST_CHANGE),
    (GPU_DEFAULT, CPU_DEFAULT, 2 * LARGEST_CHANGE),  # each may be LARGEST_CHANGE from float32
)
DECIMAL = re.compile(r"-?\d+\.\d+")

Pairs = list[tuple[dict[str, str], dict[str, str]]]


def cohort(check: Check) -> None:
    """Note how far the results are apart.

    Raises:
        StepError: statuses or decisions differ, a probability differs by too much, or a GPU's second run is not the
            same bytes.
    """
    patients, float32 = check.patients(), check.float32()
    runs: dict[str, Ran] = {}
    for name, device, bundle in (
        (GPU_DEFAULT, check.device, check.bundle),
        (GPU_DEFAULT + AGAIN, check.device, check.bundle),
        (GPU_FLOAT32, check.device, float32),
        (GPU_FLOAT32 + AGAIN, check.device, float32),
        (CPU_DEFAULT, "cpu", check.bundle),
        (CPU_FLOAT32, "cpu", float32),
    ):
        runs[name] = ran = check.needed(patients, check.folder / f"out-{name}", device, bundle=bundle)
        record = ran.record
        check.note(
            name,
            {
                "seconds": ran.seconds,
                "pictures": record["images"],
                **{key: record["device"][key] for key in ("provider", "precision", "nodes", "batch_size")},
                "downgrades": record["downgrades"],
            },
        )
    points = check.load().manifest.ensemble.operating_points
    problems = []
    for one, other, allowed in COMPARED:
        found = compared(runs[one].out, runs[other].out, points)
        check.note(f"{one} and {other}", found)
        problems += [f"{one} and {other}: {problem}" for problem in problems_of(found, allowed)]
    for name in (GPU_DEFAULT, GPU_FLOAT32):
        same = runs[name].tables == runs[name + AGAIN].tables
        check.note(f"{name} twice, the same bytes", same)
        problems += [] if same else [f"{name}: the second run's tables are not the same bytes"]
    if problems:
        raise StepError("; ".join(problems))


def compared(one: Path, other: Path, points: Mapping[str, OperatingPoint]) -> dict[str, Any]:
    """Two runs of a cohort: statuses that differ, largest difference of each column, decisions and classes changed."""
    patients, pictures = _pairs(one, other, "predictions.csv"), _pairs(one, other, "images.csv")
    scored = [(a, b) for a, b in patients if a.get("status") == b.get("status") == "scored"]
    used = [(a, b) for a, b in pictures if a.get("status") == b.get("status") == "used"]
    probabilities = [(float(a["probability_malignant"]), float(b["probability_malignant"])) for a, b in scored]
    return {
        "patients": len(patients),
        "pictures": len(pictures),
        "statuses_changed": sum(a.get("status") != b.get("status") for a, b in [*patients, *pictures]),
        "largest_differences": _largest(scored),
        "largest_differences_of_pictures": _largest(used),
        "decisions_changed": {
            name: sum(decide(a, point) != decide(b, point) for a, b in probabilities) for name, point in points.items()
        },
        "cell_classes_changed": sum(a.get("cell_class") != b.get("cell_class") for a, b in used),
    }


def problems_of(found: Mapping[str, Any], allowed: float) -> list[str]:
    """What is wrong with two runs that should be nearly the same."""
    problems = [f"{found['statuses_changed']} statuses differ"] if found["statuses_changed"] else []
    largest = found["largest_differences"].get("probability_malignant", 0.0)
    if not largest <= allowed:
        problems.append(f"probabilities differ by up to {largest:.2g}, {allowed:.2g} is allowed")
    problems += [f"{count} decisions differ at {name}" for name, count in found["decisions_changed"].items() if count]
    return problems


def _largest(pairs: Pairs) -> dict[str, float]:
    """Column -> largest difference, for each column of numbers with decimals."""
    if not pairs:
        return {}
    columns = [name for name, text in pairs[0][0].items() if DECIMAL.fullmatch(text)]
    return {name: max(abs(float(a[name]) - float(b[name])) for a, b in pairs) for name in columns}


def _pairs(one: Path, other: Path, name: str) -> Pairs:
    """The rows of both runs side by side; where one has fewer, its rows are empty."""
    return list(zip_longest(_rows(one / name), _rows(other / name), fillvalue={}))


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
