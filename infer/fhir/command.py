"""The command line that writes documents later: check that OUT holds a finished run that fits, and write them."""

from pathlib import Path

import click

from infer.bundle.load import REFERENCE
from infer.fhir.asked import documents_writer
from infer.fhir.site import VERSIONS
from infer.machine.processors import available_processors
from infer.pictures.pool import MOST_WORKERS
from infer.report.finished import finished
from infer.report.texts import LANGUAGES

PATH = click.Path(path_type=Path, readable=False)


@click.command(context_settings={"show_default": True})
@click.argument("patients", type=PATH)
@click.argument("out", type=PATH)
@click.option("--fhir", type=click.Choice(list(VERSIONS)), required=True, help="Version of FHIR.")
@click.option("--fhir-identifier-system", metavar="URI", required=True, help="System of the patient IDs.")
@click.option("--codes", type=PATH, help="File of the codes that your site uses.")
@click.option("--report", is_flag=True, help="Attach each patient's evidence page.")
@click.option("--bundle", type=PATH, help="The bundle that the run used.  [default: the bundle shipped with lympho]")
@click.option("--language", type=click.Choice(list(LANGUAGES)), default="en", help="Language of the documents.")
def command(
    patients: Path,
    out: Path,
    fhir: str,
    fhir_identifier_system: str,
    codes: Path | None,
    report: bool,
    bundle: Path | None,
    language: str,
) -> int:
    """Write the FHIR documents of the finished run in OUT to OUT/fhir.

    PATIENTS is the folder that the run scored. Not a medical device.
    """
    workers = min(available_processors(), MOST_WORKERS)
    pages_of = patients if report else None
    write = documents_writer(fhir, fhir_identifier_system, codes, language, pages_of, workers)
    with finished(patients, out, bundle or REFERENCE, "write the documents") as loaded:
        write(out, loaded)
    return 0
