import datetime as dt

import pytest

from infer.cohort.dates import NO_BIRTHS, age_in_years, check_date_format, is_placeholder, parse_column
from infer.errors import CohortError, UsageError


def parse(*cells: str, date_format: str | None = None, proof_needed: bool = False) -> list[dt.date | None]:
    lines = range(2, 2 + len(cells))
    return parse_column(cells, lines, "DOB", "table.csv", date_format, proof_needed=proof_needed).dates


@pytest.mark.parametrize(
    ("cell", "date"),
    [
        ("7/1/2019", dt.date(2019, 7, 1)),
        ("07/01/2019", dt.date(2019, 7, 1)),
        ("12/31/1950", dt.date(1950, 12, 31)),
        ("1-7-2019", dt.date(2019, 7, 1)),
        ("31-12-1950", dt.date(1950, 12, 31)),
        ("2019-07-01", dt.date(2019, 7, 1)),
        ("2019-7-1", dt.date(2019, 7, 1)),
        ("2/29/2020", dt.date(2020, 2, 29)),
        ("29-02-2020", dt.date(2020, 2, 29)),
        ("2019-07-01T08:15:00+02:00", dt.date(2019, 7, 1)),
        ("2019-07-01T00:15:00.123Z", dt.date(2019, 7, 1)),
        ("2019-07-01 23:59:59-0800", dt.date(2019, 7, 1)),
        ("2019-07-01 08:15", dt.date(2019, 7, 1)),
        ("2019-07-01T24:00", dt.date(2019, 7, 1)),
        ("2019-07-01T08:15:00,5+02", dt.date(2019, 7, 1)),
        ("2019-07-01  8:15", dt.date(2019, 7, 1)),
        ("7/1/2019 8:15 a.m.", dt.date(2019, 7, 1)),
        ("7/1/2019 8:15pm", dt.date(2019, 7, 1)),
        ("7/1/2019 0:00", dt.date(2019, 7, 1)),
        ("7/1/2019 12:00:00 AM", dt.date(2019, 7, 1)),
        ("1-7-2019 00:00:00", dt.date(2019, 7, 1)),
    ],
)
def test_slashes_are_month_first_and_dashes_day_or_year_first(cell: str, date: dt.date) -> None:
    assert parse(cell) == [date]


@pytest.mark.parametrize(
    "cell",
    [
        "",
        "unknown",
        "29-2-2019",
        "31-31-2019",
        "2019-13-01",
        "2019-02-30",
        "0-1-2019",
        "1-1-0000",
        "01.07.2019",
        "20190701",
        "2019-07-01T25:00",
        "2019-07-01T08:15:00:00",
        "2019-07-01T",
        "2019-07-01 ",
        "2019-07-01 08:15 morning",
        "4/31/2019",
        "2/29/2019",
        "0/1/2019",
        "00/00/2019",
        "0000-00-00",
    ],
)
def test_what_is_a_date_in_no_order_costs_only_its_own_row(cell: str) -> None:
    assert parse("1-7-2019", cell, "2-7-2019") == [dt.date(2019, 7, 1), None, dt.date(2019, 7, 2)]


@pytest.mark.parametrize(
    ("cell", "usual", "remedy"),
    [
        ("13/4/2019", "4/12/2019", "%d/%m/%Y"),
        ("13/4/2019 00:00", "4/12/2019", "%d/%m/%Y"),
        ("12-31-1950", "4-12-2019", "%m-%d-%Y"),
        ("13/4/2019?", "4/12/2019", "%d/%m/%Y"),
        ("13/4/2019 8h15", "4/12/2019", "%d/%m/%Y"),
        ("'13/4/2019", "4/12/2019", "%d/%m/%Y"),
        ("4/13/19", "4/12/2019", ""),
        ("2019/07/01", "4/12/2019", "%Y/%m/%d"),
        ("13 / 4 / 2019", "4/12/2019", ""),
        ("1-7-19", "4-12-2019", ""),
        ("19-07-01", "2019-12-04", ""),
        ("1-7-20190", "4-12-2019", ""),
        ("\u0661-\u0667-2019", "4-12-2019", ""),
    ],
)
def test_a_date_in_another_order_makes_the_column_suspect(cell: str, usual: str, remedy: str) -> None:
    with pytest.raises(CohortError) as caught:
        parse(usual, usual, cell)
    message = str(caught.value)
    assert caught.value.exit_code == 4
    for part in ("table.csv", "line 4", "column DOB", "write all dates as year-month-day"):
        assert part in message
    assert ("use --date-format" in message) == bool(remedy)
    assert f"use --date-format {remedy}, or" in message or not remedy
    assert cell not in message


@pytest.mark.parametrize("cell", ["4/13/19", "2019/07/01", "1-7-19", "19-07-01", "1-7-20190"])
def test_a_date_in_no_form_known_makes_any_column_suspect(cell: str) -> None:
    for proof_needed in (False, True):
        with pytest.raises(CohortError, match="line 3, column DOB: a date that is neither"):
            parse("2019-12-04", cell, proof_needed=proof_needed)


@pytest.mark.parametrize("sign", ["/", "-"])
def test_dates_in_both_orders_make_the_column_suspect(sign: str) -> None:
    for proof_needed in (False, True):
        with pytest.raises(CohortError, match=r"line 3, column DOB: the column has dates as .* and as .*"):
            parse(f"13{sign}4{sign}2019", f"4{sign}13{sign}2019", proof_needed=proof_needed)


@pytest.mark.parametrize("sign", ["/", "-"])
def test_where_proof_is_needed_one_date_proves_the_order_of_the_column(sign: str) -> None:
    def dates(*cells: str) -> list[dt.date | None]:
        return parse(*(cell.replace("/", sign) for cell in cells), proof_needed=True)

    assert dates("5/6/1950", "13/4/2019") == [dt.date(1950, 6, 5), dt.date(2019, 4, 13)]
    assert dates("5/6/1950", "4/13/2019") == [dt.date(1950, 5, 6), dt.date(2019, 4, 13)]
    assert dates("5/5/1950", "", "1950-06-05") == [dt.date(1950, 5, 5), None, dt.date(1950, 6, 5)]
    for unproven in (["5/5/1950", "5/6/1950"], ["5/6/1950", "2/30/1950"], ["5/6/1950", "00/00/1929"]):
        with pytest.raises(CohortError, match="no other date in this column shows which"):
            dates(*unproven)


def test_slashes_prove_nothing_of_dashes() -> None:
    with pytest.raises(CohortError, match=r"line 3, .*--date-format %d-%m-%Y"):
        parse("13/4/2019", "5-6-1950", proof_needed=True)


def test_the_first_date_in_another_order_is_named() -> None:
    with pytest.raises(CohortError, match="line 3, column DOB: a date that can only be day/month/year"):
        parse("5/6/1950", "13/4/2019", "14/4/2019")


@pytest.mark.parametrize("cell", ["N/A", "n/a", "/", "1/2", "April/2019"])
def test_a_slash_alone_makes_no_date(cell: str) -> None:
    assert parse("7/1/2019", cell) == [dt.date(2019, 7, 1), None]


@pytest.mark.parametrize("date_format", ["%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%Y%m%d", "%d %B %Y"])
def test_a_date_format_that_gives_dates_is_taken(date_format: str) -> None:
    check_date_format(date_format)
    assert parse(dt.date(2019, 4, 13).strftime(date_format), date_format=date_format) == [dt.date(2019, 4, 13)]


@pytest.mark.parametrize(
    "date_format", ["", "%", "%Q", "%d/%m", "%Y", "no date", "d/m/Y", "%d/%m/%Y %d", "%d\udcff%m%Y"]
)
def test_a_date_format_that_gives_none_is_wrong_usage(date_format: str) -> None:
    with pytest.raises(UsageError, match="--date-format") as caught:
        check_date_format(date_format)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("date_format", ["%d/%m/%y", "%y%m%d", "%x"])
def test_two_digit_years_are_for_samples_alone(date_format: str) -> None:
    with pytest.raises(UsageError, match=r"two-digit years.*--sample-date-format"):
        check_date_format(date_format)
    check_date_format(date_format, "--sample-date-format", births=False)


def test_iso_is_a_format() -> None:
    check_date_format("iso")
    assert parse("2019-07-01T08:15:00+02:00", "2019-7-1", "7/1/2019", "13/4/2019", date_format="iso") == [
        dt.date(2019, 7, 1), dt.date(2019, 7, 1), None, None
    ]  # fmt: skip


@pytest.mark.parametrize(
    "cell", ["1/0/1900", "00/00/1929", "00-00-1929", "0000-00-00", "1929-00-00", "00.00.1929", "0/1/2019"]
)
def test_a_date_with_a_zero_part_stands_for_an_unknown_one(cell: str) -> None:
    assert is_placeholder(cell, None, NO_BIRTHS)
    assert is_placeholder(f"{cell} 00:00:00", None, NO_BIRTHS)


@pytest.mark.parametrize(
    ("date", "unknown"),
    [
        ((1900, 1, 1), True),
        ((1899, 12, 30), True),
        ((1899, 12, 31), True),
        ((1900, 1, 2), False),
        ((1970, 1, 1), False),
    ],
)
def test_first_days_of_spreadsheets_and_databases_stand_for_unknown_births(
    date: tuple[int, int, int], unknown: bool
) -> None:
    assert is_placeholder("x", dt.date(*date), NO_BIRTHS) == unknown


@pytest.mark.parametrize("cell", ["1/1/00", "10/10/2000", "2000-10-10", "N/A", ""])
def test_other_zeros_do_not(cell: str) -> None:
    assert not is_placeholder(cell, None, NO_BIRTHS)


@pytest.mark.parametrize("cell", ["1\uff13/04/2019", "13/04/201\u0669"])
def test_a_date_format_takes_no_other_scripts_digits(cell: str) -> None:
    assert parse("13/04/2019", cell, date_format="%d/%m/%Y") == [dt.date(2019, 4, 13), None]


@pytest.mark.parametrize(("cell", "year"), [("7/1/1850", 1850), ("1-7-2950", 2950), ("9999-12-31", 9999)])
def test_an_absurd_year_is_a_date_and_leaves_the_age_to_be_judged(cell: str, year: int) -> None:
    (date,) = parse(cell)
    assert date is not None
    assert date.year == year


def test_date_format_replaces_the_rule_for_every_cell() -> None:
    cells = ("13/4/2019", "5/6/2019", "2019-06-05", "")
    assert parse(*cells, date_format="%d/%m/%Y") == [dt.date(2019, 4, 13), dt.date(2019, 6, 5), None, None]


def test_age_is_in_years_of_365_25_days() -> None:
    assert age_in_years(dt.date(1950, 7, 1), dt.date(2019, 7, 1)) == 25202 / 365.25
    assert age_in_years(dt.date(2019, 7, 1), dt.date(2019, 7, 1)) == 0.0
    assert age_in_years(dt.date(2019, 7, 2), dt.date(2019, 7, 1)) == -1 / 365.25


def test_four_years_with_a_leap_day_are_four_years() -> None:
    assert age_in_years(dt.date(2016, 2, 29), dt.date(2020, 2, 29)) == 4.0
    assert age_in_years(dt.date(2016, 2, 29), dt.date(2017, 3, 1)) == 366 / 365.25


@pytest.mark.parametrize(
    ("cells", "reading", "unproven"),
    [
        (["5/6/1950"], "with / month/day/year, unproven", True),
        (["5/5/1950"], "with / month/day/year", False),
        (["5/6/1950", "5/13/1950"], "with / month/day/year", False),
        (["5-6-1950", "5/13/1950"], "with / month/day/year; with - day/month/year, unproven", True),
        (["1950-06-05", ""], "year-month-day", False),
    ],
)
def test_how_a_column_was_read_is_told(cells: list[str], reading: str, unproven: bool) -> None:
    column = parse_column(cells, range(2, 2 + len(cells)), "DOB", "table.csv", None)
    assert (column.reading, column.unproven) == (reading, unproven)
    assert parse_column(cells, range(2, 2 + len(cells)), "DOB", "table.csv", "%d/%m/%Y").reading == "%d/%m/%Y"


@pytest.mark.parametrize("date_format", ["%d%m%Y", "%m%d%Y", "%Y%m%d"])
def test_where_nothing_parts_the_numbers_all_digits_must_be_there(date_format: str) -> None:
    for date in (dt.date(1950, 12, 1), dt.date(1950, 1, 15), dt.date(1950, 2, 11)):
        whole = date.strftime(date_format)
        assert parse(whole, date_format=date_format) == [date]
        for at in (0, 2, 4, 6):
            if whole[at] == "0":
                assert parse(whole[:at] + whole[at + 1 :], date_format=date_format) == [None]
    assert parse("1/2/1950", date_format="%d/%m/%Y") == [dt.date(1950, 2, 1)]


def test_a_format_without_time_reads_over_a_time_and_one_with_offset_is_taken() -> None:
    assert parse("13/06/1950 00:00:00", "13/06/1950", date_format="%d/%m/%Y") == [dt.date(1950, 6, 13)] * 2
    check_date_format("%Y-%m-%dT%H:%M:%S%z", "--sample-date-format", births=False)
    assert parse("2019-07-01T08:15:00+0200", date_format="%Y-%m-%dT%H:%M:%S%z") == [dt.date(2019, 7, 1)]


def test_a_very_long_number_is_no_date() -> None:
    cells = [f"2019.{'1' * 5000}.1", "1" * 5000]
    assert parse(*cells) == parse(*cells, date_format="iso") == [None, None]
    assert not any(is_placeholder(cell, None, NO_BIRTHS) for cell in cells)
