"""A patient's page as plain data: every text in the page's language, every place on a scale in per cent."""

from collections.abc import Sequence
from dataclasses import dataclass

from infer.bundle.manifest import AGREEING
from infer.reasons import code_of
from infer.report.about import About
from infer.report.appearance import Drawing, all_pictures
from infer.report.cells import ALL, Chosen
from infer.report.charts import Anchored, Zone, anchored, refer_centre, zones
from infer.report.classes import ClassRow, class_rows
from infer.report.crops import Shown
from infer.report.groups import Group, groups
from infer.report.quality import Quality, quality
from infer.report.texts import Texts, shown
from infer.scoring.ensemble import REFER, decide
from infer.scoring.result import PatientResult

MOST_REJECTED = 200  # rows; images.csv has all


@dataclass(frozen=True)
class Row:
    """Who says which probability."""

    kind: str  # together, alone, member
    name: str
    probability: str
    place: str
    weight: str = ""
    gate: str = ""


@dataclass(frozen=True)
class Result:
    """What a scored patient's page has and another's has not."""

    sentence: str
    advice: str
    mark: Anchored
    scale: str  # for screen readers
    low: str
    high: str
    zones: tuple[Zone, ...]
    refer_centre: str
    clinical: str  # what sex, age and count alone say; may be empty
    rows: tuple[Row, ...]
    disagreement: str
    gate: str  # what the share from pictures means; empty if no model has one
    groups: tuple[Group, ...]
    fewer: str
    all_gone: bool
    classes: tuple[ClassRow, ...]
    most: str  # share at the right end of the classes' scale
    typical: Drawing | None  # the median cell of all training pictures; None: the bundle does not say


@dataclass(frozen=True)
class Rejected:
    """A rejected picture."""

    file: str
    why: str
    do: str
    said: str


@dataclass(frozen=True)
class PatientPage:
    """A page."""

    patient: str
    decision: str  # reactive, refer, malignant, refused, failed
    decided: str  # the same in words
    about_patient: tuple[str, ...]
    result: Result | None
    reason: Rejected | None  # of a patient without a result
    quality: Quality
    rejected: tuple[Rejected, ...]
    more_rejected: str


def patient_page(
    result: PatientResult, chosen: Chosen | None, pictures: Sequence[Shown], about: About, texts: Texts
) -> PatientPage:
    """The page of a patient.

    Args:
        chosen: the cells to show; None for a patient without a result.
        pictures: of these cells, in their order.
    """
    decision = result.scores.decision if result.scores else result.status
    rejected = [image for image in result.images if image.reason]
    more = len(rejected) - MOST_REJECTED
    return PatientPage(
        patient=shown(result.patient_id).strip() or texts("page.no_id"),
        decision=decision,
        decided=texts(f"decisions.{decision}"),
        about_patient=_about_patient(result, texts),
        result=_result(result, chosen, pictures, about, texts) if chosen else None,
        reason=_rejected("", result.reason, texts) if result.reason else None,
        quality=quality(result, about, texts),
        rejected=tuple(_rejected(image.image, image.reason, texts) for image in rejected[:MOST_REJECTED]),
        more_rejected=texts("rejected.more", number=texts.number(more)) if more > 0 else "",
    )


def _about_patient(result: PatientResult, texts: Texts) -> tuple[str, ...]:
    said = []
    if result.age_years is not None:
        said.append(texts("result.age", age=texts.number(int(result.age_years))))
    if result.scores and (count := result.measures.get("lymph_count")) is not None:
        said.append(texts("result.count", count=texts.number(count, 1)))
    if result.images:
        used, rejected = texts.number(result.used), texts.number(result.rejected)
        said.append(texts("result.pictures", used=used, rejected=rejected))
    return tuple(said)


def _result(
    result: PatientResult, chosen: Chosen, pictures: Sequence[Shown], about: About, texts: Texts
) -> Result | None:
    scores = result.scores
    if scores is None:
        return None
    numbers = {
        "probability": texts.probability(scores.probability),
        "low": texts.probability(about.point.refer_low),
        "high": texts.probability(about.point.refer_high),
    }
    said = decide(scores.probability, about.point)
    classes, most = class_rows(result, about.reference, texts)
    rows = _rows(result, about, texts)
    fewer = chosen.used < ALL
    return Result(
        sentence=texts(f"result.{said}", **numbers),
        advice=_advice(result, said, about, texts),
        mark=anchored(scores.probability, numbers["probability"]),
        scale=texts("result.scale", **numbers),
        low=numbers["low"],
        high=numbers["high"],
        zones=zones(about.point),
        refer_centre=refer_centre(about.point),
        clinical=_clinical(scores.clinical, scores.probability, texts),
        rows=rows,
        disagreement=texts("members.disagreement", disagreement=texts.probability(scores.disagreement)),
        gate=texts("members.gate_note") if any(row.gate for row in rows) else "",
        groups=groups(chosen, pictures, texts),
        fewer=texts("cells.fewer", all=ALL, shown=len(chosen.all), used=chosen.used) if fewer else "",
        all_gone=bool(pictures) and not any(picture.uri for picture in pictures),
        classes=classes,
        most=most,
        typical=all_pictures(about.reference.appearance, texts) if about.reference.appearance else None,
    )


def _advice(result: PatientResult, said: str, about: About, texts: Texts) -> str:
    """What to do, and why a patient whom the probability alone would decide is not decided."""
    scores = result.scores
    share = texts.percent(AGREEING)
    disagree = scores is not None and scores.disagree
    if said == REFER:
        return texts("result.do_refer_disagree", share=share) if disagree else texts("result.do_refer")
    if scores is None or said == scores.decision:
        return texts(f"result.do_{said}")
    unlike = bool(result.unusual) and about.ood == REFER
    why = ("both" if unlike else "disagree") if disagree else "unlike"
    return texts("result.held_up", decision=texts(f"decisions.{said}"), why=texts(f"result.why_{why}", share=share))


def _clinical(alone: float | None, together: float, texts: Texts) -> str:
    if alone is None:
        return ""
    return texts("clinical.sentence", alone=texts.probability(alone), together=texts.probability(together))


def _rows(result: PatientResult, about: About, texts: Texts) -> tuple[Row, ...]:
    scores = result.scores
    if scores is None:
        return ()

    def row(kind: str, name: str, value: float, weight: str = "", gate: str = "") -> Row:
        return Row(kind, name, texts.probability(value), anchored(value, "").place, weight, gate)

    rows = [row("together", texts("members.together"), scores.probability)]
    if scores.clinical is not None:
        rows.append(row("alone", texts("members.alone"), scores.clinical))
    by_weight = sorted(scores.members.items(), key=lambda one: -about.weights.get(one[0], 0.0))
    for name, value in by_weight:
        gate = scores.further.get(f"{name}_image_gate")
        weight = texts.percent(about.weights.get(name, 0.0))
        rows.append(
            row("member", texts.name("members", name), value, weight, "" if gate is None else texts.percent(gate))
        )
    return tuple(rows)


def _rejected(file: str, reason: str, texts: Texts) -> Rejected:
    why, do = texts.reason(code_of(reason))
    return Rejected(shown(file), why, do, shown(reason.partition(": ")[2]))
