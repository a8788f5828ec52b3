"""How a page is shown in Chromium, what it asks for, and what axe finds in it."""

import json
from importlib.resources import files
from typing import Any

WIDTHS, SCHEMES = (390, 1280), ("light", "dark")


def show(browser: Any, address: str, width: int = 1280, scheme: str = "light") -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": features})
    browser.get_log("performance")
    browser.get(address)


def requests(browser: Any) -> list[str]:
    """What was asked for since the page was opened, data apart."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]
    return [url for url in asked if not url.startswith("data:")]


def run_axe(browser: Any) -> Any:
    browser.execute_script((files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8"))
    return browser.execute_async_script("const done = arguments[0]; axe.run(document).then(done)")


def violations(browser: Any) -> list[str]:
    result = run_axe(browser)
    assert len(result["passes"]) > 10
    return [
        f"{one['id']} ({one['impact']}): {one['nodes'][0]['html'][:200]} {one['nodes'][0]['failureSummary'][:300]}"
        for one in result["violations"]
        if one["impact"] in ("serious", "critical", "moderate")
    ]


def check_alone(browser: Any, address: str) -> None:
    """A page of one file asks for nothing but itself, and the browser has no complaint."""
    browser.get_log("browser")
    show(browser, address)
    assert requests(browser) == [address]
    assert browser.get_log("browser") == []


def check_readable(browser: Any, address: str, width: int, scheme: str) -> None:
    """A page fits its window, and axe finds nothing serious."""
    show(browser, address, width, scheme)
    inner, whole = browser.execute_script("return [innerWidth, document.documentElement.scrollWidth]")
    assert (inner, whole <= width) == (width, True)
    assert violations(browser) == []
