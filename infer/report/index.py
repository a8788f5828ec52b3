"""The index as plain data: counts, who has no result and why, and everybody else by probability, 500 a page."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from infer.reasons import FAILED
from infer.report.about import About
from infer.report.charts import Zone, share, zones
from infer.report.entry import Entry
from infer.report.overview import Overview, overview_of
from infer.report.texts import Texts

ROWS = 500  # patients a page


@dataclass(frozen=True)
class Line:
    """A patient's row."""

    page: str
    patient: str
    decision: str
    decided: str
    probability: str
    place: str
    disagreement: str
    used: str
    flagged: bool


@dataclass(frozen=True)
class NoResult:
    """Patients without a result for the same reason."""

    decided: str
    title: str
    do: str
    number: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Link:
    """A page of the index."""

    page: str
    label: str
    here: bool


@dataclass(frozen=True)
class IndexPage:
    """A page of the index."""

    name: str  # of the file
    heading: str
    number: str  # "Page 2 of 11"; empty if there is one only
    overview: Overview | None
    no_result: tuple[NoResult, ...]
    scored: tuple[Line, ...]
    zones: tuple[Zone, ...]
    by_id: bool
    links: tuple[Link, ...]
    other: Link | None  # the same patients in the other order


def index_pages(
    entries: Sequence[Entry], about: About, drift: Mapping[str, Any] | None, texts: Texts
) -> Iterator[IndexPage]:
    """All pages of the index, one at a time.

    Args:
        entries: of all patients, in the table's order.
        drift: what is known of the whole night (drift.json); None: nothing.
    """
    without = [entry for entry in entries if entry.probability is None]
    without.sort(key=lambda entry: (entry.decision != FAILED, entry.code))
    scored = sorted((e for e in entries if e.probability is not None), key=lambda e: -(e.probability or 0.0))
    ordered = _pages([*without, *scored])
    by_id = _pages(sorted(entries, key=lambda entry: entry.patient)) if len(ordered) > 1 else []
    heading = texts("index.heading", patients=texts.number(len(entries)))
    for index, part in enumerate(ordered):
        yield IndexPage(
            name=_name("index", index),
            heading=heading,
            number=_number(index, len(ordered), texts),
            overview=overview_of(scored, about, drift, texts) if index == 0 else None,
            no_result=_no_result(part, texts),
            scored=tuple(_line(entry, texts) for entry in part if entry.probability is not None),
            zones=zones(about.point),
            by_id=False,
            links=_links("index", index, [_span(one, texts) for one in ordered], texts),
            other=Link(_name("by-id", 0), texts("index.by_id"), False) if by_id else None,
        )
    for index, part in enumerate(by_id):
        yield IndexPage(
            name=_name("by-id", index),
            heading=texts("index.by_id_heading"),
            number=_number(index, len(by_id), texts),
            overview=None,
            no_result=(),
            scored=tuple(_line(entry, texts) for entry in part),
            zones=zones(about.point),
            by_id=True,
            links=_links("by-id", index, [(one[0].patient, one[-1].patient) for one in by_id], texts),
            other=Link(_name("index", 0), texts("index.by_probability"), False),
        )


def _pages(entries: Sequence[Entry]) -> list[Sequence[Entry]]:
    return [entries[at : at + ROWS] for at in range(0, len(entries), ROWS)]


def _name(kind: str, index: int) -> str:
    return f"{kind}.html" if index == 0 else f"{kind}-{index + 1}.html"


def _number(index: int, pages: int, texts: Texts) -> str:
    return texts("index.page", page=texts.number(index + 1), pages=texts.number(pages)) if pages > 1 else ""


def _span(entries: Sequence[Entry], texts: Texts) -> tuple[str, str] | None:
    """The largest and the smallest probability of a page; None if nobody on it has one."""
    found = [entry.probability for entry in entries if entry.probability is not None]
    return (texts.probability(found[0]), texts.probability(found[-1])) if found else None


def _links(kind: str, here: int, spans: Sequence[tuple[str, str] | None], texts: Texts) -> tuple[Link, ...]:
    if len(spans) == 1:
        return ()
    links = []
    for index, span in enumerate(spans):
        page = texts.number(index + 1)
        label = texts("index.page_span", page=page, first=span[0], last=span[1]) if span else page
        links.append(Link(_name(kind, index), label, index == here))
    return tuple(links)


def _no_result(entries: Sequence[Entry], texts: Texts) -> tuple[NoResult, ...]:
    groups = []
    without = (entry for entry in entries if entry.probability is None)
    for (decision, code), group in groupby(without, key=lambda entry: (entry.decision, entry.code)):
        lines = tuple(_line(entry, texts) for entry in group)
        title, do = texts.reason(code)
        number = texts("index.in_group", patients=texts.number(len(lines))) if len(lines) > 1 else ""
        groups.append(NoResult(texts(f"decisions.{decision}"), title, do, number, lines))
    return tuple(groups)


def _line(entry: Entry, texts: Texts) -> Line:
    known = entry.probability is not None
    return Line(
        page=entry.page,
        patient=entry.patient,
        decision=entry.decision,
        decided=texts(f"decisions.{entry.decision}"),
        probability=texts.probability(entry.probability) if entry.probability is not None else "",
        place=share(entry.probability) if entry.probability is not None else "",
        disagreement=texts.probability(entry.disagreement) if known else "",
        used=texts.number(entry.used) if known else "",
        flagged=entry.flagged,
    )
