"""What a run's options ask for."""

from collections.abc import Callable
from pathlib import Path

from infer.bundle.load import Bundle
from infer.fhir.codes import check_system, read_codes
from infer.fhir.site import Site
from infer.fhir.write import Attached, write_fhir
from infer.options import Options
from infer.output.folder import output_errors
from infer.output.kinds import FHIR
from infer.output.pages import check_pages
from infer.report.texts import Texts
from infer.report.write import layout


def documents_writer(options: Options, system: str, version: str, workers: int) -> Callable[[Path, Bundle], None]:
    """Check what the options say of documents, and return what writes those of a finished run, given OUT and bundle.

    Args:
        system: of the patients' identifiers.
        version: of FHIR.
        workers: decoding processes.

    Raises:
        UsageError: the system is no URI, or the file of codes holds something else.
        OutputError: OUT holds a file where the documents go.
    """
    check_system(system)
    site = Site(version, system, read_codes(options.codes), Texts(options.language))
    attached = Attached(options.patients, layout(site.texts), workers) if options.report else None
    with output_errors(options.out):
        check_pages(options.out, FHIR)
    return lambda out, bundle: write_fhir(out, bundle, site, attached)
