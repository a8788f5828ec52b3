import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from infer.output.journal import FORMAT, JOURNAL, Header, Identity, Journal, Place, read_journal
from infer.scoring.result import ImageResult, PatientResult, Scores
from tests.fuzz import fuzz

HEADER = Header(
    FORMAT, Identity("0.1.0", "libraries", "bundle", "balanced", None, "%d.%m.%Y", "numerics"), "2019-07-01"
)
RESULT = PatientResult(
    patient_id="P1",
    status="scored",
    reason="",
    age_years=69.5,
    scores=Scores(0.5, "refer", {"scan": 0.25, "moe": 1.0}, {"moe_image_gate": 0.1}, None, 0.0076),
    images=(ImageResult("\udcff.jpg", "empty: x"), ImageResult("1.jpg", "", {"cell_class": 14, "contribution": 2.0})),
    fingerprint="f1",
    ignored_files=3,
    unusual_sizes={"168 x 168": 2},
    pictures_below=("slide2",),
    contents=("0a", "0b"),
    unusual=("age_years high", "sharpness low"),
)
UNSCORED = PatientResult("P2", "failed", "folder_missing: x", None, None, (), "f2")
texts = st.text(st.characters(codec=None, categories=None))  # lone surrogates too: file names need not be UTF-8


def started(path: Path, *results: PatientResult) -> Journal:
    journal = Journal(path, HEADER, "now", None)
    for result in results:
        journal.append(result)
    return journal


def of(patient_id: str) -> PatientResult:
    return structs.replace(RESULT, patient_id=patient_id)


def test_what_is_written_reads_back_the_same(tmp_path: Path) -> None:
    with started(tmp_path / JOURNAL) as journal:
        first, second = journal.append(RESULT), journal.append(UNSCORED)
        assert (journal.result(first), journal.result(second)) == (RESULT, UNSCORED)
        kinds = [type(value) for value in journal.result(first).images[1].values.values()]
        assert kinds == [int, float]  # 2.0 must not become 2, nor 14 become 14.0: their text differs
    stored = read_journal(tmp_path / JOURNAL)
    assert stored is not None
    assert (stored.header, stored.starts) == (HEADER, ("now",))
    assert stored.places == {"P1": Place(first, "f1", "scored"), "P2": Place(second, "f2", "failed")}
    assert stored.end == (tmp_path / JOURNAL).stat().st_size
    with Journal(tmp_path / JOURNAL, HEADER, "later", stored) as journal:
        assert journal.result(second) == UNSCORED
        third = journal.append(structs.replace(RESULT, fingerprint="f3"))
    again = read_journal(tmp_path / JOURNAL)
    assert again is not None
    assert (again.starts, again.places["P1"]) == (("now", "later"), Place(third, "f3", "scored"))


@given(texts, texts, st.dictionaries(texts, st.integers(0, 10**9)))
def test_any_text_reads_back_the_same(
    tmp_path_factory: pytest.TempPathFactory, patient_id: str, image: str, sizes: dict[str, int]
) -> None:
    images = (ImageResult(image, image, dict(sizes)),) * 3000
    result = structs.replace(RESULT, patient_id=patient_id, reason=image, images=images, unusual_sizes=sizes)
    with started(tmp_path_factory.mktemp("journal") / JOURNAL) as journal:
        offset = journal.append(result)
        assert journal.result(offset) == result


@given(st.floats(), st.floats(), st.integers(-(2**63), 2**63))
def test_any_number_reads_back_the_same(
    tmp_path_factory: pytest.TempPathFactory, number: float, other: float, whole: int
) -> None:
    """NaN and infinity too: the patient fails, but its pictures are in the journal."""
    values = {"a": number, "b": whole}
    scores = Scores(number, "refer", {"scan": other}, {"gate": number})
    result = structs.replace(RESULT, age_years=other, scores=scores, images=(ImageResult("1.jpg", "", values),))
    with started(tmp_path_factory.mktemp("journal") / JOURNAL) as journal:
        assert repr(journal.result(journal.append(result))) == repr(
            result
        )  # compared as text, because NaN differs from itself


def test_a_journal_cut_anywhere_keeps_what_was_whole(tmp_path: Path) -> None:
    path = tmp_path / JOURNAL
    with started(path, RESULT, of("P2"), of("P3")):
        data = path.read_bytes()
    ends = [index + 1 for index, byte in enumerate(data) if byte == ord("\n")]
    assert len(ends) == 5
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        stored = read_journal(path)
        whole = sum(end <= length for end in ends)
        assert (stored is None) == (whole < 1)
        if stored:
            assert list(stored.places) == ["P1", "P2", "P3"][: max(0, whole - 2)]
            assert stored.end == ends[whole - 1]


def test_any_changed_byte_ends_what_counts(tmp_path: Path) -> None:
    path = tmp_path / JOURNAL
    with started(path, RESULT, of("P2")):
        data = path.read_bytes()
    second = data.index(b"\n", data.index(b'"P1"')) + 1
    for place in range(second, len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        stored = read_journal(path)
        assert stored is not None
        assert (list(stored.places), stored.end) == (["P1"], second)


def test_going_on_cuts_away_what_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / JOURNAL
    with started(path, RESULT):
        data = path.read_bytes()
    path.write_bytes(data + b"0123 {half" * 1000)
    stored = read_journal(path)
    assert stored is not None
    with Journal(path, HEADER, "later", stored) as journal:
        journal.append(of("P2"))
    again = read_journal(path)
    assert again is not None
    assert list(again.places) == ["P1", "P2"]
    assert path.read_bytes().startswith(data)
    assert again.end == path.stat().st_size


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"00000000 \n", b"0d4cbb29 []\n", b"{}\n", b"\0" * 100, b"patient_id,status\n"]
)
def test_what_is_no_journal_does_not_count(tmp_path: Path, data: bytes) -> None:
    assert read_journal(tmp_path / JOURNAL) is None
    (tmp_path / JOURNAL).write_bytes(data)
    assert read_journal(tmp_path / JOURNAL) is None


def test_another_format_does_not_count(tmp_path: Path) -> None:
    with Journal(tmp_path / JOURNAL, replace(HEADER, format=FORMAT + 1), "now", None):
        pass
    assert read_journal(tmp_path / JOURNAL) is None


@fuzz(200)
@given(st.data())
def test_any_damage_is_cut_away(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Whatever happened to the file, everything read from it was written by a run, and a run can resume from it."""
    path = tmp_path_factory.mktemp("journal") / JOURNAL
    written = [RESULT, of("P2"), of("P3")]
    with started(path, *written):
        text = path.read_bytes()
    at = data.draw(st.integers(0, len(text)))
    until = data.draw(st.integers(at, len(text)))
    path.write_bytes(text[:at] + data.draw(st.binary(max_size=20)) + text[until:])
    stored = read_journal(path)
    if stored is None:
        return
    with Journal(path, HEADER, "later", stored) as journal:
        assert all(journal.result(place.offset) in written for place in stored.places.values())
        journal.append(of("P4"))
    again = read_journal(path)
    assert again is not None
    assert list(again.places) == [*stored.places, "P4"]


class Stopping:
    """A file that accepts `room` more bytes, a few at a time, and then raises an error."""

    def __init__(self, file: Any, room: int, end: BaseException) -> None:
        self._file, self._room, self._end = file, room, end

    def write(self, data: memoryview) -> int:
        part = data[: min(self._room, 7)]
        self._room -= self._file.write(part)
        if not self._room:
            raise self._end
        return len(part)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


FULL = OSError(errno.ENOSPC, "No space left on device")


def places(path: Path) -> list[str]:
    stored = read_journal(path)
    assert stored is not None
    return list(stored.places)


@pytest.mark.parametrize("end", [FULL, SystemExit(143)])
def test_an_entry_cut_short_leaves_what_was_whole(tmp_path: Path, end: BaseException) -> None:
    path = tmp_path / JOURNAL
    with started(path, RESULT) as journal:
        whole = journal._file
        journal._file = Stopping(whole, 100, end)  # type: ignore[assignment]
        with pytest.raises(type(end)):
            journal.append(of("P2"))
        assert places(path) == ["P1"]
        journal._file = whole
        journal.append(of("P3"))
    assert places(path) == ["P1", "P3"]


def test_an_entry_that_is_whole_when_a_signal_comes_counts(tmp_path: Path) -> None:
    """Other processes may have seen it in the file: it must not be removed again."""
    path = tmp_path / JOURNAL
    with started(path, RESULT) as journal:
        begin = path.stat().st_size
        journal.append(of("P2"))
        room = path.stat().st_size - begin
        journal._file = Stopping(journal._file, room, SystemExit(143))  # type: ignore[assignment]
        with pytest.raises(SystemExit):
            journal.append(of("P3"))
    assert places(path) == ["P1", "P2", "P3"]


@pytest.mark.parametrize("put_in_its_place", [False, True])
def test_a_journal_taken_away_is_noticed(tmp_path: Path, put_in_its_place: bool) -> None:
    path = tmp_path / JOURNAL
    with started(path) as journal:
        path.rename(tmp_path / "away")
        if put_in_its_place:
            path.write_bytes(b"")
        journal._synced = 0.0  # as if a second had passed
        with pytest.raises(FileNotFoundError) as caught:
            journal.append(RESULT)
    assert caught.value.filename == str(path)


def test_an_entry_that_the_disk_changed_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / JOURNAL
    with started(path) as journal:
        offset = journal.append(RESULT)
        with path.open("r+b") as file:
            file.seek(offset + 60)
            file.write(b"\xff")
        with pytest.raises(OSError, match="cannot be read back"):
            journal.result(offset)
        with pytest.raises(OSError, match="cannot be read back"):
            journal.result(os.fstat(journal._file.fileno()).st_size)


def test_a_disk_that_fails_at_the_end_does_not_hide_what_ended_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    path = tmp_path / JOURNAL
    journal = started(path, RESULT)
    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(SystemExit), journal:
        raise SystemExit(143)
    assert places(path) == ["P1"]


@pytest.mark.parametrize(("number", "says"), [(errno.EINVAL, "files (Invalid argument)"), (errno.EIO, None)])
def test_a_file_system_that_cannot_sync_ends_nothing_and_a_disk_that_fails_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, says: str | None
) -> None:
    def fails(_: int) -> None:
        raise OSError(number, os.strerror(number))

    path = tmp_path / JOURNAL
    with started(path) as journal:
        assert journal.unsynced == ""
        monkeypatch.setattr(os, "fsync", fails)
        journal._synced = 0.0  # as if a second had passed
        if says is None:
            with pytest.raises(OSError, match="Input/output error"):
                journal.append(RESULT)
        else:
            journal.append(RESULT)
            monkeypatch.undo()
            journal._synced = 0.0
            journal.append(of("P2"))
            assert journal.unsynced == says
            assert places(path) == ["P1", "P2"]
