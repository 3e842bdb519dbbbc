"""More training windows from the same training days: a block bootstrap with mirrored, scaled and tilted paths."""

from __future__ import annotations

import numpy as np

from .market import History
from .windows import DAYS, LOOKBACK, WindowSet, one_each

PATH_DAYS = DAYS + LOOKBACK
MEAN_BLOCK_DAYS = 8


def resampled(history: History, count: int, seed: int) -> WindowSet:
    """`count` windows made of blocks of consecutive days of `history`; labels follow from the new closes."""
    rng = np.random.default_rng(seed)
    day = _pick_days(len(history.close) - 1, count, rng)
    before = np.log(history.close[:-1])[day]
    opens, highs, lows, closes = (np.log(price[1:])[day] - before for price in (history.open, history.high, history.low, history.close))
    volume = np.diff(np.log(history.volume))[day]

    mirror = rng.random((count, 1)) < 0.5
    highs, lows = np.where(mirror, -lows, highs), np.where(mirror, -highs, lows)
    opens, closes = np.where(mirror, -opens, opens), np.where(mirror, -closes, closes)

    daily = closes.std()
    closes = closes + rng.normal(0, 0.15 * daily, (count, 1))
    # The source's opens before 2006 repeat the close of the day before; half of the paths get a gap of their own.
    gap = rng.normal(0, 0.35 * daily, (count, PATH_DAYS))
    opens = np.where(rng.random((count, 1)) < 0.5, gap, opens)
    highs = np.maximum(highs, np.maximum(opens, closes))
    lows = np.minimum(lows, np.minimum(opens, closes))
    scale = np.exp(rng.uniform(-0.7, 0.7, (count, 1)))

    before = np.cumsum(closes, axis=1) - closes
    prices = (np.exp(scale * (before + move)) for move in (opens, highs, lows, closes))
    return one_each(History(*prices, volume=np.exp(np.cumsum(volume, axis=1))))


def _pick_days(days: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Indices [count, 52]: mostly the next day, and a jump to a random day every 8 days on average."""
    picked = np.empty((count, PATH_DAYS), dtype=np.int64)
    picked[:, 0] = rng.integers(days, size=count)
    for step in range(1, PATH_DAYS):
        jump = rng.random(count) < 1 / MEAN_BLOCK_DAYS
        picked[:, step] = np.where(jump, rng.integers(days, size=count), (picked[:, step - 1] + 1) % days)
    return picked
