"""`make bench-ray`: two actors against one process, and what the driver itself costs.

Both are timed from their first finished patient to their last, in turn in one run: a night is long, and what starting
costs is said apart. The driver's cost is taken from whole runs whose actors answer at once, with the result of a drawn
patient: the processor time of the driver's process, journal and tables included, at two numbers of patients. Their
difference is what a patient costs.
"""

import logging
import shutil
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from unittest.mock import patch

import click
import msgspec

from infer.bundle.load import REFERENCE, load_bundle
from infer.cluster import connect, pool
from infer.cluster.driver import Driver
from infer.cluster.scorer import Scorer
from infer.cluster.work import Answer, Hello, answer_text, patient_of
from infer.cohort.patients import read_cohort
from infer.engine.fallback import Engine
from infer.engine.sessions import CPU, Device
from infer.options import Options
from infer.run import run
from infer.scoring.cohort import score_patients
from infer.scoring.result import PatientResult
from tests.ray_work import work_of
from tests.synthetic import REFERENCE_DATE, make_patients, write_cohort

ANSWER = "answer.json"
NOBODY = "P0000000"  # in the answer, in place of the patient's ID
OF_ONE_CORE = (
    2.8,
    55.0,
)  # patients of 80 pictures a second: an actor on two cores, one on a GPU (infer/README.md, Speed)


class Ready(Scorer):
    """Answers at once."""

    def hello(self) -> str:
        self._answer = (self._work.patients / ANSWER).read_text()
        return answer_text(Hello("bench", "usual", CPU, "", "int8", 1, ()))

    def score(self, patient: str) -> str:
        return self._answer.replace(NOBODY, patient_of(patient).patient_id)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--patients", default=16, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--many", default=4000, show_default=True, help="Patients for the driver's cost.")
@click.option("--actors", default=[2, 4, 8], show_default=True, multiple=True, help="That answer at once.")
def bench(folder: Path, patients: int, rounds: int, many: int, actors: tuple[int, ...]) -> None:
    """Print pictures a second of one process and of two actors, their ratio, and the driver's cost."""
    logging.disable()
    shutil.rmtree(folder, ignore_errors=True)
    write_cohort(folder / "patients", make_patients(patients, seed=1, images=(60, 100)), seed=1, labels=False)
    bundle = load_bundle(REFERENCE)
    cohort = read_cohort(folder / "patients", bundle.manifest.plausible, reference_date=REFERENCE_DATE)
    engine = Engine(bundle, Device(CPU, "bench"), None, 2)
    speeds: list[tuple[float, float]] = []
    starts: list[float] = []
    with connect.joined(connect.LOCAL) as ray:
        for _ in range(rounds):
            one = score_patients(cohort.folder, cohort.patients, engine, bundle.manifest, "balanced", 2)
            alone, _ = speed(one)
            driver = Driver(ray, work_of(cohort, bundle), bundle.manifest, 1, "usual")
            two, start = speed(result for _, result in driver.score(cohort.patients))
            speeds.append((alone, two))
            starts.append(start)
            click.echo(
                f"one process, two workers {alone:.0f} pictures/s; two actors {two:.0f}; ratio {two / alone:.2f}"
            )
    ratios = [two / alone for alone, two in speeds]
    click.echo(
        f"median ratio {statistics.median(ratios):.2f}; until an actor's first patient {max(starts):.1f} s at most"
    )
    (result,) = score_patients(cohort.folder, cohort.patients[:1], engine, bundle.manifest, "balanced", 2)
    for number in actors:
        tell_cost(folder / f"actors-{number}", result, number, many)


def speed(results: Iterable[PatientResult]) -> tuple[float, float]:
    """Pictures a second after the first finished patient, and the seconds until that one."""
    begin = time.monotonic()
    moments = [(time.monotonic(), len(result.images)) for result in results]
    pictures = sum(number for _, number in moments[1:])
    return pictures / (moments[-1][0] - moments[0][0]), moments[0][0] - begin


def tell_cost(folder: Path, result: PatientResult, actors: int, many: int) -> None:
    """Print what a patient costs the driver, beside so many actors that answer at once."""
    few = many // 8
    spent = [spend(folder / str(number), result, actors, number) for number in (few, many)]
    cpu, wall = ((after - before) / (many - few) for before, after in zip(*spent, strict=True))
    feeds = ", ".join(f"{1 / cpu / speed:.0f} of {speed:g} patients/s" for speed in OF_ONE_CORE)
    click.echo(
        f"{actors} actors that answer at once: {1e3 * cpu:.2f} ms of processor and {1e3 * wall:.2f} ms a patient of "
        f"{len(result.images)} pictures; {1 / wall:.0f} patients/s; one driver feeds as many actors as {feeds}"
    )


def spend(folder: Path, result: PatientResult, actors: int, patients: int) -> tuple[float, float]:
    """Seconds of processor and of the clock that the driver takes for a whole run."""
    folder.mkdir(parents=True)
    cohort = folder / "patients"
    write_table(cohort, patients)
    (cohort / ANSWER).write_text(answer_text(Answer(msgspec.structs.replace(result, patient_id=NOBODY))))
    options = Options(cohort, folder / "out", device="cpu", reference_date=REFERENCE_DATE, ray="local", threads=1)
    begin, used = time.monotonic(), time.process_time()
    with patch.object(pool, "ACTOR", Ready), patch.object(connect, "available_processors", lambda: actors):
        run(options)
    return time.process_time() - used, time.monotonic() - begin


def write_table(cohort: Path, patients: int) -> None:
    cohort.mkdir()
    rows = [f"P{number:07},{'MF'[number % 2]},1/1/{1930 + number % 60},{4 + number % 90}" for number in range(patients)]
    text = "\n".join(["ID,GENDER,DOB,LYMPH_COUNT", *rows, ""])
    (cohort / "clinical_annotation.csv").write_text(text)


if __name__ == "__main__":
    bench()
