from collections.abc import Sequence
from pathlib import Path

import pytest

from infer.bundle.load import REFERENCE, Bundle, load_bundle
from infer.engine.networks import Networks
from infer.engine.sessions import CPU, Device
from infer.pictures.look import DecodedPicture, look
from tests.infer.runs import MANY_PATIENTS, Outcome, link_cohort, score, score_on_a_fixed_day
from tests.soak import write_linked_cohort
from tests.synthetic import make_patients, write_cohort

PATIENTS = 6


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    return load_bundle(REFERENCE)


@pytest.fixture(scope="session")
def networks(bundle: Bundle) -> Networks:
    """The reference bundle's networks, with batches of eight on one thread."""
    return Networks(bundle, Device(CPU, "test"), 8, 1)


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A read-only cohort: S001 to S006, 12 to 15 pictures each."""
    folder = tmp_path_factory.mktemp("pristine") / "patients"
    write_cohort(folder, make_patients(PATIENTS, seed=3, images=(12, 15)), seed=3, labels=False, size=128)
    return folder


@pytest.fixture(scope="session")
def plain(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The pristine cohort, scored once."""
    return score(pristine, tmp_path_factory.mktemp("plain") / "out")


@pytest.fixture
def cohort(pristine: Path, tmp_path: Path) -> Path:
    """A copy of the cohort that the test may change."""
    return link_cohort(pristine, tmp_path / "patients")


class _ProcessHere:
    """Replaces a decoding process."""

    def __init__(self, root: Path, size: int, scale: float, checked: bool = True) -> None:
        self._root, self._size, self._scale, self._checked = root, size, scale, checked

    def look(self, folder: Path, names: Sequence[str]) -> list[DecodedPicture]:
        return [look(folder / name, self._root, self._size, self._scale, self._checked) for name in names]

    def stop(self) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture
def decoded_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read and decode pictures in this process, where a test can inject faults."""
    monkeypatch.setattr("infer.pictures.pool.DecodingProcess", _ProcessHere)


@pytest.fixture(scope="session")
def many(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MANY_PATIENTS, their pictures links to those of the pristine cohort."""
    folder = tmp_path_factory.mktemp("many") / "patients"
    write_linked_cohort(folder, pristine, MANY_PATIENTS)
    return folder


@pytest.fixture(scope="session")
def whole(many: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The same cohort, scored without interruption."""
    return score_on_a_fixed_day(many, tmp_path_factory.mktemp("whole") / "out")
