"""Which bundle a finished run used, and whether the one at hand is that."""

from pathlib import Path

from infer.bundle.load import Bundle
from infer.errors import UsageError
from infer.output.journal import Identity
from infer.scoring.prevalence import bundle_at


def as_used(out: Path, bundle: Bundle, identity: Identity) -> Bundle:
    """The bundle with the prevalence that the run in OUT scored at.

    Args:
        bundle: as it is on the disk.
        identity: of the run.

    Raises:
        UsageError: the run used another bundle.
    """
    if bundle.bundle_id != identity.bundle:
        raise UsageError(
            f"--bundle {bundle.folder}: is {bundle.short_id}, but {out} was scored with {identity.bundle[:12]}. Give "
            "that one"
        )
    return bundle_at(bundle, identity.prevalence)
