"""The end of a run whose patients are all there: drift, exit code, run.json and the tables."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from infer.bundle.load import Bundle
from infer.bundle.manifest import load_members
from infer.errors import EXIT_MEANING, FINISHED_WITH_FAILURES
from infer.machine.times import iso
from infer.output.columns import Basis
from infer.output.csv import DIALECTS, ImagesWriter, PredictionsWriter
from infer.output.messages import tell_drift, tell_end
from infer.output.results import Results, Row
from infer.output.summary import Summary
from infer.output.watch import Watch


@dataclass(frozen=True)
class Terms:
    """How a run is judged and written."""

    operating_point: str
    date: dt.date  # at which ages were taken
    csv_dialect: str = "plain"
    max_refused: float = 0.5
    drift_fails: bool = False
    judged: bool = True  # false in a shard: the merge judges


def conclude(
    results: Results,
    patients: Sequence[Row],
    bundle: Bundle,
    terms: Terms,
    summary: Summary,
    watch: Watch,
    record: dict[str, Any],
    started: str,
) -> tuple[int, list[str]]:
    """Judge the run and write all files. Returns the exit code, and why it is 3.

    Args:
        patients: all of them, in the table's order; their results are in `results`.
        record: what run.json says before the counts.
        started: ISO time of this start.

    Raises:
        OutputError: as `Results.finish`.
    """
    drift = watch.compare(started)
    tell_drift(watch.said)
    reasons = summary.failures(terms.max_refused) if terms.judged else []
    if watch.changed and terms.drift_fails:
        reasons.append("drift was found (--drift fail)")
    code = FINISHED_WITH_FAILURES if reasons else 0
    tell_end(summary, code, reasons)
    ended = dt.datetime.now(dt.UTC)
    record = {
        **record,
        "ended": iso(ended),
        **summary.as_record(),
        "drift": {"changed": watch.changed, "sentences": [sentence for sentence, _ in watch.said]},
        "exit_code": code,
        "exit_meaning": EXIT_MEANING[code],
        "exit_reasons": reasons,
    }
    ensemble = bundle.manifest.ensemble
    point = ensemble.operating_points[terms.operating_point]
    day = ended.date().isoformat()
    basis = Basis(bundle.short_id, point, terms.date.isoformat(), day, ensemble.disagreement)
    members, dialect = load_members(bundle.manifest), DIALECTS[terms.csv_dialect]
    writers = (PredictionsWriter(members, basis, dialect), ImagesWriter(members, dialect))
    results.finish(record, drift, patients, writers)
    return code, reasons
