#!/usr/bin/env python3
"""Runs the exported models over the committed test windows with ONNX Runtime on the CPU and writes accuracy.json.

    python models/evaluate.py            # measure and write
    python models/evaluate.py --check    # measure and compare with accuracy.json

Needs numpy and onnxruntime. A model that is not there (cnn_large is generated) keeps its entry.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from zoo import dataset
from zoo.catalog import MODELS, Spec
from zoo.market import DATA_DIR
from zoo.normalization import Normalization
from zoo.windows import CLASSES

MODELS_DIR = Path(__file__).resolve().parent
ACCURACY = MODELS_DIR / "accuracy.json"
SPECS = {**MODELS, "mlp_dynamic": MODELS["mlp"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="fail if a measured accuracy differs from accuracy.json by over 0.002")
    check = parser.parse_args().check
    known = json.loads(ACCURACY.read_text()) if ACCURACY.exists() else {}
    measured = {name: measure(name, spec) for name, spec in SPECS.items() if (MODELS_DIR / f"{name}.onnx").exists()}
    if not check:
        ACCURACY.write_text(json.dumps(known | measured, indent=2) + "\n")
        return
    wrong = [name for name, entry in measured.items() if name not in known or abs(known[name]["accuracy"] - entry["accuracy"]) > 0.002]
    if wrong:
        raise SystemExit(f"accuracy.json does not describe {', '.join(wrong)}: run `python models/evaluate.py` and commit the result")


def measure(name: str, spec: Spec) -> dict[str, float | int]:
    """Accuracy of one .onnx file, one window a call."""
    try:
        import onnxruntime
    except ImportError as missing:
        raise SystemExit(f"evaluation needs ONNX Runtime ({missing}): pip install onnxruntime numpy") from missing
    raw, labels = test_tensor(spec), np.load(DATA_DIR / "nasdaq_labels.npy")
    inputs = Normalization.load(MODELS_DIR / f"{name}.normalization.json").network_input(raw, spec.shape)
    session = onnxruntime.InferenceSession(MODELS_DIR / f"{name}.onnx", providers=["CPUExecutionProvider"])
    answers = np.concatenate([session.run(["probabilities"], {"input": window[None]})[0] for window in inputs])
    if not np.allclose(answers.sum(axis=1), 1, atol=1e-5):
        raise SystemExit(f"{name}.onnx: the probabilities do not add up to 1: export it again")
    right = answers.argmax(axis=1) == labels
    recall = ", ".join(f"{c} {right[labels == number].mean():.3f}" for number, c in enumerate(CLASSES))
    print(f"{name}: {right.mean():.4f} of {len(labels)} windows right; of each class: {recall}", flush=True)
    return {"accuracy": round(float(right.mean()), 4), "windows": len(labels)}


def test_tensor(spec: Spec) -> np.ndarray:
    """The raw test tensor of a model: a committed file, or drawn from the committed prices for cnn_large."""
    if spec.name == "cnn_large":
        return spec.raw(dataset.test())
    return np.load(DATA_DIR / ("nasdaq_images32.npy" if spec.name == "cnn_small" else "nasdaq_windows.npy"))


if __name__ == "__main__":
    main()
