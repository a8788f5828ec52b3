"""Compares graphs with their networks on pictures of cells, at several batch sizes; a difference is an error."""

import numpy as np
import torch
from torch import Tensor

from export.graphs import GraphPlan
from infer.engine.sessions import CPU, Device, Graph
from infer.errors import LymphoError
from infer.machine.processors import available_processors

BATCH_SIZES = (1, 2, 7, 64)
TOLERANCE = 1e-5  # absolute, for probabilities
UNBOUNDED_TOLERANCE = 1e-4  # relative to the largest value, for outputs that are not bounded by 1


class ParityError(LymphoError):
    """A graph's outputs differ from its network's."""


def check_parity(
    plans: list[GraphPlan],
    graphs: dict[str, bytes],
    inputs: dict[str, dict[str, Tensor]],
    unbounded: frozenset[str] = frozenset(),
) -> float:
    """Compare all graphs with their networks and return the largest difference in a probability.

    Args:
        plans: graphs and networks to compare.
        graphs: graph name -> ONNX bytes.
        inputs: graph name -> input name -> at least 64 rows.
        unbounded: outputs that are not probabilities.

    Raises:
        ParityError: the outputs differ; the message lists every graph, output and batch size.
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
                scale = float(wanted.abs().max()) if name in unbounded else None
                difference, allowed = _difference(wanted.numpy(), found[name], scale)
                if scale is None:
                    largest = max(largest, difference)
                if not difference <= allowed:  # so that NaN fails too
                    failures.append(f"{plan.name} {name}, batch {size}: {difference:.2g}, allowed {allowed:.2g}")
    if failures:
        raise ParityError("graphs differ from their networks:\n  " + "\n  ".join(failures))
    return largest


def _difference(wanted: np.ndarray, got: np.ndarray, scale: float | None) -> tuple[float, float]:
    if wanted.shape != got.shape:
        return float("inf"), 0.0
    difference = float(np.max(np.abs(wanted - got)))
    return difference, TOLERANCE if scale is None else UNBOUNDED_TOLERANCE * scale


def _as_tuple(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)
