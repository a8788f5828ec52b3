"""A SCAN with its own network in a run folder, as `python -m train scan` leaves one, for tests that train none."""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch

from train.core.checkpoint import save_network
from train.data.bags import Bags
from train.members.backbones import BackboneDimensions
from train.members.scan.backbone import Backbone
from train.members.scan.network import ScanDimensions, ScanNetwork

WIDTHS = (4, 8)


def write_scan(run: Path) -> None:
    """Networks with random weights, and a fusion of all classes into class 0."""
    torch.manual_seed(0)
    (run / "scan").mkdir(exist_ok=True)
    final, pretext = ScanDimensions(WIDTHS), BackboneDimensions(WIDTHS)
    save_network(run / "scan/scan.safetensors", ScanNetwork(final), final)
    save_network(run / "scan/pretext.safetensors", Backbone(pretext), pretext)
    (run / "scan/fusion.json").write_text(json.dumps([0] * final.clusters))


def write_classes(run: Path, bags: Bags, classes: Sequence[int] | int) -> None:
    """The class of every picture."""
    owner = [bags.patient_ids[index] for index in bags.patient_of_image()]
    table = pd.DataFrame({"patient_id": owner, "image": bags.image_names, "cell_class": classes})
    table.to_csv(run / "scan/classes.csv", index=False)
