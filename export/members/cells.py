"""Export of the cell classes as a graph, and of their naive Bayes as numbers in the manifest."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from export.graphs import GraphPlan
from export.members.backbone import UNBOUNDED, backbone_plan, fitted_with
from export.members.member import Inputs, MemberCard, MemberExport
from infer.members.backbone import BACKBONE
from infer.members.naive_bayes import NaiveBayes
from infer.members.scan import CLUSTERS, GRAPH, share_of
from train.core.arrays import Classes, Floats
from train.data.bags import Bags
from train.members.cells.centroids import with_outputs
from train.members.cells.clustering import CellClasses
from train.members.cells.member import FOLDER, load
from train.members.cells.network import CellNetwork
from train.members.naive_bayes import CLASSES


def padded(cells: CellClasses) -> CellClasses:
    """With as many outputs and classes as a bundle has: those that are added are never chosen.

    Few pictures have fewer clusters (train/members/scaling.py). Naive Bayes knows all CLASSES, some of them empty.
    """
    of = cells.network.dimensions
    missing = CLUSTERS - of.clusters
    if not missing:
        return cells
    network = CellNetwork(replace(of, clusters=CLUSTERS))
    network.projection = cells.network.projection
    network.head = with_outputs(cells.network.head, CLUSTERS)
    added = np.minimum(cells.fusion.max() + 1 + np.arange(missing), CLASSES - 1)
    return CellClasses(network.eval(), np.concatenate([cells.fusion, added]))


class CellsExport(MemberExport):
    """Unsupervised cell classes and Gaussian naive Bayes."""

    name = "scan"
    unbounded = UNBOUNDED | {"embedding"}

    def __init__(self, cells: CellClasses, bayes: NaiveBayes, numbers: Mapping[str, Any]) -> None:
        self.cells, self.bayes, self.fitted_with = padded(cells), bayes, numbers
        self.classes = int(self.cells.fusion.max()) + 1

    @classmethod
    def load(cls, run: Path) -> Self:
        return cls(*load(run), fitted_with(run / FOLDER))

    @property
    def plans(self) -> list[GraphPlan]:
        features = torch.zeros(2, self.cells.network.dimensions.features)
        return [
            backbone_plan(),
            GraphPlan(GRAPH, self.cells.network, {"features": features}, ("probabilities", "embedding")),
        ]

    def inputs(self, images: Tensor, clinical: Tensor, features: Tensor) -> dict[str, Inputs]:
        return {BACKBONE: {"images": images}, GRAPH: {"features": features}}

    def section(self) -> dict[str, Any]:
        return {"class_fusion": self.cells.fusion.tolist(), "naive_bayes": msgspec.to_builtins(self.bayes)}

    def card(self, run: Path) -> MemberCard:
        found: dict[str, float] = json.loads((run / FOLDER / "neighbours.json").read_text())
        return MemberCard(
            self.name,
            "Gaussian naive Bayes on proportions of unsupervised cell classes (SCAN's clustering on the backbone)",
            "a model without sex, count and age",
            factors=(
                f"Do cell classes follow the cell or the slide? {found['own_patient_share']:.1%} of a cell's nearest "
                "neighbours among the backbone's features come from its own patient; by chance "
                f"{found['own_patient_share_by_chance']:.1%} would. The larger the first share relative to the "
                "second, the more the classes may follow a patient's stain instead of the cell's shape.",
            ),
            evaluation=("Cell classes are inductive: learnt without the pictures of the patients they are judged on.",),
        )

    def measures(self, run: Path, bags: Bags) -> dict[str, Floats]:
        """Each patient's share of each class, (P,)."""
        classes = self.picture_classes(run)
        shares = np.stack([np.bincount(classes[a:b], minlength=self.classes) / (b - a) for a, b in bags.ranges()])
        return {share_of(number): shares[:, number] for number in range(self.classes)}

    def picture_classes(self, run: Path) -> Classes:
        table = pd.read_csv(run / FOLDER / "classes.csv", dtype={"patient_id": str}, keep_default_na=False)
        return np.asarray(table["cell_class"], np.int64)

    def numbers(self) -> dict[str, Any]:
        return {self.name: dict(self.fitted_with)}
