"""`make bench`: pictures a second, files to CSV beside networks, each graph and decoding alone, in one run."""

import csv
import json
import logging
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import click
import numpy as np

from infer.bundle import REFERENCE, load_bundle
from infer.images import read_crop
from infer.manifest import GRAPHS
from infer.models import Networks
from infer.run import Options, run
from infer.sessions import CPU, Device, Graph, available_cpus
from tests.synthetic import REFERENCE_DATE, make_patients, write_cohort


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--patients", default=12, show_default=True)
@click.option("--batch-size", default=32, show_default=True)
@click.option("--rounds", default=5, show_default=True)
def bench(folder: Path, patients: int, batch_size: int, rounds: int) -> None:
    """Median pictures a second over some rounds of each, in turn."""
    logging.disable()
    shutil.rmtree(folder, ignore_errors=True)
    write_cohort(folder / "patients", make_patients(patients, seed=1, images=(60, 100)), seed=1, labels=False)
    files = sorted((folder / "patients").glob("*/*.jpg"))
    bundle = load_bundle(REFERENCE)
    device = Device(CPU, "bench")
    networks = Networks(bundle, device, batch_size, available_cpus())
    graphs = {
        name: Graph(name, bundle.graphs[name], device, available_cpus())
        for name in GRAPHS
        if not name.endswith("_head.onnx")  # those see patients, not pictures
    }
    size = bundle.manifest.crop_size
    root = (folder / "patients").resolve()
    crops = np.stack([read_crop(path, root, size) for path in files[:batch_size]])
    clinical = np.ones((len(crops), 3), np.float32)
    options = Options(
        folder / "patients", folder / "out", device="cpu", reference_date=REFERENCE_DATE, batch_size=batch_size
    )

    def networks_alone() -> None:
        for _ in range(len(files) // batch_size):
            networks.score_images(crops, clinical)

    def one_graph(name: str) -> None:
        inputs = {"images": crops, "clinical": clinical} if name == "baseline.onnx" else {"images": crops}
        for _ in range(len(files) // batch_size):
            graphs[name].run(**inputs)

    def decoding_alone() -> None:
        with ThreadPoolExecutor(available_cpus()) as pool:
            list(pool.map(lambda path: read_crop(path, root, size), files))

    parts: dict[str, tuple[Callable[[], object], int]] = {
        "files to CSV": (lambda: run(options), len(files)),
        "networks alone": (networks_alone, len(files) // batch_size * batch_size),
        **{f"{name} alone": (partial(one_graph, name), len(files) // batch_size * batch_size) for name in graphs},
        "decoding alone": (decoding_alone, len(files)),
    }
    speeds: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(rounds):
        for name, (part, pictures) in parts.items():
            start = time.perf_counter()
            part()
            speeds[name].append(pictures / (time.perf_counter() - start))
    medians = {name: round(statistics.median(values)) for name, values in speeds.items()}
    (folder / "bench.json").write_text(json.dumps(medians, indent=1))
    writer = csv.writer(sys.stdout, delimiter="\t", lineterminator="\n")
    writer.writerow(["part", f"pictures/s, median of {rounds}"])
    writer.writerows(medians.items())


if __name__ == "__main__":
    bench()
