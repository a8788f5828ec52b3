"""The validation's page in a real browser: nothing is fetched, everything shows, everybody can read it."""

from typing import Any

import pytest

from tests.infer.manifests import make_manifest
from tests.report.browsing import SCHEMES, WIDTHS, check_alone, check_readable, show
from tests.report.conftest import Served
from tests.train.validated import drawn
from train.evaluation.validation.cohort import characteristics, flow
from train.evaluation.validation.figures import figures_of
from train.evaluation.validation.page import Who, render
from train.evaluation.validation.said import say


@pytest.fixture(scope="module")
def address(served: Served) -> str:
    scored = drawn()
    figures = figures_of(scored, make_manifest())
    who = Who(flow(scored), characteristics(scored, make_manifest()))
    page = render(say(scored, figures), figures, [("Bundle", "0" * 64), ("Patients", "200")], who)
    (served.folder / "validation.html").write_text(page, encoding="utf-8")
    return f"{served.address}/validation.html"


def test_it_asks_for_nothing_but_itself(browser: Any, address: str) -> None:
    check_alone(browser, address)


def test_both_plots_show(browser: Any, address: str) -> None:
    show(browser, address)
    widths = browser.execute_script("return [...document.images].map(image => image.naturalWidth)")
    assert len(widths) == 2
    assert min(widths) > 300


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_everybody_can_read_it(browser: Any, address: str, width: int, scheme: str) -> None:
    check_readable(browser, address, width, scheme)
