"""What is measured on a picture, by hand and by slow references; what must not change it, and what must."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFilter

from infer.pictures.compression import jpeg_quality
from infer.pictures.kmeans import kmeans
from infer.pictures.look import look
from infer.pictures.measure import MEASURES, measured
from tests.synthetic import draw_cell

Pixels = npt.NDArray[np.uint8]
SIZE = 112


def cell(kind: int = 1, seed: int = 3) -> Pixels:
    return draw_cell(kind, np.random.default_rng(seed), SIZE)


def encoded(crop: Pixels, kind: str, **options: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(crop).save(file, kind, **options)
    return file.getvalue()


def slowly(crop: Pixels) -> dict[str, float]:
    """The measures again, with loops."""
    blocks = np.zeros((28, 28, 3))
    for row in range(28):
        for column in range(28):
            blocks[row, column] = crop[4 * row : 4 * row + 4, 4 * column : 4 * column + 4].mean(axis=(0, 1))
    slide = [sorted(blocks[..., channel].ravel())[768] for channel in range(3)]  # 98% of 784
    density = np.array(
        [[-np.log(min((blocks[row, column, 1] + 1) / (slide[1] + 1), 1)) for column in range(28)] for row in range(28)]
    )
    first, second = [], []
    green = crop[..., 1].astype(float)
    for lines in (green, green.T):
        for line in lines:
            first += [(line[i + 1] - line[i]) ** 2 for i in range(SIZE - 1)]
            second += [(line[i + 2] - 2 * line[i + 1] + line[i]) ** 2 for i in range(SIZE - 2)]
    away = np.array([[np.hypot(row - 13.5, column - 13.5) for column in range(28)] for row in range(28)])
    cluster, _ = kmeans(np.sqrt(np.minimum(density / 3, 1)), 3)
    disc = [(row, column) for row in range(28) for column in range(28) if away[row, column] <= 14]
    return {
        **dict(zip(("red", "green", "blue"), crop.reshape(-1, 3).mean(axis=0), strict=True)),
        **dict(zip(("slide_red", "slide_green", "slide_blue"), slide, strict=True)),
        "sharpness": sum(second) / sum(first),
        "cell_area": sum(cluster[at] > 0 for at in disc) / len(disc),
        "nucleus_area": sum(cluster[at] == 2 for at in disc) / len(disc),
        "nucleus_density": density[cluster == 2].mean(),
        "density_spread": density.std(),
        "centre_density": density[away <= 4].mean() - np.median(density[away >= 13]),
    }


@pytest.mark.parametrize("kind", range(4))
def test_measures_by_a_slow_reference(kind: int) -> None:
    crop = cell(kind)
    assert measured(crop) == pytest.approx(slowly(crop), abs=1e-12)
    assert tuple(measured(crop)) == MEASURES


def test_measures_do_not_change_when_the_picture_is_turned() -> None:
    crop = cell()
    for turned in (np.rot90(crop), np.rot90(crop, 2), crop[:, ::-1], crop[::-1]):
        assert measured(turned) == pytest.approx(measured(crop), rel=1e-12)


def test_a_disc_by_hand() -> None:
    """A spot of green 60 and radius 28 pixels on 220: a quarter of the disc, a density of log(221 / 61)."""
    across = np.arange(SIZE) - 55.5
    spot = np.hypot(across[:, None], across) <= 28
    crop = np.repeat(np.where(spot, 60, 220).astype(np.uint8)[..., None], 3, axis=-1)
    found = measured(crop)
    assert found["nucleus_area"] == pytest.approx(0.25, abs=0.02)
    assert found["nucleus_density"] == pytest.approx(np.log(221 / 61), abs=0.1)  # blocks at the border are paler
    assert [found[name] for name in ("slide_red", "slide_green", "slide_blue")] == [220, 220, 220]
    assert found["red"] == pytest.approx(crop.mean(), abs=1e-12)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_an_even_picture_has_finite_measures(level: int) -> None:
    found = measured(np.full((SIZE, SIZE, 3), level, np.uint8))
    assert np.isfinite(list(found.values())).all()
    assert (found["sharpness"], found["density_spread"], found["slide_green"]) == (0, 0, level)


def blurred(crop: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(crop).filter(ImageFilter.GaussianBlur(2)))


def enlarged(crop: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(crop).resize((168, 168), Image.Resampling.BICUBIC))[28:140, 28:140]


def stained(crop: Pixels) -> Pixels:
    return (((crop + 1) / 256) ** 1.5 * 256 - 1).round().clip(0, 255).astype(np.uint8)


def yellowed(crop: Pixels) -> Pixels:
    return np.asarray(crop * np.array([1, 1, 0.9]), np.uint8)


@pytest.mark.parametrize(
    ("change", "moved", "by"),
    [
        (blurred, "sharpness", 1 / 4),
        (enlarged, "nucleus_area", 1.7),
        (stained, "nucleus_density", 1.4),
        (yellowed, "slide_blue", 0.9),
    ],
)
def test_each_change_moves_the_measure_that_is_named_after_it(
    change: Callable[[Pixels], Pixels], moved: str, by: float
) -> None:
    for kind in range(4):
        before, after = measured(cell(kind)), measured(change(cell(kind)))
        ratio = after[moved] / before[moved]
        assert ratio <= by * 1.02 if by < 1 else ratio >= by
        assert after["centre_density"] > 0.3  # it still is a cell


@pytest.mark.parametrize("quality", [25, 30, 50, 75, 90, 95, 99, 100])
def test_jpeg_quality_is_what_the_encoder_was_asked_for(quality: int) -> None:
    assert jpeg_quality(encoded(cell(), "JPEG", quality=quality)) == pytest.approx(quality, abs=1)
    assert jpeg_quality(encoded(cell()[..., 0], "JPEG", quality=quality)) == pytest.approx(quality, abs=1)


def test_another_format_has_no_jpeg_quality(tmp_path: Path) -> None:
    assert [jpeg_quality(encoded(cell(), kind)) for kind in ("PNG", "BMP", "TIFF")] == [None] * 3
    (tmp_path / "1.png").write_bytes(encoded(cell(), "PNG"))
    (tmp_path / "1.jpg").write_bytes(encoded(cell(), "JPEG", quality=30))
    png, jpeg = (look(tmp_path / name, tmp_path.resolve(), SIZE).measures for name in ("1.png", "1.jpg"))
    assert png == measured(cell())
    assert jpeg.keys() == {*png, "jpeg_quality"}
    assert jpeg["jpeg_quality"] == 30
