"""Whether normalisation, dropout and zoneout help or hurt the flow of the gradient.

‖∂h_T/∂h_k‖ against the lag T - k, from a carry that has run for a while: with layer normalisation
within the step of an LSTM and a GRU; in a stack of two LSTMs, from the lower h to the upper, plain,
with the upper one's input normalised, or within both; under dropout of h in W_h (m ∘ h), with one
mask for the sequence (variational) or one a step; under zoneout, sampled. And ‖∂L/∂h_k‖ of a
batch-normalised net, by γ::

    H_t = tanh(γ N(H_{t-1} W_hᵀ) + γ_x N(X_t W_xᵀ) + b)     N normalises over the batch

with the statistics of the batch at each step: the whole batch is the carry of one cell, so that
paths from an example to another, through mean and variance, count. L = Σ u ∘ H_T, u random. In a
wide net with a large batch ‖∂L/∂h_k‖ changes by (γ_x = γ or γ/10, z ~ N(0, γ² + γ_x²))::

    log γ + ½ log E tanh'(z)² - ½ log E tanh(z)²                                  a step

The claims, each with its rule: layer normalisation within the step and zoneout slow the decay, and
dropout by the step speeds it up against variational dropout (the 95 % interval of the paired
difference is on that side); between layers it leaves the decay (by 10 %); and a smaller γ
slows the decay (in order over the γ).

Source: Ba, Kiros, Hinton 2016, arXiv:1607.06450; Cooijmans et al. 2017, arXiv:1603.09025, Fig. 1
(a) and (b), on sequential MNIST; Gal & Ghahramani 2016, arXiv:1512.05287; Krueger et al. 2016,
arXiv:1606.01305.

    python experiments/normalisation.py
    python experiments/normalisation.py --hidden_size=128 --gammas=0.1,1,3 --num_seeds=5

Takes about a minute on two cores at the defaults.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from gradflow import Cell, flow, statistics, study
from gradflow.cells import gru, gru_layer_norm, lstm, lstm_layer_norm, rnn
from gradflow.cells.layer_norm import normalise
from gradflow.cells.stack import stack
from gradflow.devices import map_runs
from gradflow.initializers.meanfield import gaussian_mean
from gradflow.statistics import slope

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gradflow import Params

EPS = 1e-5
"""Keeps the statistics of a batch or a layer finite."""

INPUT_SHARES = (1.0, 0.1)
"""γ_x as a multiple of γ."""

SAME = 0.1
"""Up to which share of a decay another one counts as the same."""

Claimed = Callable[[statistics.Estimate, float], bool]
"""(the change, what it was before) -> whether the claim holds."""


@dataclass(frozen=True)
class Config(study.Config):
    """What is put into the nets, and their sizes."""

    dropout: tuple[float, ...] = study.field((0.0, 0.25, 0.5), help="Rates of dropout.")
    zoneout: tuple[float, ...] = study.field((0.0, 0.1, 0.3, 0.5), help="Rates of zoneout.")
    gammas: tuple[float, ...] = study.field(
        (0.1, 0.2, 0.4, 0.7, 1.0, 1.5), help="γ, in ascending order.", positive=True
    )
    batch_size: int = study.field(32, help="Sequences that are normalised together.", positive=True)
    hidden_size: int = study.field(64, help="Hidden units.", positive=True)
    input_size: int = study.field(16, help="Channels of gaussian inputs.", positive=True)
    num_steps: int = study.field(100, help="Steps T, and so the longest lag.", positive=True)
    warm_up: int = study.field(50, help="Steps before them.", positive=True)


def normalised_input(cell: Cell) -> Cell:
    """The cell whose input is normalised over its entries."""

    def step(params: "Params", carry: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        return cell.step(params, carry, normalise(x, EPS))

    return cell._replace(step=step)


def dropped(cell: Cell) -> Cell:
    """The LSTM on {"cell", "rate"} with dropout of h: its input is x, then a number u a unit.

    W_h h becomes W_h (m ∘ h) with m = [u ≥ rate]/(1 - rate), as in
    `gradflow.cells.dropout.with_dropout`; which u are repeated is up to the input.
    """

    def step(params: "Params", carry: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        x, u = jnp.split(x, [x.size - carry.h.size])
        kept = (u >= params["rate"]) / (1 - params["rate"])
        return cell.step(params["cell"], carry._replace(h=kept * carry.h), x)

    return cell._replace(step=step)


def zoned(cell: Cell) -> Cell:
    """The LSTM on {"cell", "rate"} with zoneout: its input is x, then a number u for h and for c.

    An entry of the carry with u < rate keeps its value, as in `gradflow.cells.dropout.zoneout`.
    """

    def step(params: "Params", carry: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        size = carry.h.size
        x, *us = jnp.split(x, [x.size - 2 * size, x.size - size])
        new, _ = cell.step(params["cell"], carry, x)
        kept = [u < params["rate"] for u in us]
        carry = type(carry)(*map(jnp.where, kept, carry, new))
        return carry, carry.h

    return cell._replace(step=step)


def batch_normalised(input_size: int, hidden_size: int, batch_size: int) -> Cell:
    """The tanh net of a whole batch, normalised over it; γ and γ_x are parameters.

    Its carry is H, of shape (batch, hidden), and its input X as one vector.
    """

    def step(params: "Params", H: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        by_h = normalise(H @ params["W_h"].T, EPS, axis=0)
        by_x = normalise(x.reshape(batch_size, -1) @ params["W_x"].T, EPS, axis=0)
        H = jnp.tanh(params["gamma"] * by_h + params["gamma_x"] * by_x + params["b"])
        return H, H.ravel()

    init = rnn(input_size, hidden_size).init
    return Cell(init, step, initial_carry=lambda: jnp.zeros((batch_size, hidden_size)))


def batch_theory(gamma: float, gamma_x: float) -> float:
    """The mean-field log growth a step of the gradient of a batch-normalised tanh net."""
    std = math.hypot(gamma, gamma_x)
    square = gaussian_mean(lambda z: np.tanh(std * z) ** 2)
    slopes = gaussian_mean(lambda z: (1 - np.tanh(std * z) ** 2) ** 2)
    return math.log(gamma) + 0.5 * math.log(slopes / square)


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """Measures each net; dimensions net, or rate, or gamma, and run, lag."""
    import xarray

    for name in ("dropout", "zoneout"):
        if not all(0 <= rate < 1 for rate in getattr(config, name)):
            raise ValueError(f"rates in [0, 1) are expected, got {name}={getattr(config, name)}")
    if list(config.gammas) != sorted(set(config.gammas)):
        raise ValueError(f"gammas in ascending order are expected, got {config.gammas}")
    sizes = config.input_size, config.hidden_size
    above = config.hidden_size, config.hidden_size
    nets = {
        "lstm": lstm(*sizes),
        "lstm_layer_norm": lstm_layer_norm(*sizes),
        "gru": gru(*sizes),
        "gru_layer_norm": gru_layer_norm(*sizes),
        "stack": stack([lstm(*sizes), lstm(*above)]),
        "stack_between": stack([lstm(*sizes), normalised_input(lstm(*above))]),
        "stack_within": stack([lstm_layer_norm(*sizes), lstm_layer_norm(*above)]),
    }
    parts = [
        once(f"net={name}", partial(_measure_net, config, name, cell))
        for name, cell in study.progress(nets.items(), "nets")
    ]
    rest = {"dropout": _measure_dropout, "zoneout": _measure_zoneout, "batch": _measure_batch}
    more = [once(name, partial(measure, config)) for name, measure in rest.items()]
    joined = xarray.concat(parts, dim="net", join="exact")
    return xarray.merge([joined, *more], join="exact", compat="no_conflicts")


def _draw(config: Config, channels: int, stream: int = 0) -> tuple[jax.Array, jax.Array]:
    """The keys of the parameters, and gaussian inputs with their warm-up, of every run."""
    k_params, k_inputs = jax.random.split(jax.random.key(config.seed))
    shape = config.num_seeds, config.warm_up + config.num_steps, channels
    inputs = jax.random.normal(jax.random.fold_in(k_inputs, stream), shape)
    return jax.random.split(k_params, config.num_seeds), inputs


def _warm(config: Config, cell: Cell, params: "Params", x: jax.Array) -> tuple[Any, jax.Array]:
    """The carry after the warm-up, and the inputs that are left."""
    body = partial(cell.step, params)
    carry, _ = jax.lax.scan(
        lambda s, x: (body(s, x)[0], None), cell.initial_carry(), x[: config.warm_up]
    )
    return carry, x[config.warm_up :]


def _log_norms(
    config: Config, cell: Cell, params: "Params", x: jax.Array, source: str = "h"
) -> jax.Array:
    carry, x = _warm(config, cell, params, x)
    return flow.log_norms(cell, params, x, source=source, carry=carry)


def _lags(config: Config) -> dict[str, Any]:
    return {"lag": ("lag", np.arange(config.num_steps + 1), {"units": "steps"})}


def _measure_net(config: Config, name: str, cell: Cell) -> "xarray.Dataset":
    import xarray

    source = "0.h" if name.startswith("stack") else "h"

    def one(key: jax.Array, x: jax.Array) -> jax.Array:
        return _log_norms(config, cell, cell.init(key), x, source)

    norms = jax.jit(map_runs(one))(*_draw(config, config.input_size))
    return xarray.Dataset(
        {"log_norm": (("net", "run", "lag"), np.asarray(norms)[None], {"units": "nats"})},
        coords={"net": [name], **_lags(config)},
    )


def _by_rate(
    config: Config, cell: Cell, rates: tuple[float, ...], keys: jax.Array, inputs: jax.Array
) -> np.ndarray:
    """Log norms of a cell with noise, (runs, rates, lags), in one program."""

    def one(key: jax.Array, x: jax.Array) -> jax.Array:
        params = cell.init(key)

        def at(rate: jax.Array) -> jax.Array:
            return _log_norms(config, cell, {"cell": params, "rate": rate}, x)

        return jax.lax.map(at, jnp.asarray(rates))

    return np.asarray(jax.jit(map_runs(one))(keys, inputs))


def _noise(config: Config, channels: int) -> jax.Array:
    key = jax.random.fold_in(jax.random.key(config.seed), 1)
    shape = config.num_seeds, config.warm_up + config.num_steps, channels
    return jax.random.uniform(key, shape)


def _measure_dropout(config: Config) -> "xarray.Dataset":
    import xarray

    cell = dropped(lstm(config.input_size, config.hidden_size))
    keys, x = _draw(config, config.input_size)
    u = _noise(config, config.hidden_size)
    kinds = {"variational": jnp.broadcast_to(u[:, :1], u.shape), "per step": u}
    # The kinds differ in what is put in alone.
    inputs = jnp.concatenate([jnp.concatenate([x, us], axis=-1) for us in kinds.values()])
    norms = _by_rate(config, cell, config.dropout, jnp.concatenate([keys, keys]), inputs)
    norms = norms.reshape(2, config.num_seeds, len(config.dropout), -1)
    return xarray.Dataset(
        {"log_norm_dropout": (("kind", "run", "dropout", "lag"), norms, {"units": "nats"})},
        coords={"kind": list(kinds), "dropout": list(config.dropout), **_lags(config)},
    )


def _measure_zoneout(config: Config) -> "xarray.Dataset":
    import xarray

    cell = zoned(lstm(config.input_size, config.hidden_size))
    keys, x = _draw(config, config.input_size)
    inputs = jnp.concatenate([x, _noise(config, 2 * config.hidden_size)], axis=-1)
    norms = _by_rate(config, cell, config.zoneout, keys, inputs)
    return xarray.Dataset(
        {"log_norm_zoneout": (("run", "zoneout", "lag"), norms, {"units": "nats"})},
        coords={"zoneout": list(config.zoneout), **_lags(config)},
    )


def _measure_batch(config: Config) -> "xarray.Dataset":
    """log ‖∂L/∂h_k‖ of the batch-normalised net at each lag, for every γ and γ_x."""
    import xarray

    cell = batch_normalised(config.input_size, config.hidden_size, config.batch_size)
    keys, inputs = _draw(config, config.batch_size * config.input_size, stream=1)
    pairs = [(gamma, share * gamma) for share in INPUT_SHARES for gamma in config.gammas]

    def one(key: jax.Array, x: jax.Array) -> jax.Array:
        params = cell.init(key)
        size = config.batch_size * config.hidden_size
        u = jax.random.normal(jax.random.fold_in(key, 1), (size,))

        def at(pair: jax.Array) -> jax.Array:
            of_pair = params | {"gamma": pair[0], "gamma_x": pair[1]}
            carry, rest = _warm(config, cell, of_pair, x)
            return flow.log_adjoint_norms(lambda h: h[-1] @ u, cell, of_pair, rest, carry=carry)

        return jax.lax.map(at, jnp.asarray(pairs))[:, ::-1]

    norms = np.asarray(jax.jit(map_runs(one))(keys, inputs))
    shape = len(INPUT_SHARES), len(config.gammas)
    theory = np.reshape([batch_theory(*pair) for pair in pairs], shape)
    return xarray.Dataset(
        {
            "log_adjoint": (
                ("run", "input_share", "gamma", "lag"),
                norms.reshape(config.num_seeds, *shape, -1),
                {"units": "nats"},
            ),
            "theory": (("input_share", "gamma"), theory, {"units": "nats per step"}),
        },
        coords={
            "input_share": list(INPUT_SHARES),
            "gamma": list(config.gammas),
            **_lags(config),
        },
    )


def figure(dataset: "xarray.Dataset") -> "Figure":
    """Layer norm within the step and between layers, dropout, zoneout, and the γ of batch norm."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(7.0, 5.6))
    (within, between, dropout), (zoneout, batch, slopes) = fig.subplots(2, 3)
    cells = {
        "lstm": "lstm",
        "lstm_layer_norm": "lstm, norm",
        "gru": "gru",
        "gru_layer_norm": "gru, norm",
    }
    _draw_nets(within, dataset, cells)
    within.set(title="Layer norm within the step", ylabel=_NORM)
    stacks = {"stack": "none", "stack_between": "between layers", "stack_within": "within steps"}
    _draw_nets(between, dataset, stacks)
    between.set(title="Two LSTMs, lower h to upper")
    _draw_dropout(dropout, dataset)
    zoned = dataset.log_norm_zoneout
    _draw_shades(zoneout, dataset.lag, [zoned.sel(zoneout=r) for r in dataset.zoneout.values])
    zoneout.set(title="LSTM under zoneout", ylabel=_NORM)
    zoneout.legend(zoneout.lines, [f"{r:g}" for r in dataset.zoneout.values], title="rate")
    norms = dataset.log_adjoint.sel(input_share=1)
    _draw_shades(batch, dataset.lag, [norms.sel(gamma=g) for g in dataset.gamma.values])
    batch.set(
        title=r"Batch norm, $\gamma_x = \gamma$", ylabel=r"$\log_{10}\,\|\partial L/\partial h_k\|$"
    )
    gammas = [f"{gamma:g}" for gamma in dataset.gamma.values]
    batch.legend(batch.lines, gammas, title=r"$\gamma$", ncols=2, fontsize=7, handlelength=1.5)
    _draw_slopes(slopes, dataset)
    for ax in (within, between, dropout, zoneout, batch):
        ax.set(xlabel="lag T − k (steps)", xlim=(0, dataset.sizes["lag"] - 1))
    return fig


_NORM = r"$\log_{10}\,\|\partial h_T/\partial h_k\|$"


def _draw_nets(ax: "Axes", dataset: "xarray.Dataset", labels: dict[str, str]) -> None:
    for index, (net, label) in enumerate(labels.items()):
        decades = dataset.log_norm.sel(net=net) / np.log(10)
        look = study.figure.cell_style(net, index) | {"label": label}
        study.figure.band(ax, dataset.lag, decades, "run", **look)
    ax.legend(loc="lower left", fontsize=7, handlelength=2.2)


def _draw_shades(ax: "Axes", lag: "xarray.DataArray", curves: list["xarray.DataArray"]) -> None:
    """Curves from dark to light, in the order given."""
    from matplotlib import colormaps

    for index, curve in enumerate(curves):
        color = colormaps["viridis"](0.85 * index / max(1, len(curves) - 1))
        study.figure.band(ax, lag, curve / np.log(10), "run", color=color)


def _draw_dropout(ax: "Axes", dataset: "xarray.Dataset") -> None:
    looks = {"variational": ("#0072B2", "-"), "per step": ("#D55E00", "--")}
    for kind, (color, linestyle) in looks.items():
        for index, rate in enumerate(dataset.dropout.values):
            decades = dataset.log_norm_dropout.sel(kind=kind, dropout=rate) / np.log(10)
            look = {"color": color, "linestyle": linestyle, "lw": 0.7 + 0.6 * index}
            if rate == 0:  # where both are the LSTM itself
                look |= {"color": "#000000", "linestyle": ":", "lw": 1.4}
            label = f"{kind}, {rate:g}" if rate else "none" if kind == "variational" else None
            study.figure.band(ax, dataset.lag, decades, "run", label=label, **look)
    ax.set_title("LSTM under dropout of h")
    ax.legend(loc="lower left", fontsize=7, handlelength=1.8, labelspacing=0.3)


def _draw_slopes(ax: "Axes", dataset: "xarray.Dataset") -> None:
    rates = slopes(dataset.log_adjoint)
    for share, color, marker in zip(INPUT_SHARES, ("#0072B2", "#D55E00"), "so", strict=True):
        label = r"$\gamma_x = \gamma$" if share == 1 else rf"$\gamma_x = {share:g}\,\gamma$"
        at = INPUT_SHARES.index(share)
        look: Any = {"color": color, "marker": marker, "ls": "none", "markevery": 1}
        study.figure.band(ax, dataset.gamma, rates[:, at], 0, label=label, **look)
        ax.plot(dataset.gamma, dataset.theory[at], color=color, lw=1, ls="--")
    ax.set(
        xlabel=r"$\gamma$ (dimensionless)",
        ylabel="growth (nats per step)",
        title="Batch norm (lines: theory)",
    )
    ax.legend()


def slopes(curves: "xarray.DataArray") -> np.ndarray:
    """The slope of each curve against the lag, its last axis."""
    return np.apply_along_axis(slope, -1, curves.values)


def summary(dataset: "xarray.Dataset") -> str:
    """What each change does to the log decay a step, paired by run, and whether it was claimed."""
    of_net = {str(net): slopes(dataset.log_norm.sel(net=net)) for net in dataset.net.values}
    variational, per_step = slopes(dataset.log_norm_dropout)[..., -1]
    zoned = slopes(dataset.log_norm_zoneout)
    up: Claimed = lambda change, before: change.low > 0  # noqa: E731
    down: Claimed = lambda change, before: change.high < 0  # noqa: E731
    same: Claimed = lambda change, before: (  # noqa: E731
        max(abs(change.low), abs(change.high)) <= SAME * abs(before)
    )
    highest = f"rate {float(dataset.dropout[-1]):g}"
    rows = [
        _row("lstm: layer norm within", of_net["lstm"], of_net["lstm_layer_norm"], up),
        _row("gru: layer norm within", of_net["gru"], of_net["gru_layer_norm"], up),
        _row("stack: layer norm between", of_net["stack"], of_net["stack_between"], same),
        _row("stack: layer norm within", of_net["stack"], of_net["stack_within"], up),
        _row(f"dropout per step, not variational, {highest}", variational, per_step, down),
        _row(f"zoneout, rate {float(dataset.zoneout[-1]):g}", zoned[:, 0], zoned[:, -1], up),
    ]
    return f"{study.table(rows)}\n\n{study.table(_batch_rows(dataset))}"


def _row(change: str, before: np.ndarray, after: np.ndarray, claimed: Claimed) -> dict[str, str]:
    difference = statistics.estimate(after - before)
    return {
        "change": change,
        "log decay a step": f"{before.mean():+.4f}",
        "with it": f"{after.mean():+.4f}",
        "difference": f"{difference:+.4f}",
        "claim": study.verdict(claimed(difference, before.mean())),
    }


def _batch_rows(dataset: "xarray.Dataset") -> list[dict[str, str]]:
    rates = slopes(dataset.log_adjoint)
    rows = []
    for at, share in enumerate(dataset.input_share.values):
        means = rates[:, at].mean(axis=0)
        ends = [f"{statistics.estimate(rates[:, at, end]):+.4f}" for end in (0, -1)]
        falls = bool((np.diff(means) < 0).all())
        rows.append(
            {
                "batch norm": f"gamma_x = {share:g} gamma",
                f"log growth at gamma {float(dataset.gamma[0]):g}": ends[0],
                f"at gamma {float(dataset.gamma[-1]):g}": ends[1],
                "off theory by up to": f"{np.abs(means - dataset.theory.values[at]).max():.3f}",
                "smaller gamma, slower decay": study.verdict(falls),
            }
        )
    return rows


EXPERIMENT = study.Experiment(
    name="normalisation",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    section="flow",
    order=9,
    gallery={"normalisation": study.Picture()},
    quick={
        "dropout": (0.0, 0.5),
        "zoneout": (0.0, 0.5),
        "gammas": (0.1, 1.0),
        "batch_size": 6,
        "hidden_size": 6,
        "input_size": 4,
        "num_steps": 16,
        "warm_up": 8,
        "num_seeds": 5,
    },
    doc=__doc__,
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
