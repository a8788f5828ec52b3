"""Resuming an interrupted run: finished patients are kept, and the tables are those of an uninterrupted run."""

import contextlib
import datetime as dt
import errno
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infer.bundle.load import REFERENCE
from infer.engine.fallback import Engine
from infer.engine.networks import Networks
from infer.errors import OutputError
from infer.output.journal import JOURNAL, Identity, read_journal
from infer.output.results import Results
from infer.output.resume import Past, find_past
from tests.infer import runs
from tests.infer.runs import LEFT, RESULT_FILES, TABLE, TINY, Cut, Outcome, cut, keep_patients, names, set_count


@pytest.fixture(autouse=True)
def _info(caplog: pytest.LogCaptureFixture) -> None:
    """Same level as the command line."""
    caplog.set_level(logging.INFO, "lympho")


def score(cohort: Path, out: Path, **options: Any) -> Outcome:
    return runs.score(cohort, out, **({"bundle": TINY} | options))


@pytest.fixture(scope="module")
def plain(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The pristine cohort, scored without interruption."""
    return score(pristine, tmp_path_factory.mktemp("plain") / "out")


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Records the size of each batch from here on; the first one of each run is the self-test's."""
    works: Callable[..., Any] = Networks.score_pictures
    seen: list[int] = []

    def counted(self: Networks, images: Any, clinical: Any) -> Any:
        seen.append(len(images))
        return works(self, images, clinical)

    monkeypatch.setattr(Networks, "score_pictures", counted)
    return seen


def expected_pictures(outcome: Outcome, *patient_ids: str) -> int:
    return sum(int(outcome.predictions[patient_id]["images"]) for patient_id in patient_ids)


@pytest.mark.parametrize("after", [1, 3, 6])
def test_finished_patients_are_kept_and_the_tables_are_the_same_bytes(
    plain: Outcome, pristine: Path, tmp_path: Path, pictures: list[int], after: int
) -> None:
    cut(pristine, tmp_path, after)
    pictures.clear()
    outcome = score(pristine, tmp_path)
    assert (outcome.code, names(tmp_path)) == (0, RESULT_FILES)
    assert outcome.csv_bytes == plain.csv_bytes
    rest = list(plain.predictions)[after:]
    assert sum(pictures[1:]) == expected_pictures(plain, *rest)
    record = outcome.record
    assert (record["kept_from_earlier_starts"], len(record["starts"]), record["started_over"]) == (after, 2, "")
    different = {"run", "starts", "ended", "kept_from_earlier_starts", "options"}
    assert {name: record[name] for name in record if name not in different} == {
        name: plain.record[name] for name in record if name not in different
    }
    log = (tmp_path / "run.log").read_text()
    assert log.count(f"resuming: {after} finished patients kept, ages are taken at 2019-07-01") == 1


def test_a_run_cut_off_three_times(plain: Outcome, pristine: Path, tmp_path: Path) -> None:
    for _ in range(3):
        cut(pristine, tmp_path, 1)
    outcome = score(pristine, tmp_path)
    assert outcome.csv_bytes == plain.csv_bytes
    assert (outcome.record["kept_from_earlier_starts"], len(outcome.record["starts"])) == (3, 4)


def test_a_run_after_a_finished_one_scores_everything_anew(
    plain: Outcome, pristine: Path, tmp_path: Path, pictures: list[int]
) -> None:
    cut(pristine, tmp_path, 2)
    score(pristine, tmp_path)
    pictures.clear()
    outcome = score(pristine, tmp_path)
    assert sum(pictures[1:]) == expected_pictures(plain, *plain.predictions)
    assert (outcome.record["kept_from_earlier_starts"], len(outcome.record["starts"])) == (0, 1)


def add_a_picture_below(cohort: Path) -> None:
    (cohort / "S001/slide2").mkdir()
    os.link(cohort / "S001/000000.jpg", cohort / "S001/slide2/000000.jpg")


def add_a_picture(cohort: Path) -> None:
    os.link(cohort / "S001/000000.jpg", cohort / "S001/900000.jpg")


def change_a_picture(cohort: Path) -> None:
    (cohort / "S001/000003.jpg").unlink()
    os.link(cohort / "S002/000000.jpg", cohort / "S001/000003.jpg")


def swap_two_pictures(cohort: Path) -> None:
    for old, new in (("000000", "x"), ("000001", "000000"), ("x", "000001")):
        (cohort / f"S001/{old}.jpg").rename(cohort / f"S001/{new}.jpg")


@pytest.mark.parametrize(
    "change",
    [
        add_a_picture,
        change_a_picture,
        swap_two_pictures,
        lambda cohort: (cohort / "S001/000003.jpg").unlink(),
        add_a_picture_below,
        lambda cohort: (cohort / "S001/notes.txt").write_text("ignored, but counted"),
        lambda cohort: set_count(cohort, "S001", "7.5"),
        lambda cohort: set_count(cohort, "S001", ""),
    ],
)
def test_a_patient_that_changed_is_scored_again_and_no_other(
    cohort: Path, tmp_path: Path, pictures: list[int], change: Callable[[Path], None]
) -> None:
    keep_patients(cohort, "S001", "S002", "S003")
    cut(cohort, tmp_path / "out", 2)
    change(cohort)
    fresh = score(cohort, tmp_path / "fresh")
    pictures.clear()
    outcome = score(cohort, tmp_path / "out")
    assert outcome.csv_bytes == fresh.csv_bytes
    assert outcome.record["kept_from_earlier_starts"] == 1
    scored_again = [one for one in ("S001", "S003") if fresh.predictions[one]["status"] == "scored"]
    assert sum(pictures[1:]) == expected_pictures(fresh, *scored_again)


def test_a_copy_with_new_times_is_no_change(plain: Outcome, cohort: Path, tmp_path: Path) -> None:
    cut(cohort, tmp_path / "out", 4)
    for path in cohort.rglob("*.jpg"):
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data)
        os.utime(path, (1, 1))
    outcome = score(cohort, tmp_path / "out")
    assert outcome.record["kept_from_earlier_starts"] == 4
    assert outcome.csv_bytes == plain.csv_bytes


def test_rows_that_come_go_and_move(cohort: Path, tmp_path: Path) -> None:
    lines = (cohort / TABLE).read_text().splitlines()
    (cohort / TABLE).write_text("\n".join(lines[:5]) + "\n")  # S001 to S004
    cut(cohort, tmp_path / "out", 3)
    (cohort / TABLE).write_text("\n".join([lines[0], lines[6], lines[3], "", lines[1], lines[4]]) + "\n")
    fresh = score(cohort, tmp_path / "fresh")
    outcome = score(cohort, tmp_path / "out")
    assert list(outcome.predictions) == ["S006", "S003", "S001", "S004"]
    assert outcome.csv_bytes == fresh.csv_bytes
    assert outcome.record["kept_from_earlier_starts"] == 2
    assert outcome.record["cohort"]["folders_without_row"] == ["S002", "S005"]


def test_who_failed_is_looked_at_again(plain: Outcome, cohort: Path, tmp_path: Path) -> None:
    (cohort / "S001").rename(tmp_path / "away")
    cut(cohort, tmp_path / "out", 3)
    (tmp_path / "away").rename(cohort / "S001")
    outcome = score(cohort, tmp_path / "out")
    assert (outcome.code, outcome.record["kept_from_earlier_starts"]) == (0, 2)
    assert outcome.csv_bytes == plain.csv_bytes


def test_who_failed_is_looked_at_again_though_nothing_of_it_changed(
    plain: Outcome, pristine: Path, tmp_path: Path
) -> None:
    """The networks gave NaN; on the next start they may not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("infer.scoring.cohort.weighted", lambda *_: np.array(np.nan))
        cut(pristine, tmp_path, 2)
    stored = read_journal(tmp_path / JOURNAL)
    assert stored is not None
    assert [place.status for place in stored.places.values()] == ["failed", "failed"]
    outcome = score(pristine, tmp_path)
    assert (outcome.code, outcome.record["kept_from_earlier_starts"]) == (0, 0)
    assert outcome.csv_bytes == plain.csv_bytes


def test_another_format_of_samples_starts_over(cohort: Path, tmp_path: Path) -> None:
    header, *lines = (cohort / TABLE).read_text().splitlines()
    (cohort / TABLE).write_text("\n".join([f"{header},SAMPLE_DATE", *(f"{line},2019-07-01" for line in lines)]) + "\n")
    cut(cohort, tmp_path / "out", 5)
    outcome = score(cohort, tmp_path / "out", sample_date_format="iso")
    assert outcome.record["started_over"] == "the unfinished run had another sample_date_format"
    assert outcome.record["kept_from_earlier_starts"] == 0


def test_a_finished_patient_whose_folder_is_changing_again_is_not_kept(cohort: Path, tmp_path: Path) -> None:
    keep_patients(cohort, "S001", "S002")
    cut(cohort, tmp_path / "out", 1)
    outcome = score(cohort, tmp_path / "out", settle=3600.0)
    assert outcome.record["kept_from_earlier_starts"] == 0
    assert [row["reason"].partition(":")[0] for row in outcome.predictions.values()] == ["still_changing"] * 2


def test_what_is_unusual_about_a_kept_patient_is_told_too(cohort: Path, tmp_path: Path) -> None:
    add_a_picture_below(cohort)
    os.link(cohort / "S001/000000.jpg", cohort / "S003/copy.jpg")
    keep_patients(cohort, "S001", "S002", "S003")
    cut(cohort, tmp_path / "out", 1)
    outcome, fresh = score(cohort, tmp_path / "out"), score(cohort, tmp_path / "fresh")
    assert outcome.record["kept_from_earlier_starts"] == 1
    for key in ("same_pictures", "pictures_below", "unusual_picture_size", "unusual_picture_sizes"):
        assert outcome.record[key] == fresh.record[key] != []
    assert outcome.record["same_pictures"] == [{"patients": ["S001", "S003"], "pictures": 1}]


def test_a_refused_patient_is_kept_and_counted(cohort: Path, tmp_path: Path) -> None:
    set_count(cohort, "S001", "")
    cut(cohort, tmp_path / "out", 2)
    outcome = score(cohort, tmp_path / "out")
    assert outcome.csv_bytes == score(cohort, tmp_path / "fresh").csv_bytes
    assert outcome.record["kept_from_earlier_starts"] == 2
    assert outcome.record["not_scored"] == [{"patient_id": "S001", "status": "refused", "code": "count_missing"}]
    assert (tmp_path / "out/run.log").read_text().count("S001 refused (count_missing)") == 1


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"operating_point": "sensitivity-95"}, "the unfinished run had another operating_point"),
        ({"reference_date": dt.date(2019, 7, 2)}, "the unfinished run had another reference_date"),
        ({"reference_date": None}, "the unfinished run had another reference_date"),
        ({"date_format": "%m/%d/%Y"}, "the unfinished run had another date_format"),
        ({"sex_codes": "M=male,F=female"}, "the unfinished run had another sex_codes"),
        ({"ood": "warn"}, "the unfinished run had another ood"),
        ({"fresh": True}, "--fresh"),
    ],
)
def test_other_options_start_over_and_say_so(pristine: Path, tmp_path: Path, options: dict[str, Any], why: str) -> None:
    cut(pristine, tmp_path / "out", 5)
    outcome = score(pristine, tmp_path / "out", **options)
    assert outcome.csv_bytes == score(pristine, tmp_path / "fresh", **(options | {"fresh": False})).csv_bytes
    record = outcome.record
    assert (record["kept_from_earlier_starts"], len(record["starts"]), record["started_over"]) == (0, 1, why)
    assert f"starting over: {why}" in (tmp_path / "out/run.log").read_text()


@pytest.mark.parametrize("options", [{"batch_size": 5}, {"workers": 1}, {"max_refused": 0.1}])
def test_options_that_change_no_result_go_on(
    plain: Outcome, pristine: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    cut(pristine, tmp_path, 5)
    outcome = score(pristine, tmp_path, **options)
    assert outcome.record["kept_from_earlier_starts"] == 5
    assert outcome.csv_bytes == plain.csv_bytes


@pytest.mark.parametrize("name", ["code", "bundle", "numerics"])
def test_another_program_bundle_or_rounding_starts_over(
    plain: Outcome, pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    cut(pristine, tmp_path, 5)

    def other(folder: Path, asked: Identity, *, fresh: bool) -> Past:
        past = find_past(folder, asked, fresh=fresh)
        assert past.stored is not None
        changed: dict[str, Any] = {name: "other"}
        header = replace(past.stored.header, identity=replace(past.stored.header.identity, **changed))
        return replace(past, stored=replace(past.stored, header=header))

    monkeypatch.setattr("infer.ready.find_past", other)
    outcome = score(pristine, tmp_path)
    assert outcome.record["started_over"] == f"the unfinished run had another {name}"
    assert outcome.record["kept_from_earlier_starts"] == 0
    assert outcome.csv_bytes == plain.csv_bytes


def at(monkeypatch: pytest.MonkeyPatch, *moment: int) -> None:
    monkeypatch.setattr("infer.run._now", lambda: dt.datetime(*moment, tzinfo=dt.UTC))  # type: ignore[misc,arg-type]


def test_the_first_starts_day_holds(pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch, 2019, 7, 1, 23, 59)
    cut(pristine, tmp_path / "out", 2, reference_date=None)
    at(monkeypatch, 2020, 7, 1, 0, 10)
    outcome = score(pristine, tmp_path / "out", reference_date=None)
    assert outcome.record["options"]["reference_date"] == "2019-07-01"
    assert outcome.record["starts"] == ["2019-07-01T23:59:00+00:00", "2020-07-01T00:10:00+00:00"]
    ages = [row["age_years"] for row in outcome.predictions.values()]
    later = score(pristine, tmp_path / "out", reference_date=None)
    assert later.record["options"]["reference_date"] == "2020-07-01"
    years = zip(ages, (row["age_years"] for row in later.predictions.values()), strict=True)
    assert all(float(new) - float(old) == pytest.approx(1, abs=0.02) for old, new in years)


def test_a_pinned_day_goes_with_its_results(pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the machine rounds differently, nothing is kept, and ages are taken today."""
    at(monkeypatch, 2019, 7, 1)
    cut(pristine, tmp_path, 2, reference_date=None)
    at(monkeypatch, 2020, 7, 1)
    works = Engine.run_self_test
    monkeypatch.setattr(Engine, "run_self_test", lambda self: works(self)[::-1])
    outcome = score(pristine, tmp_path, reference_date=None)
    assert outcome.record["options"]["reference_date"] == "2020-07-01"
    assert outcome.record["started_over"] == "the unfinished run had another numerics"
    ages = {row["age_years"] for row in score(pristine, tmp_path, reference_date=None).predictions.values()}
    assert ages == {row["age_years"] for row in outcome.predictions.values()}


def test_a_pinned_day_does_not_outlive_its_patients(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted, and started a year later on other patients: these get their present ages."""
    at(monkeypatch, 2019, 7, 1)
    cut(keep_patients(cohort, "S001", "S002", "S003"), tmp_path / "out", 1, reference_date=None)
    lines = (cohort / TABLE).read_text().splitlines()
    (cohort / TABLE).write_text("\n".join([lines[0], *lines[2:]]) + "\n")
    at(monkeypatch, 2020, 7, 1)
    outcome = score(cohort, tmp_path / "out", reference_date=None)
    assert outcome.record["started_over"] == "no finished patient of the unfinished run is unchanged"
    assert outcome.record["options"]["reference_date"] == "2020-07-01"
    assert outcome.record["reference_date_asked_for"] is None


def test_a_journal_that_cannot_be_read_now_is_not_written_over(
    pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut(pristine, tmp_path, 3)
    opens = Path.open

    def broken(self: Path, *arguments: Any, **named: Any) -> Any:
        if self.name == JOURNAL:
            raise OSError(errno.EIO, "Input/output error", str(self))
        return opens(self, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", broken)
        with pytest.raises(OutputError, match="Input/output error"):
            score(pristine, tmp_path)
    assert score(pristine, tmp_path).record["kept_from_earlier_starts"] == 3


def test_a_journal_beside_its_own_runs_results_is_ignored(plain: Outcome, pristine: Path, tmp_path: Path) -> None:
    """As a run leaves it that is killed in its last moment."""
    cut(pristine, tmp_path, 3)
    stale = (tmp_path / JOURNAL).read_bytes()
    score(pristine, tmp_path)
    (tmp_path / JOURNAL).write_bytes(stale)
    outcome = score(pristine, tmp_path)
    assert outcome.record["kept_from_earlier_starts"] == 0
    assert outcome.record["started_over"] == ""
    assert outcome.csv_bytes == plain.csv_bytes


def test_a_damaged_journal_starts_over(plain: Outcome, pristine: Path, tmp_path: Path) -> None:
    cut(pristine, tmp_path, 2)
    data = (tmp_path / JOURNAL).read_bytes()
    (tmp_path / JOURNAL).write_bytes(b"x" + data[1:])
    outcome = score(pristine, tmp_path)
    assert outcome.record["started_over"] == "the unfinished run's journal is damaged or from another program version"
    assert outcome.csv_bytes == plain.csv_bytes


def test_a_journal_that_ends_in_the_middle_of_a_patient(plain: Outcome, pristine: Path, tmp_path: Path) -> None:
    cut(pristine, tmp_path, 4)
    data = (tmp_path / JOURNAL).read_bytes()
    (tmp_path / JOURNAL).write_bytes(data[:-100])
    outcome = score(pristine, tmp_path)
    assert outcome.record["kept_from_earlier_starts"] == 3
    assert outcome.csv_bytes == plain.csv_bytes


@pytest.mark.parametrize("renames", range(7))
def test_a_cut_while_the_results_get_their_names(
    plain: Outcome, pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    """SIGKILL: no cleanup. After the last rename the run counts as finished."""
    works, count = os.replace, 0

    def replaced(*paths: Path) -> None:
        nonlocal count
        count += 1
        if count > renames:
            raise Cut
        works(*paths)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", replaced)
        patch.setattr(
            "infer.output.exchange.sync", lambda _: replaced(tmp_path, tmp_path) if count == renames == 6 else None
        )
        patch.setattr(Results, "_settling", lambda _: contextlib.nullcontext())
        with pytest.raises(Cut):
            score(pristine, tmp_path)
    assert sum(name in names(tmp_path) for name in RESULT_FILES) == renames
    outcome = score(pristine, tmp_path)
    assert outcome.csv_bytes == plain.csv_bytes
    assert outcome.record["kept_from_earlier_starts"] == (0 if renames == 6 else 6)
    assert outcome.record["started_over"] == ""
    assert names(tmp_path) == RESULT_FILES
    if renames < 5:
        assert (tmp_path / "run.log").read_text().count("6 scored") == 2


def test_a_dry_run_leaves_an_unfinished_run_as_it_is(pristine: Path, tmp_path: Path) -> None:
    cut(pristine, tmp_path, 2)
    before = (tmp_path / JOURNAL).read_bytes()
    assert score(pristine, tmp_path, dry_run=True, reference_date=dt.date(2019, 7, 1)).code == 0
    assert names(tmp_path) == LEFT
    assert (tmp_path / JOURNAL).read_bytes() == before


def test_the_reference_bundle_goes_on_too_and_another_starts_over(pristine: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    cut(pristine, out, 2, bundle=REFERENCE)
    cut(pristine, out, 1, bundle=REFERENCE)
    outcome = score(pristine, out, bundle=REFERENCE)
    assert outcome.record["kept_from_earlier_starts"] == 3
    assert outcome.csv_bytes == score(pristine, tmp_path / "fresh", bundle=REFERENCE).csv_bytes
    cut(pristine, out, 2, bundle=REFERENCE)
    assert score(pristine, out).record["started_over"] == "the unfinished run had another bundle"


def test_a_bundle_moved_to_another_folder_goes_on(plain: Outcome, pristine: Path, tmp_path: Path) -> None:
    shutil.copytree(TINY, tmp_path / "bundle")
    cut(pristine, tmp_path / "out", 2)
    outcome = score(pristine, tmp_path / "out", bundle=tmp_path / "bundle")
    assert outcome.record["kept_from_earlier_starts"] == 2
    assert outcome.csv_bytes == plain.csv_bytes


def test_a_picture_rejected_for_another_reason_is_a_change(cohort: Path, tmp_path: Path) -> None:
    picture = keep_patients(cohort, "S001", "S002") / "S001/zz.jpg"
    picture.write_bytes(b"")
    cut(cohort, tmp_path / "out", 1)
    picture.unlink()
    picture.mkdir()
    fresh = score(cohort, tmp_path / "fresh")
    assert score(cohort, tmp_path / "out").csv_bytes == fresh.csv_bytes
