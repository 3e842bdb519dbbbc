#!/usr/bin/env python3
"""Makes the committed data: price extracts from the package `arch`, and the windows and images from the extracts.

    python models/make_data.py               # .npy files from data/*.csv.gz (needs numpy)
    python models/make_data.py --from-arch   # the extracts too (needs arch)
"""

from __future__ import annotations

import argparse

import numpy as np

from zoo import dataset, market
from zoo.charts import chart32
from zoo.windows import CLASSES

CALIBRATION_WINDOWS = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from-arch", action="store_true", help="also recreate sp500.csv.gz and nasdaq.csv.gz")
    if parser.parse_args().from_arch:
        extract("sp500", dataset.TRAIN_DAYS[0], dataset.HOLDOUT_DAYS[1])
        extract("nasdaq", *dataset.TEST_DAYS)

    test = dataset.test()
    save("nasdaq_windows", test.features)
    save("nasdaq_labels", test.labels.astype(np.int32))
    save("nasdaq_images32", chart32(test.bars))

    train, holdout = dataset.train(), dataset.holdout()
    spread = np.linspace(0, len(train) - 1, CALIBRATION_WINDOWS).astype(int)
    save("sp500_calibration_windows", train.features[spread])
    save("sp500_calibration_images32", chart32(train.bars[spread]))

    for name, windows in (("train", train), ("holdout", holdout), ("test", test)):
        print(f"{name}: {len(windows)} windows,", ", ".join(f"{c} {s:.1%}" for c, s in zip(CLASSES, dataset.shares(windows.labels))))


def extract(name: str, first: str, last: str) -> None:
    """Cuts one history out of the package `arch` and writes it to data/."""
    try:
        from importlib import import_module
        table = import_module(f"arch.data.{name}").load()
    except ImportError as missing:
        raise SystemExit(f"the package arch is needed for --from-arch ({missing}): pip install arch") from missing
    columns = [table[column].to_numpy(np.float64) for column in ("Open", "High", "Low", "Close", "Volume")]
    history = market.History(*columns, date=table.index.to_numpy().astype("datetime64[D]"))
    print("wrote", market.save(name, history.between(first, last)).name)


def save(name: str, array: np.ndarray) -> None:
    """Writes data/<name>.npy and says what it holds."""
    np.save(market.DATA_DIR / f"{name}.npy", array)
    print(f"wrote {name}.npy {array.dtype} {list(array.shape)}")


if __name__ == "__main__":
    main()
