"""Writes a trained network as ONNX: opset 17, one input, softmax at the end, nothing that a runtime must fold first."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import nn

from .catalog import Spec
from .networks import folded

INPUT, OUTPUT = "input", "probabilities"
OPSET = 17


def export(network: nn.Module, spec: Spec, path: Path, dynamic_batch: bool) -> None:
    """Exports with batch 1, or with a batch dimension named "batch"."""
    network = folded(network.cpu())
    layers = network if isinstance(network, nn.Sequential) else (network,)
    model = nn.Sequential(*layers, nn.Softmax(dim=1)).eval()
    axes = {INPUT: {0: "batch"}, OUTPUT: {0: "batch"}} if dynamic_batch else None
    with warnings.catch_warnings():
        # The TorchScript exporter is deprecated; it is used because its graphs have no extra nodes.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, (torch.zeros(1, *spec.shape),), str(path), dynamo=False, opset_version=OPSET,
            input_names=[INPUT], output_names=[OUTPUT], dynamic_axes=axes,
        )
    _tidy(path, spec.name)


def _tidy(path: Path, name: str) -> None:
    """Drops what only costs: the zero initial states of an LSTM with the nodes that compute their size."""
    import onnx

    model = onnx.load(str(path))
    graph = model.graph
    graph.name = name
    for node in graph.node:
        if node.op_type == "LSTM":
            for slot in (5, 6):  # initial_h and initial_c: absent means zero
                if _is_zero(node.input[slot], graph):
                    node.input[slot] = ""
            while node.input[-1] == "":
                node.input.pop()
    while unused := _unused(graph):
        for node in unused:
            graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def _unused(graph) -> list:
    wanted = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    return [node for node in graph.node if not wanted.intersection(node.output)]


def _is_zero(name: str, graph) -> bool:
    """Whether a tensor is a constant of zeros, possibly expanded to some size."""
    import onnx.numpy_helper

    for node in graph.node:
        if name in node.output:
            if node.op_type == "Expand":
                return _is_zero(node.input[0], graph)
            return node.op_type == "Constant" and not onnx.numpy_helper.to_array(node.attribute[0].t).any()
    return any(tensor.name == name and not onnx.numpy_helper.to_array(tensor).any() for tensor in graph.initializer)
