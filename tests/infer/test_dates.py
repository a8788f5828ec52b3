import datetime as dt

import pytest

from infer.dates import age_in_years, check_date_format, parse_column
from infer.errors import CohortError, UsageError


def parse(*cells: str, date_format: str | None = None) -> list[dt.date | None]:
    lines = range(2, 2 + len(cells))
    return parse_column(cells, lines, "DOB", "table.csv", date_format)


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
    ],
)
def test_slashes_are_month_first_and_dashes_day_or_year_first(cell: str, date: dt.date) -> None:
    assert parse(cell) == [date]


@pytest.mark.parametrize(
    "cell",
    [
        "",
        "unknown",
        "1-7-19",
        "19-07-01",
        "12-31-1950",
        "29-2-2019",
        "2019-13-01",
        "0-1-2019",
        "1-1-0000",
        "01.07.2019",
        "20190701",
        "2019-07-01T00:00",
        "2019-07-01 ",
        "1-7-20190",
        "\u0661-\u0667-2019",
    ],
)
def test_what_is_no_date_without_slashes_costs_only_its_own_row(cell: str) -> None:
    assert parse("1-7-2019", cell, "2-7-2019") == [dt.date(2019, 7, 1), None, dt.date(2019, 7, 2)]


@pytest.mark.parametrize(
    "cell", ["13/4/2019", "4/31/2019", "2/29/2019", "4/13/19", "0/1/2019", "2019/07/01", "13 / 4 / 2019"]
)
def test_a_slash_date_that_is_impossible_month_first_makes_the_column_suspect(cell: str) -> None:
    with pytest.raises(CohortError) as caught:
        parse("4/12/2019", "5/6/2019", cell)
    message = str(caught.value)
    assert caught.value.exit_code == 4
    for part in ("table.csv", "line 4", "column DOB", "--date-format"):
        assert part in message
    assert cell not in message


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
