"""What is unusual about a patient's pictures, in sentences."""

from collections.abc import Sequence
from dataclasses import dataclass

from infer.report.about import About
from infer.report.texts import Texts, shown
from infer.scoring.result import PatientResult

MOST_NAMED = 5  # patients that share pictures, and groups of them
FEW = 16  # pictures; an analyser takes no fewer


@dataclass(frozen=True)
class Quality:
    """What to look at before the result is trusted, and what else is known."""

    flags: tuple[str, ...]
    notes: tuple[str, ...]


def quality(result: PatientResult, about: About, texts: Texts) -> Quality:
    """What is unusual about a patient's pictures."""
    flags = []
    if result.unusual:
        key = "quality.unlike" if result.scores else "quality.unlike_refused"
        flags.append(texts(key, measures=_unlike(result.unusual, texts)))
    if result.unusual_sizes:
        pictures = texts.number(sum(result.unusual_sizes.values()))
        flags.append(texts("quality.size", pictures=pictures, size=about.sizes))
    flags += _same(result.patient_id, about, texts)
    if result.scores and result.used < FEW:
        flags.append(texts("quality.few", used=texts.number(result.used)))
    if result.scores and result.rejected > result.used:
        flags.append(texts("quality.most_rejected"))
    if result.pictures_below:
        flags.append(texts("quality.below", folders=shown(", ".join(result.pictures_below))))
    notes = []
    if result.ignored_files:
        notes.append(texts("quality.ignored", files=texts.number(result.ignored_files)))
    return Quality(tuple(flags), tuple(notes))


def _unlike(unusual: Sequence[str], texts: Texts) -> str:
    """What is unlike the training patients, as `infer.scoring.unusual` names it, in words."""
    named = (one.rpartition(" ") for one in unusual)
    return ", ".join(texts(f"unlike.{end}", measure=shown(texts.name("measures", name))) for name, _, end in named)


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
