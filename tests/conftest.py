"""What all tests share."""

import os

# Before anything loads NumPy or torch. Tests run side by side, one process a core: more threads would only wait.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

from hypothesis import settings  # noqa: E402

# The container's tests need a Docker engine and an image: they are collected only when one is named.
collect_ignore = [] if os.environ.get("LYMPHO_IMAGE") else ["container"]

# The same examples in every run, and no limit of time: a busy machine is no error in the code.
settings.register_profile("lympho", deadline=None, derandomize=True, max_examples=100)
settings.load_profile("lympho")
