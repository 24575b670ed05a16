"""How the gradient flows through the layers of a stack, and through both directions of time.

For a stack of L layers the norm of ∂h^l_T/∂h^m_k, from layer m at step k to layer l at step T, for
all pairs of layers and all lags T - k: without a skip connection, with the residual one, and with
the input given to every layer. No layer depends on one above it, so that the lowest layers of a
stack are a stack of their own: one of 8 shows those of 1 to 8. (The whole carry of step k but h^m_k
is held fixed; so at lag 0 all but the diagonal is exactly zero.) Beside it the norm of ∂y_t/∂x_k
for y_t = [h→_t; h←_t], the outputs of a network that reads forwards and one that reads backwards.
The claims: the gradient from the lowest layer falls exponentially with the number of layers above
it, and a residual connection past the layers undoes that. They are tested at lag 1, where one path
leads straight up, and at the best lag for each layer, where all paths count.

Source: Pascanu, Gulcehre, Cho, Bengio 2014, arXiv:1312.6026 (depth); Wu et al. 2016,
arXiv:1609.08144 (residual stacks); Schuster & Paliwal 1997, doi:10.1109/78.650093 (both
directions).

    python experiments/depth.py
    python experiments/depth.py --cell=gru --num_layers=4 --lags=1,5,20

Takes about half a minute on two cores at the defaults.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from _kit import cells, curves, decisions, fields, runs

from gradflow import Carry, Cell, Params, statistics, study, unroll
from gradflow.cells.stack import stack
from gradflow.flow.trace import trace_of
from gradflow.numerics.scaling import Scaled, log_scaled
from gradflow.study.figure import Axes, Figure, SubFigure

SKIPS = {"none": "no skip", "residual": "residual", "input": "input to all layers"}
"""The kinds of skip connection of `stack`, and how figures and tables call them."""

LOOKS = {
    "none": {"color": "#D55E00", "linestyle": "--", "marker": "o"},
    "residual": {"color": "#0072B2", "linestyle": "-", "marker": "s"},
    "input": {"color": "#009E73", "linestyle": "-.", "marker": "^"},
}

PLACES: dict[str, int | None] = {"lag 1": 1, "the best lag": None}
"""Where the claims are tested, each with the longest lag that counts."""


@dataclass(frozen=True)
class Config(study.Config):
    """Which layers, and on what."""

    num_seeds: int = fields.num_seeds(5)
    cell: str = fields.cell("lstm")
    num_layers: int = fields.positive(8, help="Layers L of the stack.")
    hidden_size: int = fields.hidden_size(16)
    input_size: int = fields.input_size(16)
    num_steps: int = fields.num_steps(60)
    lags: tuple[int, ...] = fields.lags((10,))


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Measures all; dimensions skip, run (a seed), lag, target and source layer."""
    if max(config.lags) > config.num_steps:
        raise ValueError(
            f"Expected lags up to num_steps={config.num_steps}, got lags={config.lags}. "
            "Remove the longer ones or raise --num_steps."
        )
    if config.num_layers < 3:
        raise ValueError(
            f"Expected at least 3 layers, which a rate per layer needs, got {config.num_layers}. "
            "Raise --num_layers."
        )
    factory, inputs = cells.factory(config.cell), runs.inputs(config)
    parts = [
        once(f"skip={skip}", partial(_measure_stack, config, factory, skip, inputs))
        for skip in study.progress(list(SKIPS), "kinds of skip")
    ]
    both = once("directions", partial(_measure_directions, config, factory, inputs))
    return xarray.merge([xarray.concat(parts, dim="skip"), both]).assign_attrs(
        cell=config.cell, lags=sorted(set(config.lags))
    )


def _make(config: Config, factory: cells.Factory, skip: str) -> tuple[list[Cell], Cell]:
    """The layers, and the stack of them."""
    above = config.hidden_size + (config.input_size if skip == "input" else 0)
    sizes = [config.input_size, *(above for _ in range(config.num_layers - 1))]
    layers = [factory(size, config.hidden_size) for size in sizes]
    return layers, stack(layers, skip=None if skip == "none" else skip)


def _measure_stack(
    config: Config, factory: cells.Factory, skip: str, inputs: jax.Array
) -> xarray.Dataset:
    layers, cell = _make(config, factory, skip)
    params = runs.initialise(cell, runs.keys(config))
    norms = runs.measure(partial(layer_norms, layers, cell), params, inputs)
    layer = np.arange(1, config.num_layers + 1)
    dims = ("skip", "run", "lag", "target", "source")
    return xarray.Dataset(
        {"log_norm": (dims, norms[None], {"units": "nats", "norm": "frobenius"})},
        coords={
            "skip": [skip],
            "lag": curves.coordinates(config.num_steps)["lag"],
            "target": ("target", layer, {"meaning": "the later, higher layer l; 1 is the lowest"}),
            "source": ("source", layer, {"meaning": "the earlier, lower layer m"}),
        },
    )


def layer_norms(layers: list[Cell], cell: Cell, params: Params, inputs: jax.Array) -> jax.Array:
    """Computes log ‖∂h^l_T/∂h^m_k‖, Frobenius, of shape (lag, l, m), from one backward pass.

    Each layer's rows have a scale of their own: beside a larger one they would underflow.
    """
    trace = trace_of(cell, params, inputs)

    def hidden(carry: Carry) -> jax.Array:
        return jnp.stack([layer.hidden(s) for layer, s in zip(layers, carry, strict=True)])

    def norms(rows: Carry, exponent: jax.Array) -> jax.Array:
        blocks = jax.vmap(hidden)(rows)  # row, source, unit
        return log_scaled(jnp.sqrt(jnp.sum(blocks**2, axis=(0, 2))), exponent)

    def back(rows: Scaled, index: jax.Array) -> tuple[Scaled, jax.Array]:
        rows = jax.vmap(partial(trace.pull, index))(rows)
        return rows, jax.vmap(norms)(*rows)

    last, vjp = jax.vjp(hidden, trace.last)
    units = jnp.eye(last.size, dtype=last.dtype).reshape(*last.shape, *last.shape)
    rows = jax.vmap(jax.vmap(lambda row: vjp(row)[0]))(units)
    first = Scaled(rows, jnp.zeros(len(layers), jnp.int32))
    _, rest = jax.lax.scan(back, first, jnp.arange(trace.num_steps)[::-1])
    return jnp.concatenate([jax.vmap(norms)(*first)[None], rest])


def _measure_directions(
    config: Config, factory: cells.Factory, inputs: jax.Array
) -> xarray.Dataset:
    cell = factory(config.input_size, config.hidden_size)

    def one_run(forwards: Params, backwards: Params, x: jax.Array) -> jax.Array:
        late = len(x) // 2  # the output in the middle has a past and a future of one length
        outputs = (
            lambda x: unroll(cell, forwards, x).outputs[late],
            lambda x: unroll(cell, backwards, x[::-1]).outputs[::-1][late],
        )
        jacobians = [jax.jacrev(output)(x) for output in outputs]
        return jnp.stack([jnp.log(jnp.linalg.norm(J, axis=(0, 2))) for J in jacobians])

    keys = runs.keys(config)
    both = [keys, jax.vmap(partial(runs.stream, number=0))(keys)]
    norms = runs.measure(one_run, *(runs.initialise(cell, k) for k in both), inputs)
    offsets = np.arange(config.num_steps) - config.num_steps // 2
    return xarray.Dataset(
        {
            "log_norm_of_input": (
                ("run", "direction", "offset"),
                norms,
                {"units": "nats", "norm": "frobenius", "of": "dy_t/dx_k with t in the middle"},
            )
        },
        coords={
            "direction": ["forwards", "backwards"],
            "offset": ("offset", offsets, {"units": "steps", "meaning": "k - t"}),
        },
    )


def climbing(dataset: xarray.Dataset, *, last: int | None = None) -> xarray.DataArray:
    """Computes the log of the largest ‖∂h^l_T/∂h^1_k‖ over the lags for every layer l above 1."""
    from_lowest = dataset.log_norm.sel(source=1, lag=slice(1, last))
    return from_lowest.max("lag").isel(target=slice(1, None))


def figure(dataset: xarray.Dataset) -> Figure:
    """A row of maps for each lag, a column for each kind of skip; below, depth and directions."""
    rows = len(np.atleast_1d(dataset.attrs["lags"]))
    fig = study.figure.empty(7.0, 2.5 + 2.2 * rows)
    top, bottom = fig.subfigures(2, 1, height_ratios=(2.2 * rows, 2.5), squeeze=False)[:, 0]
    _draw_maps(top, dataset)
    left, right = bottom.subplots(1, 2)
    _draw_climbing(left, dataset)
    _draw_directions(right, dataset)
    return fig


def _draw_maps(part: SubFigure, dataset: xarray.Dataset) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    lags = np.atleast_1d(dataset.attrs["lags"])
    panels = part.subplots(len(lags), len(SKIPS), sharex=True, sharey=True, squeeze=False)
    log10 = dataset.log_norm.sel(lag=lags).median("run") / curves.NATS
    shown = log10.where(np.isfinite(log10))
    norm = Normalize(float(shown.min()), float(shown.max()))
    layers = dataset.sizes["target"]
    look: Any = {"origin": "lower", "extent": (0.5, layers + 0.5) * 2}
    for row, lag in zip(panels, lags, strict=True):
        for ax, skip in zip(row, dataset.skip.values, strict=True):
            ax.set_facecolor(curves.CUT)
            ax.imshow(shown.sel(skip=skip, lag=lag), norm=norm, **look)
            ax.set_title(f"{SKIPS[str(skip)].capitalize()}, lag {lag}")
            ax.grid(False)
        row[0].set_ylabel("target layer l")
    for ax in panels[-1]:
        ax.set_xlabel("source layer m")
    label = "$\\log_{10}\\,\\|\\partial h^l_T/\\partial h^m_k\\|$\ngrey: exactly 0"
    part.colorbar(ScalarMappable(norm), ax=panels, label=label)


def _draw_climbing(ax: Axes, dataset: xarray.Dataset) -> None:
    best, first = (climbing(dataset, last=last) / curves.NATS for last in (None, 1))
    for skip in dataset.skip.values:
        look = {"label": SKIPS[str(skip)], **LOOKS[str(skip)], "markevery": 1}
        study.figure.band(ax, best.target, best.sel(skip=skip), "run", **look)
        thin: Any = {"color": look["color"], "linestyle": look["linestyle"], "linewidth": 0.8}
        ax.plot(first.target, first.sel(skip=skip).median("run"), **thin)
    ax.set(
        xlabel="target layer l",
        ylabel=r"$\log_{10}\,\|\partial h^l_T/\partial h^1_k\|$",
        title="From layer 1: best lag; thin, lag 1",
    )
    ax.legend()


def _draw_directions(ax: Axes, dataset: xarray.Dataset) -> None:
    log10 = dataset.log_norm_of_input / curves.NATS
    for direction, color, linestyle in (
        ("forwards", "#000000", "-"),
        ("backwards", "#CC79A7", "--"),
    ):
        values = log10.sel(direction=direction)
        look = {"color": color, "linestyle": linestyle, "label": direction}
        study.figure.band(ax, log10.offset, values, "run", **look)
    ax.set(
        xlabel="k − t (steps), past and future",
        ylabel=r"$\log_{10}\,\|\partial y_t/\partial x_k\|$",
        title="Both directions, one layer",
    )
    ax.legend(loc="lower center")


def rates_by_layer(dataset: xarray.Dataset, *, last: int | None = None) -> xarray.DataArray:
    """Fits the slope of `climbing`, lags 1 to last, in nats per layer, by skip and run."""
    values = climbing(dataset, last=last)
    return values.polyfit("target", 1).polyfit_coefficients.sel(degree=1, drop=True)


def summary(dataset: xarray.Dataset) -> str:
    """The factor per layer with its interval, and what the output in the middle depends on."""
    by_place = {place: rates_by_layer(dataset, last=last) for place, last in PLACES.items()}
    rows = []
    for skip in dataset.skip.values:
        found = {p: statistics.estimate(r.sel(skip=skip).values) for p, r in by_place.items()}
        factors = {f"factor per layer at {p}": f"{one.map(np.exp):.3f}" for p, one in found.items()}
        rows.append({"skip": SKIPS[str(skip)], **factors})
    return f"{study.table(rows)}\n{_directions(dataset)}"


def _directions(dataset: xarray.Dataset) -> str:
    """The norm of the output in the middle by the first and by the last input."""
    middle = (dataset.log_norm_of_input / curves.NATS).median("run")
    ends = middle.isel(offset=[0, -1])
    parts = []
    for direction in dataset.direction.values:
        past, future = (
            "0" if np.isneginf(v) else f"10^{v:.1f}" for v in ends.sel(direction=direction).values
        )
        parts.append(f"{direction}, {past} by the first input and {future} by the last")
    return f"Norm of the derivative of the output at t = T/2: {'; '.join(parts)}."


def claims(dataset: xarray.Dataset) -> list[study.Claim]:
    """Whether the gradient falls with depth, and whether a residual connection undoes that."""
    return [
        make(place, rates_by_layer(dataset, last=last))
        for place, last in PLACES.items()
        for make in (_falls, _undone)
    ]


def _falls(place: str, slopes: xarray.DataArray) -> study.Claim:
    rate = statistics.estimate(slopes.sel(skip="none").values)
    return study.claim(
        f"falls-at-{place.replace(' ', '-')}",
        f"Without a skip connection the gradient falls by a constant factor per layer, at {place}.",
        decisions.below(rate),
        measured={"factor per layer": rate.map(np.exp)},
        criterion="the 95 % interval of the rate per layer lies below 0",
    )


def _undone(place: str, slopes: xarray.DataArray) -> study.Claim:
    none, residual = (slopes.sel(skip=skip).values for skip in ("none", "residual"))
    rate = statistics.estimate(residual)
    # A wide interval that reaches 0 is no evidence by itself, so the same seeds must also gain.
    gain = statistics.estimate(residual - none)
    reaches_zero = None if np.isnan(rate.high) else rate.high >= 0
    return study.claim(
        f"residual-at-{place.replace(' ', '-')}",
        f"A residual connection undoes the fall of the gradient with depth, at {place}.",
        decisions.every([decisions.above(gain), reaches_zero]),
        measured={
            "factor per layer": rate.map(np.exp),
            "over that without a skip": gain.map(np.exp),
        },
        criterion="the 95 % interval of the rate per layer reaches 0, and that of the paired gain "
        "over no skip lies above 0",
    )


EXPERIMENT = study.Experiment(
    name="depth",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    claims=claims,
    section="flow",
    order=10,
    gallery={"depth": study.Picture()},
    quick={"num_layers": 3, "hidden_size": 6, "num_steps": 12, "num_seeds": 3, "lags": (1, 4, 12)},
    doc=__doc__,
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
