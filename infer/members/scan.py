"""SCAN and naive Bayes: SCAN assigns a cell class to each picture, naive Bayes scores a patient's class shares."""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import numpy as np

from infer.column import Column
from infer.members.backbone import BACKBONE, FEATURES, STAND_INS, form
from infer.members.features import base_features, cell_classes
from infer.members.member import Floats, GraphForm, Member, Opinion, RunGraph
from infer.members.naive_bayes import NaiveBayes, check_naive_bayes, malignant_probability

GRAPH = "scan.onnx"
CLUSTERS = 20  # SCAN's classes before fusion


def share_of(cell_class: int) -> str:
    """The name of a measure: the share of a patient's pictures that have a class."""
    return f"share_{cell_class}"


class ScanSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Its section of the manifest."""

    class_fusion: Annotated[list[int], msgspec.Meta(min_length=CLUSTERS, max_length=CLUSTERS)]  # class -> fused class
    naive_bayes: NaiveBayes


class Scan(Member[list[int]]):
    """Cell classes (Van Gansbeke et al. 2020) and Gaussian naive Bayes (Collin & Le Chenadec, section 2.2).

    In a reduced precision pictures that lie between two classes may get the other one.
    """

    name = "scan"
    title = "SCAN member"
    Section = ScanSection
    place_of_columns = "middle"
    stand_ins = STAND_INS
    reduced_outputs = dict.fromkeys(STAND_INS, ("scan",))
    picture_columns = (
        Column("cell_class", "Cell class assigned by SCAN, 0 to 14", "", "d"),
        Column("cell_class_confidence", "Probability of that class according to SCAN", "", ".6f"),
    )

    def __init__(self, section: ScanSection, crop_size: int) -> None:
        super().__init__(section, crop_size)
        self.fusion = np.array(section.class_fusion)  # (20,)
        self.classes = max(section.class_fusion) + 1

    @classmethod
    def check(cls, section: ScanSection) -> None:
        """Check that classes are numbered without gaps, and that naive Bayes has the matching number of features."""
        numbers = sorted(set(section.class_fusion))
        if numbers != list(range(len(numbers))):
            raise ValueError(f"class_fusion must map {CLUSTERS} classes to numbers from 0 without gaps")
        check_naive_bayes(section.naive_bayes, len(numbers) + 6)

    @property
    def graphs(self) -> dict[str, GraphForm]:
        """The backbone takes pictures, the second their features, for the probability of each class."""
        return {
            BACKBONE: form(self.pictures),
            GRAPH: GraphForm({"features": FEATURES}, ("probabilities", "embedding")),
        }

    @property
    def measure_names(self) -> tuple[str, ...]:
        return tuple(map(share_of, range(self.classes)))

    def see(self, run: RunGraph, pictures: Any, clinical: Floats) -> dict[str, Floats]:
        """`probabilities`: (N, 20) before fusion; `cell_class` and `confidence`: (N,) after it."""
        probabilities = run(GRAPH, features=run(BACKBONE, images=pictures)["features"])["probabilities"]
        classes, confidence = cell_classes(probabilities, self.fusion)
        return {"probabilities": probabilities, "cell_class": classes.astype(np.float64), "confidence": confidence}

    def begin(self) -> list[int]:
        return []

    def add(self, sums: list[int], seen: Mapping[str, Floats], row: int) -> dict[str, float | int]:
        cell_class = int(seen["cell_class"][row])
        sums.append(cell_class)
        return {"cell_class": cell_class, "cell_class_confidence": float(seen["confidence"][row])}

    def conclude(self, sums: list[int], run: RunGraph, clinical: Floats) -> Opinion:
        base = base_features(clinical, np.array(sums), self.classes)
        without = self._without_one_of_each_class(sums, clinical) if len(sums) > 1 else {}
        return Opinion(
            float(malignant_probability(base, self.section.naive_bayes)),
            tuple(without[cell_class] for cell_class in sums) if without else (),
            measures={name: sums.count(number) / len(sums) for number, name in enumerate(self.measure_names)},
        )

    def _without_one_of_each_class(self, sums: list[int], clinical: Floats) -> dict[int, float]:
        """The patient's probability without one of its pictures of a class, for each class that it has."""
        classes = sorted(set(sums))
        bases = []
        for cell_class in classes:
            others = list(sums)
            others.remove(cell_class)
            bases.append(base_features(clinical, np.array(others), self.classes))
        found = malignant_probability(np.stack(bases), self.section.naive_bayes)
        return dict(zip(classes, found.tolist(), strict=True))

    def tested(self, seen: Mapping[str, Floats], opinions: list[Opinion]) -> dict[str, Floats]:
        return {"scan": seen["probabilities"].ravel()}
