"""`make gpu-check` where there is no GPU: it says so, and the check itself is rehearsed on the CPU."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from infer.bundle.load import Bundle
from tests.gpu.check import ROOT, said
from tests.gpu.cohort import compared, problems_of
from tests.gpu_check import REPORT, STEPS, run_step
from tests.infer.runs import TINY, Outcome


def check(folder: Path, *options: str) -> tuple[int, str, dict[str, Any]]:
    """Exit code, output and report of a check on a machine whose GPUs, if any, are hidden."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.gpu_check", str(folder), *options],
        cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    path = folder / REPORT
    return ended.returncode, ended.stdout + ended.stderr, json.loads(path.read_text()) if path.exists() else {}


def test_without_a_gpu_it_ends_with_6_and_says_so(tmp_path: Path) -> None:
    code, printed, report = check(tmp_path / "check")
    assert (code, report["exit_code"]) == (6, 6)
    assert report["not_run"] == [name for name in STEPS if name != "facts"]
    facts = report["steps"]["facts"]
    assert (facts["ok"], facts["exit_code"]) == (False, 6)
    assert facts["reason"].startswith("--device cuda: ")
    assert facts["reason"][:80] in printed
    assert facts["found"]["bundle"]["precisions"] == ["float32", "int8"]


def test_a_damaged_bundle_ends_it_with_5(tmp_path: Path) -> None:
    shutil.copytree(TINY, tmp_path / "bundle")
    (tmp_path / "bundle/scan.onnx").write_bytes(b"no graph")
    code, _, report = check(tmp_path / "check", "--bundle", str(tmp_path / "bundle"))
    assert code == 5
    assert "scan.onnx: does not match its checksum" in report["steps"]["facts"]["reason"]


def test_steps_are_rehearsed_on_the_processor(pristine: Path, tmp_path: Path) -> None:
    steps = ["--step", "self-test", "--step", "cohort", "--step", "memory"]
    code, printed, report = check(tmp_path, "--rehearse", *steps, "--bundle", str(TINY), "--patients", str(pristine))
    assert code == 0, printed
    assert {name: step["ok"] for name, step in report["steps"].items()} == dict.fromkeys(
        ("facts", "self-test", "cohort", "memory"), True
    )
    outputs = report["steps"]["self-test"]["found"]["float32"]["outputs"]
    assert all(one["difference"] <= one["tolerance"] for one in outputs.values())
    found = report["steps"]["cohort"]["found"]
    assert found["gpu and cpu"]["patients"] == 6
    assert set(found["gpu and cpu"]["largest_differences"].values()) == {0.0}
    assert found["gpu twice, the same bytes"] is True


def test_another_folder_is_not_overwritten(pristine: Path, tmp_path: Path) -> None:
    shutil.copytree(pristine, tmp_path / "patients")
    code, printed, _ = check(tmp_path / "patients")
    assert code == 2
    assert "is no earlier check's" in printed
    assert (tmp_path / "patients/S001").is_dir()


def test_a_step_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    step = run_step("cohort", tmp_path, ["--rehearse"], 1)
    assert (step.ok, step.reason) == (False, "took longer than 1 seconds")
    assert step.seconds < 10


def test_what_two_runs_differ_in_is_found(plain: Outcome, bundle: Bundle, tmp_path: Path) -> None:
    points = bundle.manifest.ensemble.operating_points
    same = compared(plain.out, plain.out, points)
    assert (same["patients"], same["statuses_changed"], same["cell_classes_changed"]) == (6, 0, 0)
    assert problems_of(same, 0) == []
    shutil.copytree(plain.out, tmp_path / "out")
    first, second = list(plain.predictions.values())[:2]
    text = (tmp_path / "out/predictions.csv").read_text()
    low, high = points["balanced"].refer_low, points["balanced"].refer_high
    other = high + 0.01 if float(first["probability_malignant"]) < high else low - 0.01
    text = text.replace(f",{first['probability_malignant']},", f",{other:.6f},")
    text = text.replace(f"{second['patient_id']},scored", f"{second['patient_id']},failed")
    (tmp_path / "out/predictions.csv").write_text(text)
    found = compared(plain.out, tmp_path / "out", points)
    assert found["statuses_changed"] == 1
    assert found["decisions_changed"]["balanced"] == 1
    change = abs(other - float(first["probability_malignant"]))
    assert abs(found["largest_differences"]["probability_malignant"] - change) < 1e-5
    problems = problems_of(found, 0.001)
    assert problems[0] == "1 statuses differ"
    assert problems[1].startswith("probabilities differ by up to ")
    assert "1 decisions differ at balanced" in problems


def test_the_error_is_found_in_what_a_program_said() -> None:
    assert said("2026-01-01 INFO a\nError: no room\n2026-01-01 INFO b\n") == "no room"
    assert said("Traceback\nRuntimeError: x\n\n") == "RuntimeError: x"
    assert said("") == ""
