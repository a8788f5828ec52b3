"""Number of examples in fuzz tests: few in `make test`, as many as requested in `make fuzz`."""

import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings

EXAMPLES = int(os.environ.get("LYMPHO_FUZZ", "0"))  # per test; 0 means the test's own number


def fuzz(examples: int) -> Callable[[Any], Any]:
    """Mark a test with `@given` for `make fuzz`; elsewhere it runs this number of examples."""

    def marked(test: Any) -> Any:
        # With a requested number, a run uses new random examples.
        bounded = settings(max_examples=EXAMPLES, derandomize=False) if EXAMPLES else settings(max_examples=examples)
        return pytest.mark.fuzz(bounded(test))

    return marked
