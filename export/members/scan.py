"""Export of SCAN as a graph, and of its naive Bayes as numbers in the manifest."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import msgspec
from torch import Tensor

from export.graphs import GraphPlan
from export.members.member import Inputs, MemberCard, MemberExport, example_images
from infer.members.naive_bayes import NaiveBayes
from infer.members.scan import GRAPH
from train.evaluation.nested.models import classes_digest
from train.members.naive_bayes import load_naive_bayes
from train.members.scan.network import ScanNetwork
from train.members.scan.stages import load_fusion, load_scan


class ScanExport(MemberExport):
    """Unsupervised cell classes and Gaussian naive Bayes."""

    name = "scan"
    unbounded = frozenset({"embedding"})

    def __init__(self, network: ScanNetwork, fusion: list[int], bayes: NaiveBayes) -> None:
        self.network, self.fusion, self.bayes = network, fusion, bayes

    @classmethod
    def load(cls, run: Path) -> Self:
        return cls(load_scan(run / "scan/scan.safetensors"), load_fusion(run), load_naive_bayes(run))

    @property
    def plans(self) -> list[GraphPlan]:
        return [GraphPlan(GRAPH, self.network, {"images": example_images()}, ("probabilities", "embedding"))]

    def inputs(self, images: Tensor, clinical: Tensor) -> dict[str, Inputs]:
        return {GRAPH: {"images": images}}

    def section(self) -> dict[str, Any]:
        return {"class_fusion": self.fusion, "naive_bayes": msgspec.to_builtins(self.bayes)}

    def card(self, run: Path) -> MemberCard:
        found: dict[str, float] = json.loads((run / "scan" / "neighbours.json").read_text())
        return MemberCard(
            self.name,
            "Gaussian naive Bayes on proportions of unsupervised cell classes (SCAN)",
            "a model without sex, count and age",
            factors=(
                f"Do cell classes follow the cell or the slide? {found['own_patient_share']:.1%} of a cell's nearest "
                "neighbours in the SimCLR embedding come from its own patient; by chance "
                f"{found['own_patient_share_by_chance']:.1%} would. The larger the first share relative to the "
                "second, the more the classes may follow a patient's stain instead of the cell's shape.",
            ),
            evaluation=(
                "Out of fold, `scan` and the ensemble are transductive: SCAN was trained on all pictures, including "
                "those of held-out patients, but without labels.",
            ),
        )

    def nested_is_current(self, run: Path, facts: Mapping[str, Any]) -> bool:
        """Not if SCAN has been trained again since: they are of other cell classes."""
        return bool(facts["classes_sha256"] == classes_digest(run))
