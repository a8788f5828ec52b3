"""Gaussian naive Bayes on 21 features per patient, from cell classes given by SCAN or by a file."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.naive_bayes import GaussianNB

from infer.errors import LymphoError, UsageError
from infer.members.features import COUNT, OUTLIER_QUANTILE, base_features, with_outliers
from infer.members.naive_bayes import NaiveBayes, malignant_probability
from train.core.arrays import Classes, Floats, Indices
from train.core.files import write_table, write_text
from train.data.bags import Bags
from train.data.whose_pictures import COLUMNS, by_pictures
from train.members.candidate import Candidate
from train.members.count_floor import count_floor, widened
from train.members.recipes import BayesRecipe
from train.members.training import MemberJob

FOLDER, GIVEN_CLASSES_FOLDER = "naive_bayes", "naive_bayes_on_given_classes"
CLASSES = 15
CLINICAL = 3  # sex, count and age come first
OWN_NETWORK = "scan, own network"
REPORT_SEED = 42


@dataclass(frozen=True)
class ClassSource:
    """Source of the cell classes in the nested protocol."""

    # Training patients -> the classes a model trained on them may use (N + 1,): of every picture, then of a blank one
    of: Callable[[Indices], Classes]
    facts: Mapping[str, Any]  # everything the classes depend on
    cheap: bool  # whether classes for further folds cost little


class CellClassError(LymphoError):
    """A file of cell classes that does not match the cohort."""


def read_cell_classes(path: Path, bags: Bags) -> npt.NDArray[np.int64]:
    """Read the class of each picture, in the order of the bags: (N,) 0 to 14.

    Args:
        path: CSV with patient_id, image (file name, with or without the patient's folder) and cell_class.
        bags: all patients.

    Raises:
        CellClassError: the file cannot be read, a picture is missing, or a class is not 0 to 14.
    """
    try:
        table = pd.read_csv(path, dtype={"patient_id": str, "image": str}, keep_default_na=False)
        names = table["image"].str.rsplit("/", n=1).str[-1]
        classes = pd.Series(
            table["cell_class"].to_numpy(), index=pd.MultiIndex.from_arrays([table["patient_id"], names])
        )
    except (OSError, KeyError, ValueError) as error:
        raise CellClassError(f"{path}: not a table of patient_id, image, cell_class ({error})") from error
    owner = [bags.patient_ids[index] for index in bags.patient_of_image()]
    wanted = pd.MultiIndex.from_arrays([owner, bags.image_names])
    if classes.index.has_duplicates:
        twice = classes.index[classes.index.duplicated()][0]
        raise CellClassError(f"{path}: {'/'.join(twice)} has two classes")
    found = classes.reindex(wanted)
    if found.isna().any():
        patient, image = wanted[int(found.isna().to_numpy().argmax())]
        raise CellClassError(f"{path}: has no class for {patient}/{image}")
    values = found.to_numpy()
    if not np.isin(values, np.arange(CLASSES)).all():
        raise CellClassError(f"{path}: a cell_class is not a whole number from 0 to {CLASSES - 1}")
    return values.astype(np.int64)


def patient_features(
    bags: Bags, cell_classes: npt.NDArray[np.int64], patients: Indices | None = None, shown: Indices | None = None
) -> npt.NDArray[np.float64]:
    """All features except the outlier count, which needs quantiles of the training patients: (A, 20).

    Args:
        bags: all patients.
        cell_classes: (N,) class of each picture; for NOBODY in `shown`, (N + 1,), the last of a blank picture.
        patients: (A,) whose clinical values; default: everybody.
        shown: (A,) whose pictures (train/data/whose_pictures.py); default: their own.
    """
    patients = np.arange(len(bags)) if patients is None else patients
    of = [cell_classes[start:stop] for start, stop in bags.ranges()] + [cell_classes[-1:]]  # NOBODY's is the last
    pairs = zip(patients, patients if shown is None else shown, strict=True)
    return np.stack([base_features(bags.clinical[patient], of[whose], CLASSES) for patient, whose in pairs])


def fit_naive_bayes(
    base: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], recipe: BayesRecipe, *, has_count: bool = True
) -> NaiveBayes:
    """Fit quantiles, scaling, Gaussians and the floor of the count on training patients.

    Args:
        base: (P, 20) from `patient_features`.
        labels: (P,) 1 malignant, 0 reactive.
        recipe: its smoothing is used.
        has_count: whether the lymphocyte count is among the features.
    """
    quantiles = np.quantile(base, OUTLIER_QUANTILE, axis=0)
    features = with_outliers(base, quantiles)
    low, spread = _minimum_and_range(features)
    scaled = (features - low) / spread
    model = widened(
        GaussianNB(var_smoothing=recipe.smoothing).fit(scaled, labels), scaled, CLINICAL if has_count else 0
    )
    mean, variance = low[COUNT] + spread[COUNT] * model.theta_[:, COUNT], spread[COUNT] ** 2 * model.var_[:, COUNT]
    return NaiveBayes(
        count_floor=count_floor(mean, variance) if has_count else 0.0,
        quantiles=quantiles.tolist(),
        feature_low=low.tolist(),
        feature_range=spread.tolist(),
        prior=model.class_prior_.tolist(),
        mean=model.theta_.tolist(),
        variance=model.var_.tolist(),
    )


def train_naive_bayes(
    bags: Bags, cell_classes: npt.NDArray[np.int64], folds: npt.NDArray[np.int64], folder: Path, recipe: BayesRecipe
) -> pd.DataFrame:
    """Write out-of-fold predictions, with quantiles and scaling fitted inside the fold, and full.json for all patients.

    `pictures_only` comes from the same features without sex, count and age.

    Returns:
        Out-of-fold predictions, one row per patient.
    """
    folder.mkdir(parents=True, exist_ok=True)
    base = patient_features(bags, cell_classes)
    probability, pictures_only = np.empty(len(bags)), np.empty(len(bags))
    for fold in np.unique(folds):
        training, held_out = folds != fold, folds == fold
        for result, first in ((probability, 0), (pictures_only, 3)):
            model = fit_naive_bayes(base[training, first:], bags.labels[training], recipe, has_count=first == 0)
            result[held_out] = malignant_probability(base[held_out, first:], model)
    full = fit_naive_bayes(base, bags.labels, recipe)
    write_text(folder / "full.json", msgspec.json.format(msgspec.json.encode(full)).decode())
    facts = {"patient_id": bags.patient_ids, "fold": folds, "label": bags.labels}
    table = pd.DataFrame({**facts, "probability": probability, "pictures_only": pictures_only})
    write_table(folder / "out_of_fold.csv", table)
    return table


@dataclass(frozen=True)
class BayesFigures:
    """Balanced accuracies under one protocol."""

    protocol: str
    training_balanced_accuracy: float
    validation_balanced_accuracy: float
    fold_balanced_accuracy: list[float]


def evaluate_naive_bayes(
    base: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], protocol: str, recipe: BayesRecipe
) -> BayesFigures:
    """Balanced accuracies on the report's split and folds (seed 42, in the order of the annotation file).

    `report` fits quantiles and scaling on all patients before the split and uses scikit-learn's default smoothing, as
    the report's authors did, so its results are optimistic. `honest` fits them on the training patients and uses the
    recipe's smoothing.
    """
    smoothing = protocol_smoothing(protocol, recipe)

    def accuracies(training: npt.NDArray[np.int64], held_out: npt.NDArray[np.int64]) -> tuple[float, float]:
        features = protocol_features(base, training, protocol)
        model = GaussianNB(var_smoothing=smoothing).fit(features[training], labels[training])
        return tuple(
            float(balanced_accuracy_score(labels[part], model.predict(features[part]))) for part in (training, held_out)
        )  # type: ignore[return-value]

    split = train_test_split(np.arange(len(labels)), test_size=0.2, random_state=REPORT_SEED, stratify=labels)
    training, validation = accuracies(*split)
    return BayesFigures(protocol, training, validation, [accuracies(*fold)[1] for fold in report_folds(labels)])


def protocol_features(
    base: npt.NDArray[np.float64], training: npt.NDArray[np.int64], protocol: str
) -> npt.NDArray[np.float64]:
    """Features of all patients with the outlier count, min-max scaled: (P, 21).

    Quantiles, minima and ranges come from all patients under `report`, from the `training` patients under `honest`.

    Args:
        base: (P, 20) from `patient_features`.
        training: indices of the training patients.
        protocol: `report` or `honest`.
    """
    seen = np.arange(len(base)) if protocol == "report" else training
    features = with_outliers(base, np.quantile(base[seen], OUTLIER_QUANTILE, axis=0))
    low, spread = _minimum_and_range(features[seen])
    return (features - low) / spread


def protocol_smoothing(protocol: str, recipe: BayesRecipe) -> float:
    """GaussianNB's var_smoothing: scikit-learn's default under `report`, the recipe's under `honest`."""
    return BayesRecipe().smoothing if protocol == "report" else recipe.smoothing


def report_folds(labels: npt.NDArray[np.int64]) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Training and held-out indices of the report's 5 stratified folds: seed 42, order of the annotation file."""
    return list(StratifiedKFold(5, shuffle=True, random_state=REPORT_SEED).split(labels, labels))


def _minimum_and_range(features: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    low = features.min(axis=0)
    spread = features.max(axis=0) - low
    return low, np.where(spread > 0, spread, 1.0)


def train_on_classes(job: MemberJob, given: Path | None = None, protocol: str = "honest") -> BayesFigures:
    """Fit on cell classes and write RUN/naive_bayes/metrics.json.

    Args:
        job: the run to train in.
        given: a file of cell classes to use instead of those of the run's SCAN. The model is then written to a separate
            folder: it does not match the run's SCAN network.
        protocol: protocol of the metrics, as in `evaluate_naive_bayes`.

    Raises:
        UsageError: there are no cell classes.
    """
    path = given or job.run / "scan" / "classes.csv"
    if not path.exists():
        raise UsageError(f"{job.run}: has no cell classes. Run `python -m train scan` or give --cell-classes")
    classes = read_cell_classes(path, job.bags)
    folder = FOLDER if given is None else GIVEN_CLASSES_FOLDER
    train_naive_bayes(job.bags, classes, job.folds, job.run / folder, job.recipe.bayes)
    base = patient_features(job.bags, classes)
    figures = evaluate_naive_bayes(base, job.bags.labels, protocol, job.recipe.bayes)
    (job.run / FOLDER).mkdir(exist_ok=True)
    write_text(job.run / FOLDER / "metrics.json", json.dumps(asdict(figures), indent=1))
    return figures


def on_classes(bags: Bags, classes: ClassSource, recipe: BayesRecipe) -> Candidate:
    """Naive Bayes on given cell classes, with quantiles and scaling fitted on the training patients."""

    def predicted(training: Indices, asked: Indices, checkpoint: Path) -> dict[str, Floats]:
        del checkpoint
        found = classes.of(training)
        model = fit_naive_bayes(patient_features(bags, found, training), bags.labels[training], recipe)
        return by_pictures(
            asked,
            bags.patient_ids,
            lambda shown: malignant_probability(patient_features(bags, found, asked, shown), model),
        )

    facts = {"recipe": asdict(recipe), "naive_bayes": "count floored", "columns": COLUMNS, **classes.facts}
    return Candidate("scan", facts, predicted, classes.cheap, title=OWN_NETWORK)
