"""Tables of the nested protocol: metrics of every model, overall and by subgroup, differences, operating points."""

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from train.core.arrays import Booleans, Floats
from train.core.metrics import GREY_ZONE_COUNT
from train.core.performance import FIGURES, Estimate, Predictions, estimate, paired_difference, resamples
from train.data.bags import Bags
from train.data.centres import centre_groups, has_figures
from train.evaluation.nested.protocol import Nested
from train.evaluation.nested.stacking import SHIPPED, without

CLINICAL_ONLY = ("clinical logistic", "clinical GaussianNB")  # models that pictures must improve on
SUBGROUP_FIGURES = ("balanced_accuracy", "auc", "sensitivity", "specificity")
DECISIONS = ("malignant", "refer", "reactive")


def subgroups(bags: Bags) -> dict[str, Booleans]:
    """The patients of each subgroup: name -> (P,)."""
    sex, count, age = bags.clinical.T
    images = np.diff(bags.offsets)
    return {
        "all": np.ones(len(bags), dtype=bool),
        f"grey zone: count <= {GREY_ZONE_COUNT}": count <= GREY_ZONE_COUNT,
        f"count > {GREY_ZONE_COUNT}": count > GREY_ZONE_COUNT,
        "count <= 5": count <= 5,
        f"count 5 to {GREY_ZONE_COUNT}": (count > 5) & (count <= GREY_ZONE_COUNT),
        "women": sex == 1,
        "men": sex == 0,
        "age < 60": age < 60,
        "age 60 to 75": (age >= 60) & (age < 75),
        "age >= 75": age >= 75,
        "up to 50 pictures": images <= 50,
        "51 to 100 pictures": (images > 50) & (images <= 100),
        "over 100 pictures": images > 100,
        **{f"centre {name}": of for name, of in centre_groups(bags.centres).items() if has_figures(bags.labels, of)},
    }


def performance_table(nested: Nested, bags: Bags, seed: int) -> pd.DataFrame:
    """Columns: model, repeats, group, patients, malignant, figure, value, low, high.

    Metrics that are undefined in a group, because it lacks a class, are left out, and so are empty groups.
    """
    weights = resamples(bags.labels, seed)
    rows = []
    for group, chosen in subgroups(bags).items():
        if not chosen.any():
            continue
        some = weights[:, chosen]
        facts = {"group": group, "patients": int(chosen.sum()), "malignant": int(bags.labels[chosen].sum())}
        for model, repeats in nested.predictions.items():
            of = [one.of(chosen) for one in repeats]
            for name, figure in FIGURES.items():
                if group == "all" or "grey" in group or name in SUBGROUP_FIGURES:
                    found = estimate(figure, of, some)
                    if np.isfinite(found.value):
                        rows.append({"model": model, "repeats": len(of), **facts, "figure": name, **_cells(found)})
    return pd.DataFrame(rows)


def difference_table(nested: Nested, bags: Bags, seed: int) -> pd.DataFrame:
    """Columns: model, against, repeats, group, figure, value, low, high. Paired, on the repeats both models have."""
    weights = resamples(bags.labels, seed)
    rows = []
    for group, chosen in list(subgroups(bags).items())[:2]:
        if len(np.unique(bags.labels[chosen])) < 2:
            continue
        for model, other in _pairs(nested.predictions):
            mine, theirs = nested.predictions[model], nested.predictions[other]
            number = min(len(mine), len(theirs))
            for name in ("auc", "balanced_accuracy", "brier_score"):
                found = paired_difference(
                    FIGURES[name],
                    [one.of(chosen) for one in mine[:number]],
                    [one.of(chosen) for one in theirs[:number]],
                    weights[:, chosen],
                )
                facts = {"model": model, "against": other, "repeats": number, "group": group, "figure": name}
                rows.append({**facts, **_cells(found)})
    return pd.DataFrame(rows)


def blind_table(nested: Nested, bags: Bags, seed: int) -> pd.DataFrame:
    """What pictures that are not the patients' own leave of each model that sees pictures.

    Columns: model, pictures (swapped, blank), repeats, group, figure, value, low, high, and what the own pictures are
    worth: lost, lost_low, lost_high, the figure by the own pictures minus this one, paired.
    """
    weights = resamples(bags.labels, seed)
    rows = []
    for group, chosen in list(subgroups(bags).items())[:2]:
        if len(np.unique(bags.labels[chosen])) < 2:
            continue
        for model, found_by in nested.blind.items():
            own = [one.of(chosen) for one in nested.predictions[model]]
            for pictures, repeats in found_by.items():
                these = [one.of(chosen) for one in repeats]
                for name in ("auc", "balanced_accuracy"):
                    found = estimate(FIGURES[name], these, weights[:, chosen])
                    lost = paired_difference(FIGURES[name], own, these, weights[:, chosen])
                    facts = {
                        "model": model,
                        "pictures": pictures,
                        "repeats": len(these),
                        "group": group,
                        "figure": name,
                    }
                    worth = {"lost": lost.value, "lost_low": lost.low, "lost_high": lost.high}
                    rows.append({**facts, **_cells(found), **worth})
    return pd.DataFrame(rows)


def operating_point_table(nested: Nested, bags: Bags, seed: int) -> pd.DataFrame:
    """Shares of patients by decision.

    Columns: model, operating_point, label (all, malignant, reactive), decision, value, low, high.
    """
    weights = resamples(bags.labels, seed)
    groups = {
        "all": np.ones(len(bags), dtype=bool),
        "malignant": bags.labels == 1,
        "reactive": bags.labels == 0,
    }
    rows = []
    for model, points in nested.decisions.items():
        for point, decided in points.items():
            for group, chosen in groups.items():
                for decision in DECISIONS:
                    found = _share(decided == decision, chosen, weights)
                    facts = {"model": model, "operating_point": point, "label": group, "decision": decision}
                    rows.append({**facts, **_cells(found)})
    return pd.DataFrame(rows)


def _share(part: Booleans, whole: Booleans, weights: Floats) -> Estimate:
    everybody = Predictions(whole.astype(np.int64), part.astype(np.float64), part)
    return estimate(FIGURES["sensitivity"], [everybody], weights)


def _pairs(models: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Every model against sex, count and age alone, and the shipped ensemble against itself without each member."""
    for other in CLINICAL_ONLY:
        yield from ((model, other) for model in models if other in models and model not in CLINICAL_ONLY)
    yield from ((SHIPPED, other) for other in models if SHIPPED in models and other.startswith(without("")))


def _cells(found: Estimate) -> dict[str, float]:
    return {"value": found.value, "low": found.low, "high": found.high}


def patient_table(nested: Nested, bags: Bags) -> pd.DataFrame:
    """Columns: patient_id, label, then each model's probability in the first repeat and whether it called malignant."""
    columns: dict[str, npt.NDArray[np.generic] | list[str]] = {"patient_id": bags.patient_ids, "label": bags.labels}
    for model, repeats in nested.predictions.items():
        columns[model] = repeats[0].probability
        columns[f"{model}, called malignant"] = repeats[0].called.astype(np.int64)
    return pd.DataFrame(columns)
