"""Writes the pages of a finished run from what it left in OUT, patient by patient, so that memory stays flat."""

import json
import logging
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from infer.bundle.load import Bundle
from infer.bundle.reference import Reference
from infer.errors import CohortError, OutputError
from infer.options import picture_scale
from infer.output.folder import RECORD, output_errors
from infer.output.kept import KEPT, read_header, read_results
from infer.output.pages import Pages, check_pages, new_pages
from infer.pictures.pool import DecodingPool
from infer.report.about import About, about_run
from infer.report.cells import Chosen, choose
from infer.report.crops import CHANGED, Looked, Shown, show
from infer.report.index import Entry, entry_of, index_pages
from infer.report.page import patient_page
from infer.report.texts import Texts
from infer.scoring.result import PatientResult

LOG = logging.getLogger("lympho")
DRIFT = "drift.json"  # in OUT, if the bundle can tell
MOST_WORKERS = 16  # decoding processes


def check_report(out: Path, language: str) -> None:
    """Make sure, before anything is scored, that pages can be made and get their place.

    Raises:
        UsageError: there are no texts in this language.
        OutputError: something else lies where they go.
    """
    template = templates(Texts(language))
    for name in template.list_templates(extensions=["j2"]):
        template.get_template(name)
    with output_errors(out):
        check_pages(out)


def write_report(
    out: Path, patients: Path, bundle: Bundle, language: str, workers: int, *, refuse_changed: bool = False
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
    texts = Texts(language)
    template = templates(texts)
    header = read_header(out / KEPT)
    record = json.loads((out / RECORD).read_text(encoding="utf-8"))
    reference: Reference | None = getattr(bundle.manifest, "reference", None)
    about = about_run(record, header, bundle.manifest, reference, texts)
    scale = picture_scale(header.identity.pixel_size, bundle.manifest.magnification)
    pool = DecodingPool(patients.resolve(), bundle.manifest.crop_size, workers, scale)
    try:
        with new_pages(out) as pages:
            entries = []
            results = read_results(out / KEPT, about.patients)
            for number, (result, chosen, pictures) in enumerate(_with_pictures(results, patients, pool), 1):
                _tell_changed(result, patients, pictures, refuse=refuse_changed)
                name = f"p{number:05}.html"
                view = patient_page(result, chosen, pictures, about, texts)
                pages.write(name, template.get_template("patient.html.j2").render(page=view, about=about))
                entries.append(entry_of(name, result, view))
            _write_index(pages, entries, about, _read_drift(out), texts, template)
    except OSError as error:
        raise OutputError(
            f"{error.filename or out}: cannot be written ({error.strerror}). The tables are complete, only the pages are "
            "missing. Put it right and write them with python -m infer.report"
        ) from error
    finally:
        pool.close()
    LOG.info("pages of %d patients written", len(entries))


def templates(texts: Texts) -> Environment:
    """The templates, which escape everything that is put into them."""
    folder = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(
        loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(t=texts, language=texts.language)
    return environment


def _write_index(
    pages: Pages,
    entries: list[Entry],
    about: About,
    drift: dict[str, Any] | None,
    texts: Texts,
    template: Environment,
) -> None:
    for view in index_pages(entries, about, drift, texts):
        pages.write(view.name, template.get_template("index.html.j2").render(page=view, about=about))


def _with_pictures(
    results: Iterable[PatientResult], folder: Path, pool: DecodingPool
) -> Iterator[tuple[PatientResult, Chosen | None, list[Shown]]]:
    """Each patient with its chosen cells and their pictures, which are decoded ahead."""
    waiting: deque[tuple[PatientResult, Chosen | None, Looked | None]] = deque()
    for result in results:
        chosen = choose(result) if result.scores else None
        names = [cell.name for cell in chosen.all] if chosen else []
        waiting.append((result, chosen, pool.look(folder / result.patient_id, names) if names else None))
        if len(waiting) > pool.number + 1:
            yield _shown(*waiting.popleft())
    while waiting:
        yield _shown(*waiting.popleft())


def _shown(
    result: PatientResult, chosen: Chosen | None, looked: Looked | None
) -> tuple[PatientResult, Chosen | None, list[Shown]]:
    found = looked.result() if looked else []
    cells = chosen.all if chosen else ()
    return result, chosen, [show(one, cell.content) for one, cell in zip(found, cells, strict=True)]


def _tell_changed(result: PatientResult, folder: Path, pictures: Iterable[Shown], *, refuse: bool) -> None:
    changed = sum(picture.missing == CHANGED for picture in pictures)
    if changed and refuse:
        raise CohortError(
            f"{folder / result.patient_id}: {changed} pictures are not those that were scored. Score the patients again"
        )
    if changed:
        LOG.warning("%s: %d pictures changed after they were scored; the page says so", result.patient_id, changed)


def _read_drift(out: Path) -> dict[str, Any] | None:
    try:
        drift: dict[str, Any] = json.loads((out / DRIFT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return drift
