"""The style of all figures: one colour a cell, and reproducible bytes.

A figure of 3.5 inches is one column of a paper and 7 inches is its whole width.
"""

import contextlib
import io
import itertools
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike

from gradflow.paths import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.lines import Line2D
else:  # names for annotations: Matplotlib takes half a second, and is imported when one draws
    Axes = Figure = SubFigure = Line2D = Any

STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": True,
    "axes.grid": True,
    "axes.labelsize": 9,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "figure.constrained_layout.use": True,
    "figure.dpi": 200,
    "figure.figsize": (3.5, 2.6),
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same bytes on every machine
    "font.size": 9,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.5,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.handlelength": 2.8,  # a whole period of a dashed line
    "lines.linewidth": 1.4,
    "lines.markersize": 3.5,
    "pdf.fonttype": 42,  # embedded TrueType, which journals ask for
    "savefig.dpi": 200,
    "xtick.labelsize": 8,
    "xtick.major.width": 0.6,
    "ytick.labelsize": 8,
    "ytick.major.width": 0.6,
}

# The colours are Okabe & Ito's, without the yellow that is lost on white, and two of Tol's.
CELL_STYLES: dict[str, dict[str, Any]] = {
    "rnn": {"color": "#D55E00", "linestyle": "--", "marker": "o"},
    "lstm": {"color": "#0072B2", "linestyle": "-", "marker": "s"},
    "gru": {"color": "#009E73", "linestyle": "-.", "marker": "^"},
    "gru_reset_before": {"color": "#CC79A7", "linestyle": ":", "marker": "v"},
}
_OTHER_COLORS = ("#E69F00", "#000000", "#56B4E9", "#661100", "#332288")
_OTHER_LINESTYLES = ((0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)), (0, (2, 1)), (0, (1, 2.5)))
_OTHER_MARKERS = ("D", "P", "X", "*", "h", "<", ">")

SERIES_STYLES: tuple[dict[str, Any], ...] = (
    {"color": "#0072B2", "linestyle": "-", "marker": "s"},
    {"color": "#D55E00", "linestyle": "--", "marker": "o"},
    {"color": "#E69F00", "linestyle": (0, (3, 1, 1, 1)), "marker": "D"},
    {"color": "#009E73", "linestyle": "-.", "marker": "^"},
    {"color": "#CC79A7", "linestyle": ":", "marker": "v"},
    {"color": "#000000", "linestyle": (0, (8, 2)), "marker": "P"},
)

MARKERS_A_LINE = 8


def cell_style(name: str, index: int) -> dict[str, Any]:
    """Gives a cell's colour, line style and marker, which tell it apart in grey too.

    Args:
      name: The cell. The common ones look the same in every figure.
      index: The place among the figure's cells, which chooses the look of any other cell.
    """
    return dict(CELL_STYLES.get(name) or _other_style(index))


def series_style(index: int) -> dict[str, Any]:
    """Gives the look of one of several lines that are not cells: six, and then again."""
    return dict(SERIES_STYLES[index % len(SERIES_STYLES)])


def _other_style(index: int) -> dict[str, Any]:
    # Lengths without a common divisor: the three together repeat after 140 cells.
    looks = zip(
        itertools.cycle(_OTHER_COLORS),
        itertools.cycle(_OTHER_LINESTYLES),
        itertools.cycle(_OTHER_MARKERS),
        strict=False,
    )
    color, linestyle, marker = next(itertools.islice(looks, index, None))
    return {"color": color, "linestyle": linestyle, "marker": marker}


def _import_matplotlib() -> Any:
    """Imports matplotlib; its own import fails where MPLBACKEND has a name that it does not know.

    The backend shows windows, and nothing here does. A name that it knows is set afterwards, for a
    notebook that draws too.
    """
    backend = None if "matplotlib" in sys.modules else os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend:
        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = backend
    return matplotlib


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Draws and saves everything within the block in this style, and nothing after it."""
    matplotlib = _import_matplotlib()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a user's own settings would change the bytes
        matplotlib.rcParams.update(cast(Any, STYLE))
        yield
        # A notebook's backend is loaded with the first figure and becomes interactive then. If that
        # were undone with the style, the notebook would show no later figure.
        is_interactive = matplotlib.is_interactive()
    matplotlib.interactive(is_interactive)


def empty(width: float = 3.5, height: float = 2.6) -> Figure:
    """Makes an empty figure of this size in inches, by default that of a column of a paper."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


def band(ax: Axes, x: ArrayLike, values: Any, axis: int | str, **look: Any) -> Line2D:
    """Draws the median over one axis as a line, and from 10 to 90 % of it as a band.

    The line has a gap where the median is not finite, and the band where one of its ends is not:
    an exactly cut gradient has no norm to show, and a floor would look like one.

    Args:
      ax: Where to draw.
      x: The places along the other axis.
      values: An array of two axes, plain or named.
      axis: The axis of the repetitions; its name, where the array has named ones.
      **look: Passed to the line: what `cell_style` gives, a label.

    Returns:
      The line.

    Raises:
      ValueError: If the other axis is not as long as ``x``.
    """
    places = np.asarray(x)
    number = values.get_axis_num(axis) if isinstance(axis, str) else axis
    with np.errstate(invalid="ignore"):  # between two infinities lies nan, which is a gap
        low, middle, high = np.quantile(np.asarray(values), [0.1, 0.5, 0.9], axis=number)
    if middle.shape != places.shape:
        raise ValueError(
            f"Expected one value for each x, of shape {places.shape}, got shape {middle.shape} "
            f"without the axis {axis!r}. Name the axis of the repetitions."
        )
    every = max(1, len(places) // MARKERS_A_LINE)
    gap = ~np.isfinite(middle)
    (line,) = ax.plot(places, np.where(gap, np.nan, middle), **{"markevery": every, **look})
    whole = np.isfinite(low) & np.isfinite(high)
    ax.fill_between(places, low, high, where=whole, color=line.get_color(), alpha=0.2, linewidth=0)
    return line


def handle(**look: Any) -> Line2D:
    """Makes a line that stands in a legend alone."""
    from matplotlib.lines import Line2D

    return Line2D([], [], **look)


def legend_above(part: Figure | SubFigure, ax: Axes, **options: Any) -> None:
    """Draws the legend of one panel above all panels, in one row where ``ncols`` is not given."""
    handles, labels = ax.get_legend_handles_labels()
    options = {"loc": "outside upper center", "ncols": len(labels), **options}
    part.legend(handles, labels, **options)


def render(figure: Figure, kind: str, metadata: Mapping[str, str]) -> bytes:
    """Writes a figure as ``pdf`` or ``png``; the same figure gives the same bytes at any time.

    The metadata's keys are those of the PDF standard, such as Title, Subject and Keywords.
    """
    dates = {"CreationDate": None} if kind == "pdf" else {}
    with style(), io.BytesIO() as buffer:
        figure.savefig(buffer, format=kind, metadata={**metadata, **dates})
        return buffer.getvalue()


def save(figure: Figure, folder: Path, stem: str, metadata: Mapping[str, str]) -> None:
    """Writes a figure as PNG and as PDF, each at once, in one layout.

    The layout is found once, as it takes longer than the drawing.
    """
    engine = figure.get_layout_engine()
    write_bytes(folder / f"{stem}.png", render(figure, "png", metadata))
    figure.set_layout_engine("none")
    write_bytes(folder / f"{stem}.pdf", render(figure, "pdf", metadata))
    figure.set_layout_engine(engine)
