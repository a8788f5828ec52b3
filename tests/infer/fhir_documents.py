"""Helpers: drawn patients of every kind with odd IDs, finished runs of them, and their FHIR documents."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import structs

from infer.bundle.load import load_bundle
from infer.errors import EXIT_MEANING
from infer.fhir.codes import Codes, read_codes
from infer.fhir.model import Model
from infer.fhir.names import CARD
from infer.fhir.patient import patient_document
from infer.fhir.said import of_one, unnamed
from infer.fhir.site import Site
from infer.fhir.write import write_fhir
from infer.output.journal import Header
from infer.output.kept import KEPT, KeptWriter
from infer.output.kinds import FHIR
from infer.output.names import RECORD
from infer.reasons import REJECTED, Reason
from infer.report.cells import choose
from infer.report.crops import Shown
from infer.report.page import PatientPage, patient_page
from infer.report.texts import Texts
from infer.scoring.ensemble import decide
from infer.scoring.result import ImageResult, PatientResult
from tests.infer.report_pages import SCORES, about, image, result
from tests.infer.runs import TINY
from tests.infer.test_results import HEADER

SYSTEM = "urn:oid:1.2.3.4"
ODD = (
    *(
        'quote"d',
        "it's",
        "<b>&amp;",
        "Müller-7",
        "Mu\N{COMBINING DIAERESIS}ller-7",
        "\N{SNOWMAN}",
        "患者１",
        "a b",
        "😀",
    ),
    *(
        "x" * 300,
        "con",
        "NUL.1",
        ".hidden",
        "-rf",
        "{{7*7}}",
        "%2e%2e",
        "S001.json",
        "_model-card",
        "p1",
        "P1",
        "a/b",
        "..",
    ),
    *("a\N{RIGHT-TO-LEFT OVERRIDE}b", "\N{ZERO WIDTH SPACE}", "\N{FULLWIDTH SOLIDUS}", "a\\b", ";DROP TABLE", "=1+1"),
    "\N{NO-BREAK SPACE}9",
)
NO_DOCUMENT = ("", "  ", "tab\tin", "line\nend", "bell\a", "del\x7f", "c1\x85", "surrogate\ud800")
RECORD_OF_A_RUN: dict[str, Any] = {
    "program": {"version": "0.1.0"},
    "bundle": {"prevalence": 0.69},
    "device": {"provider": "CPUExecutionProvider", "precision": "float32"},
    "patients": {},
    "decisions": {},
    "same_pictures": [],
    "patients_unlike_training": 0,
    "patients_disagreeing": 0,
    "exit_code": 0,
    "exit_meaning": EXIT_MEANING[0],
}


def site(version: str, language: str = "en", codes: Path | None = None) -> Site:
    return Site(version, SYSTEM, read_codes(codes) if codes else Codes(), Texts(language))


def model(**changes: Any) -> Model:
    values: dict[str, Any] = {"program": "0.1.0", "bundle": "ab" * 32, "point": "balanced", "prevalence": 0.69}
    values |= {"card": "# Model card\n", "made": "2026-11-28", "about": about(facts=(), linked=False)}
    return Model(**(values | changes))


def drawn_patients(number: int, seed: int = 0) -> list[PatientResult]:
    """Patients of every status, decision and reason, with odd IDs among them."""
    rng = np.random.default_rng(seed)
    point = about().point
    patients = []
    reasons = [reason for reason in Reason if reason.status != REJECTED]
    for index in range(number):
        name = ODD[index] if index < len(ODD) else f"P{index:03}"
        if index % 3 == 2:
            reason = reasons[(index // 3) % len(reasons)]
            images = (ImageResult("DUPONT Marie.jpg", "unreadable: /home/DUPONT"),) if index % 2 else ()
            text = f"{reason.code}: the sentence with /home/DUPONT in line 7"
            one = result(patient_id=name, status=reason.status, reason=text, scores=None, contents=(), age_years=None)
            patients.append(structs.replace(one, images=images))
            continue
        probability = float(rng.uniform())
        decision = decide(probability, point)
        unusual: tuple[str, ...] = ()
        if index % 7 == 0:
            unusual, decision = ("sharpness low", "lymph_count high"), "refer"
        pictures = [image(at, float(rng.normal())) for at in range(int(rng.integers(10, 60)))]
        contents = tuple(f"{rng.integers(2**63):016x}" for _ in pictures)
        scores = structs.replace(SCORES, probability=probability, decision=decision)
        of_it: dict[str, Any] = {"measures": {"lymph_count": float(rng.uniform(4, 1000))}, "unusual": unusual}
        of_it["sample_date"] = "2019-06-28" if index % 2 else ""
        patients.append(result(pictures, patient_id=name, scores=scores, contents=contents, **of_it))
    return patients


def write_finished(out: Path, patients: Sequence[PatientResult], header: Header = HEADER, **record: Any) -> Path:
    """What a finished run leaves for documents."""
    out.mkdir(exist_ok=True)
    writer = KeptWriter(header, "a-run", range(2, len(patients) + 2))
    text = writer.head() + "".join(writer.rows(one) for one in patients)
    (out / KEPT).write_text(text, encoding="ascii")
    content = RECORD_OF_A_RUN | {"cohort": {"patients": len(patients)}} | record
    (out / RECORD).write_text(json.dumps(content), encoding="utf-8")
    return out


def write_documents(out: Path, of: Site) -> dict[str, Any]:
    """Write the documents of a finished run with the tiny bundle. Returns them by file."""
    write_fhir(out, load_bundle(TINY), of, None)
    return documents(out)


def documents(out: Path) -> dict[str, Any]:
    """By file."""
    return {
        path.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted((out / FHIR.folder).glob("*.json"))
    }


def by_patient(found: dict[str, Any]) -> dict[str, Any]:
    """The documents by the patient that they are about."""
    return {patient_of(one): one for name, one in found.items() if name != CARD}


def patient_of(document: dict[str, Any]) -> str:
    (patient,) = {
        one["subject"]["identifier"]["value"] for one in resources(document) if "identifier" in one.get("subject", {})
    }
    return str(patient)


def resources(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (entry["resource"] for entry in document["entry"])


def of_kind(document: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [one for one in resources(document) if one["resourceType"] == kind]


def page_of(one: PatientResult, run: Any = None, language: str = "en") -> tuple[PatientResult, PatientPage]:
    """A patient's page without names."""
    texts, run = Texts(language), run or about(linked=False)
    clean, chosen = unnamed(one, choose(one) if one.scores else None, texts)
    shown = [Shown()] * len(chosen.all) if chosen else []
    return clean, patient_page(clean, chosen, shown, of_one(run, one.patient_id, texts), texts)


def document_of(one: PatientResult, of: Site | None = None, **changes: Any) -> dict[str, Any]:
    clean, page = page_of(one, language=of.texts.language if of else "en")
    return patient_document(clean, page, model(**changes), of or site("r4"))


def counted(**changes: Any) -> PatientResult:
    return result(**({"measures": {"lymph_count": 7.25}} | changes))
