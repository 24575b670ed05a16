"""How the gradient flows through the layers of a stack, and through both directions of time.

For a stack of L layers the norm of ∂h^l_T/∂h^m_k, from layer m at step k to layer l at step T, for
all pairs of layers and all lags T - k: without a skip, with the residual one, and with the input
given to every layer. No layer hears from one above it, so that the lowest layers of a stack are a
stack of their own: one of 8 shows those of 1 to 8. (The whole carry of step k but h^m_k is held
fixed; so at lag 0 all but the diagonal is exactly zero.) Beside it the norm of ∂y_t/∂x_k for
y_t = [h→_t; h←_t], the outputs of a net that reads forwards and of one that reads backwards. The
claim: the flow from the lowest layer falls exponentially with the layers that it has to climb, as
it does with the lag; a residual connection past the layers undoes that. It is tested at lag 1,
where one path leads straight up, and at whichever lag is the best, where all paths count.

Source: Pascanu, Gulcehre, Cho, Bengio 2014, arXiv:1312.6026 (depth); Wu et al. 2016,
arXiv:1609.08144 (residual stacks); Schuster & Paliwal 1997, doi:10.1109/78.650093 (both
directions).

    python experiments/depth.py
    python experiments/depth.py --cell=gru --num_layers=4 --lags=1,5,20

Takes about half a minute on two cores at the defaults.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from gradflow import statistics, study, unroll
from gradflow.cells import resolve
from gradflow.cells.stack import stack
from gradflow.devices import map_runs
from gradflow.flow.steps import log_scaled, pull_rows, rescale, trajectory
from gradflow.structure import check_structure
from gradflow.tasks.inputs import make_inputs

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    from gradflow import Carry, Cell, Params

SKIPS = {"none": "no skip", "residual": "residual", "input": "input to all layers"}
"""How a layer's input gets upwards: the kinds of `stack`, and how they are called."""

LOOKS = {
    "none": {"color": "#D55E00", "linestyle": "--", "marker": "o"},
    "residual": {"color": "#0072B2", "linestyle": "-", "marker": "s"},
    "input": {"color": "#009E73", "linestyle": "-.", "marker": "^"},
}

CUT = "#b0b0b0"
"""The colour of an exact zero: a grey, which the colour map does not have."""


@dataclass(frozen=True)
class Config(study.Config):
    """Which layers, and on what."""

    num_seeds: int = study.field(5, help="Nets, and input sequences.", positive=True)
    cell: str = study.field("lstm", help="The cell of every layer, with options or without.")
    num_layers: int = study.field(8, help="Layers L of the stack.", positive=True)
    hidden_size: int = study.field(16, help="Hidden units of a layer.", positive=True)
    input_size: int = study.field(16, help="Channels of gaussian inputs.", positive=True)
    num_steps: int = study.field(60, help="Steps T, and so the longest lag.", positive=True)
    lags: tuple[int, ...] = study.field((1, 10, 50), help="Lags that are drawn.", positive=True)


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """Measures all; dimensions skip, run (a seed), lag, target and source layer."""
    import xarray

    if max(config.lags) > config.num_steps:
        raise ValueError(
            f"lags up to num_steps={config.num_steps} are expected, got lags={config.lags}; "
            "leave the longer ones out"
        )
    if config.num_layers < 3:
        raise ValueError(
            f"num_layers of at least 3, for a rate per layer, is expected, got {config.num_layers}"
        )
    check_structure(resolve(config.cell))
    inputs = make_inputs(
        "gaussian",
        jax.random.fold_in(jax.random.key(config.seed), 1),
        num_sequences=config.num_seeds,
        num_steps=config.num_steps,
        input_size=config.input_size,
    )
    parts = [
        once(f"skip={skip}", partial(_measure_stack, config, skip, inputs))
        for skip in study.progress(list(SKIPS), "kinds of skip")
    ]
    both = once("directions", partial(_measure_directions, config, inputs))
    return xarray.merge([xarray.concat(parts, dim="skip"), both]).assign_attrs(
        cell=config.cell, lags=sorted(set(config.lags))
    )


def _make(config: Config, skip: str) -> tuple[list["Cell"], "Cell"]:
    """The layers, and the stack of them."""
    factory = resolve(config.cell)
    above = config.hidden_size + (config.input_size if skip == "input" else 0)
    sizes = [config.input_size, *(above for _ in range(config.num_layers - 1))]
    layers = [factory(size, config.hidden_size) for size in sizes]
    return layers, stack(layers, skip=None if skip == "none" else skip)


def _keys(config: Config) -> jax.Array:
    return jax.random.split(jax.random.fold_in(jax.random.key(config.seed), 0), config.num_seeds)


def _measure_stack(config: Config, skip: str, inputs: jax.Array) -> "xarray.Dataset":
    import xarray

    layers, cell = _make(config, skip)
    measure = map_runs(lambda key, x: layer_norms(layers, cell, cell.init(key), x))
    norms = jax.jit(measure)(_keys(config), inputs)
    layer = np.arange(1, config.num_layers + 1)
    dims = ("skip", "run", "lag", "target", "source")
    return xarray.Dataset(
        {"log_norm": (dims, np.asarray(norms)[None], {"units": "nats", "norm": "frobenius"})},
        coords={
            "skip": [skip],
            "lag": ("lag", np.arange(config.num_steps + 1), {"units": "steps"}),
            "target": ("target", layer, {"meaning": "the later, higher layer l; 1 is the lowest"}),
            "source": ("source", layer, {"meaning": "the earlier, lower layer m"}),
        },
    )


def layer_norms(
    layers: list["Cell"], cell: "Cell", params: "Params", inputs: jax.Array
) -> jax.Array:
    """log ‖∂h^l_T/∂h^m_k‖, Frobenius, of shape (lag, l, m): the rows of all l, pulled back at once.

    Each layer's rows have a scale of their own, so that none is lost beside a larger one.
    """
    steps = trajectory(cell, params, inputs)

    def hidden(carry: "Carry") -> jax.Array:
        return jnp.stack([layer.hidden(s) for layer, s in zip(layers, carry, strict=True)])

    def norms(rows: "Carry", exponent: jax.Array) -> jax.Array:
        blocks = jax.vmap(hidden)(rows)  # row, source, unit
        return log_scaled(jnp.sqrt(jnp.sum(blocks**2, axis=(0, 2))), exponent)

    def back(state: tuple, index: jax.Array) -> tuple:
        rows, exponents = state
        pulled = jax.vmap(lambda one: pull_rows(steps, index, one))(rows)
        rows, exponents = jax.vmap(rescale)(pulled, exponents)
        return (rows, exponents), jax.vmap(norms)(rows, exponents)

    last, vjp = jax.vjp(hidden, steps.last)
    units = jnp.eye(last.size, dtype=last.dtype).reshape(*last.shape, *last.shape)
    first = (jax.vmap(jax.vmap(lambda row: vjp(row)[0]))(units), jnp.zeros(len(layers), jnp.int32))
    _, rest = jax.lax.scan(back, first, jnp.arange(steps.num_steps)[::-1])
    return jnp.concatenate([jax.vmap(norms)(*first)[None], rest])


def _measure_directions(config: Config, inputs: jax.Array) -> "xarray.Dataset":
    import xarray

    cell = resolve(config.cell)(config.input_size, config.hidden_size)

    def one_run(key: jax.Array, x: jax.Array) -> jax.Array:
        forwards, backwards = (cell.init(k) for k in jax.random.split(key))
        late = len(x) // 2  # the output in the middle has a past and a future of one length
        return jnp.stack(
            [
                jnp.log(jnp.linalg.norm(jax.jacrev(output)(x), axis=(0, 2)))
                for output in (
                    lambda x: unroll(cell, forwards, x).outputs[late],
                    lambda x: unroll(cell, backwards, x[::-1]).outputs[::-1][late],
                )
            ]
        )

    norms = jax.jit(map_runs(one_run))(_keys(config), inputs)
    offsets = np.arange(config.num_steps) - config.num_steps // 2
    return xarray.Dataset(
        {
            "log_norm_of_input": (
                ("run", "direction", "offset"),
                np.asarray(norms),
                {"units": "nats", "norm": "frobenius", "of": "dy_t/dx_k with t in the middle"},
            )
        },
        coords={
            "direction": ["forwards", "backwards"],
            "offset": ("offset", offsets, {"units": "steps", "meaning": "k - t"}),
        },
    )


def climbing(dataset: "xarray.Dataset", *, last: int | None = None) -> "xarray.DataArray":
    """The log of the largest ‖∂h^l_T/∂h^1_k‖ over the lags, for every layer l above 1."""
    from_lowest = dataset.log_norm.sel(source=1, lag=slice(1, last))
    return from_lowest.max("lag").isel(target=slice(1, None))


def figure(dataset: "xarray.Dataset") -> "Figure":
    """A row of maps for each kind of skip, a column for each lag; below, depth and directions."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(7.0, 8.6))
    top, bottom = fig.subfigures(2, 1, height_ratios=(6.2, 2.4), squeeze=False)[:, 0]
    _draw_maps(top, dataset)
    left, right = bottom.subplots(1, 2)
    _draw_climbing(left, dataset)
    _draw_directions(right, dataset)
    return fig


def _draw_maps(part: "SubFigure", dataset: "xarray.Dataset") -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    lags = np.atleast_1d(dataset.attrs["lags"])
    panels = part.subplots(len(SKIPS), len(lags), sharex=True, sharey=True, squeeze=False)
    decades = dataset.log_norm.sel(lag=lags).median("run") / np.log(10)
    shown = decades.where(np.isfinite(decades))
    norm = Normalize(float(shown.min()), float(shown.max()))
    layers = dataset.sizes["target"]
    look: Any = {"origin": "lower", "extent": (0.5, layers + 0.5) * 2}
    for row, skip in zip(panels, dataset.skip.values, strict=True):
        for ax, lag in zip(row, lags, strict=True):
            values = shown.sel(skip=skip, lag=lag)
            ax.imshow(np.ones((1, 1)), cmap=ListedColormap([CUT]), **look)
            ax.imshow(values, norm=norm, **look)
            ax.set_title(f"{SKIPS[str(skip)]}, lag {lag}", fontsize=8)
            ax.grid(False)
    label = r"$\log_{10}\,\|\partial h^l_T/\partial h^m_k\|$, median; grey: exactly 0"
    part.colorbar(ScalarMappable(norm), ax=panels, label=label, shrink=0.7)
    part.supxlabel("source layer m", fontsize=9)
    part.supylabel("target layer l", fontsize=9)


def _draw_climbing(ax: "Axes", dataset: "xarray.Dataset") -> None:
    best, first = (climbing(dataset, last=last) / np.log(10) for last in (None, 1))
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


def _draw_directions(ax: "Axes", dataset: "xarray.Dataset") -> None:
    decades = dataset.log_norm_of_input / np.log(10)
    for direction, color, linestyle in (
        ("forwards", "#000000", "-"),
        ("backwards", "#CC79A7", "--"),
    ):
        values = decades.sel(direction=direction)
        look = {"color": color, "linestyle": linestyle, "label": direction}
        study.figure.band(ax, decades.offset, values, "run", **look)
    ax.set(
        xlabel="k − t (steps): past, and future",
        ylabel=r"$\log_{10}\,\|\partial y_t/\partial x_k\|$",
        title="Both directions, one layer",
    )
    ax.legend(loc="lower center")


def rates(dataset: "xarray.Dataset", *, last: int | None = None) -> "xarray.DataArray":
    """The slope of `climbing`, lags 1 to last, against the layer; nats a layer, by skip and run."""
    values = climbing(dataset, last=last)
    return values.polyfit("target", 1).polyfit_coefficients.sel(degree=1, drop=True)


def summary(dataset: "xarray.Dataset") -> str:
    """The factor per layer with its interval, and whether the flow is as claimed."""
    by_place = {"at lag 1": rates(dataset, last=1), "at the best lag": rates(dataset)}
    rows = [
        {"skip": SKIPS[str(skip)]}
        | {
            f"factor per layer {place}": (
                f"{statistics.estimate(slopes.sel(skip=skip).values).map(np.exp):.3f}"
            )
            for place, slopes in by_place.items()
        }
        for skip in dataset.skip.values
    ]
    verdicts = [_verdict(place, slopes) for place, slopes in by_place.items()]
    return "\n".join([study.table(rows), _both(dataset), *verdicts])


def _verdict(place: str, slopes: "xarray.DataArray") -> str:
    none, residual = (slopes.sel(skip=skip).values for skip in ("none", "residual"))
    falls = statistics.estimate(none).high < 0
    # A wide interval that reaches 0 is no evidence by itself, so the same seeds must also gain.
    gain = statistics.estimate(residual - none)
    undone = gain.low > 0 and statistics.estimate(residual).high >= 0
    word = study.verdict(falls and undone)
    return (
        f"{place} the flow {'falls' if falls else 'does not fall'} with depth without a skip and "
        f"{'does not' if undone else 'falls'} with the residual (which adds {gain:+.3f} nats a "
        f"layer): the claim is {word} by this run"
    )


def _both(dataset: "xarray.Dataset") -> str:
    """What the output in the middle hears of the first and of the last input."""
    middle = (dataset.log_norm_of_input / np.log(10)).median("run")
    ends = middle.isel(offset=[0, -1])
    words = []
    for direction in dataset.direction.values:
        past, future = (
            "0" if np.isneginf(v) else f"10^{v:.1f}" for v in ends.sel(direction=direction).values
        )
        words.append(f"{direction}: first input {past}, last input {future}")
    return f"norm of the output at t = T/2 by an input, {'; '.join(words)}"


EXPERIMENT = study.Experiment(
    name="depth",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    section="flow",
    order=10,
    gallery={"depth": study.Picture()},
    quick={"num_layers": 3, "hidden_size": 6, "num_steps": 12, "num_seeds": 3, "lags": (1, 4, 12)},
    doc=__doc__,
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
