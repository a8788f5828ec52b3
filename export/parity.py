"""Graph against network on pictures of cells, at several batch sizes: a difference is an error, not a warning."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from export.graphs import GraphPlan
from infer.engine.sessions import CPU, Device, Graph
from infer.errors import LymphoError
from infer.machine.processors import available_processors
from train.members.baseline import Baseline

BATCH_SIZES = (1, 2, 7, 64)
TOLERANCE = 1e-5  # absolute, of probabilities
UNBOUNDED_TOLERANCE = 1e-4  # relative to the largest value, of outputs that are not bounded by 1
UNBOUNDED = frozenset({"embedding", "maps", "contribution"})


ROUNDING_TOLERANCE = 1e-3  # absolute, of a picture's probability


class ParityError(LymphoError):
    """A graph does not compute what its network computes."""


@dataclass(frozen=True)
class Parity:
    """Largest differences of a probability on the run's own pictures."""

    graphs: float  # from the networks that were exported
    rounding: float  # of the baseline with short weights from the one that was trained


def check_parity(plans: list[GraphPlan], graphs: dict[str, bytes], inputs: dict[str, dict[str, Tensor]]) -> float:
    """Compare all graphs with their networks and return the largest difference of a probability.

    Args:
        inputs: graph name -> input name -> at least 64 rows.

    Raises:
        ParityError: naming every graph, output and batch size that differs.
    """
    failures, largest = [], 0.0
    for plan in plans:
        graph = Graph(plan.name, graphs[plan.name], Device(CPU, "parity"), available_processors())
        for size in BATCH_SIZES:
            batch = {name: values[:size] for name, values in inputs[plan.name].items()}
            with torch.inference_mode():
                expected = plan.module(*batch.values())
            found = graph.run(**{name: values.numpy() for name, values in batch.items()})
            for name, wanted in zip(plan.outputs, _as_tuple(expected), strict=True):
                difference, allowed = _difference(name, wanted.numpy(), found[name])
                if name not in UNBOUNDED:
                    largest = max(largest, difference)
                if not difference <= allowed:  # so that NaN fails too
                    failures.append(f"{plan.name} {name}, batch {size}: {difference:.2g}, {allowed:.2g} is allowed")
    if failures:
        raise ParityError("graphs differ from their networks:\n  " + "\n  ".join(failures))
    return largest


def check_rounding(baseline: Baseline, plans: list[GraphPlan], inputs: dict[str, dict[str, Tensor]]) -> float:
    """What the baseline's short weights change: the largest difference of a probability.

    Raises:
        ParityError: it is too large.
    """
    (plan,) = [plan for plan in plans if plan.name == "baseline.onnx"]
    batch = inputs[plan.name].values()
    with torch.inference_mode():
        change = float((plan.module(*batch) - baseline(*batch).softmax(1)[:, 1]).abs().max())
    if not change <= ROUNDING_TOLERANCE:  # so that NaN fails too
        raise ParityError(f"baseline.onnx: weights in 16 bits change a probability by {change:.2g}")
    return change


def _difference(name: str, wanted: np.ndarray, got: np.ndarray) -> tuple[float, float]:
    if wanted.shape != got.shape:
        return float("inf"), 0.0
    difference = float(np.max(np.abs(wanted - got)))
    return difference, UNBOUNDED_TOLERANCE * float(np.max(np.abs(wanted))) if name in UNBOUNDED else TOLERANCE


def _as_tuple(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)
