"""Quantised layers, and the ONNX nodes that compute them."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper
from torch import Tensor

LEVELS = 255  # largest value of a quantised activation; the smallest is 0
MICROSOFT = "com.microsoft"  # onnxruntime's own operators


@dataclass(frozen=True)
class Range:
    """Which numbers the integers 0 to 255 stand for: scale * (integer - zero)."""

    scale: float
    zero: int

    def integers(self, values: Tensor) -> Tensor:
        """The nearest integers, as floats."""
        return (values / self.scale).round_().add_(self.zero).clamp_(0, LEVELS)

    def numbers(self, integers: Tensor) -> Tensor:
        """What they stand for."""
        return (integers.float() - self.zero) * self.scale


@dataclass(frozen=True)
class Layer:
    """A quantised convolution: its output is scale of the input * weight_scale * (sum of products + bias), clipped."""

    weight: npt.NDArray[np.int8]  # (out, in / groups, side, side)
    weight_scale: npt.NDArray[np.float32]  # (out,)
    bias: npt.NDArray[np.int32]  # (out,)
    stride: int
    pads: tuple[int, int, int, int]  # top, left, bottom, right
    groups: int
    output: Range


@dataclass(frozen=True)
class Value:
    """A quantised value in the graph: the names of its integers, scale and zero."""

    name: str
    scale: str
    zero: str


@dataclass
class Nodes:
    """Nodes and constants, in the order in which they are added."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def quantised(self, value: str, name: str, to: Range) -> Value:
        """float32 -> integers."""
        given = self._value(name, to)
        self.node("QuantizeLinear", [value, given.scale, given.zero], name)
        return given

    def dequantised(self, value: Value, name: str) -> str:
        """Integers -> float32."""
        return self.node("DequantizeLinear", [value.name, value.scale, value.zero], name)

    def convolved(self, value: Value, name: str, layer: Layer) -> Value:
        """A quantised convolution."""
        given = self._value(name, layer.output)
        constants = [
            self.constant(f"{name}.weight", layer.weight, np.int8),
            self.constant(f"{name}.weight_scale", layer.weight_scale, np.float32),
            self.constant(f"{name}.weight_zero", np.zeros(len(layer.weight)), np.int8),
            given.scale,
            given.zero,
            self.constant(f"{name}.bias", layer.bias, np.int32),
        ]
        attributes = {"pads": layer.pads, "strides": [layer.stride] * 2, "group": layer.groups}
        self.node("QLinearConv", [value.name, value.scale, value.zero, *constants], name, **attributes)
        return given

    def added(self, a: Value, b: Value, name: str, to: Range) -> Value:
        """Sum of two quantised values."""
        given = self._value(name, to)
        inputs = [a.name, a.scale, a.zero, b.name, b.scale, b.zero, given.scale, given.zero]
        self.node("QLinearAdd", inputs, name, domain=MICROSOFT)
        return given

    def constant(self, name: str, values: npt.ArrayLike, kind: npt.DTypeLike) -> str:
        """Add a constant and return its name."""
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype=kind), name))
        return name

    def node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        self.nodes.append(helper.make_node(operator, inputs, [output], output, **attributes))
        return output

    def _value(self, name: str, given: Range) -> Value:
        scale = self.constant(f"{name}.scale", given.scale, np.float32)
        return Value(name, scale, self.constant(f"{name}.zero", given.zero, np.uint8))
