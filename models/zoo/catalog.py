"""What each model is: its raw input, its network, and how it is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .charts import chart32, chart128
from .windows import WindowSet


@dataclass(frozen=True)
class Spec:
    """One model of the zoo. `raw` gives the tensor [N, ..., channels] that the caller of tickrt supplies."""

    name: str
    raw: Callable[[WindowSet], np.ndarray]
    shape: tuple[int, ...]
    kind: str
    layout: str
    resampled: int
    steps: int
    batch: int
    learning_rate: float
    seed: int = 20120103

    def network(self) -> Any:
        """A fresh network, as a torch module; torch is imported here so that evaluation does without it."""
        from . import networks

        return getattr(networks, self.name)()


def _features(windows: WindowSet) -> np.ndarray:
    return windows.features


def _chart32(windows: WindowSet) -> np.ndarray:
    return chart32(windows.bars)


def _chart128(windows: WindowSet) -> np.ndarray:
    return chart128(windows.bars)


_TURNED, _AS_IS = "channels_last_to_first", "as_is"

MODELS = {
    spec.name: spec
    for spec in (
        Spec("toy_cnn", _features, (8, 32), "per_feature", _TURNED, resampled=40_000, steps=4_000, batch=256, learning_rate=3e-3),
        Spec("mlp", _features, (256,), "per_feature", _TURNED, resampled=160_000, steps=4_000, batch=256, learning_rate=1e-3),
        Spec("lstm", _features, (32, 8), "per_feature", _AS_IS, resampled=40_000, steps=2_000, batch=256, learning_rate=5e-3),
        Spec("cnn_small", _chart32, (1, 32, 32), "per_tensor", _AS_IS, resampled=40_000, steps=2_000, batch=128, learning_rate=3e-3),
        Spec("cnn_large", _chart128, (3, 128, 128), "per_channel", _TURNED, resampled=16_000, steps=1_500, batch=128, learning_rate=5e-4),
    )
}
