"""The digest of the program in run.json and the journal."""

from pathlib import Path

import pytest

import infer
from infer.output.audit import program_digest


def test_the_programs_digest_covers_every_module_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a changed program would resume an old journal."""
    deep = tmp_path / "rooms" / "deeper"
    deep.mkdir(parents=True)
    for path in (tmp_path / "__init__.py", tmp_path / "rooms" / "top.py", deep / "module.py"):
        path.write_text("one = 1\n")
    monkeypatch.setattr(infer, "__file__", str(tmp_path / "__init__.py"))
    digests = [program_digest()]
    assert program_digest() == digests[0]
    (tmp_path / "notes.txt").write_text("no module")
    assert program_digest() == digests[0]
    (deep / "module.py").write_text("one = 2\n")
    digests.append(program_digest())
    (deep / "module.py").rename(deep / "other.py")
    digests.append(program_digest())
    (deep / "other.py").rename(tmp_path / "rooms" / "other.py")
    digests.append(program_digest())
    assert len(set(digests)) == 4


def test_the_digest_is_of_this_package() -> None:
    modules = [path.relative_to(Path(infer.__file__).parent) for path in Path(infer.__file__).parent.rglob("*.py")]
    assert Path("pictures/decode.py") in modules
    assert len(program_digest()) == 12
