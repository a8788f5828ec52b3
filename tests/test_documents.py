"""The documents say what the code says: their tables, links, paths and commands are compared with it.

A table is found by the heading before it. Its first columns have to be what the code declares, row by row; what comes
after those is for the reader alone.
"""

import datetime as dt
import importlib.util
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import click
import pytest

from export.cli import adapt_command, export_command
from export.supply.base import command as pin_command
from infer.bundle.load import CARD, REFERENCE, load_bundle
from infer.bundle.manifest import SCHEMA, Manifest, OperatingPoint, load_members
from infer.cli import command as infer_command
from infer.errors import EXIT_MEANING
from infer.fhir.codes import Codes
from infer.fhir.command import command as fhir_command
from infer.members.member import Member
from infer.merge.command import command as merge_command
from infer.output.columns import Basis, image_fields, prediction_fields
from infer.output.metrics import Metrics
from infer.reasons import Reason
from infer.report.command import command as report_command
from infer.report.texts import Texts
from tests.infer.runs import TINY, score
from tests.synthetic import make_patients, write_cohort
from train.cli.commands import cli

ROOT = Path(__file__).parents[1]
ROOMS = ("infer", "train", "export", "tests")
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob(".github/*.md"), *(path for room in ROOMS for path in (ROOT / room).rglob("*.md"))]
)
OPERATORS, HAEMATOLOGISTS = ROOT / "infer/README.md", ROOT / "infer/INTERPRETING.md"
TRAINERS, EXPORTERS = ROOT / "train/README.md", ROOT / "export/README.md"
MOST_LINES = 120  # of README.md
# Absolute paths of the container and of the examples. Any other is of somebody's own machine.
ABSOLUTE = (
    "/data/patients", "/out", "/bundle", "/hospital/", "/usr/local/bin/lympho-night", "/usr/bin/", "/etc/", "/bin/sh",
    "/opt/lympho/", "/metrics", "/app/", "/tmp/ray", "/dev/shm", "/tmp",
)  # fmt: skip
# Options of Docker, systemctl and Ray in the examples.
OF_OTHERS = {
    "--rm", "--name", "--network", "--read-only", "--cap-drop", "--security-opt", "--user", "--memory", "--pids-limit",
    "--cpus", "--gpus", "--now", "--entrypoint", "--shm-size", "--tmpfs", "--head", "--block",
    "--include-dashboard", "--address", "--data-binary", "--fail-with-body",
}  # fmt: skip
COMMANDS = {
    "infer": infer_command,
    "infer.fhir": fhir_command,
    "infer.report": report_command,
    "infer.merge": merge_command,
    "export": export_command,
    "export.supply.base": pin_command,
}

Rows = list[list[str]]


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def of_document(path: Path) -> str:
    return str(path.relative_to(ROOT))


def headings(text: str) -> list[tuple[int, str]]:
    """Line and title of each; what stands in a fenced block is none."""
    found, fenced = [], False
    for number, line in enumerate(text.splitlines()):
        fenced ^= line.startswith("```")
        if not fenced and (match := re.fullmatch(r"#{1,6} +(.+?) *", line)):
            found.append((number, match[1]))
    return found


def anchors(text: str) -> set[str]:
    """What a link may name behind a #, as GitHub makes it of a heading."""
    found: list[str] = []
    for _, title in headings(text):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower()
        found.append(re.sub(r"[^\w\- ]", "", plain).replace(" ", "-"))
    return {name if not (times := found[:at].count(name)) else f"{name}-{times}" for at, name in enumerate(found)}


def table(path: Path, heading: str, number: int = 0) -> Rows:
    """The rows below the head of a table, the first or a later one after a heading; names without their backticks."""
    text = read(path)
    lines = text.splitlines()
    starts = [line for line, title in headings(text) if title == heading]
    assert len(starts) == 1, f"{of_document(path)} has {len(starts)} headings {heading}"
    rest = lines[starts[0] + 1 :]
    heads = [at for at, line in enumerate(rest) if re.fullmatch(r"\|(-+\|)+", line)]
    rows = takewhile(lambda line: line.startswith("|"), rest[heads[number] + 1 :])
    return [[plain(cell) for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


def plain(cell: str) -> str:
    cell = cell.strip().replace("\\|", "|")
    return cell[1:-1] if re.fullmatch(r"`[^`]+`", cell) else cell


def first(columns: int, rows: Rows) -> Rows:
    return [row[:columns] for row in rows]


def members() -> tuple[Member[Any], ...]:
    return load_members(load_bundle(REFERENCE).manifest)


def options(command: click.Command) -> Rows:
    """Name, value, default and help of each option."""
    return [
        [", ".join(option.opts), value_of(option), *default_and_help(option)]
        for option in command.params
        if isinstance(option, click.Option)
    ]


def value_of(option: click.Option) -> str:
    kind = option.type
    if option.is_flag:
        return ""
    if isinstance(kind, click.Choice):
        return ", ".join(map(str, kind.choices))
    words = [option.metavar or ""]
    if isinstance(kind, click.IntRange | click.FloatRange):
        lowest = f"above {kind.min}" if kind.min_open else f"{kind.min} or more"
        words.append(f"{kind.min} to {kind.max}" if kind.max is not None else lowest)
    elif not option.metavar:
        words.append("Y-m-d" if isinstance(kind, click.DateTime) else kind.name)
    return ", ".join(word for word in words if word)


def default_and_help(option: click.Option) -> tuple[str, str]:
    text, _, said = (option.help or "").removesuffix("]").partition("  [default: ")
    default = option.to_info_dict()["default"]
    return said or ("" if option.is_flag or default in (None, ()) else str(default)), text


def stages() -> dict[str, click.Command]:
    """The commands of training that share options."""
    others = ("figures", "page", "validate", "check")
    return {name: command for name, command in cli.commands.items() if name not in others}


def shared_options() -> Rows:
    return [row for row in options(cli.commands["crops"]) if all(row in options(of) for of in stages().values())]


def own_options() -> list[list[str]]:
    """Command, name, value, default and help."""
    rows = [[name, *row] for name, command in stages().items() for row in options(command)]
    rows += [["figures", *row] for row in options(cli.commands["figures"])]
    return [row for row in rows if row[0] == "figures" or row[1:] not in shared_options()]


def rooms() -> Rows:
    """Each package and its rooms, from the top, as the import contracts have them."""
    contracts = tomllib.loads(read(ROOT / "pyproject.toml"))["tool"]["importlinter"]["contracts"]
    return [[*one["containers"], ", ".join(one["layers"])] for one in contracts if "containers" in one]


def test_the_rooms() -> None:
    assert len(rooms()) == 3
    assert table(ROOT / "CONTRIBUTING.md", "What may import what") == rooms()


def test_the_columns_of_predictions() -> None:
    declared = [
        field.column for field in prediction_fields(members(), Basis("", OperatingPoint(0.4, 0.6), "", "2026-11-28"))
    ]
    expected = [[column.name, column.unit, column.meaning] for column in declared]
    assert first(3, table(OPERATORS, "predictions.csv")) == expected


def test_the_columns_of_images() -> None:
    declared = [field.column for field in image_fields(members())]
    expected = [[column.name, column.unit, column.meaning] for column in declared]
    assert first(3, table(OPERATORS, "images.csv")) == expected


def test_the_reasons() -> None:
    rows = table(OPERATORS, "Reasons")
    assert first(3, rows) == [[reason.code, reason.status, reason.sentence] for reason in Reason]
    assert [row[0] for row in rows if not row[3]] == []  # what to do


def test_the_exit_codes() -> None:
    rows = table(OPERATORS, "Exit codes")
    assert first(2, rows) == [[str(code), meaning] for code, meaning in EXIT_MEANING.items()]
    assert [row[0] for row in rows if not row[2]] == []  # what to do


def test_the_options_of_scoring() -> None:
    help_option = infer_command.get_help_option(click.Context(infer_command))
    assert help_option is not None
    expected = [*options(infer_command), ["--help", "", "", help_option.help]]
    assert first(4, table(OPERATORS, "Options")) == expected


def test_the_options_of_writing_pages_later() -> None:
    assert table(OPERATORS, "Evidence pages") == options(report_command)


def test_the_options_of_writing_documents_later() -> None:
    assert table(OPERATORS, "FHIR documents", 1) == options(fhir_command)


def test_the_names_of_codes() -> None:
    after = read(OPERATORS).partition("It may hold `")[2].partition(".")[0]
    assert re.findall(r"(\w+)`", after) == list(Codes.__struct_fields__)


def test_the_metrics() -> None:
    metrics = Metrics(None, dt.datetime.now(dt.UTC), scoring=True, drift=False)
    names = [family.name for family in metrics.families(dt.datetime.now(dt.UTC), 0)]
    assert first(1, table(OPERATORS, "Metrics")) == [[name] for name in names]


def test_the_pages_say_of_a_reason_what_the_manual_says() -> None:
    def shown(cell: str) -> str:
        return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", cell).replace("`", "")

    rows = table(OPERATORS, "Reasons")
    assert [Texts("en").reason(row[0])[1] for row in rows] == [shown(row[3]) for row in rows]


def test_the_options_of_merging() -> None:
    assert table(OPERATORS, "More than one machine") == options(merge_command)


def test_the_options_of_training() -> None:
    assert len(shared_options()) > 10
    assert first(4, table(TRAINERS, "Options")) == shared_options()
    found = table(TRAINERS, "Options", 1)
    assert sorted(first(5, found)) == sorted(own_options())


def test_the_options_of_validation() -> None:
    assert table(TRAINERS, "Validating a bundle on your own patients") == options(cli.commands["validate"])


def test_the_options_of_the_check() -> None:
    assert table(TRAINERS, "Checking patients before training") == options(cli.commands["check"])


def test_the_commands_of_training() -> None:
    found = table(TRAINERS, "Commands")
    assert sorted(first(2, found)) == sorted([name, command.help] for name, command in cli.commands.items())


def test_the_options_of_export() -> None:
    assert first(4, table(EXPORTERS, "Bundles: format, export, new members")) == options(export_command)


def test_the_options_of_adapting() -> None:
    assert first(4, table(EXPORTERS, "Adapting a bundle")) == options(adapt_command)


def test_the_keys_of_the_record(tmp_path: Path) -> None:
    write_cohort(tmp_path / "patients", make_patients(1, seed=1, images=(10, 10)), seed=1, size=112)
    outcome = score(tmp_path / "patients", tmp_path / "out", bundle=TINY)
    assert outcome.code == 0
    assert [row[0] for row in table(OPERATORS, "run.json")] == list(outcome.record)


def test_the_fields_of_the_manifest() -> None:
    rows = table(EXPORTERS, "The manifest")
    assert [row[0] for row in rows] == list(Manifest.__struct_fields__)
    assert rows[0] == ["schema", str(SCHEMA)]


def test_the_graphs_of_the_members() -> None:
    expected = [
        [
            member.name,
            file,
            ", ".join(form.inputs),
            ", ".join(form.outputs),
            member.stand_ins.get("int8", {}).get(file, ""),
        ]
        for member in members()
        for file, form in member.graphs.items()
    ]
    assert len({row[0] for row in expected}) == 4
    assert table(EXPORTERS, "The graphs") == [[plain(cell) for cell in row] for row in expected]


def test_the_thresholds_are_the_bundles() -> None:
    points = load_bundle(REFERENCE).manifest.ensemble.operating_points
    found = {row[0]: row[1] for row in table(HAEMATOLOGISTS, "Operating points")}
    assert found == {name: f"{point.refer_low:.3f}".lstrip("0") for name, point in points.items()}
    (above,) = {f"{point.refer_high:.3f}".lstrip("0") for point in points.values()}
    assert f"from which malignant ({above} in all three)" in " ".join(read(HAEMATOLOGISTS).split())


def test_the_shares_of_decisions_are_the_cards() -> None:
    """Nested; as per cent, to one digit."""
    row = re.compile(
        r"\| ([\w-]+) \| (all|malignant|reactive) \| (malignant|refer|reactive) \| ([\d.]+) \[", re.MULTILINE
    )
    card = {match[:3]: f"{100 * float(match[3]):.1f}%" for match in row.findall(read(REFERENCE / CARD))}
    expected = {
        point: [card[point, "all", "refer"], card[point, "malignant", "reactive"], card[point, "reactive", "reactive"]]
        for point in load_bundle(REFERENCE).manifest.ensemble.operating_points
    }
    assert {line[0]: line[2:] for line in table(HAEMATOLOGISTS, "Operating points")} == expected


def test_what_one_threshold_saves_is_the_cards() -> None:
    """Sensitivity, specificity and flow cytometries avoided, for each of the two aims."""
    card = read(REFERENCE / CARD).partition("Referral to flow cytometry:")[2]
    (line,) = [line for line in card.partition("\n\nAll")[0].splitlines() if line.startswith("| ensemble (1x) |")][:1]
    cells = [cell.strip() for cell in line.split("|")[2:8]]
    saved = [re.sub(r"[\d.]+", lambda one: f"{float(one[0]):.0f}", cell) for cell in cells]
    short = [re.sub(r"\b0(?=\.)", "", cell) for cell in cells]
    text = read(HAEMATOLOGISTS).partition("| aimed at keeping |")[2]
    found = [[cell.strip() for cell in line.split("|")[2:5]] for line in text.splitlines()[2:4]]
    assert found == [[*short[:2], saved[2]], [*short[3:5], saved[5]]]


def test_what_the_haematologist_reads_about_is_there() -> None:
    columns = {
        field.column.name
        for field in prediction_fields(members(), Basis("", OperatingPoint(0.4, 0.6), "", "2026-11-28"))
    }
    columns |= {field.column.name for field in image_fields(members())}
    rows = table(HAEMATOLOGISTS, "What the columns mean")
    named = {name for row in rows for name in re.findall(r"\w+_\w+", row[0])}
    assert named - columns == set()
    assert {"probability_malignant", *(f"{member.name}_probability" for member in members())} <= named
    assert {"decision", "disagreement"} <= {row[0] for row in rows}


def demo_rows(text: str) -> Rows:
    return [line.split() for line in text.splitlines() if re.match(r" *(patient_id|S\d+) ", line)]


def test_the_table_in_the_readme_is_what_the_demo_prints(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "tests.demo", str(tmp_path / "demo")]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    shown, printed = demo_rows(read(ROOT / "README.md")), demo_rows(done.stdout)
    assert len(printed) == 7
    assert shown[0] == printed[0]
    for row, other in zip(shown, printed, strict=True):
        for cell, found in zip(row, other, strict=True):
            # Another processor rounds otherwise, or computes in float32.
            assert cell == found or float(cell) == pytest.approx(float(found), abs=0.01)


def test_the_readme_is_short() -> None:
    assert len(read(ROOT / "README.md").splitlines()) <= MOST_LINES


def test_the_documents_are_found() -> None:
    expected = {"README.md", "CONTRIBUTING.md", "infer/README.md", "infer/reference/MODEL_CARD.md"}
    assert expected <= set(map(of_document, DOCUMENTS))


@pytest.mark.parametrize("path", DOCUMENTS, ids=of_document)
def test_every_link_leads_somewhere(path: Path) -> None:
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", read(path)):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        if not (file.exists() and file.is_relative_to(ROOT)) or (anchor and anchor not in anchors(read(file))):
            dead.append(target)
    assert dead == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=of_document)
def test_no_path_is_of_somebodys_own_machine(path: Path) -> None:
    found = re.findall(r"(?:^|(?<=[\s`\"'(:=\[]))/[A-Za-z][\w./-]*", read(path), re.MULTILINE)
    assert [one for one in found if not one.startswith(ABSOLUTE)] == []


def code(path: Path) -> Iterator[str]:
    """Each span of code, and each line of a block, lines that a backslash continues as one."""
    text = re.sub(r"\\\n\s*", "", read(path))
    yield from (line.strip() for line in text.splitlines() if line.startswith("    "))
    yield from (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text))


BY_READER = [
    ROOT / "README.md", ROOT / "CONTRIBUTING.md", OPERATORS, HAEMATOLOGISTS, TRAINERS, ROOT / "train/EXPERIMENTS.md",
    EXPORTERS,
]  # fmt: skip


@pytest.mark.parametrize("path", BY_READER, ids=of_document)
def test_every_path_of_the_repository_is_there(path: Path) -> None:
    named = {one for text in code(path) for one in re.findall(rf"(?<![\w./-])(?:{'|'.join(ROOMS)})/[\w./-]*", text)}
    assert [one for one in sorted(named) if not (ROOT / one).exists()] == []


@pytest.mark.parametrize("path", BY_READER, ids=of_document)
def test_every_make_verb_and_variable_is_in_the_makefile(path: Path) -> None:
    makefile = read(ROOT / "Makefile")
    verbs = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for text in code(path):
        for verb, rest in re.findall(r"\bmake ([a-z][a-z-]*)([^#]*)", text):
            assert verb in verbs, text
            for variable in re.findall(r"\b([A-Z_]+)=", rest):
                assert f"$({variable})" in makefile, text


@pytest.mark.parametrize("path", BY_READER, ids=of_document)
def test_every_command_has_the_options_that_it_is_called_with(path: Path) -> None:
    for text in code(path):
        for module, rest in re.findall(r"\bpython -m ([\w.]+)([^#]*)", text):
            if module.startswith("tests."):
                assert importlib.util.find_spec(module), text
            elif module == "train":
                check_training(rest.split(), text)
            elif module in COMMANDS:
                check_options(COMMANDS[module], rest.split(), text)
        words = text.split()
        if words and words[0] in cli.commands and len(words) > 1:
            check_training(words, text)


@pytest.mark.parametrize("path", BY_READER, ids=of_document)
def test_every_option_is_somebodys(path: Path) -> None:
    commands = [*COMMANDS.values(), *cli.commands.values()]
    known = {name for command in commands for option in command.params for name in option.opts} | {"--help"}
    known |= {name for file in ROOT.glob("tests/*.py") for name in re.findall(r'click.option\("(--[\w-]+)', read(file))}
    named = {name for text in code(path) for name in re.findall(r"(?<![\w-])--[a-z][\w-]*", text)}
    assert sorted(named - known - OF_OTHERS) == []


def test_the_script_for_cron_is_one() -> None:
    lines = read(OPERATORS).splitlines()
    script = takewhile(lambda line: not line or line.startswith("    "), lines[lines.index("    #!/bin/sh") :])
    text = "\n".join(line[4:] for line in script)
    assert text.count("docker run") == 1
    subprocess.run(["sh", "-n"], input=text, text=True, check=True)


def check_training(words: list[str], text: str) -> None:
    if words and words[0] in cli.commands:  # else a placeholder
        check_options(cli.commands[words[0]], words[1:], text)


def check_options(command: click.Command, words: list[str], text: str) -> None:
    known = {name for option in command.params for name in option.opts} | {"--help"}
    assert [word for word in words if word.startswith("--") and word not in known] == [], text
