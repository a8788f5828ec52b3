"""Whether pictures are among those that a bundle was trained on: salted digests of what the networks saw of them.

A digest is of the central 112 x 112 pixels, so a picture is recognised in another file format too, as long as nothing
was compressed again, and however much was cut off around it. Five bytes each: by chance, one picture in 10^8 is taken
for one of 10,000 others.
"""

import base64
import hashlib
from collections.abc import Iterable

import numpy as np

from train.core.arrays import Pixels

BYTES = 5


def packed(crops: Iterable[Pixels], salt: str) -> str:
    """The digests of pictures (112, 112, 3) uint8 as text, sorted, each once."""
    return as_text(digest(crop, salt) for crop in crops)


def as_text(digests: Iterable[bytes]) -> str:
    """Digests as text, sorted, each once."""
    return base64.b64encode(b"".join(sorted(set(digests)))).decode("ascii")


def unpacked(text: str) -> frozenset[bytes]:
    """The digests that `packed` put into a text.

    Raises:
        ValueError: it is no such text.
    """
    data = base64.b64decode(text, validate=True)
    if len(data) % BYTES:
        raise ValueError(f"{len(data)} bytes are not a number of digests")
    return frozenset(data[at : at + BYTES] for at in range(0, len(data), BYTES))


def digest(crop: Pixels, salt: str) -> bytes:
    """A picture's digest.

    Args:
        salt: the SHA-256 of the training patients' table, so that two bundles' digests cannot be compared.
    """
    return hashlib.sha256(salt.encode() + np.ascontiguousarray(crop).tobytes()).digest()[:BYTES]
