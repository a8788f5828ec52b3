"""A shard of a cohort: the patients that one of several machines scores."""

import hashlib
import re
from dataclasses import dataclass, replace

from infer.cohort.patient import Cohort
from infer.errors import UsageError

MOST_SHARDS = 100_000  # an Indexed Job of Kubernetes has no more


@dataclass(frozen=True)
class Shard:
    """Shard `index` of `of`, counted from 0 as Kubernetes and Slurm count theirs."""

    index: int
    of: int

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"

    def holds(self, patient_id: str) -> bool:
        """Whether a patient belongs to this shard: by the SHA-256 of the ID, so that no machine asks another."""
        digest = hashlib.sha256(patient_id.encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") % self.of == self.index


def parse_shard(text: str) -> Shard:
    """Read `I/N`, I from 0 to N - 1.

    Raises:
        UsageError: it is none.
    """
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
    shard = Shard(int(found[1]), int(found[2])) if found else Shard(0, 0)
    if not 0 <= shard.index < shard.of <= MOST_SHARDS:
        raise UsageError(
            f"--shard {text}: must be I/N, such as 0/20 to 19/20 on 20 machines, and N at most {MOST_SHARDS}"
        )
    return shard


def shard_of(cohort: Cohort, shard: Shard) -> Cohort:
    """The cohort with the shard's patients alone, in the table's order."""
    return replace(cohort, patients=tuple(one for one in cohort.patients if shard.holds(one.patient_id)))
