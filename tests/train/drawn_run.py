"""A finished run folder, drawn: predictions and histories without any training."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from train.core.arrays import Labels
from train.data.bags import CROP_SIZE, load_crops
from train.ensemble.fit import train_ensemble
from train.members import registry
from train.members.training import OUT_OF_FOLD

OPTIONS = ["PATIENTS", "RUN", "--recipe", "small", "--sex-codes", "H=male,M=female"]
SKILL = {"baseline": 0.6, "scan": 0.8, "moe": 0.9, "imagenet": 1.2}


def draw_run(run: Path, patients: int = 60, clinical_skill: float = 0.3, seed: int = 0) -> Path:
    """Members of known skill, a count that tells little or much, five pictures a patient in three classes."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(patients) % 3 > 0).astype(np.int64)
    folds = np.arange(patients) // 3 % 5
    ids = [f"P{index}" for index in range(patients)]
    _crops(run, ids, labels, clinical_skill, rng)
    for member in registry.MEMBERS:
        folder = run / member.folder
        folder.mkdir()
        logit = SKILL[member.name] * (2 * labels - 1) + rng.normal(0, 1.5, patients)
        facts = {"patient_id": ids, "fold": folds, "label": labels, "probability": 1 / (1 + np.exp(-logit))}
        only = 1 / (1 + np.exp(-logit / 2 - rng.normal(0, 1, patients)))
        pd.DataFrame({**facts, "pictures_only": only, "gate": rng.random(patients)}).to_csv(
            folder / OUT_OF_FOLD, index=False
        )
        for path in member.files(run):
            path.write_text(member.name)
    classes = pd.DataFrame(
        {"patient_id": np.repeat(ids, 5), "image": "x.jpg", "cell_class": np.arange(5 * patients) % 5 % 3}
    )
    classes.to_csv(run / "cells/classes.csv", index=False)
    for fold in range(5):
        history(7, watched=True).to_csv(run / f"baseline/fold-{fold}.history.csv", index=False)
    history(7, watched=False).to_csv(run / "baseline/full.history.csv", index=False)
    (run / "options.json").write_text(json.dumps({"seed": seed, "recipe": {"name": "small"}}))
    lines = [{"command": ["all", *OPTIONS]}, {"command": ["evaluate", *OPTIONS, "--protocol", "report"]}]
    text = "\n".join(json.dumps(line | {"code_sha256": "0" * 64}) for line in lines)
    (run / "calls.jsonl").write_text(text + "\n")
    train_ensemble(load_crops(run), folds, run)
    return run


def history(epochs: int, *, watched: bool) -> pd.DataFrame:
    """A training's history, with or without the curves of training and validation."""
    falling = np.linspace(0.7, 0.3, epochs)
    columns = {"epoch": np.arange(epochs), "loss": falling, "learning_rate": 0.001}
    if watched:
        for part, gap in (("training", 0.0), ("validation", 0.1)):
            columns |= {f"{part}_loss": falling + gap, f"{part}_balanced_accuracy": 1 - falling - gap}
    return pd.DataFrame({**columns, "seconds": 1.0})


def _crops(run: Path, ids: list[str], labels: Labels, clinical_skill: float, rng: np.random.Generator) -> None:
    folder = run / "crops"
    folder.mkdir(parents=True)
    table = {
        "patient_id": ids,
        "label": labels,
        "sex": rng.integers(0, 2, len(ids)),
        "lymph_count": np.exp(rng.normal(2 + clinical_skill * labels, 0.5)),
        "age_years": rng.uniform(30, 90, len(ids)),
        "images": 5,
    }
    pd.DataFrame(table).to_csv(folder / "patients.csv", index=False)
    images = pd.DataFrame({"patient_id": np.repeat(ids, 5), "image": "x.jpg", "jpeg_quality": 95.0})
    images.to_csv(folder / "images.csv", index=False)
    (folder / "rejected.csv").write_text("patient_id,image,reason\nP0,y.jpg,it is empty\n")
    shape = (len(images), CROP_SIZE, CROP_SIZE, 3)
    np.save(folder / "crops.npy", np.broadcast_to(rng.integers(0, 256, (len(images), 1, 1, 3), dtype=np.uint8), shape))
    facts = {"table_sha256": "0" * 64, "reference_date": "SAMPLE_DATE", "sex_codes": "H=male,M=female"}
    (folder / "cohort.json").write_text(json.dumps(facts))
