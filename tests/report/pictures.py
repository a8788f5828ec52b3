"""The pictures of pages in README.md: `python -m tests.report.pictures`, drawn patients, the bundle that ships."""

import base64
import io
import shutil
import tempfile
from pathlib import Path
from typing import Any

import click
from PIL import Image

from tests.infer.runs import score
from tests.report.conftest import chromium
from tests.synthetic import make_patients, write_cohort

FOLDER = Path(__file__).parent / "pictures"
SHOWN = {"index": ("index.html", 760), "patient": ("p00004.html", 1130)}  # file, height in pixels
WIDTH, QUALITY = 1180, 75


@click.command()
def pictures() -> None:
    """Score the six patients of `make demo` and take pictures of two of their pages."""
    FOLDER.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp())
    write_cohort(folder / "patients", make_patients(6, seed=7), seed=7, labels=False)
    pages = score(folder / "patients", folder / "out", report=True).out / "report"
    browser = chromium()
    for name, (page, height) in SHOWN.items():
        taken = take(browser, pages / page, height)
        taken.save(FOLDER / f"{name}.jpg", quality=QUALITY, optimize=True)
        click.echo(f"{name}.jpg\t{(FOLDER / f'{name}.jpg').stat().st_size:,} bytes")
    browser.quit()
    shutil.rmtree(folder)


def take(browser: Any, page: Path, height: int) -> Image.Image:
    """The top of a page."""
    size = {"width": WIDTH, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page.as_uri())
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
    return Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")


if __name__ == "__main__":
    pictures()
