"""The command line that writes documents later: check that OUT holds a finished run that fits, and write them."""

from pathlib import Path

import click

from infer.bundle.load import REFERENCE
from infer.fhir.codes import check_system, read_codes
from infer.fhir.site import VERSIONS, Site
from infer.fhir.write import Attached, write_fhir
from infer.machine.processors import available_processors
from infer.pictures.pool import MOST_WORKERS
from infer.report.finished import finished
from infer.report.texts import LANGUAGES, Texts
from infer.report.write import layout

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
    check_system(fhir_identifier_system)
    site = Site(fhir, fhir_identifier_system, read_codes(codes), Texts(language))
    workers = min(available_processors(), MOST_WORKERS)
    with finished(patients, out, bundle or REFERENCE, "write the documents") as loaded:
        write_fhir(out, loaded, site, Attached(patients, layout(site.texts), workers) if report else None)
    return 0
