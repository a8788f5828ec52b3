"""From what is asked for to what writes it."""

from collections.abc import Callable
from pathlib import Path

from infer.bundle.load import Bundle
from infer.fhir.codes import check_system, read_codes
from infer.fhir.site import Site
from infer.fhir.write import Attached, write_fhir
from infer.report.texts import Texts
from infer.report.write import layout


def documents_writer(
    version: str, system: str, codes: Path | None, language: str, patients: Path | None, workers: int
) -> Callable[[Path, Bundle], None]:
    """Check what is asked for, and return what writes the documents of a finished run, given OUT and bundle.

    Args:
        version: of FHIR.
        system: of the patients' identifiers.
        codes: file of the site's codes.
        patients: the cohort's folder, whose pages are attached; None: none are.
        workers: decoding processes.

    Raises:
        UsageError: the system is no URI, or the file of codes holds something else.
    """
    check_system(system)
    site = Site(version, system, read_codes(codes), Texts(language))
    attached = Attached(patients, layout(site.texts), workers) if patients else None
    return lambda out, bundle: write_fhir(out, bundle, site, attached)
