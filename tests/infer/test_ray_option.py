"""--ray where Ray is not installed, as in the environment that ships; tests/cluster has it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infer.bundle.load import load_bundle
from infer.cluster.connect import check_ray
from infer.cohort.patient import Patient
from infer.cohort.patients import read_cohort
from infer.engine.fallback import Engine
from infer.engine.sessions import CPU, Device
from infer.errors import UsageError
from infer.scoring.cohort import score_patients
from infer.scoring.workers import decoding_processes
from tests.infer.runs import TINY, names, score
from tests.synthetic import REFERENCE_DATE

ROOT = Path(__file__).parents[2]


def test_without_the_option_no_ray_is_imported(pristine: Path, tmp_path: Path) -> None:
    program = (
        "import sys, infer.cli\n"
        "try: infer.cli.main()\n"
        "finally: print([name for name in sys.modules if name.startswith(('ray', 'infer.cluster'))])"
    )
    line = [sys.executable, "-c", program, str(pristine), str(tmp_path / "out"), "--bundle", str(TINY)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_ray_is_not_installed(pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    expected = r"^--ray: Ray is not installed\. Install infer/requirements-ray\.txt, or use the image lympho-infer:ray$"
    with pytest.raises(UsageError, match=expected):
        score(pristine, tmp_path, bundle=TINY, ray="auto")
    assert names(tmp_path) == []


@pytest.mark.parametrize("address", ["auto", "local", "10.0.0.7:6379", "head.example:6379", "[fd00::7]:6379"])
def test_addresses(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    check_ray(address)


@pytest.mark.parametrize(
    "address", ["", "head", "head:port", "10.0.0.7", "http://head:8265", "head:6379/x", "a b:1", "head:65536", "head:0"]
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(UsageError, match=r"must be auto, local or the address of the cluster's head, HOST:PORT$"):
        check_ray(address)


def test_rays_client_is_not_used() -> None:
    with pytest.raises(UsageError, match=r"^--ray ray://head:10001: Ray's client port is not used"):
        check_ray("ray://head:10001")


def test_not_in_a_dry_run(pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    with pytest.raises(UsageError, match=r"^--ray: a dry run scores nothing"):
        score(pristine, tmp_path, bundle=TINY, ray="auto", dry_run=True)


def test_patients_that_come_slowly_are_finished_before_the_next_comes(pristine: Path) -> None:
    bundle = load_bundle(TINY)
    cohort = read_cohort(pristine, bundle.manifest.plausible, reference_date=REFERENCE_DATE)
    engine = Engine(bundle, Device(CPU, "test"), None, 2)
    finished: list[str] = []

    def slowly() -> Iterator[Patient | None]:
        for number, patient in enumerate(cohort.patients):
            yield patient
            if number % 2:
                yield None
                assert finished == [one.patient_id for one in cohort.patients[: number + 1]]

    results = []
    for result in score_patients(cohort.folder, slowly(), engine, bundle.manifest, "balanced", 2):
        finished.append(result.patient_id)
        results.append(result)
    assert results == list(score_patients(cohort.folder, cohort.patients, engine, bundle.manifest, "balanced", 2))


@pytest.mark.parametrize(("provider", "processors", "expected"), [(CPU, 9, 3), ("CUDA", 9, 9), (None, 99, 16)])
def test_decoding_processes(provider: str | None, processors: int, expected: int) -> None:
    assert decoding_processes(provider, processors) == expected
