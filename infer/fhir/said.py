"""What a document says in words, and what it must not say: other patients, and names of files and folders."""

from dataclasses import replace

import msgspec

from infer.report.about import About, Same
from infer.report.cells import Cell, Chosen
from infer.report.page import PatientPage
from infer.report.texts import Texts
from infer.scoring.result import PatientResult


def without_others(about: About, texts: Texts) -> About:
    """What is known of a run, without what depends on other patients or on the night, and without a link to them."""
    left_out = {texts("facts.patients"), texts("facts.date")}
    return replace(about, facts=tuple(fact for fact in about.facts if fact[0] not in left_out), linked=False)


def of_one(about: About, patient: str, texts: Texts) -> About:
    """The same for one patient: another who has the same pictures is not named."""
    another = texts("fhir.another")
    same = tuple(
        Same((patient, another) if len(one.patients) > 1 else one.patients, one.pictures)
        for one in about.same.get(patient, ())
    )
    return replace(about, same={patient: same})


def unnamed(result: PatientResult, chosen: Chosen | None, texts: Texts) -> tuple[PatientResult, Chosen | None]:
    """A patient's result without names of files and folders, which may hold anything.

    Pictures are numbered in the order of images.csv. The sentence of a reason goes: it may name a folder.
    """
    numbers = {image.image: texts("fhir.picture", number=number) for number, image in enumerate(result.images, 1)}
    images = tuple(
        msgspec.structs.replace(image, image=numbers[image.image], reason=_code(image.reason))
        for image in result.images
    )
    below = tuple(texts("fhir.not_named") for _ in result.pictures_below[:1])
    clean = msgspec.structs.replace(result, images=images, reason=_code(result.reason), pictures_below=below)
    if chosen is None:
        return clean, None

    def numbered(cells: tuple[Cell, ...]) -> tuple[Cell, ...]:
        return tuple(replace(cell, name=numbers[cell.name]) for cell in cells)

    return clean, Chosen(numbered(chosen.towards), numbered(chosen.against), numbered(chosen.random), chosen.used)


def _code(reason: str) -> str:
    return reason.partition(":")[0]


def conclusion(page: PatientPage, texts: Texts) -> str:
    """The conclusion of a report: the decision, what it rests on, what is unusual, and what it is not."""
    if page.result is None:
        why = page.reason.why if page.reason else ""
        said = [texts("fhir.no_result", decided=page.decided, code=page.decision, why=why)]
    else:
        decided = texts("fhir.decided", decided=page.decided, code=page.decision)
        said = [decided, page.result.sentence, page.result.advice]
    return " ".join([*said, *page.quality.flags, texts("fhir.support")])
