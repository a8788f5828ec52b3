"""The members, and the simple baselines that each must beat, all with the same interface (plan.py)."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from infer.errors import UsageError
from infer.members.features import cell_classes
from infer.members.scan import CLUSTERS
from train.core.arrays import Classes, Floats, Indices
from train.data.bags import Bags
from train.data.whose_pictures import NOBODY
from train.ensemble.fit import EQUALITY
from train.evaluation.nested import leads
from train.evaluation.nested.inductive import Looker, inductive_looks, simclr_member
from train.evaluation.nested.stacking import Stack
from train.members import registry
from train.members.candidate import Candidate, Model
from train.members.embedding import weights_digest
from train.members.features import Features, embed_pictures
from train.members.imagenet import MAGNIFICATION
from train.members.mixture import TURNED, one_mixture
from train.members.naive_bayes import read_cell_classes
from train.members.recipes import Recipe
from train.members.scan.backbone import Backbone
from train.members.scan.network import embed_all
from train.members.scan.stages import load_backbone, load_fusion, load_scan, look
from train.members.training import CellClasses, NestedJob

SHIPPED = "ensemble"  # built as in a bundle, with fixed regularisation
ONE_SEED = "moe, one seed"
SIMCLR = "SimCLR mean and dispersion"
GATED_SIMCLR = {"gate: imagenet or SimCLR": ("imagenet", SIMCLR)}
GATES = {  # gates over two models' out-of-fold probabilities and the clinical values
    "gate: moe or clinical": ("moe", "clinical logistic"),
    "gate: ImageNet or clinical": ("ImageNet mean", "clinical logistic"),
    "gate: imagenet or moe": ("imagenet", "moe"),
    **GATED_SIMCLR,
}
IN_TURN = "inductive: SCAN and SimCLR trained on each training fold's pictures"
TRANSDUCTIVE = "transductive: SCAN saw all pictures once, those of held-out patients included, never a label"
OUTSIDE = (
    "the numbers of the recipe: set beforehand, but those that train/members/recipes.py names were "
    "changed after figures of the public cohort had been seen; which leads, ensembles and gates are tried; that "
    "there is an ImageNet member, its magnification, components and penalty, the bend in its count and what it is "
    "gated with; that naive Bayes' count has a floor; the pull of what ships"
)
INSIDE = (
    "calibration, weights, thresholds, operating points, quantiles and scaling; the pull of other ensembles and of "
    "gates; components and strength of leads; the ImageNet member's gate, or that it has none; which ensemble is the "
    "one 'chosen inside'"
)


def ensembles() -> dict[str, Stack]:
    """The shipped ensemble, and the same with the regularisation strength chosen by the inner folds."""
    return {SHIPPED: Stack(registry.names(), (EQUALITY,)), "ensemble, free pull": Stack(registry.names())}


def with_simclr() -> dict[str, Stack]:
    """The shipped ensemble plus the SimCLR lead."""
    return {"ensemble + SimCLR": Stack((*registry.names(), SIMCLR), (EQUALITY,))}


def inductive_ensembles() -> dict[str, Stack]:
    """The ensembles of an inductive evaluation."""
    return ensembles() | with_simclr()


def ensembles_with_leads() -> dict[str, Stack]:
    """The ensembles of an evaluation with leads."""
    report = ("baseline", "scan", "moe")
    one_seed = tuple(ONE_SEED if name == "moe" else name for name in registry.names())
    return {
        **ensembles(),
        "the report's three": Stack(report),
        f"the report's three, pull {EQUALITY}": Stack(report, (EQUALITY,)),
        "ensemble, one seed": Stack(one_seed, (EQUALITY,)),
        **with_simclr(),
        "ensemble + SimCLR, free pull": Stack((*registry.names(), SIMCLR)),
        "moe + imagenet": Stack(("moe", "imagenet")),
    }


def all_members(
    bags: Bags,
    run: Path,
    recipe: Recipe,
    seed: int,
    device: torch.device,
    *,
    inductive: bool,
    only: Sequence[str] = (),
) -> list[Model]:
    """Models without pictures first, then the members; with `inductive` also one on SimCLR features of the same folds.

    With `only`, these members alone: those that need no cell classes can be evaluated before SCAN is trained.

    Raises:
        UsageError: not inductive, and SCAN has not been trained in this run folder.
    """
    chosen = [member for member in registry.MEMBERS if not only or member.name in only]
    looks: Looker | None = None
    classes: CellClasses | None = None
    if inductive:
        looks = inductive_looks(bags, run / "nested" / "scan", recipe.scan, seed, device)
        facts = {"classes": "inductive", "scan": asdict(recipe.scan), "seed": seed}
        classes = CellClasses(_classes_of(looks), facts, cheap=False)
    elif any(member.on_cell_classes for member in chosen):
        classes = _classes_of_everybody(bags, run, device)
    job = NestedJob(bags, run, recipe, seed, device, classes)
    return [
        count_cut_off(bags),
        clinical_logistic(bags),
        clinical_bayes(bags),
        *(member.candidate(job) for member in chosen),
        *([simclr_member(bags, SIMCLR, looks, classes.facts)] if looks and classes else []),
    ]


def all_leads(bags: Bags, run: Path, recipe: Recipe, seed: int, device: torch.device) -> list[Candidate]:
    """All leads. Those on SimCLR and SCAN use the run's own networks.

    Raises:
        UsageError: SCAN has not been trained in this run folder.
    """
    final, pretext = run / "scan" / "scan.safetensors", run / "scan" / "pretext.safetensors"
    if not final.exists():
        raise UsageError(f"{run}: has no SCAN network. Run `python -m train scan` first")
    imagenet = embed_pictures(bags, run, device, MAGNIFICATION)
    simclr = _simclr(load_backbone(pretext).to(device), bags, device)
    finer = look(load_scan(final), bags.crops, device)[1][0].argmax(1).numpy()
    of_imagenet = {"weights": weights_digest(), **asdict(MAGNIFICATION)}
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
        leads.homogeneity(bags, "ImageNet homogeneity", imagenet.pictures, of_imagenet),
        leads.homogeneity(bags, "SimCLR homogeneity", simclr.pictures, of_simclr),
        replace(one_mixture(bags, recipe.moe, seed, device), title=ONE_SEED),
        replace(one_mixture(bags, recipe.moe, seed, device), title=f"{ONE_SEED}, turned", column=TURNED),
    ]


def _simclr(backbone: Backbone, bags: Bags, device: torch.device) -> Features:
    pictures, blank = (embed_all(backbone, of, device).numpy() for of in (bags.crops, bags.pictures(NOBODY)))
    return Features(pictures, blank[0])


def _classes_of_everybody(bags: Bags, run: Path, device: torch.device) -> CellClasses:
    """The cell classes of the SCAN that was trained once on all pictures."""
    path = run / "scan" / "classes.csv"
    if not path.exists():
        raise UsageError(f"{run}: has no cell classes. Run `python -m train scan` first, or evaluate --inductive")
    network, fusion = run / "scan" / "scan.safetensors", run / "scan" / "fusion.json"
    if not (network.exists() and fusion.exists()):
        raise UsageError(f"{run}: has cell classes, but not the SCAN that gave them. Run `python -m train scan` again")
    blank = look(load_scan(network), bags.pictures(NOBODY), device)[1][0].numpy()
    of_blank = cell_classes(blank, np.array(load_fusion(run)))[0]
    classes = np.concatenate([read_cell_classes(path, bags), of_blank])
    facts = {"classes": classes_digest(run), "of_blank": of_blank.tolist()}
    return CellClasses(lambda training: classes, facts, cheap=True)


def _classes_of(looks: Looker) -> Callable[[Indices], Classes]:
    return lambda training: looks(training).classes


def classes_digest(run: Path) -> str:
    """SHA-256 of the run folder's cell classes; empty if SCAN has not been trained there."""
    path = run / "scan" / "classes.csv"
    return _digest(path) if path.exists() else ""


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def count_cut_off(bags: Bags) -> Candidate:
    """The lymphocyte count alone: its logarithm ranks the patients, and the chosen threshold is the cut-off."""
    count = np.log(bags.clinical[:, 1:2].astype(np.float64))
    return Candidate("count cut-off", {}, _linear(count, bags.labels), clinical_only=True)


def clinical_logistic(bags: Bags) -> Candidate:
    """Logistic regression on sex, log count and age."""
    return Candidate("clinical logistic", {}, _linear(leads.clinical_features(bags), bags.labels), clinical_only=True)


def clinical_bayes(bags: Bags) -> Candidate:
    """GaussianNB on sex, count and age."""

    def predict(training: Indices, asked: Indices, checkpoint: Path) -> Floats:
        del checkpoint
        model = GaussianNB().fit(bags.clinical[training], bags.labels[training])
        return np.asarray(model.predict_proba(bags.clinical[asked])[:, 1], dtype=np.float64)

    return Candidate("clinical GaussianNB", {}, predict, clinical_only=True)


def _linear(features: Floats, labels: Indices) -> Callable[[Indices, Indices, Path], Floats]:
    """Logistic regression on standardised features (P, F)."""

    def predict(training: Indices, asked: Indices, checkpoint: Path) -> Floats:
        del checkpoint
        model = make_pipeline(StandardScaler(), LogisticRegression()).fit(features[training], labels[training])
        return np.asarray(model.predict_proba(features[asked])[:, 1], dtype=np.float64)

    return predict
