"""Daily price histories: the two committed extracts, and how they are read and written."""

from __future__ import annotations

import csv
import gzip
import io
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

DATA_DIR = Path(__file__).resolve().parent.parent / "data"
COLUMNS = ("date", "open", "high", "low", "close", "volume")


@dataclass(frozen=True)
class History:
    """Daily bars. Arrays share one shape whose last axis is time; prices in index points, volume in shares."""

    open: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    volume: np.ndarray
    date: np.ndarray | None = None

    def between(self, first: str, last: str) -> "History":
        """The days from `first` to `last`, both included, as ISO dates."""
        if self.date is None:
            raise ValueError("this history has no dates: cut the source history instead")
        keep = (self.date >= np.datetime64(first)) & (self.date <= np.datetime64(last))
        if not keep.any():
            raise ValueError(f"no trading day between {first} and {last}: the history runs from {self.date[0]} to {self.date[-1]}")
        return History(*(getattr(self, name)[keep] for name in COLUMNS[1:]), date=self.date[keep])


def load(name: str) -> History:
    """Reads `data/<name>.csv.gz`; a missing volume (0) becomes the volume of the day before."""
    path = DATA_DIR / f"{name}.csv.gz"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run `python models/make_data.py --from-arch` (needs the package arch)")
    with gzip.open(path, "rt", newline="") as text:
        header, *rows = csv.reader(text)
    if tuple(header) != COLUMNS:
        raise ValueError(f"{path}: expected columns {COLUMNS}, got {tuple(header)}: recreate it with make_data.py --from-arch")
    date, *numbers = zip(*rows)
    history = History(*(np.array(column, dtype=np.float64) for column in numbers), date=np.array(date, dtype="datetime64[D]"))
    return replace(history, volume=_fill_zeros(history.volume))


def save(name: str, history: History) -> Path:
    """Writes `data/<name>.csv.gz` with the same bytes every time."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for day in zip(*(getattr(history, column) for column in COLUMNS)):
        writer.writerow([str(day[0]), *(f"{price:.6f}" for price in day[1:5]), f"{day[5]:.0f}"])
    path = DATA_DIR / f"{name}.csv.gz"
    path.write_bytes(gzip.compress(text.getvalue().encode(), compresslevel=9, mtime=0))
    return path


def _fill_zeros(volume: np.ndarray) -> np.ndarray:
    filled = volume.copy()
    for day in np.flatnonzero(filled <= 0):
        filled[day] = filled[day - 1]
    return filled
