"""Shards of a cohort, and what merging them makes: one run, to the byte."""

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from infer.cohort.shard import Shard, parse_shard
from infer.errors import HeldError, UsageError
from infer.fhir.command import command as fhir_command
from infer.merge.command import Merge, command, merge
from infer.output.journal import line_of, record_of, run_of
from infer.output.kept import KEPT, read_results
from infer.output.lock import held
from infer.output.names import LAST_RUN, RECORD
from infer.report.command import command as report_command
from tests.fuzz import fuzz
from tests.infer.runs import RESULT_FILES, TABLE, TINY, Outcome, cut, names, rows, score, set_count

SHARDS = 3
GOLDEN = [0, 6, 1, 2]


@pytest.fixture(scope="module")
def all_kinds(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six patients: one has failed, one is refused, one is in the table twice."""
    folder = tmp_path_factory.mktemp("merge") / "patients"
    shutil.copytree(pristine, folder)
    (folder / "S002").rename(folder / "elsewhere")
    set_count(folder, "S003", "11200")
    lines = (folder / TABLE).read_text().splitlines()
    (folder / TABLE).write_text("\n".join([*lines, lines[1].replace("0,", "6,", 1)]) + "\n")
    return folder


def scored(cohort: Path, out: Path, of: int = SHARDS, **options: Any) -> tuple[Path, ...]:
    folders = tuple(out / f"shard-{index}" for index in range(of))
    for index, folder in enumerate(folders):
        assert score(cohort, folder, bundle=TINY, shard=f"{index}/{of}", **options).code == 0
    return folders


@pytest.fixture(scope="module")
def shards(all_kinds: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    return scored(all_kinds, tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def whole(all_kinds: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return score(all_kinds, tmp_path_factory.mktemp("whole") / "out", bundle=TINY)


def merged(folders: tuple[Path, ...], out: Path, **options: Any) -> Outcome:
    return Outcome(merge(Merge(folders, out, TINY, **options)), out)


def test_three_machines_write_what_one_would(shards: tuple[Path, ...], whole: Outcome, tmp_path: Path) -> None:
    outcome = merged((shards[2], shards[0], shards[1]), tmp_path / "out")
    assert outcome.code == whole.code == 3  # a patient has failed, which no shard was blamed for
    assert outcome.csv_bytes == whole.csv_bytes
    assert names(outcome.out) == RESULT_FILES
    assert list(read_results(outcome.out / KEPT, 6)) == list(read_results(whole.out / KEPT, 6))
    assert (outcome.out / "drift.json").read_bytes() == (whole.out / "drift.json").read_bytes()
    ours, theirs = outcome.record, whole.record
    own = {"run", "machine", "shards", "device", "starts", "ended", "options", "cohort", "bundle", "synced"}
    assert {name: ours[name] for name in ours if name not in own} == {
        name: theirs[name] for name in theirs if name not in own
    }
    assert list(ours) == list(theirs)
    assert ours["cohort"] == theirs["cohort"]
    assert ours["exit_reasons"] == ["2 patients have failed"]
    assert json.loads((outcome.out / LAST_RUN).read_text())["message"] == "2 patients have failed"


def test_run_json_names_each_machine(shards: tuple[Path, ...], tmp_path: Path) -> None:
    record = merged(shards, tmp_path / "out").record
    assert (record["machine"], record["device"], record["options"]["shard"]) == (None, None, None)
    for index, (folder, one) in enumerate(zip(shards, record["shards"], strict=True)):
        of_shard = Outcome(0, folder).record
        assert of_shard["options"]["shard"] == one["shard"] == f"{index}/3"
        assert of_shard["machine"]
        same = ("run", "machine", "device", "patients", "starts", "ended", "downgrades")
        assert {name: one[name] for name in same} == {name: of_shard[name] for name in same}
    assert sum(one["patients"][status] for one in record["shards"] for status in one["patients"]) == 6


def test_each_patient_is_in_one_shard_in_the_tables_order(shards: tuple[Path, ...], all_kinds: Path) -> None:
    found = [list(Outcome(0, folder).predictions) for folder in shards]
    table = list(dict.fromkeys(row["ID"] for row in rows(all_kinds / TABLE)))
    assert sorted(patient for one in found for patient in one) == sorted(table)
    for index, one in enumerate(found):
        assert one == [patient for patient in table if Shard(index, SHARDS).holds(patient)]
    assert [Outcome(0, folder).record["cohort"]["patients_in_table"] for folder in shards] == [6] * 3


def test_more_shards_than_patients(all_kinds: Path, whole: Outcome, tmp_path: Path) -> None:
    """An empty shard has finished, too."""
    folders = scored(all_kinds, tmp_path, 9)
    counts = [Outcome(0, folder).record["cohort"]["patients"] for folder in folders]
    assert (min(counts), sum(counts)) == (0, 6)
    assert merged(folders, tmp_path / "out").csv_bytes == whole.csv_bytes


def test_with_a_prevalence_and_in_french(all_kinds: Path, tmp_path: Path) -> None:
    options = {"prevalence": 0.3, "csv_dialect": "excel-fr"}
    folders = scored(all_kinds, tmp_path, 2, **options)
    whole = score(all_kinds, tmp_path / "whole", bundle=TINY, **options)
    assert merged(folders, tmp_path / "out").csv_bytes == whole.csv_bytes


def test_max_refused_is_judged_by_the_merge(all_kinds: Path, tmp_path: Path) -> None:
    folders = scored(all_kinds, tmp_path, 2, max_refused=0.1)
    assert merged(folders, tmp_path / "out").record["exit_reasons"] == [
        "2 patients have failed",
        "1 of 6 patients were refused, more than 10% (--max-refused)",
    ]


def test_a_history_gets_one_line_for_all_shards(
    shards: tuple[Path, ...], all_kinds: Path, whole: Outcome, tmp_path: Path
) -> None:
    merged(shards, tmp_path / "out", history=tmp_path / "merged")
    score(all_kinds, tmp_path / "whole", bundle=TINY, history=tmp_path / "whole_history")
    of_merge, of_whole = ((tmp_path / name).read_text().splitlines() for name in ("merged", "whole_history"))
    assert len(of_merge) == len(of_whole)


def change(folder: Path, **options: Any) -> None:
    record = json.loads((folder / RECORD).read_text())
    record["options"] |= options
    (folder / RECORD).write_text(json.dumps(record))


def copied(shards: tuple[Path, ...], out: Path) -> tuple[Path, ...]:
    for folder in shards:
        shutil.copytree(folder, out / folder.name)
    return tuple(out / folder.name for folder in shards)


def lose(folder: Path) -> None:
    (folder / RECORD).unlink()


def be_whole(folder: Path) -> None:
    change(folder, shard=None)


def be_another(folder: Path) -> None:
    change(folder, shard="0/3")


def of_four(folder: Path) -> None:
    change(folder, shard="1/4")


def refuse_more(folder: Path) -> None:
    change(folder, max_refused=1.0)


def of_another_table(folder: Path) -> None:
    record = json.loads((folder / RECORD).read_text())
    record["cohort"]["table_sha256"] = "0"
    (folder / RECORD).write_text(json.dumps(record))


def with_fewer(folder: Path) -> None:
    record = json.loads((folder / RECORD).read_text())
    record["cohort"]["patients"] -= 1
    (folder / RECORD).write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lose, "shard-1: holds no finished run (run.json is missing). Let this shard finish"),
        (be_whole, "shard-1: is a whole run, not a shard"),
        (be_another, "is shard 0/3, and so is"),
        (of_four, "another number of shards"),
        (refuse_more, "another max_refused"),
        (of_another_table, "another table (table_sha256)"),
        (with_fewer, "has 6 patients, the shards have 5. Score them again"),
    ],
)
def test_shards_that_do_not_belong_together_are_2(
    shards: tuple[Path, ...], tmp_path: Path, break_it: Callable[[Path], None], said: str
) -> None:
    folders = copied(shards, tmp_path)
    break_it(folders[1])
    with pytest.raises(UsageError) as caught:
        merged(folders, tmp_path / "out")
    assert said in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_missing_shard_is_named(shards: tuple[Path, ...], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="shard 1/3 is missing"):
        merged((shards[0], shards[2]), tmp_path / "out")
    with pytest.raises(UsageError, match="shard 0/3 and 1 more are missing"):
        merged(shards[1:2], tmp_path / "out")


def test_a_shard_of_other_options_or_another_bundle_does_not_fit(
    shards: tuple[Path, ...], all_kinds: Path, tmp_path: Path
) -> None:
    score(all_kinds, tmp_path / "other", bundle=TINY, shard="1/3", operating_point="sensitivity-95")
    with pytest.raises(UsageError, match="another operating_point"):
        merged((shards[0], tmp_path / "other", shards[2]), tmp_path / "out")
    with pytest.raises(UsageError, match="Give that one"):
        merge(Merge(shards, tmp_path / "out"))


def test_results_of_another_shard_under_its_name_are_found(shards: tuple[Path, ...], tmp_path: Path) -> None:
    """Two folders whose files were exchanged: run.json is right, .results is the other's."""
    folders = copied(shards, tmp_path)
    (folders[0] / KEPT).write_bytes((folders[1] / KEPT).read_bytes())
    counts = [len((folder / KEPT).read_bytes().splitlines()) - 1 for folder in folders]
    for folder, count in zip(folders, counts, strict=True):
        record = json.loads((folder / RECORD).read_text())
        record["cohort"] |= {"patients": count, "patients_in_table": sum(counts)}
        record["run"] = run_of(folder / KEPT)
        (folder / RECORD).write_text(json.dumps(record))
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="who is not of shard 0/3"):
        merged(folders, tmp_path / "out")
    assert names(tmp_path / "out") == [".journal", ".run.log.part"]


def test_machines_that_round_differently_are_named(
    shards: tuple[Path, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folders = copied(shards, tmp_path)
    text = (folders[1] / KEPT).read_bytes()
    first, rest = text.split(b"\n", 1)
    header = record_of(first + b"\n")
    header["identity"]["numerics"] = "other"
    (folders[1] / KEPT).write_bytes(line_of(header) + rest)
    change_machine(folders[1], "node-7")
    record = merged(folders, tmp_path / "out").record
    assert "the networks round differently on node-7 than on" in caplog.text
    assert [one["numerics"] == "other" for one in record["shards"]] == [False, True, False]


def change_machine(folder: Path, name: str) -> None:
    record = json.loads((folder / RECORD).read_text())
    (folder / RECORD).write_text(json.dumps(record | {"machine": name}))


def test_a_merge_that_breaks_leaves_what_was_there(
    shards: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = merged(shards, tmp_path / "out")
    before = out.csv_bytes

    def breaks(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("infer.merge.command.conclude", breaks)
    with pytest.raises(MemoryError):
        merged(shards, tmp_path / "out")
    assert out.csv_bytes == before
    assert json.loads((tmp_path / "out" / LAST_RUN).read_text())["exit_code"] == 1


def test_pages_and_documents_are_written_after_the_merge(
    shards: tuple[Path, ...], all_kinds: Path, whole: Outcome, tmp_path: Path
) -> None:
    outcome = merged(shards, tmp_path / "out")
    line = [str(all_kinds), str(outcome.out), "--bundle", str(TINY)]
    assert CliRunner().invoke(report_command, line, standalone_mode=False).exception is None
    pages = {path.name: path.read_text() for path in (outcome.out / "report").iterdir()}
    assert len(pages) == 7
    assert "Processor (CPU)" in pages["index.html"] or "CPU" in pages["index.html"]
    site = ["--fhir", "r4", "--fhir-identifier-system", "urn:oid:1.2", "--report"]
    of_one_run = [str(all_kinds), str(shutil.copytree(whole.out, tmp_path / "whole")), *line[2:]]
    for of in (line, of_one_run):
        assert CliRunner().invoke(fhir_command, [*of, *site], standalone_mode=False).exception is None
    documents = {path.name: path.read_bytes() for path in (outcome.out / "fhir").iterdir()}
    assert len(documents) > 3
    assert documents == {path.name: path.read_bytes() for path in (tmp_path / "whole" / "fhir").iterdir()}


def ended_with(folder: Path, code: int) -> None:
    (folder / LAST_RUN).write_text(json.dumps({"exit_code": code}))


@pytest.mark.parametrize("code", [1, 2, 5, 7, 143])
def test_a_shard_whose_last_run_failed_is_2(shards: tuple[Path, ...], tmp_path: Path, code: int) -> None:
    folders = copied(shards, tmp_path)
    ended_with(folders[1], code)
    with pytest.raises(UsageError, match=f"shard-1: its last run ended with {code} "):
        merged(folders, tmp_path / "out")
    ended_with(folders[1], 0)
    (folders[2] / LAST_RUN).unlink()
    assert merged(folders, tmp_path / "out").code == 3


def test_a_shard_that_is_being_scored_anew_is_not_merged(
    shards: tuple[Path, ...], all_kinds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = copied(shards, tmp_path)
    (full,) = [folder for folder in folders if len(Outcome(0, folder).predictions) > 1][:1]
    index = folders.index(full)
    monkeypatch.setattr("infer.output.lock.PATIENCE", 0)
    with held(full), pytest.raises(HeldError):
        merged(folders, tmp_path / "out")
    cut(all_kinds, full, 1, shard=f"{index}/3")
    with pytest.raises(UsageError, match="its last run has not finished"):
        merged(folders, tmp_path / "out")
    score(all_kinds, full, bundle=TINY, shard=f"{index}/3")
    assert merged(folders, tmp_path / "out").code == 3


def test_kept_results_of_another_run_of_the_shard_are_2(
    shards: tuple[Path, ...], all_kinds: Path, tmp_path: Path
) -> None:
    folders = copied(shards, tmp_path)
    again = score(all_kinds, tmp_path / "again", bundle=TINY, shard="0/3").out
    (folders[0] / KEPT).write_bytes((again / KEPT).read_bytes())
    with pytest.raises(UsageError, match=r"\.results and run.json are of two runs"):
        merged(folders, tmp_path / "out")


@pytest.mark.parametrize("key", ["cohort", "machine", "downgrades", "patients", "run", "bundle", "options"])
@pytest.mark.parametrize("value", [5, None])
def test_an_edited_record_is_2(shards: tuple[Path, ...], tmp_path: Path, key: str, value: object) -> None:
    folders = copied(shards, tmp_path)
    record = json.loads((folders[0] / RECORD).read_text())
    (folders[0] / RECORD).write_text(json.dumps(record | {key: value}))
    with pytest.raises(UsageError, match=r"is not the record of a shard|is a whole run"):
        merged(folders, tmp_path / "out")


def test_more_shards_than_files_may_be_open_is_2(shards: tuple[Path, ...], tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    line = "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (66, 66)); from pathlib import Path; "
    line += "from infer.merge.shards import read_shards; read_shards([Path(one) for one in sys.argv[1:]])"
    done = subprocess.run([sys.executable, "-c", line, *map(str, shards)], capture_output=True, text=True, check=False)
    assert "3 shards: more than the 66 files that may be open here" in done.stderr
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == limits


def test_an_unfinished_run_in_out_is_not_lost_and_an_unfinished_merge_is(
    shards: tuple[Path, ...], pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut(pristine, tmp_path / "out", 2)
    with pytest.raises(UsageError, match="holds an unfinished run"):
        merged(shards, tmp_path / "out")
    assert score(pristine, tmp_path / "out", bundle=TINY).record["kept_from_earlier_starts"] == 2

    def breaks(*_: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("infer.merge.command.conclude", breaks)
        with pytest.raises(MemoryError):
            merged(shards, tmp_path / "out")
    assert score(pristine, tmp_path / "out", bundle=TINY).record["kept_from_earlier_starts"] == 0
    assert merged(shards, tmp_path / "out").code == 3


def test_out_is_no_place_of_the_cohort_and_the_history_of_no_shard(
    shards: tuple[Path, ...], all_kinds: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="never written to"):
        merged(shards, all_kinds / "merged")
    assert not (all_kinds / "merged").exists()
    with pytest.raises(UsageError, match="--history"):
        merged(shards, tmp_path / "out", history=shards[0] / "history")


def test_a_forgotten_out_is_2_and_costs_no_shard(shards: tuple[Path, ...], tmp_path: Path) -> None:
    folders = copied(shards, tmp_path)
    before = (folders[2] / LAST_RUN).read_bytes()
    with pytest.raises(UsageError, match="holds a shard, which the merge would replace"):
        merged(folders[:2], folders[2])
    assert (folders[2] / LAST_RUN).read_bytes() == before


def test_out_may_not_be_a_shard(shards: tuple[Path, ...]) -> None:
    for out in (shards[0], shards[0] / "below", shards[0].parent):
        with pytest.raises(UsageError, match="Choose another output folder"):
            merged(shards, out)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"shard": "3/3"}, "--shard 3/3: must be I/N"),
        ({"shard": "1"}, "--shard 1: must be I/N"),
        ({"shard": "-1/3"}, "must be I/N"),
        ({"shard": "0/0"}, "must be I/N"),
        ({"shard": "0/100001"}, "must be I/N"),
        ({"shard": "0/3", "reference_date": None}, "--shard: needs --reference-date"),
        ({"shard": "0/3", "report": True}, "--report: judges whole runs"),
        ({"shard": "0/3", "fhir": "r5", "fhir_identifier_system": "urn:oid:1.2"}, "--fhir: judges whole runs"),
        ({"shard": "0/3", "history": Path("h")}, "--history: judges whole runs"),
        ({"shard": "0/3", "drift": "fail"}, "--drift fail: judges whole runs"),
    ],
)
def test_options_that_fit_no_shard_are_2(pristine: Path, tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        score(pristine, tmp_path, bundle=TINY, **options)
    assert said in str(caught.value)


def test_an_unfinished_shard_is_not_resumed_as_another(pristine: Path, tmp_path: Path) -> None:
    cut(pristine, tmp_path, 1, shard="0/2")
    outcome = score(pristine, tmp_path, bundle=TINY, shard="1/2")
    assert outcome.record["started_over"] == "the unfinished run had another shard"
    cut(pristine, tmp_path, 1, shard="0/2")
    assert score(pristine, tmp_path, bundle=TINY, shard="0/2").record["kept_from_earlier_starts"] == 1


@fuzz(300)
@given(patient_id=st.text(max_size=40), of=st.integers(1, 50))
def test_every_id_belongs_to_one_shard(patient_id: str, of: int) -> None:
    assert sum(Shard(index, of).holds(patient_id) for index in range(of)) == 1


def test_shards_are_even_and_stay_what_they_were() -> None:
    """Golden: first eight bytes of SHA-256, big-endian, modulo N; a change would mix shards of two versions."""
    counts = [sum(Shard(index, 8).holds(f"P{number}") for number in range(8000)) for index in range(8)]
    assert max(abs(count - 1000) for count in counts) < 100
    assert [
        next(index for index in range(10) if Shard(index, 10).holds(one)) for one in ("P1", "P2", "é", "")
    ] == GOLDEN
    assert replace(parse_shard("07/20"), index=8) == Shard(8, 20)


def test_the_command(shards: tuple[Path, ...], whole: Outcome, tmp_path: Path) -> None:
    line = [*map(str, shards), str(tmp_path / "out"), "--bundle", str(TINY)]
    assert CliRunner().invoke(command, line, standalone_mode=False).return_value == 3
    assert Outcome(3, tmp_path / "out").csv_bytes == whole.csv_bytes
