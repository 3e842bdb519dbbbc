#!/usr/bin/env python3
"""Networks of the shapes that others publish latencies for, with seeded weights: for measuring time, not for answers.

    python models/seeded.py --model deeplob --output models/deeplob.onnx

Needs numpy and onnx. The same file on every machine: the weights follow from the model's name alone.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, checker, helper, numpy_helper

INPUT, OUTPUT = "input", "output"


class Network:
    """A chain of layers that becomes an ONNX graph: each method adds a layer behind the last one."""

    def __init__(self, name: str, shape: list[int]) -> None:
        self.name, self.shape = name, shape
        self.nodes, self.weights = [], []
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
        self.random = np.random.default_rng(seed)
        self.last = INPUT

    def uniform(self, shape: tuple[int, ...], fan_in: int) -> str:
        """A weight as PyTorch's layers begin with: uniform between ±1 / sqrt(fan_in)."""
        bound = 1.0 / np.sqrt(fan_in)
        return self.constant(self.random.uniform(-bound, bound, shape).astype(np.float32))

    def constant(self, values: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def add(self, operator: str, inputs: list[str], **attributes) -> str:
        name = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        self.last = name
        return name

    def dense(self, fan_in: int, fan_out: int) -> None:
        self.add("Gemm", [self.last, self.uniform((fan_out, fan_in), fan_in), self.uniform((fan_out,), fan_in)], transB=1)

    def conv(self, channels: tuple[int, int], kernel: tuple[int, int], stride=(1, 1), pads=(0, 0, 0, 0)) -> None:
        fan_in = channels[0] * kernel[0] * kernel[1]
        inputs = [self.last, self.uniform((channels[1], channels[0], *kernel), fan_in), self.uniform((channels[1],), fan_in)]
        self.add("Conv", inputs, kernel_shape=kernel, strides=stride, pads=pads)

    def leaky_relu(self) -> None:
        self.add("LeakyRelu", [self.last], alpha=0.01)

    def lstm(self, inputs: int, units: int) -> None:
        """[batch, time, features] to [batch, time, units]."""
        time_first = self.add("Transpose", [self.last], perm=[1, 0, 2])
        weights = [
            self.uniform((1, 4 * units, inputs), units),
            self.uniform((1, 4 * units, units), units),
            self.uniform((1, 8 * units), units),
        ]
        every_step = self.add("LSTM", [time_first, *weights], hidden_size=units)
        merged = self.add("Squeeze", [every_step, self.constant(np.array([1], np.int64))])
        self.add("Transpose", [merged], perm=[1, 0, 2])

    def last_step(self, units: int) -> None:
        """[batch, time, units] to [batch, units]."""
        self.add("Gather", [self.last, self.constant(np.array(-1, np.int64))], axis=1)
        self.add("Reshape", [self.last, self.constant(np.array([1, units], np.int64))])

    def model(self, outputs: int) -> onnx.ModelProto:
        self.nodes[-1].output[0] = OUTPUT
        graph = helper.make_graph(
            self.nodes,
            self.name,
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, self.shape)],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [1, outputs])],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="tickrt")
        checker.check_model(model, full_check=True)
        return model


def recurrent(name: str, steps: int, features: int, layers: int, units: int) -> onnx.ModelProto:
    """LSTM layers over a window, a dense layer on the last step."""
    network = Network(name, [1, steps, features])
    for layer in range(layers):
        network.lstm(features if layer == 0 else units, units)
    network.last_step(units)
    network.dense(units, 1)
    return network.model(1)


def mlp_384() -> onnx.ModelProto:
    """256-384-384-128, ReLU between: a size that latencies on FPGAs are published for."""
    network = Network("mlp_384", [1, 256])
    network.dense(256, 384)
    network.add("Relu", [network.last])
    network.dense(384, 384)
    network.add("Relu", [network.last])
    network.dense(384, 128)
    return network.model(128)


def deeplob() -> onnx.ModelProto:
    """DeepLOB (Zhang, Zohren and Roberts, 2018) on 100 states of a limit order book of 40 numbers; no batch norm."""
    network = Network("deeplob", [1, 1, 100, 40])
    same = (1, 0, 2, 0)  # what keeps 100 steps under a kernel of 4
    for block, (kernel, stride) in enumerate([((1, 2), (1, 2)), ((1, 2), (1, 2)), ((1, 10), (1, 1))]):
        network.conv((1 if block == 0 else 32, 32), kernel, stride)
        network.leaky_relu()
        for _ in range(2):
            network.conv((32, 32), (4, 1), pads=same)
            network.leaky_relu()
    trunk, branches = network.last, []
    for steps in (3, 5):
        network.last = trunk
        network.conv((32, 64), (1, 1))
        network.leaky_relu()
        network.conv((64, 64), (steps, 1), pads=(steps // 2, 0, steps // 2, 0))
        network.leaky_relu()
        branches.append(network.last)
    network.last = trunk
    network.add("MaxPool", [trunk], kernel_shape=(3, 1), strides=(1, 1), pads=(1, 0, 1, 0))
    network.conv((32, 64), (1, 1))
    network.leaky_relu()
    branches.append(network.last)
    network.add("Concat", branches, axis=1)
    network.add("Squeeze", [network.last, network.constant(np.array([3], np.int64))])
    network.add("Transpose", [network.last], perm=[0, 2, 1])
    network.lstm(192, 64)
    network.last_step(64)
    network.dense(64, 3)
    network.add("Softmax", [network.last], axis=1)
    return network.model(3)


def identity() -> onnx.ModelProto:
    """Eight numbers, handed on: what is left of a latency when nothing is computed."""
    network = Network("identity", [1, 8])
    network.add("Identity", [network.last])
    return network.model(8)


MODELS = {
    "identity": identity,
    "mlp_384": mlp_384,
    "deeplob": deeplob,
    "lstm_s": lambda: recurrent("lstm_s", steps=50, features=25, layers=1, units=64),
    "lstm_m": lambda: recurrent("lstm_m", steps=50, features=50, layers=2, units=128),
    "lstm_a": lambda: recurrent("lstm_a", steps=50, features=100, layers=2, units=100),
    "lstm_b": lambda: recurrent("lstm_b", steps=100, features=250, layers=3, units=200),
    "lstm_c": lambda: recurrent("lstm_c", steps=100, features=500, layers=4, units=1000),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, choices=sorted(MODELS))
    parser.add_argument("--output", required=True, type=Path)
    options = parser.parse_args()
    model = MODELS[options.model]()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_bytes(model.SerializeToString(deterministic=True))
    parameters = sum(int(np.prod(weight.dims)) for weight in model.graph.initializer)
    print(f"wrote {options.output}: {parameters} parameters")


if __name__ == "__main__":
    main()
