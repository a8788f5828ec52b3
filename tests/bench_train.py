"""`make bench-train`: pictures a second in one epoch of the mixture of experts, ours against the report's way.

Both train the same network from the same weights on all pictures of the same drawn patients, 8 patients a batch, with
the same loss, the same Adam, and flips and quarter turns. They differ in how pictures get there and are computed on:

- ours: train.members.mixture.train_network as `python -m train moe` calls it. A memory-mapped cache of uint8 pictures
  (on a GPU it lies there), whole batches turned and normalised on the device, channels-last, bfloat16 convolutions
  where native.
  The clock includes what a training writes down after an epoch: weights, history, TensorBoard events.
- the report's way, written from its description: one float32 tensor file a patient, a DataLoader with 4 workers,
  torchvision's transforms picture by picture in Python, channels first, float32 throughout.

Whatever is done once a training stays outside the clock, for both: decoding, writing the tensor files, copying the
cache to a GPU, building a network. So does an epoch of each beforehand, which also starts the workers: they are kept,
where a DataLoader's default would start them in every epoch. torch's number of threads is left as it finds it.
An epoch of the real cohort is ten times as long as the default here: on a GPU ask for `--patients 130 --images 90`,
or what comes once an epoch weighs too much.
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
from train.data.crops import cache_crops
from train.data.bags import Bags
from train.data.inputs import MEAN, STD
from train.members.mixture import MoeBatch, moe_loss, new_network, train_network
from train.members.mixture_network import MixtureOfExperts, bag_means
from train.members.recipes import FULL, MoeRecipe

RECIPE = replace(FULL.moe, fit=replace(FULL.moe.fit, epochs=1))  # the report's numbers, all pictures of each patient
WORKERS = 4  # of the report's DataLoader
SEED = 1
OURS, REPORT = "ours", "the report's way"

Transform = Callable[[Tensor], Tensor]  # of one picture, (3, 112, 112) float32
Item = tuple[Tensor, int]  # a patient's pictures (n, 3, 112, 112) float32, and its index in the cohort


class QuarterTurn:
    """Turns a picture (3, H, W) by 0, 90, 180 or 270 degrees at random; torchvision's rotations resample."""

    def __call__(self, image: Tensor) -> Tensor:
        return torch.rot90(image, int(torch.randint(4, ()).item()), (1, 2))


def report_transform(turns: bool = True) -> Transform:
    """What the report does to a picture in 0..1: flips and quarter turns, then normalisation (its section 3.1)."""
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
    """Write a file a patient, its pictures (n, 3, 112, 112) float32 in 0..1, and return their paths in order."""
    folder.mkdir()
    paths = []
    for patient, (start, stop) in zip(bags.patient_ids, bags.ranges(), strict=True):
        paths.append(folder / f"{patient}.pt")
        # Contiguous: else the file would keep the cache's order of channels, and the epoch run channels-last.
        torch.save(bags.crops[start:stop].permute(0, 3, 1, 2).contiguous() / 255, paths[-1])
    return paths


def report_loader(
    bags: Bags, files: Sequence[Path], transform: Transform, batch_patients: int, workers: int = WORKERS
) -> DataLoader[Item]:
    """Batches as MoeBatch, patients in a new order in every epoch; images is (N, 3, 112, 112) float32."""

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
        # The report's code ran where processes fork; what another start would cost is not what is compared.
        multiprocessing_context="fork",
        persistent_workers=True,
    )


def report_epoch(network: MixtureOfExperts, loader: DataLoader[Item], recipe: MoeRecipe, device: torch.device) -> float:
    """Train one epoch in place, in float32, on pictures that come normalised: the mean loss."""
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
    """Train one epoch in place; a job's second would find nothing left to do."""
    train_network(bags, np.arange(len(bags)), RECIPE, job, device, network=network)


def timed(network: MixtureOfExperts, epoch: Callable[[MixtureOfExperts], object], pictures: int) -> float:
    """Pictures a second of an epoch that trains a network.

    Raises:
        RuntimeError: the encoder did not see that many pictures, so that speeds would not compare.
    """
    seen: list[int] = []
    network.encoder.blocks.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    start = time.perf_counter()
    epoch(network)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    if sum(seen) != pictures:
        raise RuntimeError(f"an epoch saw {sum(seen)} pictures of {pictures}")
    return pictures / seconds


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--patients", type=click.IntRange(min=12), default=24, show_default=True)
@click.option("--images", type=click.IntRange(min=1), default=40, show_default=True, help="Of each patient")
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--device", type=click.Choice(["auto", "cuda", "cpu"]), default="auto", show_default=True)
def bench_train(folder: Path, patients: int, images: int, repeats: int, device: str) -> None:
    """Median pictures a second over some epochs of each, in turn; FOLDER is emptied first."""
    try:
        chosen = choose_device(device)
    except UsageError as error:
        raise click.UsageError(str(error)) from error
    keep_freed_memory()  # as `python -m train` does; both ways run in this process, so both have it
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
    """Print what ran where, the median speed of each way and their ratio, and keep them as JSON."""
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
