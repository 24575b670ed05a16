"""Which lags the weight gradient sees, parameter by parameter.

The gradient of every parameter θ is a sum over the steps, ∂L/∂θ = Σ_k (∂L/∂s_k) (∂⁺s_k/∂θ). For
every parameter of each cell, the log norm of each share against the lag T - k, beside that of
∂L/∂h_k: for a loss at the last step, at birth, along a short training and at its end, and for a
loss at every step. The task is to say in h what was read some steps before. The claim: with the
loss at the last step the share of step k in a weight's gradient falls with the lag at the rate of
∂L/∂h_k, so that the weights hear of the last few steps alone; with a loss at every step the shares
are level, and the sum no longer shows how far back a loss is heard. A second part: training makes
the weights hear further back. It is supported if the lag within which 90 % of the summed norms lie
is larger at the end than at birth, by the 95 % interval over seeds.

Source: Pascanu, Mikolov, Bengio 2013, arXiv:1211.5063, eq. 3 to 5 (the temporal components).

    python experiments/timescales.py
    python experiments/timescales.py --full
    python experiments/timescales.py --cells='lstm,lstm(forget_bias=3)' --delay=20

Takes less than a minute on two cores at the defaults, ten, by estimate, with ``--full``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gradflow import flow, statistics, study, unroll
from gradflow.cells import resolve
from gradflow.devices import map_runs
from gradflow.spec import split_specs
from gradflow.structure import check_structure
from gradflow.train import Descent, descend

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from gradflow import Cell, Params

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Of a cell's gates, in their order."""

MARKERS = ("o", "s", "^", "v", "D")

LINES = {"W_h": "-", "W_x": "--", "b": ":"}
"""Of the kinds of parameter; a kind that is not named is drawn dash-dotted."""

ADJOINT = {"color": "#000000", "linestyle": "-", "linewidth": 1.8}

SHARE = 0.9
"""The part of the summed norms that counts as what the gradient hears."""

FLOOR = -6
"""The log10 of a share, over the largest, at which the colours of the map end."""

ALIKE = 0.1
"""Rates are alike if they differ by no more than this part of the adjoint's."""


@dataclass(frozen=True)
class Config(study.Config):
    """Which nets, and what they are to say."""

    num_seeds: int = study.field(5, help="Nets, each with a sequence.", positive=True)
    cells: str = study.field("rnn,lstm,gru", help="Cells, with options or without.")
    hidden_size: int = study.field(32, help="Hidden units.", positive=True)
    input_size: int = study.field(4, help="Channels of gaussian inputs.", positive=True)
    num_steps: int = study.field(60, help="Steps T.", positive=True)
    delay: int = study.field(10, help="Steps after which an input is to be said.", positive=True)
    num_updates: int = study.field(200, help="Updates of the training.", positive=True)
    look_every: int = study.field(20, help="Updates between two measurements.", positive=True)
    batch_size: int = study.field(8, help="Sequences in an update.", positive=True)
    learning_rate: float = study.field(3e-3, help="Of Adam.", positive=True)


PLACES = ("last step, at birth", "last step, trained", "every step, at birth")
"""Where the loss sits, and when the shares are measured."""


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """Measures each cell; dimensions cell, place or update, parameter, run (a seed), lag."""
    import xarray

    specs = split_specs(config.cells)
    if not specs:
        raise ValueError(f"the name of a cell is expected, got {config.cells!r}; try lstm")
    _check(config)
    cells = {}
    for spec in specs:
        check_structure(resolve(spec))
        cells[spec] = resolve(spec)(config.input_size, config.hidden_size)
    parts = [
        once(f"cell={spec}", partial(_measure, config, spec, cell))
        for spec, cell in study.progress(list(cells.items()), "cells")
    ]
    return xarray.concat(parts, dim="cell", join="outer").assign_attrs(delay=config.delay)


def _check(config: Config) -> None:
    if config.delay >= config.num_steps:
        raise ValueError(
            f"a delay below num_steps={config.num_steps} is expected, got {config.delay}"
        )
    if config.num_updates % config.look_every:
        raise ValueError(
            f"num_updates is expected to be a multiple of look_every={config.look_every}, "
            f"got {config.num_updates}"
        )
    if config.input_size > config.hidden_size:
        raise ValueError(
            f"no more inputs than the hidden_size={config.hidden_size} units that say them are "
            f"expected, got input_size={config.input_size}"
        )


def last_loss(config: Config, x: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """½ ‖the first units of h_T - x_{T-delay} / 2‖², as a function of the outputs."""
    target = 0.5 * x[-1 - config.delay]
    return lambda outputs: 0.5 * jnp.sum((outputs[-1, : config.input_size] - target) ** 2)


def every_loss(config: Config, x: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """The mean of the same over the steps that have something to say."""
    targets = 0.5 * x[: -config.delay]

    def loss(outputs: jax.Array) -> jax.Array:
        said = outputs[config.delay :, : config.input_size]
        return 0.5 * jnp.mean(jnp.sum((said - targets) ** 2, axis=-1))

    return loss


def _train(config: Config, cell: "Cell", params: "Params", key: jax.Array) -> "Params":
    """Adam on the loss at every step, with fresh gaussian inputs: (looks, ...), birth first."""
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(config.learning_rate))

    def loss(params: "Params", key: jax.Array) -> jax.Array:
        shape = config.num_steps, config.batch_size, config.input_size
        inputs = jax.random.normal(key, shape, jnp.result_type(*jax.tree.leaves(params)))
        outputs = unroll(cell, params, inputs).outputs
        losses = jax.vmap(lambda x, out: every_loss(config, x)(out), in_axes=1)(inputs, outputs)
        return jnp.mean(losses)

    def gradient(params: "Params", key: jax.Array) -> "tuple[Params, None]":
        return jax.grad(loss)(params, key), None

    def stretch(descent: Descent, keys: jax.Array) -> "tuple[Descent, Params]":
        descent, _ = descend(gradient, optimizer, descent, keys)
        return descent, descent.params

    keys = jax.random.split(key, config.num_updates).reshape(-1, config.look_every)
    _, along = jax.lax.scan(stretch, Descent.start(optimizer, params), keys)
    return jax.tree.map(lambda one, more: jnp.concatenate([one[None], more]), params, along)


def _measure(config: Config, spec: str, cell: "Cell") -> "xarray.Dataset":
    import xarray

    def shares(params: "Params", x: jax.Array, loss: Callable) -> tuple[jax.Array, jax.Array]:
        found = flow.components(loss, cell, params, x)
        heard = flow.log_adjoint_norms(loss, cell, params, x)[1:]
        return jnp.stack(jax.tree.leaves(found))[:, ::-1], heard[::-1]  # index = lag

    def one_run(key: jax.Array) -> Any:
        k_params, k_inputs, k_train = jax.random.split(key, 3)
        born = cell.init(k_params)
        x = jax.random.normal(k_inputs, (config.num_steps, config.input_size))
        single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), born)
        along = _train(config, cell, single, k_train)
        along = jax.tree.map(
            lambda leaf, first: leaf.astype(first.dtype).at[0].set(first), along, born
        )
        last = jax.lax.map(lambda params: shares(params, x, last_loss(config, x)), along)
        return last, shares(born, x, every_loss(config, x))

    keys = jax.random.split(jax.random.key(config.seed), config.num_seeds)
    along, every = jax.jit(map_runs(one_run))(keys)
    norms, adjoint = (  # by place: birth, end, and a loss at every step
        np.concatenate([last[:, [0, -1]], at_birth[:, None]], axis=1)
        for last, at_birth in zip(jax.device_get(along), jax.device_get(every), strict=True)
    )
    paths = jax.tree_util.tree_leaves_with_path(jax.eval_shape(cell.init, keys[0]))
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths]
    updates = np.arange(0, config.num_updates + 1, config.look_every)
    return xarray.Dataset(
        {
            "log_share": (
                ("cell", "run", "place", "parameter", "lag"),
                norms[None],
                {"units": "nats", "norm": "frobenius"},
            ),
            "log_adjoint": (
                ("cell", "run", "place", "lag"),
                adjoint[None],
                {"units": "nats", "of": "dL/dh_k"},
            ),
            "log_share_along": (
                ("cell", "run", "update", "parameter", "lag"),
                np.asarray(along[0])[None],
                {"units": "nats", "norm": "frobenius", "loss": PLACES[1]},
            ),
            "log_adjoint_along": (
                ("cell", "run", "update", "lag"),
                np.asarray(along[1])[None],
                {"units": "nats", "of": "dL/dh_k", "loss": PLACES[1]},
            ),
        },
        coords={
            "cell": [spec],
            "place": list(PLACES),
            "parameter": names,
            "update": ("update", updates, {"units": "updates"}),
            "lag": ("lag", np.arange(config.num_steps), {"units": "steps"}),
        },
    )


def figure(dataset: "xarray.Dataset") -> "Figure":
    """A column for each cell, a row for each place of the loss, and one for the training."""
    from matplotlib.figure import Figure

    cells = [str(cell) for cell in dataset.cell.values]
    fig = Figure(figsize=(max(4.0, 0.8 + 2.1 * len(cells)), 8.4))
    upper, lower = fig.subfigures(2, 1, height_ratios=(len(PLACES), 1.2), squeeze=False)[:, 0]
    panels = upper.subplots(len(PLACES), len(cells), sharex=True, sharey="row", squeeze=False)
    for row, place in zip(panels, PLACES, strict=True):
        for ax, cell in zip(row, cells, strict=True):
            _draw(ax, dataset.sel(cell=cell, place=place))
            ax.set_title(f"{cell}: loss at {place}", fontsize=7.5)
            ax.set_xlim(0, dataset.sizes["lag"] - 1)
    for ax in panels[0]:  # whose curves fall from the upper left to the lower right
        ax.legend(loc="lower left", fontsize=7, handlelength=2.0)
    kinds = [_line(color="#606060", linestyle=line, label=kind) for kind, line in LINES.items()]
    adjoint = _line(**ADJOINT, label="∂L/∂hₖ")
    upper.legend(handles=[adjoint, *kinds], loc="outside upper center", ncols=len(kinds) + 1)
    upper.supxlabel("lag T − k (steps)", fontsize=9)
    upper.supylabel("log₁₀ norm: share of step k in a parameter, and ∂L/∂hₖ", fontsize=9)
    _draw_along(lower, dataset)
    return fig


def _draw_along(fig: Any, dataset: "xarray.Dataset") -> None:
    """A map of the shares in W_h over update and lag for each cell, relative to the largest."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    cells = [str(cell) for cell in dataset.cell.values]
    panels = fig.subplots(1, len(cells), sharey=True, squeeze=False)[0]
    norm = Normalize(FLOOR, 0)
    for ax, cell in zip(panels, cells, strict=True):
        data = dataset.sel(cell=cell)
        decades = recurrent(data.log_share_along).median("run") / np.log(10)
        shown = (decades - decades.max("lag")).transpose("lag", "update").values
        shown = np.where(np.isfinite(shown), shown, np.nan)  # h_0 = 0 has no share in W_h
        look: Any = {"norm": norm, "cmap": "cividis", "shading": "nearest", "rasterized": True}
        ax.pcolormesh(data["update"], data.lag, shown, **look)
        ax.grid(False)
        heard = np.median(reaches(data.log_share_along), axis=0)
        ax.plot(data["update"], heard, color="black", lw=2.6)
        ax.plot(data["update"], heard, color="white", lw=1.4, ls="--")
        ax.set_title(f"{cell}: share in W_h", fontsize=7.5)
    panels[0].set_ylabel("lag (steps)")
    fig.supxlabel(f"update (dashed: lag within which {SHARE:.0%} lies)", fontsize=9)
    scale = fig.colorbar(ScalarMappable(norm, "cividis"), ax=list(panels), extend="min")
    scale.set_label("log₁₀ share / largest", fontsize=8)


def _line(**look: Any) -> "Line2D":
    """A line for a legend alone."""
    from matplotlib.lines import Line2D

    return Line2D([], [], **look)


def _draw(ax: "Axes", data: "xarray.Dataset") -> None:
    """The adjoint in black; the shares in a colour for each gate and a line for each kind."""
    names = [str(name) for name in data.parameter.values]
    own = data.log_share.isnull().all(["run", "lag"])  # another cell's parameters
    names = [name for name in names if not bool(own.sel(parameter=name))]
    gates = list(dict.fromkeys(name.rpartition(".")[0] for name in names))
    for name in names:
        gate, _, kind = name.rpartition(".")
        look = {
            "color": COLORS[gates.index(gate) % len(COLORS)],
            "linestyle": LINES.get(kind, "-."),
            "linewidth": 1.0,
            "marker": MARKERS[gates.index(gate) % len(MARKERS)],
            "markersize": 3.0,
            "markevery": (0, max(1, data.sizes["lag"] // 6)),
        }
        decades = data.log_share.sel(parameter=name) / np.log(10)
        if kind == "W_h":
            label = gate or "no gates"
            study.figure.band(ax, data.lag, decades, "run", label=label, **look)
        else:
            median = decades.median("run")
            ax.plot(data.lag, median.where(np.isfinite(median)), **{**look, "marker": None})
    study.figure.band(ax, data.lag, data.log_adjoint / np.log(10), "run", **ADJOINT)


def slopes(curves: "xarray.DataArray") -> np.ndarray:
    """The slope of each run's curve against the lag, in nats a step."""
    return np.array(
        [flow.summary(curve[None]).rate for curve in curves.transpose("run", "lag").values]
    )


def reach(dataset: "xarray.Dataset", place: str) -> np.ndarray:
    """The lag within which SHARE of the summed norms of all shares in weights lies, by run."""
    return reaches(dataset.log_share.sel(place=place))


def reaches(log_share: "xarray.DataArray") -> np.ndarray:
    """The same of shares with dimensions parameter, run, lag, and others behind run."""
    shares: Any = np.exp(log_share)
    shares = shares.sum("parameter")
    heard = (shares.cumsum("lag") / shares.sum("lag")).transpose("run", ..., "lag").values
    return (heard >= SHARE).argmax(axis=-1)


def recurrent(log_share: "xarray.DataArray") -> "xarray.DataArray":
    """The log norm of the shares in all recurrent weights together."""
    names = [name for name in log_share.parameter.values if str(name).rpartition(".")[2] == "W_h"]
    squares: Any = np.exp(2 * log_share.sel(parameter=names))
    with np.errstate(divide="ignore"):  # the step from h_0 = 0 has no share
        return 0.5 * np.log(squares.sum("parameter"))


def summary(dataset: "xarray.Dataset") -> str:
    """For each cell: rates of shares and adjoint, how far each gradient hears, and the verdict."""
    cells = {str(cell): dataset.sel(cell=cell) for cell in dataset.cell.values}
    rows = {cell: _row(cell, data) for cell, data in cells.items()}
    words = study.verdicts({cell: holds for cell, (_, holds) in rows.items()})
    lines = study.table([row for row, _ in rows.values()])
    further = {cell: widened(data) for cell, data in cells.items()}
    more = study.verdicts({cell: steps.low > 0 for cell, steps in further.items()})
    change = ", ".join(
        f"{cell} {steps.value:+.1f} [{steps.low:.1f}, {steps.high:.1f}]"
        for cell, steps in further.items()
    )
    return (
        f"{lines}\n(lag within which {SHARE:.0%} of the summed norms lie)\n"
        f"shares fall as the adjoint does, and are level with a loss at every step, by this run: "
        f"{words}\n"
        f"training makes the weights hear further back, by this run: {more} "
        f"(steps more after {int(dataset['update'][-1])} updates: {change})"
    )


def widened(data: "xarray.Dataset") -> statistics.Estimate:
    """By how many steps the lag of SHARE grew in the training, over seeds."""
    heard = reaches(data.log_share_along)
    return statistics.estimate(heard[:, -1] - heard[:, 0])


def _row(cell: str, data: "xarray.Dataset") -> tuple[dict[str, str], bool]:
    last, trained, every = PLACES
    adjoints = slopes(data.log_adjoint.sel(place=last))
    adjoint = statistics.estimate(adjoints)
    difference = statistics.estimate(slopes(recurrent(data.log_share.sel(place=last))) - adjoints)
    level = statistics.estimate(slopes(recurrent(data.log_share.sel(place=every))))
    room = ALIKE * abs(adjoint.value)
    row = {
        "cell": cell,
        "rate of ∂L/∂hₖ": f"{adjoint:.3f}",
        "of W_h less that": f"{difference:.3f}",
        "of W_h, loss at every step": f"{level:.3f}",
        "90 % lag at birth": f"{statistics.estimate(reach(data, last)):.1f}",
        "trained": f"{statistics.estimate(reach(data, trained)):.1f}",
        "every": f"{statistics.estimate(reach(data, every)):.1f}",
    }
    return row, all(-room <= found.low <= found.high <= room for found in (difference, level))


EXPERIMENT = study.Experiment(
    name="timescales",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    section="flow",
    order=11,
    gallery={"timescales": study.Picture()},
    quick={
        "cells": "rnn,lstm",
        "hidden_size": 6,
        "input_size": 2,
        "num_steps": 14,
        "delay": 3,
        "num_updates": 6,
        "look_every": 2,
        "num_seeds": 3,
    },
    full={
        "num_seeds": 10,
        "hidden_size": 64,
        "num_steps": 120,
        "delay": 20,
        "num_updates": 3000,
        "look_every": 100,
    },
    doc=__doc__,
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
