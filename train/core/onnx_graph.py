"""torch -> ONNX, with named inputs and outputs and a dynamic first axis. Used by training and by export."""

import logging
from collections.abc import Mapping, Sequence

import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim

OPSET = 20


def as_onnx(module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> onnx.ModelProto:
    """Export a network in evaluation mode.

    Args:
        module: the network.
        inputs: name -> example with two rows; the first axis of every input is the batch.
        outputs: their names.
    """
    for name in ("torch.onnx", "onnx_ir", "onnxscript"):  # they report every step
        logging.getLogger(name).setLevel(logging.ERROR)
    batch = Dim("batch")
    program = torch.onnx.export(
        module.eval(),
        tuple(inputs.values()),
        input_names=list(inputs),
        output_names=list(outputs),
        dynamic_shapes=tuple({0: batch} for _ in inputs),
        opset_version=OPSET,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    if program is None:  # only the legacy exporter returns nothing
        raise RuntimeError("torch.onnx.export returned no program")
    return program.model_proto
