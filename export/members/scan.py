"""Export of SCAN as a graph, and of its naive Bayes as numbers in the manifest."""

from pathlib import Path
from typing import Any

import msgspec
from torch import Tensor

from export.graphs import GraphPlan
from export.members.member import Inputs, MemberExport, example_images
from infer.members.naive_bayes import NaiveBayes
from infer.members.scan import GRAPH
from train.members.naive_bayes import load_naive_bayes
from train.members.scan.network import ScanNetwork
from train.members.scan.stages import load_fusion, load_scan


class ScanExport(MemberExport):
    """Unsupervised cell classes and Gaussian naive Bayes."""

    name = "scan"
    unbounded = frozenset({"embedding"})

    def __init__(self, run: Path) -> None:
        self._of(load_scan(run / "scan/scan.safetensors"), load_fusion(run), load_naive_bayes(run))

    @classmethod
    def of(cls, network: ScanNetwork, fusion: list[int], bayes: NaiveBayes) -> "ScanExport":
        """Create from a network in evaluation mode instead of a run folder."""
        made = cls.__new__(cls)
        made._of(network, fusion, bayes)
        return made

    def _of(self, network: ScanNetwork, fusion: list[int], bayes: NaiveBayes) -> None:
        self.network, self.fusion, self.bayes = network, fusion, bayes

    @property
    def plans(self) -> list[GraphPlan]:
        return [GraphPlan(GRAPH, self.network, {"images": example_images()}, ("probabilities", "embedding"))]

    def inputs(self, images: Tensor, clinical: Tensor) -> dict[str, Inputs]:
        return {GRAPH: {"images": images}}

    def section(self) -> dict[str, Any]:
        return {"class_fusion": self.fusion, "naive_bayes": msgspec.to_builtins(self.bayes)}

    def described(self) -> str:
        return "Gaussian naive Bayes on shares of unsupervised cell classes (SCAN)"
