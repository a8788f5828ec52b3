"""Codes that a site chooses, and options that do not fit."""

from pathlib import Path
from typing import Any

import pytest

from infer.errors import UsageError
from infer.fhir.codes import Codes, check_system, read_codes
from infer.fhir.model import card_document
from infer.fhir.names import CARD
from tests.infer import runs
from tests.infer.fhir_documents import SYSTEM, counted, document_of, documents, model, of_kind, site
from tests.infer.runs import TINY, keep_patients

ALL = """
lymphocyte_count = { system = "http://loinc.org", code = "731-0" }
probability = { system = "urn:oid:2.1", code = "P" }
risk_assessment = { system = "urn:oid:2.2", code = "R" }
outcome = { system = "urn:oid:2.3", code = "O" }
report_category = { system = "urn:oid:2.4", code = "C" }
device_type = { system = "urn:oid:2.5", code = "D" }
model_card = { system = "urn:oid:2.6", code = "M" }

[[report]]
system = "urn:oid:2.7"
code = "A"

[[report]]
system = "urn:oid:2.8"
code = "B b"
display = "Both"
"""


def file_with(folder: Path, text: str) -> Path:
    path = folder / "codes.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("version", ["r4", "r5"])
def test_each_code_gets_its_place(tmp_path: Path, version: str) -> None:
    of = site(version, codes=file_with(tmp_path, ALL))
    document, card = document_of(counted(), of), card_document(model(), of)
    count, probability = of_kind(document, "Observation")
    (assessment,), (report,) = of_kind(document, "RiskAssessment"), of_kind(document, "DiagnosticReport")
    (device,), (reference,) = of_kind(document, "Device"), of_kind(card, "DocumentReference")
    assert count["code"]["coding"] == [{"system": "http://loinc.org", "code": "731-0"}]
    assert probability["code"]["coding"] == [{"system": "urn:oid:2.1", "code": "P"}]
    assert assessment["code"]["coding"] == [{"system": "urn:oid:2.2", "code": "R"}]
    assert assessment["prediction"][0]["outcome"]["coding"] == [{"system": "urn:oid:2.3", "code": "O"}]
    assert report["category"] == [{"coding": [{"system": "urn:oid:2.4", "code": "C"}]}]
    kind = device["type"] if version == "r4" else device["type"][0]
    assert kind["coding"] == [{"system": "urn:oid:2.5", "code": "D"}]
    assert reference["type"]["coding"] == [{"system": "urn:oid:2.6", "code": "M"}]
    assert report["code"]["coding"] == [
        {"system": "urn:oid:2.7", "code": "A"},
        {"system": "urn:oid:2.8", "code": "B b", "display": "Both"},
    ]


def test_nothing_is_invented() -> None:
    """Without a file, the only codes are the count's and those of HL7's own lists; the rest is text."""
    document = document_of(counted(), site("r4"))
    found: list[str] = []

    def look(value: Any) -> None:
        if isinstance(value, dict):
            found.extend(code["code"] for code in value.get("coding", ()))
            found.extend(code["code"] for code in value.get("security", ()))
        for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            look(one)

    look(document)
    assert sorted(found) == ["26474-7", *["AIAST"] * 4, "author", "laboratory"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("report = ", "Invalid value"),
        ("reports = { system = 'urn:x1:y', code = '1' }", "Object contains unknown field `reports`"),
        ("report = { system = 'urn:x1:y', kode = '1' }", "Object contains unknown field `kode`"),
        ("report = { system = 'urn:x1:y' }", "Object missing required field `code`"),
        ("report = 'A'", "Expected `array`, got `str`"),
        ("report = { system = 'loinc', code = '1' }", "report: system must be a URI"),
        ("report = { system = 'urn:x1:y', code = ' 1' }", "report: system must be a URI"),
        ("report = { system = 'urn:x1:y', code = '' }", "report: system must be a URI"),
        ("report = { system = 'urn:x1:y', code = \"a\\u0007\" }", "report: system must be a URI"),
        ("report = { system = 'urn:x1:y', code = '1', display = '  ' }", "report: display must be a line of text"),
        ("report = { system = 'urn:x1:y', code = '1', display = \"a\\nb\" }", "report: display must be a line of text"),
        (f"report = {'[' * 5000}", "is nested too deep"),
        ("lymphocyte_count = []", "lymphocyte_count: is empty"),
    ],
)
def test_a_bad_file_is_2_before_anything_is_scored(cohort: Path, tmp_path: Path, text: str, says: str) -> None:
    path = file_with(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        runs.score(cohort, tmp_path / "out", fhir="r4", fhir_identifier_system=SYSTEM, codes=path)
    assert f"--codes {path}" in str(caught.value)
    assert says in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_mark_of_byte_order_is_no_error(tmp_path: Path) -> None:
    """Some editors begin every file with one."""
    text = 'report = { system = "urn:oid:2.1", code = "A" }'
    (tmp_path / "codes.toml").write_text(text, encoding="utf-8-sig")
    assert read_codes(tmp_path / "codes.toml") == read_codes(file_with(tmp_path, text)) != Codes()


def test_no_file_and_one_that_is_not_text(tmp_path: Path) -> None:
    assert read_codes(None) == Codes()
    with pytest.raises(UsageError, match="cannot be read"):
        read_codes(tmp_path / "missing.toml")
    (tmp_path / "codes.toml").write_bytes(b"\xff")
    with pytest.raises(UsageError, match="codec can't decode"):
        read_codes(tmp_path / "codes.toml")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"fhir": "r4"}, "give both or none"),
        ({"fhir_identifier_system": SYSTEM}, "give both or none"),
        ({"codes": Path("codes.toml")}, "needs --fhir"),
        ({"fhir": "r4", "fhir_identifier_system": "hospital"}, "--fhir-identifier-system hospital: is no URI"),
    ],
)
def test_options_that_do_not_fit(cohort: Path, tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        runs.score(cohort, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_systems() -> None:
    uuid = "c757873d-ec9a-4326-a141-556f43239520"
    for good in ("urn:oid:1.2", "https://hospital.example/ids", "http://[::1]:80/a?b=c#d", "urn:ietf:rfc:3986"):
        check_system(good)
    check_system(f"urn:uuid:{uuid}")
    for bad in (
        *("", "1.2.3", "urn:", "http://with space", "/ids", "urn:oid:1\n", "http://", "https:///ids", "C:/ids", "ID:7"),
        *("urn:oid:", "urn:oid:1", "urn:oid:1.2.x", "urn:oid:1.02", "urn:oid:3.1", "urn:oid:1.2.", f"urn:uuid:{uuid}0"),
        *("urn:uuid:x", "urn:oid:1.2\N{ZERO WIDTH SPACE}", "https://h/\N{SNOWMAN}", "https://h/\x07", 'https://h/"'),
    ):
        with pytest.raises(UsageError):
            check_system(bad)


def test_codes_inside_the_output_folder_are_refused(cohort: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    path = file_with(tmp_path / "out", "")
    with pytest.raises(UsageError, match=r"--codes .*: lies in"):
        runs.score(cohort, tmp_path / "out", fhir="r4", fhir_identifier_system=SYSTEM, codes=path)


def test_a_run_uses_them(cohort: Path, tmp_path: Path) -> None:
    path = file_with(tmp_path, 'lymphocyte_count = { system = "http://loinc.org", code = "731-0" }')
    out = runs.score(
        keep_patients(cohort, "S001"),
        tmp_path / "out",
        bundle=TINY,
        fhir="r5",
        fhir_identifier_system=SYSTEM,
        codes=path,
    ).out
    found = documents(out)
    assert of_kind(found["S001.json"], "Observation")[0]["code"]["coding"][0]["code"] == "731-0"
    assert CARD in found
