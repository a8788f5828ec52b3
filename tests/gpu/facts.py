"""Step `facts`: libraries, the GPU and its driver, and whether a graph runs there."""

import importlib.metadata
import os
import platform
import subprocess

import numpy as np
import onnxruntime

from infer.machine.processors import available_processors
from tests.gpu.check import Check

ASKED = "name,driver_version,compute_cap,memory.total,memory.used"


def facts(check: Check) -> None:
    """Note what the machine has. Ends with 5 or 6 if the bundle or the device cannot be used."""
    check.note("python", platform.python_version())
    check.note("numpy", np.__version__)
    check.note("onnxruntime", onnxruntime.__version__)
    check.note("providers", onnxruntime.get_available_providers())
    check.note("cuda_libraries", _cuda_libraries())
    check.note("gpu", _gpu())
    check.note("processors", {"of the machine": os.cpu_count(), "available": available_processors()})
    bundle = check.load()
    check.note("bundle", {"id": bundle.short_id, "precisions": ["float32", *bundle.manifest.precisions]})
    check.note("device", str(check.chosen(bundle)))


def _cuda_libraries() -> dict[str, str]:
    """Installed packages of CUDA and their versions."""
    found = {str(one.metadata["Name"]): one.version for one in importlib.metadata.distributions()}
    return {name: found[name] for name in sorted(found) if name.lower().startswith("nvidia-")}


def _gpu() -> str:
    """What nvidia-smi says of the GPUs."""
    line = ["nvidia-smi", f"--query-gpu={ASKED}", "--format=csv"]
    try:
        ended = subprocess.run(line, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"nvidia-smi: {error}"
    return (ended.stdout + ended.stderr).strip()
