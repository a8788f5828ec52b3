"""Pages that have everything a page may have: a drawn cohort, scored, with what a bundle may say of its training."""

import shutil
from pathlib import Path
from unittest.mock import patch

from infer.bundle.load import load_bundle
from infer.output.pages import PAGES
from infer.report import write
from infer.report.texts import Texts
from infer.report.write import layout, write_report
from tests.infer.report_pages import HOSTILE, drift_record
from tests.infer.runs import TABLE, TINY, score, set_count
from tests.synthetic import make_patients, write_cohort

DRIFT = drift_record({"age_years": 0.2, "red": 120.0})
PATIENTS = 7  # the first pages; S001 has 40 pictures or more


def write_patients(folder: Path) -> Path:
    """A cohort in which one patient's ID is HTML, one has no folder, one no count, and one an empty picture."""
    write_cohort(folder, make_patients(PATIENTS, seed=3, images=(40, 44)), seed=3, labels=False, size=128)
    for patient in sorted(folder.iterdir())[1:PATIENTS]:
        for picture in sorted(patient.glob("*"))[14:] if patient.is_dir() else ():
            picture.unlink()
    (folder / "S002").rename(folder / HOSTILE)
    table = (folder / TABLE).read_text(encoding="utf-8").replace(",S002,", f",{HOSTILE},")
    (folder / TABLE).write_text(table, encoding="utf-8")
    shutil.rmtree(folder / "S003")
    set_count(folder, "S004", "")
    (folder / "S005" / "000000.jpg").write_bytes(b"")
    return folder


def write_full_pages(folder: Path, language: str) -> Path:
    """Score drawn patients and write their pages; returns the folder of pages."""
    patients, out = write_patients(folder / "patients"), folder / "out"
    score(patients, out, bundle=TINY)

    with patch.object(write, "_read_drift", lambda _: DRIFT):
        write_report(out, patients, load_bundle(TINY), layout(Texts(language)), 2)
    return out / PAGES
