"""How the size of ∂h_T/∂h_k falls, or grows, with the lag T - k.

For each cell: log10 ‖∂h_T/∂h_k‖ against the lag, from the product of the step Jacobians on the
whole carry, ∂s_T/∂s_k = J_T J_{T-1} ... J_{k+1}, of which the block from source to target is
taken last; and the singular values of that block at a few lags, which show whether one
direction dies or all of them do. The claim: gradients through a recurrent net shrink or grow
exponentially with the lag, at a rate that the cell and its initialisation set.

Source: Hochreiter 1991; Bengio, Simard, Frasconi 1994, doi:10.1109/72.279181; Pascanu,
Mikolov, Bengio 2013, arXiv:1211.5063.

    python experiments/vanishing.py --cell=lstm
    python experiments/vanishing.py --cell='rnn,lstm(forget_bias=2)' --inputs=digits --num_steps=64
    python experiments/vanishing.py --cell=path/to/mine.py:my_cell
    python experiments/vanishing.py --params=path/to/lstm.safetensors --inputs=text:PATH

With --params the cells are trained ones, from files of `gradflow.interop.save_params`, as studies
on real data leave them: cell and sizes are the file's, and a seed draws nothing but inputs.

Takes a few seconds a cell on two cores at the defaults.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradflow import flow, study
from gradflow.cells import resolve
from gradflow.presets import PRESETS, with_preset
from gradflow.spec import parse_spec, split_specs
from gradflow.structure import check_structure
from gradflow.tasks.inputs import make_inputs

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gradflow import Cell, Params
    from gradflow.cell import InitFn
    from gradflow.interop import Description


@dataclass(frozen=True)
class Config(study.Config):
    """What is measured, on what."""

    cell: str | None = study.field(
        None,
        help="Cells, separated by commas: a name, name(option=value), path/to/file.py:factory "
        "or package.module:factory; by default lstm, or what --params are of.",
    )
    params: tuple[str, ...] | None = study.field(
        None, help="Files of trained parameters, separated by commas, in place of drawn ones."
    )
    hidden_size: int = study.field(64, help="Hidden units of cells that are drawn.", positive=True)
    input_size: int = study.field(
        16, help="Channels of inputs that can have any number, unless --params."
    )
    num_steps: int = study.field(200, help="Steps T, and so the longest lag.", positive=True)
    num_sequences: int = study.field(1, help="Input sequences for each seed.", positive=True)
    inputs: str = study.field(
        "gaussian",
        help="gaussian, constant, impulse, adding, digits, text:PATH, series:PATH:COLUMN or "
        "npy:PATH, the first five with options.",
    )
    init: str | None = study.field(
        None,
        help="Recurrent initialiser, such as identity or 'normal(radius=0.9)'; or torch, keras, "
        "flax_linen, flax_nnx, haiku or equinox: what that framework would have drawn.",
    )
    gain: float | None = study.field(
        None, help="Gain of the recurrent initialiser, orthogonal unless --init.", positive=True
    )
    source: str = study.field("h", help="Block of s_k: h, carry, or a field such as c.")
    target: str = study.field("h", help="Block of s_T.")
    norm: Literal["spectral", "frobenius"] = study.field("spectral", help="Which norm.")
    spectrum_lags: tuple[int, ...] = study.field(
        (1, 10, 50, 100, 200), help="Lags whose singular values are drawn.", positive=True
    )


class Subject(NamedTuple):
    """What is measured: input size -> the cell; and a draw, or the file of what was trained."""

    factory: "Callable[[int], Cell]"
    params: str | None = None


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """Measures each cell; dimensions cell, run (seeds times sequences), lag."""
    import xarray

    subjects = _drawn(config) if config.params is None else _trained(config)
    inputs = _inputs(config)  # before anything is measured, so that bad input is said at once
    parts = [
        once(f"cell={name}", partial(_measure, config, name, *_model(subject, inputs), inputs))
        for name, subject in study.progress(subjects.items(), "cells")
    ]
    # A trained network is one, whatever the number of seeds, which then draw inputs alone.
    networks = config.num_seeds if config.params is None else 1
    return xarray.concat(parts, dim="cell", join="outer").assign_attrs(num_networks=networks)


def _drawn(config: Config) -> dict[str, Subject]:
    """The cells that the flags name, by spec."""
    cells = "lstm" if config.cell is None else config.cell
    specs = split_specs(cells)
    if not specs:
        raise ValueError(f"the name of a cell is expected, got {cells!r}; try lstm")
    return {spec: Subject(_factory(spec, config)) for spec in specs}


def _trained(config: Config) -> dict[str, Subject]:
    """The cells of the files, by spec, and by spec and number where there are two of one."""
    for name in ("init", "gain"):
        if getattr(config, name) is not None:
            raise ValueError(f"--{name} is of cells that are drawn, got it with --params: leave it")
    abouts = _descriptions(config)
    specs = [about.cell for about in abouts]
    if config.cell is not None and split_specs(config.cell) != specs:
        raise ValueError(
            f"--cell={config.cell} is expected to be what --params are of, {', '.join(specs)}: "
            "leave it out"
        )
    names = [f"{s} #{i}" if specs.count(s) > 1 else s for i, s in enumerate(specs, start=1)]
    factories = [_factory(a.cell, replace(config, hidden_size=a.hidden_size)) for a in abouts]
    subjects = map(Subject, factories, config.params or ())
    return dict(zip(names, subjects, strict=True))


def _descriptions(config: Config) -> "list[Description]":
    from gradflow.interop import read_description  # which imports Flax: half a second

    return [read_description(path) for path in config.params or ()]


def _model(subject: Subject, inputs: jax.Array) -> "tuple[Cell, InitFn]":
    """The cell for these inputs, and what gives its parameters for a key."""
    cell = subject.factory(inputs.shape[-1])
    if subject.params is None:
        return cell, cell.init
    from gradflow.interop import read_params

    key = jax.eval_shape(jax.random.key, 0)
    params = read_params(subject.params, jax.eval_shape(cell.init, key))
    return cell, lambda key: params


def _factory(spec: str, config: Config) -> "Callable[[int], Cell]":
    """input size -> the cell, as it is to be drawn; checked before anything is measured."""
    factory = resolve(spec)
    if config.init in PRESETS and config.gain is not None:
        raise ValueError(f"--gain is of an initialiser, got {config.init!r}, which is a framework")

    def make(input_size: int, hidden_size: int) -> "Cell":
        if config.init in PRESETS:
            return with_preset(factory(input_size, hidden_size), config.init)
        init = _initializer(config)
        given = {} if init is None else {"recurrent_init": init}
        return factory(input_size, hidden_size, **given)

    check_structure(make)
    return partial(make, hidden_size=config.hidden_size)


def _initializer(config: Config) -> str | None:
    if config.gain is None:
        return config.init
    name, options = parse_spec(config.init or "orthogonal")
    options = ", ".join(f"{k}={v!r}" for k, v in {**options, "gain": config.gain}.items())
    return f"{name}({options})"


def _inputs(config: Config) -> jax.Array:
    """x_1 ... x_T of every run, of shape (runs, T, input): num_sequences for each seed."""
    key = jax.random.fold_in(jax.random.key(config.seed), 1)
    sizes = {about.input_size for about in _descriptions(config)}
    inputs = make_inputs(
        config.inputs,
        key,
        num_sequences=config.num_seeds * config.num_sequences,
        num_steps=config.num_steps,
        input_size=min(sizes, default=config.input_size),
    )
    if sizes and sizes != {inputs.shape[-1]}:
        raise ValueError(
            f"inputs of the size that the cells were trained on, {sorted(sizes)}, are expected, "
            f"got {inputs.shape[-1]} channels of --inputs={config.inputs}: take the inputs that "
            "they were trained on, and cells of one size at a time"
        )
    return inputs


def _measure(
    config: Config, name: str, cell: "Cell", init: "InitFn", inputs: jax.Array
) -> "xarray.Dataset":
    import xarray

    key = jax.random.fold_in(jax.random.key(config.seed), 0)
    lags = sorted({lag for lag in config.spectrum_lags if lag <= config.num_steps})
    block = {"source": config.source, "target": config.target}

    def one_run(params: "Params", x: jax.Array) -> tuple[jax.Array, jax.Array]:
        source, target = config.source, config.target
        return (
            flow.log_norms(cell, params, x, norm=config.norm, source=source, target=target),
            flow.leading_singular_values(cell, params, x, lags, source=source, target=target),
        )

    keys = jnp.repeat(jax.random.split(key, config.num_seeds), config.num_sequences)
    params = jax.jit(partial(jax.lax.map, init))(keys)
    results = jax.jit(flow.over_runs(one_run))(params, inputs)
    norms, spectra = (np.asarray(result) for result in results)
    nats = {"units": "nats", "norm": config.norm, **block}
    return xarray.Dataset(
        {
            "log_norm": (("cell", "run", "lag"), norms[None], nats),
            "log_singular_value": (
                ("cell", "run", "spectrum_lag", "index"),
                spectra[None],
                {"units": "nats", **block},
            ),
        },
        coords={
            "cell": [name],
            "lag": ("lag", np.arange(config.num_steps + 1), {"units": "steps"}),
            "spectrum_lag": ("spectrum_lag", lags, {"units": "steps"}),
            "index": np.arange(spectra.shape[-1]),
        },
    )


def figure(dataset: "xarray.Dataset") -> "Figure":
    """Norm against lag, all cells in one panel; below it the singular values, a panel a cell."""
    from matplotlib.figure import Figure

    cells = [str(cell) for cell in dataset.cell.values]
    fig = Figure(figsize=(5.2, 5.0))
    top, bottom = fig.subfigures(2, 1, height_ratios=(3, 2), hspace=0.03, squeeze=False)[:, 0]
    ax = top.subplots()
    for index, cell in enumerate(cells):
        _draw_norms(ax, dataset.sel(cell=cell), study.figure.cell_style(parse_spec(cell)[0], index))
    names = dataset.log_norm.attrs
    ax.set(
        xlabel="lag T − k (steps)",
        ylabel=rf"$\log_{{10}}\,\|\partial {names['target']}_T/\partial {names['source']}_k\|$",
        title=f"{names['norm'].capitalize()} norm against lag: median, 10–90 %, and fit",
        xlim=(0, dataset.sizes["lag"] - 1),
    )
    ax.legend()
    panels = bottom.subplots(1, len(cells), sharey=True, squeeze=False)[0]
    ends = []
    for index, (panel, cell) in enumerate(zip(panels, cells, strict=True)):
        style = study.figure.cell_style(parse_spec(cell)[0], index)
        ends.append(_draw_spectra(panel, dataset.sel(cell=cell), style["color"]))
        panel.set_title(cell)
    for panel, places in zip(
        panels, ends, strict=True
    ):  # once all are drawn, for they share an axis
        _label_ends(panel, places)
    bottom.suptitle("Singular values above rounding, at the lags written", fontsize=9)
    panels[0].set_ylabel(r"$\log_{10}\,\sigma$")
    panels[len(cells) // 2].set_xlabel("index, largest first")
    return fig


def _draw_norms(ax: "Axes", data: "xarray.Dataset", style: dict) -> None:
    decades = data.log_norm / np.log(10)
    line = study.figure.band(ax, data.lag, decades, "run", label=str(data.cell.values), **style)
    # The fit is drawn thin, through the middle of the curve that it was fitted to.
    rate = _summary(data).rate / np.log(10)
    median = decades.median("run")
    finite = np.isfinite(median)
    if np.isfinite(rate) and finite.any():
        middle = float(data.lag[finite].mean()), float(median[finite].mean())
        ends = data.lag[finite][[0, -1]]
        ax.plot(ends, middle[1] + rate * (ends - middle[0]), color=line.get_color(), lw=0.5)


def _draw_spectra(ax: "Axes", data: "xarray.Dataset", color: str) -> list[tuple[int, float, int]]:
    """One line a lag; returns where each ends, and its lag."""
    lags = data.spectrum_lag.values
    # Where rounding has taken a value from one run, the median of the others would mislead.
    decades = data.log_singular_value.median("run", skipna=False) / np.log(10)
    ends = []
    for i, lag in enumerate(lags):
        alpha = 1 - 0.75 * i / max(1, len(lags) - 1)
        values = decades.sel(spectrum_lag=lag)
        values = values.where(np.isfinite(values))
        ax.plot(data.index + 1, values, color=color, alpha=alpha)
        if values.notnull().any():
            at = int(np.flatnonzero(values.notnull())[-1])
            ends.append((at + 1, float(values[at]), int(lag)))
    ax.margins(x=0.02)
    return ends


def _label_ends(ax: "Axes", ends: list[tuple[int, float, int]]) -> None:
    """Writes each lag beside the end of its line, below the labels above it that are near."""
    bottom, top = ax.get_ylim()
    width = ax.get_xlim()[1]
    placed: list[tuple[int, float]] = []
    for x, y, lag in sorted(ends, key=lambda end: -end[1]):
        near = [above for at, above in placed if abs(x - at) < width / 4]
        y = min([y, *(above - (top - bottom) / 12 for above in near)])
        ax.annotate(f" {lag}", (x, y), fontsize=7, va="center", annotation_clip=False)
        placed.append((x, y))


def summary(dataset: "xarray.Dataset") -> str:
    """The table of what each curve comes to, and what its intervals are over, if not networks."""
    rows = study.table([_row(str(c), dataset.sel(cell=c)) for c in dataset.cell.values])
    one = dataset.attrs["num_networks"] == 1 < dataset.sizes["run"]
    return f"{rows}\n(intervals over the input sequences of one network)" if one else rows


def _summary(data: "xarray.Dataset") -> flow.Summary:
    """What the curves of one cell come to, those of one network as one value."""
    curves = data.log_norm.values
    return flow.summary(curves.reshape(data.attrs["num_networks"], -1, curves.shape[-1]))


def _row(cell: str, data: "xarray.Dataset") -> dict[str, str]:
    s = _summary(data)
    return {
        "cell": cell,
        "decay per step": f"{s.decay:.4f}",
        "half-life": f"{s.half_life:.1f}",
        "horizon": f"{s.horizon:.0f}" if np.isfinite(s.horizon) else f"> {data.sizes['lag'] - 1}",
        "word": s.word
        + (f" (exactly 0 from lag {s.dead_lag:.0f})" if s.dead_lag < np.inf else "")
        + (f" (NaN from lag {s.broken_lag:.0f})" if s.broken_lag < np.inf else ""),
    }


EXPERIMENT = study.Experiment(
    name="vanishing",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    section="flow",
    order=1,
    gallery={
        "vanishing": study.Picture(("--cell=rnn,lstm,gru",)),
        "vanishing_digits": study.Picture(
            (
                "--cell=rnn,lstm,gru",
                "--inputs=digits",
                "--num_steps=64",
                "--spectrum_lags=1,10,32,64",
            )
        ),
    },
    quick={"hidden_size": 8, "num_steps": 20, "num_seeds": 3, "spectrum_lags": (1, 5, 20)},
    doc=__doc__,
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
