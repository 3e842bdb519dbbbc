"""The three data sets: S&P 500 to 2009 for training, S&P 500 2010-2011 held out, NASDAQ from 2012 for the test."""

from __future__ import annotations

import numpy as np

from . import market
from .resample import resampled
from .windows import WindowSet, rolling

TRAIN_DAYS = ("1999-01-01", "2009-12-31")
HOLDOUT_DAYS = ("2010-01-01", "2011-12-31")
TEST_DAYS = ("2012-01-01", "2018-12-31")


def train() -> WindowSet:
    """The real S&P 500 training windows; normalisation statistics come from these alone."""
    return rolling(market.load("sp500").between(*TRAIN_DAYS))


def augmented(real: WindowSet, count: int, seed: int) -> WindowSet:
    """The training windows and `count` resampled ones."""
    return real.joined(resampled(market.load("sp500").between(*TRAIN_DAYS), count, seed))


def holdout() -> WindowSet:
    """S&P 500 windows that share no day, look-back included, with the training windows."""
    return rolling(market.load("sp500").between(*HOLDOUT_DAYS))


def test() -> WindowSet:
    """NASDAQ windows, never used in training or in any choice about it."""
    return rolling(market.load("nasdaq").between(*TEST_DAYS))


def shares(labels: np.ndarray) -> list[float]:
    """The share of each class, in class order."""
    return [round(float((labels == number).mean()), 4) for number in range(3)]
