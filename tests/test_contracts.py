"""Import rules. Runs in the full environment: in the lean one the forbidden packages are not installed."""

import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import infer

ROOT = Path(__file__).parents[1]
NEVER_IN_THE_RUNTIME = ("torch", "torchvision", "sklearn", "pandas", "scipy", "onnx", "train", "export")


def python(program: str, **environment: str) -> str:
    line = [sys.executable, "-c", program]
    done = subprocess.run(line, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=True)
    return done.stdout


def test_the_import_contracts_hold() -> None:
    tool = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([str(tool), "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Contracts: 6 kept, 0 broken." in done.stdout


def test_all_of_infer_loads_without_training_libraries() -> None:
    modules = [
        module.name for module in pkgutil.walk_packages(infer.__path__, "infer.") if module.name != "infer.__main__"
    ]
    assert {"infer.run", "infer.pictures.worker", "infer.members.naive_bayes"} <= set(modules)
    program = f"import importlib, json, sys\nfor name in {modules}: importlib.import_module(name)\n"
    loaded = json.loads(python(f"{program}print(json.dumps(sorted(sys.modules)))"))
    assert "onnxruntime" in loaded
    assert [name for name in loaded if name.partition(".")[0] in NEVER_IN_THE_RUNTIME] == []


def test_the_training_libraries_are_here_to_be_found() -> None:
    """Otherwise the test above would pass in an environment without them."""
    found = python(f"import importlib.util as u; print([n for n in {NEVER_IN_THE_RUNTIME} if not u.find_spec(n)])")
    assert found.strip() == "[]"


def test_nothing_can_switch_onnxruntimes_telemetry_on_again() -> None:
    program = "import infer, os, sys; print(os.environ['ORT_DISABLE_TELEMETRY'], 'onnxruntime' in sys.modules)"
    assert python(program, ORT_DISABLE_TELEMETRY="0").split() == ["1", "False"]
