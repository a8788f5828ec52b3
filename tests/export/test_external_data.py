"""Graphs with weights outside their own bytes are refused: no checksum covers these weights."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from infer.engine.sessions import CPU, Device, Graph
from infer.errors import BundleError


def graph_with_weights_at(location: str) -> bytes:
    weights = numpy_helper.from_array(np.ones((3, 4), np.float32), "w")
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "48")):
        weights.external_data.add(key=key, value=value)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("location", ["weights.bin", "./weights.bin", "../here/weights.bin", "{}/weights.bin"])
def test_weights_outside_the_graph_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, location: str) -> None:
    """By itself, onnxruntime would read them from the current working directory."""
    here = tmp_path / "here"
    here.mkdir()
    (here / "weights.bin").write_bytes(np.ones((3, 4), np.float32).tobytes())
    monkeypatch.chdir(here)
    data = graph_with_weights_at(location.format(here))
    onnx.load_from_string(data)
    with pytest.raises(BundleError, match=r"scan\.onnx: onnxruntime cannot load this graph .*[Ee]xternal data"):
        Graph("scan.onnx", data, Device(CPU, "test"), 1)
