"""The page of a training in a real browser: nothing is fetched, everything shows, everybody can read it."""

from typing import Any

import pytest

from tests.report.browsing import SCHEMES, WIDTHS, check_alone, check_readable, show
from tests.report.conftest import Served
from tests.train.drawn_run import draw_run
from train.page.write import PAGE, write_page


@pytest.fixture(scope="module")
def address(served: Served) -> str:
    write_page(draw_run(served.folder / "trained"))
    return f"{served.address}/trained/{PAGE}"


def test_it_asks_for_nothing_but_itself(browser: Any, address: str) -> None:
    check_alone(browser, address)


def test_plots_and_cells_show(browser: Any, address: str) -> None:
    show(browser, address)
    widths = browser.execute_script("return [...document.images].map(image => image.naturalWidth)")
    assert len(widths) == 3 + 3 * 8
    assert sorted(set(widths))[0] == 112
    assert min(sorted(widths)[-3:]) > 300


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_everybody_can_read_it(browser: Any, address: str, width: int, scheme: str) -> None:
    check_readable(browser, address, width, scheme)
