"""Chromium for the pages. Without it these tests are skipped, and say so; with LYMPHO_BROWSER=1 they fail instead."""

import functools
import http.server
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, or the tests are skipped."""
    if not (CHROMIUM and DRIVER):
        says = "no Chromium here: apt-get install chromium chromium-driver, then make test-browser"
        if os.environ.get("LYMPHO_BROWSER"):
            pytest.fail(says)
        pytest.skip(says)
    driver = chromium()
    yield driver
    driver.quit()


def chromium() -> Any:
    """A headless Chromium, the system's own."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for argument in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    if os.geteuid() == 0:  # Chromium's sandbox refuses root; nothing but these pages is opened
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_script_timeout(120)
    return driver


@dataclass(frozen=True)
class Served:
    """A folder that is served over HTTP: there a browser asks for more than from a file, an icon for example."""

    folder: Path
    address: str
    asked: list[str]  # paths, in order


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Served(folder, f"http://127.0.0.1:{server.server_port}", asked)
    server.shutdown()
    server.server_close()
