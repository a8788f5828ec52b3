"""The graph of a head with a gate: the mixture's and the ImageNet member's."""

from torch import Tensor, nn

from train.members.gated import GatedOutput


class HeadGraph(nn.Module):
    """What a head takes and gives; its weights get names that no output of the graph has."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, seen: Tensor, clinical: Tensor) -> GatedOutput:
        return self.head(seen, clinical)  # type: ignore[no-any-return]
