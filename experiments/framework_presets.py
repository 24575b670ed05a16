"""How far the gradient of one and the same net reaches, as each framework draws it at birth.

One LSTM and one GRU, with the equations and inputs of all alike; only the law of the initial
weights and biases is another, that of PyTorch, Equinox, Keras, Flax or Haiku. For each:
log10 ‖∂h_T/∂h_k‖ against the lag T - k. The claim: the framework's default, which nobody chose
for it, moves the gradient of the LSTM at lag 100 by twenty decades. (Haiku's GRU resets before its
product and is measured as it is.)

Source: the libraries' sources, see `gradflow.presets`; Hochreiter 1991 for the norm.

    python experiments/framework_presets.py
    python experiments/framework_presets.py --presets=torch,keras --cells=gru --num_steps=300

Takes about a minute on two cores at the defaults.
"""

from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING

import jax
import numpy as np

from gradflow import flow, study
from gradflow.cells import resolve
from gradflow.presets import PRESETS, with_preset
from gradflow.spec import unknown_name
from gradflow.tasks.inputs import make_inputs

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray
    from matplotlib.figure import Figure

    from gradflow import Cell


@dataclass(frozen=True)
class Config(study.Config):
    """Which nets, of what size, on what."""

    presets: tuple[str, ...] = study.field(tuple(PRESETS), help="Frameworks, by name.")
    cells: tuple[str, ...] = study.field(("lstm", "gru"), help="Of lstm, gru and rnn.")
    hidden_size: int = study.field(128, help="Hidden units.", positive=True)
    input_size: int = study.field(16, help="Channels of gaussian inputs.", positive=True)
    num_steps: int = study.field(100, help="Steps T, and so the longest lag.", positive=True)


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """Measures each cell under each preset; dimensions cell, preset, run (a seed), lag."""
    import xarray

    pairs = [(cell, preset) for cell in config.cells for preset in config.presets]
    made = {pair: _kind(*pair) for pair in pairs}  # before anything is measured
    if not any(made.values()):
        raise ValueError(
            f"a preset of a framework that has one of the cells {config.cells} is expected, got "
            f"{config.presets}: Equinox has no vanilla RNN"
        )
    parts = [
        once(f"cell={cell},preset={preset}", partial(_measure, config, cell, preset, kind))
        for (cell, preset), kind in study.progress(made.items(), "nets")
        if kind
    ]
    merged = xarray.merge(parts, join="outer", compat="no_conflicts", combine_attrs="override")
    return merged.reindex(cell=list(config.cells), preset=list(config.presets))


def _kind(cell: str, preset: str) -> str | None:
    """The framework's form of the cell, or None if it has no such cell."""
    if preset not in PRESETS:
        raise ValueError(unknown_name("preset", preset, PRESETS))
    known = ("gru", "lstm", "rnn")
    if cell not in known:
        raise ValueError(unknown_name("cell of a framework", cell, known))
    kinds = [kind for kind in (cell, f"{cell}_reset_before") if kind in PRESETS[preset]]
    return kinds[0] if kinds else None


@cache
def _measurement(kind: str, input_size: int, hidden_size: int) -> "tuple[Cell, Callable]":
    """A cell, and what measures all runs of it: compiled once for all frameworks."""
    cell = resolve(kind)(input_size, hidden_size)
    return cell, jax.jit(flow.over_runs(partial(flow.log_norms, cell)))


def _measure(config: Config, name: str, preset: str, kind: str) -> "xarray.Dataset":
    import xarray

    k_params, k_inputs = jax.random.split(jax.random.key(config.seed))
    inputs = make_inputs(
        "gaussian",
        k_inputs,
        num_sequences=config.num_seeds,
        num_steps=config.num_steps,
        input_size=config.input_size,
    )
    cell, measure = _measurement(kind, config.input_size, config.hidden_size)
    draw = jax.jit(partial(jax.lax.map, with_preset(cell, preset).init))
    norms = measure(draw(jax.random.split(k_params, config.num_seeds)), inputs)
    dims = ("cell", "preset", "run", "lag")
    return xarray.Dataset(
        {"log_norm": (dims, np.asarray(norms)[None, None], {"units": "nats", "norm": "spectral"})},
        coords={
            "cell": [name],
            "preset": [preset],
            "lag": ("lag", np.arange(config.num_steps + 1), {"units": "steps"}),
        },
    )


def figure(dataset: "xarray.Dataset") -> "Figure":
    """Norm against lag, a panel a cell and a line a framework."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(5.2, 2.8))
    panels = fig.subplots(1, dataset.sizes["cell"], sharey=True, squeeze=False)[0]
    for ax, cell in zip(panels, dataset.cell.values, strict=True):
        for index, preset in enumerate(dataset.preset.values):
            decades = dataset.log_norm.sel(cell=cell, preset=preset) / np.log(10)
            look = study.figure.cell_style(str(preset), index)
            if decades.notnull().any():
                study.figure.band(ax, dataset.lag, decades, "run", label=str(preset), **look)
        ax.set(title=str(cell), xlabel="lag T − k (steps)", xlim=(0, dataset.sizes["lag"] - 1))
    panels[0].set_ylabel("log₁₀ ‖∂hₜ/∂hₖ‖")
    panels[0].legend()
    return fig


def summary(dataset: "xarray.Dataset") -> str:
    """The norm at the longest lag, of each framework, in decades: the median over the runs."""
    lag = int(dataset.lag[-1])
    decades = (dataset.log_norm.isel(lag=-1) / np.log(10)).median("run")
    rows = [
        {"preset": str(preset)}
        | {
            f"{c}: log10 norm at lag {lag}": _decades(decades, c, preset)
            for c in dataset.cell.values
        }
        for preset in dataset.preset.values
    ]
    return study.table(rows)


def _decades(decades: "xarray.DataArray", cell: str, preset: str) -> str:
    value = float(decades.sel(cell=cell, preset=preset))
    return "-" if np.isnan(value) else f"{value:.1f}"


EXPERIMENT = study.Experiment(
    name="framework_presets",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    section="flow",
    order=5,
    gallery={"framework_presets": study.Picture()},
    quick={"hidden_size": 8, "num_steps": 20, "num_seeds": 3},
    doc=__doc__,
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
