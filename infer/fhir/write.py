"""Writes the documents of a finished run from what it left in OUT, patient by patient, so that memory stays flat."""

import contextlib
import json
import logging
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

from infer.bundle.load import Bundle
from infer.errors import OutputError
from infer.fhir.elements import Json
from infer.fhir.model import Model, card_document
from infer.fhir.names import CARD, Names, can_be_written
from infer.fhir.patient import patient_document
from infer.fhir.said import of_one, unnamed, without_others
from infer.fhir.site import Site
from infer.options import picture_scale
from infer.output.kept import KEPT, read_header, read_results
from infer.output.kinds import FHIR
from infer.output.names import RECORD
from infer.output.pages import Pages, new_pages
from infer.report.about import about_run
from infer.report.cells import choose
from infer.report.crops import Pictured, Shown, with_pictures
from infer.report.page import patient_page
from infer.report.write import Layout
from infer.scoring.result import PatientResult

LOG = logging.getLogger("lympho")


@dataclass(frozen=True)
class Attached:
    """The pages that reports carry."""

    patients: Path  # the cohort's folder
    layout: Layout
    workers: int  # decoding processes


def write_fhir(out: Path, bundle: Bundle, site: Site, attached: Attached | None) -> None:
    """Write a document a patient, and the model card's, to OUT/fhir. They appear once all are written.

    Args:
        out: of a finished run, locked by the caller.
        bundle: that the run used.
        attached: None: reports carry no pages.

    Raises:
        OutputError: they cannot be written, or the run's results are damaged.
        UsageError: the run is of another version of this program.
        WorkerError: a decoding process cannot be started.
    """
    header = read_header(out / KEPT)
    record = json.loads((out / RECORD).read_text(encoding="utf-8"))
    about = without_others(about_run(record, header, bundle.manifest, site.texts), site.texts)
    adapted = bundle.manifest.adapted
    model = Model(
        program=str(record["program"]["version"]),
        bundle=bundle.bundle_id,
        point=header.identity.operating_point,
        prevalence=float(record["bundle"]["prevalence"]),
        card=bundle.card,
        made=(adapted or bundle.manifest.provenance).created,
        about=about,
    )
    scale = picture_scale(header.identity.pixel_size, bundle.manifest.magnification)
    results = read_results(out / KEPT, about.patients)
    pictured = _pictured(results, bundle, attached, scale)
    try:
        with new_pages(out, FHIR) as pages, contextlib.closing(pictured):
            _write(pages, CARD, card_document(model, site))
            written, left_out = _write_patients(pages, pictured, model, site, attached)
    except OSError as error:
        raise OutputError(
            f"{error.filename or out}: cannot be read or written ({error.strerror}): no FHIR documents. Put it right"
        ) from error
    if left_out:
        LOG.warning("patients whose ID is empty or holds control characters: %d. They have no FHIR document", left_out)
    LOG.info("FHIR documents of %d patients written", written)


def _pictured(
    results: Iterator[PatientResult], bundle: Bundle, attached: Attached | None, scale: float
) -> Generator[Pictured, None, None]:
    if attached:
        size, workers = bundle.manifest.crop_size, attached.workers
        return with_pictures(results, attached.patients, size, workers, scale)
    return (_without_pictures(result) for result in results)


def _without_pictures(result: PatientResult) -> Pictured:
    chosen = choose(result) if result.scores else None
    return result, chosen, [Shown()] * len(chosen.all) if chosen else []


def _write_patients(
    pages: Pages, pictured: Generator[Pictured, None, None], model: Model, site: Site, attached: Attached | None
) -> tuple[int, int]:
    """Write all patients' documents. Returns how many there are, and how many patients can have none."""
    names, written, left_out = Names(), 0, 0
    for result, chosen, pictures in pictured:
        if not can_be_written(result.patient_id):
            left_out += 1
            continue
        name = names.name_of(result.patient_id)
        if name is None:  # the ID stands twice in the table: both rows have failed, for the same reason
            continue
        about = of_one(model.about, result.patient_id, site.texts)
        clean, cells = unnamed(result, chosen, site.texts)
        page = patient_page(clean, cells, pictures, about, site.texts)
        html = attached.layout.patient.render(page=page, about=about) if attached else ""
        _write(pages, name, patient_document(clean, page, model, site, html))
        written += 1
    return written, left_out


def _write(pages: Pages, name: str, document: Json) -> None:
    pages.write(name, json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
