"""Features, labels and windows: 32 trading days x 8 features, and the class of each window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .market import History

DAYS = 32
LOOKBACK = 20
CLASSES = ("uptrend", "downtrend", "range")
FEATURES = (
    "log_return", "log_body", "log_range", "close_position",
    "log_volume_change", "log_relative_volume", "log_trend_distance", "volatility",
)
TREND_THRESHOLD = 0.4
AVERAGE_DAYS = 10


@dataclass(frozen=True)
class WindowSet:
    """N windows: features f32 [N, 32, 8], bars f64 [N, 32, 6] (open, high, low, close, volume, average), labels i64 [N]."""

    features: np.ndarray
    bars: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def joined(self, other: "WindowSet") -> "WindowSet":
        """Both sets, this one first."""
        pairs = ((self.features, other.features), (self.bars, other.bars), (self.labels, other.labels))
        return WindowSet(*(np.concatenate(pair) for pair in pairs))


def rolling(history: History) -> WindowSet:
    """Every window of one history, one day apart. The first 20 days serve as look-back only."""
    features, bars = _rows(history)
    if len(features) < DAYS:
        raise ValueError(f"a history needs at least {DAYS + LOOKBACK} days, got {len(history.close)}: give a longer one")
    return _labelled(*(np.moveaxis(np.lib.stride_tricks.sliding_window_view(rows, DAYS, axis=0), -1, 1) for rows in (features, bars)))


def one_each(histories: History) -> WindowSet:
    """One window from each of N histories of 52 days, given as arrays [N, 52]."""
    return _labelled(*_rows(histories))


def label(close: np.ndarray) -> np.ndarray:
    """Classes of closes [N, 32]: the fitted 31-day move against what a driftless walk of the same volatility moves."""
    log_close = np.log(close)
    days = np.arange(DAYS) - (DAYS - 1) / 2
    slope = log_close @ days / (days @ days)
    volatility = np.diff(log_close, axis=-1).std(axis=-1, ddof=1)
    strength = slope * (DAYS - 1) / np.maximum(volatility * np.sqrt(DAYS - 1), 1e-12)
    return np.select([strength > TREND_THRESHOLD, strength < -TREND_THRESHOLD], [0, 1], 2).astype(np.int64)


def _labelled(features: np.ndarray, bars: np.ndarray) -> WindowSet:
    features = np.ascontiguousarray(features, dtype=np.float32)
    return WindowSet(features, np.ascontiguousarray(bars), label(bars[..., 3]))


def _rows(h: History) -> tuple[np.ndarray, np.ndarray]:
    """Feature rows [..., T - 20, 8] and bar rows [..., T - 20, 6]; each row looks back only, so windows can roll."""
    log_close, log_volume = np.log(h.close), np.log(h.volume)
    log_return = np.diff(log_close)
    spread = h.high - h.low
    position = np.divide(h.close - h.low, spread, out=np.full_like(spread, 0.5), where=spread > 0)
    average = _mean(h.close, AVERAGE_DAYS)
    columns = (
        log_return,
        np.log(h.close / h.open),
        np.log(h.high / h.low),
        position,
        np.diff(log_volume),
        log_volume[..., LOOKBACK:] - np.log(_mean(h.volume, LOOKBACK)[..., :-1]),
        log_close[..., AVERAGE_DAYS - 1:] - np.log(average),
        np.sqrt(_mean(log_return**2, AVERAGE_DAYS)),
    )
    rows = h.close.shape[-1] - LOOKBACK
    bars = (h.open, h.high, h.low, h.close, h.volume, average)
    return tuple(np.stack([column[..., -rows:] for column in group], axis=-1) for group in (columns, bars))


def _mean(values: np.ndarray, days: int) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(values, days, axis=-1).mean(axis=-1)
