"""One run from options to exit code: check everything, score, then write the results."""

import contextlib
import datetime as dt
import logging
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from infer.cohort.patient import Cohort, Patient
from infer.engine.fallback import Engine
from infer.errors import FINISHED_WITH_FAILURES, ending_of, tables_are_complete
from infer.machine.times import iso
from infer.options import Options, is_inside
from infer.output.audit import what_ran
from infer.output.conclude import Terms, conclude
from infer.output.folder import check_folder, output_errors
from infer.output.journal import FORMAT, Header
from infer.output.kinds import FHIR
from infer.output.last_run import tell_last_run
from infer.output.messages import tell_end, tell_stopped, warn_of_dates, warn_of_patient
from infer.output.metrics import Metrics
from infer.output.names import no_file_at, no_file_in
from infer.output.pages import check_pages
from infer.output.progress import Progress
from infer.output.results import Results
from infer.output.summary import Summary
from infer.pictures.pool import MOST_WORKERS
from infer.ready import Ready, prepare, processors
from infer.scoring.cohort import score_patients
from infer.scoring.result import PatientResult
from infer.scoring.workers import decoding_processes

if TYPE_CHECKING:
    from infer.cluster.driver import Driver

LOG = logging.getLogger("lympho")


def run(options: Options) -> int:
    """Score a cohort and return the exit code, 0 or 3.

    The output folder is not touched before bundle, cohort and device have been checked, except for last_run.json.

    Raises:
        LymphoError: with the matching exit code; an earlier run's results stay, and finished patients are in the
            journal.
    """
    started = _now()
    metrics = Metrics(None if options.dry_run else options.metrics, started)
    try:
        code = _run(options, started, metrics)
    except BaseException as error:  # a signal, too; it goes on
        code, message = ending_of(error)
        if not options.dry_run and not is_inside(options.out, options.patients):
            tell_last_run(options.out, iso(started), iso(_now()), code, message)
        metrics.write(_now(), code)
        raise
    metrics.write(_now(), code)
    return code


def _run(options: Options, started: dt.datetime, metrics: Metrics) -> int:
    _check_metrics(options, metrics)
    write_pages, write_documents = _pages_writer(options), _documents_writer(options)
    cluster = _cluster(options)
    ready = prepare(options, started)
    if ready.past.problem:
        raise ready.past.problem
    metrics.bundle = ready.bundle.bundle_id
    if options.dry_run:
        return _dry_run(options, ready)
    header = Header(FORMAT, ready.identity, ready.date.isoformat())
    with cluster(ready) as driver, Results(options.out, header, iso(started), ready.past.stored) as results:
        tell_last_run(options.out, iso(started), None, None, "")
        try:
            code, reasons = _score_and_write(results, options, ready, driver, started, metrics)
        except BaseException:  # a signal, too
            tell_stopped(results.kept, len(ready.cohort.patients), finished=results.finished)
            raise
        try:
            documents = ", the documents with python -m infer.fhir" if options.fhir else ""
            with tables_are_complete(f"write the pages with python -m infer.report{documents}"):
                write_pages(ready)
            with tables_are_complete("write the documents with python -m infer.fhir"):
                write_documents(ready)
        finally:
            with tables_are_complete("only this run's line in the history is missing"):
                ready.watch.remember()
        tell_last_run(options.out, iso(started), iso(_now()), code, "; ".join(reasons))
    return code


def _dry_run(options: Options, ready: Ready) -> int:
    """A dry run: read and check everything, score nothing, and leave the output folder as it was."""
    check_folder(options.out, ready.past.stored)
    summary = Summary()
    for _ in _scored(ready.cohort, None, ready, options, summary):
        pass
    reasons = summary.failures(options.max_refused) if options.shard is None else []
    code = FINISHED_WITH_FAILURES if reasons else 0
    tell_end(summary, code, reasons, dry=True)
    return code


def _score_and_write(
    results: Results,
    options: Options,
    ready: Ready,
    driver: "Driver | None",
    started: dt.datetime,
    metrics: Metrics,
) -> tuple[int, list[str]]:
    """Score the remaining patients and write all results. Returns the exit code, and why it is 3."""
    cohort, engine, past, kept = ready.cohort, ready.engine, ready.past, ready.kept
    LOG.info("bundle %s, %d patients, %s", ready.bundle.short_id, len(cohort.patients), engine)
    if weak := ready.bundle.manifest.provenance.weak:
        LOG.warning("this bundle was exported although it is weak: %s", weak)
    if ready.scale != 1:
        LOG.info(
            "--pixel-size %g: pictures are rescaled by %.4g before they are cropped", options.pixel_size, ready.scale
        )
    if options.prevalence is not None:
        LOG.info("--prevalence %g: probabilities hold where so many patients are malignant", options.prevalence)
    if options.shard is not None:
        LOG.info("shard %s; once all are finished, make one run of them with python -m infer.merge", options.shard)
    if past.started_over:
        LOG.warning("starting over: %s", past.started_over)
    if past.stored:
        LOG.info("resuming: %d finished patients kept, ages are taken at %s", len(kept), ready.date)
    summary, metrics.scoring = metrics.summary, True
    for line, offset in kept.items():
        result = results.keep(line, offset)
        summary.add(result, line)
        ready.watch.add(result)
    rest = replace(cohort, patients=tuple(patient for patient in cohort.patients if patient.line not in kept))
    noted = 0  # downgrades already logged and in the journal
    downgrades = driver.downgrades if driver else engine.downgrades
    for line, result in _scored(rest, engine, ready, options, summary, driver):
        noted += _note(downgrades[noted:], results)
        results.write(line, result)
        ready.watch.add(result)
    _note(downgrades[noted:], results)
    record = {
        **what_ran(asdict(options), cohort, ready.bundle, engine, ready.date),
        "nodes": driver.nodes() if driver else [],
        "starts": [*(past.stored.starts if past.stored else ()), iso(started)],
        "kept_from_earlier_starts": len(kept),
        "started_over": past.started_over,
        "downgrades": [*(past.stored.downgrades if past.stored else ()), *downgrades],
    }
    terms = Terms(
        options.operating_point,
        ready.date,
        options.csv_dialect,
        options.max_refused,
        options.drift == "fail",
        judged=options.shard is None,
    )
    ended = conclude(results, cohort.patients, ready.bundle, terms, summary, ready.watch, record, iso(started))
    metrics.drift = ready.watch.changed
    return ended


def _pages_writer(options: Options) -> Callable[[Ready], None]:
    """What is done for --report once the tables are complete: nothing without it, not even an import."""
    if not options.report:
        return lambda _: None
    from infer.report.texts import Texts
    from infer.report.write import layout, write_report

    made, workers = layout(Texts(options.language)), min(processors(options), MOST_WORKERS)
    with output_errors(options.out):
        check_pages(options.out)
    return lambda ready: write_report(options.out, options.patients, ready.bundle, made, workers)


def _documents_writer(options: Options) -> Callable[[Ready], None]:
    """The same for --fhir."""
    if options.fhir is None or options.fhir_identifier_system is None:
        return lambda _: None
    from infer.fhir.asked import documents_writer

    workers = min(processors(options), MOST_WORKERS)
    pages_of = options.patients if options.report else None
    system = options.fhir_identifier_system
    write = documents_writer(options.fhir, system, options.codes, options.language, pages_of, workers)
    with output_errors(options.out):
        check_pages(options.out, FHIR)
    return lambda ready: write(options.out, ready.bundle)


def _check_metrics(options: Options, metrics: Metrics) -> None:
    """The file of --metrics lies where it harms nothing."""
    given = (options.history, options.annotations, options.codes)
    outside = (("the bundle", options.bundle), *no_file_in(options.out, options.patients))
    metrics.check(outside, (*no_file_at(options.out), *(path for path in given if path is not None)))


def _note(downgrades: list[str], results: Results) -> int:
    for downgrade in downgrades:
        LOG.warning("%s", downgrade)
        results.note(downgrade)
    return len(downgrades)


def _scored(
    cohort: Cohort,
    engine: Engine | None,
    ready: Ready,
    options: Options,
    summary: Summary,
    driver: "Driver | None" = None,
) -> Iterator[tuple[int, PatientResult]]:
    """Score the cohort, count and log: yields each patient's line in the table and its result.

    In the table's order, or with a driver as the cluster finishes them.
    """
    warn_of_dates(cohort)
    progress = Progress(len(cohort.patients))
    manifest = ready.bundle.manifest
    scored = driver.score(cohort.patients) if driver else _scored_here(cohort, engine, ready, options)
    with contextlib.closing(scored):
        for patient, result in scored:
            summary.add(result, patient.line)
            warn_of_patient(result, manifest.drift)
            progress.advance(len(result.images))
            yield patient.line, result


def _scored_here(
    cohort: Cohort, engine: Engine | None, ready: Ready, options: Options
) -> Generator[tuple[Patient, PatientResult], None, None]:
    """Score in this process: yields each patient and its result, in the table's order."""
    scored = score_patients(
        cohort.folder,
        cohort.patients,
        engine,
        ready.bundle.manifest,
        options.operating_point,
        options.workers or decoding_processes(engine.device.provider if engine else None, processors(options)),
        options.settle,
        scale=ready.scale,
        ood=options.ood,
    )
    with contextlib.closing(scored):
        yield from zip(cohort.patients, scored, strict=True)


def _cluster(options: Options) -> Callable[[Ready], contextlib.AbstractContextManager["Driver | None"]]:
    """What joins a cluster for --ray once all has been checked: nothing without it, not even an import."""
    if options.ray is None:
        return lambda _: contextlib.nullcontext()
    from infer.cluster.connect import check_ray
    from infer.cluster.start import driving

    check_ray(options.ray)
    return lambda ready: driving(options, ready.bundle, ready.cohort, ready.identity, ready.scale)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
