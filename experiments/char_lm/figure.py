"""The figure of the study."""

from typing import Any

import numpy as np
import xarray
from _kit import curves, outcomes, probes

from char_lm.results import PUBLISHED, WHEN, final_bits, over, per_character
from gradflow import study
from gradflow.flow.summary import HORIZON
from gradflow.spec import parse_spec
from gradflow.study.figure import Axes, Figure


def figure(dataset: xarray.Dataset) -> Figure:
    """Bits along the training and at its end; the flow before and after it; the probes."""
    heights = (2.7, 2.5, *(probes.ROW_HEIGHT for _ in probes.rows(dataset)))
    fig = study.figure.empty(7.0, sum(heights))
    top, middle, *rest = fig.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    left, right = top.subplots(1, 2, width_ratios=(3, 2))
    _draw_learning(left, dataset)
    _draw_ends(right, dataset)
    panels = middle.subplots(1, 2, sharey=True)
    for ax, when, at in zip(panels, WHEN, (0, -1), strict=True):
        _draw_flow(ax, dataset.log_norm.isel(probe_update=at))
        ax.set_title(f"Gradient flow along the last tenth, {when}")
    panels[0].set_ylabel(curves.NORM)
    networks = {look["label"]: dataset.sel(cell=spec) for spec, look in _looks(dataset).items()}
    probes.draw_rows(rest, dataset, networks)
    return fig


def _looks(dataset: xarray.Dataset) -> dict[str, dict[str, Any]]:
    """By cell, its label and its style."""
    specs = [str(spec) for spec in dataset.cell.values]
    return {
        spec: {"label": _short(spec), **study.figure.cell_style(parse_spec(spec)[0], index)}
        for index, spec in enumerate(specs)
    }


def _short(spec: str) -> str:
    """A stack by its layers; other cells as they are."""
    name, options = parse_spec(spec)
    return options["cells"].replace(",", " + ") if name == "stack" and options else spec


def _draw_learning(ax: Axes, dataset: xarray.Dataset) -> None:
    read = dataset["update"] * dataset.attrs["characters_an_update"] / 1e6
    found = per_character(dataset)
    for spec, look in _looks(dataset).items():
        study.figure.band(ax, read, found.sel(cell=spec), "seed", **look)
    published = PUBLISHED["minGRU"] / np.log(2)
    ax.axhline(published, **outcomes.REFERENCE)
    ax.annotate("minGRU, published", (float(read[0]), published), fontsize=7, va="top")
    low, high = (float(end(found.isel(update=-1))) for end in (np.min, np.max))
    ax.set(
        xlabel="characters trained on (millions)",
        ylabel="bits per character",
        title="The held-out last tenth of the text",
        ylim=(min(published, low) - 0.15, max(dataset.attrs["alone"], high) + 0.1),
    )
    ax.locator_params(axis="x", nbins=5)
    ax.legend()


def _draw_ends(ax: Axes, dataset: xarray.Dataset) -> None:
    looks = _looks(dataset)
    for place, (spec, look) in enumerate(looks.items()):
        value, low, high = final_bits(dataset, spec)
        ax.plot([low, high], [place, place], color=look["color"], lw=2.5, alpha=0.5)
        ax.plot([value], [place], marker=look["marker"], color=look["color"], ms=6)
        ax.annotate(f"{value:.2f}", (value, place), (0, 6), textcoords="offset points",
                    fontsize=8, ha="center")  # fmt: skip
    ax.set(xlabel="bits per character", title=f"At the end; 95 % over {over(dataset)}")
    ax.set_yticks(range(len(looks)), [look["label"] for look in looks.values()])
    ax.set_ylim(len(looks) - 0.5, -0.7)
    ax.margins(x=0.15)


def _draw_flow(ax: Axes, log_norm: xarray.DataArray) -> None:
    for spec, look in _looks(log_norm.to_dataset()).items():
        norms = log_norm.sel(cell=spec) / curves.NATS
        study.figure.band(ax, log_norm.lag, norms, "seed", **look)
    ax.axhline(np.log10(HORIZON), **outcomes.REFERENCE)
    ax.set(xlabel="lag T − k (characters)", xlim=(0, log_norm.sizes["lag"] - 1))
