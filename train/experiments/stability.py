"""What stabilises the mixture of experts: training and scoring variants, on the report's split, with several seeds.

In the report, validation metrics fluctuate from epoch to epoch. Training variants (own losses for the experts, a gate
regularised towards one half) need their own trainings. Averaged or last weights, late or joint fit of the gate,
test-time rotation and averaging over seeds are compared on the same trainings. No epoch is selected.
"""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import balanced_accuracy_score, log_loss, roc_auc_score

from train.core.arrays import Floats, Indices
from train.core.checkpoint import save_network
from train.core.curves import Curves
from train.core.files import write_table
from train.core.fitting import Job
from train.data.augment import turned_bags
from train.data.bags import Bags
from train.evaluation.report_protocol import Division, divisions
from train.members.mixture import fit_clinical_side, judge, load_moe, mean_maps, new_network, score, train_network
from train.members.mixture_network import MixtureOfExperts
from train.members.recipes import MoeRecipe

LOG = logging.getLogger("lympho")

WAYS = ["losses", "weights", "gate", "turned"]  # columns that identify a training and scoring variant
LOSSES = {  # weight of each expert's own loss, and of the gate's distance from one half
    "mixture alone": (0.0, 0.0),
    "each expert too": (1.0, 0.0),
    "each expert too, gate held": (1.0, 1.0),
}
LATE_STEPS, LATE_PULL = 500, 1.0


def compare(bags: Bags, run: Path, recipe: MoeRecipe, seeds: range, device: torch.device) -> pd.DataFrame:
    """Train what is missing in RUN/stability; write predictions.csv, and stability.csv with one row per variant.

    Columns: auc, balanced_accuracy and log_loss as means over seeds, with their standard deviations as ..._spread; the
    same metrics of the mean probability over seeds as seeds_averaged_...; swing, the standard deviation of validation
    balanced accuracy over the second half of the epochs, averaged over seeds.
    """
    folder = run / "stability"
    folder.mkdir(exist_ok=True)
    split = divisions(bags)[0]
    parts, swings = [], {}
    for losses, (expert_loss, gate_pull) in LOSSES.items():
        varied = replace(recipe, expert_loss=expert_loss, gate_pull=gate_pull)
        for seed in seeds:
            path = folder / f"{losses.replace(',', '').replace(' ', '-')}-seed-{seed}.safetensors"
            _train(bags, split, path, varied, seed, device)
            swings[losses, seed] = _swing(path)
            parts.append(_predictions(bags, split, path, varied, device).assign(losses=losses, seed=seed))
    predictions = pd.concat(parts, ignore_index=True)
    write_table(folder / "predictions.csv", predictions)
    table = summarise(predictions)
    of_losses = pd.Series(swings).groupby(level=0).mean()
    table["swing"] = table["losses"].map(of_losses).where(table["weights"] == "last")
    write_table(folder / "stability.csv", table)
    return table


def summarise(predictions: pd.DataFrame) -> pd.DataFrame:
    """Metrics of each variant: one row per combination of WAYS.

    Args:
        predictions: columns WAYS, seed, patient_id, label, probability.
    """
    rows = []
    for way, group in predictions.groupby(WAYS, sort=False):
        by_seed = pd.DataFrame([_figures(part) for _, part in group.groupby("seed")])
        together = group.groupby("patient_id")[["label", "probability"]].mean()
        rows.append(
            dict(zip(WAYS, way, strict=True))
            | by_seed.mean().to_dict()
            | by_seed.std(ddof=0).add_suffix("_spread").to_dict()
            | {f"seeds_averaged_{name}": value for name, value in _figures(together).items()}
        )
    return pd.DataFrame(rows)


def _train(bags: Bags, split: Division, path: Path, recipe: MoeRecipe, seed: int, device: torch.device) -> None:
    """Write the network with averaged weights to the path, and the one with the last weights beside it."""
    if path.exists():
        return
    curves: Curves[MixtureOfExperts] = Curves(
        bags.labels, split.validation, lambda network, of: score(network, bags, of, device)["probability"]
    )
    job = Job(f"stability {path.stem}", path, seed)
    last = new_network(bags, split.training, recipe, job, device)
    averaged = train_network(bags, split.training, recipe, job, device, curves, last)
    save_network(_last(path), last.cpu(), last.dimensions)
    save_network(path, averaged.cpu(), averaged.dimensions)


def _predictions(bags: Bags, split: Division, path: Path, recipe: MoeRecipe, device: torch.device) -> pd.DataFrame:
    """Probabilities of the validation patients for each variant; cached beside the network."""
    kept = path.with_suffix(".predictions.csv")
    if kept.exists():
        return pd.read_csv(kept, dtype={"patient_id": str}, keep_default_na=False)
    scored_bags = {"no": bags, "eight ways": turned_bags(bags, split.validation)}
    late = replace(recipe, late_steps=LATE_STEPS, gate_pull=LATE_PULL)
    parts = []
    for weights, file in {"last": _last(path), "averaged": path}.items():
        network = load_moe(file).to(device)
        means = {turned: mean_maps(network, of, split.validation, device) for turned, of in scored_bags.items()}
        for gate in ("joint", "late"):
            if gate == "late":  # does not change the encoder, so the mean maps remain valid
                fit_clinical_side(network, bags, split.training, late, device)
                network.eval()
            for turned, maps in means.items():
                probability = judge(network, maps, bags.clinical[split.validation])["probability"]
                rows = _rows(bags, split.validation, probability)
                parts.append(rows.assign(weights=weights, gate=gate, turned=turned))
    table = pd.concat(parts, ignore_index=True)
    write_table(kept, table)
    return table


def _rows(bags: Bags, patients: Indices, probability: Floats) -> pd.DataFrame:
    ids = [bags.patient_ids[patient] for patient in patients]
    return pd.DataFrame({"patient_id": ids, "label": bags.labels[patients], "probability": probability})


def _figures(table: pd.DataFrame) -> dict[str, float]:
    labels, probability = table["label"].to_numpy(np.int64), table["probability"].to_numpy()
    return {
        "auc": float(roc_auc_score(labels, probability)),
        "balanced_accuracy": float(balanced_accuracy_score(labels, probability >= 0.5)),
        "log_loss": float(log_loss(labels, np.clip(probability, 1e-7, 1 - 1e-7))),
    }


def _swing(path: Path) -> float:
    history = pd.read_csv(path.with_suffix(".history.csv"))
    return float(history["validation_balanced_accuracy"].iloc[len(history) // 2 :].std(ddof=0))


def _last(path: Path) -> Path:
    return path.with_name(f"{path.stem}-last.safetensors")
