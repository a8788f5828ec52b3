"""Fuzzing: the table in every format, and any other file instead of it."""

import csv
import datetime as dt
import io
import tempfile
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from infer.cohort.patient import Cohort
from infer.cohort.patients import read_cohort
from infer.errors import CohortError
from tests.fuzz import fuzz
from tests.infer.manifests import PLAUSIBLE

DAY = dt.date(2019, 7, 1)
COLUMNS = ("ID", "GENDER", "DOB", "LYMPH_COUNT", "AGE")


def read(table: bytes, date_format: str | None = None) -> Cohort:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "clinical_annotation.csv").write_bytes(table)
        return read_cohort(Path(folder), PLAUSIBLE, reference_date=DAY, date_format=date_format)


def written(rows: list[list[str]], delimiter: str, end: str, quoting: bool, mark: bool) -> bytes:
    text = io.StringIO()
    writer = csv.writer(
        text, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL if quoting else csv.QUOTE_MINIMAL
    )
    writer.writerows([list(COLUMNS), *rows])
    return text.getvalue().encode("utf-8-sig" if mark else "utf-8")


def with_commas(rows: list[list[str]]) -> list[list[str]]:
    return [[*row[:3], *(cell.replace(".", ",") for cell in row[3:])] for row in rows]


IDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n"), max_size=8)
SEXES = st.sampled_from(["M", "F", "m", "x"])
DATES = st.one_of(
    st.dates(dt.date(1850, 1, 1), dt.date(2050, 1, 1)).map(dt.date.isoformat),
    st.sampled_from(["7/31/1950", "", "soon"]),
)
NUMBERS = st.one_of(
    st.floats(-3, 1200, allow_nan=False).map(repr),
    st.integers(-3, 1_000_000_000).map(str),
    st.sampled_from(["", "0", "1e9", "1.5E2", "-3.", ".5", "nan", "inf", "5 000", "\uff15", "1_000", "high"]),
)
ROWS = st.lists(st.tuples(IDS, SEXES, DATES, NUMBERS, NUMBERS).map(list), min_size=1, max_size=6)


@fuzz(300)
@given(rows=ROWS, quoting=st.booleans(), mark=st.booleans(), end=st.sampled_from(["\n", "\r\n", "\r"]))
def test_the_same_table_in_another_dress_has_the_same_patients(
    rows: list[list[str]], quoting: bool, mark: bool, end: str
) -> None:
    plain = read(written(rows, ",", "\n", quoting=False, mark=False)).patients
    for sign, cells in ((",", rows), (";", rows), (";", with_commas(rows))):
        assert read(written(cells, sign, end, quoting, mark)).patients == plain


SIGNS = ["\n", "\r", ",", ";", '"', "\t", "\0", "\ufeff", "\u2028", "\udcff", "/"]
CELLS = ["P1", "F", "7/1/1950", "13/13/1950", "1-7-1950", "11,2", "11.2", "1e999", "9" * 30]
NAMES = [f"{name}{sign}" for name in COLUMNS for sign in ",;"]
PIECES = st.lists(st.sampled_from([*SIGNS, *CELLS, *NAMES]), max_size=40).map(
    lambda pieces: "".join(pieces).encode("utf-8", "surrogateescape")
)
GOOD = "ID,GENDER,DOB,LYMPH_COUNT,AGE\r\nP1,F,7/1/1950,11.2,\r\nP2,M,1-7-1950,5,61.5\r\n"
TABLES = st.sampled_from([GOOD.encode(), GOOD.replace(",", ";").replace(".", ",").encode()])


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A valid table with some bytes changed."""
    table = draw(TABLES)
    at = draw(st.integers(0, len(table)))
    until = draw(st.integers(at, min(at + 6, len(table))))
    return (
        table[:at] + draw(st.one_of(st.binary(max_size=3), st.text(max_size=4).map(str.encode), PIECES)) + table[until:]
    )


@fuzz(300)
@given(table=st.one_of(st.binary(max_size=200), PIECES, damaged()), date_format=st.sampled_from([None, "%d/%m/%Y"]))
@example(table=GOOD.encode("utf-16"), date_format=None)
@example(table=GOOD.encode() + b"x" * 200_000, date_format=None)
def test_any_bytes_are_a_cohort_or_a_cohort_error(table: bytes, date_format: str | None) -> None:
    try:
        cohort = read(table, date_format)
    except CohortError:
        return
    assert cohort.patients
    for patient in cohort.patients:
        assert (patient.clinical is None) != (patient.verdict is None)
