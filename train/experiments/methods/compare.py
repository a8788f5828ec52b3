"""The field's methods beside ours, nested: figures with intervals, paired differences, and what others' pictures do.

Repeat r has the nested protocol's folds of repeat r, and a random seed of its own for every method: what is averaged is
the figures of repeats, never their probabilities. Each method sees pictures alone. Late fusion adds sex, age and
count: logistic regression on them and on the method's logit, fitted on logits for patients whom the method had not
seen. Predictions are cached in RUN/methods, and an interrupted call is resumed.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from train.core.arrays import Booleans, Floats, Indices
from train.core.calibration import CLIP
from train.core.files import write_table
from train.core.metrics import GREY_ZONE_COUNT
from train.core.performance import FIGURES, Predictions, estimate, paired_difference, resamples
from train.core.threads import on_one_thread
from train.data.bags import Bags
from train.data.inputs import bent_features
from train.data.whose_pictures import COLUMNS, OWN, by_pictures
from train.evaluation.nested.plan import Outer, Predictor, inner_tasks, outer_folds, outer_task
from train.experiments.methods.method import COMPONENTS, Method, Views
from train.experiments.methods.networks import NETWORKS, demand_torchmil
from train.experiments.methods.pooling import POOLINGS
from train.members import imagenet
from train.members.candidate import Candidate
from train.members.embedding import weights_digest
from train.members.features import embed_pictures

LOG = logging.getLogger("lympho")

METHODS: Mapping[str, Method] = {method.name: method for method in (*NETWORKS, *POOLINGS)}
CLINICAL, OURS = "sex, age and count alone", "ours: ImageNet"
ALONE, FUSED = "pictures alone", "late-fused"

Found = dict[tuple[str, str], dict[str, Floats]]  # method, form -> for each of COLUMNS: probabilities (repeats, P)


def compare(
    bags: Bags, run: Path, seed: int, device: torch.device, seeds: int = 3, names: Sequence[str] = ()
) -> pd.DataFrame:
    """The table, also in RUN/methods/methods.csv.

    Columns: method; form (pictures alone, late-fused, or empty for ours and the clinical values); pictures (own, or
    swapped and blank, train/data/whose_pictures.py); figure (auc and balanced_accuracy at .5, and auc in the grey
    zone); value, the mean over repeats; low and high, by patient bootstrap; spread, the standard deviation over
    repeats; and with own pictures the paired differences from the clinical values and from ours.

    Args:
        bags: all patients.
        run: the run folder.
        seed: random seed of the first repeat and of the bootstrap.
        device: device for the backbone; the methods are too small for a GPU.
        seeds: number of repeats.
        names: names in METHODS; default all.

    Raises:
        UsageError: a method needs a library that is not installed.
    """
    methods = chosen(names)
    demand_torchmil(methods)
    features = embed_pictures(bags, run, device, imagenet.MAGNIFICATION)
    predictor = Predictor(bags, run / "methods")
    views, means = Views(bags, features), features.means(bags)
    ours = Candidate(
        "ours", imagenet.numbers(), lambda known, asked, _: imagenet.fit_and_predict(bags, means, known, asked)
    )
    found: Found = {}

    def keep(name: str, form: str, outer: Outer, columns: Mapping[str, Floats]) -> None:
        empty = {column: np.empty((seeds, len(bags))) for column in columns}
        for column, probability in columns.items():
            found.setdefault((name, form), empty)[column][outer.repeat, outer.held_out] = probability

    for outer in outer_folds(bags.labels, seed, seeds, bags.centres):
        keep(CLINICAL, "", outer, fused(bags, outer, {}))
        keep(OURS, "", outer, _predicted(predictor, ours, outer))
        for method in methods:
            candidate = _candidate(method, bags, views, seed + outer.repeat)
            alone = _predicted(predictor, candidate, outer)
            inner = np.empty(len(bags))
            for task in inner_tasks(candidate, outer):
                inner[task.asked] = predictor.predict(task)
            keep(method.name, ALONE, outer, alone)
            keep(method.name, FUSED, outer, fused(bags, outer, alone, inner[outer.training]))
            LOG.info("methods: repeat %d, fold %d: %s is done", outer.repeat, outer.number, method.name)
    table = pd.DataFrame(_rows(bags, found, seed))
    write_table(run / "methods" / "methods.csv", table)
    return table


def chosen(names: Sequence[str]) -> tuple[Method, ...]:
    """The methods of these names; all, if there are none."""
    return tuple(METHODS[name] for name in names or METHODS)


def wide(table: pd.DataFrame) -> pd.DataFrame:
    """One row per method and form, as text: figures with intervals, differences in AUC, AUC by others' pictures."""
    rows: dict[str, dict[str, str]] = {}
    for row in table.to_dict("records"):
        cells = rows.setdefault(", ".join(filter(None, [row["method"], row["form"]])), {})
        value = f"{row['value']:.3f}"
        if row["pictures"] != "own":
            cells[f"{row['figure']}, {row['pictures']}"] = value
            continue
        cells[row["figure"]] = f"{value} [{row['low']:.3f}, {row['high']:.3f}]"
        cells[f"{row['figure']}, spread"] = f"{row['spread']:.3f}"
        for what in ("over_clinical", "over_ours"):
            difference, low, high = (row[f"{what}{end}"] for end in ("", "_low", "_high"))
            cells[f"{row['figure']}, {what}"] = f"{difference:+.3f} [{low:+.3f}, {high:+.3f}]"
    return pd.DataFrame.from_dict(rows, orient="index").fillna("")


@on_one_thread
def fused(
    bags: Bags, outer: Outer, probability: Mapping[str, Floats], unseen: Floats | None = None
) -> dict[str, Floats]:
    """Probabilities of the held-out patients by the clinical values and a method's logit, for each of its columns.

    Args:
        bags: all patients.
        outer: the fold.
        probability: for each column, a method's probabilities of the held-out patients (H,); empty for none, and the
            clinical values judge alone.
        unseen: (T,) the method's probabilities of the training patients, each by a model that had not seen him.
    """
    clinical = bent_features(torch.from_numpy(bags.clinical.astype(np.float64))).numpy()

    def joined(patients: Indices, of: Floats | None) -> Floats:
        values = [] if of is None else [logit(np.clip(of, CLIP, 1 - CLIP))]
        return np.column_stack([clinical[patients], *values])

    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))
    model.fit(joined(outer.training, unseen), bags.labels[outer.training])
    asked: Mapping[str, Floats | None] = probability or {OWN: None}
    return {name: model.predict_proba(joined(outer.held_out, of))[:, 1] for name, of in asked.items()}


def _candidate(method: Method, bags: Bags, views: Views, seed: int) -> Candidate:
    def predict(training: Indices, asked: Indices, checkpoint: Path) -> dict[str, Floats]:
        del checkpoint
        judge = method.fit(views.of(training), training, bags.labels[training], seed)
        return by_pictures(asked, bags.patient_ids, lambda shown: expit(judge(shown)))

    seen = {"weights": weights_digest(), **asdict(imagenet.MAGNIFICATION), "components": COMPONENTS, "columns": COLUMNS}
    return Candidate(method.name, {**method.facts, **seen, "seed": seed}, predict)


def _predicted(predictor: Predictor, candidate: Candidate, outer: Outer) -> dict[str, Floats]:
    task = outer_task(candidate, outer)
    return {OWN: predictor.predict(task), **predictor.predict_blind(task)}


def _rows(bags: Bags, found: Found, seed: int) -> list[dict[str, object]]:
    grey = bags.clinical[:, 1] <= GREY_ZONE_COUNT
    weights = resamples(bags.labels, seed)
    everybody = np.ones(len(bags), dtype=bool)
    rows: list[dict[str, object]] = []
    for title, name, chosen in (
        ("auc", "auc", everybody), ("grey_zone_auc", "auc", grey), ("balanced_accuracy", "balanced_accuracy", everybody)
    ):  # fmt: skip
        figure, drawn, one = FIGURES[name], weights[:, chosen], np.ones((1, int(chosen.sum())))

        def predictions(of: Floats, chosen: Booleans = chosen) -> list[Predictions]:
            return [Predictions(bags.labels, repeat, repeat >= 0.5).of(chosen) for repeat in of]

        others = {what: predictions(found[of, ""][OWN]) for what, of in (("clinical", CLINICAL), ("ours", OURS))}
        for (method, form), columns in found.items():
            for column, of in columns.items():
                repeats = predictions(of)
                values = [figure(repeat, one)[0] for repeat in repeats]
                row: dict[str, object] = {
                    "method": method,
                    "form": form,
                    "pictures": "own" if column == OWN else column,
                    "figure": title,
                }
                row |= asdict(estimate(figure, repeats, drawn))
                row["spread"] = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
                for what, other in others.items() if column == OWN else ():
                    difference = paired_difference(figure, repeats, other, drawn)
                    row |= {f"over_{what}": difference.value}
                    row |= {f"over_{what}_low": difference.low, f"over_{what}_high": difference.high}
                rows.append(row)
    return rows
