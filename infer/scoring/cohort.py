"""The main job: patients in, one result a patient out, in the table's order and in bounded memory.

table -> folders -> crops (decoded ahead by processes) -> batches filled across patients -> networks -> one probability.
A patient's sums are taken picture by picture in double precision, so its result does not depend on how its pictures
fell into batches.
"""

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from infer.bundle.manifest import Drift, Manifest
from infer.cohort.patients import Cohort, Verdict
from infer.engine.fallback import Scorer
from infer.engine.networks import ImageScores
from infer.members.features import base_features, cell_classes
from infer.members.naive_bayes import malignant_probability
from infer.pictures.decode import RejectedImage
from infer.pictures.duplicates import DIGITS
from infer.pictures.listing import list_images
from infer.pictures.look import Crop, Looked
from infer.pictures.pool import Decoders, Mark, decoded
from infer.scoring.ensemble import calibrated, decide, weighted
from infer.scoring.patient import Bag, PatientResult, Scores

COLOUR_LIMIT = 4.0  # standard deviations of a training patient's mean colour


_Item = tuple[Bag, int, Crop]  # a picture's place in its bag


def score_cohort(
    cohort: Cohort, networks: Scorer | None, manifest: Manifest, point: str, workers: int, settle: float = 0.0
) -> Generator[PatientResult, None, None]:
    """Score a cohort, one result a patient in the table's order.

    Args:
        networks: None for a dry run: everything is read and checked, nothing is scored (`Scores` stay None).
        point: operating point, a key of the manifest's.
        workers: decoding processes.
        settle: seconds that a patient's folder must have been left alone, else the patient fails.

    Raises, while it runs:
        WorkerError: a decoding process cannot be started.
    """
    minimum = manifest.plausible.minimum_images
    batches = _Batches(networks, manifest)
    under_way: deque[Bag] = deque()
    decoders = Decoders(cohort.folder.resolve(), manifest.crop_size, workers)
    try:
        for bag, position, looked in decoded(cohort, decoders, (1 + batches.callers) * batches.size, settle):
            if position is Mark.OPENED:
                under_way.append(bag)
            elif looked is None or isinstance(position, Mark):
                _close(bag, minimum)
            else:
                _take(bag, position, looked, manifest, batches)
            if len(under_way) > 4 * batches.size:  # a half-full batch must not hold back a queue of refused patients
                batches.flush()
            while under_way and under_way[0].done:
                yield _result(under_way.popleft(), networks, manifest, point)
        batches.flush()
    finally:
        decoders.close()
        batches.close()
    while under_way:
        yield _result(under_way.popleft(), networks, manifest, point)


def _take(bag: Bag, index: int, looked: Looked, manifest: Manifest, batches: "_Batches") -> None:
    bag.see(looked.content)
    crop = looked.crop
    if isinstance(crop, RejectedImage):
        bag.images[index].reason = str(crop)
        return
    if isinstance(crop, OSError):  # part of a patient's pictures would give a number that looks right
        bag.verdict = Verdict("failed", f"reading_broke_off: {crop.strerror}")
        bag.images[index].reason = bag.verdict.reason
        bag.waiting.clear()
        return
    bag.contents.append(looked.content[:DIGITS])
    if not manifest.drift.knows_size(*looked.pixels):
        bag.unusual_sizes["{} x {}".format(*looked.pixels)] += 1
    if bag.verdict:
        return
    bag.used += 1
    bag.colour_sum += looked.colour
    bag.waiting.append((index, crop))
    if bag.used >= manifest.plausible.minimum_images:
        for waiting_index, waiting_crop in bag.waiting:
            batches.add(bag, waiting_index, waiting_crop)
        bag.waiting.clear()


def _close(bag: Bag, minimum: int) -> None:
    """All pictures have been looked at: is there enough to score?"""
    bag.closed = True
    if bag.verdict:
        return
    if any(image.reason.startswith("unreadable") for image in bag.images):
        try:
            list_images(bag.folder)
        except OSError:  # not the pictures: all of the folder
            bag.verdict = Verdict("failed", "reading_broke_off: the patient's folder is no longer there")
            bag.waiting.clear()
            return
    if not bag.images:
        below = ", but folders in it do, which are not looked at" if bag.pictures_below else ""
        bag.verdict = Verdict("failed", f"folder_empty: the patient's folder holds no picture{below}")
    elif bag.used == 0:
        bag.verdict = Verdict("failed", "no_usable_image: none of the patient's pictures can be used")
    elif bag.used < minimum:
        bag.verdict = Verdict("refused", f"too_few_images: fewer than {minimum} pictures can be used")
        bag.waiting.clear()


class _Batches:
    """Crops of several patients on their way through the networks together, some batches side by side."""

    def __init__(self, networks: Scorer | None, manifest: Manifest) -> None:
        self._networks = networks
        self.size = networks.batch_size if networks else 64
        self.callers = networks.callers if networks else 1
        self._fusion = np.array(manifest.class_fusion)  # (20,)
        self._items: list[_Item] = []
        self._under_way: deque[tuple[list[_Item], Future[ImageScores]]] = deque()
        self._pool = ThreadPoolExecutor(self.callers, thread_name_prefix="networks")

    def add(self, bag: Bag, index: int, crop: Crop) -> None:
        self._items.append((bag, index, crop))
        if len(self._items) == self.size:
            self._submit()
            while len(self._under_way) > self.callers:  # one waits, so that no thread does
                self._settle()

    def flush(self) -> None:
        self._submit()
        while self._under_way:
            self._settle()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _submit(self) -> None:
        items, self._items = self._items, []
        if not items:
            return
        if self._networks is None:
            for bag, _, _ in items:
                bag.scored += 1
            return
        images = np.stack([crop for _, _, crop in items])
        clinical = np.stack([bag.clinical.vector() for bag, _, _ in items])
        self._under_way.append((items, self._pool.submit(self._networks.score_images, images, clinical)))

    def _settle(self) -> None:
        """Add the oldest batch's scores to its patients: in the pictures' order, so that sums do not hang on chance."""
        items, future = self._under_way.popleft()
        scores = future.result()
        classes, confidence = cell_classes(scores.classes, self._fusion)  # (n,), (n,)
        numbers = np.column_stack([scores.classes, scores.baseline, scores.contribution])  # (n, 22)
        finite = np.isfinite(numbers).all(axis=1)  # (n,)
        for row, (bag, index, _) in enumerate(items):
            bag.finite &= bool(finite[row])
            image = bag.images[index]
            image.baseline_probability = float(scores.baseline[row])
            image.cell_class = int(classes[row])
            image.cell_class_confidence = float(confidence[row])
            bag.cell_classes.append(image.cell_class)
            bag.baseline_sum += float(scores.baseline[row])
            image.contribution = float(scores.contribution[row])
            bag.contribution_sum += image.contribution
            maps = scores.maps[row].astype(np.float64)
            bag.maps_sum = maps if bag.maps_sum is None else bag.maps_sum + maps
            bag.scored += 1


def _result(bag: Bag, networks: Scorer | None, manifest: Manifest, point: str) -> PatientResult:
    patient = bag.patient
    scores = None if bag.verdict or networks is None else _score(bag, networks, manifest, point)
    if scores and not (bag.finite and np.isfinite([scores.probability, scores.gate, *scores.members.values()]).all()):
        bag.verdict, scores = Verdict("failed", "not_finite: a network gave no number for this patient"), None
    if bag.verdict:
        for image in bag.images:
            image.reason = image.reason or f"patient_{bag.verdict.status}: usable, but the patient has no probability"
    return PatientResult(
        patient_id=patient.patient_id,
        status=bag.verdict.status if bag.verdict else "scored",
        reason=bag.verdict.reason if bag.verdict else "",
        age_years=patient.clinical.age_years if patient.clinical and not bag.verdict else None,
        scores=scores,
        images=tuple(bag.images),
        fingerprint=bag.fingerprint,
        ignored_files=bag.ignored_files,
        pictures_below=bag.pictures_below,
        unusual_sizes=dict(sorted(bag.unusual_sizes.items())),
        contents=tuple(bag.contents),
        unusual_colour=scores is not None and _unusual(bag.colour_sum / bag.used, manifest.drift),
    )


def _score(bag: Bag, networks: Scorer, manifest: Manifest, point: str) -> Scores:
    """All pictures of the patient have been through the networks: make one probability of them."""
    if bag.maps_sum is None:
        raise ValueError(f"{bag.patient.patient_id}: no picture was scored")
    clinical = bag.clinical.vector()
    of_bag = networks.score_bag(bag.maps_sum / bag.used, bag.contribution_sum / bag.used, clinical)
    classes = max(manifest.class_fusion) + 1
    base = base_features(clinical, np.array(bag.cell_classes), classes)
    raw = {
        "baseline": bag.baseline_sum / bag.used,
        "scan": float(malignant_probability(base, manifest.naive_bayes)),
        "moe": of_bag.moe,
        "imagenet": of_bag.imagenet,
    }
    ensemble = manifest.ensemble
    members = {name: calibrated(np.array(value), ensemble.calibration[name]) for name, value in raw.items()}
    probability = float(weighted(members, ensemble))
    return Scores(
        probability=probability,
        decision=decide(probability, ensemble.operating_points[point]),
        members={name: float(value) for name, value in members.items()},
        gate=of_bag.gate,
    )


def _unusual(colour: npt.NDArray[np.float64], drift: Drift) -> bool:
    deviation = np.abs(colour - np.array(drift.rgb_mean)) / np.array(drift.rgb_std)
    return bool(deviation.max() > COLOUR_LIMIT)
