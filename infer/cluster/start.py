"""What a run needs of a cluster: the cluster joined, and a driver that knows what to do there."""

import contextlib
from collections.abc import Iterator

from infer.bundle.load import Bundle
from infer.cluster.connect import joined
from infer.cluster.driver import Driver
from infer.cluster.work import Work, some_of
from infer.cohort.patient import Cohort
from infer.errors import UsageError
from infer.options import Options
from infer.output.journal import Identity

SOME = 16  # patients whose folders an actor looks for


@contextlib.contextmanager
def driving(options: Options, bundle: Bundle, cohort: Cohort, identity: Identity, scale: float) -> Iterator[Driver]:
    """Join the cluster of --ray for the block.

    Args:
        bundle: as the run uses it.
        identity: with the digest of how this process rounds.
        scale: by which pictures are rescaled before they are cropped.

    Raises:
        UsageError, WorkerError: as `joined`.
    """
    if options.ray is None:
        raise UsageError("--ray: is not given")
    work = Work(
        patients=options.patients.absolute(),
        some_folders=_some_folders(cohort),
        table=cohort.table.absolute(),
        table_sha256=cohort.table_sha256,
        bundle=options.bundle.absolute(),
        bundle_id=bundle.bundle_id,
        code=identity.code,
        libraries=identity.libraries,
        device=options.device,
        operating_point=options.operating_point,
        prevalence=options.prevalence,
        batch_size=options.batch_size,
        workers=options.workers,
        settle=options.settle,
        ood=options.ood,
        scale=scale,
    )
    with joined(options.ray) as ray:
        head = ray.get_runtime_context().gcs_address
        yield Driver(ray, work, bundle.manifest, options.threads, identity.numerics, head)


def _some_folders(cohort: Cohort) -> tuple[str, ...]:
    """Some patients, spread over the table, who have a folder here: a node that has none of them sees another share."""
    patients = [patient for patient in cohort.patients if patient.verdict is None]
    some = patients[:: max(len(patients) // SOME, 1)][:SOME]
    return some_of(cohort.folder, (one.patient_id for one in some))
