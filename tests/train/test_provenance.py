"""A run folder records its provenance."""

import json
from pathlib import Path

import pytest
import torch

import train
from infer import __version__
from train.core import provenance
from train.core.provenance import code_digest, code_note, record_call

CPU = torch.device("cpu")


def test_each_call_leaves_a_line(tmp_path: Path) -> None:
    record_call(tmp_path, {"seed": 4, "recipe": "small"}, CPU)
    record_call(tmp_path, {"seed": 4, "recipe": "small"}, CPU)
    lines = [json.loads(line) for line in (tmp_path / "calls.jsonl").read_text().splitlines()]
    assert len(lines) == 2
    assert lines[0]["seed"] == 4
    assert lines[0]["code_version"] == __version__
    assert lines[0]["code_sha256"] == code_digest() == lines[1]["code_sha256"]
    assert lines[0]["packages"]["torch"] == torch.__version__.split("+")[0]
    assert lines[0]["device"].startswith("cpu")
    assert lines[0]["started"] <= lines[1]["started"]


def test_a_package_that_is_not_installed_has_no_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "PACKAGES", ("torch", "no-such-package"))
    record_call(tmp_path, {}, CPU)
    packages = json.loads((tmp_path / "calls.jsonl").read_text())["packages"]
    assert packages == {"torch": torch.__version__.split("+")[0], "no-such-package": None}


def test_other_code_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    record_call(tmp_path, {}, CPU)
    record_call(tmp_path, {}, CPU)
    assert not caplog.text
    monkeypatch.setattr(provenance, "code_digest", lambda: "other")
    record_call(tmp_path, {}, CPU)
    assert "a different code version was used here before" in caplog.text
    caplog.clear()
    record_call(tmp_path, {}, CPU)  # the warning is repeated: the folder still has results of both versions
    assert "a different code version was used here before" in caplog.text


def test_a_cut_line_does_not_close_the_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    record_call(tmp_path, {}, CPU)
    with (tmp_path / "calls.jsonl").open("a") as file:
        file.write('{"started": "2026\n')
    record_call(tmp_path, {}, CPU)
    assert "calls.jsonl: a line cannot be read" in caplog.text
    assert len((tmp_path / "calls.jsonl").read_text().splitlines()) == 3


def test_figures_of_several_codes_say_so(tmp_path: Path) -> None:
    record_call(tmp_path, {}, CPU)
    assert code_note(tmp_path) == code_digest()[:12]
    with (tmp_path / "calls.jsonl").open("a") as file:
        file.write(json.dumps({"code_sha256": "0" * 64}) + "\n")
    assert code_note(tmp_path).startswith(
        "2 versions, predictions of earlier ones may be among the figures: 000000000000"
    )


def test_the_digest_changes_with_any_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "train"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "deep").mkdir()
    module = package / "deep" / "module.py"
    module.write_text("a = 1\n")
    monkeypatch.setattr(train, "__file__", str(package / "__init__.py"))
    before = code_digest()
    assert code_digest() == before
    module.write_text("a = 2\n")
    changed = code_digest()
    assert changed != before
    module.rename(package / "deep" / "other.py")
    assert code_digest() not in (before, changed)
