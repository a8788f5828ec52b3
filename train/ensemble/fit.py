"""Fits the ensemble, only on out-of-fold predictions: calibration, weights, operating points and the refer band."""

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.metrics import balanced_accuracy_score, log_loss
from sklearn.naive_bayes import GaussianNB

from infer.bundle.manifest import AGREEING, Ensemble, OperatingPoint
from infer.errors import UsageError
from infer.scoring.ensemble import calibrated, decide_patient, disagree, disagreement, weighted, with_a_say
from train.core.arrays import Floats, Labels
from train.core.calibration import fit_calibration
from train.core.files import write_table, write_text
from train.core.fitting import TrainingError
from train.core.metrics import summary
from train.core.threads import on_one_thread
from train.data.bags import Bags
from train.members import registry
from train.members.absent import ABSENT, notes_of, write_notes
from train.members.training import OUT_OF_FOLD

FOLDER = "ensemble"
# Strengths of a pull of the weights towards equal ones, from which the folds choose; fixed before any was tried. 130
# patients cannot determine weights precisely, but a member that is worth nothing must be able to get weight 0.
PULLS = (0.0, 0.05, 0.2)
SMALLEST_WEIGHT = 1e-6  # what the solver leaves of a member that is worth nothing
TRUSTED_ACCURACY = 0.95  # required balanced accuracy on the patients that are not referred
LARGEST_REFERRED = 0.25  # largest share of patients that the balanced operating point refers

LOG = logging.getLogger("lympho")


def load_out_of_fold(run: Path, bags: Bags) -> dict[str, pd.DataFrame]:
    """Load the out-of-fold predictions of each member of a run, in the order of the bags.

    Raises:
        TrainingError: no member could be trained.
        UsageError: a member has not been trained in this run folder, or was trained on other patients.
    """
    tables = {}
    if not registry.present(run):
        raise TrainingError(f"{run}: no member could be trained. Look into the folders' {ABSENT}")
    for member in registry.present(run):
        path = run / member.folder / OUT_OF_FOLD
        if not path.exists():
            raise UsageError(f"{run}: has no {member.folder}/{OUT_OF_FOLD}. Run `python -m train {member.command}`")
        table = pd.read_csv(path, dtype={"patient_id": str}, keep_default_na=False)
        if table["patient_id"].tolist() != bags.patient_ids:
            raise UsageError(f"{path}: lists other patients than the crops. Train this member again")
        tables[member.name] = table
    return tables


def train_ensemble(bags: Bags, folds: Labels, run: Path) -> dict[str, dict[str, float]]:
    """Fit on all out-of-fold predictions, write RUN/ensemble, and return the metrics of members and ensemble.

    The ensemble's own metrics are cross-fitted: the calibration, the pull, the weights and the operating points applied
    to a patient were fitted on patients of the other folds. RUN/ensemble/notes.json, if it is there, says which member
    is left out, or where something took another's place.
    """
    tables = load_out_of_fold(run, bags)
    present, names = registry.present(run), tuple(tables)
    members = np.stack([tables[name]["probability"].to_numpy(np.float64) for name in names])  # (M, P)
    pull, _ = choose_pull(members, bags.labels, folds, names)
    ensemble = fit_ensemble(members, bags.labels, names, pull)
    crossed, apart = np.empty(len(bags)), np.zeros(len(bags), np.bool_)
    decisions = {name: np.empty(len(bags), dtype=object) for name in ensemble.operating_points}
    for fold in np.unique(folds):
        held_out = folds == fold
        known, labels = members[:, ~held_out], bags.labels[~held_out]
        fitted = fit_ensemble(known, labels, names, choose_pull(known, labels, folds[~held_out], names)[0])
        crossed[held_out] = combine(members[:, held_out], fitted)
        apart[held_out] = [disagree(float(value), fitted) for value in spread(members[:, held_out], fitted)]
        for name, decided in decide_all(members[:, held_out], fitted).items():
            decisions[name][held_out] = decided
    count = bags.clinical[:, 1]
    scores = {name: tables[name]["probability"].to_numpy() for name in names}
    scores |= {f"{name}, pictures only": tables[name]["pictures_only"].to_numpy() for name in names}
    scores |= {"ensemble": crossed, "clinical GaussianNB": clinical_naive_bayes(bags, folds)}
    figures = {name: summary(bags.labels, score, count) for name, score in scores.items()}
    for name, decided in decisions.items():
        figures[f"operating point {name}"] = decision_figures(decided, bags.labels)
    if ensemble.disagreement is not None:
        figures["disagreement"] = {"bound": ensemble.disagreement, "referred": float(apart.mean())}
    figures["pull of the weights"] = {"towards equal ones": pull}
    figures["influence"] = {name: _influence(row, ensemble, name) for name, row in zip(names, members, strict=True)}
    for member in present:
        for column, title in member.spread_of.items():
            figures[title] = _quantiles(tables[member.name][column])

    left_out = {member.name: 1.0 for member in registry.MEMBERS if member not in present}
    figures |= {"left out": left_out} if left_out else {}

    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    write_notes(folder, notes_of(run, registry.MEMBERS))
    facts = {"patient_id": bags.patient_ids, "fold": folds, "label": bags.labels, "probability": crossed}
    write_table(folder / "out_of_fold.csv", pd.DataFrame(facts))
    write_text(folder / "metrics.json", json.dumps(figures, indent=1))
    write_text(folder / "ensemble.json", msgspec.json.format(msgspec.json.encode(ensemble)).decode())
    write_text(folder / "inputs.json", json.dumps(input_digests(run), indent=1))
    return figures


def input_digests(run: Path) -> dict[str, str]:
    """SHA-256 of every file the ensemble was fitted on and of the matching networks: export rejects any mismatch."""
    present = registry.present(run)
    files = [run / member.folder / OUT_OF_FOLD for member in present]
    files += [path for member in present for path in member.files(run)]
    names = [path.relative_to(run).as_posix() for path in files]
    missing = [name for name in names if not (run / name).exists()]
    if missing:
        raise UsageError(f"{run}: has no {', '.join(missing)}. Run `python -m train all` first")
    return {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in names}


def decision_figures(decisions: npt.NDArray[np.object_], labels: Labels) -> dict[str, float]:
    """Shares of decisions at an operating point. A referred patient counts as neither right nor wrong.

    Args:
        decisions: (P,) malignant, reactive or refer.
        labels: (P,) 1 malignant, 0 reactive.
    """
    malignant, reactive = decisions[labels == 1], decisions[labels == 0]
    return {
        "referred": float(np.mean(decisions == "refer")),
        "malignant_called_malignant": float(np.mean(malignant == "malignant")),
        "malignant_called_reactive": float(np.mean(malignant == "reactive")),
        "reactive_called_reactive": float(np.mean(reactive == "reactive")),
        "reactive_called_malignant": float(np.mean(reactive == "malignant")),
    }


def _quantiles(values: pd.Series) -> dict[str, float]:
    return {f"quantile_{q:02d}": float(values.quantile(q / 100)) for q in (5, 25, 50, 75, 95)}


def _influence(probability: Floats, ensemble: Ensemble, name: str) -> float:
    """How much a member changes the ensemble between its 5% and 95% quantile: a weight alone says little."""
    low, high = np.quantile(calibrated(probability, ensemble.calibration[name]), [0.05, 0.95])
    return float(ensemble.weights[name] * (high - low))


@on_one_thread
def choose_pull(
    members: Floats, labels: Labels, folds: Labels, names: Sequence[str], pulls: Sequence[float] = PULLS
) -> tuple[float, float]:
    """The pull of the weights with the lowest cross-validated log loss over the folds, and that loss.

    Args:
        members: (M, P) out-of-fold probabilities.
        labels: (P,) 1 malignant, 0 reactive.
        folds: (P,) the fold in which each patient was held out.
        names: names of the M members.
        pulls: the strengths to choose from; of equally good ones the smallest.
    """
    tried = []
    for pull in pulls:
        crossed = np.empty(len(labels))
        for fold in np.unique(folds):
            rest, held_out = folds != fold, folds == fold
            fitted = fit_calibration_and_weights(members[:, rest], labels[rest], names, pull)
            crossed[held_out] = combine(members[:, held_out], fitted)
        tried.append((float(log_loss(labels, crossed)), pull))
    loss, pull = min(tried)
    return pull, loss


@on_one_thread
def fit_ensemble(members: Floats, labels: Labels, names: Sequence[str], pull: float) -> Ensemble:
    """Fit everything that turns the members' probabilities into a decision.

    The bound on the disagreement of the members with a say is the AGREEING quantile over these patients: about one in
    twenty like them will be referred for it. Where one member alone has a say there is none.

    Args:
        members: (M, P) out-of-fold probabilities.
        labels: (P,) 1 malignant, 0 reactive.
        names: names of the M members.
        pull: strength of the regularisation of the weights towards equal ones.
    """
    ensemble = fit_calibration_and_weights(members, labels, names, pull)
    points = fit_operating_points(combine(members, ensemble), labels)
    several = len(with_a_say(ensemble)) > 1
    bound = float(np.quantile(spread(members, ensemble), AGREEING)) if several else None
    return msgspec.structs.replace(ensemble, operating_points=points, disagreement=bound)


@on_one_thread
def fit_calibration_and_weights(members: Floats, labels: Labels, names: Sequence[str], pull: float) -> Ensemble:
    """Like fit_ensemble, but only calibration and weights, without operating points."""
    calibration = {name: fit_calibration(row, labels) for name, row in zip(names, members, strict=True)}
    smooth = np.stack([calibrated(row, calibration[name]) for name, row in zip(names, members, strict=True)])
    weights = dict(zip(names, fit_weights(smooth, labels, pull).tolist(), strict=True))
    return Ensemble(calibration=calibration, weights=weights, operating_points={})


def combine(members: Floats, ensemble: Ensemble) -> Floats:
    """The ensemble's probability for each patient: (M, P) -> (P,). Members must be in the order of its weights."""
    return weighted(_smooth(members, ensemble), ensemble)


def spread(members: Floats, ensemble: Ensemble) -> Floats:
    """How far each patient's calibrated members with a say lie apart: (M, P) -> (P,). Members as for `combine`."""
    return disagreement(_smooth(members, ensemble), ensemble)


def decide_all(members: Floats, ensemble: Ensemble) -> dict[str, npt.NDArray[np.object_]]:
    """The decision on each patient at each operating point: (M, P) -> (P,) each. Members as for `combine`."""
    patients = list(zip(combine(members, ensemble).tolist(), spread(members, ensemble).tolist(), strict=True))
    return {
        name: np.array([decide_patient(probability, apart, ensemble, name) for probability, apart in patients], object)
        for name in ensemble.operating_points
    }


def _smooth(members: Floats, ensemble: Ensemble) -> dict[str, Floats]:
    rows = zip(ensemble.weights, members, strict=True)
    return {name: calibrated(row, ensemble.calibration[name]) for name, row in rows}


def fit_weights(members: Floats, labels: Labels, pull: float) -> Floats:
    """Weights >= 0 with sum 1 that minimise log loss, pulled towards equal ones: (M, P), (P,) -> (M,)."""
    number = len(members)
    equal = np.full(number, 1 / number)
    likelihood = np.where(labels == 1, members, 1 - members)  # (M, P)

    def cost(weights: Floats) -> float:
        penalty = pull * np.sum((weights - equal) ** 2)
        return float(-np.mean(np.log(np.clip(weights @ likelihood, 1e-12, None))) + penalty)

    constraint = {"type": "eq", "fun": lambda weights: weights.sum() - 1}
    found = minimize(cost, equal, method="SLSQP", bounds=[(0.0, 1.0)] * number, constraints=[constraint])
    weights = np.where(found.x < SMALLEST_WEIGHT, 0.0, found.x)
    return np.asarray(weights / weights.sum())


def fit_operating_points(probability: Floats, labels: Labels) -> dict[str, OperatingPoint]:
    """Fit all operating points: (P,) probabilities, (P,) labels -> operating point by name.

    `balanced` uses the threshold with the best balanced accuracy and refers patients around it. `sensitivity-N` calls
    nobody reactive at or above the threshold with a sensitivity of N%.
    """
    threshold = best_threshold(probability, labels)
    low, high = refer_band(probability, labels, threshold)
    points = {"balanced": OperatingPoint(low, high)}
    for percent in (95, 98):
        floor = sensitivity_threshold(probability, labels, percent / 100)
        points[f"sensitivity-{percent}"] = OperatingPoint(min(floor, low), high)
    return points


def best_threshold(probability: Floats, labels: Labels) -> float:
    """The threshold with the highest balanced accuracy, midway between two adjacent probabilities."""
    values = np.unique(probability)
    middles = (values[1:] + values[:-1]) / 2 if len(values) > 1 else values
    return float(max(middles, key=lambda middle: balanced_accuracy_score(labels, probability >= middle)))


def sensitivity_threshold(probability: Floats, labels: Labels, sensitivity: float) -> float:
    """The highest threshold with at least this sensitivity, calling patients at or above it malignant."""
    malignant = np.sort(probability[labels == 1])
    missed = int(np.floor((1 - sensitivity) * len(malignant) + 1e-9))
    return float(malignant[missed])


def refer_band(probability: Floats, labels: Labels, threshold: float) -> tuple[float, float]:
    """The narrowest band, symmetric in logit around the threshold, outside which decisions can be trusted.

    That means a balanced accuracy of at least TRUSTED_ACCURACY outside the band. If no band achieves it, the result is
    the widest band that refers at most LARGEST_REFERRED of the patients.
    """
    centre = logit(threshold)
    distance = np.abs(logit(probability) - centre)
    band = (threshold, threshold)
    for width in np.concatenate([[0.0], np.sort(distance) * (1 + 1e-9)]):
        outside = distance > width
        if np.mean(~outside) > LARGEST_REFERRED or len(np.unique(labels[outside])) < 2:
            break
        band = (float(expit(centre - width)), float(expit(centre + width)))
        if balanced_accuracy_score(labels[outside], probability[outside] >= threshold) >= TRUSTED_ACCURACY:
            break
    return band


def clinical_naive_bayes(bags: Bags, folds: Labels) -> Floats:
    """Out-of-fold probabilities of GaussianNB on sex, count and age alone, which any model must beat: (P,)."""
    result = np.empty(len(bags))
    for fold in np.unique(folds):
        held_out = folds == fold
        model = GaussianNB().fit(bags.clinical[~held_out], bags.labels[~held_out])
        result[held_out] = model.predict_proba(bags.clinical[held_out])[:, 1]
    return result
