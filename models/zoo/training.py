"""Training and accuracy. Seeds are fixed: one machine and one library version give the same weights again."""

from __future__ import annotations

import os
import time
import warnings

import numpy as np

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with this, set before CUDA starts

import torch
from torch import nn

from .catalog import Spec
from .normalization import CLAMP, Normalization


def train(spec: Spec, raw: np.ndarray, labels: np.ndarray, normalization: Normalization, device: str, steps: int) -> nn.Module:
    """A trained network, still in training mode. `raw` stays in its own type and is normalised batch by batch."""
    _be_deterministic(spec.seed)
    network = spec.network().to(device)
    half = torch.autocast("cuda", torch.bfloat16, enabled=device == "cuda")
    optimizer = torch.optim.AdamW(network.parameters(), lr=spec.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, spec.learning_rate, total_steps=max(steps, 2), pct_start=0.1)
    prepare = Preparation(spec, normalization, device)
    data, classes = torch.from_numpy(raw).to(device), torch.from_numpy(labels).to(device)
    order = torch.Generator().manual_seed(spec.seed)

    network.train()
    start = time.monotonic()
    for step in range(1, steps + 1):
        picked = torch.randint(len(data), (spec.batch,), generator=order).to(device)
        with half:
            loss = nn.functional.cross_entropy(network(prepare(data[picked])), classes[picked])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step == steps or step % max(1, steps // 10) == 0:
            print(f"{spec.name}: step {step}/{steps}, loss {loss.item():.4f}, {time.monotonic() - start:.0f} s", flush=True)
    return network


@torch.no_grad()
def accuracy(network: nn.Module, spec: Spec, raw: np.ndarray, labels: np.ndarray, normalization: Normalization, device: str) -> float:
    """The share of windows whose largest logit is the label's, in full f32."""
    network.eval().to(device)
    torch.backends.cudnn.allow_tf32 = False
    prepare = Preparation(spec, normalization, device)
    right = 0
    for first in range(0, len(raw), 256):
        batch = torch.from_numpy(raw[first:first + 256]).to(device)
        right += int((network(prepare(batch)).argmax(1).cpu() == torch.from_numpy(labels[first:first + 256])).sum())
    return right / len(raw)


class Preparation:
    """Normalisation and layout on the training device: the same arithmetic as `Normalization.network_input`."""

    def __init__(self, spec: Spec, normalization: Normalization, device: str) -> None:
        self.shape = spec.shape
        self.turned = normalization.layout == "channels_last_to_first"
        self.mean = torch.from_numpy(normalization.mean).to(device)
        self.std = torch.from_numpy(normalization.std).to(device)

    def __call__(self, raw: torch.Tensor) -> torch.Tensor:
        """f32 [N, *shape] of raw [N, ..., channels]."""
        values = ((raw.float() - self.mean) / self.std).clamp(-CLAMP, CLAMP)
        return (values.movedim(-1, 1) if self.turned else values).reshape(-1, *self.shape)


def _be_deterministic(seed: int) -> None:
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Max pooling warns on CUDA; its windows here do not overlap, so each gradient has one addend and one order.
    warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation.*")
