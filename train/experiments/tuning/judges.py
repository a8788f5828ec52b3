"""How features of pictures are judged: by what a model on them says about patients whom it has not seen.

Each judge is fitted on the fold's training patients, and gives for the held-out ones the probability by their own, by
swapped and by blank pictures (train/data/whose_pictures.py).
"""

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from infer.members.features import base_features
from infer.members.naive_bayes import malignant_probability
from train.core.arrays import Classes, Floats, Indices
from train.core.threads import on_one_thread
from train.data.bags import Bags
from train.data.inputs import bent_features
from train.data.whose_pictures import by_pictures
from train.members.features import Features
from train.members.imagenet import fit_and_predict
from train.members.linear import fit_fixed
from train.members.naive_bayes import fit_naive_bayes
from train.members.recipes import BayesRecipe

Columns = dict[str, Floats]  # of COLUMNS, each (A,)
REGRESSION, GATED, CELL_CLASSES, OWN_HEAD = "regression", "gated", "cell classes", "its own"
CLASSES, COMPONENTS = 20, 50  # of k-means, and of the principal components it is fitted on


def by_regression(bags: Bags, features: Features, training: Indices, asked: Indices) -> Columns:
    """Logistic regression with fixed numbers, on bent clinical values and mean features: as `train magnification`."""
    clinical = bent_features(torch.from_numpy(bags.clinical.astype(np.float64))).numpy()
    means = features.means(bags)
    model = fit_fixed(np.hstack([clinical[training], means[training]]), bags.labels[training], means.shape[1])
    return by_pictures(
        asked,
        bags.patient_ids,
        lambda shown: model.predict_proba(np.hstack([clinical[asked], means[shown]]))[:, 1],
    )


def by_gate(bags: Bags, features: Features, training: Indices, asked: Indices) -> Columns:
    """The ImageNet member: the same regression, and a gate between it and naive Bayes."""
    return fit_and_predict(bags, features.means(bags), training, asked)


def by_cell_classes(
    bags: Bags, features: Features, training: Indices, asked: Indices, recipe: BayesRecipe, seed: int
) -> Columns:
    """Gaussian naive Bayes on shares of CLASSES cell classes, as of SCAN's; the classes are found by k-means."""
    classes = cell_classes(bags, features, training, seed)
    of = [classes[start:stop] for start, stop in bags.ranges()] + [classes[-1:]]  # the blank picture's is NOBODY's

    def base(patients: Indices, shown: Indices) -> Floats:
        pairs = zip(patients, shown, strict=True)
        return np.stack([base_features(bags.clinical[one], of[whose], CLASSES) for one, whose in pairs])

    model = fit_naive_bayes(base(training, training), bags.labels[training], recipe)
    return by_pictures(asked, bags.patient_ids, lambda shown: malignant_probability(base(asked, shown), model))


@on_one_thread
def cell_classes(bags: Bags, features: Features, training: Indices, seed: int) -> Classes:
    """Classes of all pictures, the blank one last, by k-means on the training patients' pictures: (N + 1,)."""
    known = features.pictures[np.isin(bags.patient_of_image(), training)]
    components = PCA(min(COMPONENTS, *known.shape), whiten=True, random_state=seed).fit(known)
    means = KMeans(min(CLASSES, len(known)), n_init=3, random_state=seed).fit(components.transform(known))
    everything = np.concatenate([features.pictures, features.blank[None]])
    found: Classes = means.predict(components.transform(everything)).astype(np.int64)
    return found
