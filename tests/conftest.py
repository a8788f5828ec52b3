"""What all tests share."""

import os

from hypothesis import settings

# The container's tests need a Docker engine and an image: they are collected only when one is named.
collect_ignore = [] if os.environ.get("LYMPHO_IMAGE") else ["container"]

# The same examples in every run, and no limit of time: a busy machine is no error in the code.
settings.register_profile("lympho", deadline=None, derandomize=True, max_examples=100)
settings.load_profile("lympho")
