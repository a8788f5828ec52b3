"""How strongly a JPEG was compressed: the quality from 1 to 100 that an encoder was asked for."""

import io

from PIL import Image

# The sum of the 64 steps for brightness at quality 50 (ITU-T T.81, annex K, table K.1).
STEPS_AT_50 = 3_671


def jpeg_quality(data: bytes) -> float | None:
    """The quality of a JPEG on the scale of the Independent JPEG Group, to a whole number; None for another format.

    From the coarseness of its steps for brightness, so encoders with steps of their own have one, too. Below 20 it is
    overestimated, by 10 at most: steps end at 255. The picture must be one that decodes.
    """
    if not data.startswith(b"\xff\xd8"):
        return None
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        (_, _, _, table), *_ = image.layer  # type: ignore[attr-defined]  # the first component is brightness
        steps = image.quantization.get(table)  # type: ignore[attr-defined]
    if not steps:
        return None
    times = sum(steps) / STEPS_AT_50
    return float(round(100 - 50 * times if times <= 1 else 50 / times))
