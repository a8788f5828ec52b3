"""What a run notices when pictures change: real patients, blurred, rescaled, recoloured and so on, and scored.

    python -m tests.changed_pictures TRAINSET ORIGINALS [NIGHTS]

TRAINSET: all training patients, at least 128 x 128. ORIGINALS: some of them with their whole pictures, which a reduced
scale needs. Prints two tables: how many patients are held up (`--ood`), and in how many of NIGHTS nights of 20 and of
100 patients drift is found. The bundle was trained on these patients, so they are compared with themselves before the
change, and nights are drawn from them without replacement: where nothing changes nothing is found. So false alarms
come last: nights of patients against all the others. How many are held up out of fold, `reference.usual.scores` say.
"""

import csv
import datetime as dt
import functools
import io
import logging
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Container, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from infer.bundle.load import REFERENCE, load_bundle
from infer.bundle.manifest import OperatingPoint
from infer.bundle.reference import LEVELS
from infer.drift.measures import DECISIONS, Values
from infer.drift.night import tonight
from infer.options import Options
from infer.output.kept import KEPT, read_results
from infer.run import run
from infer.scoring.ensemble import decide
from infer.scoring.result import PatientResult

MOST_PICTURES, FEWEST_PICTURES = 40, 10  # a patient, spread over all
FALSE_ALARM_NIGHTS = 1_000
DATE = dt.date(2019, 7, 1)
TABLE = "clinical_annotation.csv"
Pixels = npt.NDArray[np.uint8]
Change = Callable[[Image.Image], Image.Image]


def blurred(sigma: float) -> Change:
    return lambda image: image.filter(ImageFilter.GaussianBlur(sigma))


def rescaled(factor: float, mirrored: int = 0) -> Change:
    """Rescale; pictures that would get too small are first continued by so many mirrored pixels on each side."""

    def change(image: Image.Image) -> Image.Image:
        pixels = np.pad(np.asarray(image), ((mirrored, mirrored), (mirrored, mirrored), (0, 0)), mode="reflect")
        side = round(len(pixels) * factor)
        return Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)

    return change


def compressed(quality: int) -> Change:
    def change(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file).convert("RGB")

    return change


def grey(image: Image.Image) -> Image.Image:
    return image.convert("L").convert("RGB")


def turned_in_hue(degrees: float) -> Change:
    def change(image: Image.Image) -> Image.Image:
        hue, saturation, value = image.convert("HSV").split()
        hue = hue.point(lambda level: (level + round(degrees / 360 * 256)) % 256)
        return Image.merge("HSV", (hue, saturation, value)).convert("RGB")

    return change


def of_pixels(change: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]) -> Change:
    """A change of levels 0 to 255, (height, width, 3)."""
    return lambda image: Image.fromarray(np.rint(change(np.asarray(image, np.float64)).clip(0, 255)).astype(np.uint8))


def stained(factor: float) -> Change:
    """The optical density relative to the bare slide, multiplied: the slide stays as it is."""

    def change(pixels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        bare = np.quantile(pixels.reshape(-1, 3), 0.98, axis=0)
        passed = np.minimum((pixels + 1) / (bare + 1), 1)
        return np.asarray(passed**factor * (bare + 1) - 1)

    return of_pixels(change)


def gained(*factors: float) -> Change:
    return of_pixels(lambda pixels: pixels * np.array(factors))


def gamma(exponent: float) -> Change:
    return of_pixels(lambda pixels: 255 * (pixels / 255) ** exponent)


def noisy(levels: float) -> Change:
    return of_pixels(lambda pixels: pixels + np.random.default_rng(0).normal(0, levels, pixels.shape))


UNCHANGED, COUNT, COUNT_FACTOR = "nothing", "count x 1.5", 1.5
CLASSES = "the commonest cell class left out"
CHANGES: dict[str, Change] = {
    UNCHANGED: lambda image: image,
    "blur, sigma 1": blurred(1),
    "blur, sigma 2": blurred(2),
    "scale 1.25": rescaled(1.25),
    "scale 1.5": rescaled(1.5),
    "scale .8 (edges mirrored)": rescaled(0.8, 8),
    "grey": grey,
    "hue +10 degrees": turned_in_hue(10),
    "hue -20 degrees": turned_in_hue(-20),
    "stain x 1.3": stained(1.3),
    "stain x .75": stained(0.75),
    "gamma .7": gamma(0.7),
    "gamma 1.4": gamma(1.4),
    "red x .95, blue x 1.05": gained(0.95, 1, 1.05),
    "light x .9": gained(0.9, 0.9, 0.9),
    "noise, 8 levels": noisy(8),
    "JPEG quality 30": compressed(30),
    "JPEG quality 60": compressed(60),
    COUNT: lambda image: image,
    CLASSES: lambda image: image,
}
OF_ORIGINALS: dict[str, Change] = {"scale .67": rescaled(0.67), "scale .8": rescaled(0.8)}


def write_changed(
    cohort: Path, folder: Path, change: Change, count_factor: float = 1.0, left_out: Container[tuple[str, str]] = ()
) -> None:
    """A cohort with changed pictures, as PNG, with its counts multiplied, without some (patient, picture)."""
    with (cohort / TABLE).open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    rows = [row for row in rows if (cohort / row["ID"]).is_dir()]
    for row in rows:
        row["LYMPH_COUNT"] = str(float(row["LYMPH_COUNT"]) * count_factor)
        (folder / row["ID"]).mkdir(parents=True)
        files = sorted((cohort / row["ID"]).iterdir())
        chosen = np.linspace(0, len(files) - 1, min(MOST_PICTURES, len(files))).astype(int)
        for path in (files[index] for index in chosen):
            if (row["ID"], f"{path.stem}.png") in left_out:
                continue
            with Image.open(path) as image:
                change(image.convert("RGB")).save(folder / row["ID"] / f"{path.stem}.png", compress_level=1)
    with (folder / TABLE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def scored(
    cohort: Path, change: Change, count_factor: float = 1.0, left_out: Container[tuple[str, str]] = ()
) -> list[PatientResult]:
    """What a run says of the changed patients; those without a result have no scores."""
    with tempfile.TemporaryDirectory() as place:
        patients, out = Path(place) / "patients", Path(place) / "out"
        write_changed(cohort, patients, change, count_factor, left_out)
        run(Options(patients, out, device="cpu", reference_date=DATE, ood="warn"))
        number = len([path for path in patients.iterdir() if path.is_dir()])
        results = list(read_results(out / KEPT, number))
        shutil.rmtree(out)
    return results


def of_commonest_class(results: Sequence[PatientResult]) -> set[tuple[str, str]]:
    """Patient and name of every picture of the class that is commonest over all, but of patients who need them."""
    classes = Counter(image.values.get("cell_class") for one in results for image in one.images)
    (commonest, _), *_ = classes.most_common()
    found = set()
    for one in results:
        names = {(one.patient_id, image.image) for image in one.images if image.values.get("cell_class") == commonest}
        if len(one.images) - len(names) >= FEWEST_PICTURES:
            found |= names
    return found


def held_up(results: Sequence[PatientResult]) -> tuple[float, str]:
    """Share of patients held up or without a result, and what is most unusual about most of them."""
    named = Counter(one.unusual[0] for one in results if one.unusual)
    held = sum(one.scores is None or bool(one.unusual) for one in results)
    return held / len(results), named.most_common(1)[0][0] if named else ""


def decided_otherwise(results: Sequence[PatientResult], before: Sequence[PatientResult]) -> float:
    """Share of patients whose probability alone would give another decision than before."""
    return float(np.mean([by_number(now) != by_number(then) for now, then in zip(results, before, strict=True)]))


def found(results: Sequence[PatientResult], before: Sequence[PatientResult], count: int, nights: int) -> float:
    """Share of nights in which drift is found, of `before` as training patients."""
    rng = np.random.default_rng(0)
    known, now = measures_of(before), measures_of(results)
    reference = {name: np.quantile(of, LEVELS).tolist() for name, of in known.items()}
    changed = 0
    for _ in range(nights):
        values = Values()
        for index in rng.choice(len(results), count, replace=False):
            values.add({name: of[index] for name, of in now.items()}, None, None)
        changed += bool(tonight(reference, len(before), values).changed)
    return changed / nights


def false_alarms(results: Sequence[PatientResult], count: int, nights: int) -> float:
    """Share of nights in which drift is found though nothing changed: of each night's patients against all the others.

    The patients are dealt anew for each night, so both sides come from one hospital and share no patient.
    """
    rng = np.random.default_rng(0)
    known = {name: np.array(of) for name, of in measures_of(results).items()}
    found = 0
    for _ in range(nights):
        order = rng.permutation(len(results))
        night, others = order[:count], order[count:]
        reference = {name: np.quantile(of[others], LEVELS).tolist() for name, of in known.items()}
        values = Values()
        for index in night:
            values.add({name: float(of[index]) for name, of in known.items()}, None, None)
        found += bool(tonight(reference, len(others), values).changed)
    return found / nights


def measures_of(results: Sequence[PatientResult]) -> dict[str, list[float]]:
    """Each measure of all patients, the probability and the decision by it among them; nan where there is none."""
    names = {name: None for one in results for name in one.measures}
    found = {name: [one.measures.get(name, np.nan) for one in results] for name in names}
    found["probability"] = [one.scores.probability if one.scores else np.nan for one in results]
    for decision in DECISIONS:
        found[f"decision_{decision}"] = [float(by_number(one) == decision) for one in results]
    return found


def by_number(result: PatientResult) -> str:
    """The decision by the probability alone."""
    return decide(result.scores.probability, thresholds()) if result.scores else ""


@functools.cache
def thresholds() -> OperatingPoint:
    return load_bundle(REFERENCE).manifest.ensemble.operating_points["balanced"]


def main(trainset: Path, originals: Path, nights: int = 50) -> None:
    logging.disable(logging.INFO)
    print("| change | patients | held up | most unusual | decided otherwise by the number | drift at 20 | at 100 |")
    print("|---|---|---|---|---|---|---|")
    alarms: list[str] = []
    for cohort, changes in ((trainset, CHANGES), (originals, {UNCHANGED: CHANGES[UNCHANGED]} | OF_ORIGINALS)):
        before = scored(cohort, CHANGES[UNCHANGED])
        for name, change in changes.items():
            results = before
            if name != UNCHANGED:
                left_out = of_commonest_class(before) if name == CLASSES else ()
                results = scored(cohort, change, COUNT_FACTOR if name == COUNT else 1.0, left_out)
            held, what = held_up(results)
            other = decided_otherwise(results, before)
            power = [
                f"{found(results, before, count, nights):.0%}" if len(results) >= count else "" for count in (20, 100)
            ]
            print(f"| {name} | {len(results)} | {held:.1%} | {what} | {other:.0%} | {' | '.join(power)} |", flush=True)
        for count in (20, 100) if cohort == trainset else ():
            alarms.append(f"{count} patients: {false_alarms(before, count, FALSE_ALARM_NIGHTS):.1%}")
    print(f"\nFalse alarms in {FALSE_ALARM_NIGHTS:,} nights of these patients against the others, {', '.join(alarms)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
