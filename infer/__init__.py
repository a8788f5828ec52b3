"""lympho's runtime: scores folders of patients with an exported bundle. Needs no torch and no scikit-learn."""

import os

# From 1.29 on, onnxruntime's official builds send telemetry unless this is set before the first import.
# No data may leave a hospital, so it is set for every entry point, and the caller's environment cannot undo it.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

# NumPy's OpenBLAS starts one thread per CPU when it is loaded; if it cannot, it sends the process a SIGINT.
# Its computations here are small and no slower on one thread. The same holds in training: torch has its own threads.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

__version__ = "0.1.0"
