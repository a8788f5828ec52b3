"""`make bench-train`: pictures per second in one epoch of the mixture of experts, ours compared with the report's way.

Both train the same network from the same weights on all pictures of the same synthetic patients, 8 patients per batch,
with the same loss, the same Adam, and flips and quarter turns. They differ in how pictures are loaded and processed:

- ours: train.members.mixture.train_network as called by `python -m train moe`. A memory-mapped cache of uint8 pictures
  (in GPU memory on a GPU), augmentation and normalisation of whole batches on the device, channels-last, bfloat16
  convolutions where native.
  The measured time includes what a training writes after an epoch: weights, history, TensorBoard events.
- the report's way, implemented from its description: one float32 tensor file per patient, a DataLoader with 4 workers,
  torchvision transforms picture by picture in Python, channels first, float32 throughout.

Work that is done once per training is not measured, for both: decoding, writing the tensor files, copying the cache to
a GPU, building the network. A warm-up epoch of each is not measured either; it also starts the workers, which are kept,
whereas by default a DataLoader would restart them in every epoch. torch's number of threads is not changed.
An epoch of the real cohort is ten times as long as the default here: on a GPU use `--patients 130 --images 90`, or the
fixed cost per epoch has too much weight.
"""

import csv
import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from infer.errors import UsageError
from infer.machine.processors import available_processors
from tests.synthetic import REFERENCE_DATE, make_patients, write_cohort
from train.cli.run import choose_device
from train.core.fitting import Job, mixed_precision
from train.core.memory import keep_freed_memory
from train.data.bags import Bags
from train.data.crops import cache_crops
from train.data.inputs import MEAN, STD
from train.members.mixture import MoeBatch, moe_loss, new_network, train_network
from train.members.mixture_network import MixtureOfExperts, bag_means
from train.members.recipes import FULL, MoeRecipe

RECIPE = replace(FULL.moe, fit=replace(FULL.moe.fit, epochs=1))  # the report's numbers, all pictures of each patient
WORKERS = 4  # DataLoader workers, as in the report
SEED = 1
OURS, REPORT = "ours", "the report's way"

Transform = Callable[[Tensor], Tensor]  # takes one picture, (3, 112, 112) float32
Item = tuple[Tensor, int]  # a patient's pictures (n, 3, 112, 112) float32, and the patient's index in the cohort


class QuarterTurn:
    """Rotates a picture (3, H, W) by 0, 90, 180 or 270 degrees at random; torchvision's rotations would resample."""

    def __call__(self, image: Tensor) -> Tensor:
        return torch.rot90(image, int(torch.randint(4, ()).item()), (1, 2))


def report_transform(turns: bool = True) -> Transform:
    """The report's transforms of a picture in 0..1: flips and quarter turns, then normalisation (section 3.1)."""
    turning = [transforms.RandomHorizontalFlip(), transforms.RandomVerticalFlip(), QuarterTurn()] if turns else []
    return transforms.Compose([*turning, transforms.Normalize(MEAN, STD)])  # type: ignore[no-any-return]


class PatientFiles(Dataset[Item]):
    """The patients of write_tensors, each loaded from its file and transformed picture by picture."""

    def __init__(self, files: Sequence[Path], transform: Transform) -> None:
        self._files, self._transform = files, transform

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Item:
        images = torch.load(self._files[index], weights_only=True)  # (n, 3, 112, 112)
        return torch.stack([self._transform(image) for image in images]), index


def write_tensors(bags: Bags, folder: Path) -> list[Path]:
    """Write one file per patient with its pictures (n, 3, 112, 112) float32 in 0..1; return the paths in order."""
    folder.mkdir()
    paths = []
    for patient, (start, stop) in zip(bags.patient_ids, bags.ranges(), strict=True):
        paths.append(folder / f"{patient}.pt")
        # Contiguous: otherwise the file would keep the cache's memory layout, and the epoch would run channels-last.
        torch.save(bags.crops[start:stop].permute(0, 3, 1, 2).contiguous() / 255, paths[-1])
    return paths


def report_loader(
    bags: Bags, files: Sequence[Path], transform: Transform, batch_patients: int, workers: int = WORKERS
) -> DataLoader[Item]:
    """Batches as MoeBatch, patients reshuffled in every epoch; images is (N, 3, 112, 112) float32."""

    def collate(items: list[Item]) -> MoeBatch:
        patients = np.array([index for _, index in items])
        counts = torch.tensor([len(images) for images, _ in items])
        return MoeBatch(
            torch.cat([images for images, _ in items]),
            torch.arange(len(items)).repeat_interleave(counts),
            torch.from_numpy(bags.clinical[patients]),
            torch.from_numpy(bags.labels[patients]),
            patients,
        )

    return DataLoader(
        PatientFiles(files, transform),
        batch_size=batch_patients,
        shuffle=True,
        num_workers=workers,
        collate_fn=collate,
        # The report's code ran on a platform that forks processes; other start methods are not compared here.
        multiprocessing_context="fork",
        persistent_workers=True,
    )


def report_epoch(network: MixtureOfExperts, loader: DataLoader[Item], recipe: MoeRecipe, device: torch.device) -> float:
    """Train one epoch in place, in float32, on normalised pictures; return the mean loss."""
    options = recipe.fit
    optimizer = torch.optim.Adam(network.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay)
    network.train()
    losses = []
    batch: MoeBatch
    for batch in loader:
        maps = network.encoder.blocks(batch.images.to(device))  # (N, 256, 3, 3)
        means = bag_means(maps, batch.patient.to(device), len(batch.labels))  # (P, 256, 3, 3)
        output = network.head(means, batch.clinical.to(device))
        loss = moe_loss(output, batch.labels.to(device), recipe.expert_loss)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    return statistics.fmean(losses)


def our_epoch(network: MixtureOfExperts, bags: Bags, job: Job, device: torch.device) -> None:
    """Train one epoch in place. Each epoch needs its own job: a second call with the same job has nothing to do."""
    train_network(bags, np.arange(len(bags)), RECIPE, job, device, network=network)


def timed(network: MixtureOfExperts, epoch: Callable[[MixtureOfExperts], object], pictures: int) -> float:
    """Pictures per second in a training epoch.

    Raises:
        RuntimeError: the encoder did not see this many pictures, so speeds would not be comparable.
    """
    seen: list[int] = []
    network.encoder.blocks.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    start = time.perf_counter()
    epoch(network)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    if sum(seen) != pictures:
        raise RuntimeError(f"an epoch used {sum(seen)} of {pictures} pictures")
    return pictures / seconds


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--patients", type=click.IntRange(min=12), default=24, show_default=True)
@click.option("--images", type=click.IntRange(min=2), default=40, show_default=True, help="Pictures per patient")
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--device", type=click.Choice(["auto", "cuda", "cpu"]), default="auto", show_default=True)
def bench_train(folder: Path, patients: int, images: int, repeats: int, device: str) -> None:
    """Median pictures per second over several epochs of each variant, in turn; FOLDER is emptied first."""
    try:
        chosen = choose_device(device)
    except UsageError as error:
        raise click.UsageError(str(error)) from error
    keep_freed_memory()  # as in `python -m train`; both variants run in this process, so it applies to both
    shutil.rmtree(folder, ignore_errors=True)
    write_cohort(folder / "patients", make_patients(patients, SEED, (images, images)), seed=SEED)
    cached = cache_crops(folder / "patients", folder / "run", REFERENCE_DATE, None)
    loader = report_loader(cached, write_tensors(cached, folder / "tensors"), report_transform(), RECIPE.batch_patients)
    bags = cached.on(chosen)
    speeds: dict[str, list[float]] = {OURS: [], REPORT: []}
    for repeat in range(repeats + 1):
        job = Job("bench-train", folder / f"epoch-{repeat}.safetensors", SEED)
        ways: dict[str, Callable[[MixtureOfExperts], object]] = {
            OURS: partial(our_epoch, bags=bags, job=job, device=chosen),
            REPORT: partial(report_epoch, loader=loader, recipe=RECIPE, device=chosen),
        }
        for name, epoch in ways.items():
            network = new_network(bags, np.arange(len(bags)), RECIPE, job, chosen)  # from the seed: the same for both
            speeds[name].append(timed(network, epoch, len(bags.crops)))
    print_speeds(
        {name: values[1:] for name, values in speeds.items()}, len(bags.crops), chosen, folder / "bench-train.json"
    )


def print_speeds(speeds: dict[str, list[float]], pictures: int, device: torch.device, path: Path) -> None:
    """Print the setup, the median speed of each variant and their ratio, and store them as JSON."""
    with mixed_precision(device):
        precision = "bfloat16" if torch.is_autocast_enabled(device.type) else "float32"
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    facts = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cores": available_processors(),
        "torch threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "our convolutions": precision,
        "pictures an epoch": pictures,
        "epochs timed of each": len(speeds[OURS]),
        **{f"pictures/s, {name}": round(speed, 1) for name, speed in medians.items()},
        "ratio": round(medians[OURS] / medians[REPORT], 2),
    }
    path.write_text(json.dumps(facts | {"all pictures/s": speeds}, indent=1))
    csv.writer(sys.stdout, delimiter="\t", lineterminator="\n").writerows(facts.items())


if __name__ == "__main__":
    bench_train()
