"""What a run needs of a cluster: the cluster joined, and a driver that knows what to do there."""

import contextlib
from collections.abc import Iterator

from infer.bundle.load import Bundle
from infer.cluster.connect import joined
from infer.cluster.driver import Driver
from infer.cluster.work import Work
from infer.cohort.patient import Cohort
from infer.errors import UsageError
from infer.options import Options
from infer.output.journal import Identity


@contextlib.contextmanager
def driving(options: Options, bundle: Bundle, cohort: Cohort, identity: Identity, scale: float) -> Iterator[Driver]:
    """Join the cluster of --ray for the block.

    Args:
        bundle: as the run uses it.
        identity: with the digest of how this process rounds.
        scale: by which pictures are rescaled before they are cropped.

    Raises:
        UsageError: there is no such cluster.
    """
    if options.ray is None:
        raise UsageError("--ray: is not given")
    work = Work(
        patients=options.patients.absolute(),
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
        yield Driver(ray, work, bundle.manifest, options.threads, identity.numerics)
