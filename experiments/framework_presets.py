"""How far the gradient of one network reaches, as each framework initialises it by default.

One LSTM and one GRU, with equal equations and inputs; only the law of the initial weights and
biases differs, that of PyTorch, Equinox, Keras, Flax or Haiku. For each: log10 ‖∂h_T/∂h_k‖ against
the lag T - k. The claim: the framework's default, which nobody chose for it, changes the gradient
of the LSTM at lag 100 by more than ten orders of magnitude. (Haiku's GRU resets before its product
and is measured in that form.)

Source: the libraries' sources, see `gradflow.presets`; Hochreiter 1991 for the norm.

    python experiments/framework_presets.py
    python experiments/framework_presets.py --presets=torch,keras --cells=gru --num_steps=300

Takes about a minute on two cores at the defaults.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import jax
import numpy as np
import xarray
from _kit import curves, decisions, fields, runs

from gradflow import Cell, flow, statistics, study
from gradflow.cells import resolve
from gradflow.devices import map_runs
from gradflow.presets import PRESETS, with_preset
from gradflow.spec import check_name
from gradflow.study.figure import Figure

APART = 10.0
"""Orders of magnitude by which two frameworks are claimed to differ."""


@dataclass(frozen=True)
class Config(study.Config):
    """Which networks, of what size, on what."""

    presets: tuple[str, ...] = study.field(tuple(PRESETS), help="Frameworks, by name.")
    cells: tuple[str, ...] = study.field(("lstm", "gru"), help="Of lstm, gru and rnn.")
    hidden_size: int = fields.hidden_size(128)
    input_size: int = fields.input_size(16)
    num_steps: int = fields.num_steps(100)


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Measures each cell under each preset; dimensions cell, preset, run (a seed), lag."""
    pairs = [(cell, preset) for cell in config.cells for preset in config.presets]
    made = {pair: _kind(*pair) for pair in pairs}  # before anything is measured
    if not any(made.values()):
        raise ValueError(
            f"Expected a framework that has one of the cells {config.cells}, got "
            f"{config.presets}. Add another to --presets or --cells: Equinox has no vanilla RNN."
        )
    parts = [
        once(f"cell={cell},preset={preset}", partial(_measure, config, cell, preset, kind))
        for (cell, preset), kind in study.progress(made.items(), "networks")
        if kind
    ]
    merged = xarray.merge(parts, join="outer", compat="no_conflicts", combine_attrs="override")
    return merged.reindex(cell=list(config.cells), preset=list(config.presets))


def _kind(cell: str, preset: str) -> str | None:
    """The framework's form of the cell, or None if it has no such cell."""
    check_name("preset", preset, PRESETS)
    known = ("gru", "lstm", "rnn")
    check_name("cell of a framework", cell, known)
    kinds = [kind for kind in (cell, f"{cell}_reset_before") if kind in PRESETS[preset]]
    return kinds[0] if kinds else None


@cache
def _measurement(kind: str, input_size: int, hidden_size: int) -> tuple[Cell, Callable]:
    """A cell, and what measures all runs of it: compiled once for all frameworks."""
    cell = resolve(kind)(input_size, hidden_size)
    return cell, jax.jit(map_runs(partial(flow.log_norms, cell)))


def _measure(config: Config, name: str, preset: str, kind: str) -> xarray.Dataset:
    cell, measure = _measurement(kind, config.input_size, config.hidden_size)
    params = runs.initialise(with_preset(cell, preset), runs.keys(config))
    norms = np.asarray(measure(params, runs.inputs(config)))[None, None]
    dims = ("cell", "preset", "run", "lag")
    return xarray.Dataset(
        {"log_norm": (dims, norms, {"units": "nats", "norm": "spectral"})},
        coords={
            "cell": [name],
            "preset": [preset],
            "lag": curves.coordinates(config.num_steps)["lag"],
        },
    )


def figure(dataset: xarray.Dataset) -> Figure:
    """Norm against lag, a panel for each cell and a line for each framework."""
    fig = study.figure.empty(5.2, 2.8)
    panels = fig.subplots(1, dataset.sizes["cell"], sharey=True, squeeze=False)[0]
    for ax, cell in zip(panels, dataset.cell.values, strict=True):
        for index, preset in enumerate(dataset.preset.values):
            norms = dataset.log_norm.sel(cell=cell, preset=preset)
            look = study.figure.series_style(index)
            look["label"] = str(preset).replace("_", " ")
            if norms.notnull().any():
                curves.draw_norms(ax, dataset.lag, norms, **look)
        curves.lag_axis(ax, dataset)
        ax.set_title(str(cell))
    panels[0].set_ylabel(curves.NORM)
    panels[0].legend()
    return fig


def at_last_lag(dataset: xarray.Dataset) -> xarray.DataArray:
    """The log10 norm at the longest lag, by cell, preset and run; NaN without the cell."""
    return dataset.log_norm.isel(lag=-1, drop=True) / curves.NATS


def summary(dataset: xarray.Dataset) -> str:
    """The log10 norm at the longest lag under each framework, the median over the runs."""
    lag, medians = int(dataset.lag[-1]), at_last_lag(dataset).median("run")
    rows = []
    for preset in dataset.preset.values:
        values = {str(c): float(medians.sel(cell=c, preset=preset)) for c in dataset.cell.values}
        written = {c: "-" if np.isnan(value) else f"{value:.1f}" for c, value in values.items()}
        rows.append(
            {"preset": str(preset)}
            | {f"{c}: log10 norm at lag {lag}": text for c, text in written.items()}
        )
    return study.table(rows)


def claims(dataset: xarray.Dataset) -> list[study.Claim]:
    """How far apart the frameworks are, for each cell."""
    return [_apart(dataset, str(cell)) for cell in dataset.cell.values]


def _apart(dataset: xarray.Dataset, cell: str) -> study.Claim:
    last = at_last_lag(dataset).sel(cell=cell).dropna("preset", how="all")
    medians = last.median("run").values
    ends = [last.isel(preset=int(at)) for at in (np.argmin(medians), np.argmax(medians))]
    ratio = statistics.estimate(ends[1].values - ends[0].values)
    names = [str(end.preset.values) for end in ends]
    return study.claim(
        f"apart-{cell}",
        f"The framework's default changes ‖∂h_T/∂h_k‖ of the {cell} by more than {APART:g} orders "
        f"of magnitude at lag {int(dataset.lag[-1])}.",
        decisions.above(ratio, APART) if len(last) > 1 else None,
        measured={f"log10 norm, {names[1]} over {names[0]}": ratio},
        criterion=f"the 95 % interval between two frameworks lies above {APART:g}",
    )


EXPERIMENT = study.Experiment(
    name="framework_presets",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    claims=claims,
    section="flow",
    order=5,
    gallery={"framework_presets": study.Picture()},
    quick={"hidden_size": 8, "num_steps": 20, "num_seeds": 3},
    doc=__doc__,
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
