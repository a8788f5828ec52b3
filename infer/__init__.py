"""lympho's runtime: scores folders of patients with an exported bundle. Needs no torch and no scikit-learn."""

import os

# onnxruntime's official builds report to their maker from 1.29 on unless this is set before it is first imported.
# Nothing may leave a hospital, so it is set for every way into this program, and no setting of the caller undoes it.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__version__ = "0.1.0"
