"""Nested results taken over from an earlier bundle's card: of the same training, or not at all."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from export.card.earlier import nested_of
from infer.bundle.load import CARD, CHECKSUMS, REFERENCE, checksums
from infer.bundle.manifest import MANIFEST, Manifest, decode
from infer.errors import UsageError
from tests.infer.runs import TINY

SECTION = "This evaluates the procedure.\n\n| model | AUC |\n|---|---|\n| ensemble | .9 |\n\nAnd so on."


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """The tiny bundle with nested results in its card."""
    folder = tmp_path / "earlier"
    shutil.copytree(TINY, folder)
    (folder / CARD).write_text(f"# Model card\n\n### Nested evaluation\n\n{SECTION}\n\n### Out of fold\n\nOthers.\n")
    seal(folder)
    return folder


def seal(folder: Path) -> None:
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != CHECKSUMS}
    (folder / CHECKSUMS).write_bytes(checksums(files))


def manifest() -> Manifest:
    return decode((TINY / MANIFEST).read_bytes(), MANIFEST)


def test_the_section_is_taken_as_it_stands_and_says_from_where(earlier: Path) -> None:
    bundle = hashlib.sha256((earlier / MANIFEST).read_bytes()).hexdigest()[:12]
    heading, origin, *rest = nested_of(earlier, manifest())
    assert heading == "### Nested evaluation"
    assert origin.startswith(f"Taken over from bundle {bundle}: an earlier export of the same training")
    assert "bound" not in origin
    assert "\n\n".join(rest) == SECTION


def test_a_newer_bound_on_disagreement_is_told(earlier: Path) -> None:
    change(earlier, lambda of: of["ensemble"].update(disagreement=0.5))
    assert nested_of(earlier, manifest())[1].endswith("the bound on the members' disagreement is newer.")


def change(folder: Path, how: Callable[[dict[str, Any]], None]) -> None:
    of = json.loads((folder / MANIFEST).read_text())
    how(of)
    (folder / MANIFEST).write_text(json.dumps(of))
    seal(folder)


def in_provenance(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda of: of["provenance"].update({name: value})


def in_ensemble(name: str, key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda of: of["ensemble"][name].update({key: value})


@pytest.mark.parametrize(
    ("how", "named"),
    [
        (in_provenance("table_sha256", "0"), "table_sha256"),
        (in_provenance("seed", 7), "seed"),
        (in_provenance("options", {}), "options"),
        (in_ensemble("weights", "moe", 0.123), "weights"),
        (in_ensemble("operating_points", "balanced", {"refer_low": 0.1, "refer_high": 0.2}), "operating_points"),
    ],
)
def test_another_training_is_refused(earlier: Path, how: Callable[[dict[str, Any]], None], named: str) -> None:
    change(earlier, how)
    with pytest.raises(UsageError, match=f"is of another training: another {named}"):
        nested_of(earlier, manifest())


def test_of_another_schema_is_no_matter(earlier: Path) -> None:
    change(earlier, lambda of: of.update(schema=1, unknown="x"))
    assert nested_of(earlier, manifest())[2] == "This evaluates the procedure."


def test_a_card_that_was_changed_or_has_no_such_results_is_refused(earlier: Path) -> None:
    text = (earlier / CARD).read_text()
    (earlier / CARD).write_text(text.replace(".9", ".99"))
    with pytest.raises(UsageError, match="was changed after it was exported"):
        nested_of(earlier, manifest())
    for section in ("Not available for this bundle.", ""):
        (earlier / CARD).write_text(text.replace(SECTION, section))
        seal(earlier)
        with pytest.raises(UsageError, match="has no nested results"):
            nested_of(earlier, manifest())
    with pytest.raises(UsageError, match="cannot be read"):
        nested_of(earlier / "nowhere", manifest())


def test_the_bundle_that_ships_has_nested_results() -> None:
    """Whether evaluated for it or taken over."""
    shipped = decode((REFERENCE / MANIFEST).read_bytes(), MANIFEST)
    assert any("5 outer folds" in part for part in nested_of(REFERENCE, shipped))
