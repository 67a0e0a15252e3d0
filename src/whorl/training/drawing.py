"""Pictures for run folders: panels under one another, as the bytes of a PNG."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 8.0, 4.5  # inches of a panel


class Panel(NamedTuple):
    """One pair of axes. `draw` puts the data on them."""

    title: str
    x: str  # label
    y: str
    draw: Callable[[Axes], None]


def png(panels: Sequence[Panel], height: float = HEIGHT) -> bytes:
    """Draws panels, each `height` inches high. Leaves pyplot, and so the user's own figures, alone."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height * len(panels)), layout="constrained")
    FigureCanvasAgg(figure)
    for number, panel in enumerate(panels, 1):
        axes = figure.add_subplot(len(panels), 1, number)
        panel.draw(axes)
        axes.set(xlabel=panel.x, ylabel=panel.y, title=panel.title)
        axes.grid(alpha=0.3)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    return picture.getvalue()
