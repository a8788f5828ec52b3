"""An actor without Ray: a plain object, whose calls wait side by side in threads."""

import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from infer.bundle.load import load_bundle
from infer.cluster.scorer import Scorer
from infer.cluster.work import Answer, Hello, Refusal, Work, answer_of, hello_of, patient_text, some_of
from infer.cohort.patient import Cohort
from infer.cohort.patients import read_cohort
from infer.engine.fallback import Engine
from infer.engine.sessions import CPU, Device
from infer.scoring.cohort import score_patients
from infer.scoring.result import PatientResult
from tests.infer.runs import TABLE, TINY, tiny_manifest, write_bundle
from tests.ray_work import work_of
from tests.synthetic import REFERENCE_DATE


@pytest.fixture
def cohort(pristine: Path) -> Cohort:
    return read_cohort(pristine, load_bundle(TINY).manifest.plausible, reference_date=REFERENCE_DATE)


@pytest.fixture
def work(cohort: Cohort) -> Work:
    return work_of(cohort, load_bundle(TINY))


def scored_here(cohort: Cohort) -> tuple[list[PatientResult], str]:
    """The results of one process, and the digest of its rounding."""
    bundle = load_bundle(TINY)
    engine = Engine(bundle, Device(CPU, "test"), None, 2)
    return list(
        score_patients(cohort.folder, cohort.patients, engine, bundle.manifest, "balanced", 1)
    ), engine.run_self_test()


def answers(scorer: Scorer, cohort: Cohort) -> list[Answer]:
    with ThreadPoolExecutor(len(cohort.patients)) as pool:
        return [answer_of(text) for text in pool.map(scorer.score, map(patient_text, cohort.patients))]


def hello(work: Work) -> Hello | Refusal:
    return hello_of(Scorer(work.text(), 2).hello())


def test_calls_side_by_side_give_the_results_of_one_process(work: Work, cohort: Cohort) -> None:
    expected, numerics = scored_here(cohort)
    scorer = Scorer(work.text(), 2)
    said = hello_of(scorer.hello())
    assert isinstance(said, Hello)
    assert (said.numerics, said.provider, said.processors) == (numerics, CPU, 2)
    for _ in range(2):  # the second time after a pause
        assert [answer.result for answer in answers(scorer, cohort)] == expected


def test_a_prevalence_of_the_run_is_the_actors(work: Work, cohort: Cohort) -> None:
    scorer = Scorer(replace(work, prevalence=0.01).text(), 2)
    assert isinstance(hello_of(scorer.hello()), Hello)
    rarer = [answer.result.scores for answer in answers(scorer, cohort) if answer.result]
    usual = [result.scores for result in scored_here(cohort)[0]]
    pairs = list(zip(rarer, usual, strict=True))
    assert all(one and other and one.probability < other.probability for one, other in pairs)


def test_another_table(work: Work, tmp_path: Path) -> None:
    table = tmp_path / TABLE
    expected = Refusal(f"{table}: is not there, or is another table. All nodes need it at the same path", 2)
    assert hello(replace(work, table=table)) == expected
    table.write_bytes(work.table.read_bytes() + b"\n")
    assert hello(replace(work, table=table)) == expected


def test_no_folder_of_patients_and_one_with_nobody(work: Work, tmp_path: Path) -> None:
    """A share that is not mounted leaves an empty folder."""
    for folder in (tmp_path / "none", tmp_path):
        said = hello(replace(work, patients=folder))
        assert said == Refusal(
            f"{folder}: is not there, or has none of the patients' folders. All nodes need it at the same path", 2
        )
    assert isinstance(hello(replace(work, some_folders=("somebody who has left", *work.some_folders))), Hello)
    assert isinstance(hello(replace(work, some_folders=())), Hello)
    assert some_of(work.patients, ("x" * 300, *work.some_folders)) == work.some_folders  # too long for any folder


def test_another_program_or_library(work: Work) -> None:
    assert hello(replace(work, code="0.0.9 abc")) == Refusal("another version of lympho is installed there", 2)
    assert hello(replace(work, libraries="{}")) == Refusal("other versions of the libraries are installed there", 2)


def test_file_names_that_are_not_utf8(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "ascii")
    assert hello(work) == Refusal("file names are not in UTF-8 there: start Ray with PYTHONUTF8=1", 2)


def test_another_bundle_and_none(work: Work, tmp_path: Path) -> None:
    other = load_bundle(write_bundle(tmp_path / "bundle", tiny_manifest()))  # other bytes, so another ID
    assert other.bundle_id != work.bundle_id
    said = hello(replace(work, bundle=other.folder))
    assert said == Refusal(f"--bundle {other.folder}: is another bundle there ({other.short_id})", 2)
    missing = hello(replace(work, bundle=tmp_path / "none"))
    assert isinstance(missing, Refusal)
    assert missing.exit_code == 5


def test_a_bundle_that_fails_its_self_test(work: Work, tmp_path: Path) -> None:
    manifest = tiny_manifest()
    expected = manifest["self_test"]["expected"]
    name = next(iter(expected))
    expected[name] = [value + 1 for value in expected[name]]
    bad = load_bundle(write_bundle(tmp_path / "bundle", manifest))
    said = hello(replace(work, bundle=bad.folder, bundle_id=bad.bundle_id))
    assert isinstance(said, Refusal)
    assert said.exit_code == 5
    assert "self-test failed" in said.why


def test_networks_that_fail_break_the_actor_and_every_call(
    work: Work, cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = Scorer(work.text(), 2)
    assert isinstance(hello_of(scorer.hello()), Hello)

    def fail(*_: object) -> None:
        raise ValueError("a patient's value")

    monkeypatch.setattr(Engine, "score_pictures", fail)
    for _ in range(2):  # those that wait, and those that come later
        found = answers(scorer, cohort)
        (broken,) = {answer.broken for answer in found}
        assert re.fullmatch(r"a bug \(ValueError, test_scorer\.py line \d+\): report it, with .*", broken)
        assert all(answer.result is None for answer in found)


def test_downgrades_are_told_once(work: Work, cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Engine] = []
    begin = Engine.__init__

    def remember(self: Engine, *arguments: object) -> None:
        begin(self, *arguments)  # type: ignore[arg-type]
        made.append(self)

    monkeypatch.setattr(Engine, "__init__", remember)
    scorer = Scorer(work.text(), 2)
    scorer.hello()
    made[0].downgrades.append("smaller batches")
    told = [one for answer in answers(scorer, cohort) for one in answer.downgrades]
    assert told == ["smaller batches"]
