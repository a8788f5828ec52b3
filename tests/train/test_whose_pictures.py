"""Whose pictures a patient is judged by: nobody keeps the own ones, and the order of the patients does not matter."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.train.bags import make_bags
from train.core.arrays import Indices
from train.core.fitting import FitRecipe
from train.data.bags import Bags
from train.data.whose_pictures import BLANK, NOBODY, OWN, SWAPPED, whose_pictures
from train.members import baseline, mixture, naive_bayes
from train.members.candidate import Candidate
from train.members.recipes import SMALL, BaselineRecipe
from train.members.training import CellClasses, NestedJob

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


def deep_candidates(bags: Bags, run: Path) -> dict[str, Candidate]:
    """Members that see pictures, trained in a moment."""
    short = FitRecipe(epochs=1, learning_rate=1e-4)
    recipe = replace(SMALL, baseline=BaselineRecipe(short), moe=replace(SMALL.moe, fit=short, late_steps=3))
    kinds = np.arange(len(bags.crops) + 1) % 4
    classes = CellClasses(lambda training: kinds, {}, cheap=True)
    job = NestedJob(bags, run, recipe, 0, torch.device("cpu"), classes)
    return {
        "baseline": baseline.candidate(job),
        "moe": mixture.one_mixture(bags, recipe.moe, 0, job.device),
        "scan": naive_bayes.candidate(job),
    }


@pytest.mark.parametrize("member", ["baseline", "moe", "scan"])
@pytest.mark.parametrize("sight", [SWAPPED, BLANK])
def test_a_member_judges_other_pictures_as_it_would_if_they_were_the_patients(
    member: str, sight: str, tmp_path: Path
) -> None:
    bags = make_bags([0, 1] * 6, [1, 2] * 6, size=112)
    training, asked = np.arange(7), np.arange(7, 12)
    shown = whose_pictures(asked, bags.patient_ids)[sight]
    found = deep_candidates(bags, tmp_path)[member].predict(training, asked, tmp_path / "a.safetensors")
    other = with_pictures_of(bags, asked, shown)
    candidate = deep_candidates(other, tmp_path)[member]
    if member == "scan":  # sees classes instead of pictures
        of = np.arange(len(bags.crops) + 1) % 4
        kinds = [of[a:b] for a, b in bags.ranges()]
        whose = dict(zip(asked.tolist(), shown.tolist(), strict=True))
        kinds = [of[-1:] if whose.get(p, p) == NOBODY else kinds[whose.get(p, p)] for p in range(len(bags))]
        of_others = np.concatenate([*kinds, of[-1:]])
        classes = CellClasses(lambda training: of_others, {}, cheap=True)
        candidate = naive_bayes.on_classes(other, classes, SMALL.bayes)
    expected = candidate.predict(training, asked, tmp_path / "a.safetensors")
    assert isinstance(found, Mapping)
    assert isinstance(expected, Mapping)
    np.testing.assert_allclose(found[sight], expected[OWN], rtol=1e-6)
    assert not np.allclose(found[sight], found[OWN], rtol=1e-3)
