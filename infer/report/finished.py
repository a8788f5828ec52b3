"""A finished run in OUT, for what is written from it later."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from infer.bundle.load import Bundle, load_bundle
from infer.bundle.manifest import SCHEMA
from infer.errors import CohortError, UsageError
from infer.output.checks import put_back
from infer.output.exchange import broke_off, settle
from infer.output.folder import output_errors, unfinished_size
from infer.output.journal import run_of
from infer.output.kept import KEPT, read_header
from infer.output.lock import held
from infer.output.names import MOVED, RECORD
from infer.output.used import as_used


@contextlib.contextmanager
def finished(patients: Path, out: Path, bundle: Path, then: str) -> Iterator[Bundle]:
    """Hold OUT, in which a finished run must lie.

    Args:
        patients: the folder that the run scored.
        bundle: the folder of the bundle that the run used.
        then: what is done with a finished run, for the message.

    Yields:
        The bundle as the run used it.

    Raises:
        UsageError: there is no finished run, or this program, or this bundle, cannot read what it left.
        CohortError: there is no folder of patients.
        BundleError: the bundle is damaged.
        HeldError, OutputError: another run has locked OUT, or it cannot be written.
    """
    if not out.is_dir():
        raise UsageError(f"{out}: is no folder with the results of a run")
    if not patients.is_dir():
        raise CohortError(f"{patients}: is no folder. Give the folder of patients that the run scored")
    loaded = load_bundle(bundle)
    with output_errors(out), held(out):
        put_back(out, MOVED)
        if broke_off(out):
            settle(out)
        _check_finished(out, then)
        yield _as_used(out, loaded)


def _check_finished(out: Path, then: str) -> None:
    if (out / RECORD).exists():
        return
    if unfinished_size(out):
        raise UsageError(f"{out}: its run is not finished. Start it again: it resumes; then {then}")
    raise UsageError(f"{out}: holds no finished run ({RECORD} is missing)")


def _as_used(out: Path, bundle: Bundle) -> Bundle:
    """The bundle as the run used it.

    Raises:
        UsageError: this program, or this bundle, cannot read what the run left.
    """
    try:
        record: dict[str, Any] = json.loads((out / RECORD).read_text(encoding="utf-8"))
        run, schema, bundle_id = record["run"], record["bundle"]["schema"], record["bundle"]["id"]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{out / RECORD}: is not the record of a run. Score the patients again") from error
    if schema != SCHEMA:
        raise UsageError(
            f"{out}: was scored with a bundle of schema {schema}, this program reads schema {SCHEMA}. Use the version "
            "that scored it, or score the patients again"
        )
    identity = read_header(out / KEPT).identity
    if identity.bundle != bundle_id or run_of(out / KEPT) != run:
        raise UsageError(
            f"{out}: {RECORD} and the hidden {KEPT} are of two runs. Copy both from the run's folder, or score the "
            "patients again"
        )
    return as_used(out, bundle, identity)
