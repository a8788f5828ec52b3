"""The command line of the nightly job: parse options, run, exit. infer/README.md lists the exit codes."""

import datetime as dt
from pathlib import Path
from typing import Any

import click

from infer import __version__
from infer.machine.console import run_command

# click does not check these paths: it would report every bad path as wrong usage, but each has its own exit code.
PATH = click.Path(path_type=Path, readable=False)


@click.command(context_settings={"show_default": True})
@click.argument("patients", type=PATH)
@click.argument("out", type=PATH)
@click.option("--annotations", type=PATH, help="Clinical table, if it is not in PATIENTS.")
@click.option("--bundle", type=PATH, help="Folder of the model bundle.  [default: the bundle shipped with lympho]")
@click.option("--device", type=click.Choice(["auto", "cuda", "cpu"]), default="auto", help="Where the networks run.")
@click.option("--operating-point", default="balanced", help="Decision thresholds: one of the names in the bundle.")
@click.option(
    "--reference-date",
    type=click.DateTime(["%Y-%m-%d"]),
    help="Date at which ages are taken for patients without SAMPLE_DATE.  [default: today]",
)
@click.option("--date-format", help="strptime format of all dates in the table, e.g. %d/%m/%Y, or iso.")
@click.option("--sample-date-format", help="The same, for SAMPLE_DATE only.")
@click.option("--sex-codes", help="Meaning of the codes in GENDER, e.g. H=male,M=female.")
@click.option(
    "--pixel-size",
    type=click.FloatRange(0, min_open=True),
    metavar="UM",
    help="Micrometres that a pixel of these pictures covers, for another camera than in training.",
)
@click.option(
    "--prevalence",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="SHARE",
    help="Share of malignant patients among those scored, such as .3, where it is not the bundle's.",
)
@click.option(
    "--ood",
    type=click.Choice(["refer", "refuse", "warn"]),
    default="refer",
    help="What becomes of a patient unlike the training patients: left undecided, refused, or only named.",
)
@click.option(
    "--max-refused",
    type=click.FloatRange(0, 1),
    default=0.5,
    help="Exit with code 3 if a larger share of patients is refused.",
)
@click.option(
    "--batch-size", type=click.IntRange(1, 1024), help="Pictures per batch.  [default: 8 on a CPU, 256 on a GPU]"
)
@click.option(
    "--workers", type=click.IntRange(0), default=0, help="Worker processes that decode; 0: chosen to suit the device."
)
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    help="CPU cores for networks and decoding.  [default: all that the run may use]",
)
@click.option(
    "--settle",
    type=click.FloatRange(0, 86_400),
    default=0,
    metavar="SECONDS",
    help="Fail a patient whose folder changed less than SECONDS ago: copying may not be finished.",
)
@click.option(
    "--shard",
    metavar="I/N",
    help="Score shard I (0 to N-1) of the patients, one of N; python -m infer.merge makes one run of all.",
)
@click.option(
    "--ray",
    metavar="ADDRESS",
    help="Score on the nodes of a Ray cluster: HOST:PORT of its head, auto: this machine's, local: a new one here.",
)
@click.option("--dry-run", is_flag=True, help="Check bundle, table, pictures, device and OUT; score and write nothing.")
@click.option("--fresh", is_flag=True, help="Start over instead of resuming an interrupted run in OUT.")
@click.option(
    "--csv-dialect",
    type=click.Choice(["plain", "excel-fr"]),
    default="plain",
    help="excel-fr: semicolons and decimal commas, for spreadsheets in French.",
)
@click.option("--report", is_flag=True, help="Write evidence pages too: OUT/report/index.html and a page a patient.")
@click.option("--language", type=click.Choice(["en", "fr"]), default="en", help="Language of pages and FHIR documents.")
@click.option("--history", type=PATH, help="File that gets a line for each run, to look for drift over all nights.")
@click.option(
    "--drift", type=click.Choice(["tell", "fail"]), default="tell", help="fail: exit with code 3 if drift is found."
)
@click.option("--fhir", type=click.Choice(["r4", "r5"]), help="Write FHIR documents too: OUT/fhir, a Bundle a patient.")
@click.option("--fhir-identifier-system", metavar="URI", help="System of the patient IDs, for --fhir.")
@click.option("--codes", type=PATH, help="File of the codes that your site uses in FHIR documents.")
@click.option("--metrics", type=PATH, help="File that says how the run ended, for Prometheus' node exporter.")
@click.version_option(__version__, prog_name="lympho")
def command(reference_date: dt.datetime | None, bundle: Path | None, **options: Any) -> int:
    """Score the patients in folder PATIENTS and write tables, drift.json, run.json and run.log to OUT.

    PATIENTS holds clinical_annotation.csv and one folder of pictures per patient. Not a medical device.
    """
    from infer.bundle.load import REFERENCE
    from infer.options import Options
    from infer.run import run

    date = reference_date.date() if reference_date else None
    return run(Options(reference_date=date, bundle=bundle or REFERENCE, **options))


def main() -> None:
    """Run the command line and exit with the run's exit code."""
    run_command(command)
