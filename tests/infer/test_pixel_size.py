"""Pictures of another camera: declared with --pixel-size, they score as those of the training's camera do."""

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner
from PIL import Image, ImageFilter

from infer.bundle.load import CHECKSUMS, REFERENCE, checksums, load_bundle
from infer.bundle.manifest import MANIFEST, Magnification
from infer.cli import command
from infer.errors import UsageError
from infer.options import picture_scale
from infer.pictures.decode import RejectedImage, centre_crop, decode_crop
from infer.pictures.look import look
from infer.pictures.rescale import rescaled_crop
from infer.pictures.worker import DecodingProcess
from tests.infer.runs import TABLE, TINY, Outcome, cut, replace_picture, score
from tests.synthetic import draw_cell, make_patients, write_cohort

Pixels = npt.NDArray[np.uint8]  # (height, width, 3)

CROP = 112  # pixels
KNOWN = 0.1  # micrometres per pixel, as the bundles of these tests state it
SIZE = 144  # pixels of the drawn pictures: .8 times that is still more than a crop needs
OPTICS = 0.7  # pixels: a drawn cell has edges and grain that no microscope shows, so pictures are blurred a little
ENLARGED, SHRUNK = 1.5, 0.8  # pixels of the other camera for one of the training's
MOST = {ENLARGED: 0.02, SHRUNK: 0.05}  # change of a probability; a shrunk picture has really lost its finest grain
HALF = CROP / 2


def stating(bundle: Path, folder: Path, pixel_size: float = KNOWN) -> Path:
    """A copy of a bundle whose manifest states a pixel size."""
    files = {path.name: path.read_bytes() for path in bundle.iterdir() if path.name != CHECKSUMS}
    manifest = json.loads(files[MANIFEST])
    manifest["magnification"]["pixel_size"] = pixel_size
    manifest["drift"] |= {side: {"low": SIZE, "high": SIZE} for side in ("picture_width", "picture_height")}
    files[MANIFEST] = json.dumps(manifest).encode()
    folder.mkdir()
    for name, data in {**files, CHECKSUMS: checksums(files)}.items():
        (folder / name).write_bytes(data)
    assert load_bundle(folder).manifest.magnification.pixel_size == pixel_size
    return folder


def enlarged(picture: Image.Image, factor: float) -> Image.Image:
    """What a camera gives that has `factor` times as many pixels on the same part of the slide."""
    width, height = (round(side * factor) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def by_another_camera(cohort: Path, folder: Path, factor: float) -> Path:
    """The same patients, each picture enlarged."""
    for path in sorted(cohort.glob("*/*")):
        target = folder / path.relative_to(cohort)
        target.parent.mkdir(parents=True, exist_ok=True)
        enlarged(Image.open(path), factor).save(target)
    (folder / TABLE).write_bytes((cohort / TABLE).read_bytes())
    return folder


def probabilities(outcome: Outcome) -> npt.NDArray[np.float64]:
    """Of the ensemble and of each member: (patients, 1 + members)."""
    assert outcome.code == 0
    found = [
        [
            float(value)
            for name, value in row.items()
            if name == "probability_malignant" or name.endswith("_probability")
        ]
        for row in outcome.predictions.values()
    ]
    assert len(found[0]) == 1 + len(outcome.record["bundle"]["weights"])
    return np.array(found)


def drawn(seed: int, width: int = SIZE, height: int = SIZE) -> Pixels:
    """The central part of a drawn cell as a microscope shows it: (height, width, 3)."""
    picture = Image.fromarray(draw_cell(seed % 4, np.random.default_rng(seed), max(width, height)))
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(OPTICS)).crop((left, top, left + width, top + height)))


def encoded(picture: Image.Image | Pixels, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(file, kind, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def knowing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference bundle, knowing its pixel size."""
    return stating(REFERENCE, tmp_path_factory.mktemp("knowing") / "bundle")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle, knowing its pixel size."""
    return stating(TINY, tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """S001 to S005, 24 pictures each, of the training's camera; read-only."""
    folder = tmp_path_factory.mktemp("patients") / "cohort"
    write_cohort(folder, make_patients(5, seed=3, images=(24, 24)), seed=3, labels=False, size=SIZE)
    for path in folder.glob("*/*.jpg"):
        picture = Image.open(path).filter(ImageFilter.GaussianBlur(OPTICS))
        path.unlink()
        picture.save(path.with_suffix(".png"))
    return folder


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """S001 to S003, ten pictures each, of a camera with 1.5 times as many pixels; read-only."""
    folder = tmp_path_factory.mktemp("few") / "cohort"
    write_cohort(folder, make_patients(3, seed=4, images=(10, 10)), seed=4, labels=False, size=round(SIZE * ENLARGED))
    return folder


@pytest.fixture(scope="module")
def original(patients: Path, knowing: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return score(patients, tmp_path_factory.mktemp("original") / "out", bundle=knowing)


@pytest.mark.parametrize("factor", [ENLARGED, SHRUNK])
def test_a_declared_camera_scores_as_the_trainings(
    original: Outcome, patients: Path, knowing: Path, tmp_path: Path, factor: float
) -> None:
    other = by_another_camera(patients, tmp_path / "patients", factor)
    declared = score(other, tmp_path / "declared", bundle=knowing, pixel_size=KNOWN / factor)
    expected = probabilities(original)
    assert ((expected > 0.2) & (expected < 0.9)).any(axis=1).sum() > 1  # where a small change of the pictures shows
    assert np.abs(probabilities(declared) - expected).max() < MOST[factor]
    assert declared.record["unusual_picture_size"] == []
    silent = score(other, tmp_path / "silent", bundle=knowing)
    moved = np.abs(probabilities(silent) - expected).max(axis=0)
    assert moved[0] > 0.3
    side = round(SIZE * factor)
    assert silent.record["unusual_picture_sizes"] == {f"{side} x {side}": 5 * 24}


@pytest.mark.parametrize("factor", [ENLARGED, SHRUNK])
@pytest.mark.parametrize("options", [{}, {"kind": "JPEG", "quality": 95}, {"kind": "TIFF"}, {"kind": "BMP"}])
def test_a_declared_cameras_crop_is_the_trainings(factor: float, options: dict[str, Any]) -> None:
    for seed in range(4):
        pixels = drawn(seed)
        data = encoded(enlarged(Image.fromarray(pixels), factor), **options)
        crop, size = decode_crop(data, CROP, 1 / factor)
        assert size == (SIZE, SIZE)
        assert crop.shape == (CROP, CROP, 3)
        assert crop.dtype == np.uint8
        assert np.abs(crop.astype(int) - centre_crop(pixels, CROP)).mean() < (1.5 if factor > 1 else 2.5)  # of 255


def lanczos(pixels: Pixels, scale: float, size: int) -> npt.NDArray[np.float64]:
    """Slow reference for `rescaled_crop`, (size, size, 3): every weight of every pixel of the picture."""

    def weights(length: int) -> npt.NDArray[np.float64]:
        centres = length / 2 + (np.arange(size) + 0.5 - size / 2) / scale
        away = (np.arange(length) + 0.5 - centres[:, None]) * min(1.0, scale)  # (size, length)
        found = np.where(np.abs(away) < 3, np.sinc(away) * np.sinc(away / 3), 0.0)
        return np.asarray(found / found.sum(axis=1, keepdims=True))

    height, width = pixels.shape[:2]
    found: npt.NDArray[np.float64] = np.einsum(
        "ih,jw,hwc->ijc", weights(height), weights(width), pixels.astype(np.float64), optimize=True
    )
    return found


@pytest.mark.parametrize(("width", "height"), [(200, 200), (201, 200), (200, 201), (201, 203), (190, 333)])
@pytest.mark.parametrize("scale", [1 / 1.5, 0.6, 0.75, 1.25, 2.0, 3.7])
def test_the_crop_is_that_of_a_slow_reference(width: int, height: int, scale: float) -> None:
    pixels = drawn(width + height, width, height)
    expected = np.clip(lanczos(pixels, scale, CROP), 0, 255)
    assert np.abs(rescaled_crop(pixels, CROP, scale) - expected).max() <= 1.51  # each of two passes rounds


@pytest.mark.parametrize("width", [180, 181, 182, 183])
@pytest.mark.parametrize("height", [180, 181])
@pytest.mark.parametrize("scale", [0.65, 0.8, 1.3, 2.5])
def test_the_centre_stays_the_centre(width: int, height: int, scale: float) -> None:
    """In a picture that grows evenly from left to right a pixel's value says where it is; of a turned one, the same."""
    across = np.broadcast_to(np.arange(width)[None, :, None], (height, width, 3)).astype(np.uint8)
    down = np.broadcast_to(np.arange(height)[:, None, None], (height, width, 3)).astype(np.uint8)
    expected = (np.arange(CROP) + 0.5 - HALF) / scale  # from the centre, in the picture's pixels
    inner = slice(8, -8) if HALF / scale + 8 > height / 2 else slice(None)  # at an edge there is nothing beyond
    found = rescaled_crop(across, CROP, scale)[0, inner, 0] + 0.5 - width / 2
    assert np.abs(found - expected[inner]).max() <= 1.01
    assert abs((found - expected[inner]).mean()) < 0.15  # values are rounded; half a pixel off would be 0.5
    found = rescaled_crop(down, CROP, scale)[inner, 0, 0] + 0.5 - height / 2
    assert abs((found - expected[inner]).mean()) < 0.15  # values are rounded; half a pixel off would be 0.5
    pixels = drawn(1, width, height)
    turned = np.ascontiguousarray(pixels[::-1, ::-1])
    difference = rescaled_crop(pixels, CROP, scale)[::-1, ::-1].astype(int) - rescaled_crop(turned, CROP, scale)
    assert np.abs(difference).max() <= 2  # halves are rounded upwards in both
    assert np.abs(difference).mean() < 0.05


def test_without_a_scale_nothing_changes() -> None:
    pixels = drawn(0, 151, 140)
    crop, size = decode_crop(encoded(pixels), CROP)
    assert size == (151, 140)
    np.testing.assert_array_equal(crop, centre_crop(pixels, CROP))
    np.testing.assert_array_equal(decode_crop(encoded(pixels), CROP, 1.0)[0], crop)


@pytest.mark.parametrize(
    ("width", "height", "scale", "after"),
    [
        (168, 168, 1 / 1.5, (112, 112)),
        (90, 200, 1.25, (112, 250)),
        (140, 139, 0.8029, (112, 112)),
        (29, 28, 4, (116, 112)),
    ],
)
def test_the_smallest_pictures_that_do(width: int, height: int, scale: float, after: tuple[int, int]) -> None:
    """Rounding may not make them fail: the third's height is 111.6 pixels, the first's 112 but for the last digit."""
    pixels = np.full((height, width, 3), (10, 200, 90), np.uint8)
    crop, size = decode_crop(encoded(pixels), CROP, scale)
    assert size == after
    assert (crop == (10, 200, 90)).all()


@pytest.mark.parametrize(
    ("width", "height", "scale", "text"),
    [
        (166, 200, 1 / 1.5, "too_small: 166 x 200, rescaled to 111 x 133, at least 112 x 112 is needed"),
        (200, 27, 4.0, "too_small: 200 x 27, rescaled to 800 x 108, at least 112 x 112 is needed"),
        (111, 112, 1.0, "too_small: 111 x 112, at least 112 x 112 is needed"),
    ],
)
def test_too_small_after_rescaling(width: int, height: int, scale: float, text: str) -> None:
    with pytest.raises(RejectedImage) as caught:
        decode_crop(encoded(np.zeros((height, width, 3), np.uint8)), CROP, scale)
    assert str(caught.value) == text


def test_a_process_rescales_as_this_one(few: Path) -> None:
    scale = 1 / 1.5
    names = sorted(path.name for path in (few / "S001").iterdir())[:3]
    decoder = DecodingProcess(few.resolve(), CROP, scale)
    try:
        found = decoder.look(few / "S001", names)
    finally:
        decoder.close()
    for name, one in zip(names, found, strict=True):
        here = look(few / "S001" / name, few.resolve(), CROP, scale)
        assert isinstance(one.crop, np.ndarray)
        np.testing.assert_array_equal(one.crop, here.crop)
        assert (one.content, one.measures, tuple(one.pixels)) == (here.content, here.measures, (SIZE, SIZE))
        assert one.content == look(few / "S001" / name, few.resolve(), CROP).content  # of the file, whatever the scale


@pytest.mark.parametrize(
    ("pixel_size", "scale"),
    [
        (None, 1.0),
        (0.1, 1.0),
        (0.10009, 1.0),
        (0.09991, 1.0),
        (0.1002, 1.002),
        (0.0998, 0.998),
        (0.4, 4.0),
        (0.025, 0.25),
    ],
)
def test_the_scale(pixel_size: float | None, scale: float) -> None:
    found = picture_scale(pixel_size, Magnification(224, KNOWN))
    assert found == pytest.approx(scale, rel=1e-12)
    assert (found == 1) == (scale == 1)


@pytest.mark.parametrize("pixel_size", [100.0, 10.0, 0.41, 0.024, 1e-4, 5e-324, 1e300])
def test_another_unit_is_2(few: Path, tiny: Path, tmp_path: Path, pixel_size: float) -> None:
    with pytest.raises(UsageError, match="micrometres per pixel, not nanometres") as caught:
        score(few, tmp_path / "out", bundle=tiny, pixel_size=pixel_size)
    assert caught.value.exit_code == 2
    assert str(caught.value).startswith(f"--pixel-size {pixel_size:g}: ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_bundle_that_does_not_know_is_2(few: Path, tmp_path: Path, dry_run: bool) -> None:
    assert load_bundle(TINY).manifest.magnification.pixel_size is None
    with pytest.raises(UsageError, match=r"^--pixel-size 0\.1: this bundle does not state a pixel size") as caught:
        score(few, tmp_path / "out", bundle=TINY, pixel_size=KNOWN, dry_run=dry_run)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("pixel_size", [0.0, -0.1, math.nan, math.inf])
def test_what_is_no_size_is_2(few: Path, tiny: Path, tmp_path: Path, pixel_size: float) -> None:
    with pytest.raises(UsageError, match="--pixel-size: must be a number above 0"):
        score(few, tmp_path / "out", bundle=tiny, pixel_size=pixel_size)
    line = [str(few), str(tmp_path / "out"), "--device=cpu", "--bundle", str(tiny), f"--pixel-size={pixel_size}"]
    done = CliRunner().invoke(command, line)
    assert (done.exit_code == 2) or isinstance(done.exception, UsageError)


def test_on_the_command_line_and_in_the_record(few: Path, tiny: Path, tmp_path: Path) -> None:
    line = [str(few), str(tmp_path / "out"), "--device=cpu", "--bundle", str(tiny), "--reference-date=2019-07-01"]
    done = CliRunner().invoke(command, [*line, "--pixel-size", "0.06667"], standalone_mode=False)
    assert done.return_value == 0
    outcome = Outcome(0, tmp_path / "out")
    assert outcome.record["options"]["pixel_size"] == 0.06667
    assert outcome.record["unusual_picture_sizes"] == {}
    assert score(few, tmp_path / "other", bundle=tiny).record["options"]["pixel_size"] is None


def test_pictures_among_them_of_yet_another_size_are_unusual(few: Path, tiny: Path, tmp_path: Path) -> None:
    """Sizes are those after rescaling: 300 of the other camera's pixels are 200 of the training's."""
    for path in few.rglob("*.*"):
        target = tmp_path / "cohort" / path.relative_to(few)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    replace_picture(tmp_path / "cohort/S002/000001.jpg", encoded(drawn(0, 300, 216), "JPEG"))
    replace_picture(tmp_path / "cohort/S002/000011.jpg", encoded(drawn(0, 160, 216), "JPEG"))
    outcome = score(tmp_path / "cohort", tmp_path / "out", bundle=tiny, pixel_size=KNOWN / ENLARGED)
    assert outcome.record["unusual_picture_sizes"] == {"200 x 144": 1}
    assert outcome.record["unusual_picture_size"] == ["S002"]
    assert outcome.images_of("S002")["000011.jpg"] == ("rejected", "too_small")
    assert outcome.record["image_reasons"] == {"too_small": 1}


def test_one_that_is_the_bundles_own_changes_no_byte_of_the_tables(few: Path, tiny: Path, tmp_path: Path) -> None:
    declared = score(few, tmp_path / "declared", bundle=tiny, pixel_size=KNOWN * 1.0005)
    assert declared.csv_bytes == score(few, tmp_path / "silent", bundle=tiny).csv_bytes


@pytest.mark.parametrize(
    ("before", "now", "kept"),
    [(KNOWN / 1.5, KNOWN / 1.5, 2), (KNOWN / 1.5, KNOWN / 1.4, 0), (None, KNOWN / 1.5, 0), (KNOWN / 1.5, None, 0)],
)
def test_resuming_with_another_one_starts_over(
    few: Path, tiny: Path, tmp_path: Path, before: float | None, now: float | None, kept: int
) -> None:
    cut(few, tmp_path / "out", 2, bundle=tiny, pixel_size=before)
    outcome = score(few, tmp_path / "out", bundle=tiny, pixel_size=now)
    assert outcome.record["kept_from_earlier_starts"] == kept
    assert outcome.record["started_over"] == ("" if kept else "the unfinished run had another pixel_size")
    assert outcome.csv_bytes == score(few, tmp_path / "whole", bundle=tiny, pixel_size=now).csv_bytes
