"""The images named by LYMPHO_IMAGE and LYMPHO_RAY_IMAGE, run as in a hospital: locked up, and not as root."""

import csv
import json
import os
import shutil
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from export.supply.installed import one_name
from infer.bundle.load import REFERENCE
from infer.output.journal import JOURNAL, read_journal
from infer.output.names import LAST_RUN
from tests.infer.runs import csv_bytes, names
from tests.soak import write_linked_cohort
from tests.synthetic import make_patients, write_cohort

IMAGE = os.environ.get("LYMPHO_IMAGE", "")
RAY_IMAGE = os.environ.get("LYMPHO_RAY_IMAGE", "")
REAL = os.environ.get("LYMPHO_REAL_PATIENTS", "")
ROOT = Path(__file__).parents[2]
TABLE = "clinical_annotation.csv"
DATE = ("--reference-date", "2019-07-01")
LOCKED = ("--network=none", "--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--memory=1g")
# Results are readable for their group: here the caller's, so that the tests can read them without being root.
GROUP = os.getgid()
MANY = 100  # patients of 16 pictures: a run must take longer than another run's start
RESULTS = [".results", "drift.json", "images.csv", "predictions.csv", "run.json", "run.log"]

both_images = pytest.mark.parametrize("image", [pytest.param(IMAGE, id="plain"), pytest.param(RAY_IMAGE, id="ray")])
real_patients = pytest.mark.skipif(not REAL, reason="LYMPHO_REAL_PATIENTS names no cohort")


def docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=600, check=False)


def score(
    patients: Path,
    out: Path,
    *options: str,
    uid: int = 1234,
    mode: str = "rw",
    mounts: tuple[str, ...] = (),
    flags: tuple[str, ...] = (),
) -> subprocess.CompletedProcess[str]:
    return docker(*score_line(patients, out, *options, uid=uid, mode=mode, mounts=mounts, flags=flags))


def score_line(
    patients: Path,
    out: Path | None,
    *options: str,
    uid: int = 1234,
    mode: str = "rw",
    mounts: tuple[str, ...] = (),
    flags: tuple[str, ...] = (),
    group: int = GROUP,
) -> list[str]:
    volumes = [f"{patients}:/data/patients:ro", *([f"{out}:/out:{mode}"] if out else []), *mounts]
    bound = [part for volume in volumes for part in ("-v", volume)]
    user = f"--user={uid}:{group}"
    return ["run", "--rm", *LOCKED, *flags, user, *bound, IMAGE, "/data/patients", "/out", *options]


def in_the_image(program: str, image: str = IMAGE) -> str:
    """The output of a program, run by the image's Python as the image's user."""
    done = docker("run", "--rm", *LOCKED, "--entrypoint=python3", image, "-c", program)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def new_folder(path: Path) -> Path:
    """Create a folder that is writable for every user."""
    path.mkdir()
    path.chmod(0o777)
    return path


@pytest.fixture(scope="module", autouse=True)
def _image_is_there() -> None:
    """A missing engine or image is a failure: these tests were explicitly requested."""
    if shutil.which("docker") is None:
        pytest.fail("there is no docker command")
    for image in (IMAGE, RAY_IMAGE):
        found = docker("image", "inspect", image)
        if found.returncode:
            pytest.fail(f"docker has no image {image!r}: {found.stderr.strip()}")


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort") / "patients"
    write_cohort(folder, make_patients(4, seed=11, images=(12, 15)), seed=11, labels=False, size=128)
    return folder


@pytest.fixture(scope="module")
def many(patients: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough patients to interrupt a run."""
    folder = tmp_path_factory.mktemp("many") / "patients"
    write_linked_cohort(folder, patients, MANY)
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return new_folder(tmp_path / "out")


def test_evidence_pages_in_the_run_and_later(patients: Path, out: Path) -> None:
    done = score(patients, out, *DATE, "--report")
    assert done.returncode == 0, done.stderr
    assert names(out) == sorted([*RESULTS, "report"])
    pages = {path.name: path.read_bytes() for path in (out / "report").iterdir()}
    assert sorted(pages) == ["index.html", *(f"p{number:05}.html" for number in range(1, 5))]
    line = score_line(patients, out, "--language=en", flags=("--entrypoint=python3",))
    at = line.index(IMAGE) + 1
    done = docker(*line[:at], "-m", "infer.report", *line[at:])
    assert done.returncode == 0, done.stderr
    assert {path.name: path.read_bytes() for path in (out / "report").iterdir()} == pages


def test_a_cohort_is_scored_to_the_same_bytes_by_any_user(patients: Path, out: Path, tmp_path: Path) -> None:
    done = score(patients, out, *DATE)
    assert done.returncode == 0, done.stderr
    assert names(out) == RESULTS
    assert {path.stat().st_mode & 0o777 for path in out.iterdir()} == {0o640}
    scored = rows(out / "predictions.csv")
    assert [row["patient_id"] for row in scored] == ["S001", "S002", "S003", "S004"]
    assert {row["status"] for row in scored} == {"scored"}
    first = csv_bytes(out)
    assert score(patients, out, *DATE).returncode == 0
    assert csv_bytes(out) == first
    other = new_folder(tmp_path / "other")
    assert score(patients, other, *DATE, uid=4321).returncode == 0
    assert csv_bytes(other) == first
    assert {path.stat().st_uid for path in other.iterdir()} == {4321}


@both_images
def test_the_image_holds_no_training_library(image: str) -> None:
    looked_for = ["torch", "torchvision", "sklearn", "scipy", "pandas", "onnx", "train", "export", "tests", "pip"]
    program = (
        f"import importlib.util as u; print([n for n in {looked_for} if u.find_spec(n)], bool(u.find_spec('infer')))"
    )
    assert in_the_image(program, image) == "[] True"


@pytest.mark.parametrize(
    ("image", "requirements"),
    [
        pytest.param(IMAGE, "infer/requirements.txt", id="plain"),
        pytest.param(RAY_IMAGE, "infer/requirements-ray.txt", id="ray"),
    ],
)
def test_the_image_holds_the_locked_packages_and_the_program_alone(image: str, requirements: str) -> None:
    lock = (ROOT / requirements).read_text(encoding="utf-8")
    locked = {one_name(line.partition("==")[0]) for line in lock.splitlines() if "==" in line}
    assert len(locked) >= 5
    program = "import importlib.metadata as m; print(*(d.metadata['Name'] for d in m.distributions()))"
    assert set(map(one_name, in_the_image(program, image).split())) <= locked
    assert in_the_image("import os; print(sorted(os.listdir('/app')))", image) == "['infer', 'sbom.cdx.json']"


@both_images
def test_the_image_is_not_root_by_itself(image: str) -> None:
    assert in_the_image("import os; print(os.getuid() > 0, os.getgid() > 0)", image) == "True True"


@both_images
def test_the_image_can_write_nowhere_of_its_own(image: str) -> None:
    program = (
        "import os\n"
        "trees = [one for place in ('/app', '/opt/lympho') for one in os.walk(place)]\n"
        "found = [os.path.join(folder, name) for folder, _, names in trees for name in [*names, '.']]\n"
        "print(len(found) > 100, [p for p in ['/', *found] if os.access(p, os.W_OK) and not os.path.islink(p)])"
    )
    done = docker("run", "--rm", "--network=none", "--entrypoint=python3", image, "-c", program)
    assert done.stdout.strip() == "True []"


def test_a_changed_byte_of_a_mounted_bundle_is_5(patients: Path, out: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(REFERENCE, bundle)
    mounts = (f"{bundle}:/bundle:ro",)
    whole = score(patients, out, *DATE, "--bundle", "/bundle", "--dry-run", mounts=mounts)
    assert whole.returncode == 0, whole.stderr
    data = bytearray((bundle / "moe_head.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / "moe_head.onnx").write_bytes(data)
    done = score(patients, out, *DATE, "--bundle", "/bundle", mounts=mounts)
    assert done.returncode == 5
    assert "/bundle/moe_head.onnx" in done.stderr
    assert names(out) == []
    last = json.loads((out / LAST_RUN).read_text())
    assert (last["exit_code"], last["results_ended"]) == (5, None)
    assert "/bundle/moe_head.onnx" in last["message"]


def test_a_missing_cohort_is_4(out: Path) -> None:
    done = docker("run", "--rm", *LOCKED, "-v", f"{out}:/out", IMAGE, "/data/patients", "/out")
    assert done.returncode == 4
    assert done.stderr == "Error: /data/patients: no such folder of patients\n"


def test_a_gpu_that_is_not_there_is_6(patients: Path, out: Path) -> None:
    done = score(patients, out, *DATE, "--device", "cuda")
    assert done.returncode == 6
    assert "--device cuda: " in done.stderr
    assert names(out) == []


def test_out_that_cannot_be_written_is_7(patients: Path, out: Path) -> None:
    done = score(patients, out, *DATE, mode="ro")
    assert done.returncode == 7
    why = "Error: /out/.lock: cannot be written (Read-only file system). It is mounted read-only. Mount it so that it"
    assert done.stderr.startswith(why)
    dry = score(patients, out, *DATE, "--dry-run", mode="ro")
    assert (dry.returncode, dry.stderr) == (7, done.stderr)


def test_a_volume_that_is_not_mounted_is_7(patients: Path) -> None:
    """OUT is then in the image, which is read-only."""
    mounted = ("-v", f"{patients}:/data/patients:ro")
    done = docker("run", "--rm", *LOCKED, *mounted, IMAGE, "/data/patients", "/nowhere", *DATE)
    assert done.returncode == 7
    assert "It does not exist, and nothing can be created there. Is its volume mounted" in done.stderr


def test_an_output_of_another_user_is_7(patients: Path, tmp_path: Path) -> None:
    """The most common mistake: a folder created by root, unreadable for the container's user."""
    out = tmp_path / "out"
    out.mkdir(mode=0o700)
    for options in ((), ("--dry-run",)):
        done = docker(*score_line(patients, out, *DATE, *options, group=12345))
        assert done.returncode == 7, done.stderr
        assert done.stderr.startswith("Error: /out/.journal: cannot be written (Permission denied). This run is user ")
        assert f"/out belongs to user {os.getuid()}, group {os.getgid()}, mode 700" in done.stderr


def test_wrong_usage_is_2() -> None:
    done = docker("run", "--rm", *LOCKED, IMAGE, "--unknown")
    assert done.returncode == 2
    assert "No such option" in done.stderr  # Python itself also exits with 2 at an unknown option


def wait_for_patients(process: subprocess.Popen[str], out: Path, number: int) -> int:
    """Wait until this many patients are finished; returns how many are."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        stored = read_journal(out / JOURNAL)
        if stored and len(stored.places) >= number:
            return len(stored.places)
        time.sleep(0.05)
    pytest.fail(f"no patient was finished: exit code {process.poll()}")


@pytest.mark.parametrize(("ends", "code"), [("kill", 137), ("stop", 143)])
def test_a_container_that_was_ended_goes_on(many: Path, out: Path, tmp_path: Path, ends: str, code: int) -> None:
    whole = new_folder(tmp_path / "whole")
    assert score(many, whole, *DATE).returncode == 0
    name = f"lympho-test-{os.getpid()}-{ends}"
    line = ["docker", *score_line(many, out, *DATE, flags=("--name", name))]
    with subprocess.Popen(line, stderr=subprocess.DEVNULL, text=True) as process:
        finished = wait_for_patients(process, out, 5)
        second = score(many, out, *DATE)
        assert second.returncode == 8, second.stderr
        assert "/out: another run holds it" in second.stderr
        docker(ends, name)
        assert process.wait(timeout=60) == code
    left = read_journal(out / JOURNAL)
    assert left
    assert len(left.places) >= finished
    assert score(many, out, *DATE).returncode == 0
    assert names(out) == RESULTS
    assert csv_bytes(out) == csv_bytes(whole)
    record = json.loads((out / "run.json").read_text())
    assert record["kept_from_earlier_starts"] == len(left.places) < MANY
    assert len(record["starts"]) == 2


def test_a_full_disk_is_7(many: Path) -> None:
    done = docker(*score_line(many, None, *DATE, flags=("--tmpfs=/out:size=64k,mode=1777",)))
    assert done.returncode == 7
    assert "/out" in done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_one_processor_and_no_home_change_nothing(patients: Path, out: Path, tmp_path: Path) -> None:
    whole = new_folder(tmp_path / "whole")
    assert score(patients, whole, *DATE).returncode == 0
    flags = ("--cpuset-cpus=0", "--env=HOME=/nonexistent", "--env=TMPDIR=/nonexistent")
    done = score(patients, out, *DATE, flags=flags)
    assert done.returncode == 0, done.stderr
    assert csv_bytes(out) == csv_bytes(whole)
    assert json.loads((out / "run.json").read_text())["device"]["batches_side_by_side"] == 1


def test_pictures_and_folders_without_permission(patients: Path, out: Path, tmp_path: Path) -> None:
    """An unreadable file costs that picture, an unreadable folder its patient."""
    cohort = tmp_path / "patients"
    shutil.copytree(patients, cohort)
    (cohort / "S001/000003.jpg").chmod(0)
    (cohort / "S002").chmod(0)
    try:
        done = score(cohort, out, *DATE)
    finally:
        (cohort / "S002").chmod(0o755)
    assert done.returncode == 3, done.stderr
    found = {row["patient_id"]: row for row in rows(out / "predictions.csv")}
    assert (found["S001"]["status"], found["S001"]["images_rejected"]) == ("scored", "1")
    assert [row["status"] for row in found.values()] == ["scored", "failed", "scored", "scored"]
    assert found["S002"]["reason"] == "folder_unreadable: Permission denied"
    (rejected,) = [row for row in rows(out / "images.csv") if row["status"] == "rejected"]
    assert (rejected["image"], rejected["reason"]) == ("000003.jpg", "unreadable: Permission denied")


# The behaviour of Docker before 20.10.10 towards a C library that starts threads with clone3.
OLD_DOCKER = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "architectures": ["SCMP_ARCH_X86_64"],
    "syscalls": [{"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
}
NO_THREAD = (
    "Error: a thread cannot be started (can't start new thread). The limit on processes is too low (--pids-limit"
)


def test_an_old_docker_is_1_and_costs_no_earlier_result(patients: Path, out: Path, tmp_path: Path) -> None:
    assert score(patients, out, *DATE).returncode == 0
    first = csv_bytes(out)
    profile = tmp_path / "old.json"
    profile.write_text(json.dumps(OLD_DOCKER))
    done = score(patients, out, *DATE, flags=(f"--security-opt=seccomp={profile}",))
    assert done.returncode == 1
    assert done.stderr.startswith(NO_THREAD)
    assert "Docker is older than 20.10.10" in done.stderr
    assert done.stderr.count("\n") == 1
    assert (names(out), csv_bytes(out)) == (RESULTS, first)


@pytest.mark.parametrize("most", [1, 2, 3, 4])
def test_a_low_limit_on_processes_is_1_and_the_next_run_goes_on(
    patients: Path, out: Path, tmp_path: Path, most: int
) -> None:
    """With one CPU, a run counts as four processes: itself, two threads and a decoding process."""
    flags = (f"--pids-limit={most}",)
    done = score(patients, out, *DATE, "--threads=1", flags=flags)
    if most < 4:
        assert done.returncode == 1, done.stderr
        assert done.stderr.splitlines()[-1].startswith("Error: a ")
        assert "cannot be started" in done.stderr
        assert "Traceback" not in done.stderr
        assert not set(names(out)) & set(RESULTS)
        done = score(patients, out, *DATE)
    assert done.returncode == 0, done.stderr
    whole = new_folder(tmp_path / "whole")
    assert score(patients, whole, *DATE).returncode == 0
    assert csv_bytes(out) == csv_bytes(whole)


@pytest.mark.parametrize(("cpus", "processors"), [("0.5", 1), ("1", 1), ("1.5", 2)])
def test_a_quota_of_processors_is_kept_to(patients: Path, out: Path, cpus: str, processors: int) -> None:
    """However many CPUs of the host the container sees."""
    assert score(patients, out, *DATE, flags=(f"--cpus={cpus}",)).returncode == 0
    found = json.loads((out / "run.json").read_text())["device"]["processors"]
    assert found == min(processors, len(os.sched_getaffinity(0)))


@pytest.mark.parametrize("variables", [(), ("--env=LC_ALL=C", "--env=PYTHONUTF8=0", "--env=PYTHONCOERCECLOCALE=0")])
def test_names_outside_the_locale_cost_nobody(
    patients: Path, out: Path, tmp_path: Path, variables: tuple[str, ...]
) -> None:
    cohort, name = tmp_path / "patients", "\N{LATIN CAPITAL LETTER L WITH STROKE}uk"
    shutil.copytree(patients, cohort)
    text = (cohort / TABLE).read_text(encoding="utf-8")
    (cohort / TABLE).write_text(text.replace("S001", name), encoding="utf-8")
    (cohort / "S001").rename(cohort / name)
    done = score(cohort, out, *DATE, flags=variables)
    assert done.returncode == 0, done.stderr
    assert [row["patient_id"] for row in rows(out / "predictions.csv")] == [name, "S002", "S003", "S004"]


@real_patients
def test_real_patients_are_all_scored_in_order_to_the_same_bytes(out: Path, tmp_path: Path) -> None:
    done = score(Path(REAL), out, *DATE)
    assert done.returncode == 0, done.stderr
    scored = rows(out / "predictions.csv")
    assert len(scored) == 24
    assert [row["patient_id"] for row in scored] == [row["ID"] for row in rows(Path(REAL) / TABLE)]
    assert {row["status"] for row in scored} == {"scored"}
    reasons = Counter(row["reason"].partition(":")[0] for row in rows(out / "images.csv"))
    assert reasons == {"": 1807, "no_cell": 9}  # where the analyser cut beside the cell
    again = new_folder(tmp_path / "again")
    assert score(Path(REAL), again, *DATE).returncode == 0
    assert csv_bytes(again) == csv_bytes(out)


@real_patients
def test_what_goes_wrong_with_real_patients_is_told_apart(out: Path, tmp_path: Path) -> None:
    cohort = tmp_path / "patients"
    shutil.copytree(REAL, cohort)
    ids = [row["ID"] for row in rows(cohort / TABLE)]
    without_folder, without_count, with_cut_picture, with_text = ids[0], ids[5], ids[10], ids[-1]
    shutil.move(cohort / without_folder, tmp_path / "away")
    lines = (cohort / TABLE).read_text(encoding="utf-8").splitlines()
    header = lines[0].split(",")
    cells = lines[6].split(",")
    assert cells[header.index("ID")] == without_count
    cells[header.index("LYMPH_COUNT")] = ""
    lines[6] = ",".join(cells)
    (cohort / TABLE).write_text("\n".join(lines) + "\n", encoding="utf-8")
    cut = sorted((cohort / with_cut_picture).iterdir())[0]
    cut.write_bytes(cut.read_bytes()[:-1024])
    (cohort / with_text / "x.jpg").write_text("no picture")

    done = score(cohort, out, *DATE)
    assert done.returncode == 3, done.stderr
    found = {row["patient_id"]: row for row in rows(out / "predictions.csv")}
    assert list(found) == ids
    reasons = {key: (row["status"], row["reason"].partition(":")[0]) for key, row in found.items() if row["reason"]}
    assert reasons == {without_folder: ("failed", "folder_missing"), without_count: ("refused", "count_missing")}
    rejected = [row for row in rows(out / "images.csv") if row["status"] == "rejected"]
    others = [row for row in rejected if not row["reason"].startswith("no_cell")]
    assert len(rejected) - len(others) < 10
    assert {(row["patient_id"], row["image"], row["reason"].partition(":")[0]) for row in others} == {
        (with_cut_picture, cut.name, "damaged"),
        (with_text, "x.jpg", "not_an_image"),
    }
    for patient_id in (with_cut_picture, with_text):
        assert (found[patient_id]["status"], found[patient_id]["images_rejected"]) == ("scored", "1")
    assert json.loads((out / "run.json").read_text())["exit_code"] == 3

    shutil.move(tmp_path / "away", cohort / without_folder)
    assert score(cohort, out, *DATE).returncode == 0
    assert {row["patient_id"]: row["status"] for row in rows(out / "predictions.csv") if row["status"] != "scored"} == {
        without_count: "refused"
    }
