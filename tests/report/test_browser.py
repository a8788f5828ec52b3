"""The pages in a real browser: nothing is fetched, nothing is missing, nothing runs, and everybody can read them."""

import base64
import re
from collections.abc import Sequence
from typing import Any

import pytest

from infer.report.entry import Entry
from infer.report.index import index_pages
from infer.report.texts import LANGUAGES, Texts
from infer.report.write import layout
from tests.infer.report_pages import HOSTILE, about
from tests.report.browsing import SCHEMES, WIDTHS, requests, run_axe, show, violations
from tests.report.conftest import Served
from tests.report.full_pages import PATIENTS, write_full_pages

FIRST = ["index.html", *(f"p{number:05}.html" for number in range(1, PATIENTS + 1))]


@pytest.fixture(scope="module")
def folders(served: Served) -> dict[str, str]:
    """Addresses of the pages: in each language, and of an index of 1,201 patients."""
    folder, address = served.folder, served.address
    found = {}
    for language in LANGUAGES:
        pages = write_full_pages(folder / language, language)
        found[language] = f"{address}/{pages.relative_to(folder)}"
    (folder / "many").mkdir()
    texts = Texts("en")
    entries = [
        Entry(f"p{n:05}.html", f"P{n:05}-{'x' * (n % 60)}", "malignant", "", n / 1201, 0.5, 99, True)
        for n in range(1201)
    ]
    for page in index_pages(entries, about(), None, texts):
        text = layout(texts).index.render(page=page, about=about())
        (folder / "many" / page.name).write_text(text, encoding="utf-8")
    return found | {"many": f"{address}/many"}


def every(folders: dict[str, str], *names: str) -> list[str]:
    """The address of each page, in each language."""
    return [f"{folders[language]}/{name}" for language in LANGUAGES for name in names]


def test_no_error_and_no_request_but_for_the_page_itself(browser: Any, folders: dict[str, str], served: Served) -> None:
    browser.get_log("browser")
    served.asked.clear()
    for address in every(folders, *FIRST):
        show(browser, address)
        assert requests(browser) == [address]
    assert served.asked == [address.removeprefix(served.address) for address in every(folders, *FIRST)]
    assert browser.get_log("browser") == []


def test_a_request_and_an_error_would_be_noticed(browser: Any, served: Served) -> None:
    """Otherwise the test above would pass whatever the pages did."""
    folder, address = served.folder, served.address
    (folder / "bad.html").write_text("<img src='gone.png'><script>console.error('x')</script>")
    show(browser, f"{address}/bad.html")
    assert f"{address}/gone.png" in requests(browser)
    assert len(browser.get_log("browser")) >= 2


def test_the_policy_holds_in_the_browser(browser: Any, folders: dict[str, str], served: Served) -> None:
    """Even if a name got into a page as HTML, nothing would run and nothing be fetched."""
    folder, address = served.folder, served.address
    page = folder / "en" / "out" / "report" / "index.html"
    text = page.read_text(encoding="utf-8")
    bad = "<script>document.title = 'ran'</script><img src='/x.png'><img src=x onerror=\"document.title = 'ran'\">"
    (page.parent / "bad.html").write_text(text.replace("<main>", f"<main>{bad}"), encoding="utf-8")
    served.asked.clear()
    show(browser, f"{folders['en']}/bad.html")
    assert browser.title == "Patients - lympho"
    assert served.asked == [f"{folders['en'].removeprefix(address)}/bad.html"]
    assert sum("Content Security Policy" in entry["message"] for entry in browser.get_log("browser")) >= 3


def test_every_picture_shows(browser: Any, folders: dict[str, str]) -> None:
    sizes = "return [...document.images].map(image => [image.complete, image.naturalWidth, image.alt !== ''])"
    shown = []
    for address in every(folders, *FIRST):
        show(browser, address)
        pictures = browser.execute_script(sizes)
        assert all(picture == [True, 112, True] for picture in pictures)
        shown.append(len(pictures))
    assert shown[0] == 0  # none on the index
    assert max(shown) == 36
    assert shown[: len(FIRST)] == shown[len(FIRST) :]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_link_leads_to_a_page(browser: Any, folders: dict[str, str], language: str) -> None:
    index = f"{folders[language]}/index.html"
    show(browser, index)
    links = browser.find_elements("css selector", "main a")
    assert sorted(link.get_attribute("href") for link in links) == [f"{folders[language]}/{name}" for name in FIRST[1:]]
    for number in range(len(links)):
        link = browser.find_elements("css selector", "main a")[number]
        patient = link.text
        link.click()
        assert patient in browser.find_element("css selector", "h1").text
        browser.find_element("css selector", "header a").click()
        assert browser.current_url == index


def test_the_pages_of_a_large_index_are_linked(browser: Any, folders: dict[str, str]) -> None:
    show(browser, f"{folders['many']}/index.html")
    rows = []
    for name in ("index-2.html", "index-3.html", "by-id.html", "by-id-2.html", "by-id-3.html"):
        browser.find_element("css selector", f"nav a[href='{name}']").click()
        rows.append(len(browser.find_elements("css selector", "tbody tr")))
    assert rows == [500, 201, 500, 500, 201]


@pytest.mark.parametrize("width", WIDTHS)
def test_no_page_scrolls_sideways(browser: Any, folders: dict[str, str], width: int) -> None:
    for address in [*every(folders, *FIRST), f"{folders['many']}/index-2.html", f"{folders['many']}/by-id.html"]:
        show(browser, address, width)
        inner, whole = browser.execute_script("return [innerWidth, document.documentElement.scrollWidth]")
        assert inner == width, address
        assert whole <= width, address


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_axe_finds_nothing_serious(browser: Any, folders: dict[str, str], width: int, scheme: str) -> None:
    for address in every(folders, "index.html", "p00001.html", "p00002.html", "p00003.html", "p00005.html"):
        show(browser, address, width, scheme)
        found = violations(browser)
        assert found == [], address


def test_axe_would_find_something(browser: Any, served: Served) -> None:
    folder, address = served.folder, served.address
    (folder / "grey.html").write_text("<html><body><img src='data:,'><p style='color:#ccc'>grey</p></body></html>")
    show(browser, f"{address}/grey.html")
    result = run_axe(browser)
    assert {"image-alt", "html-has-lang", "color-contrast"} <= {one["id"] for one in result["violations"]}
    browser.get_log("browser")


def test_an_id_that_is_html_is_text_and_nothing_happens(browser: Any, folders: dict[str, str]) -> None:
    from selenium.common.exceptions import NoAlertPresentException

    show(browser, f"{folders['en']}/index.html")
    link = next(one for one in browser.find_elements("css selector", "main a") if one.text == HOSTILE)
    link.click()
    assert browser.find_element("css selector", "h1").text == f"Patient {HOSTILE}"
    assert browser.execute_script("return [...document.images].filter(i => !i.src.startsWith('data:')).length") == 0
    with pytest.raises(NoAlertPresentException):
        _ = browser.switch_to.alert


def luminance(colour: Sequence[int]) -> float:
    """Relative luminance of WCAG 2."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (value / 255 for value in colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_zones_are_told_apart_without_colour(browser: Any, folders: dict[str, str], scheme: str) -> None:
    show(browser, f"{folders['en']}/p00001.html", scheme=scheme)
    light = []
    for zone in ("reactive", "refer", "malignant"):
        fill = browser.execute_script(f"return getComputedStyle(document.querySelector('rect.{zone}')).fill")
        light.append(luminance([int(number) for number in re.findall(r"\d+", fill)]))
    contrasts = [(max(pair) + 0.05) / (min(pair) + 0.05) for pair in (light[:2], light[1:])]
    assert sorted(light, reverse=scheme == "light") == light
    assert min(contrasts) > 1.5


def test_a_page_prints_on_two_sheets_of_a4(browser: Any, folders: dict[str, str]) -> None:
    show(browser, f"{folders['en']}/p00001.html", scheme="dark")
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})
    pdf = base64.b64decode(printed["data"])
    boxes = re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", pdf)
    assert {(round(float(width)), round(float(height))) for width, height in boxes} == {(595, 842)}
    assert len(boxes) <= 3


def test_a_page_opens_from_the_disk_too(browser: Any, served: Served, folders: dict[str, str]) -> None:
    del folders
    path = served.folder / "en" / "out" / "report" / "index.html"
    show(browser, path.as_uri())
    assert requests(browser) == [path.as_uri()]
    browser.find_element("css selector", "tbody a").click()
    assert len(browser.find_elements("css selector", "img")) > 10
