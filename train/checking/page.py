"""The check as one HTML page: no script, nothing from outside."""

from collections.abc import Sequence
from pathlib import Path

from infer.errors import LymphoError, UsageError
from infer.machine.times import in_words
from train.checking.check import Checked
from train.checking.finding import Severity
from train.checking.timing import total
from train.core.files import write_text
from train.core.html import environment

TEMPLATES = Path(__file__).parent / "templates"
NAME, GENERATOR = "check.html", "lympho train check"


def place(out: Path, patients: Path) -> Path:
    """The page's file: OUT, or check.html in it if it is a folder.

    Raises:
        UsageError: it lies among the patients, or is something else than an earlier check.
    """
    path = out if out.suffix.lower() in (".html", ".htm") and not out.is_dir() else out / NAME
    if path.resolve().is_relative_to(patients.resolve()):
        raise UsageError(f"{path}: lies inside the cohort, which is never written to. Name another file with --out")
    if path.exists() and not _is_check(path):
        raise UsageError(f"{path}: is something else than an earlier check. Name another file with --out")
    return path


def write(checked: Checked, path: Path, facts: Sequence[tuple[str, str]]) -> None:
    """Write the page.

    Raises:
        LymphoError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, render(checked, facts))
    except OSError as error:
        raise LymphoError(f"{path}: cannot be written ({error.strerror}). Name another file with --out") from error


def render(checked: Checked, facts: Sequence[tuple[str, str]]) -> str:
    """The page.

    Args:
        facts: title and value of each fact about patients and program.
    """
    sums = total(list(checked.times)) if checked.times else {}
    rows = [[one.stage, *map(in_words, one.seconds.values())] for one in checked.times]
    return (
        environment(TEMPLATES)
        .get_template("check.html.j2")
        .render(
            generator=GENERATOR,
            verdict=verdict(checked),
            sections=[(severity.value, checked.of(severity)) for severity in Severity],
            recipes=[f"Recipe {name}" for name in sums],
            times=[*rows, ["all", *map(in_words, sums.values())]] if rows else [],
            facts=facts,
        )
    )


def verdict(checked: Checked) -> str:
    """Whether a training may begin, in a sentence."""
    if checked.of(Severity.CORRECT):
        return "Training would fail or deceive: first correct what is listed."
    if checked.of(Severity.LOOK):
        return "Training can begin. Look at what is listed first: it may spoil what the models learn."
    return "Training can begin: nothing was found that speaks against it."


def _is_check(path: Path) -> bool:
    try:
        return GENERATOR in path.read_text(encoding="utf-8", errors="replace")[:2000]
    except OSError:
        return False
