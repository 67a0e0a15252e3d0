"""Axes of pictures: how far they go, where they have a tick, and how a number is written there."""

from __future__ import annotations

import math


def widened(low: float, high: float) -> tuple[float, float]:
    """The range itself, or a wider one around it where its ends could not be told apart."""
    size = max(abs(low), abs(high))
    pad = max(0.5, 0.05 * size)
    return (low, high) if high - low > max(1e-6, 1e-6 * size) else (low - pad, high + pad)


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers in [low, high], 1, 2 or 5 times a power of ten apart; at most `most`. low < high."""
    span = float(high - low)
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * m for m in (1, 2, 5, 10, 20) if span / (power * m) <= most - 1)
    return [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def decimals(size: float) -> int:
    """How many decimals say enough about numbers of this size."""
    if size >= 1 or size == 0:
        return 0 if size >= 1000 or size == 0 else 1 if size >= 100 else 2
    return min(6, 2 - math.floor(math.log10(size)))


def number(value: float, places: int | None = None) -> str:
    """A return with so many decimals; None: as many as its size needs, without zeros at the end."""
    text = f"{value:,.{decimals(abs(value)) if places is None else places}f}"
    if places is None and "." in text:
        text = text.rstrip("0").rstrip(".")
    text = text.removeprefix("-") if not float(text.replace(",", "")) else text
    return text.replace("-", "\N{MINUS SIGN}")
