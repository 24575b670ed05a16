"""When the gradient explodes, and what that looks like: a sweep of the gain through criticality.

W_h = gain · W with W_ij ~ N(0, 1/n) in a linear, a ReLU and a tanh network, an LSTM and a GRU,
driven by x ~ N(0, input_std²). The claims: the largest Lyapunov exponent λ, the growth of ∂s_t/∂s_0
in nats per step, changes its sign at the gain that theory gives; above it the norms of gradients
over initialisations are heavy-tailed, and the loss along a line in parameter space is rough. The
theory::

    λ = log gain                                                                   linear
    λ = ½ log(gain² E φ'(√q z)²),  q = gain² E φ(√q z)² + input_std²,  z ~ N(0, 1)   ReLU, tanh
    λ = log(σ(1) + gain/4)  LSTM,  λ = log(½ + gain/4)  GRU:  at rest, where h is nearly 0

Each claim is supported by a rule fixed beforehand: the measured critical gain lies within 10 % of
the theory's; the mean of the gradient norms is more than twice their median; the steepest slope on
the line over the median slope is ten times what it is below the critical gain.

Source: Sompolinsky, Crisanti, Sommers 1988, doi:10.1103/PhysRevLett.61.259; Pascanu, Mikolov,
Bengio 2013, arXiv:1211.5063 (cliffs); Chen, Pennington, Schoenholz 2018, arXiv:1806.05394 (mean
field).

    python experiments/exploding.py
    python experiments/exploding.py --cells=tanh,gru --input_std=1 --num_gains=80 --max_gain=4

Takes about a minute on two cores at the defaults.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from _kit import curves, decisions, fields, runs

from gradflow import Cell, flow, statistics, study
from gradflow.cells import resolve
from gradflow.devices import map_runs
from gradflow.initializers.meanfield import critical_gain, mean_field_exponent
from gradflow.spec import check_name

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gradflow import Params

TOLERANCE = 0.1
"""The relative distance to the theory up to which a measured critical gain counts as equal."""

HEAVY = 2.0
"""The ratio of mean to median from which on a distribution of norms counts as heavy-tailed."""

ROUGH = 10.0
"""The factor over the roughness below the critical gain from which on a line counts as rough."""


@dataclass(frozen=True)
class Config(study.Config):
    """Which networks, at which gains."""

    num_seeds: int = fields.num_seeds(10)
    cells: tuple[str, ...] = study.field(
        ("linear", "relu", "tanh", "lstm", "gru"), help="Of linear, relu, tanh, lstm and gru."
    )
    hidden_size: int = fields.hidden_size(100)
    input_size: int = fields.input_size(16)
    input_std: float = fields.input_std(0.1)
    num_steps: int = fields.num_steps(200)
    burn_in: int = study.field(50, help="First steps that no exponent includes.", positive=True)
    num_gains: int = study.field(40, help="Gains of the sweep.", positive=True)
    min_gain: float = study.field(0.2, help="The smallest gain of the sweep.", positive=True)
    max_gain: float = study.field(3.0, help="The largest gain of the sweep.", positive=True)
    factors: tuple[float, ...] = study.field(
        (0.8, 1.0, 1.5),
        help="Gains as multiples of the theory's critical gain, for all but the sweep.",
        positive=True,
    )
    num_draws: int = study.field(
        200, help="Initialisations for the distribution of gradient norms.", positive=True
    )
    num_points: int = study.field(201, help="Points on the line in parameter space.", positive=True)
    line_width: float = study.field(
        0.05, help="Half the length of the line, relative to ‖W_h‖.", positive=True
    )


class Net(NamedTuple):
    """A network of the study.

    Attributes:
      spec: The cell, as it is resolved.
      critical: input_std -> the gain at which λ = 0, by theory.
      exponent: (gain, input_std) -> λ by theory; NaN where there is none.
      kept: The gate that multiplies h itself, without a matrix, if there is one.
    """

    spec: str
    critical: Callable[[float], float]
    exponent: Callable[[float, float], float]
    kept: str | None = None


def _plain(activation: str) -> Net:
    def critical(input_std: float) -> float:
        return critical_gain(activation, input_std=input_std if activation == "tanh" else 0.0)

    spec = f"rnn(activation={activation!r}, recurrent_init='normal')"
    return Net(spec, critical, partial(mean_field_exponent, activation))


def _gated(name: str, gate: float, kept: str | None = None) -> Net:
    """λ of s_t = (gate + gain/4 · W) s_{t-1}, whose largest eigenvalue is gate + gain/4."""
    critical = 4 * (1 - gate)

    def exponent(gain: float, input_std: float) -> float:
        del input_std  # the theory is that of inputs near 0
        return math.log(gate + gain / 4) if gain <= critical else math.nan

    return Net(f"{name}(recurrent_init='normal')", lambda input_std: critical, exponent, kept)


NETS = {
    "linear": _plain("identity"),
    "relu": _plain("relu"),
    "tanh": _plain("tanh"),
    "lstm": _gated("lstm", gate=1 / (1 + math.exp(-1))),
    "gru": _gated("gru", gate=0.5, kept="z"),
}


def scaled(name: str, input_size: int, hidden_size: int) -> Cell:
    """Makes a network of the study with parameters {"cell": ..., "gain": the factor of each W_h}.

    The product is W_h (gain · h), so that under `jax.vmap` over gains W_h stays one matrix.
    """
    cell, kept = resolve(NETS[name].spec)(input_size, hidden_size), NETS[name].kept

    def step(params: "Params", carry: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        inner, gain, h = params["cell"], params["gain"], cell.hidden(carry)
        larger = carry._replace(h=gain * h) if hasattr(carry, "_replace") else gain * h
        carry, output = cell.step(inner, larger, x)
        if kept and cell.gates:  # h multiplied by a gate has no matrix, and no gain
            carry = output = output + cell.gates(inner, larger, x)[kept] * (1 - gain) * h
        return carry, output

    return cell._replace(step=step)


def exponents_by_gain(
    cell: Cell, gains: np.ndarray, params: "Params", inputs: jax.Array, burn_in: int
) -> np.ndarray:
    """Measures the largest exponent of a `scaled` cell, (runs, gains), by one tangent vector."""

    def one(params: "Params", x: jax.Array, gain: jax.Array) -> jax.Array:
        # With a QR decomposition at every step, no run waits for another one's interval.
        kind: Any = {"num_exponents": 1, "burn_in": burn_in, "qr_every": 1}
        params = {"cell": params, "gain": gain}
        return flow.lyapunov_exponents(cell, params, x, **kind).exponents[0]

    over_gains = jax.vmap(one, in_axes=(None, None, 0))
    return runs.measure(lambda params, x: over_gains(params, x, jnp.asarray(gains)), params, inputs)


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """Measures each cell; dimensions cell, run, gain or factor, and lag, draw or place."""
    import xarray

    for name in config.cells:
        check_name("network of this study", name, NETS)
    if config.burn_in >= config.num_steps:
        raise ValueError(
            f"Expected burn_in below num_steps={config.num_steps}, got {config.burn_in}. "
            "Lower --burn_in or raise --num_steps."
        )
    parts = [
        once(f"cell={name}", partial(_measure, config, name))
        for name in study.progress(config.cells, "cells")
    ]
    line = once("line", partial(_measure_line, config))
    cells = xarray.concat(parts, dim="cell", join="outer")
    return xarray.merge([cells, line], join="exact", compat="no_conflicts")


def _initialised(config: Config, cell: Cell, number: int) -> tuple["Params", jax.Array]:
    """Parameters and inputs (number, T, input) of so many runs."""
    inputs = runs.inputs(config, spec=f"gaussian(std={config.input_std!r})", num_sequences=number)
    return runs.initialise(cell, runs.keys(config, number)), inputs


def _measure(config: Config, name: str) -> "xarray.Dataset":
    import xarray

    net, cell = NETS[name], scaled(name, config.input_size, config.hidden_size)
    gains = np.linspace(config.min_gain, config.max_gain, config.num_gains)
    critical = net.critical(config.input_std)
    few = _initialised(config, cell, config.num_seeds)
    exponents = exponents_by_gain(cell, gains, *few, burn_in=config.burn_in)
    at = critical * np.asarray(config.factors)
    gradients = _log_gradients(cell, at, *_initialised(config, cell, config.num_draws))
    theory = [net.exponent(gain, config.input_std) for gain in gains]
    rate, nats = {"units": "nats per step"}, {"units": "nats"}
    frobenius = nats | {"norm": "frobenius"}
    by_lag = ("cell", "factor", "run", "lag")
    return xarray.Dataset(
        {
            "exponent": (("cell", "run", "gain"), exponents[None], rate),
            "theory": (("cell", "gain"), [theory], rate),
            "critical": ("cell", [critical]),
            "log_norm": (by_lag, _log_norms(cell, at, *few)[None], frobenius),
            "log_gradient": (("cell", "factor", "draw"), gradients[None], nats),
        },
        coords={
            "cell": [name],
            "gain": gains,
            "factor": list(config.factors),
            "lag": curves.coordinates(config.num_steps)["lag"],
        },
    )


def _log_norms(cell: Cell, gains: np.ndarray, params: "Params", inputs: jax.Array) -> np.ndarray:
    """Measures log ‖∂h_T/∂h_k‖ in the Frobenius norm, (gains, runs, lags)."""

    def one(params: "Params", x: jax.Array, gain: jax.Array) -> jax.Array:
        return flow.log_norms(cell, {"cell": params, "gain": gain}, x, norm="frobenius")

    measure = jax.jit(map_runs(one))  # compiled once for all gains
    return np.stack([measure(params, inputs, jnp.full(len(inputs), gain)) for gain in gains])


def _log_gradients(
    cell: Cell, gains: np.ndarray, params: "Params", inputs: jax.Array
) -> np.ndarray:
    """Measures log ‖∂L/∂h_0‖ for L = Σ_i (h_T)_i/√n, (gains, draws)."""

    def one(params: "Params", x: jax.Array, gain: jax.Array) -> jax.Array:
        def loss(outputs: jax.Array) -> jax.Array:
            return jnp.sum(outputs[-1]) / math.sqrt(outputs.shape[-1])

        return flow.log_adjoint_norms(loss, cell, {"cell": params, "gain": gain}, x)[0]

    over_gains = jax.vmap(one, in_axes=(None, None, 0))
    measure = lambda params, x: over_gains(params, x, jnp.asarray(gains))  # noqa: E731
    return runs.measure(measure, params, inputs).T


def _measure_line(config: Config) -> "xarray.Dataset":
    """Measures the loss of the tanh network, and its slope, on a line through W_h."""
    import xarray

    cell = resolve(NETS["tanh"].spec)(config.input_size, config.hidden_size)
    gains = NETS["tanh"].critical(config.input_std) * np.asarray(config.factors)
    places = np.linspace(-config.line_width, config.line_width, config.num_points)
    params, inputs = _initialised(config, cell, config.num_seeds)
    other = jax.vmap(partial(runs.stream, number=0))(runs.keys(config))
    directions = runs.initialise(cell, other)["W_h"]

    def one(params: "Params", D: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        D = D * jnp.linalg.norm(params["W_h"]) / jnp.linalg.norm(D)
        on_line = partial(_losses_on_line, cell, params, D, x, jnp.asarray(places))
        return jax.lax.map(on_line, jnp.asarray(gains))

    losses, slopes = runs.measure(one, params, directions, inputs)
    dims = ("run", "factor", "place")
    return xarray.Dataset(
        {"loss": (dims, losses), "slope": (dims, slopes)},
        coords={"factor": list(config.factors), "place": places},
    )


def _losses_on_line(
    cell: Cell, params: "Params", D: jax.Array, x: jax.Array, places: jax.Array, gain: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The loss ½ mean (h_T - ½)² at W_h = gain (W + place D), and its slope, by place."""

    def loss(place: jax.Array) -> jax.Array:
        def step(h: jax.Array, x: jax.Array) -> tuple[jax.Array, None]:
            # gain (W_h + place D) h, without forming a matrix for each place.
            shifted = params | {"b": params["b"] + place * (D @ (gain * h))}
            return cell.step(shifted, gain * h, x)[0], None

        h, _ = jax.lax.scan(step, cell.initial_carry(), x)
        return 0.5 * jnp.mean((h - 0.5) ** 2)

    return jax.vmap(lambda place: jax.jvp(loss, (place,), (jnp.ones_like(place),)))(places)


def crossing(gains: np.ndarray, exponents: np.ndarray) -> float:
    """Finds the first gain at which the exponent exceeds 0, between points of the sweep; or NaN."""
    above = np.flatnonzero(exponents > 0)
    if not len(above) or above[0] == 0:
        return math.nan
    low, high = exponents[above[0] - 1 : above[0] + 1]
    part = -low / (high - low) if np.isfinite(low) else 1.0
    before, after = gains[above[0] - 1 : above[0] + 1]
    return float(before + part * (after - before))


def log_excess(log_norms: np.ndarray) -> float:
    """Computes log10 of the mean over the median of norms, from their natural logarithms.

    Where the norms spread over orders of magnitude, rare large ones that no sample contains
    dominate the mean: for 200 lognormal norms with sigma = 3 this is 0.3 too small, and an interval
    covers the truth 0.64 of the time. Its lower end is a bound all the same.
    """
    log_mean = np.logaddexp.reduce(log_norms) - math.log(len(log_norms))
    return float((log_mean - np.median(log_norms)) / curves.NATS)


def roughness(slopes: np.ndarray) -> np.ndarray:
    """Computes log10 of the steepest slope over the median one, along the last axis."""
    steepness = np.abs(slopes)
    return np.log10(steepness.max(axis=-1) / np.median(steepness, axis=-1))


def figure(dataset: "xarray.Dataset") -> "Figure":
    """Exponents and tails; norms against lag; losses along the line."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(7.0, 7.2))
    top, middle, bottom = fig.subfigures(3, 1, height_ratios=(3, 2.3, 2), squeeze=False)[:, 0]
    left, right = top.subplots(1, 2, width_ratios=(3, 2))
    _draw_exponents(left, dataset)
    _draw_tails(right, dataset)
    panels = middle.subplots(1, dataset.sizes["cell"], sharey=True, squeeze=False)[0]
    for ax, name in zip(panels, dataset.cell.values, strict=True):
        _draw_norms(ax, dataset.sel(cell=name))
        ax.set_title(f"{name} ({float(dataset.critical.sel(cell=name)):.2f})")
    middle.suptitle("Norm against lag at factor · critical gain (in brackets)", fontsize=9)
    panels[0].set_ylabel(r"$\log_{10}\,\|\partial h_T/\partial h_k\|_F$")
    panels[len(panels) // 2].set_xlabel(curves.LAG)
    panels[-1].legend(title="factor", handlelength=2, loc="upper left")
    panels = bottom.subplots(1, dataset.sizes["factor"], sharey=True, squeeze=False)[0]
    for ax, factor in zip(panels, dataset.factor.values, strict=True):
        _draw_line(ax, dataset.sel(factor=factor))
        ax.set_title(f"tanh, {factor:g} · critical gain")
    panels[0].set_ylabel("loss at T (dimensionless)")
    panels[len(panels) // 2].set_xlabel(
        r"step along a random direction of $W_h$, relative to its norm"
    )
    return fig


def _style(name: str, index: int) -> dict[str, Any]:
    return study.figure.cell_style("rnn" if name == "tanh" else name, index)


def _draw_exponents(ax: "Axes", dataset: "xarray.Dataset") -> None:
    ax.axhline(0, color="#808080", lw=0.6)
    for index, name in enumerate(dataset.cell.values):
        data, look = dataset.sel(cell=name), _style(str(name), index)
        marks = look | {"linestyle": "none", "label": str(name), "markevery": 2}
        study.figure.band(ax, data.gain, data.exponent, "run", **marks)
        ax.plot(data.gain, data.theory, color=look["color"], linestyle=look["linestyle"], lw=1)
    ax.set(
        xlabel=r"gain of $W_h$ (dimensionless)",
        ylabel="largest exponent λ (nats per step)",
        title="Growth per step: measured (marks) and theory (lines)",
        xlim=(dataset.gain[0], dataset.gain[-1]),
    )
    ax.legend(loc="lower right")


def _draw_tails(ax: "Axes", dataset: "xarray.Dataset") -> None:
    log10 = dataset.log_gradient.isel(factor=-1) / curves.NATS
    for index, name in enumerate(dataset.cell.values):
        ordered = np.sort(log10.sel(cell=name).values)
        beyond = 1 - np.arange(len(ordered)) / len(ordered)
        above = ordered >= np.median(ordered)
        excess = (ordered - np.median(ordered))[above]
        look = {"markevery": max(1, len(excess) // 5), "label": str(name)}
        ax.plot(excess, beyond[above], **look, **_style(str(name), index))
    ax.set(
        yscale="log",
        xlabel="orders of magnitude above the median",
        ylabel="fraction of initialisations",
        title=rf"Tail of $\|\partial L/\partial h_0\|$ at {float(log10.factor):g} · critical",
    )
    ax.legend(loc="upper right")


def _draw_norms(ax: "Axes", data: "xarray.Dataset") -> None:
    looks = zip(("#0072B2", "#000000", "#D55E00"), ("--", "-", "-."), strict=True)
    for (color, linestyle), factor in zip(itertools.cycle(looks), data.factor.values, strict=False):
        look = {"color": color, "linestyle": linestyle, "label": f"{factor:g}"}
        curves.draw_norms(ax, data.lag, data.log_norm.sel(factor=factor), **look)
    ax.set_xlim(0, data.sizes["lag"] - 1)


def _draw_line(ax: "Axes", data: "xarray.Dataset") -> None:
    for run, color in zip(data.loss.values, ("#000000", "#0072B2", "#D55E00"), strict=False):
        ax.plot(data.place, run, color=color, lw=0.7)
    ax.set_xlim(data.place[0], data.place[-1])


def critical_gain_of(data: "xarray.Dataset") -> statistics.Estimate:
    """Estimates the measured critical gain of one network over its runs."""
    found = [crossing(data.gain.values, run) for run in data.exponent.values]
    return statistics.estimate(np.array(found))


def tail_of(data: "xarray.Dataset") -> statistics.Estimate:
    """Estimates log10 of mean over median of one network's gradient norms at the last factor."""
    return statistics.estimate(data.log_gradient.isel(factor=-1).values, log_excess)


def roughening(dataset: "xarray.Dataset") -> statistics.Estimate:
    """Estimates how much larger log10 of the roughness is at the last factor than at the first."""
    found = roughness(dataset.slope.values)
    return statistics.estimate(found[:, -1] - found[:, 0])


def summary(dataset: "xarray.Dataset") -> str:
    """The critical gain and the tail of each network, and the roughness of the loss."""
    rows = [_row(str(name), dataset.sel(cell=name)) for name in dataset.cell.values]
    first, last = dataset.factor.values[[0, -1]]
    return (
        f"{study.table(rows)}\nLoss of the tanh network on the line: log10 of the steepest over "
        f"the median slope is {roughening(dataset):.2f} larger at {last:g} than at {first:g} of "
        "the critical gain."
    )


def _row(name: str, data: "xarray.Dataset") -> dict[str, str]:
    excess = tail_of(data)
    return {
        "cell": name,
        "critical gain, theory": f"{float(data.critical):.3f}",
        "measured": f"{critical_gain_of(data):.3f}",
        "log10 of mean over median norm": f"{excess.value:.1f}, at least {excess.low:.1f}",
    }


def claims(dataset: "xarray.Dataset") -> list[study.Claim]:
    """The critical gain and the tail of each network, and the roughness of the loss."""
    cells = {str(name): dataset.sel(cell=name) for name in dataset.cell.values}
    return [
        *(_critical_claim(name, data) for name, data in cells.items()),
        *(_tail_claim(name, data) for name, data in cells.items()),
        _rough_claim(dataset),
    ]


def _critical_claim(name: str, data: "xarray.Dataset") -> study.Claim:
    theory, found = float(data.critical), critical_gain_of(data)
    measured = [study.Measured.of("measured", found), study.Measured("theory", theory)]
    return study.claim(
        f"critical-gain-{name}",
        f"The gradient of the {name} network explodes from the gain that theory gives.",
        decisions.within(found.map(lambda gain: gain / theory), 1 - TOLERANCE, 1 + TOLERANCE),
        measured=measured,
        criterion=f"the 95 % interval lies within {TOLERANCE:.0%} of the theory's gain",
    )


def _tail_claim(name: str, data: "xarray.Dataset") -> study.Claim:
    return study.claim(
        f"heavy-tail-{name}",
        f"Above its critical gain the gradient norms of the {name} network are heavy-tailed.",
        decisions.above(excess := tail_of(data), math.log10(HEAVY)),
        measured=study.Measured.of("log10 of mean over median", excess),
        criterion=f"the mean over initialisations is more than {HEAVY:g} times the median, by the "
        "95 % interval",
    )


def _rough_claim(dataset: "xarray.Dataset") -> study.Claim:
    change = roughening(dataset)
    return study.claim(
        "rough-loss",
        "Above the critical gain the loss along a line in parameter space is rough.",
        decisions.above(change, math.log10(ROUGH)),
        measured=study.Measured.of("log10 of the roughness over that below", change),
        criterion=f"steepest over median slope is more than {ROUGH:g} times that below the "
        "critical gain, by the 95 % interval",
    )


EXPERIMENT = study.Experiment(
    name="exploding",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    claims=claims,
    section="flow",
    order=6,
    gallery={"exploding": study.Picture()},
    quick={
        "cells": ("linear", "tanh"),
        "hidden_size": 16,
        "num_steps": 30,
        "burn_in": 10,
        "num_gains": 9,
        "num_seeds": 5,
        "num_draws": 20,
        "num_points": 21,
    },
    doc=__doc__,
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
