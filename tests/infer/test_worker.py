"""The decoding processes: their answers equal those of `look`, and a crash costs no more than it should.

Faults are injected from outside: Python runs a sitecustomize.py found on its path, and this one changes what Pillow
does with pictures that end with a given word. Bytes after a JPEG's end are not part of the picture.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from infer.errors import WorkerError
from infer.pictures.decode import RejectedImage, try_picture
from infer.pictures.look import DecodedPicture, look
from infer.pictures.pool import DecodingPool
from infer.pictures.worker import DecodingProcess
from tests.infer.runs import TINY, Outcome, keep_patients, names, replace_picture, score, verdict
from tests.infer.test_machine import ROOT, ended, start
from tests.soak import write_linked_cohort

WORD = b"fault"
AT_THE_WORD = """
import os, signal, sys
from PIL import Image
works = Image.open
def opened(file, *arguments, **named):
    if file.getvalue().endswith(b"fault"):
        {fault}
    return works(file, *arguments, **named)
Image.open = opened
"""
SEGMENTATION_FAULT = "os.kill(os.getpid(), signal.SIGSEGV)"
KILLED = "os.kill(os.getpid(), signal.SIGKILL)"


@pytest.fixture
def in_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Runs a program at the start of every decoding process and of every run started by a test."""

    def put(program: str) -> None:
        folder = tmp_path / "before"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(program)
        monkeypatch.setenv("PYTHONPATH", str(folder))

    return put


def with_the_word(path: Path) -> None:
    replace_picture(path, path.read_bytes() + WORD)


def children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def lives(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(pids: list[int]) -> bool:
    """Whether these processes end within a minute."""
    deadline = time.monotonic() + 60
    while any(map(lives, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not any(map(lives, pids))


def same(one: DecodedPicture, other: DecodedPicture) -> bool:
    if isinstance(one.crop, np.ndarray):
        crops = isinstance(other.crop, np.ndarray) and np.array_equal(one.crop, other.crop)
    else:
        crops = type(one.crop) is type(other.crop) and str(one.crop) == str(other.crop)
    return crops and (one.content, one.measures) == (other.content, other.measures)


def test_a_process_sees_what_this_one_sees(cohort: Path) -> None:
    folder = cohort / "S003"
    replace_picture(folder / "text.jpg", b"no picture")
    replace_picture(folder / "empty.jpg", b"")
    replace_picture(folder / "cut.jpg", (folder / "000000.jpg").read_bytes()[:-500])
    replace_picture(folder / os.fsdecode(b"\xe9.jpg"), (folder / "000001.jpg").read_bytes())
    Image.new("RGB", (64, 64)).save(folder / "small.png")
    (folder / "folder.jpg").mkdir()
    (folder / "out.jpg").symlink_to("/etc/passwd")
    all_names = [*sorted(os.listdir(folder)), "vanished.jpg"]
    here = [look(folder / name, cohort.resolve(), 112) for name in all_names]
    assert {type(one.crop) for one in here} == {np.ndarray, RejectedImage}
    decoder = DecodingProcess(cohort.resolve(), 112)
    try:
        assert all(same(*pair) for pair in zip(decoder.look(folder, all_names), here, strict=True))
        no_crop = [name for name, one in zip(all_names, here, strict=True) if isinstance(one.crop, RejectedImage)]
        assert [str(one.crop) for one in decoder.look(folder, no_crop)] == [
            str(one.crop) for one in here if isinstance(one.crop, RejectedImage)
        ]
        assert len(no_crop) == 7
    finally:
        decoder.close()


A_BROKEN_DISK = """
import os
opens = os.open
def opened(path, *arguments, **named):
    if str(path).endswith("S003/000002.jpg"):
        raise OSError(5, "Input/output error")
    return opens(path, *arguments, **named)
os.open = opened
"""


@pytest.mark.parametrize(
    ("program", "text"),
    [(AT_THE_WORD.format(fault="raise MemoryError"), "Cannot allocate memory"), (A_BROKEN_DISK, "Input/output error")],
)
def test_what_fails_in_the_process_is_told(
    cohort: Path, in_the_process: Callable[[str], None], program: str, text: str
) -> None:
    in_the_process(program)
    with_the_word(cohort / "S003/000002.jpg")
    decoder = DecodingProcess(cohort.resolve(), 112)
    try:
        found = decoder.look(cohort / "S003", ["000001.jpg", "000002.jpg", "000003.jpg"])
    finally:
        decoder.close()
    failure = found[1].crop
    assert isinstance(failure, OSError)
    assert failure.strerror == text
    assert [isinstance(one.crop, np.ndarray) for one in found] == [True, False, True]


def test_a_picture_that_crashes_the_decoder_costs_that_picture_only(
    plain: Outcome, cohort: Path, tmp_path: Path, in_the_process: Callable[[str], None]
) -> None:
    keep_patients(cohort, "S003", "S004")
    picture = cohort / "S003/000004.jpg"
    whole = picture.read_bytes()
    replace_picture(picture, b"no picture")
    without = score(cohort, tmp_path / "without")
    replace_picture(picture, whole + WORD)
    assert (
        score(cohort, tmp_path / "whole").predictions["S003"] == plain.predictions["S003"]
    )  # the word does not change the picture
    in_the_process(AT_THE_WORD.format(fault=SEGMENTATION_FAULT))
    outcome = score(cohort, tmp_path / "out")
    assert outcome.code == 0
    assert outcome.predictions == without.predictions
    assert outcome.predictions["S004"] == plain.predictions["S004"]
    assert [row["image"] for row in outcome.images if row["status"] == "rejected"] == ["000004.jpg"]
    assert outcome.images_of("S003")["000004.jpg"] == ("rejected", "decoder_crashed")


def test_a_process_that_is_killed_each_time_fails_the_patient_and_no_other(
    plain: Outcome, cohort: Path, tmp_path: Path, in_the_process: Callable[[str], None]
) -> None:
    """As the kernel does when memory is short: the picture may be good, and half the pictures would give a number."""
    with_the_word(cohort / "S003/000004.jpg")
    in_the_process(AT_THE_WORD.format(fault=KILLED))
    outcome = score(keep_patients(cohort, "S003", "S004"), tmp_path / "out")
    assert outcome.code == 3
    assert verdict(outcome.predictions["S003"]) == ("failed", "reading_broke_off")
    assert "exit code -9" in outcome.predictions["S003"]["reason"]
    assert outcome.predictions["S004"] == plain.predictions["S004"]


@pytest.mark.parametrize("fault", [SEGMENTATION_FAULT, KILLED, "os._exit(0)"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_process_that_dies_less_often_changes_nothing(
    plain: Outcome, cohort: Path, tmp_path: Path, in_the_process: Callable[[str], None], fault: str, times: int
) -> None:
    """Once in a batch, once alone: a third crash is blamed on the picture."""
    with_the_word(cohort / "S003/000007.jpg")
    left = tmp_path / "left"
    left.write_bytes(bytes(times))
    size = f"os.path.getsize({str(left)!r})"
    in_the_process(AT_THE_WORD.format(fault=f"{size} and (os.truncate({str(left)!r}, {size} - 1), {fault})"))
    outcome = score(cohort, tmp_path / "out")
    assert left.stat().st_size == 0
    assert outcome.csv_bytes == plain.csv_bytes


def test_a_process_that_died_between_two_requests_is_started_again(cohort: Path) -> None:
    decoder = DecodingProcess(cohort.resolve(), 112)
    try:
        before = decoder.look(cohort / "S003", ["000001.jpg", "000002.jpg"])
        decoder._process.kill()
        decoder._process.wait()
        after = decoder.look(cohort / "S003", ["000001.jpg", "000002.jpg"])
    finally:
        decoder.close()
    assert all(same(*pair) for pair in zip(before, after, strict=True))


def test_what_a_library_prints_is_no_answer(
    plain: Outcome,
    cohort: Path,
    tmp_path: Path,
    in_the_process: Callable[[str], None],
    capfd: pytest.CaptureFixture[str],
) -> None:
    with_the_word(cohort / "S003/000004.jpg")
    in_the_process(AT_THE_WORD.format(fault="os.write(1, b'a warning\\n'); print('another', flush=True)"))
    assert score(cohort, tmp_path / "out").csv_bytes == plain.csv_bytes
    assert sorted(capfd.readouterr().err.split("\n")[-3:]) == ["", "a warning", "another"]


def test_the_fingerprint_of_a_picture_that_crashes_is_its_content(
    cohort: Path, in_the_process: Callable[[str], None]
) -> None:
    """Otherwise a resumed run would treat the patient as changed every time."""
    with_the_word(cohort / "S003/000004.jpg")
    in_the_process(AT_THE_WORD.format(fault=SEGMENTATION_FAULT))
    decoder = DecodingProcess(cohort.resolve(), 112)
    try:
        (found,) = decoder.look(cohort / "S003", ["000004.jpg"])
    finally:
        decoder.close()
    assert found.content == try_picture(cohort / "S003/000004.jpg", cohort.resolve())[0]


@pytest.mark.parametrize(
    ("program", "why"), [("__import__('os')._exit(3)", "exit code 3"), ("sys.modules['numpy'] = None", "exit code 1")]
)
def test_a_process_that_does_not_start_ends_the_run(
    cohort: Path, in_the_process: Callable[[str], None], program: str, why: str
) -> None:
    in_the_process(f"import sys\nif any('infer.pictures.worker' in one for one in sys.orig_argv): {program}")
    with pytest.raises(WorkerError, match=why):
        DecodingProcess(cohort.resolve(), 112)


def test_too_many_processes_are_said_to_be_that(
    cohort: Path, tmp_path: Path, in_the_process: Callable[[str], None]
) -> None:
    in_the_process(
        "import subprocess\nclass No(subprocess.Popen):\n"
        "    def __init__(self, *_, **__): raise BlockingIOError(11, 'Resource temporarily unavailable')\n"
        "    def __del__(self): pass\nsubprocess.Popen = No"
    )
    code, errors = ended(start(cohort, tmp_path / "out"))
    assert code == 1
    assert (
        "Error: a decoding process cannot be started (Resource temporarily unavailable). Use fewer --workers or "
        "--threads, raise the limit on processes (--pids-limit, ulimit -u), or give the run more memory\n" in errors
    )
    assert "Traceback" not in errors
    assert names(tmp_path / "out") == [".journal", ".run.log.part"]  # from which the next run resumes


def test_a_run_leaves_no_process(pristine: Path, tmp_path: Path) -> None:
    before = children(os.getpid())
    assert score(pristine, tmp_path / "out", bundle=TINY, workers=3).code == 0
    assert children(os.getpid()) == before


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_ended_takes_its_processes_along(pristine: Path, tmp_path: Path, how: signal.Signals) -> None:
    write_linked_cohort(tmp_path / "patients", pristine, 250)
    process = start(tmp_path / "patients", tmp_path / "out")
    deadline = time.monotonic() + 120
    workers: list[int] = []
    # Shortly after their start they are in their own session, which a terminal's Ctrl-C does not reach.
    while not workers or any(os.getsid(worker) != worker for worker in workers):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
        workers = children(process.pid)
    process.send_signal(how)
    ended(process)
    assert gone(workers)


def test_what_is_printed_as_python_starts_is_passed_over(
    plain: Outcome, pristine: Path, tmp_path: Path, in_the_process: Callable[[str], None]
) -> None:
    in_the_process("print('welcome')")
    assert score(pristine, tmp_path / "out").csv_bytes == plain.csv_bytes


def test_a_closed_log_does_not_bring_what_is_printed_among_the_answers(
    cohort: Path, tmp_path: Path, in_the_process: Callable[[str], None]
) -> None:
    with_the_word(cohort / "S003/000004.jpg")
    in_the_process(AT_THE_WORD.format(fault="os.write(2, b'a warning\\n')"))
    line = f'{sys.executable} -m infer "$0" "$1" --device cpu --bundle "$2" --reference-date 2019-07-01 2>&-'
    done = subprocess.run(["bash", "-c", line, cohort, tmp_path / "out", TINY], cwd=ROOT, check=False, timeout=120)
    assert done.returncode == 0


def test_names_are_read_as_the_run_reads_them(cohort: Path, tmp_path: Path) -> None:
    """In another encoding, a name would mean a missing file, and the patient would be scored without it."""
    (cohort / "S003/000000.jpg").rename(cohort / "S003/\N{LATIN SMALL LETTER E WITH ACUTE}.jpg")
    keep_patients(cohort, "S003")
    line = [sys.executable, "-X", "utf8", "-m", "infer", str(cohort), str(tmp_path / "out"), "--device=cpu"]
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([*line, f"--bundle={TINY}"], cwd=ROOT, env=environment, check=False, timeout=120)
    assert done.returncode == 0
    assert Outcome(0, tmp_path / "out").predictions["S003"]["images_rejected"] == "0"


ASLEEP = "__import__('time').sleep(600)"


def test_a_run_that_is_stopped_does_not_wait_for_pictures(
    cohort: Path, tmp_path: Path, in_the_process: Callable[[str], None]
) -> None:
    """Nor for others in the same request, or on an unavailable share."""
    for path in (cohort / "S002").iterdir():
        with_the_word(path)
    in_the_process(AT_THE_WORD.format(fault=ASLEEP))
    process = start(cohort, tmp_path / "out")
    deadline = time.monotonic() + 120
    while not (workers := children(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(1)  # so that it waits for an answer
    process.send_signal(signal.SIGTERM)
    begin = time.monotonic()
    assert ended(process)[0] == 143
    assert time.monotonic() - begin < 60  # and not ten minutes
    assert gone(workers)


def test_a_picture_that_hangs_fails_its_patient(
    plain: Outcome, cohort: Path, tmp_path: Path, in_the_process: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infer.pictures.worker.LIMIT", 5.0)  # longer than other pictures need on a busy machine
    with_the_word(cohort / "S003/000004.jpg")
    in_the_process(AT_THE_WORD.format(fault=ASLEEP))
    outcome = score(keep_patients(cohort, "S003", "S004"), tmp_path / "out")
    assert outcome.code == 3
    assert verdict(outcome.predictions["S003"]) == ("failed", "reading_broke_off")
    assert outcome.predictions["S004"] == plain.predictions["S004"]


def test_a_process_in_an_unknown_state_is_not_asked_again(cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data left in its pipe would be read as the answer to the next request."""
    folder, names_ = cohort / "S003", ["000001.jpg"]
    decoders = DecodingPool(cohort.resolve(), 112, 1)
    try:
        (expected,) = decoders.look(folder, names_).result()
        monkeypatch.setattr("infer.pictures.worker.np.empty", no_memory)
        with pytest.raises(MemoryError):
            decoders.look(folder, ["000002.jpg"]).result()
        monkeypatch.undo()
        (found,) = decoders.look(folder, names_).result()
    finally:
        decoders.close()
    assert same(found, expected)


def no_memory(*_: object) -> None:
    raise MemoryError


def test_those_that_started_do_the_work_of_those_that_cannot(cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    works, started = DecodingProcess.__init__, 0

    def one_alone(self: DecodingProcess, root: Path, size: int, scale: float, checked: bool) -> None:
        nonlocal started
        started += 1
        if started > 1:
            raise WorkerError("no more")
        works(self, root, size, scale, checked)

    monkeypatch.setattr(DecodingProcess, "__init__", one_alone)
    folder = cohort / "S003"
    decoders = DecodingPool(cohort.resolve(), 112, 3)
    try:
        all_names = sorted(os.listdir(folder))
        futures = [decoders.look(folder, [name]) for name in all_names]
        found = [future.result(timeout=120)[0] for future in futures]
    finally:
        decoders.close()
    assert started > 1
    assert all(
        same(one, look(folder / name, cohort.resolve(), 112)) for one, name in zip(found, all_names, strict=True)
    )


def test_a_python_error_in_the_process_has_its_own_exit_code(
    cohort: Path, in_the_process: Callable[[str], None]
) -> None:
    """Not that of a killed process, which suggests too little memory."""
    with_the_word(cohort / "S003/000004.jpg")
    in_the_process(AT_THE_WORD.format(fault="raise KeyboardInterrupt"))
    decoder = DecodingProcess(cohort.resolve(), 112)
    try:
        (found,) = decoder.look(cohort / "S003", ["000004.jpg"])
    finally:
        decoder.close()
    assert "exit code -2" in str(found.crop)


def test_where_none_can_be_started_nobody_waits(cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        time.sleep(0.05)  # so that they try at the same time
        raise WorkerError("no more")

    monkeypatch.setattr(DecodingProcess, "__init__", none)
    decoders = DecodingPool(cohort.resolve(), 112, 3)
    futures = [decoders.look(cohort / "S003", ["000001.jpg"]) for _ in range(3)]
    for future in futures:
        with pytest.raises(WorkerError, match="no more"):
            future.result(timeout=60)
    decoders.close()
