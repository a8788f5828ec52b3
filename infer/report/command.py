"""The second command line: check that OUT holds a finished run that fits, and write its pages."""

from pathlib import Path

import click

from infer.bundle.load import REFERENCE
from infer.machine.processors import available_processors
from infer.pictures.pool import MOST_WORKERS
from infer.report.finished import finished
from infer.report.texts import LANGUAGES, Texts
from infer.report.write import layout, write_report

PATH = click.Path(path_type=Path, readable=False)


@click.command(context_settings={"show_default": True})
@click.argument("patients", type=PATH)
@click.argument("out", type=PATH)
@click.option("--bundle", type=PATH, help="The bundle that the run used.  [default: the bundle shipped with lympho]")
@click.option("--language", type=click.Choice(list(LANGUAGES)), default="en", help="Language of the pages.")
def command(patients: Path, out: Path, bundle: Path | None, language: str) -> int:
    """Write the evidence pages of the finished run in OUT to OUT/report.

    PATIENTS is the folder that the run scored. A picture that has changed since is refused. Not a medical device.
    """
    with finished(patients, out, bundle or REFERENCE, "write the pages") as loaded:
        workers = min(available_processors(), MOST_WORKERS)
        write_report(out, patients, loaded, layout(Texts(language)), workers, refuse_changed=True)
    return 0
