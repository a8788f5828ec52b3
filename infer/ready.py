"""Everything that a run loads and checks before it scores: options, bundle, cohort, device, an unfinished run."""

import datetime as dt
import json
import logging
from dataclasses import dataclass, replace

from infer import __version__
from infer.bundle.load import Bundle, load_bundle
from infer.cohort.patient import Cohort
from infer.cohort.patients import read_cohort
from infer.cohort.sexes import parse_sex_codes
from infer.cohort.shard import parse_shard, shard_of
from infer.engine.fallback import Engine
from infer.engine.networks import smallest_graph
from infer.engine.sessions import choose_device
from infer.errors import UsageError
from infer.machine.processors import available_processors
from infer.options import Options, check_adapted, check_options, picture_scale
from infer.output.audit import libraries, program_digest
from infer.output.journal import Identity
from infer.output.lock import check_free
from infer.output.names import no_file_at, no_file_in
from infer.output.resume import Past, find_past, unchanged
from infer.output.watch import Watch
from infer.pictures.pool import MOST_WORKERS
from infer.scoring.prevalence import bundle_at

LOG = logging.getLogger("lympho")


@dataclass(frozen=True)
class Ready:
    """Everything that was loaded and checked before scoring."""

    bundle: Bundle
    cohort: Cohort
    engine: Engine
    identity: Identity
    date: dt.date  # at which ages are taken
    scale: float  # by which pictures are rescaled before they are cropped; 1: not at all
    watch: Watch
    past: Past
    kept: dict[int, int]  # patients kept from an earlier start: line in the table -> offset in the journal


def prepare(options: Options, started: dt.datetime) -> Ready:
    """Check options, bundle, cohort and device, in this order, and look for an unfinished run to resume."""
    check_options(options)
    check_free(options.out)
    bundle = bundle_at(load_bundle(options.bundle), options.prevalence)
    check_adapted(options.pixel_size, bundle.manifest.adapted)
    scale = picture_scale(options.pixel_size, bundle.manifest.magnification)
    points = bundle.manifest.ensemble.operating_points
    if options.operating_point not in points:
        raise UsageError(
            f"--operating-point {options.operating_point}: not in this bundle. Choose from {', '.join(sorted(points))}"
        )
    outside, others = no_file_in(options.out, options.patients), no_file_at(options.out)
    watch = Watch(bundle, points[options.operating_point], options.history, outside, others)
    asked = Identity(
        code=f"{__version__} {program_digest()}",
        libraries=json.dumps(libraries()),
        bundle=bundle.bundle_id,
        operating_point=options.operating_point,
        reference_date=options.reference_date.isoformat() if options.reference_date else None,
        date_format=options.date_format,
        sample_date_format=options.sample_date_format,
        sex_codes=options.sex_codes,
        pixel_size=options.pixel_size,
        ood=options.ood,
        prevalence=options.prevalence,
        shard=options.shard,
        numerics="",
    )
    past = find_past(options.out, asked, fresh=options.fresh)
    today = options.reference_date or started.date()
    date = dt.date.fromisoformat(past.stored.header.date) if past.stored else today
    cohort = _read_cohort(options, bundle, date, started.date())
    device = choose_device(options.device, smallest_graph(bundle))
    engine = Engine(bundle, device, options.batch_size, processors(options))
    identity = replace(asked, numerics=engine.run_self_test())
    past = past.if_same(identity)
    kept = _kept(cohort, past, options)
    if past.stored and not kept:
        past = Past(started_over="no finished patient of the unfinished run is unchanged")
    if past.stored is None and date != today:  # the first start's date holds only for results that are kept
        date, cohort = today, _read_cohort(options, bundle, today, started.date())
    return Ready(bundle, cohort, engine, identity, date, scale, watch, past, kept)


def _read_cohort(options: Options, bundle: Bundle, date: dt.date, today: dt.date) -> Cohort:
    cohort = read_cohort(
        options.patients,
        bundle.manifest.plausible,
        annotations=options.annotations,
        reference_date=date,
        date_format=options.date_format,
        sample_date_format=options.sample_date_format,
        sex_codes=parse_sex_codes(options.sex_codes) if options.sex_codes is not None else None,
        today=today,
    )
    return shard_of(cohort, parse_shard(options.shard)) if options.shard is not None else cohort


def _kept(cohort: Cohort, past: Past, options: Options) -> dict[int, int]:
    """Patients finished by an earlier start and unchanged since: line in the table -> offset in the journal."""
    if past.stored is None:
        return {}
    LOG.info("resuming: checking the pictures of %d finished patients for changes", len(past.stored.places))
    readers = options.workers or min(processors(options), MOST_WORKERS)
    return unchanged(cohort, past.stored.places, readers, options.settle)


def processors(options: Options) -> int:
    return options.threads or available_processors()
