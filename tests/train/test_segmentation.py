"""The central lymphocyte is kept and its surroundings removed; compared with the outlines of synthetic cells."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from infer.errors import UsageError
from infer.pictures.kmeans import kmeans
from tests.synthetic import REFERENCE_DATE, STAIN_SD_PATIENT, draw_cell_and_outline, make_patients, write_cohort
from train.data.bags import CROP_SIZE, Bags
from train.data.crops import cache_crops
from train.data.segmentation import before_and_after, keep_cell, segment

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

# Colours as RGB, 0-255, typical of an analyser's pictures.
SLIDE, NUCLEUS, CYTOPLASM, RED_CELL = (255, 229, 204), (80, 40, 120), (196, 182, 203), (190, 148, 158)
PALE = (234, 206, 201)  # less saturated than the slide: .14 against .20
LEAST_OVERLAP = {0: 0.90, 1: 0.95, 2: 0.89, 3: 0.87}  # intersection over union of the worst cell, by kind


def disc(x: float, y: float, radius: float) -> Mask:
    """(112, 112) px."""
    across = np.arange(CROP_SIZE)
    inside: Mask = np.hypot(across - x, across[:, None] - y) <= radius
    return inside


def paint(*parts: tuple[Mask, tuple[int, int, int]]) -> Pixels:
    """Draws the parts on top of each other, on a bare slide with camera noise."""
    picture = np.full((CROP_SIZE, CROP_SIZE, 3), SLIDE, np.float64)
    for mask, colour in parts:
        picture[mask] = colour
    noise = np.random.default_rng(0).normal(0, 2, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def overlap(one: Mask, other: Mask) -> float:
    """Intersection over union."""
    return float((one & other).sum() / (one | other).sum())


def drawn(kind: int, number: int) -> tuple[Pixels, Mask]:
    stain = np.random.default_rng([5, number]).normal(0, STAIN_SD_PATIENT, 3)
    return draw_cell_and_outline(kind, np.random.default_rng([6, kind, number]), CROP_SIZE, stain)


@pytest.mark.parametrize("kind", LEAST_OVERLAP)
def test_every_kind_of_cell_is_found_to_its_outline(kind: int) -> None:
    overlaps = [overlap(segment(picture), outline) for picture, outline in (drawn(kind, n) for n in range(20))]
    assert min(overlaps) > LEAST_OVERLAP[kind]
    assert np.mean(overlaps) > 0.94


@pytest.mark.parametrize("cytoplasm", [CYTOPLASM, PALE])
def test_cytoplasm_is_kept_though_it_is_paler_than_the_slide(cytoplasm: tuple[int, int, int]) -> None:
    cell = disc(58, 54, 42)
    found = segment(paint((cell, cytoplasm), (disc(54, 52, 24), NUCLEUS)))
    assert overlap(found, cell) > 0.95


@pytest.mark.parametrize("gap", [-4, 0, 6])
def test_red_cells_at_the_edge_are_removed(gap: int) -> None:
    """Beside the lymphocyte or touching it; the parameter is the distance in px."""
    cell = disc(56, 56, 30)
    red = disc(56 + 30 + gap + 24, 60, 24) & ~cell
    found = segment(paint((red, RED_CELL), (cell, CYTOPLASM), (disc(56, 56, 22), NUCLEUS)))
    assert (found & red).sum() < 0.05 * red.sum()
    assert overlap(found, cell) > 0.93


def test_of_two_lymphocytes_the_one_in_the_middle_is_kept() -> None:
    cell, other = disc(56, 56, 26), disc(100, 100, 22)
    parts = [(cell, CYTOPLASM), (disc(56, 56, 20), NUCLEUS), (other, CYTOPLASM), (disc(100, 100, 17), NUCLEUS)]
    assert overlap(segment(paint(*parts)), cell) > 0.95


def test_a_platelet_that_hangs_by_a_thread_is_cut_off() -> None:
    cell, platelet, thread = disc(50, 56, 28), disc(92, 56, 6), np.zeros((CROP_SIZE, CROP_SIZE), np.bool_)
    thread[54:58, 70:92] = True
    found = segment(paint((thread, NUCLEUS), (cell, CYTOPLASM), (platelet, NUCLEUS), (disc(50, 56, 20), NUCLEUS)))
    assert not found[:, 84:].any()
    assert overlap(found, cell) > 0.93


def test_a_cleft_is_closed() -> None:
    cell, cleft = disc(56, 56, 40), np.zeros((CROP_SIZE, CROP_SIZE), np.bool_)
    cleft[54:58, 80:] = True
    found = segment(paint((cell, CYTOPLASM), (disc(56, 56, 20), NUCLEUS), (cleft, SLIDE)))
    assert found[54:58, 80:92].all()


def test_a_platelet_is_no_lymphocyte_though_it_is_nearer_to_the_middle() -> None:
    cell = disc(56, 96, 26)
    found = segment(paint((cell, CYTOPLASM), (disc(56, 96, 20), NUCLEUS), (disc(56, 40, 7), NUCLEUS)))
    assert overlap(found, cell) > 0.93


def test_a_vacuole_stays_part_of_its_cell() -> None:
    cell = disc(56, 56, 36)
    found = segment(paint((cell, CYTOPLASM), (disc(50, 56, 18), NUCLEUS), (disc(76, 56, 5), SLIDE)))
    assert found[disc(76, 56, 5)].all()
    assert overlap(found, cell) > 0.95


def test_a_cell_that_the_crop_cuts_is_kept_to_the_edge() -> None:
    cell = disc(56, 90, 40)
    found = segment(paint((cell, CYTOPLASM), (disc(56, 90, 26), NUCLEUS)))
    assert overlap(found[-3:], cell[-3:]) > 0.93
    corner = segment(paint((disc(80, 80, 48), CYTOPLASM), (disc(76, 76, 26), NUCLEUS)))
    assert corner[-1, -1]


@pytest.mark.parametrize("kind", LEAST_OVERLAP)
def test_a_turned_or_flipped_picture_has_the_turned_or_flipped_mask(kind: int) -> None:
    picture, _ = drawn(kind, 0)
    mask = segment(picture)
    assert 0 < mask.mean() < 1
    for turns in range(4):
        assert np.array_equal(segment(np.rot90(picture, turns)), np.rot90(mask, turns))
        assert np.array_equal(segment(np.rot90(picture, turns)[:, ::-1]), np.rot90(mask, turns)[:, ::-1])


@pytest.mark.parametrize("level", [0, 1, 128, 255])
def test_a_constant_picture_stays_as_it_is(level: int) -> None:
    picture = np.full((CROP_SIZE, CROP_SIZE, 3), level, np.uint8)
    assert segment(picture).all()
    assert np.array_equal(keep_cell(picture), picture)


def test_without_a_lymphocyte_a_picture_stays_as_it_is() -> None:
    assert segment(paint()).all()
    assert segment(paint((disc(50, 60, 24), RED_CELL), (disc(100, 20, 24), RED_CELL))).all()


def test_the_cells_pixels_are_kept_and_all_others_are_white() -> None:
    picture, _ = drawn(1, 3)
    before, mask, kept = picture.copy(), segment(picture), keep_cell(picture)
    assert np.array_equal(kept[mask], picture[mask])
    assert (kept[~mask] == 255).all()
    assert np.array_equal(picture, before)
    assert np.array_equal(before_and_after(picture), np.hstack([picture, kept]))


def test_kmeans_by_hand() -> None:
    cluster, centres = kmeans(np.array([[1.0, 0.0, 0.2], [0.2, 0.4, 0.0]]), 3)  # .2 is level 51 of 255
    assert cluster.tolist() == [[2, 0, 0], [0, 1, 0]]
    np.testing.assert_allclose(centres, [0.1, 0.4, 1])


def test_kmeans_is_lloyds() -> None:
    """Compared with the definition: every pixel has the nearest centre, every centre is the mean of its pixels."""
    rng = np.random.default_rng(2)
    values = np.concatenate([rng.normal(mean, 0.03, 400) for mean in (0.1, 0.4, 0.8)]).clip(0, 1)
    values = np.rint(values * 255) / 255
    centres = np.linspace(values.min(), values.max(), 3)
    for _ in range(50):
        cluster = np.abs(values[:, None] - centres).argmin(axis=1)
        centres = np.array([values[cluster == index].mean() for index in range(3)])
    found, found_centres = kmeans(values, 3)
    np.testing.assert_allclose(found_centres, centres, atol=1e-12)
    assert np.array_equal(found, cluster)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("segmentation") / "cohort"
    write_cohort(folder, make_patients(10, seed=3, images=(1, 2), malignant_share=0.5), seed=3, size=120)
    return folder


def cached(cohort: Path, run: Path, segment: bool) -> Bags:
    return cache_crops(cohort, run, REFERENCE_DATE, None, segment=segment)


def test_a_run_with_segmented_pictures(cohort: Path, tmp_path: Path) -> None:
    whole, segmented = (cached(cohort, tmp_path / name, name == "segmented") for name in ("whole", "segmented"))
    expected = np.stack([keep_cell(crop) for crop in whole.crops.numpy()])
    assert np.array_equal(segmented.crops.numpy(), expected)
    assert not np.array_equal(segmented.crops.numpy(), whole.crops.numpy())
    assert (whole.facts["segmented"], segmented.facts["segmented"]) == ("no", "yes")
    assert np.array_equal(cached(cohort, tmp_path / "segmented", True).crops.numpy(), expected)


def test_whole_and_segmented_pictures_do_not_mix(cohort: Path, tmp_path: Path) -> None:
    cached(cohort, tmp_path / "whole", False)
    with pytest.raises(UsageError, match=r"whole: holds whole pictures, see --segment\. Choose another run folder"):
        cached(cohort, tmp_path / "whole", True)
    cached(cohort, tmp_path / "cut", True)
    with pytest.raises(UsageError, match=r"cut: holds segmented pictures, see --segment\. Choose another run folder"):
        cached(cohort, tmp_path / "cut", False)


def test_a_run_folder_that_does_not_say_holds_whole_pictures(cohort: Path, tmp_path: Path) -> None:
    """As do run folders from before segmentation was introduced."""
    cached(cohort, tmp_path / "run", False)
    path = tmp_path / "run/crops/cohort.json"
    facts = json.loads(path.read_text())
    del facts["segmented"]
    path.write_text(json.dumps(facts))
    assert cached(cohort, tmp_path / "run", False).facts["segmented"] == "no"
    with pytest.raises(UsageError, match="holds whole pictures"):
        cached(cohort, tmp_path / "run", True)
