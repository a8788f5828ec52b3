"""Methods that describe a patient by one vector or one kernel row, then fit a linear or a kernel classifier.

Mean, prototypes and Fisher vectors share one classifier, the ImageNet member's `fit_fixed`.
"""

from collections.abc import Callable

import numpy as np
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture
from sklearn.svm import SVC

from train.core.arrays import Floats, Indices, Labels
from train.core.threads import on_one_thread
from train.experiments.methods.method import Fit, Judge, Method, Vectors, View
from train.members.linear import fit_fixed, fixed_numbers

PROTOTYPES, STARTS = 16, 3
MIXTURE, MIXTURE_COMPONENTS = 8, 16  # Gaussians of the Fisher vector, and components of the pictures they are fitted on
STRENGTH = 1.0  # of the support vector machine: scikit-learn's C

Describe = Callable[[Vectors], Floats]  # pictures (n, C) -> (D,)


def mean(view: View, training: Indices, seed: int) -> Describe:
    """The mean of a patient's pictures."""
    del view, training, seed
    return lambda pictures: pictures.mean(axis=0, dtype=np.float64)


def prototypes(view: View, training: Indices, seed: int) -> Describe:
    """Share of a patient's pictures that is nearest to each of PROTOTYPES centres of k-means."""
    centres = KMeans(PROTOTYPES, n_init=STARTS, random_state=seed).fit(view.of_all(training)).cluster_centers_
    squares = (centres**2).sum(axis=1)

    def shares(pictures: Vectors) -> Floats:
        nearest = (squares - 2 * pictures @ centres.T).argmin(axis=1)
        return np.bincount(nearest, minlength=PROTOTYPES) / len(pictures)

    return shares


def fisher(view: View, training: Indices, seed: int) -> Describe:
    """Fisher vector (Sanchez et al. 2013) of a mixture of Gaussians with diagonal covariances.

    Gradients by weights, means and standard deviations; signed square root, then length one.
    """
    known = view.of_all(training)[:, :MIXTURE_COMPONENTS].astype(np.float64)
    mixture = GaussianMixture(MIXTURE, covariance_type="diag", random_state=seed).fit(known)
    weight = np.sqrt(mixture.weights_)[:, None]

    def vector(pictures: Vectors) -> Floats:
        values = pictures[:, :MIXTURE_COMPONENTS].astype(np.float64)
        share = mixture.predict_proba(values)  # (n, K)
        apart = (values[:, None] - mixture.means_) / np.sqrt(mixture.covariances_)  # (n, K, C)
        by_weight = (share - mixture.weights_).sum(axis=0) / weight[:, 0]
        by_mean = np.einsum("nk,nkc->kc", share, apart) / weight
        by_deviation = np.einsum("nk,nkc->kc", share, apart**2 - 1) / (weight * np.sqrt(2))
        gradient = np.concatenate([by_weight, by_mean.ravel(), by_deviation.ravel()]) / len(pictures)
        rooted = np.sign(gradient) * np.sqrt(np.abs(gradient))
        return np.asarray(rooted / np.linalg.norm(rooted))

    return vector


def classified(describe: Callable[[View, Indices, int], Describe], *, whitened: bool) -> Fit:
    """`fit_fixed` on patients' vectors: on their whitened components, or on standardised values."""

    @on_one_thread
    def fit(view: View, training: Indices, labels: Labels, seed: int) -> Judge:
        described = describe(view, training, seed)

        def vectors(shown: Indices) -> Floats:
            return np.stack([described(view.of(patient)) for patient in shown])

        known = vectors(training)
        model = fit_fixed(known, labels, known.shape[1] if whitened else 0)
        return lambda shown: np.asarray(model.decision_function(vectors(shown)))

    return fit


@on_one_thread
def support_measures(view: View, training: Indices, labels: Labels, seed: int) -> Judge:
    """Kernel mean embedding with a support vector machine (Muandet et al. 2012), exact.

    A Gaussian kernel between pictures, as wide as training pictures are apart (mean square); its means over pairs of
    pictures are inner products of patients; a Gaussian kernel between patients, as wide as those are apart.
    """
    del seed
    known = view.of_all(training).astype(np.float64)
    width = 2 * known.var(axis=0).sum()  # mean squared distance of two training pictures

    def products(shown: Indices, others: Indices) -> Floats:
        right = view.of_all(others)
        starts = np.cumsum([0, *(len(view.of(patient)) for patient in others)])[:-1]
        counts = np.diff([*starts, len(right)])
        squares = (right**2).sum(axis=1)
        rows = []
        for patient in shown:
            left = view.of(patient)
            distance = (left**2).sum(axis=1)[:, None] + squares - 2 * left @ right.T
            rows.append(np.add.reduceat(np.exp(-distance / width).mean(axis=0, dtype=np.float64), starts) / counts)
        return np.stack(rows)

    def norms(patients: Indices) -> Floats:
        return np.array([products(one, one)[0, 0] for one in patients[:, None]])

    inner = products(training, training)
    length = np.diag(inner)
    apart = length[:, None] + length - 2 * inner
    breadth = apart.mean()
    machine = SVC(C=STRENGTH, kernel="precomputed", class_weight="balanced").fit(np.exp(-apart / breadth), labels)

    def judge(shown: Indices) -> Floats:
        distance = norms(shown)[:, None] + length - 2 * products(shown, training)
        return np.asarray(machine.decision_function(np.exp(-distance / breadth)))

    return judge


POOLINGS = (
    Method("mean", classified(mean, whitened=True), fixed_numbers()),
    Method(
        "prototypes",
        classified(prototypes, whitened=False),
        {"prototypes": PROTOTYPES, "starts": STARTS, **fixed_numbers()},
    ),
    Method(
        "Fisher vectors",
        classified(fisher, whitened=True),
        {"mixture": MIXTURE, "mixture_components": MIXTURE_COMPONENTS, "weights_too": True, **fixed_numbers()},
    ),
    Method("kernel mean embedding", support_measures, {"strength": STRENGTH}),
)
