"""Step `throughput`: pictures a second of the networks alone, and from files to CSV."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from infer.bundle.load import Bundle
from infer.engine.fallback import BATCH_SIZES, FASTEST, Engine
from infer.engine.sessions import CPU, CUDA
from infer.errors import DeviceError
from infer.machine.processors import available_processors
from infer.members.member import Precision
from tests.gpu.check import PICTURES_EACH, Check

GPU_BATCHES = (64, 256, 1024)
SECONDS = 2.0  # for the networks alone, each time
RUN_SECONDS = 10.0  # for a run, by the networks' speed
MOST_PATIENTS = 250


def throughput(check: Check) -> None:
    """Note all speeds. There is no right or wrong."""
    bundle = check.load()
    ways: list[tuple[str, str, Precision]] = [
        ("gpu", check.device, FASTEST[CUDA]),
        ("cpu", "cpu", FASTEST[CPU]),
    ]
    alone: dict[str, dict[int, float | str]] = {}
    for way, device, precision in ways:
        alone[way] = {}
        for batch in GPU_BATCHES if way.startswith("gpu") else (BATCH_SIZES[CPU],):
            try:
                alone[way][batch] = networks_alone(check, bundle, device, batch, precision)
            except DeviceError as error:
                alone[way][batch] = str(error)
            check.note("networks alone, pictures/s by batch size", alone)
    for way, device, precision in ways:
        speeds = [speed for speed in alone[way].values() if isinstance(speed, float)]
        folder = check.float32() if precision == "float32" else check.bundle
        if speeds:
            check.note(f"files to CSV, {way}", files_to_csv(check, device, folder, max(speeds)))


def networks_alone(check: Check, bundle: Bundle, device: str, batch: int, precision: Precision) -> float:
    """Pictures a second of random pictures, as many batches side by side as a run has."""
    engine = Engine(bundle, check.on(device, bundle), batch, available_processors(), precision)
    random, size = np.random.RandomState(0), bundle.manifest.crop_size
    images = random.randint(0, 256, (batch, size, size, 3)).astype(np.uint8)
    clinical = np.ones((batch, 3), np.float32)

    def until(end: float) -> int:
        count = 0
        while time.perf_counter() < end:
            engine.score_pictures(images, clinical)
            count += batch
        return count

    with ThreadPoolExecutor(engine.callers) as pool:
        for seconds in (SECONDS / 4, SECONDS):  # the first time allocates memory and chooses algorithms
            begin = time.perf_counter()
            futures = [pool.submit(until, begin + seconds) for _ in range(engine.callers)]
            pictures = sum(future.result() for future in futures)
            taken = time.perf_counter() - begin
    return pictures / taken


def files_to_csv(check: Check, device: str, bundle: Path, speed: float) -> dict[str, object]:
    """Time a run, and one of a single patient, which is mostly start-up."""
    patients = int(min(MOST_PATIENTS, max(2, speed * RUN_SECONDS / PICTURES_EACH)))
    single, out = (
        check.needed(check.many(1), check.folder / "out-one", device, bundle=bundle),
        check.folder / "out-many",
    )
    ran = check.needed(check.many(patients), out, device, bundle=bundle)
    used = ran.record["device"]
    return {
        "patients": patients,
        "pictures": patients * PICTURES_EACH,
        "seconds": ran.seconds,
        "seconds_of_one_patient": single.seconds,
        "pictures_a_second": patients * PICTURES_EACH / ran.seconds,
        "pictures_a_second_beyond_start_up": (patients - 1) * PICTURES_EACH / (ran.seconds - single.seconds),
        "provider": used["provider"],
        "precision": used["precision"],
        "batch_size": used["batch_size"],
        "downgrades": ran.record["downgrades"],
    }
