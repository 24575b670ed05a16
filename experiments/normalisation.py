"""Whether normalisation, dropout and zoneout help or hurt the flow of the gradient.

‖∂h_T/∂h_k‖ against the lag T - k, from a carry after a warm-up: with layer normalisation within the
step of an LSTM and a GRU; in a stack of two LSTMs, from the lower h to the upper, plain, with the
upper one's input normalised, or within both; under dropout of h in W_h (m ∘ h), with one mask for
the sequence (variational) or one for each step; under zoneout, sampled. And ‖∂L/∂h_k‖ of a
batch-normalised network, by γ::

    H_t = tanh(γ N(H_{t-1} W_hᵀ) + γ_x N(X_t W_xᵀ) + b)     N normalises over the batch

with the statistics of the batch at each step: the whole batch is the carry of one cell, so that
paths from one example to another, through mean and variance, count. L = Σ u ∘ H_T, u random. In a
wide network with a large batch log ‖∂L/∂h_k‖ changes per step by (γ_x = γ or γ/10,
z ~ N(0, γ² + γ_x²))::

    log γ + ½ log E tanh'(z)² - ½ log E tanh(z)²

The claims, each with its rule: layer normalisation within the step and zoneout slow the decay, and
dropout per step speeds it up against variational dropout (the 95 % interval of the paired
difference is on that side); layer normalisation between layers does not change the decay (by more
than 10 %); and a smaller γ slows the decay (in order over the γ).

Source: Ba, Kiros, Hinton 2016, arXiv:1607.06450; Cooijmans et al. 2017, arXiv:1603.09025, Fig. 1
(a) and (b), on sequential MNIST; Gal & Ghahramani 2016, arXiv:1512.05287; Krueger et al. 2016,
arXiv:1606.01305.

    python experiments/normalisation.py
    python experiments/normalisation.py --hidden_size=128 --gammas=0.1,1,3 --num_seeds=5

Takes about a minute on two cores at the defaults.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from _kit import curves, decisions, fields, rates, runs

from gradflow import Cell, flow, statistics, study
from gradflow.cells import gru, gru_layer_norm, lstm, lstm_layer_norm, rnn
from gradflow.cells.layer_norm import normalise
from gradflow.cells.stack import stack
from gradflow.initializers.meanfield import gaussian_mean

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gradflow import Params

EPS = 1e-5
"""Keeps the statistics of a batch or a layer finite."""

INPUT_FACTORS = (1.0, 0.1)
"""γ_x as a multiple of γ."""

SAME = 0.1
"""The relative change of a decay up to which it counts as unchanged."""


@dataclass(frozen=True)
class Config(study.Config):
    """What is put into the networks, and their sizes."""

    dropout: tuple[float, ...] = study.field((0.0, 0.25, 0.5), help="Rates of dropout.")
    zoneout: tuple[float, ...] = study.field((0.0, 0.1, 0.3, 0.5), help="Rates of zoneout.")
    gammas: tuple[float, ...] = study.field(
        (0.1, 0.2, 0.4, 0.7, 1.0, 1.5), help="γ, in ascending order.", positive=True
    )
    batch_size: int = study.field(32, help="Sequences that are normalised together.", positive=True)
    hidden_size: int = fields.hidden_size(64)
    input_size: int = fields.input_size(16)
    num_steps: int = fields.num_steps(100)
    warm_up: int = study.field(50, help="Steps before those that are measured.", positive=True)


def normalised_input(cell: Cell) -> Cell:
    """Normalises the input of a cell over its entries."""

    def step(params: "Params", carry: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        return cell.step(params, carry, normalise(x, EPS))

    return cell._replace(step=step)


def dropped(cell: Cell) -> Cell:
    """Gives an LSTM dropout of h: parameters {"cell", "rate"}, input x and a number u per unit.

    W_h h becomes W_h (m ∘ h) with m = [u ≥ rate]/(1 - rate), as in
    `gradflow.cells.dropout.with_dropout`; the inputs decide which masks repeat.
    """

    def step(params: "Params", carry: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        x, u = jnp.split(x, [x.size - carry.h.size])
        kept = (u >= params["rate"]) / (1 - params["rate"])
        return cell.step(params["cell"], carry._replace(h=kept * carry.h), x)

    return cell._replace(step=step)


def zoned(cell: Cell) -> Cell:
    """Gives an LSTM zoneout: parameters {"cell", "rate"}, input x and numbers u for h and for c.

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
    """Makes the tanh network of a whole batch, normalised over it; γ and γ_x are parameters.

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
    """Computes the mean-field log growth per step of the gradient under batch normalisation."""
    std = math.hypot(gamma, gamma_x)
    square = gaussian_mean(lambda z: np.tanh(std * z) ** 2)
    slopes = gaussian_mean(lambda z: (1 - np.tanh(std * z) ** 2) ** 2)
    return math.log(gamma) + 0.5 * math.log(slopes / square)


def networks(config: Config) -> dict[str, Cell]:
    """The cells with and without layer normalisation, by name."""
    sizes = config.input_size, config.hidden_size
    above = config.hidden_size, config.hidden_size
    return {
        "lstm": lstm(*sizes),
        "lstm_layer_norm": lstm_layer_norm(*sizes),
        "gru": gru(*sizes),
        "gru_layer_norm": gru_layer_norm(*sizes),
        "stack": stack([lstm(*sizes), lstm(*above)]),
        "stack_between": stack([lstm(*sizes), normalised_input(lstm(*above))]),
        "stack_within": stack([lstm_layer_norm(*sizes), lstm_layer_norm(*above)]),
    }


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """Measures each network; dimensions net, or rate, or gamma, and run, lag."""
    import xarray

    for name in ("dropout", "zoneout"):
        if not all(0 <= rate < 1 for rate in getattr(config, name)):
            raise ValueError(
                f"Expected rates in [0, 1), got {name}={getattr(config, name)}. Change --{name}."
            )
    if list(config.gammas) != sorted(set(config.gammas)):
        raise ValueError(f"Expected gammas in ascending order, got {config.gammas}. Sort --gammas.")
    parts = [
        once(f"net={name}", partial(_measure_net, config, name, cell))
        for name, cell in study.progress(networks(config).items(), "networks")
    ]
    rest = {"dropout": _measure_dropout, "zoneout": _measure_zoneout, "batch": _measure_batch}
    more = [once(name, partial(measure, config)) for name, measure in rest.items()]
    joined = xarray.concat(parts, dim="net", join="exact")
    return xarray.merge([joined, *more], join="exact", compat="no_conflicts")


def _inputs(config: Config, channels: int | None = None, stream: int = 0) -> jax.Array:
    """The inputs of every run, with those of the warm-up."""
    num_steps = config.warm_up + config.num_steps
    return runs.inputs(config, num_steps=num_steps, input_size=channels, stream=stream)


def _warm(config: Config, cell: Cell, params: "Params", x: jax.Array) -> tuple[Any, jax.Array]:
    """The carry after the warm-up, and the inputs that are left."""

    def step(carry: Any, x: jax.Array) -> tuple[Any, None]:
        return cell.step(params, carry, x)[0], None

    carry, _ = jax.lax.scan(step, cell.initial_carry(), x[: config.warm_up])
    return carry, x[config.warm_up :]


def _log_norms(
    config: Config, cell: Cell, params: "Params", x: jax.Array, source: str = "h"
) -> jax.Array:
    carry, x = _warm(config, cell, params, x)
    return flow.log_norms(cell, params, x, source=source, carry=carry)


def _lag(config: Config) -> dict[str, Any]:
    return {"lag": curves.coordinates(config.num_steps)["lag"]}


def _measure_net(config: Config, name: str, cell: Cell) -> "xarray.Dataset":
    import xarray

    source = "0.h" if name.startswith("stack") else "h"

    def one(params: "Params", x: jax.Array) -> jax.Array:
        return _log_norms(config, cell, params, x, source)

    params = runs.initialise(cell, runs.keys(config))
    norms = runs.measure(one, params, _inputs(config))
    return xarray.Dataset(
        {"log_norm": (("net", "run", "lag"), norms[None], {"units": "nats"})},
        coords={"net": [name], **_lag(config)},
    )


def _by_rate(
    config: Config, cell: Cell, noise: Sequence[jax.Array], probabilities: tuple[float, ...]
) -> np.ndarray:
    """Log norms of a cell under each kind of noise, (kind, run, rate, lag), in one program."""

    def one(params: "Params", x: jax.Array) -> jax.Array:
        def at(rate: jax.Array) -> jax.Array:
            return _log_norms(config, cell, {"cell": params, "rate": rate}, x)

        return jax.lax.map(at, jnp.asarray(probabilities))

    x, params = _inputs(config), runs.initialise(cell, runs.keys(config))
    inputs = jnp.concatenate([jnp.concatenate([x, u], axis=-1) for u in noise])
    params = jax.tree.map(lambda leaf: jnp.concatenate([leaf] * len(noise)), params)
    found = runs.measure(one, params, inputs)
    return found.reshape(len(noise), config.num_seeds, *found.shape[1:])


def _noise(config: Config, channels: int) -> jax.Array:
    """Uniform numbers of every run, (runs, T, channels)."""
    shape = config.warm_up + config.num_steps, channels
    return jax.vmap(lambda key: jax.random.uniform(runs.stream(key, 0), shape))(runs.keys(config))


def _measure_dropout(config: Config) -> "xarray.Dataset":
    import xarray

    cell, u = (
        dropped(lstm(config.input_size, config.hidden_size)),
        _noise(config, config.hidden_size),
    )
    kinds = {"variational": jnp.broadcast_to(u[:, :1], u.shape), "per step": u}
    norms = _by_rate(config, cell, list(kinds.values()), config.dropout)
    return xarray.Dataset(
        {"log_norm_dropout": (("kind", "run", "dropout", "lag"), norms, {"units": "nats"})},
        coords={"kind": list(kinds), "dropout": list(config.dropout), **_lag(config)},
    )


def _measure_zoneout(config: Config) -> "xarray.Dataset":
    import xarray

    cell = zoned(lstm(config.input_size, config.hidden_size))
    (norms,) = _by_rate(config, cell, [_noise(config, 2 * config.hidden_size)], config.zoneout)
    return xarray.Dataset(
        {"log_norm_zoneout": (("run", "zoneout", "lag"), norms, {"units": "nats"})},
        coords={"zoneout": list(config.zoneout), **_lag(config)},
    )


def _measure_batch(config: Config) -> "xarray.Dataset":
    """log ‖∂L/∂h_k‖ of the batch-normalised network at each lag, for every γ and γ_x."""
    import xarray

    cell = batch_normalised(config.input_size, config.hidden_size, config.batch_size)
    pairs = [(gamma, factor * gamma) for factor in INPUT_FACTORS for gamma in config.gammas]
    size, keys = config.batch_size * config.hidden_size, runs.keys(config)

    def one(params: "Params", u: jax.Array, x: jax.Array) -> jax.Array:
        def at(pair: jax.Array) -> jax.Array:
            of_pair = params | {"gamma": pair[0], "gamma_x": pair[1]}
            carry, rest = _warm(config, cell, of_pair, x)
            return flow.log_adjoint_norms(lambda h: h[-1] @ u, cell, of_pair, rest, carry=carry)

        return jax.lax.map(at, jnp.asarray(pairs))[:, ::-1]

    u = jax.vmap(lambda key: jax.random.normal(runs.stream(key, 1), (size,)))(keys)
    x = _inputs(config, config.batch_size * config.input_size, stream=1)
    norms = runs.measure(one, runs.initialise(cell, keys), u, x)
    shape = len(INPUT_FACTORS), len(config.gammas)
    theory = np.reshape([batch_theory(*pair) for pair in pairs], shape)
    return xarray.Dataset(
        {
            "log_adjoint": (
                ("run", "input_factor", "gamma", "lag"),
                norms.reshape(config.num_seeds, *shape, -1),
                {"units": "nats"},
            ),
            "theory": (("input_factor", "gamma"), theory, {"units": "nats per step"}),
        },
        coords={
            "input_factor": list(INPUT_FACTORS),
            "gamma": list(config.gammas),
            **_lag(config),
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
    within.set(title="Layer norm within the step", ylabel=curves.NORM)
    stacks = {"stack": "none", "stack_between": "between layers", "stack_within": "within steps"}
    _draw_nets(between, dataset, stacks)
    between.set(title="Two LSTMs, lower h to upper")
    _draw_dropout(dropout, dataset)
    zoned = dataset.log_norm_zoneout
    _draw_shades(zoneout, dataset.lag, [zoned.sel(zoneout=r) for r in dataset.zoneout.values])
    zoneout.set(title="LSTM under zoneout", ylabel=curves.NORM)
    zoneout.legend(zoneout.lines, [f"{r:g}" for r in dataset.zoneout.values], title="rate")
    norms = dataset.log_adjoint.sel(input_factor=1)
    _draw_shades(batch, dataset.lag, [norms.sel(gamma=g) for g in dataset.gamma.values])
    batch.set(
        title=r"Batch norm, $\gamma_x = \gamma$", ylabel=r"$\log_{10}\,\|\partial L/\partial h_k\|$"
    )
    gammas = [f"{gamma:g}" for gamma in dataset.gamma.values]
    batch.legend(batch.lines, gammas, title=r"$\gamma$", ncols=2, fontsize=7, handlelength=1.5)
    _draw_slopes(slopes, dataset)
    for ax in (within, between, dropout, zoneout, batch):
        curves.lag_axis(ax, dataset)
    return fig


def _draw_nets(ax: "Axes", dataset: "xarray.Dataset", labels: dict[str, str]) -> None:
    for index, (net, label) in enumerate(labels.items()):
        look = study.figure.cell_style(net, index) | {"label": label}
        curves.draw_norms(ax, dataset.lag, dataset.log_norm.sel(net=net), **look)
    ax.legend(loc="lower left", fontsize=7, handlelength=2.2)


def _draw_shades(ax: "Axes", lag: "xarray.DataArray", norms: list["xarray.DataArray"]) -> None:
    """Curves from dark to light, in the order given."""
    for curve, color in zip(norms, curves.shades(len(norms)), strict=True):
        curves.draw_norms(ax, lag, curve, color=color)


def _draw_dropout(ax: "Axes", dataset: "xarray.Dataset") -> None:
    looks = {"variational": ("#0072B2", "-"), "per step": ("#D55E00", "--")}
    for kind, (color, linestyle) in looks.items():
        for index, rate in enumerate(dataset.dropout.values):
            norms = dataset.log_norm_dropout.sel(kind=kind, dropout=rate)
            look = {"color": color, "linestyle": linestyle, "lw": 0.7 + 0.6 * index}
            if rate == 0:  # both kinds are then the LSTM itself
                look |= {"color": "#000000", "linestyle": ":", "lw": 1.4}
            label = f"{kind}, {rate:g}" if rate else "none" if kind == "variational" else None
            curves.draw_norms(ax, dataset.lag, norms, label=label, **look)
    ax.set_title("LSTM under dropout of h")
    ax.legend(loc="lower left", fontsize=7, handlelength=1.8, labelspacing=0.3)


def _draw_slopes(ax: "Axes", dataset: "xarray.Dataset") -> None:
    found = rates.slopes(dataset.log_adjoint)
    looks = zip(INPUT_FACTORS, ("#0072B2", "#D55E00"), "so", strict=True)
    for at, (factor, color, marker) in enumerate(looks):
        label = r"$\gamma_x = \gamma$" if factor == 1 else rf"$\gamma_x = {factor:g}\,\gamma$"
        look: Any = {"color": color, "marker": marker, "ls": "none", "markevery": 1}
        study.figure.band(ax, dataset.gamma, found[:, at], 0, label=label, **look)
        ax.plot(dataset.gamma, dataset.theory[at], color=color, lw=1, ls="--")
    ax.set(
        xlabel=r"$\gamma$ (dimensionless)",
        ylabel="growth (nats per step)",
        title="Batch norm (lines: theory)",
    )
    ax.legend()


class Change(NamedTuple):
    """A change to a network, with the slope of each run before and after it.

    Attributes:
      id: That of the claim.
      statement: What the change is claimed to do.
      expected: The change of the decay: slower, faster or the same.
      before: Nats per step, by run.
      after: The same with the change, from the same seeds.
    """

    id: str
    statement: str
    expected: str
    before: np.ndarray
    after: np.ndarray

    @property
    def difference(self) -> statistics.Estimate:
        """The paired difference of the slopes."""
        return statistics.estimate(self.after - self.before)

    @property
    def holds(self) -> bool | None:
        """Whether the change is the expected one, by the interval of the difference."""
        if self.expected == "the same":
            bound = SAME * abs(self.before.mean())
            return decisions.within(self.difference, -bound, bound)
        decide = decisions.above if self.expected == "slower" else decisions.below
        return decide(self.difference)


def changes(dataset: "xarray.Dataset") -> list[Change]:
    """All changes that are claimed to do something, with their slopes."""
    net = {str(name): rates.slopes(dataset.log_norm.sel(net=name)) for name in dataset.net.values}
    variational, per_step = rates.slopes(dataset.log_norm_dropout)[..., -1]
    zoned = rates.slopes(dataset.log_norm_zoneout)
    within = "Layer normalisation within the step slows the decay of the gradient in {}."
    dropout, zoneout = (float(dataset[name][-1]) for name in ("dropout", "zoneout"))
    return [
        Change("layer-norm-lstm", within.format("an LSTM"), "slower",
               net["lstm"], net["lstm_layer_norm"]),
        Change("layer-norm-gru", within.format("a GRU"), "slower",
               net["gru"], net["gru_layer_norm"]),
        Change("layer-norm-stack", within.format("a stack"), "slower",
               net["stack"], net["stack_within"]),
        Change("layer-norm-between", "Layer normalisation between layers does not change the decay "
               "of the gradient.", "the same", net["stack"], net["stack_between"]),
        Change("dropout-per-step", f"At a rate of {dropout:g}, dropout per step makes the gradient "
               "decay faster than variational dropout.", "faster", variational, per_step),
        Change("zoneout", f"Zoneout at a rate of {zoneout:g} slows the decay of the gradient.",
               "slower", zoned[:, 0], zoned[:, -1]),
    ]  # fmt: skip


def summary(dataset: "xarray.Dataset") -> str:
    """What each change does to the log factor per step, paired by run, and the growth by γ."""
    rows = [
        {
            "change": change.id,
            "nats per step": f"{change.before.mean():+.4f}",
            "with it": f"{change.after.mean():+.4f}",
            "difference": f"{change.difference:+.4f}",
        }
        for change in changes(dataset)
    ]
    by_gamma = [_gamma_row(dataset, at) for at in range(dataset.sizes["input_factor"])]
    return f"{study.table(rows)}\n\n{study.table(by_gamma)}"


def _gamma_row(dataset: "xarray.Dataset", at: int) -> dict[str, str]:
    found, theory = rates.slopes(dataset.log_adjoint[:, at]), dataset.theory.values[at]
    return {
        "batch norm": f"gamma_x = {float(dataset.input_factor[at]):g} gamma",
        **{
            f"nats per step at gamma {float(dataset.gamma[end]):g}": (
                f"{statistics.estimate(found[:, end]):+.4f}"
            )
            for end in (0, -1)
        },
        "off theory by up to": f"{np.abs(found.mean(axis=0) - theory).max():.3f}",
    }


def claims(dataset: "xarray.Dataset") -> list[study.Claim]:
    """What each change does to the decay of the gradient."""
    factors = dataset.input_factor.values
    return [*map(_claim, changes(dataset)), *(_gamma_claim(dataset, float(f)) for f in factors)]


def _claim(change: Change) -> study.Claim:
    same = f"the 95 % interval of the paired difference lies within {SAME:.0%} of the decay"
    side = "above" if change.expected == "slower" else "below"
    return study.claim(
        change.id,
        change.statement,
        change.holds,
        measured=study.Measured.of("difference", change.difference, "nats per step"),
        criterion=same
        if change.expected == "the same"
        else f"the 95 % interval of the paired difference in nats per step lies {side} 0",
    )


def _gamma_claim(dataset: "xarray.Dataset", factor: float) -> study.Claim:
    means = rates.slopes(dataset.log_adjoint.sel(input_factor=factor)).mean(axis=0)
    return study.claim(
        f"small-gamma-input-{factor:g}".replace(".", "-"),
        f"With γ_x = {factor:g} γ, a smaller γ of batch normalisation slows the decay.",
        bool((np.diff(means) < 0).all()),
        measured=[
            study.Measured(f"γ = {gamma:g}", float(mean), unit="nats per step")
            for gamma, mean in zip(dataset.gamma.values, means, strict=True)
        ],
        criterion="the mean growth per step falls from each γ to the next",
    )


EXPERIMENT = study.Experiment(
    name="normalisation",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    claims=claims,
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
