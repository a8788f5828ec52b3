"""The nested protocol from start to finish: members, folds, predictions, tables, and the facts printed above them."""

from dataclasses import dataclass
from pathlib import Path

import torch

from infer.errors import UsageError
from train.core.provenance import code_note
from train.data.bags import Bags
from train.data.centres import centre_groups, stratified_by
from train.evaluation.nested.centre_drift import centre_report
from train.evaluation.nested.deep_leads import DEEP_GATES, deep_ensembles, deep_leads
from train.evaluation.nested.models import (
    GATED_SIMCLR,
    GATES,
    IN_TURN,
    INSIDE,
    OUTSIDE,
    TRANSDUCTIVE,
    all_leads,
    all_members,
    ensembles,
    ensembles_with_leads,
    inductive_ensembles,
)
from train.evaluation.nested.plan import INNER, OUTER, Predictor, centre_folds, outer_folds
from train.evaluation.nested.protocol import gather, train_part
from train.evaluation.nested.report import write_report
from train.members import registry
from train.members.recipes import Recipe

FOLDER, INDUCTIVE_FOLDER, CENTRES_FOLDER = "nested", "nested_inductive", "nested_centres"


@dataclass(frozen=True)
class NestedOptions:
    """Options of a call of the protocol.

    Raises:
        UsageError: options that exclude each other are combined, or deep leads are requested without leads.
    """

    repeats: int  # for models that train quickly; slow ones are evaluated only in the first repeat
    part: tuple[int, int] | None = None  # (i, n): train only share i of n, counted from 1, and stop
    inductive: bool = False  # train SCAN and SimCLR on each fold's training pictures, not once on all pictures
    leads: bool = False  # also evaluate the leads tried for improving on the report's models
    deep: bool = False  # with leads, also fine-tuned networks
    by_centre: bool = False  # hold each centre out in turn, in place of random outer folds
    members: tuple[str, ...] = ()  # only these, beside sex, age and count alone; empty: all, and their ensembles

    @property
    def folder(self) -> str:
        """Where in the run folder the report is written. One of some members never replaces the one of all."""
        if self.members or self.by_centre:
            return "_".join([CENTRES_FOLDER if self.by_centre else FOLDER, *self.members])
        return INDUCTIVE_FOLDER if self.inductive else FOLDER

    def __post_init__(self) -> None:
        if self.inductive and self.leads:
            raise UsageError("--leads uses SCAN as trained on all pictures and cannot be combined with --inductive")
        if self.members and (self.leads or self.inductive):
            raise UsageError("--member evaluates members alone and cannot be combined with --leads or --inductive")
        if self.by_centre and (self.leads or self.inductive):
            raise UsageError("--leave-one-centre-out cannot be combined with --leads or --inductive")
        if self.deep and not self.leads:
            raise UsageError("--deep-leads requires --leads: give both")


def evaluate_nested(
    bags: Bags, run: Path, recipe: Recipe, seed: int, device: torch.device, options: NestedOptions
) -> str:
    """Train what is missing in RUN/nested and return the report as Markdown; empty if only a share was trained.

    The report is also written to RUN/nested, to RUN/nested_inductive or RUN/nested_centres, or for some members to
    RUN/nested_MEMBER or RUN/nested_centres_MEMBER.

    Raises:
        UsageError: SCAN has not been trained in this run folder, or the centres do not allow to hold each out.
    """
    folds = centre_folds if options.by_centre else outer_folds
    outers = folds(bags.labels, seed, options.repeats, bags.centres)
    members = all_members(bags, run, recipe, seed, device, inductive=options.inductive, only=options.members)
    members += all_leads(bags, run, recipe, seed, device) if options.leads else []
    members += deep_leads(bags, seed, device) if options.deep else []
    predictor = Predictor(bags, run / FOLDER)
    if options.part:
        train_part(predictor, members, outers, *options.part)
        return ""
    stacks, gates = (ensembles_with_leads(), GATES) if options.leads else (ensembles(), {})
    if options.members:
        stacks = {}
    if options.inductive:
        stacks, gates = inductive_ensembles(), GATED_SIMCLR
    if options.deep:
        stacks, gates = stacks | deep_ensembles(), gates | DEEP_GATES
    facts = {
        "protocol": f"{_outer_in_words(bags, options)}, {INNER} inner ones, repeats: {options.repeats}",
        "recipe": f"{recipe.name}, seed {seed}, {len(bags)} patients, {len(bags.crops)} pictures",
        "cell classes": IN_TURN if options.inductive else TRANSDUCTIVE,
        "chosen inside": INSIDE,
        "chosen outside": OUTSIDE,
        "models": f"{len(members)} single ones, {len(stacks)} ensembles, {len(gates)} gates",
        "code": code_note(run),
        **registry.digests(recipe, seed),
    }
    nested = gather(bags, predictor, members, outers, stacks, gates)
    folder = run / options.folder
    folder.mkdir(exist_ok=True)
    return write_report(nested, bags, folder, facts, seed, further=centre_report(bags, folder, seed))


def _outer_in_words(bags: Bags, options: NestedOptions) -> str:
    if bags.centres is None:
        return f"{OUTER} outer folds stratified by patient"
    if options.by_centre:
        return f"each of {len(centre_groups(bags.centres))} centres held out in turn, in place of outer folds"
    return f"{OUTER} outer folds {stratified_by(bags.labels, bags.centres, OUTER)}"
