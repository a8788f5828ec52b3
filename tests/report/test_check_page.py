"""The check's page in a real browser: nothing is fetched, everybody can read it, details open."""

from typing import Any

import pytest

from tests.report.browsing import SCHEMES, WIDTHS, requests, show, violations
from tests.report.conftest import Served
from train.checking.check import Checked
from train.checking.finding import Finding, correct, fine, look
from train.checking.page import render
from train.checking.timing import StageTime


def findings() -> tuple[Finding, ...]:
    return (
        correct(
            "rows", "3 rows cannot be used", "Correct these rows.", [f"line {row}: <b>wrong</b>" for row in range(3)]
        ),
        look("same picture", "2 patients share a picture", "Look at both.", ["S1/0.jpg and " + "S2/" + "0" * 90]),
        fine("classes", "60 patients: 30 malignant (50%), 30 reactive"),
    )


@pytest.fixture(scope="module")
def address(served: Served) -> str:
    times = (StageTime("baseline", {"full": 9_000.0, "small": 700.0}), StageTime("ensemble", {"full": 3, "small": 3}))
    page = render(Checked(findings(), times), [("Patients", "cohort"), ("Program", "lympho")])
    (served.folder / "check.html").write_text(page, encoding="utf-8")
    return f"{served.address}/check.html"


def test_it_asks_for_nothing_but_itself(browser: Any, address: str) -> None:
    browser.get_log("browser")
    show(browser, address)
    assert requests(browser) == [address]
    assert browser.get_log("browser") == []


def test_what_was_found_stands_in_its_section_and_as_text(browser: Any, address: str) -> None:
    show(browser, address)
    titles = browser.execute_script("return [...document.querySelectorAll('h2')].map(one => one.textContent)")
    assert titles[:3] == ["To correct before training", "To look at", "For information"]
    browser.execute_script("document.querySelectorAll('details').forEach(one => { one.open = true })")
    shown = browser.execute_script("return document.body.innerText")
    assert "line 2: <b>wrong</b>" in shown
    rows = browser.execute_script(
        "return [...document.querySelectorAll('tbody tr')].map(one => one.innerText.split('\\t'))"
    )
    assert rows == [
        ["baseline", "2 hours 30 minutes", "12 minutes"],
        ["ensemble", "a few seconds", "a few seconds"],
        ["all", "2 hours 30 minutes", "12 minutes"],
    ]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_everybody_can_read_it(browser: Any, address: str, width: int, scheme: str) -> None:
    show(browser, address, width, scheme)
    browser.execute_script("document.querySelectorAll('details').forEach(one => { one.open = true })")
    inner, whole = browser.execute_script("return [innerWidth, document.documentElement.scrollWidth]")
    assert (inner, whole <= width) == (width, True)
    assert violations(browser) == []
