"""One thread for the small loops of scikit-learn and SciPy.

Their loops are far too short to be shared out. Where another program keeps a processor busy, each of them waits until
the thread that lost its processor has it back: a fit of a second takes minutes.
"""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from threadpoolctl import ThreadpoolController

P = ParamSpec("P")
R = TypeVar("R")


def on_one_thread(function: Callable[P, R]) -> Callable[P, R]:
    """Run a function with one thread for OpenMP and BLAS. torch inside it would have one, too."""

    @functools.wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> R:
        with _controller().limit(limits=1):
            return function(*args, **kwargs)

    return limited


@functools.cache
def _controller() -> ThreadpoolController:
    """Of the libraries that are loaded at the first call. To look for them takes longer than many a fit."""
    import scipy.linalg  # with its own BLAS
    import sklearn.linear_model  # with its own OpenMP

    del scipy, sklearn
    return ThreadpoolController()
