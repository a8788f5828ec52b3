"""What is unusual about a patient's pictures, in sentences."""

from dataclasses import dataclass

from infer.bundle.reference import SHARES, Reference
from infer.report.about import About
from infer.report.texts import Texts, shown
from infer.scoring.result import PatientResult

MOST_NAMED = 5  # patients that share pictures, and groups of them
FEW = 16  # pictures; an analyser takes no fewer
LOWEST, HIGHEST = SHARES.index(0.05), SHARES.index(0.95)  # between them lie 90 % of the training patients


@dataclass(frozen=True)
class Measured:
    """An unusual measure."""

    name: str
    here: str
    training: str


@dataclass(frozen=True)
class Quality:
    """What to look at before the result is trusted, and what else is known."""

    flags: tuple[str, ...]
    notes: tuple[str, ...]
    measured: tuple[Measured, ...]


def quality(result: PatientResult, about: About, texts: Texts) -> Quality:
    """What is unusual about a patient's pictures."""
    flags = []
    if result.unusual_colour:
        flags.append(texts("quality.colour"))
    if result.unusual_sizes:
        pictures = texts.number(sum(result.unusual_sizes.values()))
        flags.append(texts("quality.size", pictures=pictures, size=about.sizes))
    if result.unusual:
        named = ", ".join(texts.name("measures", code) for code in result.unusual)
        flags.append(texts("quality.unusual_flag", measures=shown(named)))
    flags += _same(result.patient_id, about, texts)
    if result.scores and result.used < FEW:
        flags.append(texts("quality.few", used=texts.number(result.used)))
    if result.scores and result.rejected > result.used:
        flags.append(texts("quality.most_rejected"))
    if result.pictures_below:
        flags.append(texts("quality.below", folders=shown(", ".join(result.pictures_below))))
    notes = []
    if result.ood_p is not None:
        notes.append(texts("quality.ood", share=texts.percent(result.ood_p)))
    if result.ignored_files:
        notes.append(texts("quality.ignored", files=texts.number(result.ignored_files)))
    return Quality(tuple(flags), tuple(notes), _measured(result, about.reference, texts))


def _same(patient: str, about: About, texts: Texts) -> list[str]:
    """Who else has the patient's pictures; the first groups and their first patients, run.json has all."""
    groups, flags = about.same.get(patient, ()), []
    for same in groups[:MOST_NAMED]:
        pictures = texts.number(same.pictures)
        others = [other for other in same.patients[: MOST_NAMED + 1] if other != patient][:MOST_NAMED]
        if not others:
            flags.append(texts("quality.twice", pictures=pictures))
            continue
        named, more = shown(", ".join(others)), len(same.patients) - 1 - len(others)
        if more > 0:
            named = texts("quality.and_more", patients=named, number=texts.number(more))
        flags.append(texts("quality.same", pictures=pictures, patients=named))
    if len(groups) > MOST_NAMED:
        flags.append(texts("quality.more_same", groups=texts.number(len(groups) - MOST_NAMED)))
    return flags


def _measured(result: PatientResult, reference: Reference, texts: Texts) -> tuple[Measured, ...]:
    rows = []
    for code in result.unusual:
        value = result.measures.get(code)
        usual = reference.measures.get(code)
        here = "" if value is None else _written(value, code, texts)
        training = (
            texts("classes.span", low=_written(usual[LOWEST], code, texts), high=_written(usual[HIGHEST], code, texts))
            if usual
            else ""
        )
        rows.append(Measured(shown(texts.name("measures", code)), here, training))
    return tuple(rows)


def _written(value: float, code: str, texts: Texts) -> str:
    if code.startswith("share_"):
        return texts.percent(value)
    return texts.number(value, 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 3)
