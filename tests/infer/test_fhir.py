"""FHIR documents by value: what they say, of whom, under which IDs, and what they must not say."""

import base64
import datetime as dt
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from infer.fhir.names import CARD
from infer.fhir.said import conclusion
from infer.fhir.site import Site
from infer.output.kinds import FHIR, LIST
from infer.report.texts import FOLDER, Texts
from infer.scoring.result import ImageResult, PatientResult
from tests.infer.fhir_documents import (
    SYSTEM,
    by_patient,
    counted,
    document_of,
    documents,
    drawn_patients,
    of_kind,
    page_of,
    patient_of,
    resources,
    site,
    write_documents,
    write_finished,
)
from tests.infer.report_pages import SCORES, image, result
from tests.infer.runs import RESULT_FILES, TABLE, TINY, Outcome, csv_bytes, keep_patients, names, score, set_count

GOLDEN = Path(__file__).parent / "golden"
LOINC = "http://loinc.org"


def said(one: PatientResult, run: Any = None) -> str:
    return conclusion(page_of(one, run)[1], Texts("en"))


def run_with_documents(cohort: Path, out: Path, **options: Any) -> Outcome:
    return score(cohort, out, **({"bundle": TINY, "fhir": "r4", "fhir_identifier_system": SYSTEM} | options))


def bytes_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / FHIR.folder).iterdir())}


# A run


def test_a_run_writes_them_and_they_say_what_predictions_csv_says(cohort: Path, tmp_path: Path) -> None:
    set_count(cohort, "S003", "-1")
    (cohort / "S004").rename(cohort / "elsewhere")
    outcome = run_with_documents(cohort, tmp_path / "out")
    assert names(outcome.out) == sorted([*RESULT_FILES, "fhir"])
    assert sorted(documents(outcome.out)) == [*(f"S00{number}.json" for number in range(1, 7)), CARD]
    found = by_patient(documents(outcome.out))
    assert list(found) == list(outcome.predictions)
    for patient, row in outcome.predictions.items():
        observations = of_kind(found[patient], "Observation")
        assert bool(of_kind(found[patient], "RiskAssessment")) == (row["status"] == "scored")
        if row["status"] != "scored":
            (absent,) = observations
            assert "valueQuantity" not in absent
            code = {"refused": "not-performed", "failed": "error"}[row["status"]]
            assert absent["dataAbsentReason"]["coding"][0]["code"] == code
            assert absent["dataAbsentReason"]["text"].endswith(f"({row['reason'].partition(':')[0]})")
            continue
        count, probability = observations
        assert count["valueQuantity"]["value"] == float(row["lymph_count"])
        assert probability["valueQuantity"]["value"] == float(row["probability_malignant"])
        assert f"({row['decision']})" in probability["interpretation"][0]["text"]
        (assessment,) = of_kind(found[patient], "RiskAssessment")
        (prediction,) = assessment["prediction"]
        assert prediction["probabilityDecimal"] == pytest.approx(100 * float(row["probability_malignant"]), abs=1e-9)
        (report,) = of_kind(found[patient], "DiagnosticReport")
        assert f"(decision: {row['decision']})" in report["conclusion"]
    assert [found[one]["entry"][-3]["resource"]["status"] for one in ("S003", "S004")] == ["cancelled", "cancelled"]


def test_a_second_night_changes_nothing(pristine: Path, cohort: Path, tmp_path: Path) -> None:
    """Nor does another order of the table with a patient more: only the new one's file is new, pages included."""
    before = bytes_of(run_with_documents(pristine, tmp_path / "first", report=True).out)
    assert bytes_of(run_with_documents(pristine, tmp_path / "second", report=True).out) == before
    table = cohort / TABLE
    header, *lines = table.read_text().splitlines()
    more = [line.replace("S001", "S009") for line in lines if "S001" in line]
    table.write_text("\n".join([header, *more, *reversed(lines)]) + "\n")
    shutil.copytree(cohort / "S003", cohort / "S009")
    after = bytes_of(run_with_documents(cohort, tmp_path / "third", report=True).out)
    assert after.keys() - before.keys() == {"S009.json"}
    same = before.keys() - {LIST, "S003.json"}
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    # S003's pictures are now S009's, too: that is said, and nobody is named.
    ids = [[one["id"] for one in resources(json.loads(of["S003.json"]))] for of in (after, before)]
    assert ids[0] == ids[1]
    text = after["S003.json"].decode()
    assert "also those of another patient" in text
    assert "S009" not in text


def test_nor_do_pictures_with_other_names(pristine: Path, cohort: Path, tmp_path: Path) -> None:
    for number, path in enumerate(sorted((cohort / "S002").iterdir())):
        path.rename(path.with_name(f"{999 - number:06}.jpg"))
    before = bytes_of(run_with_documents(pristine, tmp_path / "first").out)
    assert bytes_of(run_with_documents(cohort, tmp_path / "second").out) == before


def test_the_tables_are_the_same_without_them(pristine: Path, tmp_path: Path) -> None:
    out = score(pristine, tmp_path / "plain", bundle=TINY).out
    assert csv_bytes(run_with_documents(pristine, tmp_path / "out").out) == csv_bytes(out)
    assert FHIR.folder not in names(out)


def test_options_of_the_run_are_told(cohort: Path, tmp_path: Path) -> None:
    """The threshold and the prevalence by which was decided, not the bundle's own."""
    asked: dict[str, Any] = {"prevalence": 0.3, "operating_point": "sensitivity-95"}
    found = by_patient(documents(run_with_documents(keep_patients(cohort, "S001"), tmp_path / "out", **asked).out))
    (assessment,) = of_kind(found["S001"], "RiskAssessment")
    assert "operating point sensitivity-95. The probability holds where 30% of" in assessment["method"]["text"]


def test_the_date_at_which_ages_are_taken_is_not_in_a_page(cohort: Path, tmp_path: Path) -> None:
    """Each night has another one; with AGE in the table no age depends on it."""
    table = cohort / TABLE
    header, *lines = table.read_text().splitlines()
    table.write_text("\n".join([f"{header},AGE", *(f"{line},63" for line in lines)]) + "\n")
    nights = [
        bytes_of(
            run_with_documents(cohort, tmp_path / date, report=True, reference_date=dt.date.fromisoformat(date)).out
        )
        for date in ("2019-07-01", "2019-07-02")
    ]
    assert nights[0] == nights[1]


def test_the_samples_date_goes_from_the_table_into_the_documents(cohort: Path, tmp_path: Path) -> None:
    """And tells the sample: a picture more corrects the result, it is no second one."""
    table = keep_patients(cohort, "S001") / TABLE
    header, line = table.read_text().splitlines()
    table.write_text(f"{header},SAMPLE_DATE\n{line},6/28/2019\n")
    first = documents(run_with_documents(cohort, tmp_path / "first").out)["S001.json"]
    assert {one["effectiveDateTime"] for one in of_kind(first, "Observation")} == {"2019-06-28"}
    shutil.copy(cohort / "S001" / "000000.jpg", cohort / "S001" / "late.jpg")
    second = documents(run_with_documents(cohort, tmp_path / "second").out)["S001.json"]
    assert [one["id"] for one in resources(first)] == [one["id"] for one in resources(second)]
    assert first != second
    table.write_text(f"{header},SAMPLE_DATE\n{line},6/29/2019\n")
    third = documents(run_with_documents(cohort, tmp_path / "third").out)["S001.json"]
    same = {one["id"] for one in resources(second)} & {one["id"] for one in resources(third)}
    assert len(same) == 1  # the Device


def test_pages_are_attached_without_what_is_others(cohort: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("000000.jpg", "000001.jpg")):
        (cohort / "S002" / f"shared{number}.jpg").write_bytes((cohort / "S003" / name).read_bytes())
    set_count(cohort, "S004", "-1")
    (cohort / "S002" / "DUPONT.jpg").write_bytes(b"no picture")
    (cohort / "S002" / "DUPONT").mkdir()
    (cohort / "S002" / "DUPONT" / "000000.jpg").write_bytes((cohort / "S001" / "000000.jpg").read_bytes())
    out = run_with_documents(cohort, tmp_path / "out", report=True).out
    (report,) = of_kind(documents(out)["S002.json"], "DiagnosticReport")
    (form,) = report["presentedForm"]
    assert (form["contentType"], form["language"]) == ("text/html", "en")
    html = base64.b64decode(form["data"]).decode()
    assert "Patient S002" in html
    assert html.count("data:image/jpeg;base64,") > 10
    for text in (html, json.dumps(documents(out)["S002.json"])):
        assert [word for word in ("S001", "S003", "DUPONT", "000000.jpg", "index.html") if word in text] == []
    assert "another patient" in html
    assert "picture 1" in html
    assert ("Export it as JPEG" in html, "the content is not JPEG" in html) == (True, False)
    (refused,) = of_kind(documents(out)["S004.json"], "DiagnosticReport")
    html = base64.b64decode(refused["presentedForm"][0]["data"]).decode()
    assert "The lymphocyte count is not plausible" in html
    assert "in line" not in html  # of the table
    assert "S003" in (out / "report" / "p00002.html").read_text()  # the page in OUT says who it is


# What is in a document


GOLDEN_PATIENTS = {
    "": counted(sample_date="2019-06-28"),
    "-refused": result(
        scores=None, status="refused", reason="too_few_images: x", contents=(), images=[], sample_date="2019-06-28"
    ),
}


@pytest.mark.parametrize("version", ["r4", "r5"])
@pytest.mark.parametrize("name", list(GOLDEN_PATIENTS))
def test_the_golden_documents(version: str, name: str) -> None:
    """By value, so that a change is seen: python -m tests.infer.test_fhir writes all anew."""
    golden = json.loads((GOLDEN / f"fhir-{version}{name}.json").read_text())
    assert document_of(GOLDEN_PATIENTS[name], site(version)) == golden


def test_each_resource_with_the_number_says_why_it_does_not_decide() -> None:
    """A system may show a RiskAssessment alone: .97 without its doubts would read as malignant."""
    unusual = ("sharpness low", "lymph_count high")
    scores = structs.replace(SCORES, probability=0.97, decision="refer")
    document = document_of(counted(scores=scores, unusual=unusual))
    (report,) = of_kind(document, "DiagnosticReport")
    (assessment,), probability = of_kind(document, "RiskAssessment"), of_kind(document, "Observation")[1]
    for one in (assessment, probability):
        assert one["note"] == [{"text": report["conclusion"]}]
    assert "Undecided (decision: refer)" in report["conclusion"]
    assert "Unlike the training patients: Sharpness low, Lymphocyte count high" in report["conclusion"]
    (prediction,) = assessment["prediction"]
    assert prediction["qualitativeRisk"] == probability["interpretation"][0] == {"text": "Undecided (refer)"}
    assert "By this number alone" in prediction["rationale"]


def test_the_samples_date_is_stated_where_the_table_has_one() -> None:
    dates = {
        (one["resourceType"], key): one[key]
        for patient in (counted(sample_date="2019-06-28"), counted())
        for one in resources(document_of(patient))
        for key in one
        if "DateTime" in key
    }
    assert dates == {
        ("Observation", "effectiveDateTime"): "2019-06-28",
        ("RiskAssessment", "occurrenceDateTime"): "2019-06-28",
        ("DiagnosticReport", "effectiveDateTime"): "2019-06-28",
    }
    assert "DateTime" not in json.dumps(document_of(counted()))


def test_what_differs_between_the_versions() -> None:
    r4, r5 = (document_of(counted(), site(version)) for version in ("r4", "r5"))
    differing = {
        one["resourceType"]: {key for key in {*one, *other} if one.get(key) != other.get(key)}
        for one, other in zip(resources(r4), resources(r5), strict=True)
        if one != other
    }
    assert differing == {"Device": {"deviceName", "name", "type"}, "Provenance": {"_recorded", "reason"}}


def test_every_reference_is_in_the_document_and_the_patient_is_an_identifier_alone() -> None:
    for one in (counted(), *drawn_patients(12)):
        document = document_of(one)
        places = {entry["request"]["url"] for entry in document["entry"]}
        referred = re.findall(r'"reference": "([^"]*)"', json.dumps(document))
        assert len(referred) >= 4
        assert set(referred) <= places
        subjects = [found["subject"] for found in resources(document) if "subject" in found]
        assert len(subjects) == (4 if one.scores else 2)
        for subject in subjects:
            assert subject == {"type": "Patient", "identifier": {"system": SYSTEM, "value": one.patient_id}}
        for entry in document["entry"]:
            kind, own = entry["resource"]["resourceType"], entry["resource"]["id"]
            assert entry["request"] == {"method": "PUT", "url": f"{kind}/{own}"}
            assert entry["fullUrl"] == f"urn:uuid:{own}"


def test_what_software_has_authored_has_its_label() -> None:
    found = [one for one in resources(document_of(counted())) if "meta" in one]
    labelled = [(one["resourceType"], one["meta"]["security"][0]["code"]) for one in found]
    assert labelled == [("Observation", "AIAST"), ("RiskAssessment", "AIAST"), ("DiagnosticReport", "AIAST")]
    count = of_kind(document_of(counted()), "Observation")[0]
    assert "meta" not in count
    assert (count["status"], count["code"]["coding"]) == (
        "unknown",
        [{"system": LOINC, "code": "26474-7", "display": "Lymphocytes [#/volume] in Blood"}],
    )
    assert count["valueQuantity"] == {
        "value": 7.25,
        "unit": "10*3/uL",
        "system": "http://unitsofmeasure.org",
        "code": "10*3/uL",
    }


def test_names_of_files_folders_and_reasons_stay_out() -> None:
    hidden = "DUPONT Marie 1950-04-03"
    pictures = [
        *(image(number, name=f"{hidden} {number}.jpg") for number in range(12)),
        ImageResult(hidden, f"empty: {hidden}"),
    ]
    for one in (
        counted(images=pictures, pictures_below=(hidden, "b")),
        result(scores=None, status="failed", reason=f"folder_missing: perhaps {hidden}", contents=(), images=pictures),
    ):
        assert hidden not in json.dumps(document_of(one))
        assert "not looked at: not named here" in said(structs.replace(one, pictures_below=(hidden,)))


@pytest.mark.parametrize(
    ("decision", "changes", "words"),
    [
        ("malignant", {"probability": 0.7}, ["Malignant (decision: malignant)", "is 0.700: at 0.625 and above"]),
        ("reactive", {"probability": 0.1}, ["Reactive (decision: reactive)", "Never enough alone: look at the smear"]),
        ("refer", {"probability": 0.5}, ["Undecided (decision: refer)", "leaves the decision to you"]),
        ("refer", {"probability": 0.7}, ["Undecided (decision: refer)", "By this number alone: Malignant"]),
    ],
)
def test_the_conclusion(decision: str, changes: dict[str, Any], words: list[str]) -> None:
    held_up = decision == "refer" and changes["probability"] == 0.7
    unusual = ("sharpness low", "lymph_count high") if held_up else ()
    text = said(counted(scores=structs.replace(SCORES, decision=decision, **changes), unusual=unusual))
    assert [word for word in words if word not in text] == []
    assert ("Unlike the training patients: Sharpness low, Lymphocyte count high" in text) == held_up
    assert text.endswith(
        "Decision support made by software, not a diagnosis and not a medical device. Never decide by it alone: "
        "look at the smear."
    )


def test_a_patient_refused_as_unlike_has_no_probability_that_may_be_wrong() -> None:
    refused: dict[str, Any] = {
        "scores": None,
        "status": "refused",
        "reason": "unlike_training: sharpness low",
        "contents": (),
    }
    text = said(result(**refused, unusual=("sharpness low",)))
    assert "(refused): Unlike the training patients. What is unlike: Sharpness low. Decision support" in text


def test_the_conclusion_without_a_result() -> None:
    one = result(scores=None, status="refused", reason="count_missing: LYMPH_COUNT in line 3", contents=(), images=())
    text = said(structs.replace(one, images=()))
    assert text.startswith("Refused, no result (refused): The lymphocyte count is missing. Decision support")
    assert "line 3" not in text


def test_french() -> None:
    document = document_of(counted(), site("r4", "fr"))
    assert {one["language"] for one in resources(document)} == {"fr"}
    (report,) = of_kind(document, "DiagnosticReport")
    assert "0,700" in report["conclusion"]
    assert "ni un diagnostic, ni un dispositif médical" in report["conclusion"]


def test_every_text_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used = set()

    class Spy(Texts):
        def __call__(self, key: str, **values: object) -> str:
            used.add(key)
            return super().__call__(key, **values)

    of = Site("r4", SYSTEM, site("r4").codes, Spy("en"))
    same = [{"patients": ["P000", "P3"], "pictures": 2}]
    patients = [*drawn_patients(6), counted(patient_id="P000", pictures_below=("x",))]
    write_finished(tmp_path, patients, same_pictures=same)
    write_documents(tmp_path, of)
    used.add("fhir.page")  # of pages, which are not attached here
    written = {
        line.partition(" =")[0]
        for line in (FOLDER / "en.toml").read_text().partition("[fhir]\n")[2].partition("\n\n")[0].splitlines()
    }
    assert {f"fhir.{name}" for name in written} - used == set()


def test_the_model_card(tmp_path: Path) -> None:
    found = write_documents(write_finished(tmp_path, [counted()]), site("r4"))
    device, card = resources(found[CARD])
    assert device == next(resources(found["P1.json"]))
    assert card["subject"] == {"reference": f"Device/{device['id']}"}
    (content,) = card["content"]
    assert base64.b64decode(content["attachment"]["data"]) == (TINY / "MODEL_CARD.md").read_bytes()
    assert content["attachment"]["contentType"] == "text/markdown"
    assert (
        json.loads((TINY / "manifest.json").read_bytes())["provenance"]["created"] == content["attachment"]["creation"]
    )


def test_drawn_patients_say_what_they_are(tmp_path: Path) -> None:
    patients = {one.patient_id: one for one in drawn_patients(60, seed=1)}
    found = by_patient(write_documents(write_finished(tmp_path, list(patients.values())), site("r5")))
    assert found.keys() == patients.keys()
    for patient, document in found.items():
        assert patient_of(document) == patient
        scores = patients[patient].scores
        assert len(of_kind(document, "RiskAssessment")) == bool(scores)
        if scores:
            value = of_kind(document, "Observation")[1]["valueQuantity"]
            assert value["value"] == np.round(scores.probability, 6)
            assert (value["code"], value["unit"]) == ("1", "probability, from 0 to 1")


if __name__ == "__main__":
    for version in ("r4", "r5"):
        for name, patient in GOLDEN_PATIENTS.items():
            text = json.dumps(document_of(patient, site(version)), indent=1, ensure_ascii=False)
            (GOLDEN / f"fhir-{version}{name}.json").write_text(text + "\n", encoding="utf-8")
