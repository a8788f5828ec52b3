"""Leads: simple models that might improve on the report's, with the same interface as the members.

All are cheap, so all of them appear in the tables of the nested protocol, whether they help or not. Hyperparameters are
chosen by cross-validation inside the training patients.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from train.core.arrays import Floats, Indices
from train.data.bags import Bags
from train.data.inputs import KNOT, bent_features
from train.data.whose_pictures import COLUMNS, by_pictures
from train.members.candidate import Candidate
from train.members.features import Features
from train.members.linear import COMPONENTS, STRENGTHS, fit_logistic

Pictures = npt.NDArray[np.float32]  # (N, D) embedding of every picture


def clinical_interplay(bags: Bags) -> Candidate:
    """Logistic regression on sex, log count, age and interactions and squares: do these add to the linear terms?"""
    sex, count, age = clinical_features(bags).T
    features = np.stack([sex, count, age, count * age, count**2, age**2], axis=1)
    return Candidate(
        "clinical interplay", {"strengths": STRENGTHS}, _logistic(features, bags.labels, 0), clinical_only=True
    )


def clinical_bent(bags: Bags) -> Candidate:
    """Logistic regression on sex, age and the piecewise-linear log count (train/data/inputs.py)."""
    facts = {"strengths": STRENGTHS, "knot": KNOT}
    return Candidate("clinical, bent count", facts, _logistic(_bent(bags), bags.labels, 0), clinical_only=True)


def embedded(
    bags: Bags, name: str, seen: Features, facts: Mapping[str, object], *, dispersion: bool = False, bent: bool = False
) -> Candidate:
    """Logistic regression on sex, log count, age and the principal components of a patient's mean embedding.

    Args:
        bags: all patients.
        name: name of the lead.
        seen: embedding of every picture, and of a blank one.
        facts: origin of the embedding.
        dispersion: whether to add each feature's standard deviation over the patient's pictures.
        bent: whether to use the piecewise-linear log count.
    """
    clinical = _bent(bags) if bent else clinical_features(bags)
    parts = [seen.means(bags)]
    if dispersion:
        spread = [seen.pictures[a:b].std(axis=0) for a, b in bags.ranges()]
        parts.append(np.stack([*spread, np.zeros_like(spread[0])]).astype(np.float64))  # that of a single picture is 0
    pictures = np.concatenate(parts, axis=1)  # (P + 1, F)

    def predict(training: Indices, asked: Indices, checkpoint: Path) -> dict[str, Floats]:
        del checkpoint
        return judged_by_pictures(bags, clinical, pictures, training, asked)

    numbers = {"components": COMPONENTS, "strengths": STRENGTHS, "dispersion": dispersion, "bent": bent}
    return Candidate(name, {**numbers, "columns": COLUMNS, **facts}, predict)


def judged_by_pictures(
    bags: Bags, clinical: Floats, pictures: Floats, training: Indices, asked: Indices
) -> dict[str, Floats]:
    """Logistic regression on clinical values and principal components of pictures, for each of COLUMNS: (A,).

    Args:
        bags: all patients.
        clinical: (P, k) clinical features.
        pictures: (P + 1, F) features of each patient's pictures, the last row those of a blank one.
        training: indices of the patients to fit on.
        asked: indices of the patients to predict.
    """
    known = np.concatenate([clinical[training], pictures[training]], axis=1)
    model = fit_logistic(known, bags.labels[training], pictures.shape[1])

    def judge(shown: Indices) -> Floats:
        return np.asarray(model.predict_proba(np.concatenate([clinical[asked], pictures[shown]], axis=1))[:, 1])

    return by_pictures(asked, bags.patient_ids, judge)


def class_shares(bags: Bags, name: str, classes: Indices, number: int, facts: Mapping[str, object]) -> Candidate:
    """Logistic regression on sex, log count, age and the square root of the share of each cell class.

    Args:
        bags: all patients.
        name: name of the lead.
        classes: (N,) class of each picture, 0 to number - 1.
        number: number of classes.
        facts: origin of the classes.
    """
    shares = np.stack([np.bincount(classes[a:b], minlength=number) / (b - a) for a, b in bags.ranges()])
    features = np.concatenate([clinical_features(bags), np.sqrt(shares)], axis=1)
    return Candidate(name, {"strengths": STRENGTHS, **facts}, _logistic(features, bags.labels, 0))


def homogeneity(bags: Bags, name: str, pictures: Pictures, facts: Mapping[str, object]) -> Candidate:
    """Logistic regression on sex, log count, age and the similarity of a patient's cells: clonal cells are alike.

    Three features: mean, lowest decile and standard deviation of the cosine similarity between pairs of pictures.
    """
    unit = functional.normalize(torch.from_numpy(pictures), dim=1)
    features = np.stack([_likeness(unit[a:b]) for a, b in bags.ranges()])
    features = np.concatenate([clinical_features(bags), features], axis=1)
    return Candidate(name, {"strengths": STRENGTHS, **facts}, _logistic(features, bags.labels, 0))


def clinical_features(bags: Bags) -> Floats:
    """Sex, log count minus 2, and (age - 60) / 10: (P, 3), all of order one."""
    return _bent(bags)[:, :3]


def _bent(bags: Bags) -> Floats:
    return bent_features(torch.from_numpy(bags.clinical.astype(np.float64))).numpy()


def _likeness(unit: Tensor) -> Floats:
    similarity = unit @ unit.T
    pairs = similarity[*torch.triu_indices(len(unit), len(unit), 1)].double()
    if not len(pairs):  # a single picture counts as perfectly homogeneous
        return np.array([1.0, 1.0, 0.0])
    return np.array([pairs.mean().item(), pairs.quantile(0.1).item(), pairs.std(unbiased=False).item()])


def _logistic(features: Floats, labels: Indices, reduced: int) -> Callable[[Indices, Indices, Path], Floats]:
    """Logistic regression on features (P, F), with PCA on the last `reduced`; hyperparameters are chosen inside."""

    def predict(training: Indices, asked: Indices, checkpoint: Path) -> Floats:
        del checkpoint
        model = fit_logistic(features[training], labels[training], reduced)
        return np.asarray(model.predict_proba(features[asked])[:, 1], dtype=np.float64)

    return predict
