from pathlib import Path

from tests.infer.runs import TINY
from tests.soak import kill_and_go_on, write_linked_cohort


def test_killed_at_random_moments_a_run_loses_nothing(pristine: Path, tmp_path: Path) -> None:
    """Five kills; `make soak` tries fifty."""
    write_linked_cohort(tmp_path / "patients", pristine, 150)
    seen = kill_and_go_on(tmp_path / "patients", tmp_path / "out", 5, TINY, seed=1)
    assert len({before for before, _ in seen}) > 1
