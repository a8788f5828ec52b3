"""A drawn hospital with another stain, whose labels are drawn from the bundle's own log odds.

So how these should be moved is known, but for what the stain does to them.
"""

import csv
import io
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image
from scipy.special import expit, logit

from export import __main__ as export
from infer.bundle.load import load_bundle
from infer.bundle.manifest import Manifest
from tests.infer.runs import TABLE, score, tiny_manifest, write_bundle
from tests.synthetic import REFERENCE_DATE, make_patients, write_cohort
from train.cli.commands import cli

DATE = ("--reference-date", REFERENCE_DATE.isoformat())
PATIENTS, HALF = 120, 60
SLOPE, INTERCEPT = 0.35, -1.0  # what the bundle's log odds ought to be multiplied by and moved by here


@dataclass(frozen=True)
class Hospital:
    """A cohort in two halves, with the validation of one."""

    folder: Path
    bundle: Path
    one: Path
    other: Path
    validation: Path

    @property
    def judged(self) -> pd.DataFrame:
        return pd.read_csv(self.validation / "patients.csv", dtype={"patient_id": str})

    @property
    def labels(self) -> dict[str, int]:
        return dict(zip(self.judged["patient_id"], self.judged["label"].tolist(), strict=True))


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.core.performance.RESAMPLES", 300)


def relabelled(cohort: Path, labels: dict[str, int]) -> None:
    """Write a LABEL for each patient."""
    with (cohort / TABLE).open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    with (cohort / TABLE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(row | {"LABEL": labels[row["ID"]]} for row in table if row["ID"] in labels)


def validate(cohort: Path, out: Path, bundle: Path) -> str:
    done = CliRunner().invoke(cli, ["validate", str(bundle), str(cohort), str(out), *DATE])
    assert done.exit_code == 0, done.output
    return done.output


def adapt(*arguments: object) -> int:
    try:
        export.main(["adapt", *map(str, arguments)])
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


def stained(path: Path) -> bytes:
    """A picture in another stain: darker, less red, more green."""
    ink = 1 - np.asarray(Image.open(path), np.float64) / 255
    picture = 255 * (1 - np.clip(ink**1.15 * [0.65, 1.3, 0.8], 0, 1))
    file = io.BytesIO()
    Image.fromarray(picture.astype(np.uint8)).save(file, "jpeg", quality=92)
    return file.getvalue()


def opinionated(folder: Path) -> Path:
    """The tiny bundle with log odds as far apart as a trained one's, to which no drawn picture is sharp."""
    manifest = tiny_manifest()
    manifest["ensemble"]["weights"] = {**dict.fromkeys(manifest["members"], 0.0), "imagenet": 1.0}
    manifest["ensemble"]["calibration"]["imagenet"] |= {"slope": 20.0, "intercept": 5.0}
    manifest["reference"]["usual"]["spans"]["sharpness"] = {"low": 900.0, "middle": 901.0, "high": 902.0}
    return write_bundle(folder, manifest)


@pytest.fixture(scope="session")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    """Labels are drawn from the bundle's own log odds, which are too extreme and too high here."""
    folder = tmp_path_factory.mktemp("hospital")
    bundle = opinionated(folder / "bundle")
    one, other = folder / "one", folder / "other"
    write_cohort(one, make_patients(PATIENTS, seed=3, images=(10, 10)), seed=3, size=112)
    found = score(one, folder / "all", bundle=bundle, ood="warn").predictions
    rng = np.random.default_rng(0)
    odds = {name: logit(float(row["probability_malignant"])) for name, row in found.items()}
    labels = {name: int(rng.random() < expit(SLOPE * value + INTERCEPT)) for name, value in odds.items()}
    for path in one.rglob("*.jpg"):
        path.write_bytes(stained(path))
    shutil.copytree(one, other)
    names = list(labels)
    relabelled(one, {name: labels[name] for name in names[:HALF]})
    relabelled(other, {name: labels[name] for name in names[HALF:]})
    validate(one, folder / "validation", bundle)
    return Hospital(folder, bundle, one, other, folder / "validation")


@pytest.fixture(scope="session")
def adapted(hospital: Hospital) -> Path:
    assert adapt(hospital.bundle, hospital.validation, hospital.folder / "adapted") == 0
    return hospital.folder / "adapted"


def manifest_of(folder: Path) -> Manifest:
    return load_bundle(folder).manifest
