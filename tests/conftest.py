"""Settings for all tests."""

import os

# Before anything loads NumPy or torch. Tests run in parallel, one process per core: more threads would only wait.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

from hypothesis import settings  # noqa: E402

# The container tests need a Docker engine and an image: they are collected only if an image is named.
collect_ignore = [] if os.environ.get("LYMPHO_IMAGE") else ["container"]

# The same examples in every run, and no deadline: a busy machine is not an error in the code.
settings.register_profile("lympho", deadline=None, derandomize=True, max_examples=100)
settings.load_profile("lympho")
