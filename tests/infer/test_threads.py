"""If threads cannot be started, the run ends with 1 and says why, and no finished patient is lost.

Two cases: the kernel refuses every thread, as under the seccomp profile of an old Docker; or the number of threads in
this process is limited, as under a limit on processes.
"""

import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from infer.bundle.load import load_bundle
from infer.engine.sessions import CPU, Device, Graph
from infer.errors import ThreadError
from infer.machine.processors import check_threads
from tests.infer.runs import LEFT, RESULT_FILES, TINY, Outcome, names, score, score_on_a_fixed_day
from tests.infer.test_machine import ROOT, ended, finished, start, wait_for_patients

ADVICE = (
    "The limit on processes is too low (--pids-limit, ulimit -u), memory is short, or Docker is older than 20.10.10 "
    "and its seccomp profile forbids clone3. Raise the limit, use fewer --threads, give the run more memory, or update "
    "Docker"
)
ERROR = f"Error: a thread cannot be started (can't start new thread). {ADVICE}\n"
DEVICE = Device(CPU, "test")

# A seccomp filter (https://docs.kernel.org/userspace-api/seccomp_filter.html): clone3, and clone for a thread
# (CLONE_THREAD), are not permitted, but processes are. The given program then runs under it.
WITHOUT_THREADS = """
import ctypes, os, struct, sys

LOAD, EQUAL, HAS, RETURN = 0x20, 0x15, 0x45, 0x06
ALLOW, NOT_PERMITTED = 0x7FFF0000, 0x00050000 | 1
steps = [
    (LOAD, 0, 0, 0),  # the call's number
    (EQUAL, 4, 0, 435),  # clone3: to the last line
    (EQUAL, 0, 2, 56),  # not clone: to the line before the last
    (LOAD, 0, 0, 16),  # clone's flags
    (HAS, 1, 0, 0x10000),  # for a thread: to the last line
    (RETURN, 0, 0, ALLOW),
    (RETURN, 0, 0, NOT_PERMITTED),
]
code = b"".join(struct.pack("HBBI", *step) for step in steps)
class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]
kernel = ctypes.CDLL(None, use_errno=True)
NO_NEW_PRIVILEGES, SECCOMP, FILTER = 38, 22, 2
refused = kernel.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
if refused or kernel.prctl(SECCOMP, FILTER, ctypes.byref(Filter(len(steps), code))):
    sys.exit(f"no filter: errno {ctypes.get_errno()}")
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""

# Limits the number of threads besides the first.
FEW_THREADS = """
import sys, threading
from infer import cli

most, *arguments = sys.argv[1:]
starts = threading.Thread.start

def start(thread):
    if threading.active_count() > int(most):
        raise RuntimeError("can't start new thread")
    starts(thread)

threading.Thread.start = start
sys.argv = ["infer", *arguments]
cli.main()
"""


def python(*line: object) -> subprocess.CompletedProcess[str]:
    """A timeout of two minutes: something may wait forever for a missing thread."""
    command = [sys.executable, *map(str, line)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def without_threads(*line: object) -> subprocess.CompletedProcess[str]:
    return python("-c", WITHOUT_THREADS, *line)


def few_threads(most: int, cohort: Path, out: Path, *options: object) -> subprocess.CompletedProcess[str]:
    line = [cohort, out, "--device=cpu", "--bundle", TINY, "--reference-date=2019-07-01", *options]
    return python("-c", FEW_THREADS, most, *line)


def test_the_filter_keeps_threads_and_lets_processes_go() -> None:
    """Otherwise the tests below would prove nothing."""
    program = (
        "import subprocess, sys, threading\n"
        "print(subprocess.run(['echo', 'a process'], capture_output=True, start_new_session=True).stdout.decode())\n"
        "threading.Thread(target=print).start()"
    )
    done = without_threads("-c", program)
    assert done.stdout == "a process\n\n"
    assert done.stderr.endswith("RuntimeError: can't start new thread\n")


@pytest.mark.parametrize("options", [(), ("--dry-run",), ("--workers=3", "--threads=5"), ("--threads=40",)])
def test_a_run_without_threads_says_why_and_touches_nothing(
    pristine: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """An earlier run's results still exist."""
    earlier = score(pristine, tmp_path, bundle=TINY)
    before = {name: (tmp_path / name).read_bytes() for name in RESULT_FILES}
    line = ["-m", "infer", pristine, tmp_path, "--device=cpu", "--bundle", TINY, "--reference-date=2019-07-01"]
    done = without_threads(*line, *options)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", ERROR)
    assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == before
    assert earlier.code == 0


@pytest.mark.parametrize("variables", [{}, {"OPENBLAS_NUM_THREADS": "4"}])
def test_numpy_starts_no_thread(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    """OpenBLAS is loaded before any message can be printed, and interrupts the process if it cannot start a thread."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    done = python("-c", "import infer.run, os; print(len(os.listdir('/proc/self/task')))")
    assert done.stdout == "1\n"
    assert without_threads("-c", "import infer.run; print('loaded')").stdout == "loaded\n"


def test_a_decoding_process_needs_no_thread(pristine: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from infer.pictures.worker import DecodingProcess\n"
        "root = Path(sys.argv[1]); decoder = DecodingProcess(root, 112)\n"
        "print(decoder.look(root / 'S001', ['000001.jpg'])[0].crop.shape); decoder.close()"
    )
    done = without_threads("-c", program, pristine)
    assert (done.returncode, done.stdout) == (0, "(112, 112, 3)\n"), done.stderr


@pytest.mark.parametrize("threads", [2, 3])
def test_onnxruntimes_own_threads_are_no_matter_of_the_bundle(threads: int) -> None:
    program = (
        "import sys; from pathlib import Path; from infer.bundle.load import load_bundle\n"
        "from infer.errors import LymphoError; from infer.engine.networks import Networks\n"
        "from infer.engine.sessions import CPU, Device\n"
        "try: Networks(load_bundle(Path(sys.argv[1])), Device(CPU, 'test'), 8, int(sys.argv[2]))\n"
        "except LymphoError as error: print(type(error).__name__, error)"
    )
    done = without_threads("-c", program, TINY, threads)
    assert done.stdout == f"ThreadError {ERROR.removeprefix('Error: ')}"


def test_onnxruntime_is_not_asked_where_it_would_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it can start only some of its threads, it hangs."""
    starts, before = threading.Thread.start, threading.active_count()

    def start_one(thread: threading.Thread) -> None:
        if threading.active_count() > before:
            raise RuntimeError("can't start new thread")
        starts(thread)

    monkeypatch.setattr(threading.Thread, "start", start_one)
    graph = load_bundle(TINY).graphs["moe_head.onnx"]
    assert Graph("head", graph, DEVICE, 2).nodes
    with pytest.raises(ThreadError):
        Graph("head", graph, DEVICE, 3)


@pytest.mark.parametrize("threads", [1, 4])
def test_what_onnxruntime_says_of_threads_is_understood(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    """Another program may have used up the threads in the meantime."""

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError(
            "/onnxruntime_src/onnxruntime/core/platform/posix/env.cc:327 PosixThread::PosixThread(const char*, int) "
            "pthread_create failed, error code: 11 error msg: Resource temporarily unavailable\n"
        )

    monkeypatch.setattr(onnxruntime, "InferenceSession", fails)
    with pytest.raises(ThreadError, match=re.escape("cannot be started (Resource temporarily unavailable). ")):
        Graph("head", b"", DEVICE, threads)


def test_looking_whether_threads_can_be_started_leaves_none() -> None:
    tasks = Path("/proc/self/task")
    before = len(list(tasks.iterdir()))
    for number in (0, 1, 50):
        check_threads(number)
        assert len(list(tasks.iterdir())) == before


@pytest.mark.parametrize("most", [0, 1, 2])
def test_too_few_threads_are_found_out_before_the_output_is_touched(pristine: Path, tmp_path: Path, most: int) -> None:
    done = few_threads(most, pristine, tmp_path / "out", "--threads=2")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", ERROR)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("most", "enough"), [(3, False), (4, False), (5, True)])
def test_a_thread_that_is_missing_later_ends_the_run(
    many: Path, whole: Outcome, tmp_path: Path, most: int, enough: bool
) -> None:
    """Two for batches and three waiting for pictures: the run neither hangs nor leaves partial results."""
    done = few_threads(most, many, tmp_path, "--threads=2", "--workers=3")
    if not enough:
        assert done.returncode == 1
        assert done.stderr.endswith(ERROR)
        assert "Traceback" not in done.stderr
        assert names(tmp_path) == LEFT
        score_on_a_fixed_day(many, tmp_path)
    assert Outcome(0, tmp_path).csv_bytes == whole.csv_bytes
    assert names(tmp_path) == RESULT_FILES


@pytest.mark.parametrize("most", [0, 3])
def test_finished_patients_are_kept(many: Path, whole: Outcome, tmp_path: Path, most: int) -> None:
    """An interrupted run is resumed first with too few threads, and then with enough."""
    process = start(many, tmp_path)
    wait_for_patients(process, tmp_path, 3)
    process.kill()
    ended(process)
    kept = finished(tmp_path)
    done = few_threads(most, many, tmp_path, "--threads=2", "--workers=3")
    assert done.returncode == 1
    assert done.stderr.endswith(ERROR)
    assert finished(tmp_path) >= kept >= 3
    outcome = score_on_a_fixed_day(many, tmp_path)
    assert outcome.record["kept_from_earlier_starts"] >= kept
    assert outcome.csv_bytes == whole.csv_bytes


def test_another_runtime_error_is_a_bug_as_before() -> None:
    program = (
        "from infer import cli\n"
        "def fails(**_): raise RuntimeError('something else')\n"
        "cli.command.main = fails; cli.main()"
    )
    done = python("-c", program)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert done.stderr.endswith("RuntimeError: something else\n")
