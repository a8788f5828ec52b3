"""`python -m train check`: what would go wrong in a training; `train all` begins with it."""

import datetime as dt
import logging
import sys
import time
from pathlib import Path
from typing import Any

import click

from infer import __version__
from infer.bundle.load import REFERENCE, Bundle, load_bundle
from infer.errors import CohortError, UsageError
from train.checking import page
from train.checking.check import Checked, check, check_crops, demand_nothing_to_correct, refuse
from train.checking.finding import Severity
from train.checking.table import TableOptions
from train.cli.run import Run, choose_device
from train.cli.stage import DEVICE, PATIENTS, PICTURE_SIZE, TABLE_OPTIONS, cli, with_options

LOG = logging.getLogger("lympho")
SHOWN = 8  # of the rows, patients or files of a finding; the page has all


@cli.command("check", help="Say what would go wrong in a training on PATIENTS, and how long it will take.")
@PATIENTS
@with_options(*TABLE_OPTIONS)
@PICTURE_SIZE
@click.option(
    "--bundle",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Bundle whose training pictures these are compared with. Default: the one that ships.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="check.html",
    show_default=True,
    help="The page: an HTML file, or a folder to write check.html into.",
)
@click.option("--no-timing", is_flag=True, help="Do not measure how long the recipes will take.")
@DEVICE
def check_command(patients: Path, bundle: Path | None, out: Path, no_timing: bool, device: str, **options: Any) -> None:
    start = time.monotonic()
    path = page.place(out, patients)
    asked, compared = _asked(patients, options), load_bundle(bundle or REFERENCE)
    checked = check(asked, compared, None if no_timing else choose_device(device))
    page.write(checked, path, _facts(asked, compared, time.monotonic() - start))
    click.echo("\n".join([*_in_lines(checked), page.verdict(checked), str(path)]))
    if checked.of(Severity.CORRECT):
        sys.exit(UsageError.exit_code)


def checked_run(patients: Path, run: Path, options: dict[str, Any]) -> Run:
    """The run of `train all`, once nothing has to be corrected; nothing is decoded twice.

    Raises:
        UsageError: something has to be corrected: all of it is named.
        LymphoError: as `Run`.
    """
    asked = _asked(patients, options)
    known = demand_nothing_to_correct(asked)
    try:
        this = Run(patients, run, options)
    except CohortError:
        refuse(check(asked))
        raise
    for one in check_crops(known, this.bags, run).of(Severity.LOOK):
        LOG.warning("%s: %s. %s", one.topic, one.what, one.todo)
    return this


def _asked(patients: Path, options: dict[str, Any]) -> TableOptions:
    reference: dt.datetime | None = options["reference_date"]
    names = ("date_format", "sample_date_format", "sex_codes", "picture_size")
    return TableOptions(patients, reference.date() if reference else None, **{name: options[name] for name in names})


def _facts(asked: TableOptions, bundle: Bundle, seconds: float) -> list[tuple[str, str]]:
    return [
        ("Patients", str(asked.patients)),
        ("Ages taken at", asked.reference_date.isoformat() if asked.reference_date else "SAMPLE_DATE"),
        ("Compared with bundle", bundle.bundle_id),
        ("Program", f"lympho {__version__}"),
        ("On", f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC, in {seconds:.0f} seconds"),
    ]


def _in_lines(checked: Checked) -> list[str]:
    lines = []
    for severity in Severity:
        if found := checked.of(severity):
            lines.append(f"{severity.value} ({len(found)}):")
        for one in found:
            lines.append(f"- {one.topic}: {one.what}. {one.todo}".rstrip())
            if severity is not Severity.FINE or one.topic == "time":
                lines += [f"    {text}" for text in one.concerned[:SHOWN]]
                if len(one.concerned) > SHOWN:
                    lines.append(f"    and {len(one.concerned) - SHOWN} more, on the page")
    return lines
