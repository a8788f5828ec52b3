"""The second command line: check that OUT holds a finished run that fits, and write its pages."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import click

from infer.bundle.load import REFERENCE, Bundle, load_bundle
from infer.bundle.manifest import SCHEMA
from infer.errors import CohortError, UsageError
from infer.machine.processors import available_processors
from infer.output.checks import put_back
from infer.output.exchange import broke_off, settle
from infer.output.folder import output_errors, unfinished_size
from infer.output.kept import KEPT, read_header
from infer.output.lock import held
from infer.output.names import MOVED, RECORD
from infer.pictures.pool import MOST_WORKERS
from infer.report.texts import LANGUAGES, Texts
from infer.report.write import layout, write_report
from infer.scoring.prevalence import at_prevalence

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
    if not out.is_dir():
        raise UsageError(f"{out}: is no folder with the results of a run")
    if not patients.is_dir():
        raise CohortError(f"{patients}: is no folder. Give the folder of patients that the run scored")
    loaded = load_bundle(bundle or REFERENCE)
    with output_errors(out), held(out):
        put_back(out, MOVED)
        if broke_off(out):
            settle(out)
        _check_finished(out)
        loaded = _as_used(out, loaded)
        workers = min(available_processors(), MOST_WORKERS)
        write_report(out, patients, loaded, layout(Texts(language)), workers, refuse_changed=True)
    return 0


def _check_finished(out: Path) -> None:
    if (out / RECORD).exists():
        return
    if unfinished_size(out):
        raise UsageError(f"{out}: its run is not finished. Start it again: it resumes; then write the pages")
    raise UsageError(f"{out}: holds no finished run ({RECORD} is missing)")


def _as_used(out: Path, bundle: Bundle) -> Bundle:
    """The bundle as the run used it.

    Raises:
        UsageError: this program, or this bundle, cannot read what the run left.
    """
    try:
        used: dict[str, Any] = json.loads((out / RECORD).read_text(encoding="utf-8"))["bundle"]
        schema, bundle_id = used["schema"], used["id"]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{out / RECORD}: is not the record of a run. Score the patients again") from error
    if schema != SCHEMA:
        raise UsageError(
            f"{out}: was scored with a bundle of schema {schema}, this program reads schema {SCHEMA}. Use the version "
            "that scored it, or score the patients again"
        )
    header = read_header(out / KEPT)
    if {bundle_id, header.identity.bundle} != {bundle.bundle_id}:
        raise UsageError(
            f"--bundle {bundle.folder}: is {bundle.short_id}, but {out} was scored with {bundle_id[:12]}. Give that one"
        )
    share = header.identity.prevalence
    return bundle if share is None else dataclasses.replace(bundle, manifest=at_prevalence(bundle.manifest, share))
