"""Nested results taken over from an earlier bundle of the same training: exporting it anew needs no new evaluation."""

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec

from infer.bundle.load import CARD, CHECKSUMS
from infer.bundle.manifest import MANIFEST, Manifest
from infer.errors import UsageError

BEGIN, END = "### Nested evaluation\n", "\n### Out of fold"
SAME_PROVENANCE = ("table_sha256", "seed", "recipe", "reference_date", "data_summary", "options")
SAME_ENSEMBLE = ("calibration", "weights", "operating_points")


def nested_of(earlier: Path, manifest: Manifest) -> list[str]:
    """The card's section on nested results, from the card of an earlier bundle of any schema.

    Args:
        earlier: the bundle. All that the results depend on must be the same to the last digit: patients, numbers, seed,
            and the calibration, weights and thresholds that came out.

    Raises:
        UsageError: it is damaged, has no nested results, or is of another training; the message names what differs.
    """
    files = {name: _read(earlier / name) for name in (MANIFEST, CARD, CHECKSUMS)}
    for name in (MANIFEST, CARD):
        if f"{_digest(files[name])}  {name}\n" not in files[CHECKSUMS].decode():
            raise UsageError(
                f"{earlier / name}: was changed after it was exported ({CHECKSUMS}). Copy the bundle again"
            )
    before, now = json.loads(files[MANIFEST]), msgspec.to_builtins(manifest)
    different = _different(before, now)
    if different:
        raise UsageError(f"{earlier}: is of another training: another {', '.join(different)}. Evaluate this one anew")
    found = _section(files[CARD].decode())
    if not found or found.startswith("Not available"):
        raise UsageError(f"{earlier / CARD}: has no nested results. Run `python -m train evaluate --protocol nested`")
    return ["### Nested evaluation", _words(_digest(files[MANIFEST]), before, now), *found.split("\n\n")]


def _different(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What results depend on and is not the same."""
    pairs = (("provenance", SAME_PROVENANCE), ("ensemble", SAME_ENSEMBLE))
    return [name for section, names in pairs for name in names if before[section][name] != now[section][name]]


def _section(card: str) -> str:
    return card.partition(BEGIN)[2].partition(END)[0].strip()


def _words(bundle_id: str, before: dict[str, Any], now: dict[str, Any]) -> str:
    said = (
        f"Taken over from bundle {bundle_id[:12]}: an earlier export of the same training, with the same patients, "
        "numbers and seed, and to the last digit the same calibration, weights and thresholds."
    )
    bound = "disagreement"
    if before["ensemble"].get(bound) != now["ensemble"].get(bound):
        said += " Decisions in it are by thresholds alone: the bound on the members' disagreement is newer."
    return said


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}). Give the folder of an earlier bundle") from error


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
