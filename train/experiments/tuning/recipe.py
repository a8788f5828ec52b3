"""The numbers of the ways to adapt the network, and how many minutes they may take."""

import time
from dataclasses import dataclass, field

from infer.errors import LymphoError
from train.core.fitting import FitRecipe
from train.data.augment import ViewOptions
from train.members.imagenet import MAGNIFICATION
from train.members.recipes import FINE_TUNED, FineTunedRecipe

LAST_BLOCKS = 5  # stages 6 and 7 of EfficientNet-Lite0; the last convolution is trained with them


@dataclass(frozen=True)
class SimclrRecipe:
    """SimCLR from the ImageNet weights, at the size the ImageNet member shows its cells."""

    fit: FitRecipe
    batch_images: int = 256
    temperature: float = 0.2  # of NT-Xent, as in SCAN
    head_rate: float = 10.0  # learning rate of the projection head, as a multiple of the backbone's
    norm_images: int = 1024  # training pictures for recomputing batch norm statistics
    input_size: int = MAGNIFICATION.size
    # SCAN's. Pixels are scaled as the ImageNet network wants them, to half of SCAN's range, and so the offset is half.
    views: ViewOptions = field(default_factory=lambda: ViewOptions(offset=0.07))


@dataclass(frozen=True)
class TuningRecipe:
    """All ways. Their numbers were set before any was tried on the public cohort."""

    simclr: SimclrRecipe
    last_blocks: FineTunedRecipe
    whole: FineTunedRecipe


RECIPE = TuningRecipe(
    # Six epochs of the public cohort take about half a minute on a large GPU, for each of five folds.
    simclr=SimclrRecipe(FitRecipe(epochs=6, learning_rate=1e-4, decay=0.85, weight_decay=1e-6)),
    last_blocks=FineTunedRecipe(
        FitRecipe(epochs=20, learning_rate=1e-4, decay=0.9), images_per_patient=32, input_size=MAGNIFICATION.size
    ),
    whole=FINE_TUNED["fine-tuned at 224"],
)


class OutOfTimeError(LymphoError):
    """The minutes that a call may take are used up."""


class Clock:
    """Counts down the minutes of a call; None: as many as it takes."""

    def __init__(self, minutes: float | None = None) -> None:
        self._minutes = minutes
        self._start = time.monotonic()

    def check(self) -> None:
        """Raise OutOfTimeError if the minutes are used up."""
        if self._minutes is not None and time.monotonic() - self._start >= 60 * self._minutes:
            raise OutOfTimeError(f"{self._minutes:g} minutes are used up")
