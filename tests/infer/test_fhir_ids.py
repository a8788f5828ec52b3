"""IDs of FHIR resources and names of their files: the same every night, and nobody else's."""

import uuid
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from infer.fhir.ids import NAMESPACE, card_id, result_id, sample
from infer.fhir.names import CARD, Names
from infer.fhir.site import Site
from infer.output.kinds import FHIR
from infer.report.texts import Texts
from infer.scoring.result import PatientResult
from tests.infer.fhir_documents import (
    ODD,
    counted,
    document_of,
    resources,
    site,
    write_documents,
    write_finished,
)
from tests.infer.report_pages import SCORES, result


def test_what_an_id_depends_on() -> None:
    one = counted()
    first = {key: found["id"] for key, found in enumerate(resources(document_of(one)))}
    assert len(set(first.values())) == len(first) == 6

    def changed(other: PatientResult, of: Site | None = None, **changes: Any) -> set[int]:
        found = {key: found["id"] for key, found in enumerate(resources(document_of(other, of, **changes)))}
        return {key for key in first if first[key] != found[key]}

    device, count, rest = {0}, {1}, {2, 3, 4, 5}
    renamed = result([structs.replace(found, image=f"x{found.image}") for found in one.images], measures=one.measures)
    assert changed(structs.replace(renamed, contents=one.contents[::-1])) == set()
    assert changed(counted(measures={"lymph_count": 9.0}, age_years=70.1)) == set()
    assert changed(counted(scores=structs.replace(SCORES, probability=0.71))) == set()
    assert changed(one, site("r5")) == changed(one, point="other", prevalence=0.3) == set()
    assert changed(one, program="0.2.0") == device
    assert changed(one, bundle="cd" * 32) == device | rest
    other = counted(contents=(*one.contents[1:], "f" * 16))
    assert changed(other) == count | rest
    assert changed(structs.replace(one, patient_id="P2")) == count | rest
    dated = structs.replace(one, sample_date="2019-06-28")
    assert changed(dated) == count | rest
    of_the_date = [found["id"] for found in resources(document_of(dated))]
    assert of_the_date == [
        found["id"] for found in resources(document_of(structs.replace(other, sample_date="2019-06-28")))
    ]
    elsewhere = Site("r4", "urn:oid:9", site("r4").codes, Texts("en"))
    assert changed(one, elsewhere) == count | rest


def test_a_night_without_a_result_takes_none_back() -> None:
    """And says it once, whatever the reason."""
    scored = {one["id"] for one in resources(document_of(counted()))}
    nights = [
        [
            one["id"]
            for one in resources(document_of(result(scores=None, status=status, reason=reason, contents=contents)))
        ]
        for status, reason, contents in (
            ("failed", "folder_missing: x", ()),
            ("failed", "still_changing: x", ()),
            ("refused", "unlike_training: x", ("ab",) * 20),
        )
    ]
    assert nights[0] == nights[1] == nights[2]
    device = nights[0][0]
    assert scored & set(nights[0]) == {device}


def test_ids_tell_parts_apart() -> None:
    assert result_id("a", "b", "c", "d", "e") == "b0d0ef96-e1e0-53ff-9599-c57d173e97e9"  # for ever
    assert uuid.UUID(result_id("a", "b", "c", "d", "e")) == uuid.uuid5(NAMESPACE, '["a", "b", "c", "d", "e"]')
    assert len({result_id("k", "b", *parts, "") for parts in (("ab", "c"), ("a", "bc"), ("", "abc"), ("abc", ""))}) == 4
    assert card_id("b", "x") != card_id("b", "y")
    assert sample(counted()) == sample(counted(contents=counted().contents[::-1])) != ""


def test_file_names() -> None:
    of = Names()
    given = {patient: of.name_of(patient) for patient in ODD}
    assert {patient for patient, name in given.items() if name == f"{patient}.json"} == {"S001.json", "p1"}
    assert all(FHIR.name.fullmatch(name or "") for name in given.values())
    assert len({(name or "").lower() for name in given.values()}) == len(ODD)  # on a share that ignores capitals, too
    assert of.name_of("P-7_a.b") == "P-7_a.b.json"
    assert of.name_of("P-7_a.b") is None
    assert Names().name_of("P1") == "P1.json"
    assert CARD not in given.values()
    assert FHIR.name.fullmatch(CARD)


def test_an_id_that_stands_twice_has_one_document(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    twice = result(patient_id="P1", scores=None, status="failed", reason="id_duplicate: x", contents=(), age_years=None)
    patients = [twice, twice, result(patient_id="", scores=None, status="failed", reason="id_missing: x", contents=())]
    caplog.set_level("INFO")
    assert list(write_documents(write_finished(tmp_path, patients), site("r4"))) == ["P1.json", CARD]
    assert "FHIR documents of 1 patients written" in caplog.text
    assert "patients whose ID is empty or holds control characters: 1" in caplog.text
