"""Models as ONNX graphs: a Gemm and an activation for each layer, that any ONNX runtime can run.

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
from gpubp.ensemble import Ensemble
from gpubp.errors import GpubpError, UsageError
from gpubp.formats import npz
from gpubp.kernels import LEAKY_SLOPE, LECUN_RATE, LECUN_SCALE
from gpubp.model import LOGITS, Model
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


def save(path: str | os.PathLike, model: Model, *, byte_inputs: bool = False) -> None:
    """Write a model as ONNX (opset 13, IR version 7), atomically, for other runtimes.

    The graph takes "inputs" (N, n_in) in the model's dtype and gives "outputs" (N, n_out), as
    :meth:`gpubp.Network.forward` does, N free; onnxruntime runs it from 1.6 on, in float64 from 1.18 on. It does not
    scale bytes: divide images by 255 first, or let ``byte_inputs`` make a graph that takes uint8 and divides them
    itself. Class labels are in its metadata, as JSON under "classes". A file holds at most 2 GB of parameters.
    """
    write_bytes(path, build(model, byte_inputs=byte_inputs).SerializeToString())


def build(model: Model, *, byte_inputs: bool = False) -> Any:
    """The model as an ``onnx.ModelProto`` that onnx.checker has passed."""
    onnx = need("onnx", "export")
    size = sum(array.nbytes for array in npz.model_arrays(model).values())
    if size > LARGEST:
        raise GpubpError(
            f"an ONNX file holds at most 2 GB, and the parameters take {size / 1e9:.1f} GB; safetensors has no limit"
        )
    if byte_inputs and model.inputs.kind == NUMBERS:
        raise UsageError("this network learned from numbers as they are, so that its graph cannot take bytes")
    graph = _Graph(onnx, model.dtype)
    if isinstance(model, Ensemble):
        outputs = [
            graph.network(member, f"{number}.", byte_inputs=byte_inputs, of_logits=member.meaning == LOGITS)
            for number, member in enumerate(model.members, start=1)
        ]
        total, *others = outputs
        for other in others:  # onnxruntime has Mean for float32 alone
            total = graph.add("Add", total, other)
        graph.add("Div", total, float(len(outputs)))
    else:
        assert isinstance(model, Network)
        graph.network(model, "", byte_inputs=byte_inputs)
    element = onnx.TensorProto.UINT8 if byte_inputs else graph.element
    told = f"{model.dtype}, as trained on"
    if model.inputs.kind != NUMBERS:
        told += "; byte images must be divided by 255 first"
    if byte_inputs:
        told = "bytes 0 to 255, which the graph divides by 255"
    about = f"{model!r}. inputs: (N, {model.sizes[0]}) {told}. outputs: (N, {model.sizes[-1]})."
    proto = graph.model(model, element, about)
    onnx.checker.check_model(proto, full_check=True)
    return proto


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

    def network(self, network: Network, mark: str, *, byte_inputs: bool, of_logits: bool = False) -> str:
        """Append a network, its parameters called with this mark before; gives the name of its outputs.

        ``of_logits``: the outputs are the probabilities that its own stand for.
        """
        rows = self.take(network.inputs.scaling, mark, byte_inputs=byte_inputs)
        for name, array in npz.network_arrays(network).items():
            self.hold(f"{mark}{name}", array)
        activations = [layer.activation for layer in network.layers]
        last = "softmax" if network.sizes[-1] > 1 else "sigmoid"
        for i, activation in enumerate([*activations, *[last] * of_logits], start=1):
            if activation not in _STEPS:
                raise UsageError(
                    f"to_onnx has no operators for the activation {activation!r}; safetensors keeps any"
                )
            if i <= len(activations):
                rows = self.add("Gemm", rows, f"{mark}W{i}", f"{mark}b{i}", transB=1)
            z = rows
            for operator, *operands in _STEPS[activation]:
                attributes = {"axis": 1} if operator == "Softmax" else {}
                rows = self.add(str(operator), *(z if o == "z" else o for o in operands), **attributes)
        return rows

    def take(self, scaling: Scaling | None, mark: str, *, byte_inputs: bool) -> str:
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
            self.hold(f"{mark}shift", scaling.shift)
            self.hold(f"{mark}scale", scaling.scale)
            self.add("Sub", rows, f"{mark}shift")
            self.add("Div", "last", f"{mark}scale")
            rows = self.add("Cast", "last", to=self.element)
        self.dtype = dtype
        return rows

    def model(self, model: Model, input_element: int, description: str) -> Any:
        self.nodes[-1].output[0] = "outputs"
        helper, sizes = self.onnx.helper, model.sizes
        graph = helper.make_graph(
            self.nodes,
            "gpubp",
            [helper.make_tensor_value_info("inputs", input_element, ["N", sizes[0]])],
            [helper.make_tensor_value_info("outputs", self.element, ["N", sizes[-1]])],
            list(self.stored.values()),
        )
        proto = helper.make_model(
            graph,
            producer_name="gpubp",
            producer_version=gpubp.__version__,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            doc_string=description,
        )
        header = npz.model_header(model)
        told = header.get("network", header)
        classes = told["classes"] if "classes" in told else told["networks"][0]["classes"]
        helper.set_model_props(proto, {"gpubp": json.dumps(told), "classes": json.dumps(classes)})
        return proto
