"""What stands on a patient's page and on the index, by value."""

import re
from typing import Any

import pytest
from msgspec import structs

from infer.bundle.manifest import OperatingPoint
from infer.bundle.reference import Reference, Spread
from infer.drift.measures import TITLES
from infer.report.about import Same, _same
from infer.report.charts import histogram, zones
from infer.report.crops import CHANGED, GONE, Shown
from infer.report.entry import Entry, entry_of
from infer.report.index import index_pages
from infer.report.page import patient_page
from infer.report.texts import Texts
from infer.report.write import layout
from infer.scoring.result import ImageResult
from tests.infer.manifests import USUAL
from tests.infer.report_pages import (
    CLINICAL,
    HOSTILE,
    PICTURE,
    SCORES,
    Page,
    about,
    drift_record,
    image,
    parsed,
    rendered,
    result,
)

MINUS = "\N{MINUS SIGN}"
CSP = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page_of(*arguments: Any, **named: Any) -> Page:
    return parsed(rendered(*arguments, **named))


def captions(page: Page) -> list[str]:
    return [" ".join(element.text.split()) for element in page.all("figcaption")]


def test_the_result_in_one_sentence() -> None:
    page = page_of(result())
    assert page.one("h1") == "Patient P1"
    assert page.one("p", class_="decision") == "Malignant"
    assert page.one("p", class_="sentence") == (
        "The probability of malignancy is 0.700: at 0.625 and above, a patient is called malignant. "
        "An argument for flow cytometry, not a diagnosis."
    )


@pytest.mark.parametrize(
    ("decision", "probability", "decided", "sentence"),
    [
        (
            "reactive",
            0.1,
            "Reactive",
            "The probability of malignancy is 0.100: below 0.250, a patient is called reactive.",
        ),
        ("refer", 0.4, "Undecided", "from 0.250 to 0.625, lympho leaves the decision to you."),
    ],
)
def test_the_other_decisions(decision: str, probability: float, decided: str, sentence: str) -> None:
    page = page_of(result(scores=structs.replace(SCORES, probability=probability, decision=decision)))
    assert page.one("p", class_="decision") == decided
    assert sentence in page.one("p", class_="sentence")


@pytest.mark.parametrize(
    ("probability", "unusual", "ood", "said"),
    [
        (0.7, (), "refer", "But the models disagree more than they did on 95% of the training patients, so lympho"),
        (0.7, ("sharpness low",), "warn", "But the models disagree more than they did on 95% of the training patients"),
        (
            0.1,
            ("sharpness low",),
            "refer",
            "By this number alone: Reactive. But this patient is unlike the training patients, and the models disagree "
            "more than they did on 95% of those, so lympho leaves the decision to you",
        ),
        (0.4, (), "refer", "The models disagree, too, more than they did on 95% of the training patients. Decide as"),
    ],
)
def test_where_the_models_disagree_the_result_says_so(
    probability: float, unusual: tuple[str, ...], ood: str, said: str
) -> None:
    scores = structs.replace(SCORES, probability=probability, decision="refer", disagree=True)
    page = page_of(result(scores=scores, unusual=unusual), about(ood=ood))
    assert page.one("p", class_="decision") == "Undecided"
    assert said in page.one("p", class_="sentence")
    french = parsed(rendered(result(scores=scores), texts=Texts("fr"))).one("p", class_="sentence")
    assert "les modèles divergent plus que pour" in french
    agreed = structs.replace(scores, disagree=False)
    assert "disagree" not in page_of(result(scores=agreed, unusual=("sharpness low",))).one("p", class_="sentence")


def test_the_index_counts_whom_the_models_disagree_on() -> None:
    view = patient_page(result(), None, (), about(), Texts("en"))
    entries = [entry_of("p1.html", result(), view)]

    def said(disagreeing: int) -> list[str]:
        (first, *_) = index_pages(entries, about(disagreeing=disagreeing), None, Texts("en"))
        text = layout(Texts("en")).index.render(page=first, about=about())
        return [" ".join(one.text.split()) for one in parsed(text).all("p", class_="flags")]

    assert said(0) == []
    assert said(3) == [
        "Patients on whom the models disagree more than they did on 95% of the training patients, left undecided for "
        "that: 3."
    ]


def test_thresholds_and_patient_stand_where_they_belong_on_the_scale() -> None:
    page = page_of(result())
    (scale,) = [element for element in page.all("svg") if element.attributes.get("role") == "img"]
    assert scale.attributes["aria-label"] == (
        "Scale of the probability from 0 to 1: reactive below 0.250, malignant at 0.625 and above; this patient: 0.700."
    )
    boxes = [element.attributes for element in page.all("rect")][:3]
    assert [(box["class"], box["x"], box["width"]) for box in boxes] == [
        ("reactive", "0.00%", "25.00%"),
        ("refer", "25.00%", "37.50%"),
        ("malignant", "62.50%", "37.50%"),
    ]
    texts = {" ".join(element.text.split()): element.attributes["x"] for element in page.all("text")}
    assert {name: texts[name] for name in ("0.250", "0.625", "0.700 this patient")} == {
        "0.250": "25.00%",
        "0.625": "62.50%",
        "0.700 this patient": "70.00%",
    }
    marks = [element.attributes["x"] for element in page.all("svg") if element.attributes.get("overflow") == "visible"]
    assert marks[:3] == ["70.00%", "70.00%", "40.00%"]  # on the scale; in the table all together, clinical alone


def test_zones_of_other_thresholds() -> None:
    assert [(zone.decision, zone.left, zone.width) for zone in zones(OperatingPoint(0.5, 0.5))] == [
        ("reactive", "0.00%", "50.00%"),
        ("malignant", "50.00%", "50.00%"),
    ]
    assert [zone.decision for zone in zones(OperatingPoint(0.0, 1.0))] == ["refer"]


def test_what_each_model_says() -> None:
    page = page_of(result())
    assert page.rows("members") == [
        ["All together", "0.700", "", "", ""],
        ["Sex, age and count alone", "0.400", "", "", ""],
        ["Picture features", "0.750", "", "99%", ""],
        ["Cell classes", "0.250", "", "1%", ""],
        ["Mixture of experts", "0.900", "", "0%", "38%"],
    ]
    assert "They lie up to 0.650 apart." in page.text
    assert "Share from pictures: for each patient" in page.text
    said = (
        "Logistic regression on sex, age and count alone says 0.400; all models together, which also see the pictures, "
    )
    assert f"{said}say 0.700. Not all of the difference comes from the pictures" in page.text
    nothing = page_of(result(scores=structs.replace(SCORES, clinical=None)))
    assert "Logistic regression" not in nothing.text


def test_the_gate_of_each_member_that_has_one_is_explained() -> None:
    both = {"moe_image_gate": 0.375, "imagenet_image_gate": 0.0625}
    page = page_of(result(scores=structs.replace(SCORES, further=both)))
    assert [row[-1] for row in page.rows("members")] == ["", "", "6%", "", "38%"]
    assert "Where it is small, a high probability, 0.95 say, over cells that speak for reactive rests on" in page.text
    french = parsed(rendered(result(scores=structs.replace(SCORES, further=both)), texts=Texts("fr")))
    assert "Quand il est faible, une probabilité élevée, 0,95 par exemple, malgré des cellules" in french.text
    none = page_of(result(scores=structs.replace(SCORES, further={})))
    assert "Where it is small" not in none.text


def test_the_right_cells_in_the_right_order() -> None:
    images = [image(number, (number - 20) / 100, cell_class=number % 15) for number in range(41)]
    page = page_of(result(images))
    assert [page.all("h3")[index].text.strip() for index in range(3)] == [
        "Speak most for malignant",
        "Speak most for reactive",
        "Drawn at random from the others",
    ]
    shown = captions(page)
    assert shown[:2] == ["+0.200 class 10 040.jpg", "+0.190 class 9 039.jpg"]
    assert shown[12:14] == [f"{MINUS}0.200 class 0 000.jpg", f"{MINUS}0.190 class 1 001.jpg"]
    assert len(shown) == 36
    pictures = page.all("img")
    assert [picture.attributes["src"] for picture in pictures] == [PICTURE] * 36
    assert pictures[0].attributes["alt"] == "Cell in 040.jpg, influence +0.200"
    assert "Fewer than" not in page.text


def test_fewer_pictures_than_cells_to_show_is_said() -> None:
    page = page_of(result([image(number, 0.1) for number in range(1, 6)]))
    assert "Fewer than 36 pictures can be used: 5 of 5 are shown." in page.text
    assert "No cell of this patient does." in page.text  # speak most for reactive


def test_pictures_that_are_gone_or_changed_are_said_so_cell_by_cell() -> None:
    of = result([image(1, 0.2), image(2, 0.1), image(3, -0.1)])
    page = page_of(of, pictures=[Shown(PICTURE), Shown(missing=GONE), Shown(missing=CHANGED)])
    missing = [element.text.strip() for element in page.all("div", class_="missing")]
    assert missing == ["cannot be read any more", "has changed since it was scored"]
    assert len(page.all("img")) == 1
    assert "None of this patient" not in page.text
    page = page_of(of, pictures=[Shown(missing=GONE)] * 3)
    assert "None of this patient's pictures could be read when this page was written. The result stands" in page.text


def test_classes_beside_the_training_patients() -> None:
    spreads = {"share_0": Spread(0.1, 0.2, 0.5), "share_2": Spread(0.0, 0.01, 0.02), "lymph_count": Spread(1, 2, 3)}
    reference = Reference(130, {}, {"reactive": spreads, "malignant": spreads}, CLINICAL, USUAL)
    of = result([image(number) for number in range(20)], measures={"share_0": 0.0, "share_1": 0.75, "share_2": 0.25})
    page = page_of(of, about(reference=reference))
    assert page.rows("classes") == [
        ["0", "0%", "", "10% to 50%", "10% to 50%"],
        ["2", "25%", "", "0% to 2%", "0% to 2%"],
    ]
    boxes = [(box.attributes["x"], box.attributes["width"]) for box in page.all("rect", class_="range-reactive")]
    assert boxes[1:] == [("20.00%", "80.00%"), ("0.00%", "4.00%")]  # of .5, the largest share; the first is the key
    assert "50.00%" in [element.attributes["x"] for element in page.all("svg") if "x" in element.attributes]
    assert page_of(of).rows("classes") == []


def test_what_to_look_at_before_the_number_is_trusted() -> None:
    of = result(
        [*(image(number) for number in range(3)), *(ImageResult(f"{number}.bmp", "empty: x") for number in range(4))],
        unusual=("sharpness low", "further high"),
        unusual_sizes={"9 x 9": 2, "8 x 8": 1},
        pictures_below=("slide<2>",),
        ignored_files=2,
    )
    page = page_of(of, about(same={"P1": (Same(("P1", "P2", "P3"), 4), Same(("P1",), 1))}))
    flags = [
        "Unlike the training patients: Sharpness low, further high. The probability may be wrong.",
        "Pictures of another size than in the training (224 x 224 pixels): 3. Cells may look larger or smaller than "
        "the models know them.",
        "Pictures that are also those of P2, P3: 4. One of these patients has another's cells.",
        "Pictures that are there twice: 1.",
        "Few pictures could be used: 3.",
        "More pictures were rejected than used.",
        "Pictures in folders inside the patient's folder were not looked at: slide<2>.",
    ]
    items = [element.text.strip() for element in page.all("li") if element.text.strip() in flags]
    assert items == flags * 2  # at the top, and under quality
    assert "Files in the folder that are no pictures: 2." in page.text


def test_nothing_unusual() -> None:
    page = page_of(result())
    assert "Nothing unusual was found." in page.text
    assert page.all("div", class_="flags") == []


def test_rejected_pictures_with_their_reasons() -> None:
    images = [*(image(number) for number in range(3)), ImageResult("é.jpg", "too_small: 9 x 9, at least 112 x 112")]
    page = page_of(result(images))
    assert page.rows("rejected") == [
        ["é.jpg", "Too small 9 x 9, at least 112 x 112", "Export it larger. Do not enlarge it afterwards."]
    ]
    many = page_of(result([image(1), *(ImageResult(f"{number}.jpg", "empty: x") for number in range(230))]))
    assert len(many.rows("rejected")) == 200
    assert "Further ones in images.csv: 30." in many.text


def test_a_patient_without_a_result_has_a_reason_and_what_to_do() -> None:
    reason = "folder_missing: the cohort has no folder of this name, but <b>p1</b>"
    page = page_of(result((), status="failed", reason=reason, scores=None, age_years=None, contents=()))
    assert page.one("p", class_="decision") == "Failed"
    assert "The patient has no folder." in page.text
    assert "Copy the folder, or correct its name" in page.text
    assert page.one("q") == "the cohort has no folder of this name, but <b>p1</b>"
    assert page.all("b") != []
    assert page.all("img") == []


def test_a_patient_without_an_id_can_still_be_clicked_on() -> None:
    of = result((), patient_id=" ", status="failed", reason="id_missing: x", scores=None, age_years=None, contents=())
    assert page_of(of).one("h1") == "Patient (no ID)"
    view = patient_page(of, None, (), about(), Texts("en"))
    (page,) = index_of([entry_of("p00001.html", of, view)])
    assert [element.text.strip() for element in page.all("a")] == ["(no ID)"]


def test_facts_and_not_a_medical_device() -> None:
    page = page_of(result(), about(facts=(("Bundle", "abc"), ("Computed on", "CPU, int8"))))
    assert [element.text.strip() for element in page.all("dd")] == ["abc", "CPU, int8"]
    assert len(re.findall("Not a medical device", page.text)) == 2


def test_french() -> None:
    text = rendered(result(), texts=Texts("fr"))
    page = parsed(text)
    assert text.startswith('<!DOCTYPE html>\n<html lang="fr">')
    assert page.one("p", class_="decision") == "Maligne"
    assert "La probabilité de malignité est de 0,700" in page.text
    assert "+0,090 classe 3" in page.text
    assert not re.search(r"\d\.\d", page.one("main"))


@pytest.mark.parametrize(
    "hostile", [HOSTILE, '"><script>alert(1)</script>', "{{ 7*7 }}", "javascript:alert(1)", "</title>"]
)
def test_hostile_ids_and_names_are_text(hostile: str) -> None:
    of = result(
        [image(1, 0.1, name=hostile), ImageResult(hostile, f"undecodable: {hostile}")],
        patient_id=hostile,
        pictures_below=(hostile,),
    )
    run = about(same={hostile: (Same((hostile, hostile + "2"), 1),)}, facts=(("Bundle", hostile),))
    text = rendered(of, run)
    harmless = rendered(
        result(
            [image(1, 0.1, name="x"), ImageResult("x", "undecodable: x")],
            patient_id="x",
            pictures_below=("x",),
        ),
        about(same={"x": (Same(("x", "x2"), 1),)}),
    )
    page = parsed(text)
    assert [e.tag for e in page.elements] == [e.tag for e in parsed(harmless).elements]
    assert page.text.count(hostile) >= 7
    assert [name for e in page.elements for name in e.attributes if name.startswith("on")] == []
    entry = Entry("p00001.html", hostile, "malignant", "", 0.7, 0.1, 20, False)
    failed = Entry("p00002.html", hostile, "failed", hostile, None, 0.0, 0, False)
    index = index_of([entry, failed])[0]
    assert index.text.count(hostile) == 3
    assert index.all("script") == []
    assert index.all("img") == []


def index_of(entries: list[Entry], drift: Any = None, language: str = "en", **changes: Any) -> list[Page]:
    texts = Texts(language)
    template = layout(texts).index
    run = about(**changes)
    return [parsed(template.render(page=page, about=run)) for page in index_pages(entries, run, drift, texts)]


def entry(number: int, probability: float | None, decision: str = "malignant", code: str = "") -> Entry:
    return Entry(f"p{number:05}.html", f"P{number:05}", decision, code, probability, 0.25, 30, number % 2 == 0)


def test_who_has_no_result_comes_first_and_then_everybody_by_probability() -> None:
    page, *others = index_of(
        [
            entry(1, 0.1, "reactive"),
            entry(2, None, "refused", "count_missing"),
            entry(3, 0.9),
            entry(4, None, "failed", "folder_missing"),
            entry(5, None, "failed", "folder_missing"),
        ]
    )
    assert others == []
    assert [element.text.strip() for element in page.all("h3")] == [
        "Failed: The patient has no folder",
        "Refused: The lymphocyte count is missing",
    ]
    links = [(element.attributes["href"], element.text.strip()) for element in page.all("a")]
    assert links == [
        ("p00004.html", "P00004"),
        ("p00005.html", "P00005"),
        ("p00002.html", "P00002"),
        ("p00003.html", "P00003"),
        ("p00001.html", "P00001"),
    ]
    assert page.rows("scored") == [
        ["P00003", "0.900", "", "Malignant", "0.250", "30", ""],
        ["P00001", "0.100", "", "Reactive", "0.250", "30", ""],
    ]
    assert "Enter the count." in page.text
    assert re.search("1 Malignant 0 Undecided 0 Reactive 1 Refused 1 Failed", page.text)
    assert page.all("img") == []


def test_the_histogram() -> None:
    bars = histogram([0, 1, 0, 4]).bars
    assert [(bar.left, bar.width, bar.top, bar.height) for bar in bars] == [
        ("2.00%", "21.00%", "140.0", "0.0"),
        ("27.00%", "21.00%", "105.0", "35.0"),
        ("52.00%", "21.00%", "140.0", "0.0"),
        ("77.00%", "21.00%", "0.0", "140.0"),
    ]
    assert histogram([1, 10_000]).bars[0].height == "2.0"
    page, *_ = index_of([entry(number, number / 10) for number in range(11)])
    titles = [element.text.strip() for element in page.all("title") if "svg" in element.inside]
    assert titles[:2] == ["0.00 to 0.05, patients: 1", "0.05 to 0.10, patients: 0"]
    assert titles[-1] == "0.95 to 1.00, patients: 1"
    assert len(page.all("rect", class_="bar")) == len(titles) == 20
    dashes = [line.attributes["x1"] for line in page.all("line", class_="dash")]
    assert dashes == ["25.00%", "62.50%"]


def test_five_hundred_a_page() -> None:
    entries = [entry(number, number / 1201) for number in range(1201)]
    pages = index_of(entries)
    assert [len(page.rows("scored")) for page in pages] == [500, 500, 201, 500, 500, 201]
    assert pages[0].rows("scored")[0][0] == "P01200"
    assert pages[2].rows("scored")[-1][0] == "P00000"
    assert pages[3].rows("scored")[0][0] == "P00000"  # by ID
    first = {
        element.attributes["href"]: element.text.strip() for element in pages[0].all("a") if "nav" in element.inside
    }
    assert first == {
        "by-id.html": "By patient ID",
        "index.html": "1: 0.999 to 0.584",
        "index-2.html": "2: 0.583 to 0.167",
        "index-3.html": "3: 0.167 to 0.000",
    }
    assert [element.text.strip() for element in pages[1].all("a") if "aria-current" in element.attributes] == (
        ["2: 0.583 to 0.167"] * 2
    )
    assert "Page 2 of 3" in pages[1].text
    assert [page.all("svg", role="img") != [] for page in pages] == [True, False, False, False, False, False]


def test_many_without_a_result_are_five_hundred_a_page_too() -> None:
    pages = index_of([entry(number, None, "failed", "folder_missing") for number in range(501)])
    of_pages = [sum("names" in str(e.attributes.get("class")) for e in page.all("ul")) for page in pages[:2]]
    assert of_pages == [1, 1]
    assert "No patient was scored." in pages[0].text


def test_the_drift_panel() -> None:
    """The record is one that infer.drift made: of 30 patients, all with a median share far above the training's."""
    (page,) = index_of([entry(1, 0.5)], drift_record({"share_3": 0.9}))
    (row,) = page.rows("drift")
    assert (row[:4], row[5]) == (["Share of cell class 3", "0.899", "0.500", "<0.001"], "yes")
    assert "Tonight's patients differ from the training patients: Share of cell class 3 higher." in page.text
    assert (
        "All nights in the history (runs: 1, patients: 30): they differ from the training patients, found on "
        in page.text
    )
    assert index_of([entry(1, 0.5)])[0].all("h2", id="drift") == []


def test_the_drift_panel_of_a_night_of_few_patients() -> None:
    (page,) = index_of([entry(1, 0.5)], drift_record({"share_3": 0.9}, patients=7))
    assert page.rows("drift") == [["Share of cell class 3", "", "0.500", "", "", "no"]]
    assert "Too few patients to tell: 7 measured, 20 needed." in page.text
    texts = Texts("fr")
    assert {key for key in TITLES if texts.name("measures", key) == key} == set()


def test_every_page_forbids_what_it_does_not_need() -> None:
    texts = Texts("en")
    index = layout(texts).index
    (view,) = index_pages([entry(1, 0.5)], about(), None, texts)
    for text in (rendered(result()), index.render(page=view, about=about())):
        head = text[: text.index("</head>")]
        assert f'http-equiv="Content-Security-Policy" content="{CSP}"' in head
        assert "://" not in text
        page = parsed(text)
        assert [e.tag for e in page.elements if e.tag in ("script", "iframe", "object", "form")] == []


def test_patients_that_share_pictures() -> None:
    both, alone = Same(("P1", "P2"), 3), Same(("P1",), 1)
    found = [{"patients": ["P1"], "pictures": 1}, {"patients": ["P1", "P2"], "pictures": 3}]
    assert _same(found) == {"P1": (alone, both), "P2": (both,)}


def test_a_cohort_that_shares_its_pictures_makes_no_page_long() -> None:
    """Nor memory: each group is there once."""
    everybody = [f"P{number}" for number in range(2000)]
    found = _same([{"patients": everybody, "pictures": number} for number in range(1, 9)])
    assert found["P7"][0] is found["P1999"][0]
    flags = [element.text.strip() for element in page_of(result(), about(same=found)).all("li")]
    assert flags[:2] == [
        f"Pictures that are also those of P0, P2, P3, P4, P5 and 1,994 more: {number}. One of these patients has "
        "another's cells."
        for number in (1, 2)
    ]
    assert flags[5] == "Further groups of patients that share pictures with this one, in run.json: 3."
    assert flags.count(flags[0]) == 2  # at the top, and under quality


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        (
            {"unlike": 3},
            "Patients unlike the training patients, left undecided for that: 3. Their pages say what is unlike.",
        ),
        (
            {"unlike": 3, "ood": "warn"},
            "Patients unlike the training patients, decided all the same: 3. Their pages say",
        ),
    ],
)
def test_the_index_says_how_many_are_unlike_the_training_patients(changes: dict[str, Any], said: str) -> None:
    (page,) = index_of([entry(1, 0.5)], **changes)
    assert said in page.text
    assert bool(page.all("p", class_="flags")) == bool(said)


def test_a_patient_unlike_the_training_patients_is_left_to_the_reader() -> None:
    """The number stands, and the page says why it decides nothing."""
    page = page_of(result(scores=structs.replace(SCORES, decision="refer"), unusual=("sharpness low",)))
    (decision,), (sentence,) = page.all("p", class_="decision"), page.all("p", class_="sentence")
    assert decision.text.strip() == "Undecided"
    assert "The probability of malignancy is 0.700: at 0.625 and above, a patient is called malignant." in sentence.text
    assert "By this number alone: Malignant. But this patient is unlike the training patients" in sentence.text
    assert "Unlike the training patients: Sharpness low." in page.text
    warned = page_of(result(unusual=("sharpness low",)))
    assert "By this number alone" not in warned.text
    assert "Unlike the training patients: Sharpness low." in warned.text
