"""How long a fuzz test goes on: bounded in `make test`, as long as one likes in `make fuzz`."""

import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings

EXAMPLES = int(os.environ.get("LYMPHO_FUZZ", "0"))  # of each test; 0: what the test says


def fuzz(examples: int) -> Callable[[Any], Any]:
    """Mark a test with `@given` as one that `make fuzz` runs, and bound it elsewhere to so many examples."""

    def marked(test: Any) -> Any:
        # With a number of its own a run looks where no run has looked before.
        bounded = settings(max_examples=EXAMPLES, derandomize=False) if EXAMPLES else settings(max_examples=examples)
        return pytest.mark.fuzz(bounded(test))

    return marked
