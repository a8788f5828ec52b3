"""Limits scikit-learn and SciPy to one thread.

Their parallel loops are far too short to benefit from threads. If another program keeps a core busy, every loop waits
for the thread that lost its core, and a fit of one second takes minutes.
"""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from threadpoolctl import ThreadpoolController

P = ParamSpec("P")
R = TypeVar("R")


def on_one_thread(function: Callable[P, R]) -> Callable[P, R]:
    """Run a function with one OpenMP and BLAS thread. This would also limit torch inside the function."""

    @functools.wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> R:
        with _controller().limit(limits=1):
            return function(*args, **kwargs)

    return limited


@functools.cache
def _controller() -> ThreadpoolController:
    """Controls the libraries loaded at the first call; cached, because finding them takes longer than many fits."""
    import scipy.linalg  # bundles its own BLAS
    import sklearn.linear_model  # bundles its own OpenMP

    del scipy, sklearn
    return ThreadpoolController()
