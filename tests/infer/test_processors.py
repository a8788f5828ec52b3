"""How many CPUs a run uses: the affinity mask, the quotas of its control groups, and --threads.

The tests write the files of the control groups as the kernel does, in a folder that replaces /.
"""

import json
import math
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from infer.cli import command
from infer.machine.processors import available_processors, quota
from infer.pictures.pool import DecodingPool
from tests.infer.runs import TINY, Outcome, names, score
from tests.infer.test_machine import ended, finished, start, wait_for_patients
from tests.soak import write_linked_cohort

V1 = "4:cpu,cpuacct:{}\n3:memory:{}\n0::/\n"
CONTAINER = "/docker/0123abcd"


def put(root: Path, **files: str) -> Path:
    """Write files by path; two underscores mean a slash."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def v1(folder: Path, quota_us: int, period_us: int = 100_000) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpu.cfs_quota_us").write_text(f"{quota_us}\n")
    (folder / "cpu.cfs_period_us").write_text(f"{period_us}\n")


def v2(folder: Path, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpu.max").write_text(f"{text}\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def groups(root: Path) -> Path:
    return root / "sys/fs/cgroup"


@pytest.fixture(autouse=True)
def _a_large_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))


def own_groups(root: Path, text: str) -> None:
    put(root, proc__self__cgroup=text)


@pytest.mark.parametrize(
    ("text", "processors"),
    [
        ("100000 100000", 1),
        ("150000 100000", 2),  # fractions are rounded up
        ("300000 100000", 3),
        ("1000 100000", 1),
        ("25000 50000", 1),
        ("6400000 100000", 64),
        ("9900000 100000", 64),  # more than there are
        ("max 100000", 64),
        ("max", 64),
        ("200000", 2),  # the period's default
    ],
)
def test_a_container_of_version_2(root: Path, groups: Path, text: str, processors: int) -> None:
    """With its own namespace, its group is the mount point."""
    own_groups(root, "0::/\n")
    v2(groups, text)
    assert available_processors(root) == processors


@pytest.mark.parametrize(
    ("quota_us", "period_us", "processors"),
    [(100_000, 100_000, 1), (250_000, 100_000, 3), (-1, 100_000, 64), (50_000, 25_000, 2), (0, 100_000, 64)],
)
@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
def test_a_container_of_version_1(
    root: Path, groups: Path, quota_us: int, period_us: int, processors: int, mount: str
) -> None:
    """Docker shows the path of its group on the host, but mounts only that group."""
    own_groups(root, V1.format(CONTAINER, CONTAINER))
    v1(groups / mount, quota_us, period_us)
    assert available_processors(root) == processors


def test_a_path_that_is_not_below_the_mount_in_version_2(root: Path, groups: Path) -> None:
    for path in (CONTAINER, "/../../other.scope", "/gone (deleted)"):
        own_groups(root, f"0::{path}\n")
        v2(groups, "200000 100000")
        assert available_processors(root) == 2


def test_a_folder_outside_the_mount_is_no_group_of_the_process(root: Path, groups: Path) -> None:
    own_groups(root, "0::/../outside\n")
    groups.mkdir(parents=True)
    v2(groups.parent / "outside", "100000 100000")
    assert available_processors(root) == 64


@pytest.mark.parametrize("smallest", ["", "system.slice", "system.slice/batch.service", "system.slice/batch.service/x"])
def test_the_smallest_quota_on_the_way_up_counts(root: Path, groups: Path, smallest: str) -> None:
    own_groups(root, "0::/system.slice/batch.service/x\n")
    for folder in ("system.slice", "system.slice/batch.service", "system.slice/batch.service/x"):
        v2(groups / folder, "800000 100000")
    v2(groups / "system.slice/other.service", "100000 100000")  # not a parent group
    v2(groups / smallest, "300000 100000")
    assert available_processors(root) == 3


def test_the_smallest_quota_on_the_way_up_counts_in_version_1(root: Path, groups: Path) -> None:
    own_groups(root, V1.format("/a/b", "/c"))
    v1(groups / "cpu,cpuacct/a/b", -1)
    v1(groups / "cpu,cpuacct/a", 500_000)
    v1(groups / "cpu,cpuacct/c", 100_000)  # the group for memory does not matter
    v1(groups / "cpu,cpuacct", -1)
    (groups / "cpu").symlink_to("cpu,cpuacct")
    assert available_processors(root) == 5


def test_both_versions_side_by_side(root: Path, groups: Path) -> None:
    own_groups(root, "2:cpu:/a\n1:name=systemd:/b\n0::/c\n")
    v1(groups / "cpu/a", 700_000)
    (groups / "unified/c").mkdir(parents=True)
    assert available_processors(root) == 7
    v2(groups / "unified/c", "400000 100000")
    assert available_processors(root) == 4


def test_without_proc_the_mounts_themselves_count(root: Path, groups: Path) -> None:
    v2(groups, "200000 100000")
    assert available_processors(root) == 2
    v1(groups / "cpu", 100_000)
    assert available_processors(root) == 1


@pytest.mark.parametrize(
    "text", ["", "max\n", "x y\n", "-5 100000\n", "100000 0\n", "100000 -1\n", "1e5 100000\n", "\0"]
)
def test_what_cannot_be_read_limits_nothing(root: Path, groups: Path, text: str) -> None:
    own_groups(root, "0::/\n4:cpu:/\n")
    put(groups, **{"cpu.max": text, "cpu__cpu.cfs_quota_us": text, "cpu__cpu.cfs_period_us": text})
    assert available_processors(root) == 64
    assert quota(root) == math.inf


@pytest.mark.parametrize(
    "text", ["", "no colon\n", ":\n", "::\n", "0:\n", "0::\n", "0::relative\n", "0::/a\0b\n", "\n\n"]
)
def test_what_is_no_line_of_groups_is_passed_over(root: Path, groups: Path, text: str) -> None:
    own_groups(root, text)
    v2(groups, "200000 100000")
    assert available_processors(root) == 2


def test_names_that_are_not_utf8(root: Path, groups: Path) -> None:
    put(root, proc__self__cgroup="")
    (root / "proc/self/cgroup").write_bytes(b"0::/\xe9:\xff\n")
    v2(groups / os.fsdecode(b"\xe9:\xff"), "200000 100000")
    assert available_processors(root) == 2


def test_where_nothing_is_known_the_affinity_mask_counts(root: Path) -> None:
    assert available_processors(root) == 64
    assert available_processors(root / "nowhere") == 64
    put(root, proc="no folder", sys__fs__cgroup="no folder")
    assert available_processors(root) == 64


def test_folders_and_files_without_permission_limit_nothing(
    root: Path, groups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulated, because root may read everything."""

    def refused(*_: object, **__: object) -> str:
        raise PermissionError

    own_groups(root, "0::/\n")
    v2(groups, "100000 100000")
    monkeypatch.setattr(Path, "read_text", refused)
    assert available_processors(root) == 64


def test_the_affinity_mask_may_be_the_smaller_one(root: Path, groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    v2(groups, "800000 100000")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5})
    assert available_processors(root) == 1


def test_on_this_machine_there_is_at_least_one() -> None:
    assert 1 <= available_processors() <= 64


@pytest.mark.parametrize("found", [1, 64])
def test_a_run_uses_what_it_may_and_says_so(
    pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: int
) -> None:
    monkeypatch.setattr("infer.ready.available_processors", lambda: found)
    device = score(pristine, tmp_path / "out", bundle=TINY).record["device"]
    assert (device["processors"], device["batches_side_by_side"]) == (found, min(found, 16))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_are_the_processors_that_are_used(
    plain: Outcome, pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    """Instead of the number found. Not a byte of the tables depends on it."""
    monkeypatch.setattr("infer.ready.available_processors", lambda: 64)
    outcome = score(pristine, tmp_path / "out", threads=threads)
    assert outcome.csv_bytes == plain.csv_bytes
    assert outcome.record["options"]["threads"] == threads
    device = outcome.record["device"]
    assert (device["processors"], device["batches_side_by_side"]) == (threads, threads)


@pytest.mark.parametrize(
    ("threads", "dry_run", "workers"), [(1, False, 1), (8, False, 2), (8, True, 8), (64, True, 16)]
)
def test_threads_decide_about_decoding_too(
    pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int, dry_run: bool, workers: int
) -> None:
    asked: list[int] = []

    def counted(root: Path, size: int, number: int, scale: float) -> DecodingPool:
        asked.append(number)
        return DecodingPool(root, size, number, scale)

    monkeypatch.setattr("infer.scoring.cohort.DecodingPool", counted)
    assert score(pristine, tmp_path / "out", bundle=TINY, workers=0, threads=threads, dry_run=dry_run).code == 0
    assert asked == [workers]


def test_threads_on_the_command_line(pristine: Path, tmp_path: Path) -> None:
    line = [str(pristine), str(tmp_path / "out"), "--device=cpu", "--bundle", str(TINY), "--reference-date=2019-07-01"]
    assert CliRunner().invoke(command, [*line, "--threads", "1"], standalone_mode=False).return_value == 0
    record = json.loads((tmp_path / "out/run.json").read_text())
    assert (record["options"]["threads"], record["device"]["processors"]) == (1, 1)
    for wrong in ("0", "-1", "many", "100000"):
        found = CliRunner().invoke(command, [*line, "--threads", wrong])
        assert found.exit_code == 2
        assert "--threads" in found.output


def test_a_run_goes_on_on_another_number_of_threads(pristine: Path, tmp_path: Path) -> None:
    many, out = tmp_path / "patients", tmp_path / "out"
    write_linked_cohort(many, pristine, 250)
    process = start(many, out)
    wait_for_patients(process, out, 3)
    process.kill()
    ended(process)
    kept = finished(out)
    outcome = score(many, out, bundle=TINY, threads=1)
    assert outcome.record["kept_from_earlier_starts"] == kept >= 3
    assert names(out) == [".results", "drift.json", "images.csv", "predictions.csv", "run.json", "run.log"]
