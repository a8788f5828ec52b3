"""FHIR documents against validators: R4 (fhirkit), R4B and R5 (fhir.resources).

fhir.resources has no R4 any more; R4B is R4 but for resources that these documents do not have. None of the three knows
which codes a required binding allows: that is looked at here.
"""

import base64
import json
from pathlib import Path
from typing import Any

import fhirkit
import pytest
from fhir.resources.bundle import Bundle as R5Bundle
from fhir.resources.R4B.bundle import Bundle as R4BBundle

from infer.fhir.names import can_be_written
from infer.output.kinds import FHIR
from infer.report.texts import LANGUAGES
from tests.infer import runs
from tests.infer.fhir_documents import (
    NO_DOCUMENT,
    ODD,
    SYSTEM,
    by_patient,
    documents,
    drawn_patients,
    of_kind,
    resources,
    site,
    write_documents,
    write_finished,
)
from tests.infer.report_pages import result
from tests.infer.runs import TINY, keep_patients

ALLOWED = {
    ("Observation", "status"): {"preliminary", "unknown", "cancelled"},
    ("RiskAssessment", "status"): {"preliminary"},
    ("DiagnosticReport", "status"): {"preliminary", "cancelled"},
    ("DocumentReference", "status"): {"current"},
    ("Device", "status"): {"active"},
}
NAME_TYPES = {"r4": ("deviceName", "user-friendly-name"), "r5": ("name", "user-friendly-name")}


def problems(document: dict[str, Any], version: str) -> list[str]:
    """What validators, and the bindings that they do not know, say of a document."""
    found = []
    if version == "r4":
        found += [str(issue) for issue in fhirkit.validate(json.dumps(document))]
    for kind in (R4BBundle,) if version == "r4" else (R5Bundle,):
        try:
            kind.model_validate_json(json.dumps(document))
        except ValueError as error:
            found.append(str(error))
    for one in resources(document):
        allowed = ALLOWED.get((one["resourceType"], "status"))
        if allowed and one["status"] not in allowed:
            found.append(f"{one['resourceType']}.status {one['status']}")
    return found


@pytest.mark.parametrize("version", ["r4", "r5"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_no_document_fails_its_validator(version: str, language: str, tmp_path: Path) -> None:
    """200 drawn patients with every status, decision and reason, and odd IDs."""
    patients = drawn_patients(200)
    assert {one.status for one in patients} == {"scored", "refused", "failed"}
    assert {one.scores.decision for one in patients if one.scores} == {"malignant", "reactive", "refer"}
    nobody = [result(patient_id=one) for one in NO_DOCUMENT]
    found = write_documents(write_finished(tmp_path, [*patients, *nobody]), site(version, language))
    assert len(found) == 201
    assert {*by_patient(found)} == {one.patient_id for one in patients} >= {*ODD}
    assert {name: said for name, one in found.items() if (said := problems(one, version))} == {}


@pytest.mark.parametrize("version", ["r4", "r5"])
def test_a_run_with_pages(pristine: Path, tmp_path: Path, version: str) -> None:
    out = runs.score(
        pristine, tmp_path / "out", bundle=TINY, report=True, fhir=version, fhir_identifier_system=SYSTEM
    ).out
    found = documents(out)
    assert len(found) == 7
    assert {name: said for name, one in found.items() if (said := problems(one, version))} == {}
    for one in by_patient(found).values():
        (report,) = of_kind(one, "DiagnosticReport")
        (form,) = report["presentedForm"]
        assert base64.b64decode(form["data"]).startswith(b"<!DOCTYPE html>")


def test_the_validators_find_what_is_wrong(tmp_path: Path) -> None:
    """Else a validator that looks at nothing would pass everything."""
    for version, other in (("r4", "r5"), ("r5", "r4")):
        found = write_documents(write_finished(tmp_path, drawn_patients(1)), site(version))
        (document,) = by_patient(found).values()
        assert problems(document, version) == []
        assert problems(document, other) != []  # Device has another name there
        text = json.dumps(document)
        for right, wrong in (
            ('"status": "preliminary"', '"status": 7'),
            ('"basis"', '"bases"'),
            ('"probabilityDecimal": ', '"probabilityDecimal": "x", "y": '),
            ('"code": {', '"kode": {'),
            ('"agent"', '"agents"'),
        ):
            assert right in text
            assert problems(json.loads(text.replace(right, wrong)), version) != [], (version, wrong)


def test_the_ids_that_have_no_document(tmp_path: Path) -> None:
    """FHIR has no empty texts and no control characters; identifiers may hold the rest."""
    for patient in (*NO_DOCUMENT, *ODD):
        assert can_be_written(patient) == (patient in ODD)
    found = write_documents(write_finished(tmp_path, [result(patient_id=one) for one in NO_DOCUMENT]), site("r4"))
    assert list(found) == ["_model-card.json"]
    assert (tmp_path / FHIR.folder).is_dir()


def test_one_patient_is_enough(cohort: Path, tmp_path: Path) -> None:
    keep_patients(cohort, "S002")
    out = runs.score(cohort, tmp_path / "out", bundle=TINY, fhir="r4", fhir_identifier_system=SYSTEM).out
    assert sorted(documents(out)) == ["S002.json", "_model-card.json"]
