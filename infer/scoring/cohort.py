"""The main job: patients in, one result per patient out, in the table's order and in bounded memory.

table -> folders -> crops (decoded ahead by processes) -> batches filled across patients -> networks -> one probability.
A patient's sums are accumulated picture by picture in double precision, so its result does not depend on how its
pictures were split into batches.
"""

import math
from collections import deque
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path

import msgspec
import numpy as np

from infer.bundle.manifest import Manifest
from infer.cohort.patient import Clinical, Patient, Verdict
from infer.engine.fallback import Engine
from infer.members.member import Opinion
from infer.pictures.decode import RejectedImage
from infer.pictures.duplicates import DIGITS
from infer.pictures.listing import list_images
from infer.pictures.look import DecodedPicture
from infer.pictures.pool import DecodingPool
from infer.reasons import REFUSED, Reason, code_of
from infer.scoring.bag import Bag, open_bag
from infer.scoring.batches import Batches
from infer.scoring.ensemble import (
    REFER,
    calibrated,
    decide_patient,
    disagree,
    disagreement,
    recalibrated,
    weighted,
)
from infer.scoring.influence import Influences, influences
from infer.scoring.result import SCORED, ImageResult, PatientResult, Scores
from infer.scoring.stream import Mark, decoded
from infer.scoring.unusual import Likeness, Ood, likeness


def score_patients(
    folder: Path,
    patients: Iterable[Patient | None],
    engine: Engine | None,
    manifest: Manifest,
    point: str,
    workers: int,
    settle: float = 0.0,
    *,
    scale: float = 1.0,
    ood: Ood = "refer",
) -> Generator[PatientResult, None, None]:
    """Score patients, who may come one by one; yields one result per patient, in their order.

    Args:
        folder: of the cohort.
        patients: None where the next one may take long to come: all before it are finished first.
        engine: None for a dry run: everything is read and checked, nothing is scored (`Scores` stay None).
        point: operating point, a key of the manifest's.
        workers: decoding processes.
        settle: seconds for which a patient's folder must have been unchanged, otherwise the patient fails.
        scale: by which pictures are rescaled before they are cropped; 1: not at all.
        ood: what becomes of a patient unlike the training patients.

    Raises, during iteration:
        WorkerError: a decoding process cannot be started.
    """
    minimum = manifest.plausible.minimum_images
    batches = Batches(engine)
    under_way: deque[Bag] = deque()
    decoders = DecodingPool(folder.resolve(), manifest.crop_size, workers, scale)
    try:
        for event in decoded(folder, patients, decoders, (1 + batches.callers) * batches.size, settle):
            if event is None:
                batches.flush()
                while under_way:
                    yield _result(under_way.popleft(), engine, manifest, point, ood)
                continue
            bag, position, looked = event
            if position is Mark.OPENED:
                under_way.append(bag)
            elif looked is None or isinstance(position, Mark):
                _close(bag, minimum)
            else:
                _take(bag, position, looked, manifest, batches)
            if len(under_way) > 4 * batches.size:  # a half-full batch must not delay a queue of refused patients
                batches.flush()
            while under_way and under_way[0].done:
                yield _result(under_way.popleft(), engine, manifest, point, ood)
        batches.flush()
    finally:
        decoders.close()
        batches.close()
    while under_way:
        yield _result(under_way.popleft(), engine, manifest, point, ood)


def given_up(folder: Path, patient: Patient, verdict: Verdict, manifest: Manifest) -> PatientResult:
    """The result of a patient that cannot be scored here, with the names of its pictures."""
    bag = open_bag(folder, folder.resolve(), patient, 0.0)
    bag.verdict = bag.verdict or verdict
    return _result(bag, None, manifest, "", "warn")


def _take(bag: Bag, index: int, looked: DecodedPicture, manifest: Manifest, batches: Batches) -> None:
    bag.add_to_fingerprint(looked.content)
    crop = looked.crop
    if isinstance(crop, RejectedImage):
        bag.images[index].reason = str(crop)
        return
    if isinstance(crop, OSError):  # a result from some of the pictures would look right
        bag.verdict = Verdict.of(Reason.READING_BROKE_OFF, error=crop.strerror)
        bag.images[index].reason = bag.verdict.reason
        bag.waiting.clear()
        return
    bag.contents.append(looked.content[:DIGITS])
    if not manifest.drift.knows_size(*looked.pixels):
        bag.unusual_sizes["{} x {}".format(*looked.pixels)] += 1
    if bag.verdict:
        return
    bag.used += 1
    bag.measure(looked.measures)
    bag.waiting.append((index, crop))
    if bag.used >= manifest.plausible.minimum_images:
        for waiting_index, waiting_crop in bag.waiting:
            batches.add(bag, waiting_index, waiting_crop)
        bag.waiting.clear()


def _close(bag: Bag, minimum: int) -> None:
    """All pictures have been read: decide whether there are enough to score."""
    bag.closed = True
    if bag.verdict:
        return
    if any(code_of(image.reason) == Reason.UNREADABLE.code for image in bag.images):
        try:
            list_images(bag.folder)
        except OSError:  # not single pictures: the whole folder is gone
            bag.verdict = Verdict.of(Reason.READING_BROKE_OFF, error="the patient's folder is no longer there")
            bag.waiting.clear()
            return
    if not bag.images:
        below = ", but its subfolders do; they are not read" if bag.pictures_below else ""
        bag.verdict = Verdict.of(Reason.FOLDER_EMPTY, below=below)
    elif bag.used == 0:
        bag.verdict = Verdict.of(Reason.NO_USABLE_IMAGE)
    elif bag.used < minimum:
        bag.verdict = Verdict.of(Reason.TOO_FEW_IMAGES, minimum=minimum)
        bag.waiting.clear()


def _result(bag: Bag, engine: Engine | None, manifest: Manifest, point: str, ood: Ood) -> PatientResult:
    patient = bag.patient
    scores, measures = (None, {}) if bag.verdict or engine is None else _score(bag, engine, manifest, point)
    if scores and not _finite(bag, scores, measures):
        bag.verdict, scores, measures = Verdict.of(Reason.NOT_FINITE), None, {}
    like = likeness(measures, manifest.reference.usual) if scores else Likeness(1.0, ())
    if scores:
        scores = msgspec.structs.replace(scores, ood_p=like.p)
    if scores and like.unusual and ood == "refuse":
        bag.verdict, scores = Verdict.of(Reason.UNLIKE_TRAINING, what=", ".join(like.unusual)), None
        bag.images = [ImageResult(image.image, image.reason) for image in bag.images]
    elif scores and like.unusual and ood == "refer":
        scores = msgspec.structs.replace(scores, decision=REFER)
    if bag.verdict:
        usable = Reason.PATIENT_REFUSED if bag.verdict.status == REFUSED else Reason.PATIENT_FAILED
        for image in bag.images:
            image.reason = image.reason or usable.text()
    return PatientResult(
        patient_id=patient.patient_id,
        status=bag.verdict.status if bag.verdict else SCORED,
        reason=bag.verdict.reason if bag.verdict else "",
        age_years=patient.clinical.age_years if patient.clinical and not bag.verdict else None,
        scores=scores,
        images=tuple(bag.images),
        sample_date=patient.sample_date,
        fingerprint=bag.fingerprint,
        ignored_files=bag.ignored_files,
        pictures_below=bag.pictures_below,
        unusual_sizes=dict(sorted(bag.unusual_sizes.items())),
        contents=tuple(bag.contents),
        measures=measures,
        unusual=like.unusual,
    )


def _finite(bag: Bag, scores: Scores, measures: Mapping[str, float]) -> bool:
    images = all(image.finite for image in bag.images)
    return bag.finite and scores.finite and images and all(map(math.isfinite, measures.values()))


def _score(bag: Bag, engine: Engine, manifest: Manifest, point: str) -> tuple[Scores, dict[str, float]]:
    """All pictures of the patient have been scored: combine them into one probability, and measure the patient."""
    if not bag.sums:
        raise ValueError(f"{bag.patient.patient_id}: no picture was scored")
    opinions = engine.score_patient(bag.sums, bag.clinical.vector())
    ensemble = manifest.ensemble
    members = {
        name: calibrated(np.array(opinion.probability), ensemble.calibration[name])
        for name, opinion in opinions.items()
    }
    _set_influences(bag, influences(opinions, ensemble, bag.used))
    probability, apart = (
        float(recalibrated(weighted(members, ensemble), ensemble)),
        float(disagreement(members, ensemble)),
    )
    scores = Scores(
        probability=probability,
        decision=decide_patient(probability, apart, ensemble, point),
        members={name: float(recalibrated(value, ensemble)) for name, value in members.items()},
        further={
            column.name: opinions[member.name].further[column.name]
            for member in engine.members
            for column in member.further_columns()
        },
        clinical=_alone(bag.clinical, manifest),
        disagreement_of_weighted=apart,
        disagree=disagree(apart, ensemble),
    )
    return scores, _measures(bag, opinions)


def _alone(clinical: Clinical, manifest: Manifest) -> float:
    """What sex, age and count alone say."""
    return manifest.reference.clinical.probability(clinical.female, clinical.lymph_count, clinical.age_years)


def _measures(bag: Bag, opinions: Mapping[str, Opinion]) -> dict[str, float]:
    """What was measured on the patient and its pictures, by the names in the manifest's reference."""
    clinical = bag.clinical
    patient = {
        "sex": float(clinical.female),
        "lymph_count": clinical.lymph_count,
        "age_years": clinical.age_years,
        "pictures": float(bag.used),
    }
    of_members = {name: value for opinion in opinions.values() for name, value in opinion.measures.items()}
    return patient | bag.measures | of_members


def _set_influences(bag: Bag, found: Influences | None) -> None:
    if found is None:
        return
    used = (image for image in bag.images if not image.reason)
    for index, image in enumerate(used):
        image.influence = float(found.ensemble[index])
        image.influence_of = {name: float(values[index]) for name, values in found.members.items()}
