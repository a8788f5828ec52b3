"""What a head with a gate gives of each patient: the mixture's and the ImageNet member's."""

from typing import NamedTuple

from torch import Tensor


class GatedOutput(NamedTuple):
    """Probabilities of malignant, and the gate's weight of the image expert, each (P,)."""

    probability: Tensor
    image: Tensor
    clinical: Tensor
    gate: Tensor
