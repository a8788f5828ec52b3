"""The members and the baselines that any of them must beat, each behind the same door (plan.py)."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from infer.bundle.manifest import CLUSTERS, MEMBERS
from infer.errors import UsageError
from infer.members.naive_bayes import malignant_probability
from train.core.checkpoint import save_network
from train.core.fitting import Job
from train.data.augment import turned_bags
from train.data.crops import Bags
from train.ensemble.fit import EQUALITY
from train.evaluation.nested import leads
from train.evaluation.nested.inductive import Looker, inductive_looks, simclr_member
from train.evaluation.nested.plan import PROBABILITY, Floats, Indices, Mean, Member, Model
from train.evaluation.nested.stacking import Stack
from train.members import baseline
from train.members import mixture as moe
from train.members.embedding import embed_pictures, weights_digest
from train.members.imagenet import fit_and_predict, numbers
from train.members.naive_bayes import fit_naive_bayes, patient_features, read_cell_classes
from train.members.recipes import BaselineRecipe, BayesRecipe, MoeRecipe, Recipe
from train.members.scan.network import embed_all
from train.members.scan.stages import load_backbone, load_scan, look

Classes = npt.NDArray[np.int64]

TURNED = "turned"
SHIPPED = "ensemble"  # stacked as a bundle's is: the pull fixed
ENSEMBLES = {SHIPPED: Stack(MEMBERS, (EQUALITY,)), "ensemble, free pull": Stack(MEMBERS)}
ONE_SEED = "moe, one seed"
SIMCLR = "SimCLR mean and dispersion"
WITH_SIMCLR = {"ensemble + SimCLR": Stack((*MEMBERS, SIMCLR), (EQUALITY,))}
INDUCTIVE = ENSEMBLES | WITH_SIMCLR
WITH_LEADS = ENSEMBLES | {
    "the report's three": Stack(("baseline", "scan", "moe")),
    f"the report's three, pull {EQUALITY}": Stack(("baseline", "scan", "moe"), (EQUALITY,)),
    "ensemble, one seed": Stack(("baseline", "scan", ONE_SEED, "imagenet"), (EQUALITY,)),
    **WITH_SIMCLR,
    "ensemble + SimCLR, free pull": Stack((*MEMBERS, SIMCLR)),
    "moe + imagenet": Stack(("moe", "imagenet")),
}
GATED_SIMCLR = {"gate: imagenet or SimCLR": ("imagenet", SIMCLR)}
GATES = {  # of experts' out-of-fold probabilities and clinical values
    "gate: moe or clinical": ("moe", "clinical logistic"),
    "gate: ImageNet or clinical": ("ImageNet mean", "clinical logistic"),
    "gate: imagenet or moe": ("imagenet", "moe"),
    **GATED_SIMCLR,
}
IN_TURN = "inductive: SCAN and SimCLR trained on each training fold's pictures"
TRANSDUCTIVE = "transductive: SCAN saw all pictures once, those of held-out patients included, never a label"
OUTSIDE = (
    "the numbers of the recipe: set beforehand, but those that train/members/recipes.py names were changed after figures of "
    "the public cohort had been seen; which leads, ensembles and gates are tried; that there is an "
    "ImageNet member, the bend in its count and what it is gated with; that naive Bayes' count has a floor; the pull "
    "of what ships"
)
INSIDE = (
    "calibration, weights, thresholds, operating points, quantiles and scaling; the pull of other ensembles and of "
    "gates; components and strength of leads and of the ImageNet member, and its gate; which ensemble is the one "
    "'chosen inside'"
)


def all_members(
    bags: Bags, run: Path, recipe: Recipe, seed: int, device: torch.device, *, inductive: bool
) -> list[Model]:
    """Baselines first, then the four members; with `inductive` also what SimCLR's features of the same folds give.

    Raises:
        UsageError: cell classes are to come from SCAN, and it has not been trained in this run folder.
    """
    path = run / "scan" / "classes.csv"
    looks: Looker | None = None
    if inductive:
        looks = inductive_looks(bags, run / "nested" / "scan", recipe.scan, seed, device)
        classes = _classes_of(looks)
        facts: dict[str, Any] = {"classes": "inductive", "scan": asdict(recipe.scan), "seed": seed}
    elif path.exists():
        everybody = read_cell_classes(path, bags)

        def classes(training: Indices) -> Classes:
            del training
            return everybody

        facts = {"classes": classes_digest(run)}
    else:
        raise UsageError(f"{run}: has no cell classes. Run `python -m train scan` first, or evaluate --inductive")
    mixtures = [moe_member(bags, recipe.moe, one, device) for one in range(seed, seed + recipe.moe_seeds)]
    return [
        count_cut_off(bags),
        clinical_logistic(bags),
        clinical_bayes(bags),
        baseline_member(bags, recipe.baseline, seed, device),
        scan_member(bags, classes, facts, recipe.bayes, repeated=not inductive),
        Mean("moe", tuple(mixtures)),
        imagenet_member(bags, run, device),
        *([simclr_member(bags, SIMCLR, looks, facts)] if looks else []),
    ]


def all_leads(bags: Bags, run: Path, recipe: Recipe, seed: int, device: torch.device) -> list[Member]:
    """Every lead that may go past the report's models; SimCLR's and SCAN's are of the run's own networks.

    Raises:
        UsageError: SCAN has not been trained in this run folder.
    """
    final, pretext = run / "scan" / "scan.safetensors", run / "scan" / "pretext.safetensors"
    if not final.exists():
        raise UsageError(f"{run}: has no SCAN network. Run `python -m train scan` first")
    imagenet = embed_pictures(bags, run, device)
    simclr = embed_all(load_backbone(pretext).to(device), bags.crops, device).numpy()
    finer = look(load_scan(final), bags, device)[1][0].argmax(1).numpy()
    of_imagenet = {"weights": weights_digest()}
    of_simclr, of_scan = ({"weights": _digest(path)} for path in (pretext, final))
    return [
        leads.clinical_interplay(bags),
        leads.clinical_bent(bags),
        leads.embedded(bags, "ImageNet mean", imagenet, of_imagenet),
        leads.embedded(bags, "ImageNet mean, bent count", imagenet, of_imagenet, bent=True),
        leads.embedded(bags, "ImageNet mean and dispersion", imagenet, of_imagenet, dispersion=True),
        leads.embedded(bags, "SimCLR mean", simclr, of_simclr),
        leads.embedded(bags, SIMCLR, simclr, of_simclr, dispersion=True),
        leads.class_shares(bags, "all SCAN classes", finer, CLUSTERS, of_scan),
        leads.homogeneity(bags, "ImageNet homogeneity", imagenet, of_imagenet),
        leads.homogeneity(bags, "SimCLR homogeneity", simclr, of_simclr),
        replace(moe_member(bags, recipe.moe, seed, device), title=ONE_SEED),
        replace(moe_member(bags, recipe.moe, seed, device), title=f"{ONE_SEED}, turned", column=TURNED),
    ]


def _classes_of(looks: Looker) -> Callable[[Indices], Classes]:
    return lambda training: looks(training).classes


def classes_digest(run: Path) -> str:
    """SHA-256 of the run folder's cell classes; empty where SCAN has not been trained there."""
    path = run / "scan" / "classes.csv"
    return _digest(path) if path.exists() else ""


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def count_cut_off(bags: Bags) -> Member:
    """The lymphocyte count alone: its logarithm ranks, and the threshold chosen on it is the cut-off."""
    count = np.log(bags.clinical[:, 1:2].astype(np.float64))
    return Member("count cut-off", {}, _linear(count, bags.labels))


def clinical_logistic(bags: Bags) -> Member:
    """Logistic regression on sex, log count and age."""
    return Member("clinical logistic", {}, _linear(leads.clinical_features(bags), bags.labels))


def clinical_bayes(bags: Bags) -> Member:
    """GaussianNB on sex, count and age."""

    def predict(training: Indices, asked: Indices, checkpoint: Path) -> Floats:
        del checkpoint
        model = GaussianNB().fit(bags.clinical[training], bags.labels[training])
        return np.asarray(model.predict_proba(bags.clinical[asked])[:, 1], dtype=np.float64)

    return Member("clinical GaussianNB", {}, predict)


def baseline_member(bags: Bags, recipe: BaselineRecipe, seed: int, device: torch.device) -> Member:
    """The report's CNN on single pictures."""

    def predict(training: Indices, asked: Indices, checkpoint: Path) -> Floats:
        job = Job(f"nested {checkpoint.stem}", checkpoint, seed)
        if not checkpoint.exists():
            network = baseline.train_network(bags, training, recipe, job, device)
            save_network(checkpoint, network, network.dimensions)
        return baseline.predict(checkpoint, bags, asked, device)["probability"]

    return Member("baseline", {"recipe": asdict(recipe), "seed": seed}, predict, repeated=False)


def moe_member(bags: Bags, recipe: MoeRecipe, seed: int, device: torch.device) -> Member:
    """One mixture of experts, its clinical side fitted late where the recipe says so.

    Its column TURNED is of the same network, every picture seen in all eight orientations.
    """

    def predict(training: Indices, asked: Indices, checkpoint: Path) -> dict[str, Floats]:
        job = Job(f"nested {checkpoint.stem}", checkpoint, seed)
        if not checkpoint.exists():
            network = moe.train_network(bags, training, recipe, job, device)
            if recipe.late_steps:
                moe.fit_clinical_side(network, bags, training, recipe, device)
            save_network(checkpoint, network.cpu(), network.dimensions)
        ways = {PROBABILITY: bags, TURNED: turned_bags(bags, asked)}
        return {name: moe.predict(checkpoint, of, asked, device)["probability"] for name, of in ways.items()}

    facts = {"recipe": asdict(recipe), "seed": seed, "columns": [PROBABILITY, TURNED]}
    return Member("moe", facts, predict, repeated=False)


def imagenet_member(bags: Bags, run: Path, device: torch.device) -> Member:
    """Logistic regression on frozen ImageNet features and the count with a bend, gated with clinical naive Bayes."""
    means = bags.means(embed_pictures(bags, run, device))

    def predict(training: Indices, asked: Indices, checkpoint: Path) -> Floats:
        del checkpoint
        return fit_and_predict(bags, means, training, asked)

    return Member("imagenet", numbers(), predict)


def scan_member(
    bags: Bags, classes: Callable[[Indices], Classes], facts: dict[str, Any], recipe: BayesRecipe, *, repeated: bool
) -> Member:
    """Gaussian naive Bayes on cell classes; quantiles and scaling of the training patients.

    Args:
        classes: (N,) class of each picture, for a model that is trained on the patients given.
        facts: where the classes come from.
        repeated: whether classes are cheap to have for other folds.
    """

    def predict(training: Indices, asked: Indices, checkpoint: Path) -> Floats:
        del checkpoint
        base = patient_features(bags, classes(training))
        model = fit_naive_bayes(base[training], bags.labels[training], recipe)
        return np.asarray(malignant_probability(base[asked], model))

    facts = {"recipe": asdict(recipe), "naive_bayes": "count floored", **facts}
    return Member("scan", facts, predict, repeated)


def _linear(features: Floats, labels: Indices) -> Callable[[Indices, Indices, Path], Floats]:
    """Logistic regression on standardised features (P, F)."""

    def predict(training: Indices, asked: Indices, checkpoint: Path) -> Floats:
        del checkpoint
        model = make_pipeline(StandardScaler(), LogisticRegression()).fit(features[training], labels[training])
        return np.asarray(model.predict_proba(features[asked])[:, 1], dtype=np.float64)

    return predict
