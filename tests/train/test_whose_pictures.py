"""Whose pictures a patient is judged by: nobody keeps the own ones, and the order of the patients does not matter."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from tests.train.bags import make_bags
from train.core.arrays import Indices
from train.core.fitting import FitRecipe
from train.data.bags import Bags
from train.data.whose_pictures import BLANK, NOBODY, OWN, SWAPPED, whose_pictures
from train.members import experts, imagenet, mixture, naive_bayes, registry
from train.members.candidate import Candidate
from train.members.cells import member as cells
from train.members.embedding import FEATURES
from train.members.features import Features
from train.members.naive_bayes import ClassSource
from train.members.recipes import SMALL, BaselineRecipe
from train.members.training import NestedJob

CPU = torch.device("cpu")
IDS = [f"P{number}" for number in range(40)]


def test_swapped_nobody_keeps_the_own_pictures_and_everybodys_are_used_once() -> None:
    asked = np.array([3, 9, 11, 20, 39])
    found = whose_pictures(asked, IDS)
    np.testing.assert_array_equal(found[OWN], asked)
    assert sorted(found[SWAPPED]) == sorted(asked)
    assert (found[SWAPPED] != asked).all()
    assert (found[BLANK] == NOBODY).all()


def test_who_gets_whose_pictures_depends_on_the_patients_alone() -> None:
    asked = np.arange(30)
    found = dict(zip(asked, whose_pictures(asked, IDS)[SWAPPED], strict=True))
    turned = asked[::-1].copy()
    assert dict(zip(turned, whose_pictures(turned, IDS)[SWAPPED], strict=True)) == found
    others = dict(zip(asked, whose_pictures(asked, [f"Q{number}" for number in range(40)])[SWAPPED], strict=True))
    assert others != found
    assert abs(np.corrcoef(list(found), list(found.values()))[0, 1]) < 0.5  # not the next in the table


def test_who_is_alone_gets_a_blank_picture() -> None:
    assert whose_pictures(np.array([4]), IDS)[SWAPPED].tolist() == [NOBODY]


def test_nobodys_pictures_are_one_white_one() -> None:
    bags = make_bags([0, 1], [2, 3], size=4)
    blank = bags.pictures(NOBODY)
    assert blank.shape == (1, 4, 4, 3)
    assert blank.dtype == torch.uint8
    assert (blank == 255).all()
    assert torch.equal(bags.pictures(1), bags.crops[2:5])


def with_pictures_of(bags: Bags, patients: Indices, shown: Indices) -> Bags:
    """A copy in which the patients' pictures are others'."""
    whose = dict(zip(patients.tolist(), shown.tolist(), strict=True))
    crops = [bags.pictures(whose.get(patient, patient)) for patient in range(len(bags))]
    return replace(bags, crops=torch.cat(crops), offsets=np.cumsum([0, *map(len, crops)]))


def by_colour(bags: Bags, *_: object) -> Features:
    """In place of the backbone: features that depend on each picture's mean colours alone."""
    rng = np.random.default_rng(0)
    weights, bias = rng.normal(size=(3, FEATURES)), rng.normal(size=FEATURES)

    def of(crops: Tensor) -> npt.NDArray[np.float32]:
        colours = (crops.double().mean(dim=(1, 2)).numpy() - 127) / 10
        return np.asarray(np.maximum(colours @ weights + bias, 0), dtype=np.float32)

    return Features(of(bags.crops), of(bags.pictures(NOBODY))[0])


def candidate_of(member: str, bags: Bags, run: Path) -> Candidate:
    """A model that sees pictures, trained in a moment."""
    short = FitRecipe(epochs=1, learning_rate=1e-4)
    few = replace(SMALL.cells, neighbours=2, clusters=4, fused=4, batch_images=4, noise=0.0, largest_class=1.0)
    recipe = replace(
        SMALL,
        baseline=BaselineRecipe(short),
        moe=replace(SMALL.moe, fit=short, late_steps=3),
        cells=few,
        experts=replace(SMALL.experts, fit=replace(short, epochs=5), late_steps=20, seeds=2),
    )
    job = NestedJob(bags, run, recipe, 0, CPU)
    if member == "moe, own network":
        return mixture.one_mixture(bags, recipe.moe, 0, CPU)
    if member == "scan, own network":  # sees classes, which are levels of red here
        red = torch.cat([bags.crops, bags.pictures(NOBODY)])[..., 0].double().mean(dim=(1, 2)).numpy()
        classes = ClassSource(lambda training: (red // 20).astype(np.int64), {}, cheap=True)
        return naive_bayes.on_classes(bags, classes, SMALL.bayes)
    (training,) = [one for one in registry.MEMBERS if one.name == member]
    with patched_backbone():
        found = training.candidate(job)
    assert isinstance(found, Candidate)
    return found


@contextlib.contextmanager
def patched_backbone() -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for module in (cells, experts, imagenet):
            stack.enter_context(patch.object(module, "embed_pictures", by_colour))
        yield


@pytest.mark.parametrize("member", [*registry.names(), "moe, own network", "scan, own network"])
@pytest.mark.parametrize("sight", [SWAPPED, BLANK])
def test_a_member_judges_other_pictures_as_it_would_if_they_were_the_patients(
    member: str, sight: str, tmp_path: Path
) -> None:
    bags = make_bags([0, 1] * 10, [1, 2] * 10, size=112)
    tint = 0.5 * np.random.default_rng(1).random((len(bags.crops), 1, 1, 3))
    tint[..., 0] += 0.5 * bags.labels[bags.patient_of_image()][:, None, None]  # pictures of malignant patients are red
    bags = replace(bags, crops=(bags.crops * torch.from_numpy(tint)).to(torch.uint8))
    training, asked = np.arange(14), np.arange(14, 20)
    shown = whose_pictures(asked, bags.patient_ids)[sight]
    found = candidate_of(member, bags, tmp_path).predict(training, asked, tmp_path / "a.safetensors")
    other = with_pictures_of(bags, asked, shown)
    expected = candidate_of(member, other, tmp_path).predict(training, asked, tmp_path / "a.safetensors")
    assert isinstance(found, Mapping)
    assert isinstance(expected, Mapping)
    assert set(found) == set(expected) >= {OWN, SWAPPED, BLANK}
    np.testing.assert_allclose(found[sight], expected[OWN], rtol=1e-5)
    assert not np.allclose(found[sight], found[OWN], rtol=1e-3)
