"""The command line of the merge: check the shards, put their patients into the table's order, judge, and write OUT."""

import datetime as dt
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from infer import __version__
from infer.bundle.load import REFERENCE, load_bundle
from infer.drift.history import check_place
from infer.errors import UsageError, ending_of, tables_are_complete
from infer.machine.times import iso
from infer.merge.shards import Finished, cohorts_of, is_shard, read_shards, rows_of
from infer.options import is_inside
from infer.output.conclude import Terms, conclude
from infer.output.folder import output_errors, unfinished
from infer.output.journal import FORMAT, Header
from infer.output.last_run import tell_last_run
from infer.output.lock import check_free
from infer.output.metrics import Metrics
from infer.output.names import no_file_at, no_file_in
from infer.output.results import Results
from infer.output.used import as_used
from infer.output.watch import Watch

LOG = logging.getLogger("lympho")
MERGED = "merged"  # in place of a shard, in the journal and the kept results: no run resumes from them
PATH = click.Path(path_type=Path, readable=False)


@dataclass(frozen=True)
class Merge:
    """What is merged, and how it is judged."""

    shards: tuple[Path, ...]
    out: Path
    bundle: Path = REFERENCE
    history: Path | None = None
    metrics: Path | None = None
    drift: str = "tell"  # tell, fail


@dataclass(frozen=True)
class _Row:
    """A patient's place in the table."""

    patient_id: str
    line: int


@click.command(context_settings={"show_default": True})
@click.argument("shards", type=PATH, nargs=-1, required=True)
@click.argument("out", type=PATH)
@click.option("--bundle", type=PATH, help="The bundle that the shards used.  [default: the bundle shipped with lympho]")
@click.option("--history", type=PATH, help="File that gets a line for each run, to look for drift over all nights.")
@click.option("--metrics", type=PATH, help="File that says how the merge ended, for Prometheus' node exporter.")
@click.option(
    "--drift", type=click.Choice(["tell", "fail"]), default="tell", help="fail: exit with code 3 if drift is found."
)
@click.version_option(__version__, prog_name="lympho")
def command(
    shards: tuple[Path, ...], out: Path, bundle: Path | None, history: Path | None, metrics: Path | None, drift: str
) -> int:
    """Make one run of the finished shards in the folders SHARDS, and write it to OUT.

    The tables are the same bytes that one machine would have written. Not a medical device.
    """
    return merge(Merge(shards, out, bundle or REFERENCE, history, metrics, drift))


def merge(options: Merge) -> int:
    """Merge shards and return the exit code, 0 or 3, by the shards' --max-refused.

    Raises:
        LymphoError: with the matching exit code; an earlier run's results in OUT stay.
    """
    started = _now()
    metrics = Metrics(options.metrics, started)
    try:
        _check_places(options, metrics)
        code = _merge_and_tell(options, iso(started), metrics)
    except BaseException as error:  # a signal, too
        metrics.write(_now(), ending_of(error)[0])
        raise
    metrics.write(_now(), code)
    return code


def _merge_and_tell(options: Merge, started: str, metrics: Metrics) -> int:
    """Merge, and leave word in OUT of how it ended."""
    try:
        return _merge(options, started, metrics)
    except BaseException as error:
        tell_last_run(options.out, started, iso(_now()), *ending_of(error))
        raise


def _check_places(options: Merge, metrics: Metrics) -> None:
    """OUT and the files that are asked for may be no shard's, and lie in none: what is given is only read."""
    shards = [("a shard, which is only read", folder) for folder in options.shards]
    folders = no_file_in(options.out, *cohorts_of(options.shards))
    others = (*no_file_at(options.out), *([options.history] if options.history else []))
    metrics.check((*shards, ("the bundle", options.bundle), *folders), others)
    if options.history is not None:
        check_place(options.history, shards)
    for folder in options.shards:
        if is_inside(options.out, folder) or is_inside(folder, options.out):
            raise UsageError(f"{options.out}: lies in a shard, or a shard in it. Choose another output folder")
    if is_shard(options.out):
        raise UsageError(f"{options.out}: holds a shard, which the merge would replace. Name OUT behind the shards")


def _merge(options: Merge, started: str, metrics: Metrics) -> int:
    check_free(options.out)
    shards = read_shards(options.shards)
    first = shards[0]
    cohort = Path(first.option["patients"])
    if is_inside(options.out, cohort):
        raise UsageError(f"{options.out}: lies inside the cohort, which is never written to. Choose another folder")
    bundle = as_used(first.folder, load_bundle(options.bundle), first.header.identity)
    terms = Terms(
        first.header.identity.operating_point,
        dt.date.fromisoformat(first.header.date),
        first.option["csv_dialect"],
        first.option["max_refused"],
        options.drift == "fail",
    )
    point = bundle.manifest.ensemble.operating_points[terms.operating_point]
    watch = Watch(bundle, point, options.history, no_file_in(options.out, cohort), no_file_at(options.out))
    metrics.bundle = bundle.bundle_id
    _check_unfinished(options.out)
    with Results(options.out, _header(shards), started, None) as results:
        tell_last_run(options.out, started, None, None, "")
        LOG.info("merging %d shards with %d patients", len(shards), first.cohort["patients_in_table"])
        _tell_rounding(shards)
        summary, rows = metrics.summary, []
        metrics.scoring = True
        with output_errors(options.out):
            for line, result in rows_of(shards):
                results.write(line, result)
                summary.add(result, line)
                watch.add(result)
                rows.append(_Row(result.patient_id, line))
        record = _record(options, shards, started)
        code, reasons = conclude(results, rows, bundle, terms, summary, watch, record, started)
        metrics.drift = watch.changed
        with tables_are_complete("only this run's line in the history is missing"):
            watch.remember()
        tell_last_run(options.out, started, iso(_now()), code, "; ".join(reasons))
    return code


def _check_unfinished(out: Path) -> None:
    """An unfinished run in OUT must not be lost; an unfinished merge is nothing but a copy.

    Raises:
        UsageError: there is one.
    """
    stored = unfinished(out)
    if stored and stored.header.identity.shard != MERGED:
        raise UsageError(f"{out}: holds an unfinished run. Let it finish, or choose another output folder")


def _header(shards: Sequence[Finished]) -> Header:
    """The header of a whole run; its rounding is that of the shards if they agree."""
    numerics = {one.header.identity.numerics for one in shards}
    identity = shards[0].header.identity
    together = replace(identity, shard=MERGED, numerics=numerics.pop() if len(numerics) == 1 else "several")
    return Header(FORMAT, together, shards[0].header.date)


def _tell_rounding(shards: Sequence[Finished]) -> None:
    """Warn of machines that round differently from the first: one of these alone might have given other last digits."""
    usual = shards[0].header.identity.numerics
    if other := [one for one in shards if one.header.identity.numerics != usual]:
        LOG.warning(
            "the networks round differently on %s than on %s: last digits may differ from one machine's",
            ", ".join(str(one.record["machine"]) for one in other),
            shards[0].record["machine"],
        )


def _record(options: Merge, shards: Sequence[Finished], started: str) -> dict[str, Any]:
    """What run.json says before the counts: what all shards share, and what each machine did."""
    first = shards[0].record
    unlike = {"out": str(options.out), "shard": None, "drift": options.drift, "history": _text(options.history)}
    cohort = {**first["cohort"], "patients": first["cohort"]["patients_in_table"]}
    return {
        "program": first["program"],
        "libraries": first["libraries"],
        "options": {**first["options"], **unlike},
        "reference_date_asked_for": first["reference_date_asked_for"],
        "machine": None,
        "shards": [
            {
                "shard": str(one.shard),
                "run": one.record["run"],
                "machine": one.record["machine"],
                "device": one.record["device"],
                "numerics": one.header.identity.numerics,
                "patients": one.record["patients"],
                "starts": one.record["starts"],
                "ended": one.record["ended"],
                "downgrades": one.record["downgrades"],
            }
            for one in shards
        ],
        "nodes": [],
        "cohort": cohort,
        "bundle": {**first["bundle"], "folder": str(options.bundle)},
        "device": None,
        "starts": [started],
        "kept_from_earlier_starts": 0,
        "started_over": "",
        "downgrades": [f"{one.shard}: {text}" for one in shards for text in one.record["downgrades"]],
    }


def _text(path: Path | None) -> str | None:
    return str(path) if path else None


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
