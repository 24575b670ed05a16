"""When the gradient explodes, and what that looks like: a sweep of the gain through criticality.

W_h = gain · W with W_ij ~ N(0, 1/n) in a linear, a ReLU and a tanh net, an LSTM and a GRU, driven
by x ~ N(0, input_std²). The claim: the largest Lyapunov exponent λ, the growth of ∂s_t/∂s_0 in nats
a step, changes its sign at the gain that theory gives; above it the norms of gradients over draws
of the net are heavy-tailed, and the loss along a line in parameter space is rough. The theory::

    λ = log gain                                                                   linear
    λ = ½ log(gain² E φ'(√q z)²),  q = gain² E φ(√q z)² + input_std²,  z ~ N(0, 1)   ReLU, tanh
    λ = log(σ(1) + gain/4)  LSTM,  λ = log(½ + gain/4)  GRU:  at rest, where h is nearly 0

Each part counts as supported by a rule fixed beforehand: the measured critical gain lies within
10 % of the theory's; the mean of the gradient norms is more than twice their median; the steepest
slope on the line over the median slope is ten times what it is below the critical gain.

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

from gradflow import Cell, flow, statistics, study
from gradflow.cells import resolve
from gradflow.initializers.meanfield import ACTIVATIONS, critical_gain, gaussian_mean
from gradflow.spec import unknown_name

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gradflow import Params

TOLERANCE = 0.1
"""How far, as a share, a measured critical gain may lie from the theory's."""

HEAVY = 2.0
"""How many times its median the mean of a heavy-tailed norm is, at least."""

ROUGH = 10.0
"""How many times more its slopes differ on a rough line than on a smooth one, at least."""


@dataclass(frozen=True)
class Config(study.Config):
    """Which nets, at which gains."""

    num_seeds: int = study.field(10, help="Nets and input sequences for every gain.", positive=True)
    cells: tuple[str, ...] = study.field(
        ("linear", "relu", "tanh", "lstm", "gru"), help="Of linear, relu, tanh, lstm and gru."
    )
    hidden_size: int = study.field(100, help="Hidden units.", positive=True)
    input_size: int = study.field(16, help="Channels of gaussian inputs.", positive=True)
    input_std: float = study.field(0.1, help="Standard deviation of the inputs.", positive=True)
    num_steps: int = study.field(200, help="Steps T.", positive=True)
    burn_in: int = study.field(50, help="First steps that no exponent counts.", positive=True)
    num_gains: int = study.field(40, help="Gains of the sweep.", positive=True)
    min_gain: float = study.field(0.2, help="The smallest gain of the sweep.", positive=True)
    max_gain: float = study.field(3.0, help="The largest gain of the sweep.", positive=True)
    factors: tuple[float, ...] = study.field(
        (0.8, 1.0, 1.5),
        help="Gains as multiples of the theory's critical gain, for all that is not the sweep.",
        positive=True,
    )
    num_draws: int = study.field(200, help="Nets whose gradient norms are drawn.", positive=True)
    num_points: int = study.field(201, help="Points on the line in parameter space.", positive=True)
    line_width: float = study.field(
        0.05, help="Reach of the line to either side, as a share of ‖W_h‖.", positive=True
    )


class Net(NamedTuple):
    """A net of the study.

    Attributes:
      spec: The cell, as it is resolved.
      critical: input_std -> the gain at which λ = 0, by theory.
      exponent: (gain, input_std) -> λ by theory; NaN where there is none.
      kept: The gate that takes h to the next step without a matrix, if there is one.
    """

    spec: str
    critical: Callable[[float], float]
    exponent: Callable[[float, float], float]
    kept: str | None = None


def mean_field_exponent(activation: str, gain: float, input_std: float) -> float:
    """λ = ½ log(gain² E φ'(√q z)²) with q from its own equation, by iteration from above."""
    phi, slope = ACTIVATIONS[activation]
    q = 1.0 + input_std**2
    if activation == "tanh":  # of the others, λ does not depend on q
        for _ in range(1000):
            before, root = q, math.sqrt(q)
            q = gain**2 * gaussian_mean(lambda z, r=root: phi(r * z) ** 2) + input_std**2
            if abs(q - before) < 1e-9 * q:
                break
    root = math.sqrt(q)
    return 0.5 * math.log(gain**2 * gaussian_mean(lambda z: slope(root * z) ** 2))


def _plain(activation: str) -> Net:
    def critical(input_std: float) -> float:
        return critical_gain(activation, input_std=input_std if activation == "tanh" else 0.0)

    spec = f"rnn(activation={activation!r}, recurrent_init='normal')"
    return Net(spec, critical, partial(mean_field_exponent, activation))


def _gated(name: str, share: float, kept: str | None = None) -> Net:
    """λ of s_t = (share + gain/4 · W) s_{t-1}, whose largest eigenvalue is share + gain/4."""
    critical = 4 * (1 - share)

    def exponent(gain: float, input_std: float) -> float:
        del input_std  # it is taken to be small
        return math.log(share + gain / 4) if gain <= critical else math.nan

    return Net(f"{name}(recurrent_init='normal')", lambda input_std: critical, exponent, kept)


NETS = {
    "linear": _plain("identity"),
    "relu": _plain("relu"),
    "tanh": _plain("tanh"),
    "lstm": _gated("lstm", share=1 / (1 + math.exp(-1))),
    "gru": _gated("gru", share=0.5, kept="z"),
}


def scaled(name: str, input_size: int, hidden_size: int) -> Cell:
    """The net by that name on {"cell": its parameters, "gain": by how much each W_h is larger}.

    The product is W_h (gain · h), so that under `jax.vmap` over gains W_h stays one matrix.
    """
    cell, kept = resolve(NETS[name].spec)(input_size, hidden_size), NETS[name].kept

    def step(params: "Params", carry: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        inner, gain, h = params["cell"], params["gain"], cell.hidden(carry)
        larger = carry._replace(h=gain * h) if hasattr(carry, "_replace") else gain * h
        carry, output = cell.step(inner, larger, x)
        if kept and cell.gates:  # h itself went past the matrices too, and must not be larger
            carry = output = output + cell.gates(inner, larger, x)[kept] * (1 - gain) * h
        return carry, output

    return cell._replace(step=step)


def exponents_by_gain(
    cell: Cell, gains: jax.Array, params: "Params", inputs: jax.Array, burn_in: int
) -> jax.Array:
    """The largest exponent of a `scaled` cell, (runs, gains), from one tangent vector each."""

    def one(params: "Params", x: jax.Array, gain: jax.Array) -> jax.Array:
        # With a QR at every step no run waits for another one's stretches.
        kind: Any = {"num_exponents": 1, "burn_in": burn_in, "qr_every": 1}
        params = {"cell": params, "gain": gain}
        return flow.lyapunov_exponents(cell, params, x, **kind).exponents[0]

    over_gains = jax.vmap(one, in_axes=(None, None, 0))
    return flow.over_runs(lambda params, x: over_gains(params, x, gains))(params, inputs)


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """Measures each cell; dimensions cell, run, gain or factor, and lag, draw or place."""
    import xarray

    for name in config.cells:
        if name not in NETS:
            raise ValueError(unknown_name("net of this study", name, NETS))
    if config.burn_in >= config.num_steps:
        raise ValueError(
            f"burn_in below num_steps={config.num_steps} is expected, got {config.burn_in}"
        )
    parts = [
        once(f"cell={name}", partial(_measure, config, name))
        for name in study.progress(config.cells, "cells")
    ]
    line = once("line", partial(_measure_line, config))
    cells = xarray.concat(parts, dim="cell", join="outer")
    return xarray.merge([cells, line], join="exact", compat="no_conflicts")


def _draw(config: Config, cell: Cell, count: int, stream: int) -> tuple["Params", jax.Array]:
    """Parameters, and inputs (count, T, input)."""
    key = jax.random.fold_in(jax.random.key(config.seed), stream)
    k_params, k_inputs = jax.random.split(key)
    shape = count, config.num_steps, config.input_size
    params = jax.jit(jax.vmap(cell.init))(jax.random.split(k_params, count))
    return params, config.input_std * jax.random.normal(k_inputs, shape)


def _measure(config: Config, name: str) -> "xarray.Dataset":
    import xarray

    net = NETS[name]
    cell = scaled(name, config.input_size, config.hidden_size)
    gains = np.linspace(config.min_gain, config.max_gain, config.num_gains)
    critical = net.critical(config.input_std)
    few = _draw(config, cell, config.num_seeds, 0)
    sweep = partial(exponents_by_gain, cell, jnp.asarray(gains), burn_in=config.burn_in)
    at = critical * np.asarray(config.factors)
    theory = [net.exponent(gain, config.input_std) for gain in gains]
    nats = {"units": "nats"}
    return xarray.Dataset(
        {
            "exponent": (
                ("cell", "run", "gain"),
                np.asarray(jax.jit(sweep)(*few))[None],
                {"units": "nats per step"},
            ),
            "theory": (("cell", "gain"), [theory], {"units": "nats per step"}),
            "critical": ("cell", [critical]),
            "log_norm": (
                ("cell", "factor", "run", "lag"),
                _log_norms(cell, at, *few)[None],
                nats | {"norm": "frobenius"},
            ),
            "log_gradient": (
                ("cell", "factor", "draw"),
                _log_gradients(cell, at, *_draw(config, cell, config.num_draws, 1))[None],
                nats,
            ),
        },
        coords={
            "cell": [name],
            "gain": gains,
            "factor": list(config.factors),
            "lag": ("lag", np.arange(config.num_steps + 1), {"units": "steps"}),
        },
    )


def _log_norms(cell: Cell, gains: np.ndarray, params: "Params", inputs: jax.Array) -> np.ndarray:
    """log ‖∂h_T/∂h_k‖ in the Frobenius norm, (gains, runs, lags)."""

    def one(params: "Params", x: jax.Array, gain: jax.Array) -> jax.Array:
        return flow.log_norms(cell, {"cell": params, "gain": gain}, x, norm="frobenius")

    measure = jax.jit(flow.over_runs(one))
    runs = len(inputs)
    return np.stack([measure(params, inputs, jnp.full(runs, gain)) for gain in gains])


def _log_gradients(
    cell: Cell, gains: np.ndarray, params: "Params", inputs: jax.Array
) -> np.ndarray:
    """log ‖∂L/∂h_0‖ for L = Σ_i (h_T)_i/√n, (gains, draws)."""

    def one(params: "Params", x: jax.Array, gain: jax.Array) -> jax.Array:
        def loss(outputs: jax.Array) -> jax.Array:
            return jnp.sum(outputs[-1]) / math.sqrt(outputs.shape[-1])

        return flow.log_adjoint_norms(loss, cell, {"cell": params, "gain": gain}, x)[0]

    over_gains = jax.vmap(one, in_axes=(None, None, 0))
    measure = flow.over_runs(lambda params, x: over_gains(params, x, jnp.asarray(gains)))
    return np.asarray(jax.jit(measure)(params, inputs)).T


def _measure_line(config: Config) -> "xarray.Dataset":
    """The loss of the tanh net, and its slope, on a line through W_h in a random direction."""
    import xarray

    cell = resolve(NETS["tanh"].spec)(config.input_size, config.hidden_size)
    gains = NETS["tanh"].critical(config.input_std) * np.asarray(config.factors)
    places = np.linspace(-config.line_width, config.line_width, config.num_points)
    params, inputs = _draw(config, cell, config.num_seeds, 2)
    directions, _ = _draw(config, cell, config.num_seeds, 3)

    def loss(
        params: "Params", D: jax.Array, x: jax.Array, gain: jax.Array, place: jax.Array
    ) -> jax.Array:
        def step(h: jax.Array, x: jax.Array) -> tuple[jax.Array, None]:
            # gain (W_h + place D) h, of which no matrix is formed for each place.
            off_line = params | {"b": params["b"] + place * (D @ (gain * h))}
            return cell.step(off_line, gain * h, x)[0], None

        h, _ = jax.lax.scan(step, cell.initial_carry(), x)
        return 0.5 * jnp.mean((h - 0.5) ** 2)

    def with_slope(*arguments: Any) -> tuple[jax.Array, jax.Array]:
        *rest, place = arguments
        return jax.jvp(partial(loss, *rest), (place,), (jnp.ones_like(place),))

    over_places = jax.vmap(with_slope, in_axes=(None, None, None, None, 0))

    def one(params: "Params", D: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        D = D * jnp.linalg.norm(params["W_h"]) / jnp.linalg.norm(D)
        each = partial(over_places, params, D, x)
        return jax.lax.map(lambda gain: each(gain, jnp.asarray(places)), jnp.asarray(gains))

    measure = jax.jit(flow.over_runs(one))
    losses, slopes = measure(params, directions["W_h"], inputs)
    dims = ("run", "factor", "place")
    return xarray.Dataset(
        {"loss": (dims, np.asarray(losses)), "slope": (dims, np.asarray(slopes))},
        coords={"factor": list(config.factors), "place": places},
    )


def crossing(gains: np.ndarray, exponents: np.ndarray) -> float:
    """The first gain at which the exponent is above 0, between points of the sweep; or NaN."""
    above = np.flatnonzero(exponents > 0)
    if not len(above) or above[0] == 0:
        return math.nan
    low, high = exponents[above[0] - 1 : above[0] + 1]
    share = -low / (high - low) if np.isfinite(low) else 1.0
    before, after = gains[above[0] - 1 : above[0] + 1]
    return float(before + share * (after - before))


def log_excess(log_norms: np.ndarray) -> float:
    """log10 of the mean over the median of norms, from their natural logarithms.

    Where the norms are spread over orders of magnitude, the largest that were not drawn make up the
    mean: of 200 lognormal norms with sigma = 3 this is 0.3 too small, and an interval covers the
    truth 0.64 of the time. Its lower end is a bound all the same.
    """
    log_mean = np.logaddexp.reduce(log_norms) - math.log(len(log_norms))
    return float((log_mean - np.median(log_norms)) / math.log(10))


def roughness(slopes: np.ndarray) -> np.ndarray:
    """log10 of the steepest slope over the median one, along the last axis."""
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
    panels[len(panels) // 2].set_xlabel("lag T − k (steps)")
    panels[-1].legend(title="factor", handlelength=2, loc="upper left")
    panels = bottom.subplots(1, dataset.sizes["factor"], sharey=True, squeeze=False)[0]
    for ax, factor in zip(panels, dataset.factor.values, strict=True):
        _draw_line(ax, dataset.sel(factor=factor))
        ax.set_title(f"tanh, {factor:g} · critical gain")
    panels[0].set_ylabel("loss at T (dimensionless)")
    panels[len(panels) // 2].set_xlabel(r"step along a random direction of $W_h$, as a share of it")
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
    decades = dataset.log_gradient.isel(factor=-1) / np.log(10)
    for index, name in enumerate(dataset.cell.values):
        ordered = np.sort(decades.sel(cell=name).values)
        share = 1 - np.arange(len(ordered)) / len(ordered)
        above = ordered >= np.median(ordered)
        excess = (ordered - np.median(ordered))[above]
        look = {"markevery": max(1, len(excess) // 5), "label": str(name)}
        ax.plot(excess, share[above], **look, **_style(str(name), index))
    ax.set(
        yscale="log",
        xlabel="decades above the median",
        ylabel="share of draws beyond",
        title=rf"Tail of $\|\partial L/\partial h_0\|$ at {float(decades.factor):g} · critical",
    )
    ax.legend(loc="upper right")


def _draw_norms(ax: "Axes", data: "xarray.Dataset") -> None:
    looks = zip(("#0072B2", "#000000", "#D55E00"), ("--", "-", "-."), strict=True)
    for (color, linestyle), factor in zip(itertools.cycle(looks), data.factor.values, strict=False):
        decades = data.log_norm.sel(factor=factor) / np.log(10)
        look = {"color": color, "linestyle": linestyle, "label": f"{factor:g}"}
        study.figure.band(ax, data.lag, decades, "run", **look)
    ax.set_xlim(0, data.sizes["lag"] - 1)


def _draw_line(ax: "Axes", data: "xarray.Dataset") -> None:
    for run, color in zip(data.loss.values, ("#000000", "#0072B2", "#D55E00"), strict=False):
        ax.plot(data.place, run, color=color, lw=0.7)
    ax.set_xlim(data.place[0], data.place[-1])


def summary(dataset: "xarray.Dataset") -> str:
    """The critical gain, the tail and the roughness, and whether the claim holds in each."""
    rows = [_row(str(name), dataset.sel(cell=name)) for name in dataset.cell.values]
    return f"{study.table(rows)}\n{_line_verdict(dataset)}"


def _row(name: str, data: "xarray.Dataset") -> dict[str, str]:
    theory = float(data.critical)
    found = np.array([crossing(data.gain.values, run) for run in data.exponent.values])
    gain = statistics.estimate(found)
    excess = statistics.estimate(data.log_gradient.isel(factor=-1).values, log_excess)
    return {
        "cell": name,
        "critical gain: theory": f"{theory:.3f}",
        "measured": f"{gain:.3f}",
        "within 10 %": study.verdict(abs(gain.value / theory - 1) <= TOLERANCE),
        "log10 mean/median norm": f"{excess.value:.1f}, at least {excess.low:.1f}",
        "heavy tail": study.verdict(excess.low > math.log10(HEAVY)),
    }


def _line_verdict(dataset: "xarray.Dataset") -> str:
    ratios = roughness(dataset.slope.values)
    change = statistics.estimate(ratios[:, -1] - ratios[:, 0])
    first, last = dataset.factor.values[[0, -1]]
    return (
        "loss of tanh on the line, log10 of the steepest over the median slope, at "
        f"{last:g} less at {first:g} of the critical gain: {change:.2f}; "
        f"rough: {study.verdict(change.low > math.log10(ROUGH))}"
    )


EXPERIMENT = study.Experiment(
    name="exploding",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
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
