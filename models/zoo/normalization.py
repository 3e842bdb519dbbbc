"""Normalisation that tickrt applies before the network, its JSON form, and the same arithmetic in numpy."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

CLAMP = 8.0


@dataclass(frozen=True)
class Normalization:
    """clamp((x - mean) / std) over the raw tensor's last axis, then the layout change."""

    input_type: str
    kind: str
    layout: str
    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def fit(cls, raw: np.ndarray, kind: str, layout: str) -> "Normalization":
        """Statistics over all axes of `raw` but the last; `raw` holds training data only."""
        flat = raw.reshape(-1, raw.shape[-1])
        mean, std = zip(*(_mean_std(flat[:, channel]) for channel in range(flat.shape[-1])))
        return cls("u8" if raw.dtype == np.uint8 else "f32", kind, layout, np.array(mean, np.float32), np.array(std, np.float32))

    def apply(self, raw: np.ndarray) -> np.ndarray:
        """f32 of the raw shape [N, ..., channels], before the layout change."""
        return np.clip((raw.astype(np.float32) - self.mean) / self.std, -CLAMP, CLAMP)

    def network_input(self, raw: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """What the network sees for raw [N, ..., channels]: f32 [N, *shape]."""
        values = self.apply(raw)
        if self.layout == "channels_last_to_first":
            values = np.moveaxis(values, -1, 1)
        return np.ascontiguousarray(values).reshape(len(raw), *shape)

    def save(self, path: Path, tensor: str) -> None:
        """Writes the JSON that tickrt reads."""
        # The shortest decimal that reads back as the same f32.
        stats = {"kind": self.kind, "mean": [float(str(x)) for x in self.mean], "std": [float(str(x)) for x in self.std]}
        document = {
            "input": tensor, "input_type": self.input_type, "output_type": "f32", "stats": stats,
            "clamp": [-CLAMP, CLAMP], "non_finite": "refuse", "layout": self.layout,
        }
        path.write_text(json.dumps(document, indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Normalization":
        """Reads what `save` wrote."""
        document = json.loads(path.read_text())
        stats = document["stats"]
        return cls(document["input_type"], stats["kind"], document["layout"], np.array(stats["mean"], np.float32), np.array(stats["std"], np.float32))


def _mean_std(values: np.ndarray) -> tuple[float, float]:
    mean = values.mean(dtype=np.float64)
    std = values.std(dtype=np.float64)
    return float(mean), float(std) if std > 0 else 1.0
