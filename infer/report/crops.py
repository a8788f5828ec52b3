"""The pictures of a page: read and decoded once more, by the run's own processes, and checked to be the same bytes."""

import base64
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg

from infer.pictures.look import Crop, DecodedPicture
from infer.pictures.pool import DecodingPool
from infer.report.cells import Chosen, choose
from infer.scoring.result import PatientResult

QUALITY = 85  # of the JPEG in the page
GONE, CHANGED = "gone", "changed"
AHEAD = 1  # patients whose pictures wait, besides one a decoding process


@dataclass(frozen=True)
class Shown:
    """A picture, or why there is none."""

    uri: str = ""  # data URI of a JPEG of the crop
    missing: str = ""  # GONE or CHANGED


Pictured = tuple[PatientResult, Chosen | None, list[Shown]]


def with_pictures(
    results: Iterable[PatientResult], folder: Path, size: int, workers: int, scale: float
) -> Generator[Pictured, None, None]:
    """Each patient with its chosen cells and their pictures, prepared ahead; None and none for one without a result.

    Args:
        folder: the cohort's.
        size: of the crops, in pixels.
        workers: decoding processes.
        scale: by which pictures are rescaled before they are cropped.

    Raises, during iteration:
        WorkerError: a decoding process cannot be started.
    """
    # What they were checked for when they were scored need not be looked for again: `show` compares their content.
    decoders = DecodingPool(folder.resolve(), size, workers, scale, checked=False)
    encoders = ThreadPoolExecutor(workers, thread_name_prefix="encode")  # encoding lets other threads run
    waiting: deque[tuple[PatientResult, Chosen | None, Future[list[Shown]] | None]] = deque()

    def pictures(result: PatientResult, chosen: Chosen) -> list[Shown]:
        found = decoders.look(folder / result.patient_id, [cell.name for cell in chosen.all]).result()
        return [show(one, cell.content) for one, cell in zip(found, chosen.all, strict=True)]

    def oldest() -> Pictured:
        result, chosen, shown = waiting.popleft()
        return result, chosen, shown.result() if shown else []

    try:
        for result in results:
            chosen = choose(result) if result.scores else None
            waiting.append((result, chosen, encoders.submit(pictures, result, chosen) if chosen else None))
            if len(waiting) > workers + AHEAD:
                yield oldest()
        while waiting:
            yield oldest()
    finally:
        decoders.close()
        encoders.shutdown(cancel_futures=True)


def show(looked: DecodedPicture, content: str) -> Shown:
    """A picture as it can be put into a page.

    Args:
        content: the first digits of the SHA-256 that the scored picture had.
    """
    crop = looked.crop
    if isinstance(crop, np.ndarray) and looked.content.startswith(content):
        return Shown(data_uri(crop))
    digest = len(looked.content) == 64 and not set(looked.content) - set("0123456789abcdef")
    return Shown(missing=CHANGED if digest and not looked.content.startswith(content) else GONE)


def data_uri(crop: Crop) -> str:
    """A crop, (112, 112, 3), as the data URI of a JPEG."""
    jpeg = simplejpeg.encode_jpeg(crop, quality=QUALITY, colorspace="RGB", colorsubsampling="420")
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"
