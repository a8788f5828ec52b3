"""What was reported finished is there after a power failure, whatever of the rest the disk has lost.

tests/power.py says what a disk may lose. Every state that it gives is put right as the next start would, and looked at.
"""

import json
import os
import random
from pathlib import Path

import pytest

from infer.merge.command import Merge, merge
from infer.output.exchange import exchange, remove_earlier, settle
from infer.output.folder import check_folder, unfinished
from infer.output.journal import JOURNAL, read_journal
from infer.output.names import LAST_RUN, NAMES, RECORD, part_of
from infer.output.pages import PAGES
from tests.infer.runs import TINY, Outcome, csv_bytes, score, set_count
from tests.infer.test_exchange import PAGE, files, write_parts
from tests.power import Disk

SHARE, SETTLED_TWICE = 0.2, 10  # of states are put right under a second simulation; at most so many


def vouched_for(folder: Path) -> str | None:
    """Of which run the results are that a reader finds, "yesterday's" or "today's"; None without run.json.

    Fails if anything beside run.json is of another run, or missing.
    """
    found = files(folder)
    if RECORD not in found:
        return None
    record = found.pop(RECORD)
    pages = found.pop(PAGE, record)
    assert found == {name: record for name in NAMES if name[0] != "." and name != RECORD}
    assert (folder / ".results").read_text() == record
    assert pages == record
    return record


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A finished run's files, on the disk."""
    folder = tmp_path / "root/out"
    (folder / PAGES).mkdir(parents=True)
    for name in (*NAMES, PAGE):
        (folder / name).write_text("yesterday's")
    return folder


def next_start(folder: Path) -> None:
    """What every run, and every dry run, does first."""
    check_folder(folder, None)


def write_synced_parts(folder: Path) -> None:
    """As `Results.finish` leaves them."""
    write_parts(folder)
    for name in NAMES:
        descriptor = os.open(part_of(folder, name), os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def test_one_run_s_files_whatever_is_lost_while_they_are_exchanged(out: Path) -> None:
    reported = "yesterday's"
    seen = set()

    def check(state: Path) -> None:
        folder = state / "out"
        before = vouched_for(folder)
        assert before in {None, reported, "today's"}
        next_start(folder)
        after = vouched_for(folder)
        assert after in {reported, "today's"}
        assert before in {None, after}
        seen.add((reported, before, after))

    disk = Disk(out.parent, check)
    with disk.watching():
        write_synced_parts(out)
        exchange(out)
        reported = "today's"
        remove_earlier(out)
    assert disk.moments > 25
    yesterday, today = "yesterday's", "today's"
    assert seen == {
        (yesterday, yesterday, yesterday),
        (yesterday, None, yesterday),
        (yesterday, today, today),
        (today, today, today),
    }


def test_a_second_failure_while_it_is_put_right(out: Path) -> None:
    """A draw of the states without run.json is put right under a second simulation."""
    draw = random.Random(0)
    looked: set[tuple[str, ...]] = set()

    def check(state: Path) -> None:
        left = tuple(sorted(os.listdir(state / "out")))
        if RECORD in left or left in looked or draw.random() > SHARE or len(looked) == SETTLED_TWICE:
            return
        looked.add(left)

        def check_again(state: Path) -> None:
            assert vouched_for(state / "out") in {None, "yesterday's"}
            next_start(state / "out")
            assert vouched_for(state / "out") == "yesterday's"

        again = Disk(state, check_again, most=12)
        with again.watching():
            settle(state / "out")
            for name in NAMES:  # the next run fails, and removes what it has written
                part_of(state / "out", name).unlink(missing_ok=True)

    disk = Disk(out.parent, check)
    with disk.watching():
        write_synced_parts(out)
        exchange(out)
    assert len(looked) == SETTLED_TWICE


def test_a_first_run_leaves_all_or_no_run_json(tmp_path: Path) -> None:
    folder = tmp_path / "root/out"
    folder.mkdir(parents=True)
    reported = None

    def check(state: Path) -> None:
        assert vouched_for(state / "out") in {reported, "today's"}

    disk = Disk(folder.parent, check)
    with disk.watching():
        write_synced_parts(folder)
        exchange(folder)
        reported = "today's"


def test_a_run_that_has_returned_is_there_with_its_new_folder(pristine: Path, tmp_path: Path) -> None:
    """A folder per night, which the run makes: its own name must be on the disk, too."""
    root = tmp_path / "root"
    root.mkdir()
    out = root / "2026" / "night"
    expected: dict[str, bytes] | None = None

    def check(state: Path) -> None:
        found = state / "2026" / "night"
        if expected is None:
            if (found / RECORD).exists():
                assert json.loads((found / RECORD).read_text())["exit_code"] == 0
                assert all((found / name).stat().st_size > 50 for name in NAMES)
        else:
            assert csv_bytes(found) == expected
            assert json.loads((found / RECORD).read_text()) == Outcome(0, out).record
            assert json.loads((found / LAST_RUN).read_text())["exit_code"] == 0

    disk = Disk(root, check, most=10)
    with disk.watching():
        assert score(pristine, out, bundle=TINY).code == 0
        expected = csv_bytes(out)
        disk.cut()


def test_a_merge_that_has_returned_is_there_and_one_that_has_not_costs_nothing(pristine: Path, tmp_path: Path) -> None:
    shards = tuple(score(pristine, tmp_path / f"s{index}", bundle=TINY, shard=f"{index}/2").out for index in range(2))
    root = tmp_path / "root"
    root.mkdir()
    yesterday = score(pristine, root / "out", bundle=TINY, prevalence=0.3).csv_bytes
    today = score(pristine, tmp_path / "whole", bundle=TINY).csv_bytes
    reported = yesterday
    seen = set()

    def check(state: Path) -> None:
        folder = state / "out"
        if (folder / RECORD).exists():
            assert csv_bytes(folder) in (reported, today)
        check_folder(folder, unfinished(folder))
        assert csv_bytes(folder) in (reported, today)
        seen.add(csv_bytes(folder) == today)

    disk = Disk(root, check, most=6)
    with disk.watching():
        assert merge(Merge(shards, root / "out", TINY)) == 0
        reported = today
        disk.cut()
    assert seen == {True, False}


def test_a_run_cut_off_anywhere_goes_on_to_the_same_tables(
    pristine: Path, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over an earlier run's results, which stay until then. One state for every number of patients is resumed."""
    root = tmp_path / "root"
    root.mkdir()
    score(pristine, root / "out", bundle=TINY)
    yesterday = csv_bytes(root / "out")
    set_count(cohort, "S001", "33")
    today = score(cohort, tmp_path / "whole", bundle=TINY).csv_bytes
    monkeypatch.setattr("infer.output.journal.SYNC_SECONDS", 0.0)
    resumed: dict[int, int] = {}  # patients in the journal -> kept

    def check(state: Path) -> None:
        if (state / "out" / RECORD).exists():
            assert csv_bytes(state / "out") in (yesterday, today)
        stored = read_journal(state / "out" / JOURNAL)
        finished = len(stored.places) if stored else -1
        if finished not in resumed:
            outcome = score(cohort, state / "out", bundle=TINY)
            assert outcome.csv_bytes == today
            resumed[finished] = outcome.record["kept_from_earlier_starts"]

    disk = Disk(root, check, most=4)
    with disk.watching():
        score(cohort, root / "out", bundle=TINY)
    assert {number: number for number in range(1, 6)}.items() <= resumed.items()
