"""lympho's runtime: scores folders of patients with an exported bundle. Needs no torch and no scikit-learn."""

import os

# onnxruntime's official builds report to their maker from 1.29 on unless this is set before it is first imported.
# Nothing may leave a hospital, so it is set for every way into this program, and no setting of the caller undoes it.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

# NumPy's OpenBLAS starts a thread for each processor as it is loaded; where it cannot, it sends the process a SIGINT.
# What it is given to compute is small, and no slower on one thread; in training too: torch has threads of its own.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

__version__ = "0.1.0"
