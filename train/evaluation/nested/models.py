"""The members, and the simple baselines that each must beat, all with the same interface (plan.py)."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from sklearn.naive_bayes import GaussianNB

from infer.errors import UsageError
from infer.members.features import cell_classes
from infer.members.scan import CLUSTERS
from train.core.arrays import Floats, Indices
from train.data.bags import Bags
from train.data.whose_pictures import NOBODY
from train.ensemble.fit import PULLS
from train.evaluation.nested import leads
from train.evaluation.nested.inductive import inductive_looks, simclr_member
from train.evaluation.nested.stacking import SHIPPED, Stack, without
from train.members import registry
from train.members.candidate import Candidate, Model
from train.members.embedding import weights_digest
from train.members.features import Features, embed_pictures
from train.members.imagenet import MAGNIFICATION
from train.members.linear import plain_logistic
from train.members.mixture import TURNED, one_mixture
from train.members.naive_bayes import OWN_NETWORK, ClassSource, on_classes, read_cell_classes
from train.members.recipes import Recipe
from train.members.scan.backbone import Backbone
from train.members.scan.network import embed_all
from train.members.scan.stages import load_backbone, load_fusion, load_scan, look
from train.members.training import NestedJob

OWN_MIXTURE = "moe, own network"
SIMCLR = "SimCLR mean and dispersion"
GATED_SIMCLR = {"gate: imagenet or SimCLR": ("imagenet", SIMCLR)}
GATES = {  # gates over two models' out-of-fold probabilities and the clinical values
    "gate: moe or clinical": ("moe", "clinical logistic"),
    "gate: ImageNet or clinical": ("ImageNet mean", "clinical logistic"),
    "gate: imagenet or moe": ("imagenet", "moe"),
    **GATED_SIMCLR,
}
IN_TURN = "inductive: SCAN with its own network, and SimCLR, trained on each training fold's pictures"
TRANSDUCTIVE = (
    "SCAN with its own network, and SimCLR, are transductive: they saw all pictures once, those of held-out patients "
    "included, never a label. The member's cell classes are inductive"
)
OUTSIDE = (
    "the numbers of the recipe: set beforehand, but those that train/members/recipes.py names were changed after "
    "figures of the patients that the program was developed on had been seen; which leads, ensembles and gates are "
    "tried; that there is an ImageNet member, its magnification, components and penalty, the bend in its count and "
    "what it is gated with; that naive Bayes' count has a floor; that cell classes and mixture stand on the same "
    "frozen network, and their numbers"
)
INSIDE = (
    "calibration, weights, thresholds, operating points, quantiles and scaling; the pull of ensembles and of "
    "gates; components and strength of leads; the ImageNet member's gate, or that it has none; which ensemble is the "
    "one 'chosen inside'"
)


def ensembles() -> dict[str, Stack]:
    """The shipped ensemble, the same without each member, and with each of the strengths it chooses from."""
    names = registry.names()
    return {
        SHIPPED: Stack(names),
        **{without(name): Stack(tuple(one for one in names if one != name)) for name in names},
        **{f"{SHIPPED}, pull {pull}": Stack(names, (pull,)) for pull in PULLS},
    }


def with_simclr() -> dict[str, Stack]:
    """The shipped ensemble plus the SimCLR lead."""
    return {"ensemble + SimCLR": Stack((*registry.names(), SIMCLR))}


def inductive_ensembles() -> dict[str, Stack]:
    """The ensembles of an inductive evaluation."""
    return ensembles() | with_simclr()


def ensembles_with_leads() -> dict[str, Stack]:
    """The ensembles of an evaluation with leads."""
    return {
        **ensembles(),
        "the report's three, own networks": Stack(("baseline", OWN_NETWORK, OWN_MIXTURE)),
        **with_simclr(),
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
    """Models without pictures first, then the members.

    With `inductive` also naive Bayes and logistic regression on a SCAN and its pretext trained on the same folds. With
    `only`, these members alone.
    """
    job = NestedJob(bags, run, recipe, seed, device)
    return [
        count_cut_off(bags),
        clinical_logistic(bags),
        clinical_bayes(bags),
        *(member.candidate(job) for member in registry.MEMBERS if not only or member.name in only),
        *(_inductive(bags, run, recipe, seed, device) if inductive else []),
    ]


def _inductive(bags: Bags, run: Path, recipe: Recipe, seed: int, device: torch.device) -> list[Candidate]:
    looks = inductive_looks(bags, run / "nested" / "scan", recipe.scan, seed, device)
    facts = {"classes": "inductive", "scan": asdict(recipe.scan), "seed": seed}
    source = ClassSource(lambda training: looks(training).classes, facts, cheap=False)
    return [on_classes(bags, source, recipe.bayes), simclr_member(bags, SIMCLR, looks, facts)]


def all_leads(bags: Bags, run: Path, recipe: Recipe, seed: int, device: torch.device) -> list[Candidate]:
    """All leads. Those on SimCLR and SCAN use the run's own networks, which have seen all pictures.

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
        on_classes(bags, _classes_of_everybody(bags, run, device), recipe.bayes),
        replace(one_mixture(bags, recipe.moe, seed, device), title=OWN_MIXTURE),
        replace(one_mixture(bags, recipe.moe, seed, device), title=f"{OWN_MIXTURE}, turned", column=TURNED),
    ]


def _simclr(backbone: Backbone, bags: Bags, device: torch.device) -> Features:
    pictures, blank = (embed_all(backbone, of, device).numpy() for of in (bags.crops, bags.pictures(NOBODY)))
    return Features(pictures, blank[0])


def _classes_of_everybody(bags: Bags, run: Path, device: torch.device) -> ClassSource:
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
    facts = {"classes": _digest(path), "of_blank": of_blank.tolist()}
    return ClassSource(lambda training: classes, facts, cheap=True)


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
        model = plain_logistic().fit(features[training], labels[training])
        return np.asarray(model.predict_proba(features[asked])[:, 1], dtype=np.float64)

    return predict
