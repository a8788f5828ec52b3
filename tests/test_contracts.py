"""Import rules. Runs in the full environment: in the lean one the forbidden packages are not installed."""

import json
import os
import pkgutil
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import infer

ROOT = Path(__file__).parents[1]
NEVER_IN_THE_RUNTIME = ("torch", "torchvision", "sklearn", "pandas", "scipy", "onnx", "train", "export")
MAKEFILE = (ROOT / "Makefile").read_text()
RUN_WITH_WHAT_SHIPS = re.findall(r"\$\(RUNTIME\) -m (\S+)", MAKEFILE)


def python(program: str, **environment: str) -> str:
    line = [sys.executable, "-c", program]
    done = subprocess.run(line, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=True)
    return done.stdout


def test_the_import_contracts_hold() -> None:
    tool = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([str(tool), "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Contracts: 7 kept, 0 broken." in done.stdout


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


def one_name(distribution: str) -> str:
    """A distribution's name as all of its spellings are compared."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def not_in_what_ships() -> list[str]:
    """Modules and packages that are installed here, and not by infer/requirements.txt."""
    lock = (ROOT / "infer/requirements.txt").read_text()
    ships = {one_name(found) for found in re.findall(r"^([\w.-]+)==", lock, re.MULTILINE)}
    installed = {name: {one_name(of) for of in who} for name, who in packages_distributions().items()}
    # Some distributions bring a package `tests`, but here that is the project's own.
    return sorted(name for name, who in installed.items() if not who & ships and not (ROOT / name).is_dir())


def test_all_that_make_runs_with_what_ships_is_looked_at() -> None:
    assert MAKEFILE.count("$(RUNTIME)") == len(RUN_WITH_WHAT_SHIPS)
    assert {"tests.demo", "tests.soak"} <= set(RUN_WITH_WHAT_SHIPS)
    assert {"pytest", "_pytest", "hypothesis", "torch"} <= set(not_in_what_ships())
    assert {"click", "google", "numpy", "onnxruntime", "PIL"}.isdisjoint(not_in_what_ships())


@pytest.mark.parametrize("module", RUN_WITH_WHAT_SHIPS)
def test_what_make_runs_with_what_ships_needs_nothing_else(module: str) -> None:
    hidden = f"import sys; sys.modules.update(dict.fromkeys({not_in_what_ships()}))"  # an import of these fails
    line = [sys.executable, "-c", f"{hidden}; import {module}"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_nothing_can_switch_onnxruntimes_telemetry_on_again() -> None:
    program = "import infer, os, sys; print(os.environ['ORT_DISABLE_TELEMETRY'], 'onnxruntime' in sys.modules)"
    assert python(program, ORT_DISABLE_TELEMETRY="0").split() == ["1", "False"]
