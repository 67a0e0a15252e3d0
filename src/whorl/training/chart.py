"""The picture that every run ends with. Pillow draws it, because matplotlib takes 0.4 s and 30 MiB to import (docs/design/021-start.md)."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from whorl.training.scales import number, ticks, widened

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

WIDTH, HEIGHT = 960, 540  # pixels
RIGHT, TOP, BOTTOM = 25, 45, 60  # margins
FINE = 2  # series are drawn so much larger, and smooth when they are made smaller
PAPER, INK, GRID = (255, 255, 255), (0, 0, 0), (232, 232, 232)
BLUE, PALE_BLUE, ORANGE = (31, 119, 180), (188, 214, 233), (255, 127, 14)
FONT = ("matplotlib", "mpl-data/fonts/ttf/DejaVuSans.ttf")  # of its files alone; Pillow's own knows ASCII only

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Series:
    """Points [n] that are joined by a line, have dots, or both; what is not finite is left out, and breaks the line."""

    label: str
    x: np.ndarray
    y: np.ndarray
    color: Color
    line: bool = False
    dot: float = 0.0  # its radius in pixels


@dataclass(frozen=True)
class Chart:
    """Series over one another in one pair of axes; `empty` is written where they have no point."""

    title: str
    x: str  # label
    y: str
    series: list[Series]
    empty: str = ""

    def png(self) -> bytes:
        from PIL import Image, ImageDraw

        shown = [(s, np.isfinite(s.y)) for s in self.series]
        x_low, x_high = _span([s.x[fine] for s, fine in shown])
        y_low, y_high = _span([s.y[fine] for s, fine in shown])
        x_ticks, y_ticks = ticks(x_low, x_high, 9), ticks(y_low, y_high, 9)
        small, large = _font(13), _font(16)
        left = 45 + round(max(small.getlength(_text(at)) for at in y_ticks))
        x = _scale((x_low, x_high), (left, WIDTH - RIGHT))
        y = _scale((y_low, y_high), (HEIGHT - BOTTOM, TOP))
        points = [np.where(fine, [x(s.x), y(s.y)], np.nan).T for s, fine in shown]  # [n, 2] each

        picture = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
        pen = ImageDraw.Draw(picture)
        for at in x_ticks:
            pen.line((x(at), TOP, x(at), HEIGHT - BOTTOM), GRID)
        for at in y_ticks:
            pen.line((left, y(at), WIDTH - RIGHT, y(at)), GRID)
        for (s, _), own in zip(shown, points):
            mask = Image.new("L", (FINE * WIDTH, FINE * HEIGHT))
            _draw(ImageDraw.Draw(mask), FINE * own, s)
            picture.paste(s.color, mask=mask.reduce(FINE))
        pen.rectangle((left, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM), outline=INK)
        for at in x_ticks:
            pen.text((x(at), HEIGHT - BOTTOM + 8), _text(at), INK, small, anchor="ma")
        for at in y_ticks:
            pen.text((left - 8, y(at)), _text(at), INK, small, anchor="rm")
        middle = (left + WIDTH - RIGHT) / 2
        pen.text((middle, TOP / 2), self.title, INK, large, anchor="mm")
        pen.text((middle, HEIGHT - 18), self.x, INK, small, anchor="mm")
        beside = Image.new("RGB", (HEIGHT - TOP - BOTTOM, 20), PAPER)
        ImageDraw.Draw(beside).text((beside.width / 2, 10), self.y, INK, small, anchor="mm")
        picture.paste(beside.rotate(90, expand=True), (6, TOP))
        labelled = [s for s, fine in shown if fine.any()]
        if labelled:
            self._legend(pen, labelled, np.concatenate(points), left, small)
        else:
            pen.text((middle, (TOP + HEIGHT - BOTTOM) / 2), self.empty, INK, small, anchor="mm")
        written = io.BytesIO()
        picture.save(written, "png")
        return written.getvalue()

    def _legend(
        self, pen: ImageDraw, series: list[Series], points: np.ndarray, left: int, font: FreeTypeFont | ImageFont
    ) -> None:
        """In the corner with the fewest points."""
        size = np.array([52 + max(font.getlength(s.label) for s in series), 10 + 20 * len(series)])
        first, last = np.array([left + 8, TOP + 8]), np.array([WIDTH - RIGHT - 8, HEIGHT - BOTTOM - 8]) - size
        corners = [np.array([x, y]) for x in (first[0], last[0]) for y in (first[1], last[1])]
        corner = min(corners, key=lambda at: ((at <= points) & (points <= at + size)).all(1).sum())
        pen.rounded_rectangle((*corner, *(corner + size)), 4, PAPER, (204, 204, 204))
        for row, s in enumerate(series):
            x, y = corner + [8, 15 + 20 * row]
            if s.line:
                pen.line((x, y, x + 28, y), s.color, 3)
            if s.dot:
                pen.circle((x + 14, y), s.dot, s.color)
            pen.text((x + 36, y), s.label, INK, font, anchor="lm")


def _span(found: list[np.ndarray]) -> tuple[float, float]:
    """The range of all, and a twentieth of it on either side; from 0 to 1 where there is nothing."""
    values = np.concatenate([np.zeros(0), *found]).clip(-1e300, 1e300)  # whose differences are finite
    low, high = widened(float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    return low - (high - low) / 20, high + (high - low) / 20


def _text(value: float) -> str:
    return number(value) if abs(value) < 1e8 else f"{value:.4g}"


def _scale(numbers: tuple[float, float], places: tuple[float, float]) -> Callable:
    (low, high), (begin, end) = numbers, places
    return lambda value: begin + (np.clip(value, low, high) - low) / (high - low) * (end - begin)


def _draw(pen: ImageDraw, points: np.ndarray, series: Series) -> None:
    """Dots at points [n, 2], and a line that joins them, but for what is NaN."""
    for part in np.split(points, np.flatnonzero(np.isnan(points[:, 0]))) if series.line else ():
        part = part[~np.isnan(part[:, 0])]
        if len(part) > 1:
            pen.line(part.ravel().tolist(), 255, round(FINE * 2.5), joint="curve")
    for place in points[~np.isnan(points[:, 0])] if series.dot else ():
        pen.circle(tuple(place), FINE * series.dot, 255)


def _font(size: int) -> FreeTypeFont | ImageFont:
    from PIL import ImageFont

    package, file = FONT
    found = find_spec(package)
    places = found.submodule_search_locations if found else None
    try:
        return ImageFont.truetype(str(Path((places or [""])[0]) / file), size)
    except OSError:
        return ImageFont.load_default(size)
