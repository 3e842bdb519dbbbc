"""Windows drawn as charts. Row 0 is the top; the price axis spans the window's own low to high."""

from __future__ import annotations

import numpy as np

CHUNK = 512


def chart32(bars: np.ndarray) -> np.ndarray:
    """u8 [N, 32, 32, 1]: a column a day; 128 from high to low, 255 at the close, 0 elsewhere."""
    _, high, low, close, *_ = _columns(bars)
    row = _price_rows(bars, 32)
    image = np.where(_span(row(high), row(low), 32), np.uint8(128), np.uint8(0))
    np.put_along_axis(image, row(close)[:, None, :], np.uint8(255), axis=1)
    return image[..., None]


def chart128(bars: np.ndarray) -> np.ndarray:
    """u8 [N, 128, 128, 3], four columns a day: price bars, volume bars, the 10-day average of the close."""
    image = np.empty((len(bars), 128, 128, 3), dtype=np.uint8)
    for first in range(0, len(bars), CHUNK):
        image[first:first + CHUNK] = _chart128(bars[first:first + CHUNK])
    return image


def _chart128(bars: np.ndarray) -> np.ndarray:
    opens, high, low, close, volume, average = _columns(bars)
    row = _price_rows(bars, 128)
    price = np.where(_span(row(high), row(low), 128), np.uint8(128), np.uint8(0))
    body_top, body_bottom = row(np.maximum(opens, close)), row(np.minimum(opens, close))
    price[_span(body_top, body_bottom, 128)] = 255

    volume_top = 127 - np.rint(127 * volume / volume.max(axis=1, keepdims=True)).astype(np.int64)
    volume_bars = np.where(_span(volume_top, np.full_like(volume_top, 127), 128), np.uint8(255), np.uint8(0))

    # The line also covers the step from the day before, so that it has no holes.
    line = row(average)
    before = np.concatenate([line[:, :1], line[:, :-1]], axis=1)
    average_line = np.where(_span(np.minimum(line, before), np.maximum(line, before), 128), np.uint8(255), np.uint8(0))

    image = np.stack([price, volume_bars, average_line], axis=-1).repeat(4, axis=2)
    image[:, :, 3::4, :2] = 0
    return image


def _columns(bars: np.ndarray) -> list[np.ndarray]:
    return [bars[..., column] for column in range(bars.shape[-1])]


def _price_rows(bars: np.ndarray, levels: int):
    """A function from prices [N, 32] to rows [N, 32] on each window's own price axis."""
    top = bars[..., 1].max(axis=1, keepdims=True)
    bottom = bars[..., 2].min(axis=1, keepdims=True)
    height = np.maximum(top - bottom, 1e-12)
    return lambda price: np.clip(np.rint((top - price) / height * (levels - 1)), 0, levels - 1).astype(np.int64)


def _span(top: np.ndarray, bottom: np.ndarray, levels: int) -> np.ndarray:
    """bool [N, levels, days]: true from row `top` to row `bottom`, both included."""
    rows = np.arange(levels)[None, :, None]
    return (rows >= top[:, None, :]) & (rows <= bottom[:, None, :])
