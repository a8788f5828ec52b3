"""Digests of training pictures: known again whatever the file, and nobody else's."""

import numpy as np
import pytest

from train.data.seen import BYTES, digest, packed, unpacked

SALT = "0" * 64


def crops(number: int, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, 256, (number, 112, 112, 3), np.uint8))


def test_pictures_are_known_again() -> None:
    known = unpacked(packed(crops(20), SALT))
    assert len(known) == 20
    assert all(digest(crop, SALT) in known for crop in crops(20))
    assert not any(digest(crop, SALT) in known for crop in crops(20, seed=1))
    assert not any(digest(crop, "1" * 64) in known for crop in crops(20))  # another bundle's salt


def test_neither_order_nor_repetition_shows() -> None:
    one, two, three = crops(3)
    assert packed([one, two, three, two], SALT) == packed([three, two, one], SALT)


def test_one_changed_level_makes_another_picture() -> None:
    (crop,) = crops(1)
    changed = crop.copy()
    changed[50, 50, 0] ^= 1
    assert digest(changed, SALT) != digest(crop, SALT)
    assert digest(np.asfortranarray(crop), SALT) == digest(crop, SALT)


@pytest.mark.parametrize("text", ["?", "AAAA", "AAAAAAA=="])
def test_what_is_no_list_of_digests_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"digests|base64|padding|Non-base64|Excess"):
        unpacked(text)
    assert unpacked("") == frozenset()
    assert BYTES == 5
