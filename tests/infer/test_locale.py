"""In every locale, file names are bytes, mostly UTF-8, and output is UTF-8.

The tests create the locales if the tool exists; otherwise all of them are plain ASCII, which every machine has.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from infer.machine.encoding import use_utf8
from tests.infer.runs import LEFT, RESULT_FILES, TABLE, TINY, Outcome, link_cohort, names
from tests.infer.test_machine import ended, finished, popen, wait_for_patients
from tests.soak import write_linked_cohort

ROOT = Path(__file__).parents[2]
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
# One single-byte encoding, and two multi-byte encodings in which some UTF-8 is valid text with other letters.
PLACES = {"ISO-8859-1": "fr_FR", "GB18030": "zh_CN", "EUC-JP": "ja_JP"}
NAME = "\N{LATIN CAPITAL LETTER L WITH STROKE}uk"
DATE = "--reference-date=2019-07-01"
# Printed at exit, so only by the process that finishes, not by one that was replaced by exec.
PRINT_MODE = "import atexit, sys; atexit.register(lambda: print(sys.flags.utf8_mode, sys.flags.optimize))"
PRINT_ARGUMENTS = "import atexit, os, sys; atexit.register(lambda: print([os.fsencode(one) for one in sys.argv[1:]]))"


@pytest.fixture(scope="session", params=["ASCII", *PLACES])
def locale(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment variables of a locale that is not UTF-8."""
    tool, encoding = shutil.which("localedef"), request.param
    if encoding == "ASCII" or tool is None:
        return ASCII
    name = f"{PLACES[encoding]}.{encoding}"
    folder = tmp_path_factory.mktemp("locales")
    line = [tool, "--no-archive", "-c", "-i", PLACES[encoding], "-f", encoding, str(folder / name)]
    subprocess.run(
        line, capture_output=True, check=False
    )  # warns about unusual locales, and fails without their sources
    variables = {"LC_ALL": name, "LOCPATH": str(folder)}
    return variables if mode_of(variables) == "0" else ASCII


def mode_of(variables: dict[str, str]) -> str:
    """Python's default mode in a locale: 1 for ASCII and for missing locales."""
    line = [sys.executable, "-c", "import sys; print(sys.flags.utf8_mode)"]
    return subprocess.run(line, env=variables, capture_output=True, text=True, check=False).stdout.strip()


def infer(variables: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[bytes]:
    return python(variables, "-m", "infer", *arguments)


def python(variables: dict[str, str], *line: object) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, *(one if isinstance(one, bytes) else str(one) for one in line)]
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, timeout=120, check=False)


def options(out: object) -> list[object]:
    return [out, "--device=cpu", "--bundle", TINY, DATE]


@pytest.fixture
def named(pristine: Path, tmp_path: Path) -> Path:
    """S001 has a name outside most encodings, and its pictures have names that are and are not UTF-8."""
    folder = link_cohort(pristine, tmp_path / "patients")
    text = (folder / TABLE).read_text(encoding="utf-8")
    (folder / TABLE).write_text(text.replace("S001", NAME), encoding="utf-8")
    (folder / "S001").rename(folder / NAME)
    (folder / NAME / "000000.jpg").rename(folder / NAME / "0\N{GREEK SMALL LETTER ALPHA}.jpg")
    (folder / NAME / "000001.jpg").rename(folder / NAME / os.fsdecode(b"1\xe9\\.jpg"))
    return folder


def test_names_outside_the_locale_cost_nobody(locale: dict[str, str], named: Path, tmp_path: Path) -> None:
    done = infer({"LC_ALL": "C.UTF-8"}, named, *options(tmp_path / "plain"))
    assert done.returncode == 0, done.stderr
    plain = Outcome(0, tmp_path / "plain")
    assert plain.predictions[NAME]["status"] == "scored"
    out = os.fsencode(tmp_path) + b"/\x83\\\xe9"
    done = infer(locale, named, *options(out))
    assert done.returncode == 0, done.stderr
    assert Outcome(0, Path(os.fsdecode(out))).csv_bytes == plain.csv_bytes


def test_a_name_in_the_log_is_utf8(locale: dict[str, str], named: Path, tmp_path: Path) -> None:
    shutil.rmtree(named / NAME)
    done = infer(locale, named, *options(tmp_path / "out"))
    assert done.returncode == 3
    assert f"{NAME} failed (folder_missing)" in done.stderr.decode("utf-8")
    assert f"{NAME} failed (folder_missing)" in (tmp_path / "out/run.log").read_text(encoding="utf-8")


def test_arguments_go_through_as_bytes(locale: dict[str, str], tmp_path: Path) -> None:
    """Decoding and encoding again in the locale's encoding would change some bytes."""
    arguments = [NAME.encode(), b"", b"\xe9", b"\x83\\\xff~", b"a b\n'\"$x", b"\x9d\xdd", b""]
    (tmp_path / "sitecustomize.py").write_text(PRINT_ARGUMENTS)
    done = infer(locale | {"PYTHONPATH": str(tmp_path)}, "--help", *arguments)
    assert done.stdout.splitlines()[-1].decode() == str([b"--help", *arguments])


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), (["--unknown"], 2), ([f"nowhere/{NAME}", "out"], 4)])
def test_exit_codes_and_messages_are_the_same(locale: dict[str, str], arguments: list[str], code: int) -> None:
    plain = infer({"LC_ALL": "C.UTF-8"}, *arguments)
    done = infer(locale, *arguments)
    assert plain.returncode == code
    assert (done.returncode, done.stdout, done.stderr) == (code, plain.stdout, plain.stderr)


@pytest.mark.parametrize("package", ["infer", "train", "export"])
@pytest.mark.parametrize("flags", [(), ("-X", "utf8=0"), ("-Xutf8=0",), ("-X", "utf8=0", "-X", "utf8"), ("-OOuB",)])
def test_all_command_lines_start_again_with_the_same_flags(
    locale: dict[str, str], package: str, flags: tuple[str, ...], tmp_path: Path
) -> None:
    """Without torch, train exits immediately, but it is in UTF-8 mode by then."""
    (tmp_path / "sitecustomize.py").write_text(PRINT_MODE)
    done = python(locale | {"PYTHONPATH": str(tmp_path)}, *flags, "-m", package, "--help")
    assert done.stdout.splitlines()[-1].decode() == f"1 {2 if '-OOuB' in flags else 0}"


@pytest.mark.parametrize(
    "variables", [{"LC_ALL": "C.UTF-8"}, {"LC_ALL": "C"}, {}, {"PYTHONUTF8": "1"} | {"LC_ALL": "C"}]
)
def test_where_all_is_utf8_nothing_is_started_again(variables: dict[str, str]) -> None:
    assert started_again(variables) == b"False"


def test_elsewhere_it_is(locale: dict[str, str]) -> None:
    assert started_again(locale) == b"True"


def started_again(variables: dict[str, str]) -> bytes:
    program = (
        "import os; from infer.machine.encoding import use_utf8; tries = []\n"
        "def execv(*call): tries.append(call); raise OSError\n"
        "os.execv = execv; use_utf8(); print(len(tries) == 1)"
    )
    done = python(variables, "-c", program)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_it_never_starts_again_twice() -> None:
    """Even if Python's mode did not change."""
    program = (
        "import os, sys; from types import SimpleNamespace; from infer.machine import encoding\n"
        "os.execv = lambda *_: print('again'); encoding.sys = SimpleNamespace(flags=SimpleNamespace(utf8_mode=0), "
        "getfilesystemencoding=lambda: 'latin-1', executable=sys.executable, orig_argv=sys.orig_argv)\n"
        "encoding.use_utf8()"
    )
    assert python(ASCII, "-c", program).stdout == b"again\n"
    assert python(ASCII, "-X", "utf8", "-c", program).stdout == b""


def test_this_process_is_left_alone() -> None:
    use_utf8()


@pytest.mark.parametrize("redirect", ["2>&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_closed_and_full_streams_stay_what_they_are(named: Path, tmp_path: Path, redirect: str) -> None:
    line = f'{sys.executable} -m infer "$0" "$1" --device cpu --bundle "$2" {DATE} {redirect}'
    command = ["bash", "-c", line, str(named), str(tmp_path / "out"), str(TINY)]
    done = subprocess.run(command, cwd=ROOT, env=ASCII | {"PATH": os.environ["PATH"]}, check=False, timeout=120)
    assert done.returncode == 0
    assert Outcome(0, tmp_path / "out").predictions[NAME]["status"] == "scored"


def end_it(process: "subprocess.Popen[str]", out: Path, sent: signal.Signals) -> int:
    wait_for_patients(process, out, 3)
    process.send_signal(sent)
    return ended(process)[0]


@pytest.mark.parametrize(
    ("sent", "ignored", "code"),
    [(signal.SIGTERM, False, 143), (signal.SIGINT, False, 130), (signal.SIGINT, True, 0)],
)
def test_signals_reach_the_run(pristine: Path, tmp_path: Path, sent: signal.Signals, ignored: bool, code: int) -> None:
    """The process ID is the same, and signals ignored by the caller are still ignored."""
    write_linked_cohort(tmp_path / "patients", pristine, 250)
    out = tmp_path / "out"
    line = [sys.executable, "-m", "infer", str(tmp_path / "patients"), *map(str, options(out))]
    before: Callable[[], object] | None = (lambda: signal.signal(sent, signal.SIG_IGN)) if ignored else None
    process = popen(line, env=ASCII, preexec_fn=before)
    assert end_it(process, out, sent) == code
    assert names(out) == (LEFT if code else RESULT_FILES)
    assert code == 0 or finished(out) >= 3
