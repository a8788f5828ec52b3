"""Tables as written by spreadsheets: the values read, and lines that are errors because a cell may be shifted."""

import itertools
from pathlib import Path

import pytest

from infer.cohort.table import Table, parse_table
from infer.errors import CohortError

PATH = Path("cohort/clinical_annotation.csv")
HEADER = "ID;GENDER;DOB;LYMPH_COUNT"
BODY = f"{HEADER}\r\nA1;M;1946-01-17;5,8\r\nA2;F;1950-02-03;9,1\r\n"
FIRST = {"ID": "A1", "GENDER": "M", "DOB": "1946-01-17", "LYMPH_COUNT": "5.8"}
SECOND = {"ID": "A2", "GENDER": "F", "DOB": "1950-02-03", "LYMPH_COUNT": "9.1"}
MARK = b"\xef\xbb\xbf"


def read(table: str | bytes) -> Table:
    return parse_table(table if isinstance(table, bytes) else table.encode(), PATH)


def read_rows(table: str | bytes) -> list[tuple[int, dict[str, str]]]:
    return [(row.line, row.cells) for row in read(table).rows]


def refusal(table: str | bytes) -> str:
    """The message with which the whole table is refused."""
    with pytest.raises(CohortError) as caught:
        read(table)
    assert caught.value.exit_code == 4
    assert str(caught.value).startswith(str(PATH))
    return str(caught.value).removeprefix(str(PATH))


@pytest.mark.parametrize("first", ["sep=;", "SEP=;", "Sep=;", '"sep=;"', "sep=; ", "sep=;;;;", "\ufeffsep=;"])
@pytest.mark.parametrize("end", ["\r\n", "\n", "\r"])
def test_a_separator_line_is_no_header_and_counts_as_a_line(first: str, end: str) -> None:
    table = read(first + end + BODY.replace("\r\n", end))
    assert [(row.line, row.cells) for row in table.rows] == [(3, FIRST), (4, SECOND)]
    assert table.delimiter == ";"


def test_the_separator_line_decides_and_not_the_header() -> None:
    commas = "ID,GENDER,DOB,LYMPH_COUNT,a;b\nA1,M,1946-01-17,5.8,\n"
    table = read(f"sep=,\n{commas}")
    assert ([row.cells for row in table.rows], table.delimiter) == ([FIRST], ",")
    assert "has no column ID, GENDER, DOB, LYMPH_COUNT" in refusal(f"sep=;\n{commas}")


def test_messages_below_a_separator_line_have_the_files_lines() -> None:
    assert refusal("sep=;\nID;GENDER;LYMPH_COUNT\nA1;M;5,8\n") == (
        ": has no column DOB. Line 2 must name the columns, separated as line 1 says"
    )
    assert refusal("ID;GENDER;LYMPH_COUNT\nA1;M;5,8\n") == ": has no column DOB. Line 1 must name the columns"
    assert ", line 3: 3 cells, but the header has 4" in refusal(f"sep=;\n{HEADER}\nA1;M;1946-01-17\n")
    assert ", line 4: a closing quote is missing" in refusal(f'sep=;\n{HEADER}\nA1;M;1946-01-17;5,8\n"A2;F\n')
    assert ", line 2: ';' expected after" in refusal(f'sep=;\n"ID"x;{HEADER}\n')
    assert ", line 4, column LYMPH_COUNT: a decimal point" in refusal(f"sep=;\n{BODY.replace('9,1', '9.1')}")
    assert ", line 4: not UTF-8" in refusal(f"sep=;\n{HEADER}\nA1;M;1946-01-17;5,8\n\xe9;F\n".encode("latin-1"))
    assert ", line 4: a NUL" in refusal(f"sep=;\n{HEADER}\nA1;M;1946-01-17;5,8\n\0;F\n")
    assert "has no patient" in refusal(f"sep=;\n{HEADER}\n")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("sep=\t", "a tab"),
        ("sep=\\t", "'\\t'"),
        ("sep=|", "'|'"),
        ('"sep=|"', "'|'"),
        ("SEP=", "nothing"),
        ("sep=;,", "';,'"),
        ("sep=1946-01-17", "something else"),
    ],
)
def test_another_separator_is_named(line: str, found: str) -> None:
    for table in (f"{line}\r\n{BODY}", f"\ufeff{line}\r\n{BODY.replace(';', '|')}", line):
        assert refusal(table) == (
            f", line 1: names {found} as the separator (sep=). Save the table as CSV, with commas or semicolons"
        )


def test_a_column_or_a_row_may_have_sep_in_its_name() -> None:
    assert read_rows("ID;GENDER;DOB;LYMPH_COUNT;sep=;\nsep=,;M;1946-01-17;5,8;;\n") == [(2, FIRST | {"ID": "sep=,"})]


@pytest.mark.parametrize("marks", [1, 2, 3])
def test_byte_order_marks(marks: int) -> None:
    assert read_rows(MARK * marks + BODY.encode()) == [(2, FIRST), (3, SECOND)]
    assert read_rows(MARK * marks + b'"ID"' + BODY.encode()[2:]) == [(2, FIRST), (3, SECOND)]
    assert read_rows(b"sep=;\r\n" + MARK * marks + BODY.encode()) == [(3, FIRST), (4, SECOND)]
    message = refusal(MARK * marks + f"{HEADER}\r\n\xe9;M\r\n".encode("latin-1"))
    assert ", line 2: not UTF-8" in message


def test_a_byte_order_mark_elsewhere_is_part_of_its_cell() -> None:
    ((_, first), _) = read_rows(BODY.replace("A1", "\ufeffA1"))
    assert first["ID"] == "\ufeffA1"


@pytest.mark.parametrize("end", ["", "\r\n", "\n", "\r", "\r\n\r\n"])
@pytest.mark.parametrize("times", [1, 3])
def test_a_last_ctrl_z_is_the_end(end: str, times: int) -> None:
    assert read_rows(BODY + "\x1a" * times + end) == [(2, FIRST), (3, SECOND)]
    assert read_rows(BODY.rstrip() + "\x1a" * times + end) == [(2, FIRST), (3, SECOND)]
    assert "has no patient" in refusal(f"{HEADER}\n" + "\x1a" * times + end)


def test_a_ctrl_z_elsewhere_is_part_of_its_cell() -> None:
    rows = read_rows(BODY.replace("A1", "A\x1a1") + "\x1a;F;1950-02-03;9,1\n")
    assert [cells["ID"] for _, cells in rows] == ["A\x1a1", "A2", "\x1a"]
    assert ", line 4: 1 cells, but the header has 4" in refusal(f"{BODY}\x1a\r\nA3;M;1946-01-17;5,8\r\n")


def dressed(rows: str, delimiter: str) -> str:
    """A table written with commas and decimal points, separated by another delimiter."""
    return rows.replace(",", delimiter)


@pytest.mark.parametrize("delimiter", [",", ";"])
@pytest.mark.parametrize(
    "table",
    [
        "ID,GENDER,DOB,LYMPH_COUNT,REMARK\nA1,M,1946-01-17,5.8,\nA2,F,1950-02-03,9.1\n",
        "ID,GENDER,DOB,LYMPH_COUNT,REMARK,WARD\nA1,M,1946-01-17,5.8,old smear,\nA2,F,1950-02-03,9.1\n,,,,,\n",
        "ID,GENDER,DOB,LYMPH_COUNT,REMARK,WARD\nA1,M,1946-01-17,5.8,,west\nA2,F,1950-02-03,9.1,old smear\n",
        "ID,GENDER,DOB,LYMPH_COUNT\nA1,M,1946-01-17,5.8,\nA2,F,1950-02-03,9.1,,,\n",
        "ID,GENDER,DOB,LYMPH_COUNT\nA1,M,1946-01-17,5.8,,,,\nA2,F,1950-02-03,9.1\n,,,,,,,,\n",
        "ID,GENDER,DOB,LYMPH_COUNT,REMARK\nA1,M,1946-01-17,5.8,old smear,,\nA2,F,1950-02-03,9.1,,\n",
        "ID,GENDER,DOB,LYMPH_COUNT,WBC\nA1,M,1946-01-17,5.8,12.5,\nA2,F,1950-02-03,9.1,14.5,\n",
        "ID,GENDER,DOB,LYMPH_COUNT,,\nA1,M,1946-01-17,5.8,,\nA2,F,1950-02-03,9.1,,\n",
        "ID,GENDER,DOB,LYMPH_COUNT,,\nA1,M,1946-01-17,5.8,,12\nA2,F,1950-02-03,9.1,,\n",
        "ID,GENDER,DOB,LYMPH_COUNT,,\nA1,M,1946-01-17,5.8\nA2,F,1950-02-03,9.1\n",
        "ID,GENDER,DOB,LYMPH_COUNT,,\nA1,M,1946-01-17,5.8,,,,\nA2,F,1950-02-03,9.1,\n",
        "REMARK,ID,GENDER,DOB,LYMPH_COUNT\n9,A1,M,1946-01-17,5.8,\n8,A2,F,1950-02-03,9.1\n",
        "ID,LYMPH_COUNT,DOB,GENDER,REMARK\nA1,5.8,1946-01-17,M,\nA2,9.1,1950-02-03,F\n",
        "ID,GENDER,LYMPH_COUNT,DOB,REMARK\nA1,M,5.8,1946-01-17,old smear\nA2,F,9.1,1950-02-03\n",
    ],
    ids=[
        "a remark left out",
        "two cells left out",
        "one of two cells left out",
        "more empty cells",
        "more empty cells in one line",
        "more empty cells after a remark",
        "one more empty cell in each line",
        "columns without a name",
        "a cell without a column's name",
        "columns without a name left out",
        "columns without a name left out and added",
        "other columns first",
        "the sex last",
        "the date of birth last",
    ],
)
def test_empty_cells_at_the_end_of_a_line_change_nothing(table: str, delimiter: str) -> None:
    rows = [cells for _, cells in read_rows(dressed(table, delimiter))]
    assert rows == [FIRST, SECOND]


@pytest.mark.parametrize("delimiter", [",", ";"])
@pytest.mark.parametrize("row", ["A2,F,1950-02-03", "A2,F", "A2", "A2,F,1950-02-03,9.1,old,smear", "A2,F,,,,,x"])
def test_a_line_without_a_cell_or_with_a_cell_too_many_stays_an_error(row: str, delimiter: str) -> None:
    table = f"ID,GENDER,DOB,LYMPH_COUNT,REMARK\nA1,M,1946-01-17,5.8,\n{row}\n"
    cells = row.count(",") + 1
    assert refusal(dressed(table, delimiter)) == (
        f", line 3: {cells} cells, but the header has 5 columns. Correct the line"
    )


def test_a_column_that_is_read_only_sometimes_may_not_be_left_out_either() -> None:
    for column in ("LABEL", "SAMPLE_DATE", "AGE"):
        table = f"ID,GENDER,DOB,LYMPH_COUNT,{column}\nA1,M,1946-01-17,5.8,\nA2,F,1950-02-03,9.1\n"
        assert ", line 3: 4 cells, but the header has 5 columns" in refusal(table)


def test_columns_that_no_line_has_are_an_error() -> None:
    """Another column may be missing."""
    message = refusal("ID,GENDER,DOB,LYMPH_COUNT,WBC\nA1,M,1946-01-17,12.5\nA2,F,1950-02-03,14.5\n")
    assert message == (
        ", line 2: 4 cells, but the header has 5 columns, and no line has as many. Correct the lines or the header"
    )


@pytest.mark.parametrize(
    ("header", "whole", "short", "why"),
    [
        # the count is missing, and the next number is in its place
        (
            "ID;GENDER;DOB;LYMPH_COUNT;WBC",
            "A1;M;1946-01-17;5.8;12.5",
            "A2;F;1950-02-03;14.5",
            "in line 2 a cell after LYMPH_COUNT could be a value of LYMPH_COUNT too",
        ),
        # the date of birth is missing, and the visit's date is in its place: a patient of one year
        (
            "ID;GENDER;LYMPH_COUNT;DOB;VISIT",
            "A1;M;5.8;1946-01-17;2018-05-05",
            "A2;F;9.1;2018-05-05",
            "in line 2 a cell after DOB could be a value of DOB too",
        ),
        # the date of birth is missing, and the remark is shifted
        ("ID;GENDER;DOB;LYMPH_COUNT;REMARK", "A1;M;1946-01-17;5.8;old", "A2;F;9.1;old", "LYMPH_COUNT has no value"),
        ("ID;GENDER;DOB;LYMPH_COUNT;REMARK", "A1;M;1946-01-17;5.8;old", "A2;F;9.1;", "LYMPH_COUNT has no value"),
        # the count is missing, and an age of 61 is in its place
        ("ID;GENDER;DOB;LYMPH_COUNT;AGE;X", "A1;M;;5.8;60;", "A2;F;1950-02-03;61;", "AGE has no value"),
        # the count is missing, and the label, which scoring ignores, is in its place
        ("ID;GENDER;DOB;LYMPH_COUNT;LABEL;X", "A1;M;1946-01-17;5.8;1;y", "A2;F;1950-02-03;1;z", "LABEL has no value"),
        # the sex is missing, and a marital status is in its place
        (
            "ID;DOB;LYMPH_COUNT;GENDER;STATUS",
            "A1;1946-01-17;5.8;M;single",
            "A2;1950-02-03;9.1;M",
            "in line 2 a cell after GENDER could be a value of GENDER too",
        ),
    ],
)
def test_a_short_line_that_may_lack_a_cell_in_its_middle_is_an_error(
    header: str, whole: str, short: str, why: str
) -> None:
    columns = header.count(";") + 1
    cells = short.count(";") + 1
    assert refusal(f"{header}\n{whole}\n{short}\n") == (
        f", line 3: {cells} cells, but other lines have {columns}; a cell in the middle may be missing: {why}. "
        f"Write as many cells in each line as in the header"
    )


def test_where_lines_end_with_delimiters_one_that_does_not_is_short() -> None:
    """With one more delimiter at the end, it has as many cells as the header."""
    lines = ["ID;GENDER;DOB;LYMPH_COUNT;WBC", "A1;M;1946-01-17;5.8;12.5;", "A3;M;1946-01-17;5.8;12.5;"]
    assert len(read("\n".join(lines)).rows) == 2
    assert ", line 4: 5 cells, but other lines have 6" in refusal("\n".join([*lines, "A2;F;1950-02-03;14.5;"]))
    assert len(read("\n".join([*lines, "A2;F;1950-02-03;9.1;14.5"])).rows) == 3


def test_columns_without_a_name_do_not_stand_in_for_a_missing_cell() -> None:
    lines = ["ID;GENDER;DOB;LYMPH_COUNT;AGE;;", *["A1;M;1946-01-17;5.8;60"] * 3, "A2;F;1950-02-03;9.1;61;;"]
    assert len(read("\n".join(lines)).rows) == 4
    assert ", line 6: 6 cells, but other lines have 7" in refusal("\n".join([*lines, "A3;M;1946-01-17;62;;"]))
    assert len(read("\n".join([*lines, "A3;M;1946-01-17;5.8;;;"])).rows) == 5


def test_a_column_without_a_name_counts_where_it_has_a_cell() -> None:
    message = refusal(f"{HEADER};\nA1;M;1946-01-17;5.8;12.5\nA2;F;1950-02-03;14.5\n")
    assert ", line 3: 4 cells, but other lines have 5" in message
    assert "in line 2 a cell after LYMPH_COUNT could be a value of LYMPH_COUNT too" in message


@pytest.mark.parametrize(
    ("header", "rows", "line", "uneven"),
    [
        ("ID,GENDER,DOB,LYMPH_COUNT,REMARK", ["A1,M,1946-01-17,9,", "A2,F,1950-02-03,5,8,"], 3, "3: 6 cells"),
        ("ID,GENDER,DOB,LYMPH_COUNT,REMARK", ["A1,M,1946-01-17,5,8", "A2,F,1950-02-03,9"], 2, "3: 4 cells"),
        ("ID,GENDER,DOB,LYMPH_COUNT,AGE", ["A1,M,1946-01-17,5,8,", "A2,F,1950-02-03,9,"], 2, "2: 6 cells"),
        ("ID,GENDER,DOB,LYMPH_COUNT,LABEL", ["A1,M,1946-01-17,9,1", "A2,F,1950-02-03,5,8,"], 2, "3: 6 cells"),
        ("ID,GENDER,DOB,LYMPH_COUNT,,", ["A1,M,1946-01-17,5,8,,", "A2,F,1950-02-03,9,,"], 2, "2: 7 cells"),
        ("ID,GENDER,DOB,LYMPH_COUNT,,", ["A1,M,1946-01-17,5,8", "A2,F,1950-02-03,9,1"], 2, "2: 5 cells"),
    ],
)
def test_with_commas_a_number_that_may_be_split_is_an_error(
    header: str, rows: list[str], line: int, uneven: str
) -> None:
    assert refusal("\n".join([header, *rows])) == (
        f", line {line}, column LYMPH_COUNT: this cell and the next may be one number with a decimal comma (line "
        f"{uneven}, but the header has {header.count(',') + 1} columns). Write decimal points, and as many cells in "
        f"each line as in the header"
    )


def test_with_semicolons_no_number_is_split() -> None:
    ((_, first), (_, second)) = read_rows(f"{HEADER};AGE\nA1;M;1946-01-17;5,8;61;\nA2;F;1950-02-03;9;60;\n")
    assert first == FIRST | {"AGE": "61"}
    assert second == SECOND | {"LYMPH_COUNT": "9", "AGE": "60"}


def test_lines_as_long_as_the_header_vouch_for_their_cells() -> None:
    rows = read("ID,GENDER,DOB,LYMPH_COUNT,WBC\nA1,M,1946-01-17,5,8\nA2,F,1950-02-03,9,\n").rows
    assert [row.cells["LYMPH_COUNT"] for row in rows] == ["5", "9"]


@pytest.mark.parametrize("delimiter", [",", ";"])
@pytest.mark.parametrize("trimmed", [False, True])
@pytest.mark.parametrize("after", ["WBC", "REMARK", "VISIT", "FLAG"])
def test_no_cell_left_out_gives_a_wrong_value_unseen(after: str, trimmed: bool, delimiter: str) -> None:
    """In every column order, a row with one or two missing cells is refused."""
    values = {"WBC": "12.5", "REMARK": "old smear", "VISIT": "2018-05-05", "FLAG": "M"}
    patient = {"ID": "A1", "GENDER": "M", "DOB": "1946-01-17", "LYMPH_COUNT": "5.8", "AGE": "61.5"}
    patient |= {after: values[after], "WARD": "west"}
    for order in itertools.permutations(("GENDER", "DOB", "LYMPH_COUNT", "AGE")):
        header = ["ID", *order, after, "WARD"]
        for lost in [*itertools.combinations(order, 1), *itertools.combinations(order, 2)]:
            kept = [name for name in header if name not in lost and not (trimmed and name == "WARD")]
            lines = [header, [patient[name] for name in header], [patient[name] for name in kept]]
            with pytest.raises(CohortError):
                read("\n".join(delimiter.join(cells) for cells in lines))


def test_the_centre_is_read_only_if_asked_for_and_else_ignored_like_any_other_column() -> None:
    body = b"ID,CENTRE,GENDER,DOB,LYMPH_COUNT\nA1,Lyon,M,1946-01-17,5.8\nA2,,F,1950-02-03,9.1\n"
    plain = b"ID,SITE,GENDER,DOB,LYMPH_COUNT\nA1,Lyon,M,1946-01-17,5.8\nA2,,F,1950-02-03,9.1\n"
    assert read(body) == read(plain)
    asked = parse_table(body, PATH, ("CENTRE",))
    assert [row.cells["CENTRE"] for row in asked.rows] == ["Lyon", ""]
    assert [{name: cell for name, cell in row.cells.items() if name != "CENTRE"} for row in asked.rows] == [
        row.cells for row in read(plain).rows
    ]
    twice = body.replace(b"LYMPH_COUNT", b"LYMPH_COUNT,CENTRE").replace(b"5.8", b"5.8,Lyon").replace(b"9.1", b"9.1,")
    assert read(twice) == read(plain)
    with pytest.raises(CohortError, match="has the column CENTRE more than once"):
        parse_table(twice, PATH, ("CENTRE",))
