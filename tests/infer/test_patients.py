import csv
import datetime as dt
import hashlib
import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer.cohort.dates import NO_BIRTHS
from infer.cohort.patient import Clinical, Cohort, Patient
from infer.cohort.patients import read_cohort
from infer.errors import CohortError, UsageError
from tests.infer.manifests import PLAUSIBLE

DAY = dt.date(2019, 7, 1)
HEADER = "ID,GENDER,DOB,LYMPH_COUNT"
GOOD = "P1,F,7/1/1950,11.2"
AGE = 25202 / 365.25  # of 7/1/1950 on 7/1/2019


def read(folder: Path, table: str | bytes, day: dt.date | None = DAY, date_format: str | None = None) -> Cohort:
    (folder / "clinical_annotation.csv").write_bytes(table if isinstance(table, bytes) else table.encode())
    return read_cohort(folder, PLAUSIBLE, reference_date=day, date_format=date_format)


def read_one(folder: Path, row: str, header: str = HEADER, day: dt.date | None = DAY) -> Patient:
    (patient,) = read(folder, f"{header}\n{row}\n", day).patients
    return patient


def verdict(patient: Patient) -> tuple[str, str]:
    """Status and code of a patient without clinical values."""
    assert patient.verdict is not None
    assert patient.clinical is None
    return patient.verdict.status, patient.verdict.reason.partition(": ")[0]


def refusal(folder: Path, table: str | bytes, date_format: str | None = None) -> str:
    """The message with which the whole table is refused."""
    with pytest.raises(CohortError) as caught:
        read(folder, table, date_format=date_format)
    assert caught.value.exit_code == 4
    assert str(folder / "clinical_annotation.csv") in str(caught.value)
    return str(caught.value)


def test_a_row_is_read_by_value(tmp_path: Path) -> None:
    patient = read_one(tmp_path, GOOD)
    assert patient == Patient("P1", 2, Clinical(female=True, lymph_count=11.2, age_years=AGE), None)
    assert patient.clinical is not None
    np.testing.assert_array_equal(patient.clinical.vector(), np.array([1, 11.2, AGE], np.float32))


def test_index_and_unknown_columns_are_ignored_and_order_is_kept(tmp_path: Path) -> None:
    table = ",ID,WARD,WARD,LABEL,GENDER,DOB,LYMPH_COUNT\n9,P2,x,y,1,m,1-7-1950,5\n3,P10,x,y,-1,f,1950-07-01,6\n"
    cohort = read(tmp_path, table + "7,P1,,,0,M,7/1/1950,7\n")
    assert [patient.patient_id for patient in cohort.patients] == ["P2", "P10", "P1"]
    assert [patient.line for patient in cohort.patients] == [2, 3, 4]
    assert [patient.label for patient in cohort.patients] == ["1", "-1", "0"]
    assert [patient.clinical for patient in cohort.patients] == [
        Clinical(False, 5.0, AGE),
        Clinical(True, 6.0, AGE),
        Clinical(False, 7.0, AGE),
    ]
    assert cohort.has_labels
    assert not cohort.has_sample_dates
    assert cohort.table_sha256 == hashlib.sha256((tmp_path / "clinical_annotation.csv").read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "table",
    [
        f"{HEADER}\r\n{GOOD}\r\n",
        f"\ufeff{HEADER}\n{GOOD}\n",
        f"{HEADER}\n{GOOD}",
        f"{HEADER}\n\n{GOOD}\n\n,,,\n",
        "LYMPH_COUNT,DOB,ID,GENDER\n11.2,7/1/1950,P1,F\n",
        ' ID , GENDER,DOB,LYMPH_COUNT\n P1 ,"F", 7/1/1950 , 11.2\n',
        f"{HEADER}\r{GOOD}\r",
        f"\ufeff{HEADER}\r\nP1,F,1950-07-01,11.2\r\n".replace(",", ";"),
        f"\ufeff{HEADER}\r\nP1,F,1950-07-01,11§2\r\n".replace(",", ";").replace("§", ","),
        '"ID";"GENDER";"DOB";"LYMPH_COUNT"\n"P1";"F";"1950-07-01";"11,2"\n',
        "ID;GENDER;DOB;LYMPH_COUNT;ward, floor\n\nP1;F;1950-07-01;11,2;2,5\n;;;;\n",
    ],
    ids=[
        "crlf",
        "bom",
        "no last newline",
        "empty lines",
        "other order",
        "blanks and quotes",
        "cr",
        "semicolons",
        "a french spreadsheet's",
        "semicolons and quotes",
        "semicolons and a comma in the header",
    ],
)
def test_the_same_patient_in_other_dress(tmp_path: Path, table: str) -> None:
    (patient,) = read(tmp_path, table).patients
    assert (patient.patient_id, patient.clinical) == ("P1", Clinical(True, 11.2, AGE))


def test_a_table_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "cohort").mkdir()
    (tmp_path / "other.csv").write_text(f"{HEADER}\n{GOOD}\n")
    cohort = read_cohort(tmp_path / "cohort", PLAUSIBLE, annotations=tmp_path / "other.csv", reference_date=DAY)
    assert cohort.table == tmp_path / "other.csv"
    assert [patient.patient_id for patient in cohort.patients] == ["P1"]


def test_no_folder_and_no_table(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="nowhere: no such folder") as caught:
        read_cohort(tmp_path / "nowhere", PLAUSIBLE, reference_date=DAY)
    assert caught.value.exit_code == 4
    with pytest.raises(CohortError, match=r"clinical_annotation\.csv: cannot be read .*--annotations"):
        read_cohort(tmp_path, PLAUSIBLE, reference_date=DAY)
    with pytest.raises(CohortError, match="x: cannot be read") as caught:
        read_cohort(tmp_path / ("x" * 300), PLAUSIBLE, reference_date=DAY)
    assert caught.value.exit_code == 4
    os.mkfifo(tmp_path / "clinical_annotation.csv")
    with pytest.raises(CohortError, match=r"clinical_annotation\.csv: is not a regular file\. .*--annotations"):
        read_cohort(tmp_path, PLAUSIBLE, reference_date=DAY)


def test_folders_without_a_row_are_named_in_order(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    folder = tmp_path / "cohort"
    for made in (elsewhere, folder, folder / "P1", folder / "P9", folder / "P10", folder / ".hidden", folder / "P3"):
        made.mkdir()
    (folder / "file").write_text("")
    (folder / "linked").symlink_to(elsewhere)
    (folder / "linked_file").symlink_to(folder / "file")
    (folder / "gone").symlink_to(tmp_path / "nowhere")
    (folder / "circle").symlink_to("circle")
    (tmp_path / "cohort" / "P4").symlink_to(elsewhere)
    rows = f"{HEADER}\n{GOOD}\nP3,,,\nP4,M,7/1/1950,5\nP4,M,7/1/1950,5\nP5,M,7/1/1950,5\n"
    assert read(folder, rows).folders_without_row == ("P10", "P9", "linked")
    assert read(folder, rows + "P10,F,,\nlinked,F,,\nP9,F,,\n").folders_without_row == ()
    (elsewhere / "table.csv").write_text(rows)
    cohort = read_cohort(folder, PLAUSIBLE, annotations=elsewhere / "table.csv", reference_date=DAY)
    assert cohort.folders_without_row == ("P10", "P9", "linked")


def test_a_folders_name_need_not_be_utf_8(tmp_path: Path) -> None:
    try:
        (tmp_path / "P\udce9").mkdir()
    except OSError:
        pytest.skip("this file system accepts only UTF-8 names")
    assert read(tmp_path, f"{HEADER}\n{GOOD}\n").folders_without_row == ("P\udce9",)


def test_of_a_folder_in_the_table_nothing_more_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("P1", "P2", ".hidden"):
        (tmp_path / name).mkdir()
    asked = []
    monkeypatch.setattr("infer.cohort.folders._is_folder", lambda entry: asked.append(entry.name))
    read(tmp_path, f"{HEADER}\n{GOOD}\n")
    assert sorted(asked) == ["P2", "clinical_annotation.csv"]


def test_a_cohort_folder_that_cannot_be_listed_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "clinical_annotation.csv").write_text(f"{HEADER}\n{GOOD}\n")
    monkeypatch.setattr("infer.cohort.folders.os.scandir", refuse)
    with pytest.raises(CohortError) as caught:
        read_cohort(tmp_path, PLAUSIBLE, reference_date=DAY)
    assert caught.value.exit_code == 4
    assert f"{tmp_path}: cannot be read (Permission denied). Make the folder readable" in str(caught.value)


def test_missing_columns_are_named(tmp_path: Path) -> None:
    message = refusal(tmp_path, "ID,GENDER,LYMPH_COUNT\nP1,F,11.2\n")
    assert "has no column DOB" in message
    assert "semicolons" not in message
    assert "has no column ID, GENDER, DOB, LYMPH_COUNT" in refusal(tmp_path, b"")


def test_a_missing_column_among_semicolons_or_tabs(tmp_path: Path) -> None:
    assert "has no column DOB. " in refusal(tmp_path, "ID;GENDER;LYMPH_COUNT\nP1;F;11,2\n")
    assert "has no column DOB. " in refusal(tmp_path, '"ID";"GENDER";"LYMPH_COUNT"\nP1;F;11,2\n')
    message = refusal(tmp_path, f"{HEADER}\n{GOOD}\n".replace(",", "\t"))
    assert "has no column ID, GENDER, DOB, LYMPH_COUNT (tabs? Save the table as CSV" in message
    assert "tabs" not in refusal(tmp_path, "ID;GENDER;LYMPH_COUNT\nP1;F;11,2\n")


def test_the_header_alone_decides_between_commas_and_semicolons(tmp_path: Path) -> None:
    commas = read(tmp_path, f"{HEADER},a;b;c\nP;1;2;3,F,7/1/1950,11.2,;;;;\n")
    assert [patient.patient_id for patient in commas.patients] == ["P;1;2;3"]
    semicolons = read(tmp_path, "ID;GENDER;DOB;LYMPH_COUNT\nP,1,2,3,4;F;1950-07-01;11.2\n")
    assert [patient.patient_id for patient in semicolons.patients] == ["P,1,2,3,4"]
    assert commas.patients[0].clinical == semicolons.patients[0].clinical == Clinical(True, 11.2, AGE)
    assert "line 2: 1 cells, but the header has 4" in refusal(tmp_path, f"{HEADER}\nP1;F;7/1/1950;11.2\n")


SEMICOLONS = "ID;GENDER;DOB;LYMPH_COUNT;AGE"


@pytest.mark.parametrize(
    ("cells", "count", "age"),
    [
        ("11,2;61,5", 11.2, 61.5),
        ("11.2;61.5", 11.2, 61.5),
        ("11;61,5", 11.0, 61.5),
        ("11.2;61", 11.2, 61.0),
        ("11;61", 11.0, 61.0),
        ("1,5e2;61", 150.0, 61.0),
        (",5;61,", 0.5, 61.0),
        ("+11,2;61", 11.2, 61.0),
    ],
)
def test_numbers_between_semicolons(tmp_path: Path, cells: str, count: float, age: float) -> None:
    assert read_one(tmp_path, f"P1;F;;{cells}", SEMICOLONS).clinical == Clinical(True, count, age)


@pytest.mark.parametrize("rows", [["5;61", "11,2;61,5", "7;60"], ["5;61", "11.2;61.5", "7;60"]])
def test_whole_numbers_go_with_points_and_with_commas(tmp_path: Path, rows: list[str]) -> None:
    text = "\n".join([SEMICOLONS, *(f"P{index};F;;{row}" for index, row in enumerate(rows))])
    assert [patient.clinical for patient in read(tmp_path, text).patients] == [
        Clinical(True, 5.0, 61.0),
        Clinical(True, 11.2, 61.5),
        Clinical(True, 7.0, 60.0),
    ]


@pytest.mark.parametrize(
    ("rows", "place", "sign", "before"),
    [
        (["5;61", "11,2;61", "7;60", "11.2;61", "1,1;60"], "line 5, column LYMPH_COUNT", "point", "comma"),
        (["11.2;61", "11.2;61,5"], "line 3, column AGE", "comma", "point"),
        (["11.2;61,5"], "line 2, column AGE", "comma", "point"),
        (["1,;61", "1.;61"], "line 3, column LYMPH_COUNT", "point", "comma"),
        (["11,2;61", "\n1.5e1;61"], "line 4, column LYMPH_COUNT", "point", "comma"),
    ],
)
def test_points_and_commas_in_one_table_end_the_run(
    tmp_path: Path, rows: list[str], place: str, sign: str, before: str
) -> None:
    message = refusal(tmp_path, "\n".join([SEMICOLONS, *(f"P;F;;{row}".replace("P;F;;\n", "\nP;F;;") for row in rows)]))
    assert f"{place}: a decimal {sign}, but an earlier number has a decimal {before}" in message
    assert "use one separator" in message


def test_of_columns_the_first_in_the_file_disagrees_last(tmp_path: Path) -> None:
    message = refusal(tmp_path, "AGE;LYMPH_COUNT;ID;GENDER;DOB\n61,5;11.2;P1;F;\n")
    assert "line 2, column LYMPH_COUNT: a decimal point" in message


@pytest.mark.parametrize(
    "cell", ["1.234,5", "1,234,5", "1 234,5", "1,234.5", "1.2.3", "1,2,3", "1, 2", ",", ".", "1,e"]
)
@pytest.mark.parametrize("other", ["11,2", "11.2"])
def test_a_number_with_two_separators_is_none_and_takes_no_side(tmp_path: Path, cell: str, other: str) -> None:
    rows = f"{SEMICOLONS}\nP1;F;1950-07-01;{cell};61\nP2;F;1950-07-01;{other};61\n"
    first, second = read(tmp_path, rows).patients
    assert verdict(first) == ("refused", "count_unreadable")
    assert second.clinical == Clinical(True, 11.2, 61.0)
    assert verdict(read(tmp_path, rows.replace(f"{cell};61", f"5;{cell}")).patients[0]) == ("refused", "age_unreadable")


@pytest.mark.parametrize("row", ["P2,M,7/1/1950", "P2,M,7/1/1950,5,6", "P2,M,7/1/1950,5,2"])
def test_a_ragged_row_names_its_line(tmp_path: Path, row: str) -> None:
    assert "line 3: " in refusal(tmp_path, f"{HEADER}\n{GOOD}\n{row}\n{GOOD}\n")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_broken_quote_names_the_line_it_opens_in(tmp_path: Path, end: str) -> None:
    lines = [HEADER, '"P\n1",F,7/1/1950,11.2', '"P2"x,M,7/1/1950,5', *[GOOD] * 3, ""]
    assert "line 4: ',' expected after '\"'. Correct the line" in refusal(tmp_path, end.join(lines))
    lines[2] = '"P2,M,7/1/1950,5'
    assert "line 4: a closing quote is missing. Correct the line" in refusal(tmp_path, end.join(lines))
    assert "line 1: " in refusal(tmp_path, f'ID,"GENDER"x,DOB,LYMPH_COUNT{end}{GOOD}{end}')


def test_a_row_over_several_lines_is_named_by_its_first(tmp_path: Path) -> None:
    first, second = read(tmp_path, f'{HEADER}\n"a\r\nb",F,7/1/1950,11.2\n{GOOD}\n').patients
    assert (first.line, *verdict(first)) == (2, "failed", "id_unusable")
    assert (second.line, second.verdict) == (4, None)
    assert "line 2: 3 cells" in refusal(tmp_path, f'{HEADER}\n"a\nb",F,7/1/1950\n{GOOD}\n')


def test_a_cell_of_any_length_is_read_or_named_by_its_line(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    first, second = read(
        tmp_path, f"{HEADER}\n{'x' * limit},F,7/1/1950,11.2\nP2,F,7/1/1950,{'1' * (limit - 1)}x\n"
    ).patients
    assert first.clinical == Clinical(True, 11.2, AGE)
    assert verdict(second) == ("refused", "count_unreadable")
    message = refusal(tmp_path, f"{HEADER}\n{GOOD}\n{'x' * (limit + 1)},F,7/1/1950,11.2\n{GOOD}\n")
    assert f"line 3: a cell of more than {limit} characters" in message
    unclosed = refusal(tmp_path, f'{HEADER}\n{GOOD}\n"P2,F,7/1/1950,5\n' + f"{GOOD}\n" * limit)
    assert "line 3: " in unclosed
    assert "is a closing quote missing?" in unclosed


@pytest.mark.parametrize("table", [f"{HEADER}\n", f"{HEADER}\n\n,,,\n"])
def test_no_rows(tmp_path: Path, table: str) -> None:
    assert "has no patient" in refusal(tmp_path, table)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["no mark", "mark"])
@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_not_utf_8_names_the_line(tmp_path: Path, end: str, mark: bytes, encoding: str) -> None:
    lines = [HEADER, GOOD, "\xe9,M,7/1/1950,5", GOOD, ""]  # directly after the end of a line
    message = refusal(tmp_path, mark + end.join(lines).encode(encoding))
    assert "line 3: not UTF-8 text, but Latin-1" in message
    assert "Save the table as CSV in UTF-8" in message


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_wide_characters_are_refused(tmp_path: Path, encoding: str) -> None:
    message = refusal(tmp_path, f"{HEADER}\n{GOOD}\n".encode(encoding))
    assert "UTF-16" in message
    assert "line 1: " in message
    assert "Save the table as CSV in UTF-8" in message
    assert ("not UTF-8 but UTF-16" in message) == (encoding in ("utf-16", "utf-32"))


def test_wide_characters_with_a_mark_in_the_other_order(tmp_path: Path) -> None:
    message = refusal(tmp_path, f"\ufeff{HEADER}\n{GOOD}\n".encode("utf-16-be"))
    assert "line 1: not UTF-8 but UTF-16" in message


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_nul_names_its_line(tmp_path: Path, end: str) -> None:
    message = refusal(tmp_path, end.join([HEADER, GOOD, "P\0,F,7/1/1950,5", GOOD, ""]))
    assert "line 3: a NUL character" in message
    assert "UTF-8" in message


def test_a_column_twice(tmp_path: Path) -> None:
    message = refusal(tmp_path, f"{HEADER},DOB\n{GOOD},7/1/1950\n")
    assert "has the column DOB more than once" in message


def test_an_id_twice_is_one_failed_row_at_its_first_place(tmp_path: Path) -> None:
    cohort = read(tmp_path, f"{HEADER}\n{GOOD}\nP2,M,7/1/1950,5\nP1,M,7/1/1960,6\nP1,M,7/1/1960,6\n")
    first, second = cohort.patients
    assert (first.patient_id, first.line, *verdict(first)) == ("P1", 2, "failed", "id_duplicate")
    assert "3 times" in (first.verdict.reason if first.verdict else "")
    assert (second.patient_id, second.verdict) == ("P2", None)


@pytest.mark.parametrize("character", list("\v\f\x1c\x1d\x1e\x85\u2028\u2029"))
def test_a_character_that_only_python_takes_for_a_new_line_costs_its_own_row(tmp_path: Path, character: str) -> None:
    first, second = read(tmp_path, f"{HEADER}\na{character}b,F,7/1/1950,11.2\n{GOOD}\n").patients
    assert (first.patient_id, first.line, *verdict(first)) == (f"a{character}b", 2, "failed", "id_unusable")
    assert (second.patient_id, second.line, second.verdict) == ("P1", 3, None)


@pytest.mark.parametrize("patient_id", [".", "..", "a/b", "/etc", "..\\x", "a\1b", "a\tb", "a\u202eb"])
def test_an_id_that_cannot_be_a_folders_name_fails(tmp_path: Path, patient_id: str) -> None:
    patient = read_one(tmp_path, f"{patient_id},F,7/1/1950,11.2")
    assert (patient.patient_id, *verdict(patient)) == (patient_id, "failed", "id_unusable")


@pytest.mark.parametrize("patient_id", ["=1+1", "+1", "-1", "@SUM(A1)", "=cmd|' '!A0", "'P1", "P 1", "Pé", "患者"])
def test_a_formula_or_any_other_name_of_a_folder_stays_as_it_is(tmp_path: Path, patient_id: str) -> None:
    assert read_one(tmp_path, f"{patient_id},F,7/1/1950,11.2").patient_id == patient_id
    (tmp_path / patient_id).mkdir()
    cohort = read(tmp_path, f"{HEADER}\n{patient_id},F,7/1/1950,11.2\n")
    assert cohort.patients == (Patient(patient_id, 2, Clinical(True, 11.2, AGE), None),)
    assert cohort.folders_without_row == ()


def test_a_hundred_thousand_rows(tmp_path: Path) -> None:
    rows = [f"P{index};M;{1 + index % 28}-7-1950;{index % 999},5" for index in range(100_000)]
    rows[70_000] = "P7;F;1-7-1950;1,5"  # P7 occurs twice
    cohort = read(tmp_path, "\r\n".join(["ID;GENDER;DOB;LYMPH_COUNT", *rows]))
    assert len(cohort.patients) == 99_999
    assert cohort.patients[-1] == Patient(
        "P99999", 100_001, Clinical(False, 99.5, (DAY - dt.date(1950, 7, 12)).days / 365.25), None
    )
    assert cohort.patients[70_000].patient_id == "P70001"
    failed = [patient for patient in cohort.patients if patient.verdict]
    assert [(patient.patient_id, patient.line, *verdict(patient)) for patient in failed] == [
        ("P7", 9, "failed", "id_duplicate")
    ]


def test_rows_without_an_id_stay_apart(tmp_path: Path) -> None:
    cohort = read(tmp_path, f"{HEADER}\n,F,7/1/1950,11.2\n{GOOD}\n  ,F,7/1/1950,11.2\n")
    assert [patient.line for patient in cohort.patients] == [2, 3, 4]
    assert [verdict(cohort.patients[index]) for index in (0, 2)] == [("failed", "id_missing")] * 2


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ("P1,F,7/1/1950,", "count_missing"),
        ("P1,F,7/1/1950,  ", "count_missing"),
        ("P1,F,7/1/1950,high", "count_unreadable"),
        ("P1,F,7/1/1950,11.2 G/L", "count_unreadable"),
        ('P1,F,7/1/1950,"11,2"', "count_unreadable"),
        ("P1,F,7/1/1950,1_1", "count_unreadable"),
        ("P1,F,7/1/1950,1_000", "count_unreadable"),
        ("P1,F,7/1/1950,5 000", "count_unreadable"),
        ("P1,F,7/1/1950,5\xa0000", "count_unreadable"),
        ("P1,F,7/1/1950,\uff15", "count_unreadable"),
        ("P1,F,7/1/1950,\u0665", "count_unreadable"),
        ("P1,F,7/1/1950,\u22123", "count_unreadable"),
        ("P1,F,7/1/1950,0x5", "count_unreadable"),
        ("P1,F,7/1/1950,--5", "count_unreadable"),
        ("P1,F,7/1/1950,5e", "count_unreadable"),
        ("P1,F,7/1/1950,.", "count_unreadable"),
        ("P1,F,7/1/1950,NaN", "count_unreadable"),
        ("P1,F,7/1/1950,Infinity", "count_unreadable"),
        ("P1,F,7/1/1950,=5+6", "count_unreadable"),
        ("P1,F,7/1/1950,#VALUE!", "count_unreadable"),
        ("P1,F,7/1/1950,nan", "count_unreadable"),
        ("P1,F,7/1/1950,inf", "count_unreadable"),
        ("P1,F,7/1/1950,-inf", "count_unreadable"),
        ("P1,F,7/1/1950,1e999", "count_unreadable"),
        ("P1,F,7/1/1950,0", "count_implausible"),
        ("P1,F,7/1/1950,-0.0", "count_implausible"),
        ("P1,F,7/1/1950,-3", "count_implausible"),
        ("P1,F,7/1/1950,1000.1", "count_implausible"),
        ("P1,F,7/1/1950,11200", "count_implausible"),
        ("P1,F,7/1/1950,1e9", "count_implausible"),
        ("P1,F,7/1/1950,1000000000", "count_implausible"),
        ("P1,F,7/1/1950,1e-999", "count_implausible"),
        ("P1,,7/1/1950,11.2", "sex_missing"),
        ("P1,X,7/1/1950,11.2", "sex_missing"),
        ("P1,unknown,7/1/1950,11.2", "sex_missing"),
        ("P1,F,,11.2", "birth_date_missing"),
        ("P1,F,1.7.1950,11.2", "birth_date_unreadable"),
        ("P1,F,31-2-1950,11.2", "birth_date_unreadable"),
        ("P1,F,2/30/1950,11.2", "birth_date_unreadable"),
        ("P1,F,1/1/1900,11.2", "birth_date_placeholder"),
        ("P1,F,1/0/1900,11.2", "birth_date_placeholder"),
        ("P1,F,00/00/1929,11.2", "birth_date_placeholder"),
        ("P1,F,0000-00-00,11.2", "birth_date_placeholder"),
        ("P1,F,30-12-1899,11.2", "birth_date_placeholder"),
        ("P1,F,1900-01-01 00:00:00,11.2", "birth_date_placeholder"),
        ("P1,F,7/2/2019,11.2", "age_implausible"),
        ("P1,F,7/1/2950,11.2", "age_implausible"),
        ("P1,F,7/1/1850,11.2", "age_implausible"),
        ("P1,F,1850-07-01,11.2", "age_implausible"),
        ("P1,F,6/29/1899,11.2", "age_implausible"),
    ],
)
def test_a_patient_is_refused_for_a_reason(tmp_path: Path, row: str, code: str) -> None:
    patient = read_one(tmp_path, row)
    assert verdict(patient) == ("refused", code)
    assert patient.verdict is not None
    assert "line 2" in patient.verdict.reason


def test_a_count_too_large_hints_at_cells_per_microlitre(tmp_path: Path) -> None:
    reasons = {}
    for count in ("11200", "1000.1", "0", "-3"):
        patient = read_one(tmp_path, f"P1,F,7/1/1950,{count}")
        reasons[count] = patient.verdict.reason if patient.verdict else ""
    assert [count for count in reasons if "cells per microlitre" in reasons[count]] == ["11200", "1000.1"]


@pytest.mark.parametrize(
    ("cell", "count"),
    [("1000", 1000.0), ("0.001", 0.001), ("1e2", 100.0), ("+5", 5.0), ("5.", 5.0), (".5", 0.5), ("05", 5.0)],
)
def test_counts_at_the_edges_are_taken(tmp_path: Path, cell: str, count: float) -> None:
    assert read_one(tmp_path, f"P1,F,7/1/1950,{cell}").clinical == Clinical(True, count, AGE)


def test_ages_at_the_edges_are_taken(tmp_path: Path) -> None:
    assert read_one(tmp_path, "P1,F,7/1/2019,5").clinical == Clinical(True, 5.0, 0.0)
    assert read_one(tmp_path, "P1,F,6/30/1899,5").clinical == Clinical(True, 5.0, 120.0)


def test_a_given_age_is_used_as_it_stands(tmp_path: Path) -> None:
    header = f"{HEADER},AGE"
    assert read_one(tmp_path, "P1,F,7/1/1950,5,61.5", header).clinical == Clinical(True, 5.0, 61.5)
    assert read_one(tmp_path, "P1,F,,5,61.5", header).clinical == Clinical(True, 5.0, 61.5)
    assert read_one(tmp_path, "P1,F,7/1/1950,5,", header).clinical == Clinical(True, 5.0, AGE)
    assert verdict(read_one(tmp_path, "P1,F,7/1/1950,5,old", header)) == ("refused", "age_unreadable")
    assert verdict(read_one(tmp_path, "P1,F,7/1/1950,5,nan", header)) == ("refused", "age_unreadable")
    assert verdict(read_one(tmp_path, "P1,F,7/1/1950,5,120.5", header)) == ("refused", "age_implausible")
    assert verdict(read_one(tmp_path, "P1,F,7/1/1950,5,-1", header)) == ("refused", "age_implausible")
    assert verdict(read_one(tmp_path, 'P1,F,7/1/1950,5,"61,5"', header)) == ("refused", "age_unreadable")
    assert verdict(read_one(tmp_path, "P1,F,7/1/1950,5,\uff16\uff11", header)) == ("refused", "age_unreadable")


def test_age_is_taken_at_the_sample_date_and_falls_back_to_the_reference_date(tmp_path: Path) -> None:
    header = f"{HEADER},SAMPLE_DATE"
    at_sample = read(tmp_path, f"{header}\nP1,F,7/1/1950,5,7/1/2010\nP2,F,7/1/1950,5,\n")
    assert at_sample.has_sample_dates
    ages = [patient.clinical and patient.clinical.age_years for patient in at_sample.patients]
    assert ages == [21915 / 365.25, AGE]
    assert verdict(read_one(tmp_path, "P1,F,7/1/1950,5,", header, day=None)) == ("refused", "sample_date_missing")
    before_birth = read_one(tmp_path, "P1,F,7/1/1950,5,6/30/1950", header)
    assert verdict(before_birth) == ("refused", "sample_date_before_birth")
    unreadable = read_one(tmp_path, "P1,F,7/1/1950,5,yesterday", header)
    assert verdict(unreadable) == ("refused", "sample_date_unreadable")


def test_an_impossible_slash_date_in_either_column_ends_the_run(tmp_path: Path) -> None:
    table = f"{HEADER},SAMPLE_DATE\n{GOOD},1/2/2019\nP2,M,7/1/1950,5,13/2/2019\n"
    message = refusal(tmp_path, table)
    assert "line 3, column SAMPLE_DATE" in message
    assert "--date-format %d/%m/%Y" in message
    cohort = read(tmp_path, table.replace("7/1/1950", "1/7/1950"), date_format="%d/%m/%Y")
    ages = [patient.clinical and patient.clinical.age_years for patient in cohort.patients]
    assert ages == [(dt.date(2019, 2, day) - dt.date(1950, 7, 1)).days / 365.25 for day in (1, 13)]


def test_messages_hold_lines_and_columns_but_no_values(tmp_path: Path) -> None:
    secrets = ("1951", "7123", "sekret")
    rows = ["P1,unknown,7/1/1950,5", "P1,F,sekret,5", "P1,F,7/1/1950,sekret", "P1,F,7/1/1950,77123", "P1,F,1-1-2951,5"]
    reasons = []
    for row in rows:
        patient = read_one(tmp_path, row)
        reasons.append(patient.verdict.reason if patient.verdict else "")
    broken = (
        "P1,F,13/12/1951,5",
        "P1,sekret,7/1/1950,5",
        "P1,F,1951",
        '"sekret"x,F',
        '"sekret',
        "sekret\0",
        "sekret" * 30_000,
    )
    messages = [refusal(tmp_path, f"{HEADER}\n{row}\n") for row in broken]
    messages.append(refusal(tmp_path, f"{SEMICOLONS}\nP1;F;;7.7123;61\nP1;F;;7,7123;61\n"))
    messages.append(refusal(tmp_path, f"{HEADER}\nsekret\xe9\n".encode("latin-1")))
    assert all(reasons)
    for text in (*reasons, *messages):
        assert not [secret for secret in (*secrets, "2951") if secret in text.replace(str(tmp_path), "")]
        assert "line " in text


def in_some_format(date: dt.date, style: int) -> str:
    return (f"{date.month}/{date.day}/{date.year}", f"{date.day:02}-{date.month:02}-{date.year}", date.isoformat())[
        style
    ]


IDS = (
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\\"), min_size=1, max_size=12)
    .map(str.strip)
    .filter(lambda text: text.isprintable() and text not in ("", ".", ".."))
)
VALID_ROWS = st.tuples(
    IDS,
    st.sampled_from("MFmf"),
    st.dates(dt.date(1899, 6, 30), DAY).filter(lambda date: date not in NO_BIRTHS),
    st.floats(0, 1000, exclude_min=True),
    st.integers(0, 2),
)


@given(rows=st.lists(VALID_ROWS, min_size=1, max_size=8, unique_by=lambda row: row[0]))
def test_what_csv_writes_reads_back_the_same(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, dt.date, float, int]]
) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["", *HEADER.split(",")])
    for index, (patient_id, sex, birth, count, style) in enumerate(rows):
        writer.writerow([index, patient_id, sex, in_some_format(birth, style), repr(count)])
    cohort = read(tmp_path_factory.mktemp("cohort"), text.getvalue())
    assert [(patient.patient_id, patient.clinical) for patient in cohort.patients] == [
        (patient_id, Clinical(sex in "Ff", count, (DAY - birth).days / 365.25))
        for patient_id, sex, birth, count, _ in rows
    ]


@pytest.mark.parametrize(
    ("sample", "today", "code"),
    [
        ("7/2/2019", "2019-07-01", ""),  # a hospital in New Zealand may be a day ahead
        ("7/3/2019", "2019-07-01", "sample_date_in_future"),
        ("7/1/2091", "2026-11-27", "sample_date_in_future"),
        ("7/1/1950", "2019-07-01", ""),  # a newborn
        ("6/30/1950", "2019-07-01", "sample_date_before_birth"),
    ],
)
def test_a_sample_lies_between_birth_and_today(tmp_path: Path, sample: str, today: str, code: str) -> None:
    (tmp_path / "clinical_annotation.csv").write_text(
        f"{HEADER},SAMPLE_DATE\nP1,F,7/1/1950,5,{sample}\nP2,F,7/1/1950,11.2,\n"
    )
    first, second = read_cohort(tmp_path, PLAUSIBLE, reference_date=DAY, today=dt.date.fromisoformat(today)).patients
    assert (first.verdict.reason.partition(":")[0] if first.verdict else "") == code
    assert second.clinical == Clinical(True, 11.2, AGE)


def test_without_a_day_given_today_is_the_machines(tmp_path: Path) -> None:
    far = dt.datetime.now(dt.UTC).date() + dt.timedelta(days=3)
    near = far - dt.timedelta(days=3)
    rows = f"{HEADER},SAMPLE_DATE\nP1,F,7/1/1950,5,{far}\nP2,F,7/1/1950,5,{near}\n"
    first, second = read(tmp_path, rows).patients
    assert verdict(first) == ("refused", "sample_date_in_future")
    assert second.clinical == Clinical(True, 5.0, (near - dt.date(1950, 7, 1)).days / 365.25)


def test_samples_have_a_format_of_their_own(tmp_path: Path) -> None:
    rows = f"{HEADER},SAMPLE_DATE\nP1,F,01/07/1950,5,1.7.10 08:15\nP2,F,01/07/1950,5,2010-07-01T08:15:00+02:00\n"
    (tmp_path / "clinical_annotation.csv").write_text(rows)

    def codes_and_ages(sample_date_format: str | None) -> list[object]:
        cohort = read_cohort(
            tmp_path, PLAUSIBLE, reference_date=DAY, date_format="%d/%m/%Y", sample_date_format=sample_date_format
        )
        return [one.clinical.age_years if one.clinical else verdict(one)[1] for one in cohort.patients]

    assert codes_and_ages("%d.%m.%y %H:%M") == [21915 / 365.25, "sample_date_unreadable"]
    assert codes_and_ages("iso") == ["sample_date_unreadable", 21915 / 365.25]
    assert codes_and_ages(None) == ["sample_date_unreadable"] * 2


def test_a_format_for_births_with_two_digit_years_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "clinical_annotation.csv").write_text(f"{HEADER}\nP1,M,16/06/18,4.6\n")
    with pytest.raises(UsageError, match=r"--date-format %d/%m/%y: two-digit years.*%Y"):
        read_cohort(tmp_path, PLAUSIBLE, reference_date=DAY, date_format="%d/%m/%y")


def test_a_french_table_whose_days_are_all_twelve_or_lower_stops(tmp_path: Path) -> None:
    rows = "ID;GENDER;DOB;LYMPH_COUNT\nP1;M;05/06/1950;5,8\nP2;F;11/12/1929;4,6\n"
    message = refusal(tmp_path, rows)
    assert "line 2, column DOB: a date that may be day/month/year or month/day/year" in message
    assert "--date-format %d/%m/%Y" in message
    proven = read(tmp_path, f"{rows}P3;F;31/12/1929;4,6\n")
    assert [one.clinical.age_years for one in proven.patients if one.clinical] == [
        (DAY - day).days / 365.25 for day in (dt.date(1950, 6, 5), dt.date(1929, 12, 11), dt.date(1929, 12, 31))
    ]


def test_women_of_a_spanish_table_are_not_men(tmp_path: Path) -> None:
    rows = "ID;GENDER;DOB;LYMPH_COUNT\nA1;H;1946-01-17;5,8\nA2;M;1929-06-16;4,6\n"
    message = refusal(tmp_path, rows)
    assert "line 2, column GENDER: the column contains H, M, and" in message
    assert "--sex-codes" in message
    cohort = read_cohort(tmp_path, PLAUSIBLE, reference_date=DAY, sex_codes={"H": "male", "M": "female"})
    assert [one.clinical.female for one in cohort.patients if one.clinical] == [False, True]


@pytest.mark.parametrize(
    ("folder", "patient_id"),
    [("Zoe\u03011", "Zo\u00e91"), ("Zo\u00e91", "Zoe\u03011"), ("p1", "P1"), ("P1 ", "P1"), ("STRASSE", "Stra\u00dfe")],
)
def test_a_folder_that_looks_like_an_id_is_known(tmp_path: Path, folder: str, patient_id: str) -> None:
    (tmp_path / folder).mkdir()
    (tmp_path / "P2").mkdir()
    rows = f"{HEADER}\n{patient_id},F,7/1/1950,5\nP2,F,7/1/1950,5\nP3,F,7/1/1950,5\n"
    assert [one.look_alike for one in read(tmp_path, rows).patients] == [folder, "", ""]


@pytest.mark.parametrize("cell", ["1970-01-01", "1/1/1980", "1900-01-01", "00/00/2019"])
def test_a_sample_on_the_first_day_of_a_computers_calendar_is_none(tmp_path: Path, cell: str) -> None:
    patient = read_one(tmp_path, f"P1,F,7/1/1950,5,{cell}", f"{HEADER},SAMPLE_DATE")
    assert verdict(patient) == ("refused", "sample_date_placeholder")
    assert read_one(tmp_path, "P1,F,1/1/1970,5,7/1/2010", f"{HEADER},SAMPLE_DATE").verdict is None


def test_a_format_for_a_column_that_is_not_there_stops_the_run(tmp_path: Path) -> None:
    (tmp_path / "clinical_annotation.csv").write_text(f"{HEADER},Sample_Date\n{GOOD},1/7/2010\n")
    with pytest.raises(CohortError, match="has no column SAMPLE_DATE, but --sample-date-format is given"):
        read_cohort(tmp_path, PLAUSIBLE, reference_date=DAY, sample_date_format="%d/%m/%Y")


def test_how_the_columns_were_read_is_known(tmp_path: Path) -> None:
    cohort = read(tmp_path, f"{HEADER}\nP1,F,7/1/1950,5\nP2,M,7/2/1950,5\n")
    assert cohort.readings == {"DOB": "with / month/day/year, unproven", "GENDER": "F=female, M=male"}
    assert cohort.unproven == ("DOB",)
    assert read(tmp_path, f"{HEADER}\nP1,F,7/31/1950,5\n").unproven == ()
