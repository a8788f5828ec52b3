"""What a bundle may say of the cells of a class, the words that pages make of it, and the drawings."""

import json
import math
from typing import Any

import pytest
from msgspec import structs

from infer.bundle.appearance import MEASURED, Appearance, ClassAppearance
from infer.bundle.load import load_bundle
from infer.bundle.manifest import decode, encode
from infer.bundle.reference import Reference, Spread
from infer.errors import BundleError
from infer.report.appearance import DARKEST, PALEST, all_pictures, in_words, look
from infer.report.texts import LANGUAGES, Texts
from tests.infer.manifests import APPEARANCE, REFERENCE, make_manifest
from tests.infer.report_pages import about, image, parsed, rendered, result
from tests.infer.runs import TINY

EN = Texts("en")
SHARES = {f"share_{number}": Spread(0.0, 0.1, 0.5) for number in range(4)}
KNOWN = structs.replace(REFERENCE, by_label={"reactive": SHARES, "malignant": SHARES}, appearance=APPEARANCE)
MIDDLE = {name: values[1] for name, values in APPEARANCE.quartiles.items()}


def with_class(**medians: float) -> Appearance:
    """One class, share_0, that is like most but for these."""
    return structs.replace(APPEARANCE, classes={"share_0": ClassAppearance(20, 200, MIDDLE | medians)})


def documented() -> dict[str, Any]:
    """A manifest with one described class."""
    reference = structs.replace(REFERENCE, appearance=with_class())
    found: dict[str, Any] = json.loads(encode(structs.replace(make_manifest(), reference=reference)))
    return found


@pytest.mark.parametrize(
    ("path", "value", "part"),
    [
        ("classes.share_0.patients", 4, ">= 5"),
        ("classes.share_0.pictures", 29, ">= 30"),
        ("classes.share_0.patients", 201, "classes.share_0 has more patients than pictures"),
        ("classes.share_0.medians", {}, "classes.share_0.medians must be of cell_size"),
        ("classes.share_0.medians.roundness", -0.1, ">= 0"),
        ("classes.share_0.name", "blast", "unknown field `name`"),
        ("quartiles", {}, "quartiles must be of cell_size"),
        ("quartiles.roundness", [0.9, 0.8, 1.0], "3 ascending numbers"),
        ("quartiles.roundness", [0.8, 0.9], "3 ascending numbers"),
        (
            "classes.share_9",
            {"patients": 5, "pictures": 30, "medians": MIDDLE},
            "has share_9, whose share nothing measures",
        ),
    ],
)
def test_a_bundle_that_says_less_or_more_is_refused(path: str, value: Any, part: str) -> None:
    document = documented()
    *places, last = path.split(".")
    at = document["reference"]["appearance"]
    for place in places:
        at = at[place]
    at[last] = value
    with pytest.raises(BundleError) as caught:
        decode(json.dumps(document).encode(), "manifest.json")
    assert part in str(caught.value)
    assert "appearance" in str(caught.value)


def test_it_comes_back_as_it_was_and_need_not_be_there() -> None:
    assert decode(json.dumps(documented()).encode(), "").reference.appearance == with_class()
    without = encode(make_manifest())
    assert b"appearance" not in without
    assert decode(without, "").reference.appearance is None
    assert load_bundle(TINY).manifest.reference.appearance == APPEARANCE


@pytest.mark.parametrize("name", MEASURED)
@pytest.mark.parametrize("end", ["low", "high"])
def test_a_word_is_said_outside_the_middle_half_and_not_at_its_edge(name: str, end: str) -> None:
    low, _, high = APPEARANCE.quartiles[name]
    edge, beyond = (low, low - 0.001) if end == "low" else (high, high + 0.001)
    assert in_words(with_class(**{name: edge}), "share_0", EN) == "like most"
    assert in_words(with_class(**{name: beyond}), "share_0", EN) == EN(f"appearance.{name}_{end}")


def test_words_are_those_of_haematologists() -> None:
    small_and_dense = with_class(cell_size=0.2, nucleus_share=0.9, chromatin_density=1.8)
    assert in_words(small_and_dense, "share_0", EN) == ("small cell, high nucleus-to-cytoplasm ratio, dense chromatin")
    assert in_words(small_and_dense, "share_0", Texts("fr")) == (
        "petite cellule, rapport nucléo-cytoplasmique élevé, chromatine dense"
    )
    assert in_words(with_class(cell_size=0.6, nucleus_share=0.5, roundness=0.8), "share_0", EN) == (
        "large cell, low nucleus-to-cytoplasm ratio, irregular outline"
    )


def test_a_class_that_is_too_rare_has_neither_words_nor_a_drawing() -> None:
    found = look(APPEARANCE, "share_3", 3, EN)
    assert (found.words, found.drawing) == ("too rare in the training to be described", None)


def test_areas_are_to_scale() -> None:
    """The larger class has three times the area of the smaller one; nuclei have their share of their cell's area."""
    small, large = (look(APPEARANCE, f"share_{number}", number, EN).drawing for number in (0, 1))
    assert small is not None
    assert large is not None
    area = {drawing: float(drawing.cell) ** 2 for drawing in (small, large)}
    assert area[large] / area[small] == pytest.approx(0.6 / 0.2, rel=0.02)
    assert float(small.nucleus) ** 2 / area[small] == pytest.approx(0.6, rel=0.02)
    assert float(large.nucleus) ** 2 / area[large] == pytest.approx(0.9, rel=0.02)
    assert float(all_pictures(APPEARANCE, EN).cell) == pytest.approx(20 * math.sqrt(0.4 / 0.6), abs=0.1)


def test_darker_nuclei_are_drawn_darker() -> None:
    def opacity(density: float) -> float:
        drawing = look(with_class(chromatin_density=density), "share_0", 0, EN).drawing
        assert drawing is not None
        return float(drawing.opacity)

    assert opacity(1.5) < opacity(1.6) < opacity(1.7) < opacity(1.8)
    assert opacity(1.6) == pytest.approx((PALEST + DARKEST) / 2)
    assert (opacity(0.5), opacity(2.9)) == (PALEST, DARKEST)
    flat = structs.replace(with_class(), quartiles=APPEARANCE.quartiles | {"chromatin_density": [1.6] * 3})
    assert float(all_pictures(flat, EN).opacity) == pytest.approx((PALEST + DARKEST) / 2)


def page_with(reference: Reference, language: str = "en") -> Any:
    measures = {"share_0": 0.5, "share_1": 0.5, "share_2": 0.0, "share_3": 0.0}
    of = result([image(number) for number in range(20)], measures=measures)
    return parsed(rendered(of, about(reference=reference), texts=Texts(language)))


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_class_has_its_words_and_its_drawing_on_the_page(language: str) -> None:
    texts = Texts(language)
    page = page_with(KNOWN, language)
    rows = page.rows("classes")
    assert [row[0] for row in rows] == ["0", "1", "2", "3"]
    for number, row in enumerate(rows):
        found = look(APPEARANCE, f"share_{number}", number, texts)
        assert row[1].endswith(found.words)
    drawn = page.all("svg", class_="drawn")
    assert len(drawn) == 1 + 3  # all training pictures, and the classes that are described
    assert all(one.attributes["role"] == "img" and one.attributes["aria-label"] == one.text.strip() for one in drawn)
    assert drawn[1].attributes["aria-label"] == look(APPEARANCE, "share_0", 0, texts).drawing.words  # type: ignore[union-attr]
    assert " ".join(texts("appearance.legend").split()) in page.text


def test_a_drawing_says_its_numbers_to_those_who_do_not_see_it() -> None:
    drawing = look(APPEARANCE, "share_1", 1, EN).drawing
    assert drawing is not None
    assert drawing.words == (
        "Class 1: large cell, high nucleus-to-cytoplasm ratio, dense chromatin, uneven chromatin, round outline. Cell "
        "60% of the picture, nucleus 90% of the cell, optical density 1.80. Training patients who have it: 21, "
        "pictures: 201."
    )


def test_the_pages_of_a_bundle_that_does_not_say_are_as_before() -> None:
    page = page_with(structs.replace(KNOWN, appearance=None))
    assert page.rows("classes")[0] == ["0", "50%", "", "0% to 50%", "0% to 50%"]
    assert page.all("svg", class_="drawn") == []
    assert "measured by a program" not in page.text
    assert all(table.attributes.get("class") != "classes" for table in page.all("table"))
