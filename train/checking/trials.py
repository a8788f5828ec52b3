"""Short trials of the parts of `train all`, and what they say of the whole of each part with a recipe.

Each part's cost is taken as linear in pictures, epochs or patients.
"""

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sklearn.model_selection import StratifiedKFold

from infer.cohort.patient import Cohort
from infer.pictures.decode import RejectedImage, decode_crop
from train.checking.summaries import Summaries, print_of
from train.checking.table import Contents
from train.core.fitting import Job
from train.core.threads import on_one_thread
from train.data.bags import CROP_SIZE, Bags
from train.data.folds import FOLDS
from train.data.source import read_content
from train.ensemble.fit import choose_pull, fit_ensemble
from train.members import baseline, imagenet, registry
from train.members.cells.clustering import train_cells
from train.members.embedding import FEATURES, load_backbone
from train.members.experts import train_committee
from train.members.features import Features, embedder
from train.members.recipes import RECIPES, BaselineRecipe, Recipe

TRAININGS = FOLDS + 1  # of each member: once a fold, once on all
PASSES = FOLDS - 1 + 1  # what these see together, as multiples of all pictures: four fifths five times, and all
SHOWN = 96  # pictures that the backbone is timed on
DECODED = 128  # pictures that decoding is timed on
DRAWN = (500, 1500)  # pictures with drawn features that the cell classes are timed on

Costs = Callable[[Recipe], float]  # recipe -> seconds


def of_parts(cohort: Cohort, known: Contents, looked: Summaries, device: torch.device) -> list[tuple[str, Costs]]:
    """The parts in their order, and what each costs; as `train.checking.timing.estimate_times`."""
    bags = without_pictures(known, looked)
    return [
        ("decoding and checking", _decoding(cohort, known)),
        ("baseline", of_baseline(bags, sampled(looked).on(device), device)),
        ("features of the backbone", _features(looked, device)),
        ("cell classes", _cells(len(looked.names))),
        ("mixture of experts", _experts(bags)),
        ("ImageNet member", _imagenet(bags)),
        ("ensemble", _ensemble(bags)),
    ]


def _clocked(do: Callable[[], object]) -> float:
    start = time.perf_counter()
    do()
    return time.perf_counter() - start


def _constant(seconds: float) -> Costs:
    return lambda recipe: seconds


def _decoding(cohort: Cohort, known: Contents) -> Costs:
    root, every = cohort.folder.resolve(), max(len(known.jobs) // DECODED, 1)
    jobs = known.jobs[::every][:DECODED]

    def one(number: int) -> None:
        _, data = read_content(cohort.folder, root, jobs[number])
        if isinstance(data, bytes):
            try:
                print_of(decode_crop(data, CROP_SIZE)[0])
            except RejectedImage:
                return

    def everything() -> None:
        with ThreadPoolExecutor() as pool:
            list(pool.map(one, range(len(jobs))))

    return _constant(_clocked(everything) * len(known.jobs) / len(jobs))


def of_baseline(bags: Bags, sample: Bags, device: torch.device) -> Costs:
    """The baseline: trainings on a sample of the pictures, of one and of three epochs."""
    recipe = RECIPES["small"].baseline
    some = sample.of(np.arange(max(len(sample) // 4, 1)))
    with tempfile.TemporaryDirectory() as folder:

        def timed(of: Bags, name: str, epochs: int) -> float:
            path = Path(folder) / f"{name}-{epochs}"
            return _clocked(lambda: _trained(of, recipe, epochs, path, device))

        def epoch(of: Bags, name: str) -> float:
            """Seconds of one epoch, with what is written after it."""
            return max(timed(of, name, 3) - timed(of, name, 1), 0.0) / 2

        timed(some, "first", 1)  # loads what is loaded once
        few, many = epoch(some, "few"), epoch(sample, "many")
    if len(sample.crops) > len(some.crops):
        picture = max(many - few, 0.0) / (len(sample.crops) - len(some.crops))
    else:
        picture = many / len(sample.crops)
    fixed = max(many - picture * len(sample.crops), 0.0)
    network = baseline.Baseline(baseline.BaselineDimensions(log_count=recipe.log_count)).to(device).eval()
    network.scale.fit(torch.from_numpy(sample.clinical).to(device))
    forward = _clocked(lambda: baseline.score(network, sample, np.arange(len(sample)), device)) / len(sample.crops)
    sizes = np.diff(bags.offsets)

    def costs(recipe: Recipe) -> float:
        most, epochs = recipe.baseline.images_per_patient, recipe.baseline.fit.epochs
        an_epoch = int(np.minimum(sizes, most).sum() if most else sizes.sum())
        return epochs * (TRAININGS * fixed + PASSES * an_epoch * picture) + 2 * int(sizes.sum()) * forward

    return costs


def _trained(bags: Bags, recipe: BaselineRecipe, epochs: int, path: Path, device: torch.device) -> None:
    short = replace(recipe, images_per_patient=0, fit=replace(recipe.fit, epochs=epochs))
    job = Job("trial", path.with_suffix(".safetensors"), 0)
    baseline.train_network(bags, np.arange(len(bags)), short, job, device)


def _features(looked: Summaries, device: torch.device) -> Costs:
    sample = _crops(looked)[:SHOWN]
    start = time.perf_counter()
    embed = embedder(load_backbone(imagenet.MAGNIFICATION), device)
    embed(sample[:8])
    built = time.perf_counter() - start
    return _constant(built + _clocked(lambda: embed(sample)) * len(looked.names) / len(sample))


def _cells(pictures: int) -> Costs:
    recipe = replace(RECIPES["small"].cells, largest_class=1.0)  # of drawn features, classes may be any

    def trial(number: int) -> float:
        return _clocked(lambda: train_cells(_drawn(number), np.arange(number) // 25, recipe, 0))

    few, many = map(trial, DRAWN)
    picture = max(many - few, 0.0) / (DRAWN[1] - DRAWN[0])
    fixed = max(few - picture * DRAWN[0], 0.0)
    return _constant(TRAININGS * fixed + PASSES * pictures * picture)


def _experts(bags: Bags) -> Costs:
    recipe = RECIPES["small"].experts
    seen = Features(_drawn(int(bags.offsets[-1])), np.zeros(FEATURES, np.float32))
    everybody = np.arange(len(bags))

    def trial(epochs: int, late: int) -> float:
        short = replace(recipe, seeds=1, late_steps=late, fit=replace(recipe.fit, epochs=epochs))
        return _clocked(lambda: train_committee(bags, seen, everybody, short, 0))

    trial(1, 1)
    least, longer, later = trial(1, 1), trial(4, 1), trial(1, 51)
    epoch, step = max(longer - least, 0.0) / 3, max(later - least, 0.0) / 50

    def costs(of: Recipe) -> float:
        experts = of.experts
        return experts.seeds * (PASSES * experts.fit.epochs * epoch + TRAININGS * experts.late_steps * step)

    return costs


def _imagenet(bags: Bags) -> Costs:
    means = np.random.default_rng(0).normal(size=(len(bags) + 1, FEATURES))
    known, asked = next(StratifiedKFold(FOLDS).split(bags.clinical, bags.labels))
    return _constant(TRAININGS * _clocked(lambda: imagenet.fit_and_predict(bags, means, known, asked)))


@on_one_thread
def _ensemble(bags: Bags) -> Costs:
    names, rng = registry.names(), np.random.default_rng(0)
    members = np.clip(0.5 + 0.2 * (2 * bags.labels - 1) + rng.normal(0, 0.2, (len(names), len(bags))), 0.01, 0.99)
    folds = np.arange(len(bags)) % FOLDS
    folds[np.argsort(bags.labels, kind="stable")] = np.arange(len(bags)) % FOLDS  # each has both classes

    def fit() -> None:
        fit_ensemble(members, bags.labels, names, choose_pull(members, bags.labels, folds, names)[0])

    return _constant(TRAININGS * _clocked(fit))


def _drawn(pictures: int) -> npt.NDArray[np.float32]:
    """Features that fall into kinds, as cells' do: (N, 1280)."""
    rng = np.random.default_rng(0)
    kinds = rng.normal(size=(20, FEATURES)).astype(np.float32)
    found: npt.NDArray[np.float32] = kinds[rng.integers(0, len(kinds), pictures)]
    return found + rng.standard_normal((pictures, FEATURES), dtype=np.float32)


def _crops(looked: Summaries) -> torch.Tensor:
    return torch.from_numpy(
        np.empty((0, CROP_SIZE, CROP_SIZE, 3), np.uint8) if looked.sample is None else looked.sample
    )


def sampled(looked: Summaries) -> Bags:
    """The sample as if it were of patients with 16 pictures each."""
    crops = _crops(looked)
    offsets = np.append(np.arange(0, len(crops), 16), len(crops)).astype(np.int64)
    patients = len(offsets) - 1
    return Bags(
        crops,
        offsets,
        [str(number) for number in range(patients)],
        [str(number) for number in range(len(crops))],
        np.arange(patients) % 2,
        np.tile(np.array([0, 10, 60], np.float32), (patients, 1)),
        {},
    )


def without_pictures(known: Contents, looked: Summaries) -> Bags:
    """All patients and how many pictures they have, but not the pictures."""
    values = [patient.clinical.vector() for patient in known.labelled if patient.clinical]
    return Bags(
        torch.empty((0, CROP_SIZE, CROP_SIZE, 3), dtype=torch.uint8),
        np.concatenate([[0], np.cumsum(looked.counts())]).astype(np.int64),
        looked.patient_ids,
        [],
        looked.labels,
        np.stack(values),
        {},
    )
