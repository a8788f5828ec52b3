"""What members with a gate have in common: a head that mixes an expert on pictures with a clinical expert."""

from collections.abc import Mapping, Sequence

import numpy as np

from infer.column import Column
from infer.members.member import Floats, Opinion

# Of the head's graph, each (P,): probability = gate x image_probability + (1 - gate) x clinical_probability, but for a
# mean over several heads.
OUTPUTS = ("probability", "image_probability", "clinical_probability", "gate")
TESTED = {"image": "image_probability", "clinical": "clinical_probability", "gate": "gate"}  # in the self-test: output


def gate_column(member: str) -> Column:
    """The column of predictions.csv for a member's gate."""
    meaning = "Gate weight of the image expert, 0 to 1; the rest goes to the clinical expert"
    return Column(f"{member}_image_gate", meaning, "", ".6f")


def further(member: str, found: Mapping[str, float]) -> dict[str, float | int]:
    """What a member's opinion holds beside the probability: the gate under its column's name, and both experts."""
    experts = {name: found[name] for name in ("image_probability", "clinical_probability")}
    return {gate_column(member).name: found["gate"], **experts}


def tested(member: str, opinions: Sequence[Opinion]) -> dict[str, Floats]:
    """What the self-test compares of gate and experts: (N,) each."""
    names = {"gate": gate_column(member).name}
    return {
        f"{member}_{short}": np.array([opinion.further[names.get(name, name)] for opinion in opinions])
        for short, name in TESTED.items()
    }
