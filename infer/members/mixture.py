"""The mixture of experts: an image expert on the mean of a patient's feature maps, a clinical expert, and a gate."""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import numpy as np

from infer.column import Column
from infer.members.member import CLINICAL, Floats, GraphForm, Mean, Member, Opinion, RunGraph

ENCODER, HEAD = "moe_encoder.onnx", "moe_head.onnx"
FEATURE_MAPS = (256, 3, 3)  # of each mixture; concatenated along the channels
HEAD_OUTPUTS = ("probability", "image_probability", "clinical_probability", "gate")


class MixtureSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Its section of the manifest."""

    mixtures: Annotated[int, msgspec.Meta(ge=1, le=100)]  # networks in one graph, whose outputs are averaged


class Mixture(Member[Mean]):
    """Several mixtures of experts, averaged (Sahasrabudhe et al. 2021; Collin & Le Chenadec, section 2.3)."""

    name = "moe"
    title = "mixture of experts"
    Section = MixtureSection
    columns_at_end = False
    stand_ins = {
        "int8": {ENCODER: "moe_encoder.int8.onnx"},
        "float16": {ENCODER: "moe_encoder.float16.onnx"},
    }
    reduced_outputs = {
        "int8": ("moe", "moe_maps", "moe_image", "moe_gate"),
        "float16": ("moe", "moe_maps", "moe_image", "moe_gate"),
    }
    unbounded_outputs = {"moe_maps": 1.0}
    patient_columns = (
        Column(
            "moe_image_gate",
            "Gate weight of the image expert, 0 to 1; the rest goes to the clinical expert",
            "",
            ".6f",
        ),
    )

    @property
    def maps(self) -> tuple[int, int, int]:
        """Shape of a picture's feature maps."""
        channels, height, width = FEATURE_MAPS
        return channels * self.section.mixtures, height, width

    @property
    def graphs(self) -> dict[str, GraphForm]:
        """The encoder takes pictures, the head patients."""
        return {
            ENCODER: GraphForm({"images": self.pictures}, ("maps",)),
            HEAD: GraphForm({"bags": ("tensor(float)", self.maps), "clinical": CLINICAL}, HEAD_OUTPUTS),
        }

    def see(self, run: RunGraph, pictures: Any, clinical: Floats) -> dict[str, Floats]:
        """`maps`: (N, 256 * mixtures, 3, 3)."""
        return run(ENCODER, images=pictures)

    def begin(self) -> Mean:
        return Mean()

    def add(self, sums: Mean, seen: Mapping[str, Floats], row: int) -> dict[str, float | int]:
        sums.add(seen["maps"][row].astype(np.float64))
        return {}

    def conclude(self, sums: Mean, run: RunGraph, clinical: Floats) -> Opinion:
        bags, values = sums.value[None].astype(np.float32), clinical[None].astype(np.float32)
        found = {name: float(of[0]) for name, of in run(HEAD, bags=bags, clinical=values).items()}
        return Opinion(
            found["probability"],
            {
                "moe_image_gate": found["gate"],
                "image_probability": found["image_probability"],
                "clinical_probability": found["clinical_probability"],
            },
        )

    def tested(self, seen: Mapping[str, Floats], opinions: list[Opinion]) -> dict[str, Floats]:
        maps = seen["maps"]
        return {
            "moe": np.array([opinion.probability for opinion in opinions]),
            # The image experts may saturate on every generated picture; the maps reveal a wrong encoder even then.
            "moe_maps": maps.reshape(len(maps), -1, int(np.prod(FEATURE_MAPS))).mean(axis=2).ravel(),
            "moe_image": np.array([opinion.further["image_probability"] for opinion in opinions]),
            "moe_clinical": np.array([opinion.further["clinical_probability"] for opinion in opinions]),
            "moe_gate": np.array([opinion.further["moe_image_gate"] for opinion in opinions]),
        }
