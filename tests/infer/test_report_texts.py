"""Texts and numbers in both languages: complete, and none that no page uses."""

import string
import tomllib
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from msgspec import structs

from infer.bundle.manifest import OperatingPoint, load_members
from infer.bundle.reference import Reference, Spread
from infer.cli import command
from infer.errors import UsageError
from infer.reasons import Reason
from infer.report.about import Same, about_run
from infer.report.crops import CHANGED, GONE, Shown
from infer.report.entry import entry_of
from infer.report.index import index_pages
from infer.report.page import patient_page
from infer.report.texts import FOLDER, LANGUAGES, Texts, shown
from infer.report.write import layout
from infer.scoring.result import ImageResult, PatientResult
from infer.scoring.unusual import Ood
from tests.infer.manifests import ADAPTED, APPEARANCE, USUAL, make_manifest
from tests.infer.report_pages import CLINICAL, SCORES, about, drift_record, image, rendered, result
from tests.infer.test_results import HEADER

NBSP, NARROW = "\N{NO-BREAK SPACE}", "\N{NARROW NO-BREAK SPACE}"
LOOKED_UP = ("members.", "measures.", "devices.", "reasons.")  # by a code
OF_DOCUMENTS = ("fhir.",)  # test_fhir.py looks at these
REFERENCE = Reference(
    130,
    {},
    {label: {f"share_{n}": Spread(0.1, 0.2, 0.3) for n in range(4)} for label in ("reactive", "malignant")},
    CLINICAL,
    USUAL,
    appearance=APPEARANCE,
)


def keys(texts: dict[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for name, value in texts.items():
        if isinstance(value, dict):
            yield from keys(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def read(language: str) -> dict[str, str]:
    return dict(keys(tomllib.loads((FOLDER / f"{language}.toml").read_text(encoding="utf-8"))))


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_both_languages_have_the_same_texts_with_the_same_placeholders() -> None:
    english, french = read("en"), read("fr")
    assert list(english) == list(french)
    assert [key for key in english if placeholders(english[key]) != placeholders(french[key])] == []
    assert [key for texts in (english, french) for key, text in texts.items() if not text.strip()] == []
    same = [key for key in english if english[key] == french[key] and not key.endswith(".title")]
    assert [key for key in same if len(english[key].split()) > 2] == []  # not translated


def test_every_reason_and_every_member_has_a_text() -> None:
    assert [key for key in read("en") if key.startswith("reasons.")] == [
        f"reasons.{reason.code}.{part}" for reason in Reason for part in ("is", "do")
    ]
    assert {f"members.{member.name}" for member in load_members(make_manifest())} <= set(read("en"))


def test_the_languages_are_those_of_the_option_and_of_the_files() -> None:
    (option,) = [option for option in command.params if option.name == "language"]
    assert tuple(option.type.choices) == LANGUAGES  # type: ignore[attr-defined]
    assert sorted(path.stem for path in FOLDER.iterdir()) == sorted(LANGUAGES)
    with pytest.raises(UsageError, match=r"--language de: there are no texts in it\. Choose from en, fr"):
        Texts("de")


class Spy(Texts):
    """Remembers which texts were used."""

    used: set[str]

    def __call__(self, key: str, **values: object) -> str:
        self.used.add(key)
        return super().__call__(key, **values)


def every_patient() -> list[PatientResult]:
    """Patients that between them have everything that a page may say."""
    scored = [
        result(scores=structs.replace(SCORES, probability=probability, decision=decision, clinical=clinical))
        for probability, decision, clinical in ((0.7, "malignant", 0.4), (0.1, "reactive", 0.6), (0.5, "refer", 0.5))
    ]
    odd = result(
        [image(1, None), ImageResult("2.jpg", "empty: x"), ImageResult("3.jpg", "empty: x")],
        scores=structs.replace(SCORES, decision="refer"),
        unusual=("sharpness low", "red high"),
        unusual_sizes={"9 x 9": 1},
        pictures_below=("slide2",),
        ignored_files=2,
        measures={"lymph_count": 7.5, "share_0": 0.5, "share_1": 0.0, "share_2": 0.0, "share_3": 0.5},
    )
    apart = [
        result(
            scores=structs.replace(SCORES, probability=probability, decision="refer", disagree=True), unusual=unusual
        )
        for probability, unusual in ((0.7, ()), (0.5, ()), (0.1, ("sharpness low",)))
    ]
    failed = [
        result((), status=status, reason="folder_missing: x", scores=None, contents=(), age_years=None)
        for status in ("failed", "failed", "refused")
    ]
    many = result([*(image(number) for number in range(40)), *(ImageResult(f"{n}.x", "empty: x") for n in range(201))])
    nobody = structs.replace(failed[0], patient_id="")
    unlike = structs.replace(failed[2], unusual=("sharpness low",))
    return [*scored, odd, *failed, many, nobody, *apart, unlike]


RECORD = {
    "program": {"version": "0.1.0"},
    "bundle": {"prevalence": 0.3},
    "device": {"provider": "CPUExecutionProvider", "precision": "float32"},
    "cohort": {"patients": 8},
    "patients": {},
    "decisions": {},
    "same_pictures": [],
    "patients_unlike_training": 0,
    "patients_disagreeing": 0,
}
DRIFTS = (
    drift_record({"red": 0.9}),
    drift_record({"red": 0.1}),
    drift_record({"red": 0.5}, patients=100),  # less varied
    drift_record({"red": 0.5}, patients=100, step=0.1),  # more varied
    drift_record({"red": 0.5}, step=1 / 30),  # as in training
    drift_record({"red": 0.5}, patients=7),
)


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_is_unused(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every page that may be, and which texts stand on them."""
    texts = Spy(language)
    texts.used = set()
    monkeypatch.setattr("infer.report.index.ROWS", 4)
    about_run(RECORD, HEADER, structs.replace(make_manifest(), adapted=ADAPTED), texts)
    run = about(reference=REFERENCE, same={"P1": (Same(("P1",), 1), *[Same(tuple(f"P{n}" for n in range(9)), 3)] * 6)})
    entries = []
    for number, one in enumerate(every_patient()):
        rendered(one, run, texts=texts)
        entries.append(entry_of(f"p{number}.html", one, patient_page(one, None, (), run, texts)))
    rendered(result(), texts=texts, pictures=[Shown(missing=GONE), Shown(missing=CHANGED)] * 10)
    template = layout(texts).index
    for some, drift in ((entries, DRIFTS[0]), *((entries[4:6], drift) for drift in DRIFTS)):
        for page in index_pages(some, run, drift, texts):
            template.render(page=page, about=run)
    for ood in get_args(Ood):
        list(index_pages(entries, about(unlike=2, disagreeing=1, ood=ood), None, texts))
    unused = set(read(language)) - texts.used
    assert sorted(key for key in unused if not key.startswith(LOOKED_UP + OF_DOCUMENTS)) == []


@pytest.mark.parametrize(
    ("value", "english", "french"),
    [
        (0.6479, "0.648", "0,648"),
        (0.0, "0.000", "0,000"),
        (1.0, "1.000", "1,000"),
        (0.0004, "<0.001", "<0,001"),
        (0.9996, ">0.999", ">0,999"),
        (0.0005, "0.001", "0,001"),
    ],
)
def test_probabilities(value: float, english: str, french: str) -> None:
    assert (Texts("en").probability(value), Texts("fr").probability(value)) == (english, french)


def test_numbers() -> None:
    english, french = Texts("en"), Texts("fr")
    assert (english.number(12345), french.number(12345)) == ("12,345", f"12{NARROW}345")
    assert (english.number(-1.25, 1), french.number(-1.25, 1)) == ("\N{MINUS SIGN}1.2", "\N{MINUS SIGN}1,2")
    assert [english.signed(value, 3) for value in (0.0314, -0.0316, 0.0, -0.0001)] == [
        "+0.031",
        "\N{MINUS SIGN}0.032",
        "0.000",
        "0.000",
    ]
    assert [english.influence(value) for value in (0.0314, 1.5, -0.00049, 0.0000012, -1e-9, 0.0)] == [
        "+0.031",
        "+1.500",
        "\N{MINUS SIGN}0.0005",
        "+0.000001",
        "0.000000",
        "0.000000",
    ]
    assert [english.percent(share) for share in (0, 0.004, 0.006, 0.5, 0.99, 0.996, 1)] == [
        "0%",
        "<1%",
        "1%",
        "50%",
        "99%",
        ">99%",
        "100%",
    ]
    assert french.percent(0.5) == f"50{NARROW}%"


def test_french_signs_do_not_begin_a_line() -> None:
    assert f"de 0{NBSP}%" not in Texts("fr")("members.weights_note")
    assert f"de poids 0{NBSP}%" in Texts("fr")("members.weights_note")


def test_what_cannot_be_printed_is_shown_as_an_escape() -> None:
    assert shown("P1 é\N{RIGHT-TO-LEFT OVERRIDE}\n\0\udcff") == r"P1 é\u202e\n\x00\udcff"


def test_codes_without_a_text_are_shown_as_they_are() -> None:
    texts = Texts("en")
    assert texts.name("measures", "new_measure") == "new_measure"
    assert texts.name("measures", "share_12") == "Share of cell class 12"
    assert texts.reason("new_reason") == ("new_reason", "")


def test_a_point_without_refer_has_no_zone_for_it() -> None:
    text = rendered(result(), about(point=OperatingPoint(0.5, 0.5)))
    assert 'class="refer"' not in text
