"""Writes the pages of a finished run from what it left in OUT, patient by patient, so that memory stays flat."""

import contextlib
import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from infer.bundle.load import Bundle
from infer.errors import CohortError, OutputError
from infer.options import picture_scale
from infer.output.kept import KEPT, read_header, read_results
from infer.output.names import RECORD
from infer.output.pages import new_pages
from infer.output.watch import DRIFT
from infer.report.about import about_run
from infer.report.crops import CHANGED, Shown, with_pictures
from infer.report.entry import entry_of
from infer.report.index import index_pages
from infer.report.page import patient_page
from infer.report.texts import Texts
from infer.scoring.result import PatientResult

LOG = logging.getLogger("lympho")


@dataclass(frozen=True)
class Layout:
    """The texts of a language, and the templates with them."""

    texts: Texts
    patient: Template
    index: Template


def layout(texts: Texts) -> Layout:
    """The templates in a language, which escape everything that is put into them."""
    folder = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(
        loader=folder,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals.update(t=texts, language=texts.language)
    return Layout(texts, environment.get_template("patient.html.j2"), environment.get_template("index.html.j2"))


def write_report(
    out: Path, patients: Path, bundle: Bundle, made: Layout, workers: int, *, refuse_changed: bool = False
) -> None:
    """Write a page a patient and the index to OUT/report. They appear once all are written.

    Args:
        out: of a finished run, locked by the caller.
        patients: the cohort's folder.
        bundle: that the run used.
        workers: decoding processes.
        refuse_changed: a picture that is another one than was scored is an error; otherwise its page says so.

    Raises:
        OutputError: they cannot be written, or the run's results are damaged.
        UsageError: the run is of another version of this program.
        CohortError: a picture has changed.
        WorkerError: a decoding process cannot be started.
    """
    texts = made.texts
    header = read_header(out / KEPT)
    record = json.loads((out / RECORD).read_text(encoding="utf-8"))
    about = about_run(record, header, bundle.manifest, texts)
    scale = picture_scale(header.identity.pixel_size, bundle.manifest.magnification)
    results = read_results(out / KEPT, about.patients)
    pictured = with_pictures(results, patients, bundle.manifest.crop_size, workers, scale)
    entries = []
    try:
        with new_pages(out) as pages, contextlib.closing(pictured):
            for number, (result, chosen, pictures) in enumerate(pictured, 1):
                _tell_changed(result, patients, pictures, refuse=refuse_changed)
                name = f"p{number:05}.html"
                view = patient_page(result, chosen, pictures, about, texts)
                pages.write(name, made.patient.render(page=view, about=about))
                entries.append(entry_of(name, result, view))
            for index in index_pages(entries, about, _read_drift(out), texts):
                pages.write(index.name, made.index.render(page=index, about=about))
    except OSError as error:
        raise OutputError(
            f"{error.filename or out}: cannot be read or written ({error.strerror}): no pages. Put it right"
        ) from error
    LOG.info("pages of %d patients written", len(entries))


def _tell_changed(result: PatientResult, folder: Path, pictures: Iterable[Shown], *, refuse: bool) -> None:
    changed = sum(picture.missing == CHANGED for picture in pictures)
    if changed and refuse:
        raise CohortError(
            f"{folder / result.patient_id}: {changed} pictures are not those that were scored. Score the patients again"
        )
    if changed:
        LOG.warning("%s: %d pictures changed after they were scored; the page says so", result.patient_id, changed)


def _read_drift(out: Path) -> dict[str, Any]:
    drift: dict[str, Any] = json.loads((out / DRIFT).read_text(encoding="utf-8"))
    return drift
