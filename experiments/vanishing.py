"""How the size of ∂h_T/∂h_k falls, or grows, with the lag T - k.

For each cell: log10 ‖∂h_T/∂h_k‖ against the lag, from the product of the step Jacobians on the
whole carry, ∂s_T/∂s_k = J_T J_{T-1} ... J_{k+1}, of which the block from source to target is
taken last; and the singular values of that block at a few lags, which show whether one
direction vanishes or all of them do. The claims: gradients through a recurrent network shrink or
grow exponentially with the lag, and at a rate that depends on the cell. The rate depends on the
biases of the gates as well: to compare an LSTM, whose forget bias is 1 by default, with a GRU, give
the GRU the same bias, ``gru(update_bias=1)``.

Source: Hochreiter 1991; Bengio, Simard, Frasconi 1994, doi:10.1109/72.279181; Pascanu,
Mikolov, Bengio 2013, arXiv:1211.5063.

    python experiments/vanishing.py --cell=lstm
    python experiments/vanishing.py --cell='rnn,lstm(forget_bias=2)' --inputs=digits --num_steps=64
    python experiments/vanishing.py --cell=path/to/mine.py:my_cell
    python experiments/vanishing.py --params=path/to/lstm.safetensors --inputs=text:PATH

With --params the cells are trained ones, from files of `gradflow.interop.save_params`, as studies
on real data write them: the files name the cells and their sizes, and the seed gives the inputs
alone. A cell of a user's own has to be named by --cell as well, because its code is executed.

Takes a few seconds a cell on two cores at the defaults.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax
import numpy as np
import xarray
from _kit import curves, decisions, fields, rates, runs, subjects

from gradflow import Cell, Params, flow, study
from gradflow.spec import parse_spec
from gradflow.study.figure import Axes, Figure

LINEAR = 0.9
"""The R² of a line through log norm against lag from which a curve counts as exponential."""


@dataclass(frozen=True)
class Config(study.Config):
    """What is measured, on what."""

    cell: str | None = fields.cell(None, several=True, without="lstm, or the cells of --params")
    params: tuple[str, ...] | None = fields.params()
    hidden_size: int = fields.hidden_size(64)
    input_size: int = fields.input_size(16)
    num_steps: int = fields.num_steps(200)
    num_sequences: int = fields.num_sequences(1)
    inputs: str = fields.inputs("gaussian")
    init: str | None = fields.init()
    gain: float | None = fields.gain(None)
    source: str | None = fields.source()
    target: str | None = fields.target()
    norm: Literal["spectral", "frobenius"] = fields.norm()
    needed_lag: int | None = fields.needed_lag()
    spectrum_lags: tuple[int, ...] = fields.positive(
        (1, 10, 50, 100, 200), help="Lags whose singular values the figure shows."
    )


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Measures each cell; dimensions cell, run (seeds times sequences), lag."""
    found, inputs = subjects.subjects(config), subjects.inputs(config)
    # Before anything is measured, so that bad input is reported at once.
    made = {name: (one.make(inputs), one.path) for name, one in found.items()}
    parts = [
        once(f"cell={name}", partial(_measure, config, name, *one, inputs))
        for name, one in study.progress(made.items(), "cells")
    ]
    # A trained network is one, whatever the number of seeds, which then give the inputs alone.
    networks = config.num_seeds if config.params is None else 1
    return xarray.concat(parts, dim="cell", join="outer").assign_attrs(
        num_networks=networks,
        **rates.needed(config),
        **runs.axes_read(config),
    )


def _measure(
    config: Config, name: str, cell: Cell, path: str | None, inputs: jax.Array
) -> xarray.Dataset:
    lags = sorted({lag for lag in config.spectrum_lags if lag <= config.num_steps})
    network = subjects.params(config, cell, path)
    block = subjects.blocks(config, cell, network, inputs)
    source, target = block["source"], block["target"]

    def one_run(params: Params, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return (
            flow.log_norms(cell, params, x, norm=config.norm, source=source, target=target),
            flow.leading_singular_values(cell, params, x, lags, source=source, target=target),
        )

    norms, spectra = runs.measure(one_run, network, inputs)
    nats, dims = {"units": "nats"}, ("cell", "run", "spectrum_lag", "index")
    return xarray.Dataset(
        {
            "log_norm": (("cell", "run", "lag"), norms[None], {**nats, "norm": config.norm}),
            "log_singular_value": (dims, spectra[None], nats),
        },
        coords={
            "cell": [name],
            **{key: ("cell", [value]) for key, value in block.items()},
            "reads_h": ("cell", [config.source is not None or block["source"] == "h"]),
            "lag": curves.coordinates(config.num_steps)["lag"],
            "spectrum_lag": ("spectrum_lag", lags, {"units": "steps"}),
            "index": np.arange(spectra.shape[-1]),
        },
    )


def figure(dataset: xarray.Dataset) -> Figure:
    """Norm against lag, all cells in one panel; below it the singular values, a panel a cell."""
    names = [str(cell) for cell in dataset.cell.values]
    looks = [study.figure.cell_style(parse_spec(name)[0], i) for i, name in enumerate(names)]
    fig = study.figure.empty(5.2, 5.0)
    top, bottom = fig.subfigures(2, 1, height_ratios=(3, 2), hspace=0.03, squeeze=False)[:, 0]
    ax = top.subplots()
    for name, look in zip(names, looks, strict=True):
        _draw_norms(ax, dataset.sel(cell=name), _summary(dataset, name).rate, look)
    curves.lag_axis(ax, dataset)
    ends = [_one_for_all(dataset[name].values) for name in ("source", "target")]
    ax.set_ylabel(curves.norm_label(*ends))
    ax.set_title(
        f"{dataset.log_norm.attrs['norm'].capitalize()} norm against lag: median, 10–90 %, and fit"
    )
    ax.legend()
    panels = bottom.subplots(1, len(names), sharey=True, squeeze=False)[0]
    places = [
        _draw_spectra(panel, dataset.sel(cell=name), look["color"])
        for panel, name, look in zip(panels, names, looks, strict=True)
    ]
    for panel, own in zip(panels, places, strict=True):  # once all are drawn: one axis for all
        _label_ends(panel, own)
    bottom.suptitle("Singular values above rounding error, by lag", fontsize=9)
    panels[0].set_ylabel(r"$\log_{10}\,\sigma$")
    panels[len(names) // 2].set_xlabel("index, largest first")
    return fig


def _one_for_all(blocks: np.ndarray) -> str:
    """The name of the block of all cells; s, a state, where they have different ones."""
    return str(blocks[0]) if len(set(blocks.tolist())) == 1 else "s"


def _draw_norms(ax: Axes, data: xarray.Dataset, rate: float, look: dict) -> None:
    line = curves.draw_norms(ax, data.lag, data.log_norm, label=str(data.cell.values), **look)
    median = data.log_norm.median("run") / curves.NATS
    finite = np.isfinite(median)
    if np.isfinite(rate) and finite.any():
        # The fit is a thin line through the middle of the curve that it was fitted to.
        ends = data.lag[finite][[0, -1]]
        rise = rate / curves.NATS * (ends - float(data.lag[finite].mean()))
        ax.plot(ends, float(median[finite].mean()) + rise, color=line.get_color(), lw=0.5)


def _draw_spectra(ax: Axes, data: xarray.Dataset, color: str) -> list[tuple[int, float, int]]:
    """Draws one line for each lag; returns the end of each, and its lag."""
    lags = data.spectrum_lag.values
    # Where rounding has taken a value from one run, the median of the others would mislead.
    medians = data.log_singular_value.median("run", skipna=False) / curves.NATS
    ends = []
    for i, lag in enumerate(lags):
        values = medians.sel(spectrum_lag=lag)
        values = values.where(np.isfinite(values))
        ax.plot(data.index + 1, values, color=color, alpha=1 - 0.75 * i / max(1, len(lags) - 1))
        if values.notnull().any():
            at = int(np.flatnonzero(values.notnull())[-1])
            ends.append((at + 1, float(values[at]), int(lag)))
    ax.set_title(str(data.cell.values))
    ax.margins(x=0.02)
    return ends


def _label_ends(ax: Axes, ends: list[tuple[int, float, int]]) -> None:
    """Writes each lag beside the end of its line, below the labels above it that are near."""
    bottom, top = ax.get_ylim()
    width = ax.get_xlim()[1]
    placed: list[tuple[int, float]] = []
    for x, y, lag in sorted(ends, key=lambda end: -end[1]):
        near = [above for at, above in placed if abs(x - at) < width / 4]
        y = min([y, *(above - (top - bottom) / 12 for above in near)])
        ax.annotate(f" {lag}", (x, y), fontsize=7, va="center", annotation_clip=False)
        placed.append((x, y))


def _summary(dataset: xarray.Dataset, name: str) -> flow.Summary:
    log_norms, networks = dataset.log_norm.sel(cell=name), dataset.attrs["num_networks"]
    return rates.of_networks(log_norms, networks, rates.needed_lag(dataset))


def summary(dataset: xarray.Dataset) -> str:
    """A table of the curves, a sentence for each, and what the intervals are over."""
    longest = dataset.sizes["lag"] - 1
    found = {str(name): _summary(dataset, str(name)) for name in dataset.cell.values}
    table = study.table([_row(name, one, longest) for name, one in found.items()])
    sentences = [
        rates.sentence(name, one, longest, _norm_text(dataset, name)) for name, one in found.items()
    ]
    state = [
        f"No later step reads the h of {name}, so that ∂h_T/∂h_k is 0: its state is measured."
        for name in found
        if not dataset.reads_h.sel(cell=name)
    ]
    return "\n".join([table, *sentences, *state, *runs.axes_note(dataset)]) + rates.note(dataset)


def _norm_text(dataset: xarray.Dataset, name: str) -> str:
    one = dataset.sel(cell=name)
    return rates.norm_text(str(one.source.values), str(one.target.values))


def _row(name: str, found: flow.Summary, longest: int) -> dict[str, str]:
    dead = f" (exactly 0 from lag {found.dead_lag:.0f})" if found.dead_lag < np.inf else ""
    broken = f" (NaN from lag {found.nonfinite_lag:.0f})" if found.nonfinite_lag < np.inf else ""
    row = rates.row(found, longest)
    factor, half_life = row.pop("factor per step"), f"{found.half_life:.1f}"
    first = {"cell": name, "factor per step": factor, "half-life": half_life}
    return first | row | {"regime": row["regime"] + dead + broken}


def claims(dataset: xarray.Dataset) -> list[study.Claim]:
    """Whether the norm changes exponentially with the lag, and at the cell's own rate."""
    names = [str(name) for name in dataset.cell.values]
    fits = [np.median(rates.linearity(dataset.log_norm.sel(cell=name))) for name in names]
    return [
        study.claim(
            "exponential",
            "‖∂h_T/∂h_k‖ changes exponentially with the lag.",
            None if np.isnan(fits).any() else bool(min(fits) >= LINEAR),
            measured={name: float(r) for name, r in zip(names, fits, strict=True)},
            criterion=f"a line through log norm against lag has R² of {LINEAR:g} or more in the "
            "median over runs, for every cell",
        ),
        *([_by_cell(dataset, names)] if len(names) > 1 else []),
    ]


def _by_cell(dataset: xarray.Dataset, names: list[str]) -> study.Claim:
    slopes = rates.slopes(dataset.log_norm.transpose("cell", "run", "lag"))
    by_seed = slopes.reshape(len(names), dataset.attrs["num_networks"], -1).mean(axis=-1)
    factors = {name: _summary(dataset, name).decay for name in names}
    return study.claim(
        "rate-by-cell",
        "The factor per step of ‖∂h_T/∂h_k‖ depends on the cell.",
        decisions.differ(by_seed),
        measured=factors,
        criterion="the 95 % interval of the difference between two cells' rates excludes 0",
    )


CELLS = "--cell=rnn,lstm(forget_bias=1),gru(update_bias=1)"
"""The gates that keep the state have the same bias, so that the picture compares equations."""

EXPERIMENT = study.Experiment(
    name="vanishing",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    files=lambda config: config.params or (),
    claims=claims,
    section="flow",
    order=1,
    gallery={
        "vanishing": study.Picture((CELLS,)),
        "vanishing_digits": study.Picture(
            (CELLS, "--inputs=digits", "--num_steps=64", "--spectrum_lags=1,10,32,64")
        ),
    },
    quick={"hidden_size": 8, "num_steps": 20, "num_seeds": 3, "spectrum_lags": (1, 5, 20)},
    doc=__doc__,
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
