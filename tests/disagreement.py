"""Do members that disagree point at errors? Cross-fitted, from a finished training's out-of-fold predictions.

    .build/full/bin/python -m tests.disagreement RUN

For each measure of disagreement: who exceeds the bound that was fitted on the other folds, and how many of these the
ensemble would have put on the wrong side of its threshold, beside everybody else. Nothing is chosen by the answer.
"""

from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
from scipy.stats import fisher_exact
from sklearn.metrics import roc_auc_score

from infer.bundle.manifest import AGREEING, Ensemble
from infer.scoring.ensemble import calibrated
from train.core.arrays import Booleans, Floats
from train.data.bags import load_crops
from train.ensemble.fit import best_threshold, choose_pull, combine, fit_ensemble, load_out_of_fold, spread

Measure = Callable[[Floats, Ensemble], Floats]


def smooth(members: Floats, ensemble: Ensemble) -> Floats:
    """Calibrated probabilities: (M, P)."""
    return np.stack(
        [calibrated(row, ensemble.calibration[name]) for name, row in zip(ensemble.weights, members, strict=True)]
    )


def among_all(members: Floats, ensemble: Ensemble) -> Floats:
    """Largest minus smallest of all members."""
    return np.asarray(np.ptp(smooth(members, ensemble), axis=0))


def weighted_deviation(members: Floats, ensemble: Ensemble) -> Floats:
    """Standard deviation over members, weighted by their weights."""
    weights = np.array(list(ensemble.weights.values()))[:, None]
    values = smooth(members, ensemble)
    mean = (weights * values).sum(axis=0)
    return np.asarray(np.sqrt((weights * (values - mean) ** 2).sum(axis=0)))


MEASURES: dict[str, Measure] = {
    "all members": among_all,
    "members with a say": spread,
    "weighted deviation": weighted_deviation,
}


def report(name: str, lie: Floats, above: Booleans, wrong: Booleans) -> str:
    """One line: errors above the bound and below, Fisher's exact test, AUC of the measure for errors."""
    table = [[int((some & one).sum()) for one in (wrong, ~wrong)] for some in (above, ~above)]
    p = float(fisher_exact(table, "greater")[1])
    auc = f"{roc_auc_score(wrong, lie):.3f}" if np.ptp(lie) else "does not vary"
    (wrong_above, _), (wrong_below, _) = table
    counts = f"errors {wrong_above} of {above.sum()} above, {wrong_below} of {(~above).sum()} others"
    return f"{name}: {counts}, p {p:.2f}, AUC {auc}"


@click.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True))
def main(run: Path) -> None:
    bags = load_crops(run)
    tables = load_out_of_fold(run, bags)
    names = tuple(tables)
    members = np.stack([table["probability"].to_numpy(np.float64) for table in tables.values()])
    folds, labels = next(iter(tables.values()))["fold"].to_numpy(), bags.labels
    wrong = np.zeros(len(labels), np.bool_)
    lie = {name: np.empty(len(labels)) for name in MEASURES}
    above = {name: np.zeros(len(labels), np.bool_) for name in MEASURES}
    for fold in np.unique(folds):
        asked, known = folds == fold, folds != fold
        pull, _ = choose_pull(members[:, known], labels[known], folds[known], names)
        fitted = fit_ensemble(members[:, known], labels[known], names, pull)
        threshold = best_threshold(combine(members[:, known], fitted), labels[known])
        wrong[asked] = (combine(members[:, asked], fitted) >= threshold) != (labels[asked] == 1)
        for name, measure in MEASURES.items():
            lie[name][asked] = measure(members[:, asked], fitted)
            above[name][asked] = lie[name][asked] > np.quantile(measure(members[:, known], fitted), AGREEING)
    for name in MEASURES:
        click.echo(report(name, lie[name], above[name], wrong))


if __name__ == "__main__":
    main()
