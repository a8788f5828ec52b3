"""Drawn cohorts for the check, as it sees them: files on disk, or tables of measures without a picture."""

import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd

from infer.bundle.load import REFERENCE, load_bundle
from infer.pictures.measure import CENTRE, JPEG_QUALITY, MEASURES
from tests.synthetic import REFERENCE_DATE, make_patients, write_cohort
from train.checking.check import Checked, check
from train.checking.finding import Finding, Severity
from train.checking.summaries import Prints, Summaries
from train.checking.table import TableOptions
from train.core.arrays import Labels

TABLE = "clinical_annotation.csv"
ASKED_AT = dt.date(REFERENCE_DATE.year, REFERENCE_DATE.month, REFERENCE_DATE.day)


def cohort(folder: Path, patients: int = 12, pictures: int = 10, size: int = 128) -> Path:
    """Patients S001, S002, ...; half of them malignant, unless that leaves a fraction."""
    drawn = make_patients(patients, seed=3, images=(pictures, pictures), malignant_share=0.5)
    write_cohort(folder, drawn, seed=3, size=size)
    return folder


def checked(folder: Path, date: dt.date | None = ASKED_AT) -> Checked:
    """The check of a folder without a bundle and without times."""
    return check(TableOptions(folder, date))


def with_topic(found: Checked, topic: str, severity: Severity) -> list[Finding]:
    """The findings about something that are as serious as that."""
    return [one for one in found.of(severity) if one.topic == topic]


def edit(folder: Path, old: str, new: str, times: int = 1) -> None:
    """Replace a text in the table."""
    text = (folder / TABLE).read_text()
    assert text.count(old) >= times
    (folder / TABLE).write_text(text.replace(old, new, times))


def looked(labels: Labels, seed: int = 0, pictures: int = 3) -> Summaries:
    """A cohort with some pictures a patient that are all as usual in the reference bundle, but for chance."""
    rng = np.random.default_rng(seed)
    patients, number = len(labels), len(labels) * pictures
    spans = load_bundle(REFERENCE).manifest.reference.usual.spans
    owner = np.repeat(np.arange(patients), pictures)
    measures = {}
    for name in MEASURES:
        middle, width = (1.0, 0.1) if name == CENTRE else (spans[name].middle, spans[name].high - spans[name].low)
        measures[name] = middle + width / 8 * rng.normal(size=patients)[owner]
    quality = spans[JPEG_QUALITY].middle if JPEG_QUALITY in spans else 90.0
    return Summaries(
        patient_ids=[f"P{place}" for place in rng.permutation(patients)],
        labels=labels,
        lines=rng.permutation(patients) + 2,
        names=[f"{at % pictures:06d}.jpg" for at in range(number)],
        owner=owner,
        prints=Prints([], np.zeros(0, np.uint64), np.zeros((0, 28, 28), np.uint8)),
        rejected=(),
        files=pd.DataFrame(
            {
                "width": 224,
                "height": 224,
                "bytes": rng.integers(5_000, 9_000, number),
                "modified": 1.7e9 + 60 * rng.integers(0, 9_999, patients)[owner],
                JPEG_QUALITY: quality,
            },
            index=range(number),
        ),
        measures=pd.DataFrame(measures),
    )
