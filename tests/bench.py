"""`make bench`: pictures per second, measured in turn in one run, with the same pictures and weights.

(a) lympho from files to CSV, and the same with float32 only; (b) the plain implementation: PyTorch eager, a DataLoader,
float32; (c) our graphs fed from memory, together and one by one; (d) decoding alone. (c) and (d) together allow
1 / (1/c + 1/d), because both use all CPUs. Then the time per picture of the one process that cannot be parallelised,
with networks that take no time: a limit whatever the GPU. Last, each graph's time by operator.
"""

import csv
import json
import logging
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, cast

import click
import numpy as np
import torch

from infer.bundle.load import REFERENCE, load_bundle
from infer.bundle.manifest import Manifest, stand_ins
from infer.cohort.patient import Cohort
from infer.cohort.patients import read_cohort
from infer.engine.fallback import BATCH_SIZES, Engine
from infer.engine.networks import Images, Seen
from infer.engine.sessions import CPU, CUDA, Device, Graph
from infer.machine.processors import available_processors
from infer.members.member import Floats, Member, Opinion
from infer.options import Options
from infer.pictures.pool import DecodingPool
from infer.run import run
from infer.scoring.cohort import score_patients
from infer.scoring.stream import decoded
from tests.crops import read_crop
from tests.float32 import in_float32
from tests.operators import shares_by_operator
from tests.plain_torch import PlainNetworks, score_plainly
from tests.synthetic import REFERENCE_DATE, make_patients, write_cohort

OURS, PLAIN, NETWORKS, DECODING = "(a) files to CSV", "(b) PyTorch, files", "(c) networks", "(d) decoding"
FLOAT32 = "(a) in float32 alone"
ROOT = Path(__file__).parents[1]


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--patients", default=24, show_default=True)
@click.option("--batch-size", default=BATCH_SIZES[CPU], show_default=True)
@click.option("--rounds", default=5, show_default=True)
def bench(folder: Path, patients: int, batch_size: int, rounds: int) -> None:
    """Median pictures per second over several rounds, in each of which all variants run in turn."""
    logging.disable()
    shutil.rmtree(folder, ignore_errors=True)
    write_cohort(folder / "patients", make_patients(patients, seed=1, images=(60, 100)), seed=1, labels=False)
    files = sorted((folder / "patients").glob("*/*.jpg"))
    bundle = load_bundle(REFERENCE)
    manifest = bundle.manifest
    cohort = read_cohort(folder / "patients", manifest.plausible, reference_date=REFERENCE_DATE)
    device, cpus = Device(CPU, "bench"), available_processors()
    torch.set_num_threads(cpus)
    engine, plain = Engine(bundle, device, batch_size, cpus), PlainNetworks(bundle)
    in_int8 = stand_ins(engine.members, "int8")
    threads = cpus // engine.callers
    exact = {name for member in engine.members for name in member.graphs}
    graphs = {name: Graph(name, bundle.graphs[name], device, threads) for name in (*exact, *in_int8.values())}
    root = (folder / "patients").resolve()
    crops = np.stack([read_crop(path, root, manifest.crop_size) for path in files[:batch_size]])
    clinical = np.ones((len(crops), 3), np.float32)
    inputs, outputs = _of_pictures(engine.members, graphs, crops, clinical)
    inputs |= {other: inputs[name] for name, other in in_int8.items()}
    options = Options(
        folder / "patients", folder / "out", device="cpu", reference_date=REFERENCE_DATE, batch_size=batch_size
    )
    in_float32(bundle, folder / "float32")
    float32 = replace(options, bundle=folder / "float32", out=folder / "out-float32")
    of_plain: list[float] = []

    def plain_way() -> None:
        of_plain[:] = score_plainly(cohort, bundle, plain, engine, cpus)

    def side_by_side(work: Callable[[], object]) -> None:
        """Run as many batches in parallel as scoring does."""
        with ThreadPoolExecutor(engine.callers) as pool:
            for future in [pool.submit(work) for _ in range(len(files) // batch_size)]:
                future.result()

    def networks_alone() -> None:
        side_by_side(lambda: engine.score_pictures(crops, clinical))

    def one_graph(name: str) -> None:
        side_by_side(lambda: graphs[name].run(**inputs[name]))

    def decoding_alone() -> None:
        decoders = DecodingPool(root, manifest.crop_size, cpus)
        try:
            for _ in decoded(cohort.folder, cohort.patients, decoders, 0):
                pass
        finally:
            decoders.close()

    whole_batches = len(files) // batch_size * batch_size
    parts: dict[str, tuple[Callable[[], object], int]] = {
        OURS: (lambda: run(options), len(files)),
        FLOAT32: (lambda: run(float32), len(files)),
        PLAIN: (plain_way, len(files)),
        NETWORKS: (networks_alone, whole_batches),
        **{f"    {name}": (partial(one_graph, name), whole_batches) for name in inputs},
        DECODING: (decoding_alone, len(files)),
    }
    speeds: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(rounds):
        for name, (part, pictures) in parts.items():
            start = time.perf_counter()
            part()
            speeds[name].append(pictures / (time.perf_counter() - start))
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    allowed = [1 / (1 / c + 1 / d) for c, d in zip(speeds[NETWORKS], speeds[DECODING], strict=True)]
    ratios = {
        "(a) / what (c) and (d) allow": _median_ratio(speeds[OURS], allowed),
        "(a) / (b)": _median_ratio(speeds[OURS], speeds[PLAIN]),
        "(a) in float32 alone / (b)": _median_ratio(speeds[FLOAT32], speeds[PLAIN]),
    }
    nothing = _NoNetworks(engine.members, outputs)
    seconds_a_picture = _own_time(cohort, manifest, cpus, nothing) / len(files)
    differs = {way: _largest_difference(out, of_plain) for way, out in ((OURS, options.out), (FLOAT32, float32.out))}
    operators = {name: shares_by_operator(bundle.graphs[name], given, threads) for name, given in inputs.items()}
    seconds = _start_up(folder, 80 / (1 / (1 / medians[NETWORKS] + 1 / medians[DECODING])))
    report: dict[str, object] = {
        "pictures": len(files),
        "pictures_a_second": medians,
        "ratios": ratios,
        "seconds": seconds,
        "own_seconds_a_picture": seconds_a_picture,
    }
    report |= {"largest_difference_from_b": differs, "share_of_time": operators}
    (folder / "bench.json").write_text(json.dumps(report, indent=1))
    click.echo(f"{len(files)} pictures of {patients} patients, {cpus} CPUs, medians of {rounds} rounds")
    for name, value in medians.items():
        click.echo(f"{name:32}{value:8.0f} pictures/s")
    for name, value in ratios.items():
        click.echo(f"{name:32}{value:8.2f}")
    for name, value in seconds.items():
        click.echo(f"{name:32}{value:8.2f} s")
    click.echo(f"{'without networks and decoding':32}{1e6 * seconds_a_picture:8.0f} us per picture in one process")
    for way, value in differs.items():
        click.echo(f"{way} and (b) differ by {value:.1e} at most in a patient's probability")
    for name, shares in operators.items():
        click.echo(f"{name:32}" + ", ".join(f"{operator} {share:.0%}" for operator, share in islice(shares.items(), 4)))


def _of_pictures(
    members: tuple[Member[Any], ...], graphs: dict[str, Graph], crops: Images, clinical: Floats
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Floats]]]:
    """Inputs and outputs of each graph that runs once per batch; the others run once per patient."""
    inputs: dict[str, dict[str, Any]] = {}
    outputs: dict[str, dict[str, Floats]] = {}

    def run_and_keep(file: str, /, **given: Any) -> dict[str, Floats]:
        inputs[file] = given
        outputs[file] = dict(graphs[file].run(**given))
        return outputs[file]

    for member in members:
        member.see(run_and_keep, crops, clinical)
    return inputs, outputs


class _NoNetworks:
    """Returns outputs of the right shapes without computing anything."""

    batch_size, callers = BATCH_SIZES[CUDA], 1

    def __init__(self, members: tuple[Member[Any], ...], of_pictures: dict[str, dict[str, Floats]]) -> None:
        """Take the members, and example outputs of each graph that runs once per batch of pictures."""
        self.members = members
        self._of_pictures = of_pictures
        self._of_patients = {name: form.outputs for member in members for name, form in member.graphs.items()}

    def score_pictures(self, images: Images, clinical: Floats) -> Seen:
        def answer(file: str, /, **_: Any) -> dict[str, Floats]:
            found = self._of_pictures[file]
            return {name: np.zeros((len(images), *of.shape[1:]), of.dtype) for name, of in found.items()}

        return {member.name: member.see(answer, images, clinical) for member in self.members}

    def score_patient(self, sums: dict[str, Any], clinical: Floats) -> dict[str, Opinion]:
        def answer(file: str, /, **inputs: Floats) -> dict[str, Floats]:
            rows = len(next(iter(inputs.values())))
            return {name: np.full(rows, 0.5) for name in self._of_patients[file]}

        return {member.name: member.conclude(sums[member.name], answer, clinical) for member in self.members}


def _own_time(cohort: Cohort, manifest: Manifest, cpus: int, nothing: _NoNetworks) -> float:
    """CPU time of this process for a cohort, in seconds: reading decoded pictures, batching, sums."""
    engine = cast(Engine, nothing)
    start = time.process_time()
    for _ in score_patients(cohort.folder, cohort.patients, engine, manifest, "balanced", cpus):
        pass
    return time.process_time() - start


def _median_ratio(above: list[float], below: list[float]) -> float:
    """Median of the ratios per round: both parts of a round run in succession, so a busy machine slows both."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def _largest_difference(out: Path, plain: list[float]) -> float:
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as file:
        ours = [float(row["probability_malignant"]) for row in csv.DictReader(file)]
    return float(np.max(np.abs(np.array(ours) - np.array(plain))))


def _start_up(folder: Path, compute: float) -> dict[str, float]:
    """Seconds for `--help`, and for one patient with 80 pictures, in total and beyond the computing time."""
    alone = folder / "one"
    write_cohort(alone, make_patients(1, seed=2, images=(80, 80)), seed=2, labels=False)
    line = [sys.executable, "-m", "infer"]
    cohort = [str(alone), str(folder / "one-out"), "--device=cpu", f"--reference-date={REFERENCE_DATE}"]
    whole = _seconds([*line, *cohort])
    return {"--help": _seconds([*line, "--help"]), "80 pictures": whole, "80 pictures, beyond compute": whole - compute}


def _seconds(line: list[str]) -> float:
    taken = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run(line, cwd=ROOT, capture_output=True, check=True)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


if __name__ == "__main__":
    bench()
