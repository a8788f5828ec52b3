"""Helpers: results by value, and pages read as a browser reads them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

from infer.bundle.manifest import OperatingPoint
from infer.bundle.reference import LABELS, LEVELS, ClinicalAlone, Reference
from infer.drift.history import tonights_line
from infer.drift.measures import Values
from infer.drift.night import summed_scores, tonight
from infer.drift.nights import with_history
from infer.drift.report import as_record
from infer.report.about import About
from infer.report.cells import choose
from infer.report.crops import Shown
from infer.report.page import patient_page
from infer.report.texts import Texts
from infer.report.write import layout
from infer.scoring.result import ImageResult, PatientResult, Scores
from tests.infer.manifests import USUAL

HOSTILE = "<img src=x onerror=alert(1)>"
CLINICAL = ClinicalAlone(0.0, 0.0, 0.0, 0.0)
NOTHING_KNOWN = Reference(130, {}, {label: {} for label in LABELS}, CLINICAL, USUAL)
EMPTY = frozenset({"meta", "link", "img", "br"})
PICTURE = "data:image/jpeg;base64,AAAA"
SCORES = Scores(
    probability=0.7,
    decision="malignant",
    members={"imagenet": 0.75, "scan": 0.25, "moe": 0.9},
    further={"moe_image_gate": 0.375},
    clinical=0.4,
)


@dataclass
class Element:
    """An element of a page, with all the text in it."""

    tag: str
    attributes: Mapping[str, str]
    inside: tuple[str, ...]  # tags around it
    text: str = ""


@dataclass
class Page:
    """A page as parsed."""

    elements: list[Element] = field(default_factory=list)

    @property
    def text(self) -> str:
        (body,) = self.all("body")
        return " ".join(body.text.split())

    def all(self, tag: str, **attributes: str) -> list[Element]:
        return [
            element
            for element in self.elements
            if element.tag == tag
            and all(element.attributes.get(name.rstrip("_")) == value for name, value in attributes.items())
        ]

    def one(self, tag: str, **attributes: str) -> str:
        """The text of the only such element."""
        (element,) = self.all(tag, **attributes)
        return " ".join(element.text.split())

    def rows(self, labelled_by: str) -> list[list[str]]:
        """The cells of the body of the table that an element of this ID names."""
        rows: list[list[str]] = []
        inside = False
        for element in self.elements:
            if element.tag == "table":
                inside = element.attributes.get("aria-labelledby") == labelled_by
            if inside and element.tag == "tr" and "tbody" in element.inside:
                rows.append([])
            if inside and element.tag in ("td", "th") and "tbody" in element.inside:
                rows[-1].append(" ".join(element.text.split()))
        return rows


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page, self.open = Page(), list[Element]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs}, tuple(one.tag for one in self.open))
        self.page.elements.append(element)
        if tag not in EMPTY:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.page.elements.append(Element(tag, {name: value or "" for name, value in attrs}, ()))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.text += data + " "


def parsed(text: str) -> Page:
    """A page; its tags must be balanced."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader.page


def image(number: int, influence: float | None = 0.0, cell_class: int = 3, name: str = "") -> ImageResult:
    return ImageResult(name or f"{number:03}.jpg", "", {"cell_class": cell_class}, influence)


def result(images: Sequence[ImageResult] = (), **changes: Any) -> PatientResult:
    images = tuple(images or (image(number, 0.01 * (number - 10)) for number in range(20)))
    used = sum(not one.reason for one in images)
    values: dict[str, Any] = {"patient_id": "P1", "status": "scored", "reason": "", "age_years": 69.9, "scores": SCORES}
    values |= {"images": images, "contents": tuple(f"{number:016x}" for number in range(used))}
    return PatientResult(**(values | changes))


def about(**changes: Any) -> About:
    values: dict[str, Any] = {
        "point": OperatingPoint(0.25, 0.625),
        "weights": {"imagenet": 0.99, "scan": 0.01, "moe": 0.0},
        "sizes": "224 x 224",
        "patients": 3,
        "counts": {"malignant": 1, "refer": 0, "reactive": 0, "refused": 1, "failed": 1},
        "facts": (("Bundle", "abc"),),
        "version": "0.1.0",
        "bundle": "abc",
        "reference": NOTHING_KNOWN,
    }
    return About(**(values | changes))


def rendered(
    of: PatientResult, run: About | None = None, pictures: Sequence[Shown] | None = None, texts: Texts | None = None
) -> str:
    """The text of a patient's page."""
    run, texts = run or about(), texts or Texts("en")
    chosen = choose(of) if of.scores else None
    shown = pictures if pictures is not None else [Shown(PICTURE)] * (len(chosen.all) if chosen else 0)
    view = patient_page(of, chosen, shown, run, texts)
    return layout(texts).patient.render(page=view, about=run)


def drift_record(medians: Mapping[str, float], patients: int = 30, step: float = 0.001) -> dict[str, Any]:
    """What infer.drift writes of a night: measures whose training patients lie evenly between 0 and 1.

    Args:
        medians: tonight's, nearly.
        patients: scored tonight.
        step: between the values of two patients.
    """
    reference = {key: list(LEVELS) for key in medians}
    values = Values()
    for number in range(patients):
        values.add({key: median + step * (number - patients / 2) for key, median in medians.items()}, 0.5, "refer")
    drift = tonight(reference, 130, values)
    line = tonights_line("2026-11-28T02:00:00+00:00", "b", "r", patients, summed_scores(reference, values))
    nights, _ = with_history((), line, reference, 130)
    return as_record(drift, 130, nights)
