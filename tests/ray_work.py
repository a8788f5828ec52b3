"""What a driver tells its actors of a cohort, for tests and the benchmark of --ray."""

import json

from infer import __version__
from infer.bundle.load import Bundle
from infer.cluster.work import Work
from infer.cohort.patient import Cohort
from infer.output.audit import libraries, program_digest


def work_of(cohort: Cohort, bundle: Bundle) -> Work:
    """On the CPU, one decoding process, everything else as it is without options."""
    return Work(
        patients=cohort.folder.absolute(),
        some_folders=(cohort.patients[0].patient_id,),
        table=cohort.table.absolute(),
        table_sha256=cohort.table_sha256,
        bundle=bundle.folder,
        bundle_id=bundle.bundle_id,
        code=f"{__version__} {program_digest()}",
        libraries=json.dumps(libraries()),
        device="cpu",
        operating_point="balanced",
        prevalence=None,
        batch_size=None,
        workers=1,
        settle=0.0,
        ood="refer",
        scale=1.0,
    )
