"""Networks as ONNX graphs: a Gemm and an activation for each layer, that any ONNX runtime can run.

Written for opset 13, the first whose Softmax takes a single axis, and IR version 7, which came with it: float32
networks run in every onnxruntime since 1.6 (December 2020). Those in float64 need 1.18: before, it fuses a Gemm and
its activation into a kernel that it has for float32 alone.

Activations are chosen so that onnxruntime keeps to the bound that :mod:`gpubp.verification.bounds` derives for its
dtype. Two operators of the same name do not: Sigmoid is an approximation that is off by some 1e-7 where σ itself is
1e-8, so that 1 / (1 + e⁻ᶻ) is written out; LeakyRelu has a slope in float32, and no kernel for float64.
"""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

import gpubp
from gpubp.data.inputs import NUMBERS, Scaling
from gpubp.errors import GpubpError, UsageError
from gpubp.formats import npz
from gpubp.kernels import LEAKY_SLOPE, LECUN_RATE, LECUN_SCALE
from gpubp.network import Network
from gpubp.support.files import write_bytes
from gpubp.support.optional import need
from gpubp.support.warning import warn_caller

OPSET = 13
IR_VERSION = 7
LARGEST = (2 << 30) - (1 << 20)  # bytes of parameters: a file is one protobuf message, which ends at 2 GiB

# What follows z = a Wᵀ + b: operators with their operands, "z", "last" for what the one before gave, or a constant.
_STEPS: dict[str, tuple[tuple[str | float, ...], ...]] = {
    "identity": (),
    # e⁻ᶻ overflows to infinity below z = −88 (−709 in float64), where σ is below the smallest normal number: 0.
    "sigmoid": (("Neg", "z"), ("Exp", "last"), ("Add", "last", 1.0), ("Div", 1.0, "last")),
    "tanh": (("Tanh", "z"),),
    "lecun_tanh": (("Mul", "z", LECUN_RATE), ("Tanh", "last"), ("Mul", "last", LECUN_SCALE)),
    "relu": (("Relu", "z"),),
    "leaky_relu": (("Mul", "z", LEAKY_SLOPE), ("Max", "z", "last")),
    "softmax": (("Softmax", "z"),),
}


def save(path: str | os.PathLike, network: Network, *, byte_inputs: bool = False) -> None:
    """Write a network as ONNX (opset 13, IR version 7), atomically, for other runtimes.

    The graph takes "inputs" (N, n_in) in the network's dtype and gives "outputs" (N, n_out), as
    :meth:`gpubp.Network.forward` does, N free; onnxruntime runs it from 1.6 on, in float64 from 1.18 on. It does not
    scale bytes: divide images by 255 first, or let ``byte_inputs`` make a graph that takes uint8 and divides them
    itself. Class labels are in its metadata, as JSON under "classes". A file holds at most 2 GB of parameters.
    """
    write_bytes(path, build(network, byte_inputs=byte_inputs).SerializeToString())


def build(network: Network, *, byte_inputs: bool = False) -> Any:
    """The network as an ``onnx.ModelProto`` that onnx.checker has passed."""
    onnx = need("onnx", "export")
    size = sum(array.nbytes for pair in network.parameters for array in pair)
    if size > LARGEST:
        raise GpubpError(
            f"an ONNX file holds at most 2 GB, and the parameters take {size / 1e9:.1f} GB; safetensors has no limit"
        )
    graph = _Graph(onnx, network.dtype)
    if byte_inputs and network.inputs.kind == NUMBERS:
        raise UsageError("this network learned from numbers as they are, so that its graph cannot take bytes")
    rows = graph.take(network.inputs.scaling, byte_inputs=byte_inputs)
    for name, array in npz.network_arrays(network).items():
        graph.hold(name, array)
    for i, layer in enumerate(network.layers, start=1):
        if layer.activation not in _STEPS:
            raise UsageError(
                f"to_onnx has no operators for the activation {layer.activation!r}; safetensors keeps any"
            )
        rows = z = graph.add("Gemm", rows, f"W{i}", f"b{i}", transB=1)
        for operator, *operands in _STEPS[layer.activation]:
            attributes = {"axis": 1} if operator == "Softmax" else {}
            rows = graph.add(str(operator), *(z if o == "z" else o for o in operands), **attributes)
    element = onnx.TensorProto.UINT8 if byte_inputs else graph.element
    told = f"{network.dtype}, as trained on"
    if network.inputs.kind != NUMBERS:
        told += "; byte images must be divided by 255 first"
    if byte_inputs:
        told = "bytes 0 to 255, which the graph divides by 255"
    about = f"{network!r}. inputs: (N, {network.sizes[0]}) {told}. outputs: (N, {network.sizes[-1]})."
    model = graph.model(network, element, about)
    onnx.checker.check_model(model, full_check=True)
    return model


class _Graph:
    """Nodes in order, each taking the tensors of earlier ones by name, and the tensors that are stored."""

    def __init__(self, onnx: Any, dtype: np.dtype) -> None:
        self.onnx, self.dtype = onnx, dtype
        self.element = onnx.helper.np_dtype_to_tensor_dtype(dtype)
        self.nodes: list[Any] = []
        self.stored: dict[str, Any] = {}

    def hold(self, name: str, array: np.ndarray) -> None:
        self.stored[name] = self.onnx.numpy_helper.from_array(np.ascontiguousarray(array, self.dtype), name)

    def add(self, operator: str, *operands: str | float, **attributes: int) -> str:
        """Append a node; gives the name of its output."""
        names = []
        for operand in operands:
            if isinstance(operand, float):
                self.hold(str(operand), np.asarray(operand))
            names.append(self.nodes[-1].output[0] if operand == "last" else str(operand))
        output = f"{operator}{len(self.nodes) + 1}"
        self.nodes.append(self.onnx.helper.make_node(operator, names, [output], **attributes))
        return output

    def take(self, scaling: Scaling | None, *, byte_inputs: bool) -> str:
        """Append what inputs go through before the first layer, in float64 if they are scaled."""
        rows, dtype, element = "inputs", self.dtype, self.element
        if scaling is not None:
            self.dtype, element = np.dtype(np.float64), self.onnx.TensorProto.DOUBLE
        if byte_inputs or scaling is not None:
            rows = self.add("Cast", "inputs", to=element)
        if byte_inputs:
            rows = self.add("Div", rows, 255.0)
        if scaling is not None:
            if scaling.far and self.element != element:
                warn_caller(
                    "a column is so far from 0 that float32, which the graph takes, hardly tells its values apart: "
                    "train with dtype float64 for ONNX"
                )
            self.hold("shift", scaling.shift)
            self.hold("scale", scaling.scale)
            self.add("Sub", rows, "shift")
            self.add("Div", "last", "scale")
            rows = self.add("Cast", "last", to=self.element)
        self.dtype = dtype
        return rows

    def model(self, network: Network, input_element: int, description: str) -> Any:
        self.nodes[-1].output[0] = "outputs"
        helper, sizes = self.onnx.helper, network.sizes
        graph = helper.make_graph(
            self.nodes,
            "gpubp",
            [helper.make_tensor_value_info("inputs", input_element, ["N", sizes[0]])],
            [helper.make_tensor_value_info("outputs", self.element, ["N", sizes[-1]])],
            list(self.stored.values()),
        )
        model = helper.make_model(
            graph,
            producer_name="gpubp",
            producer_version=gpubp.__version__,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            doc_string=description,
        )
        header = npz.network_header(network)
        helper.set_model_props(model, {"gpubp": json.dumps(header), "classes": json.dumps(header["classes"])})
        return model
