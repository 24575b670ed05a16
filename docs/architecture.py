"""Draws docs/architecture.png: the parts of gradflow and who imports whom, read from the source.

    python docs/architecture.py

An arrow from A to B says that a module of A imports one of B. An import that follows from two
others is left out (the transitive reduction), so that the picture stays readable.
"""

import ast
from pathlib import Path
from typing import TYPE_CHECKING

from gradflow.paths import write_bytes
from gradflow.study.figure import render, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
Graph = dict[str, set[str]]

WIDTH, HEIGHT = 1.5, 1.15
"""Distances between the centres of two neighbouring boxes."""

EDGE = 0.18
"""Distance from the centre of a box to its upper and lower edge."""


def imports() -> Graph:
    """The parts of the project, each with the parts that it imports."""
    graph: Graph = {}
    for path in [*(ROOT / "gradflow").rglob("*.py"), *(ROOT / "experiments").rglob("*.py")]:
        part = _part(path)
        if part == "gradflow":  # only re-exports names
            continue
        graph.setdefault(part, set()).update(_imported_parts(path) - {part})
    return graph


def _part(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return "experiments" if parts[0] == "experiments" else parts[1].replace("__init__", "gradflow")


def _imported_parts(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gradflow"):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name.split(".")[1] for name in names if _is_part(name.split(".")[1])}
    return found


def _is_part(name: str) -> bool:
    return (ROOT / "gradflow" / name).is_dir() or (ROOT / "gradflow" / f"{name}.py").is_file()


def levels(graph: Graph) -> dict[str, int]:
    """The level of each part: one above the highest of those that it imports."""
    found: dict[str, int] = {}

    def level(part: str) -> int:
        if part not in found:
            found[part] = 1 + max((level(other) for other in graph[part]), default=-1)
        return found[part]

    for part in graph:
        level(part)
    return found


def reduced(graph: Graph) -> Graph:
    """The graph without the arrows that follow from others."""

    def reachable(part: str) -> set[str]:
        return graph[part].union(*(reachable(other) for other in graph[part]))

    return {
        part: {o for o in others if not any(o in reachable(n) for n in others - {o})}
        for part, others in graph.items()
    }


def draw(graph: Graph) -> "Figure":
    """One row of boxes a level, the foundation at the bottom."""
    from matplotlib.figure import Figure

    level, arrows = levels(graph), reduced(graph)
    rows = [sorted(p for p in graph if level[p] == n) for n in range(max(level.values()) + 1)]
    places: dict[str, tuple[float, float]] = {}
    for height, row in enumerate(rows):
        row = sorted(row, key=lambda part: _mean_place(arrows[part], places))
        for i, part in enumerate(row):
            places[part] = (WIDTH * (i - (len(row) - 1) / 2), HEIGHT * height)
    fig = Figure(figsize=(7.4, 0.62 * len(rows) + 0.3))
    ax = fig.subplots()
    ax.set_axis_off()
    for part, others in arrows.items():
        for other in others:
            _arrow(ax, places[part], places[other])
    for part, place in places.items():
        box = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": "#0072B2"}
        ax.text(*place, part, ha="center", va="center", fontsize=8, bbox=box, zorder=3)
    xs, ys = zip(*places.values(), strict=True)
    ax.set(xlim=(min(xs) - 0.8, max(xs) + 0.8), ylim=(min(ys) - 0.4, max(ys) + 0.4))
    return fig


def _mean_place(parts: set[str], places: dict[str, tuple[float, float]]) -> float:
    """Where a box should stand so that its arrows are short."""
    return sum(places[part][0] for part in parts) / max(1, len(parts))


def _arrow(ax: "Axes", start: tuple[float, float], end: tuple[float, float]) -> None:
    look = {"arrowstyle": "-|>", "color": "#808080", "lw": 0.7, "shrinkA": 0, "shrinkB": 1}
    rows_apart = round((start[1] - end[1]) / HEIGHT)
    # An arrow over several rows bends outwards, around the boxes between its ends.
    bend = 0.0 if rows_apart < 2 else 0.07 * rows_apart * (1 if end[0] < 0 else -1)
    below, above = (start[0], start[1] - EDGE), (end[0], end[1] + EDGE)
    ax.annotate("", above, below, arrowprops={**look, "connectionstyle": f"arc3,rad={bend}"})


if __name__ == "__main__":
    with style():
        picture = draw(imports())
    write_bytes(ROOT / "docs" / "architecture.png", render(picture, "png", {"Title": "gradflow"}))
