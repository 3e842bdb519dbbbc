#!/usr/bin/env python3
"""Trains one model of the zoo and exports it as ONNX, with the normalisation that tickrt applies before it.

    python models/export_onnx_model.py --model toy_cnn --output models/toy_cnn.onnx

Needs numpy, torch and onnx. Prices come from models/data, nothing is downloaded.
"""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path

import numpy as np

from zoo import dataset
from zoo.catalog import MODELS
from zoo.normalization import Normalization

CALIBRATION_WINDOWS = 256


def main() -> None:
    options = parse_options()
    spec = MODELS[options.model]
    if options.dynamic_batch and spec.name != "mlp":
        raise SystemExit("--dynamic-batch is offered for --model mlp only: every other model has batch 1 (--also-dynamic writes a second file)")
    torch = import_torch()
    from zoo import onnx_file, training

    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    real, held, test = dataset.train(), dataset.holdout(), dataset.test()
    normalization = Normalization.fit(spec.raw(real), spec.kind, spec.layout)
    everything = dataset.augmented(real, options.resampled or spec.resampled, spec.seed)
    print(f"{spec.name}: {len(real)} real and {len(everything) - len(real)} resampled training windows, on {device}", flush=True)
    test_raw = spec.raw(test)
    for path in filter(None, (options.output, options.also_dynamic, options.images, options.calibration, options.report)):
        path.parent.mkdir(parents=True, exist_ok=True)
    if options.images:
        np.save(options.images, test_raw)
    if options.calibration:
        spread = np.linspace(0, len(real) - 1, CALIBRATION_WINDOWS).astype(int)
        np.save(options.calibration, spec.raw(real)[spread])

    network = training.train(spec, spec.raw(everything), everything.labels, normalization, device, options.steps or spec.steps)
    report = {
        "model": spec.name,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "holdout_accuracy": round(training.accuracy(network, spec, spec.raw(held), held.labels, normalization, device), 4),
        "test_accuracy": round(training.accuracy(network, spec, test_raw, test.labels, normalization, device), 4),
        "test_windows": len(test),
        "majority_baseline": max(dataset.shares(test.labels)),
    }
    # Exporting folds layers in place: the second file is made from a copy.
    second = copy.deepcopy(network) if options.also_dynamic else None
    onnx_file.export(network, spec, options.output, options.dynamic_batch)
    normalization.save(options.output.with_suffix(".normalization.json"), onnx_file.INPUT)
    if options.also_dynamic:
        onnx_file.export(second, spec, options.also_dynamic, True)
        normalization.save(options.also_dynamic.with_suffix(".normalization.json"), onnx_file.INPUT)
    print(f"wrote {options.output}", json.dumps(report), flush=True)
    if options.report:
        options.report.write_text(json.dumps(report, indent=2) + "\n")


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, choices=sorted(MODELS))
    parser.add_argument("--output", required=True, type=Path, help="the .onnx file; FILE.normalization.json is written beside it")
    parser.add_argument("--dynamic-batch", action="store_true", help='mlp only: a batch dimension named "batch" instead of 1')
    parser.add_argument("--also-dynamic", type=Path, metavar="FILE", help="also write the same network with a batch dimension")
    parser.add_argument("--calibration", type=Path, help=f"also write {CALIBRATION_WINDOWS} raw training windows as .npy, for INT8")
    parser.add_argument("--steps", type=_positive, help="training steps, fewer for a dry run")
    parser.add_argument("--resampled", type=_positive, help="resampled training windows, fewer for a dry run")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="where to train (default: cuda where there is one)")
    parser.add_argument("--images", type=Path, help="also write the raw test tensor [N, ...] as .npy")
    parser.add_argument("--report", type=Path, help="also write the accuracies as JSON")
    return parser.parse_args()


def import_torch():
    """torch, or a message that says how to get it."""
    try:
        import onnx  # noqa: F401
        import torch
    except ImportError as missing:
        raise SystemExit(f"training needs PyTorch and onnx ({missing}): pip install torch onnx numpy") from missing
    return torch


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, got {number}")
    return number


if __name__ == "__main__":
    main()
