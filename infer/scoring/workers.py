"""How many processes decode pictures for the networks of one process."""

from infer.engine.sessions import CPU
from infer.pictures.pool import MOST_WORKERS

# On a CPU, the networks take several times as long per picture as decoding, so one decoding process serves this many.
PROCESSORS_A_WORKER = 4


def decoding_processes(provider: str | None, processors: int) -> int:
    """The default number of decoding processes: one per CPU if the networks do not need the CPUs.

    Args:
        provider: what the networks run on; None in a dry run, which has none.
        processors: CPUs for networks and decoding.
    """
    return min(-(-processors // (PROCESSORS_A_WORKER if provider == CPU else 1)), MOST_WORKERS)
