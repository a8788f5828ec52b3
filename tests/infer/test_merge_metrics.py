"""--metrics of the merge: of all shards what one run would have said."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from infer.errors import LymphoError, UsageError
from infer.merge.command import Merge, merge
from infer.output.results import Results
from tests.infer.runs import TINY, score
from tests.infer.test_merge import all_kinds, merged, shards
from tests.infer.test_metrics import ALWAYS, COUNTED, families, read

__all__ = ["all_kinds", "shards"]  # fixtures
OF_TIME = ("_seconds",)  # ends of names that hold times


def test_a_merge_says_what_one_run_would(shards: tuple[Path, ...], all_kinds: Path, tmp_path: Path) -> None:
    one, all_shards = tmp_path / "one.prom", tmp_path / "merge.prom"
    score(all_kinds, tmp_path / "one", bundle=TINY, metrics=one)
    outcome = merged(shards, tmp_path / "out", metrics=all_shards)
    found, expected = read(all_shards), read(one)
    assert list(found) == list(expected)
    assert {name: found[name] for name in found if not name.endswith(OF_TIME)} == {
        name: expected[name] for name in expected if not name.endswith(OF_TIME)
    }
    assert found["lympho_run_exit_code"] == outcome.code == 3
    assert found['lympho_run_patients{status="failed"}'] > 0
    assert found["lympho_run_start_timestamp_seconds"] > expected["lympho_run_end_timestamp_seconds"]


def test_a_missing_shard_is_told_without_counts(shards: tuple[Path, ...], tmp_path: Path) -> None:
    path = tmp_path / "m.prom"
    merged(shards, tmp_path / "out", metrics=path)
    with pytest.raises(UsageError):
        merged(shards[:2], tmp_path / "out", metrics=path)
    assert families(read(path)) == ALWAYS
    assert read(path)["lympho_run_exit_code"] == 2


@pytest.mark.parametrize(("end", "code"), [(SystemExit(143), 143), (MemoryError(), 1)])
def test_a_merge_that_breaks_off_has_counted_so_far(
    shards: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: BaseException, code: int
) -> None:
    def breaks(*_: Any) -> None:
        raise end

    monkeypatch.setattr(Results, "write", breaks)
    with pytest.raises(type(end)):
        merged(shards, tmp_path / "out", metrics=tmp_path / "m.prom")
    found = read(tmp_path / "m.prom")
    assert families(found) == [*ALWAYS, *COUNTED]
    assert found["lympho_run_exit_code"] == code
    assert found['lympho_run_patients{status="scored"}'] == 0


def test_where_it_may_not_lie(shards: tuple[Path, ...], all_kinds: Path, tmp_path: Path) -> None:
    folders = tuple(tmp_path / folder.name for folder in shards)
    for folder, copy in zip(shards, folders, strict=True):
        shutil.copytree(folder, copy)
    history, out = tmp_path / "history", tmp_path / "out"
    bundle = tmp_path / "bundle"
    shutil.copytree(TINY, bundle)
    before = sorted(path for folder in (*folders, all_kinds, bundle) for path in folder.rglob("*"))
    for path, says in (
        (folders[1] / "m.prom", "lies inside a shard"),
        (all_kinds / "m.prom", "lies inside the cohort"),
        (bundle / "m.prom", "lies inside the bundle"),
        (out / "run.json", "is a file that every run replaces"),
        (history, "is a file that every run replaces"),
    ):
        with pytest.raises(UsageError, match=f"--metrics {path}: {says}"):
            merge(Merge(folders, out, bundle, history, path))
    assert sorted(path for folder in (*folders, all_kinds, bundle) for path in folder.rglob("*")) == before
    assert not history.exists()


def test_it_may_not_lie_in_the_cohort_of_shards_that_do_not_fit(
    shards: tuple[Path, ...], all_kinds: Path, tmp_path: Path
) -> None:
    """One that can be read says where the patients are."""
    before = sorted(all_kinds.iterdir())
    with pytest.raises(UsageError, match="lies inside the cohort"):
        merged((tmp_path, shards[1]), tmp_path / "out", metrics=all_kinds / "m.prom")
    assert sorted(all_kinds.iterdir()) == before


def test_out_in_a_shard_is_told_too(shards: tuple[Path, ...], tmp_path: Path) -> None:
    """The monitor hears of it, the shard gets no file."""
    before = sorted(shards[0].iterdir())
    with pytest.raises(LymphoError):
        merged(shards, shards[0] / "below", metrics=tmp_path / "m.prom")
    assert read(tmp_path / "m.prom")["lympho_run_exit_code"] == 2
    assert sorted(shards[0].iterdir()) == before
