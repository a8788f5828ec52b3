"""Synthetic cohorts in the format of the public challenge: no real patients, the same files, learnable.

Every picture, and every patient given the label, depends only on the seed and the patient's position.
Geometry is in pixels of the analyser's picture and does not scale with `size`, which is the field of view.
"""

import csv
import datetime
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

REFERENCE_DATE = datetime.date(2019, 7, 1)  # ages refer to this date
JPEG_QUALITY = 90
CELL_WINDOW = 112  # px, the central square that contains the whole lymphocyte
MAX_RADIUS = 53.0  # px, so that outline plus MAX_SHIFT stays inside the window
MAX_SHIFT = 2  # px, the analyser's centring is not perfect
ANGLES = 256  # an outline is a table of radii at this many angles
RED_SPACING = 44  # px between red cells before random displacement

# Colours as RGB, 0-255. Ink is what the stain subtracts from the background.
BACKGROUND = np.array([252, 238, 214], np.float32)
RED_CELL_INK = np.array([66, 90, 46], np.float32)
CYTOPLASM = np.array([168, 158, 204], np.float32)
STAIN_SD_PATIENT, STAIN_SD_PICTURE = 5.0, 2.0  # RGB levels

# The last word of each seed keeps the random streams independent: numpy pads [seed, a, b] to [seed, a, b, 0].
_STREAM_STAIN, _STREAM_LABELS, _STREAM_PATIENT = 1, 2, 3

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Morphology:
    nucleus_radius: float  # px, mean
    cell_ratio: float  # cell radius over nucleus radius
    lobes: float  # amplitude of the outline's waves, share of the radius
    notch: float  # depth of the indentation, share of the radius
    grain: int  # texture cells along the window's side: fewer is coarser
    contrast: float  # RGB levels, standard deviation of the texture
    nucleus: tuple[int, int, int]  # RGB


MORPHOLOGIES = (
    Morphology(27, 1.16, 0.02, 0.04, 36, 7, (58, 26, 98)),  # 0 small mature: little cytoplasm
    Morphology(31, 1.55, 0.04, 0.08, 28, 10, (80, 44, 122)),  # 1 large, much cytoplasm: reactive
    Morphology(37, 1.22, 0.07, 0.28, 28, 11, (74, 36, 116)),  # 2 large irregular nucleus: malignant-like
    Morphology(32, 1.25, 0.03, 0.10, 12, 20, (66, 32, 110)),  # 3 medium, coarse texture
)
# Dirichlet parameters of the mixture of kinds. For a malignant patient CLONE is added to kind 2 or 3.
MIXTURE_REACTIVE = (3.0, 3.0, 1.0, 1.0)
MIXTURE_MALIGNANT = (1.2, 1.2, 0.8, 0.8)
CLONE = 5.0


@dataclass(frozen=True)
class SyntheticPatient:
    patient_id: str
    label: int  # 1 malignant, 0 reactive
    sex: str  # M or F
    birth_date: datetime.date
    lymph_count: float  # 10^9/L, one decimal
    kinds: tuple[int, ...]  # morphological kind of each picture, 0-3


@functools.cache
def _polar_grid() -> tuple[Floats, npt.NDArray[np.intp]]:
    """Distance in px from the window's centre and index of the angle, each (CELL_WINDOW, CELL_WINDOW)."""
    offset = np.arange(CELL_WINDOW) - (CELL_WINDOW - 1) / 2
    y, x = np.meshgrid(offset, offset, indexing="ij")
    angle = np.arctan2(y, x) % (2 * np.pi)
    return np.hypot(x, y).astype(np.float32), (angle * ANGLES / (2 * np.pi)).astype(np.intp) % ANGLES


def _noise(rng: np.random.Generator, cells: int, size: int) -> Floats:
    """Smooth noise of unit variance at its (cells, cells) nodes, upsampled: (size, size)."""
    nodes = Image.fromarray(rng.standard_normal((cells, cells), dtype=np.float32))
    return np.asarray(nodes.resize((size, size), Image.Resampling.BICUBIC))


def _outlines(shape: Morphology, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Radius of nucleus and of cell at each angle, in px, each (ANGLES,); the cell always encloses the nucleus."""
    theta = np.arange(ANGLES) * (2 * np.pi / ANGLES)
    order = np.arange(2, 6)[:, None]  # (waves, 1)
    phase = rng.uniform(0, 2 * np.pi, (2, len(order), 1))
    swing = rng.normal(0, 1, (2, len(order), 1)) / np.sqrt(order)
    waves = (swing * np.cos(order * theta + phase)).sum(axis=1)  # (2, ANGLES)

    from_notch = np.angle(np.exp(1j * (theta - rng.uniform(0, 2 * np.pi))))
    notch = shape.notch * rng.uniform(0.5, 1.5) * np.exp(-((from_notch / 0.35) ** 2))
    radius = shape.nucleus_radius * rng.normal(1, 0.05)
    # The limits keep the nucleus at a plausible size, with space for at least a rim of cytoplasm.
    nucleus = np.clip(radius * (1 + shape.lobes * waves[0] - notch), 12, MAX_RADIUS - 3)

    ratio = 1 + (shape.cell_ratio - 1) * rng.uniform(0.7, 1.3)
    # A wave of order one shifts the cell relative to its nucleus, which is rarely in the middle.
    eccentric = rng.uniform(0.2, 0.8) * (ratio - 1) / ratio * np.cos(theta - rng.uniform(0, 2 * np.pi))
    cell = np.clip(radius * ratio * (1 + eccentric + 0.025 * waves[1]), nucleus + 1.5, MAX_RADIUS)
    return nucleus.astype(np.float32), cell.astype(np.float32)


def _red_cells(rng: np.random.Generator, size: int, keep_clear: float) -> Floats:
    """Density of the red cells, 0 to 1, (size, size); none reaches into the central `keep_clear` px."""
    half = (size + 1) // 2  # drawn at half resolution: fast, and upsampling softens the edges
    picture = Image.new("L", (half, half))
    draw = ImageDraw.Draw(picture)
    # Rows are staggered and every cell is displaced at random, so that no lattice is visible.
    across = np.arange(-0.5, size / RED_SPACING + 0.5)
    y, x = np.meshgrid(across, across, indexing="ij")
    x = x + 0.5 * (np.arange(len(across))[:, None] % 2)
    centres = np.stack([x, y], axis=-1).reshape(-1, 2) * RED_SPACING
    centres = centres + rng.uniform(-12, 12, centres.shape)  # (cells, 2)
    radii = rng.normal(20, 1.5, (len(centres), 1)) * rng.normal(1, 0.05, centres.shape)  # (cells, 2): ellipses
    fill = rng.uniform(0.75, 1, len(centres))
    far = np.hypot(*(centres - size / 2).T) > keep_clear + radii.max(axis=1)
    seen = far & (rng.random(len(centres)) < 0.8)
    cells = np.column_stack([centres / 2, radii / 2, 255 * fill])[seen]  # (cells, 5)
    for cx, cy, rx, ry, density in cells.tolist():
        for share, level in ((1.0, 1.0), (0.5, 0.8), (0.4, 0.55), (0.3, 0.3)):  # the centre is paler
            box = (cx - rx * share, cy - ry * share, cx + rx * share, cy + ry * share)
            draw.ellipse(box, fill=int(density * level))
    picture = picture.filter(ImageFilter.BoxBlur(1))
    return np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC), np.float32) / np.float32(255)


def draw_cell(kind: int, rng: np.random.Generator, size: int = 224, stain: npt.ArrayLike | None = None) -> Pixels:
    """A lymphocyte of a kind (0-3) among red cells: (size, size, 3) uint8, the cell inside the central 112 x 112.

    `stain`, (3,), in RGB levels, is added to the whole picture: a patient's smear. Raises ValueError for an unknown
    kind or a size below 112.
    """
    return draw_cell_and_outline(kind, rng, size, stain)[0]


def draw_cell_and_outline(
    kind: int, rng: np.random.Generator, size: int = 224, stain: npt.ArrayLike | None = None
) -> tuple[Pixels, npt.NDArray[np.bool_]]:
    """The picture of draw_cell, and the mask of its lymphocyte, nucleus and cytoplasm: (size, size) bool."""
    if not 0 <= kind < len(MORPHOLOGIES):
        raise ValueError(f"kind {kind}: expected 0 to {len(MORPHOLOGIES) - 1}")
    if size < CELL_WINDOW:
        raise ValueError(f"size {size}: a picture has at least {CELL_WINDOW} px a side")
    shape = MORPHOLOGIES[kind]
    tint = rng.normal(0, STAIN_SD_PICTURE, 3) + (0 if stain is None else np.asarray(stain))  # (3,)
    nucleus, cell = _outlines(shape, rng)

    light = 1 + 0.008 * _noise(rng, 4, size)
    density = _red_cells(rng, size, float(cell.max()) + MAX_SHIFT)
    canvas = np.empty((size, size, 3), np.float32)
    # Per channel: numpy is several times slower if the last, broadcast axis has only 3 elements.
    for channel in range(3):
        canvas[..., channel] = light * (BACKGROUND[channel] + tint[channel]) - density * RED_CELL_INK[channel]

    distance, angle = _polar_grid()
    in_nucleus = np.clip((nucleus[angle] - distance) / 1.5 + 0.5, 0, 1)  # (112, 112), soft over 1.5 px
    in_cell = np.clip((cell[angle] - distance) / 1.5 + 0.5, 0, 1)
    chromatin, granules = shape.contrast * _noise(rng, shape.grain, CELL_WINDOW), 6 * _noise(rng, 20, CELL_WINDOW)
    depth = rng.normal(0, 5, 2)  # RGB levels: variation in the darkness of nucleus and cytoplasm
    top, left = (size - CELL_WINDOW) // 2 + rng.integers(-MAX_SHIFT, MAX_SHIFT + 1, 2)
    top, left = (int(np.clip(edge, 0, size - CELL_WINDOW)) for edge in (top, left))
    window = canvas[top : top + CELL_WINDOW, left : left + CELL_WINDOW]
    for channel in range(3):
        under = window[..., channel]
        cytoplasm = CYTOPLASM[channel] + tint[channel] + depth[0] + granules
        under += in_cell * (cytoplasm - under)
        under += in_nucleus * (shape.nucleus[channel] + tint[channel] + depth[1] + chromatin - under)
    mask = np.zeros((size, size), np.bool_)
    mask[top : top + CELL_WINDOW, left : left + CELL_WINDOW] = in_cell >= 0.5
    return np.clip(canvas, 0, 255).astype(np.uint8), mask


def _make_patient(index: int, label: int, seed: int, images: tuple[int, int]) -> SyntheticPatient:
    rng = np.random.default_rng([seed, index, 0, _STREAM_PATIENT])
    mixture = np.array(MIXTURE_MALIGNANT if label else MIXTURE_REACTIVE)
    if label:
        mixture[rng.integers(2, 4)] += CLONE
    shares = rng.dirichlet(mixture)
    age = np.clip(rng.normal(70, 11) if label else rng.normal(50, 16), 18, 98)  # years
    count = rng.lognormal(np.log(13), 0.8) if label else rng.lognormal(np.log(5.5), 0.25)  # 10^9/L
    kinds = rng.choice(len(MORPHOLOGIES), size=rng.integers(images[0], images[1] + 1), p=shares)
    return SyntheticPatient(
        patient_id=f"S{index + 1:03d}",
        label=label,
        sex="M" if rng.random() < 0.5 else "F",
        birth_date=REFERENCE_DATE - datetime.timedelta(days=round(age * 365.25)),
        lymph_count=round(float(np.clip(count, 4, 400)), 1),
        kinds=tuple(kinds.tolist()),
    )


def make_patients(
    n: int, seed: int, images: tuple[int, int] = (16, 40), malignant_share: float = 0.6
) -> list[SyntheticPatient]:
    """n patients S001, S002, ...; exactly round(n * malignant_share) malignant, `images` pictures each (inclusive)."""
    if n < 1 or not 1 <= images[0] <= images[1] or not 0 <= malignant_share <= 1:
        raise ValueError(f"cannot make {n} patients of {images} pictures, share {malignant_share} malignant")
    labels = np.arange(n) < round(n * malignant_share)
    np.random.default_rng([seed, 0, 0, _STREAM_LABELS]).shuffle(labels)
    return [_make_patient(index, int(label), seed, images) for index, label in enumerate(labels)]


def _write_table(path: Path, patients: Sequence[SyntheticPatient], labels: bool, centres: Sequence[str] | None) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        further = ["CENTRE"] if centres else []
        table.writerow(["", "ID", *(["LABEL"] if labels else []), "GENDER", "DOB", "LYMPH_COUNT", *further])
        for index, patient in enumerate(patients):
            born, label = patient.birth_date, [patient.label] if labels else []
            dob = f"{born.month}/{born.day}/{born.year}"  # strftime would pad with zeros
            centre = [centres[index]] if centres else []
            count = f"{patient.lymph_count:.1f}"
            table.writerow([index, patient.patient_id, *label, patient.sex, dob, count, *centre])


def write_cohort(
    folder: Path,
    patients: Sequence[SyntheticPatient],
    *,
    seed: int,
    labels: bool = True,
    size: int = 224,
    centres: Sequence[str] | None = None,
    stains: Mapping[str, Sequence[float]] | None = None,
) -> None:
    """Write clinical_annotation.csv and a folder of JPEGs per patient; FileExistsError if `folder` is not empty.

    A picture depends only on (seed, position of the patient in `patients`, position of the picture), its kind, and the
    stain of its centre.

    Args:
        centres: of each patient, for the column CENTRE; None: there is no such column.
        stains: of centres, (3,) in RGB levels, added to all their pictures; where none is given, 0.
    """
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty: name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    _write_table(folder / "clinical_annotation.csv", patients, labels, centres)
    for index, patient in enumerate(patients):
        stain = np.random.default_rng([seed, index, 0, _STREAM_STAIN]).normal(0, STAIN_SD_PATIENT, 3)
        if centres and stains and centres[index] in stains:
            stain = stain + np.asarray(stains[centres[index]])
        (folder / patient.patient_id).mkdir()
        for number, kind in enumerate(patient.kinds):
            pixels = draw_cell(kind, np.random.default_rng([seed, index, number]), size, stain=stain)
            Image.fromarray(pixels).save(folder / patient.patient_id / f"{number:06d}.jpg", quality=JPEG_QUALITY)


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--patients", "n", type=click.IntRange(min=1), default=6, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--images", nargs=2, type=click.IntRange(min=1), default=(16, 40), show_default=True, help="Fewest, most")
@click.option("--labels/--no-labels", default=True, show_default=True, help="Write the column LABEL")
def main(folder: Path, n: int, seed: int, images: tuple[int, int], labels: bool) -> None:
    """Write a synthetic cohort to FOLDER, which must be new or empty."""
    if images[0] > images[1]:
        raise click.UsageError(f"--images {images[0]} {images[1]}: the fewest come first")
    patients = make_patients(n, seed, images)
    try:
        write_cohort(folder, patients, seed=seed, labels=labels)
    except FileExistsError as error:
        raise click.UsageError(str(error)) from error
    click.echo(f"{folder}: {n} patients, {sum(len(patient.kinds) for patient in patients)} pictures")


if __name__ == "__main__":
    main()
