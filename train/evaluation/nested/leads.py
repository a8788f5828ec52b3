"""Leads that may go past the report's models: features of a patient, each behind the same door as the members.

All are cheap, so all appear in the nested protocol's tables, whether they help or not. Where a lead has numbers to
choose, they are chosen by cross-validation inside whatever it is trained on.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from train.data.bags import Bags
from train.data.inputs import KNOT, bent_features
from train.evaluation.nested.plan import Floats, Indices
from train.members.candidate import Candidate
from train.members.linear import COMPONENTS, STRENGTHS, fit_logistic

Pictures = npt.NDArray[np.float32]  # (N, D) embedding of each picture


def clinical_interplay(bags: Bags) -> Candidate:
    """Logistic regression on sex, log count, age, their products and squares: are they more than a sum?"""
    sex, count, age = clinical_features(bags).T
    features = np.stack([sex, count, age, count * age, count**2, age**2], axis=1)
    return Candidate("clinical interplay", {"strengths": STRENGTHS}, _logistic(features, bags.labels, 0))


def clinical_bent(bags: Bags) -> Candidate:
    """Logistic regression on sex, age, and the count with a bend (train/data/inputs.py)."""
    facts = {"strengths": STRENGTHS, "knot": KNOT}
    return Candidate("clinical, bent count", facts, _logistic(_bent(bags), bags.labels, 0))


def embedded(
    bags: Bags, name: str, pictures: Pictures, facts: dict[str, str], *, dispersion: bool = False, bent: bool = False
) -> Candidate:
    """Logistic regression on sex, log count, age and the principal components of a patient's mean embedding.

    Args:
        pictures: (N, D) embedding of each picture.
        facts: where it comes from.
        dispersion: whether each feature's standard deviation over the patient's pictures joins its mean.
        bent: whether the count has a bend.
    """
    clinical = _bent(bags) if bent else clinical_features(bags)
    parts = [bags.means(pictures)]
    if dispersion:
        parts.append(np.stack([pictures[a:b].std(axis=0) for a, b in bags.ranges()]).astype(np.float64))
    features = np.concatenate([clinical, *parts], axis=1)
    numbers = {"components": COMPONENTS, "strengths": STRENGTHS, "dispersion": dispersion, "bent": bent, **facts}
    return Candidate(name, numbers, _logistic(features, bags.labels, features.shape[1] - clinical.shape[1]))


def class_shares(bags: Bags, name: str, classes: Indices, number: int, facts: dict[str, str]) -> Candidate:
    """Logistic regression on sex, log count, age and the square roots of the shares of each cell class.

    Args:
        classes: (N,) of each picture, below `number`.
    """
    shares = np.stack([np.bincount(classes[a:b], minlength=number) / (b - a) for a, b in bags.ranges()])
    features = np.concatenate([clinical_features(bags), np.sqrt(shares)], axis=1)
    return Candidate(name, {"strengths": STRENGTHS, **facts}, _logistic(features, bags.labels, 0))


def homogeneity(bags: Bags, name: str, pictures: Pictures, facts: dict[str, str]) -> Candidate:
    """Logistic regression on sex, log count, age and how alike a patient's cells are: clones are of one kind.

    Three features: mean cosine similarity of two of its pictures, its lowest decile, and its spread.
    """
    unit = functional.normalize(torch.from_numpy(pictures), dim=1)
    features = np.stack([_likeness(unit[a:b]) for a, b in bags.ranges()])
    features = np.concatenate([clinical_features(bags), features], axis=1)
    return Candidate(name, {"strengths": STRENGTHS, **facts}, _logistic(features, bags.labels, 0))


def clinical_features(bags: Bags) -> Floats:
    """Sex, logarithm of the count less 2, decades of age from 60: (P, 3), all of the size of one."""
    return _bent(bags)[:, :3]


def _bent(bags: Bags) -> Floats:
    return bent_features(torch.from_numpy(bags.clinical.astype(np.float64))).numpy()


def _likeness(unit: Tensor) -> Floats:
    similarity = unit @ unit.T
    pairs = similarity[*torch.triu_indices(len(unit), len(unit), 1)].double()
    if not len(pairs):  # one picture is as alike as can be
        return np.array([1.0, 1.0, 0.0])
    return np.array([pairs.mean().item(), pairs.quantile(0.1).item(), pairs.std(unbiased=False).item()])


def _logistic(features: Floats, labels: Indices, reduced: int) -> Callable[[Indices, Indices, Path], Floats]:
    """Logistic regression on features (P, F), the last `reduced` of them through PCA; its numbers chosen inside."""

    def predict(training: Indices, asked: Indices, checkpoint: Path) -> Floats:
        del checkpoint
        model = fit_logistic(features[training], labels[training], reduced)
        return np.asarray(model.predict_proba(features[asked])[:, 1], dtype=np.float64)

    return predict
