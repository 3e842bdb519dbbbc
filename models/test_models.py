#!/usr/bin/env python3
"""Checks the committed files against each other: `python models/test_models.py` (needs numpy)."""

from __future__ import annotations

import hashlib
import json
import unittest
from pathlib import Path

import numpy as np

from zoo import dataset
from zoo.catalog import MODELS
from zoo.charts import chart32
from zoo.market import DATA_DIR
from zoo.normalization import Normalization
from zoo.windows import label

HERE = Path(__file__).resolve().parent


class CommittedFiles(unittest.TestCase):
    def test_files_match_their_hashes(self) -> None:
        for line in (HERE / "SHA256SUMS").read_text().splitlines():
            digest, name = line.split("  ")
            with self.subTest(name):
                self.assertEqual(hashlib.sha256((HERE / name).read_bytes()).hexdigest(), digest)

    def test_arrays_match_the_prices(self) -> None:
        windows = dataset.test()
        np.testing.assert_allclose(np.load(DATA_DIR / "nasdaq_windows.npy"), windows.features, rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(np.load(DATA_DIR / "nasdaq_labels.npy"), windows.labels)
        np.testing.assert_array_equal(np.load(DATA_DIR / "nasdaq_images32.npy"), chart32(windows.bars))

    def test_windows_roll_by_one_row(self) -> None:
        windows = np.load(DATA_DIR / "nasdaq_windows.npy")
        np.testing.assert_array_equal(windows[1:, :-1], windows[:-1, 1:])

    def test_normalizations_match_the_training_windows(self) -> None:
        train = dataset.train()
        for name, spec in MODELS.items():
            with self.subTest(name):
                committed = Normalization.load(HERE / f"{name}.normalization.json")
                fitted = Normalization.fit(spec.raw(train), spec.kind, spec.layout)
                np.testing.assert_allclose(committed.mean, fitted.mean, rtol=1e-4, atol=1e-7)
                np.testing.assert_allclose(committed.std, fitted.std, rtol=1e-4)
                self.assertEqual((committed.input_type, committed.kind, committed.layout), (fitted.input_type, spec.kind, spec.layout))

    def test_accuracy_beats_the_majority(self) -> None:
        majority = max(dataset.shares(dataset.test().labels))
        for name, entry in json.loads((HERE / "accuracy.json").read_text()).items():
            with self.subTest(name):
                self.assertGreater(entry["accuracy"], majority + 0.3)


class Labels(unittest.TestCase):
    def test_steady_moves_are_trends(self) -> None:
        rng = np.random.default_rng(0)
        noise = 0.002 * rng.standard_normal(32)
        drift = 0.01 * np.arange(32)
        closes = 100 * np.exp(np.stack([drift + noise, noise - drift, 5 * noise]))
        self.assertEqual(label(closes).tolist(), [0, 1, 2])

    def test_labels_do_not_depend_on_the_price_level(self) -> None:
        closes = np.exp(np.cumsum(0.01 * np.random.default_rng(1).standard_normal((100, 32)), axis=1))
        np.testing.assert_array_equal(label(closes), label(7 * closes))


class Splits(unittest.TestCase):
    def test_every_class_has_at_least_15_percent_of_the_test(self) -> None:
        self.assertGreater(min(dataset.shares(dataset.test().labels)), 0.15)


if __name__ == "__main__":
    unittest.main()
