"""Why recurrent nets take tanh, and when they take ReLU: initialisers crossed with activations.

Plain nets h_t = φ(W_x x_t + W_h h_{t-1} + b) from the same W_h, for each initialiser, with each φ,
on x ~ N(0, 1): the decay of ‖∂h_T/∂h_k‖ per step, the size of the state along time, learning curves
on the adding problem, and a sweep of the gain, W_h = gain · W, W from the first initialiser. With
D_t = diag(1 where φ'(a_t) ≠ 0) and A the pattern of W_h (see `log_live_paths`)::

    ∂h_T/∂h_k = diag(φ'(a_T)) W_h ... diag(φ'(a_{k+1})) W_h
    share of live paths = 1ᵀ D_T A ... D_{k+1} A 1 / 1ᵀ A ... A 1

If no path lives, ∂h_T/∂h_k = 0 and its log norm is -inf: the share of such runs is recorded too.

The claim: from an orthogonal matrix tanh keeps its gradient longer than ReLU, which has half of its
units dead at each step; from the identity ReLU keeps it longer; and ReLU's state blows up from a
gain of √2 on, where tanh's cannot. Each part is supported by a rule set before the run that is
shown: the 95 % interval over seeds of the difference in nats a step lies on its side of 0; half of
ReLU's runs have blown up (see `_kit.gain_sweep`) at a gain within 10 % of √2, and none of tanh's.

Source: Le, Jaitly, Hinton 2015, arXiv:1504.00941; Glorot, Bordes, Bengio 2011 (dead and live
paths of rectifiers); Pascanu, Mikolov, Bengio 2013, arXiv:1211.5063 (slopes of 1 and of 1/4).

    python experiments/relu_vs_tanh.py
    python experiments/relu_vs_tanh.py --full
    python experiments/relu_vs_tanh.py --activations=tanh,relu,elu,gelu --inits=normal,glorot

Takes some 80 seconds on two cores at the defaults, half an hour, by estimate, with ``--full``.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from _kit import gain_sweep

from gradflow import flow, statistics, study, unroll
from gradflow.cells import rnn
from gradflow.cells.rnn import resolve_activation, switched_rnn, with_each_activation
from gradflow.devices import map_runs
from gradflow.numerics.exact_slopes import exact_slopes
from gradflow.spec import split_specs
from gradflow.statistics import slope
from gradflow.tasks import resolve_task
from gradflow.train.clipping import resolve_clipping
from gradflow.train.driver import Schedule, fit
from gradflow.train.optimisers import resolve_optimiser
from gradflow.train.runs import begin, fresh_sequences
from gradflow.train.training import Training

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gradflow import Params

TOLERANCE = 0.1
"""How far, as a share, the gain from which ReLU blows up may lie from √2."""

REACH = 1.0
"""Nats a step, up or down, at which the colours of the heat map end."""

FLOOR = -25
"""The log10 norm at the lower edge of its panel."""

INIT_LINES = ("-", "--", ":", "-.", (0, (8, 2)))
"""Of the initialisers, in their order."""


@dataclass(frozen=True)
class Config(study.Config):
    """Which nets, and how long they are run and trained."""

    num_seeds: int = study.field(5, help="Nets, each with a sequence.", positive=True)
    activations: tuple[str, ...] = study.field(
        ("tanh", "relu", "leaky_relu", "softplus", "sigmoid", "identity"),
        help="Elementwise functions of jax.nn by name, with which identity and tanh are.",
    )
    inits: str = study.field(
        "orthogonal,identity,glorot,normal,sparse", help="Initialisers of W_h, with options or not."
    )
    hidden_size: int = study.field(32, help="Hidden units.", positive=True)
    input_size: int = study.field(4, help="Channels of gaussian inputs.", positive=True)
    num_steps: int = study.field(100, help="Steps T.", positive=True)
    num_gains: int = study.field(60, help="Gains of the sweep.", positive=True)
    max_gain: float = study.field(3.0, help="The largest gain; the smallest is 0.", positive=True)
    task: str = study.field("adding(num_steps=50)", help="What is learnt.")
    num_trained: int = study.field(2, help="Initialisers that are trained.", positive=True)
    learning_rate: float = study.field(1e-3, help="Of Adam.", positive=True)
    num_updates: int = study.field(1000, help="Updates of a training.", positive=True)
    eval_every: int = study.field(50, help="Updates between two evaluations.", positive=True)
    batch_size: int = study.field(32, help="Sequences in an update.", positive=True)


def draw(config: Config, input_size: int) -> tuple["Params", jax.Array]:
    """Nets of `switched_rnn`, (initialiser, run, ...), with phi at 0, and inputs for each run."""
    k_params, k_inputs = jax.random.split(jax.random.key(config.seed))
    cells = [
        rnn(input_size, config.hidden_size, recurrent_init=spec)
        for spec in split_specs(config.inits)
    ]

    def one(key: jax.Array) -> "Params":
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *(c.init(key) for c in cells))

    keys = jax.random.split(k_params, config.num_seeds)
    net = jax.jit(jax.vmap(one, out_axes=1))(keys)
    inputs = jax.random.normal(k_inputs, (config.num_seeds, config.num_steps, input_size))
    return {"phi": jnp.zeros(net["b"].shape[:2], net["b"].dtype), "net": net}, inputs


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """Measures, sweeps and trains; dimensions activation, init, run, and lag, gain or update."""
    import xarray

    for name in config.activations:
        resolve_activation(name)
    if not config.activations or not split_specs(config.inits):
        raise ValueError(
            "an activation and an initialiser, at least, are expected, got "
            f"activations={config.activations} and inits={config.inits!r}; try tanh and orthogonal"
        )
    Schedule(config.num_updates, config.eval_every)  # says what does not divide
    task = resolve_task(config.task)
    nets = draw(config, config.input_size)
    parts = [
        once("flow", partial(_measure, config, nets)),
        once("gains", partial(_sweep, config, nets)),
        once("training", partial(_train, config, task)),
    ]
    merged = xarray.merge(parts, join="outer", compat="no_conflicts", combine_attrs="no_conflicts")
    return merged.sel(init=split_specs(config.inits))  # the join has put them in another order


def log_live_paths(W_h: jax.Array, slopes: jax.Array) -> jax.Array:
    """Computes log(live paths / all paths) from h_k to h_T, for every lag T - k = 0 ... T.

    In a net h_t = φ(a_t), a_t = W_x x_t + W_h h_{t-1} + b, a path is a chain of units that no zero
    of W_h breaks; it is dead if φ' is exactly 0 at a unit on it after the first. With A the
    pattern of W_h, 1 where it is not zero, and D_t = diag(1 where φ'(a_t) ≠ 0)::

        ∂h_T/∂h_k = Σ over the chains of units i_k ... i_T:  Π_t φ'(a_t)_{i_t} (W_h)_{i_t i_{t-1}}
        fraction of live paths = 1ᵀ D_T A ... D_{k+1} A 1 / 1ᵀ A ... A 1

    Live paths can cancel, or each be small: where all are dead, ∂h_T/∂h_k is exactly zero; how
    many live does not say how large it is.

    Args:
      W_h: The recurrent weights.
      slopes: φ'(a_t) for t = 1 ... T.

    Returns:
      Log fractions in nats, index = lag. Exactly -inf where no path lives; NaN where W_h has none
      to begin with.

    Source: Glorot, Bordes, Bengio 2011, AISTATS (paths of active units).
    """
    pattern = (W_h != 0).astype(W_h.dtype)

    def back(counts: tuple, slope: jax.Array) -> tuple[tuple, jax.Array]:
        live, every = pattern.T @ jnp.where(slope != 0, counts[0], 0), pattern.T @ counts[1]
        totals = jnp.sum(live), jnp.sum(every)
        shares = live / jnp.where(totals[0] > 0, totals[0], 1), every / totals[1]
        return shares, jnp.log(totals[0]) - jnp.log(totals[1])

    ones = jnp.ones(len(W_h), W_h.dtype) / len(W_h)  # counts, up to a factor that the sum keeps
    _, changes = jax.lax.scan(back, (ones, ones), slopes[::-1])
    return jnp.concatenate([jnp.zeros(1, W_h.dtype), jnp.cumsum(changes)])


def _measure(config: Config, nets: tuple["Params", jax.Array]) -> "xarray.Dataset":
    """Norms, live paths and sizes of the state of every initialiser with every activation."""
    import xarray

    cell = switched_rnn(config.activations, config.input_size, config.hidden_size)
    step = exact_slopes(cell.step)  # a slope that only rounding makes 0 is not dead

    def one(params: "Params", x: jax.Array) -> tuple[jax.Array, ...]:
        outputs = unroll(cell, params, x).outputs
        before = jnp.concatenate([cell.initial_carry()[None], outputs[:-1]])

        def by_bias(b: jax.Array) -> jax.Array:
            shifted = {**params, "net": {**params["net"], "b": b}}
            return jax.vmap(partial(step, shifted))(before, x)[0]

        b = params["net"]["b"]
        slopes = jax.jvp(by_bias, (b,), (jnp.ones_like(b),))[1]  # φ'(a_t)
        live = log_live_paths(params["net"]["W_h"], slopes)
        return flow.log_norms(cell, params, x), live, gain_sweep.log_rms(outputs)

    shape = len(config.activations), *nets[0]["phi"].shape
    params = with_each_activation(nets[0], shape[0])
    inputs = jnp.tile(nets[1], (shape[0] * shape[1], 1, 1))
    found = jax.jit(map_runs(one))(params, inputs)
    norms, live, sizes = (np.asarray(values).reshape(*shape, -1) for values in found)
    runs = ("activation", "init", "run")
    return xarray.Dataset(
        {
            "log_norm": ((*runs, "lag"), norms, {"units": "nats"}),
            "log_live": ((*runs, "lag"), live, {"units": "nats", "of": "share of live paths"}),
            "log_size": ((*runs, "step"), sizes, {"units": "nats", "of": "RMS of h_t"}),
        },
        coords={
            "activation": list(config.activations),
            "init": split_specs(config.inits),
            "lag": ("lag", np.arange(config.num_steps + 1), {"units": "steps"}),
            "step": ("step", np.arange(1, config.num_steps + 1), {"units": "steps"}),
        },
    )


def _sweep(config: Config, nets: tuple["Params", jax.Array]) -> "xarray.Dataset":
    """Sizes of the state, and ‖∂h_T/∂h_0‖, of the first initialiser at each gain."""
    import xarray

    cell = switched_rnn(config.activations, config.input_size, config.hidden_size)
    gains = np.linspace(0, config.max_gain, config.num_gains + 1)[1:]
    first = jax.tree.map(lambda leaf: leaf[:1], nets[0])
    params = with_each_activation(first, len(config.activations))
    inputs = jnp.tile(nets[1], (len(config.activations), 1, 1))
    shape = len(config.activations), config.num_seeds, config.num_gains
    found = gain_sweep.sweep(cell, params, inputs, gains)
    return xarray.Dataset(
        {
            name: (("activation", "run", "gain"), values.reshape(shape), gain_sweep.ATTRS[name])
            for name, values in found.items()
        },
        coords={"activation": list(config.activations), "gain": gains},
    )


def _train(config: Config, task: Any) -> "xarray.Dataset":
    """The first initialisers with every activation, all side by side in one program."""
    import xarray

    cell = switched_rnn(config.activations, task.input_size, config.hidden_size)
    clipping = resolve_clipping("global_norm(threshold=1)")
    training = Training(
        cell, task, resolve_optimiser("adam"), clipping=clipping, batch_size=config.batch_size
    )
    names = split_specs(config.inits)[: config.num_trained]
    drawn = jax.tree.map(lambda leaf: leaf[: len(names)], draw(config, task.input_size)[0])
    params = jax.device_get(with_each_activation(drawn, len(config.activations)))
    shape = len(config.activations), len(names), config.num_seeds
    schedule = Schedule(config.num_updates, config.eval_every, early_stop=False)
    with jax.enable_x64(False):  # the nets that were measured, trained in float32
        key = jax.random.fold_in(jax.random.key(config.seed), 1)
        # A seed draws the same sequences and readout for all.
        keys = jnp.tile(jax.random.split(key, config.num_seeds), shape[0] * shape[1])
        runs = begin(training, keys, jnp.full(len(keys), config.learning_rate))
        cells = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
        runs = runs._replace(params={**runs.params, "cell": cells})
        steps = fit(fresh_sequences(training, runs), schedule)
        *_, last = study.progress(steps, "evaluations")
    dims = ("activation", "init", "run", "update")

    def split(values: np.ndarray) -> np.ndarray:
        return np.moveaxis(values.reshape(len(values), *shape), 0, -1)

    return xarray.Dataset(
        {name: (dims, split(last.metrics[name])) for name in ("loss", "accuracy")},
        coords={
            "activation": list(config.activations),
            "init": names,
            "update": ("update", schedule.evaluations, {"units": "updates"}),
        },
        attrs={"task": config.task, "baseline": task.baseline, "loss_kind": task.loss},
    )


def rates(log_norms: "xarray.DataArray") -> np.ndarray:
    """The slope of each run in nats a step, up to where it is cut; -inf for one cut at once."""
    return np.array([slope(curve) for curve in log_norms.transpose("run", "lag").values])


def figure(dataset: "xarray.Dataset") -> "Figure":
    """Decay by initialiser and activation; the state along time; the sweep; learning curves."""
    from matplotlib.figure import Figure

    inits = [str(name) for name in dataset.init.values]
    trained = [name for name in inits if np.isfinite(dataset.loss.sel(init=name)).any()]
    fig = Figure(figsize=(7.0, 7.8))
    top, middle, bottom = fig.subfigures(3, 1, height_ratios=(3, 2.6, 2.6), squeeze=False)[:, 0]
    left, right = top.subplots(1, 2, width_ratios=(3, 2))
    _draw_heat(left, dataset)
    _draw_curves(right, dataset.log_norm.sel(init=inits[0]), "lag")
    right.set(
        ylabel=r"$\log_{10}\,\|\partial h_T/\partial h_k\|$",
        xlabel="lag T − k (steps)",
        title=f"Norm from {inits[0]}",
        ylim=(FLOOR, None),
    )
    panels = middle.subplots(1, 3)
    for ax, name in zip(panels[:2], inits[:2], strict=False):
        _draw_curves(ax, dataset.log_size.sel(init=name), "step")
        ax.set(xlabel="step t", title=f"State from {name}")
    panels[0].set_ylabel(r"$\log_{10}$ RMS of $h_t$")
    _draw_live(panels[2], dataset)
    panels = bottom.subplots(1, 1 + len(trained[:2]))
    gain_sweep.draw_fractions(panels[0], dataset, _looks(dataset), math.sqrt(2))
    panels[0].annotate("√2", (math.sqrt(2), 1.07), ha="center", fontsize=7)
    panels[0].set_xlabel(f"gain of {inits[0]} $W_h$")
    for ax, name in zip(panels[1:], trained, strict=False):
        _draw_losses(ax, dataset, name)
    panels[1].set_ylabel("loss")
    handles = right.get_legend_handles_labels()
    fig.legend(*handles, loc="outside upper center", ncols=6, handlelength=3)
    return fig


def _looks(dataset: "xarray.Dataset | xarray.DataArray") -> Iterator[tuple[str, dict[str, Any]]]:
    names = [str(name) for name in dataset.activation.values]
    for index, name in enumerate(names):
        marks = 0.025 * index, 0.15  # of the panel: so that none lies on another's
        yield name, {**study.figure.series_style(index), "label": name, "markevery": marks}


def _draw_heat(ax: "Axes", dataset: "xarray.Dataset") -> None:
    """The slope of each pair, and how many of its runs are cut exactly within the lags."""
    rows = [[dataset.log_norm.sel(activation=a, init=i) for a in dataset.activation]
            for i in dataset.init]  # fmt: skip
    values = np.array([[rates(norms).mean() for norms in row] for row in rows])
    look: Any = {"cmap": "PuOr", "vmin": -REACH, "vmax": REACH, "aspect": "auto"}
    image = ax.imshow(values, **look)
    for (row, column), value in np.ndenumerate(values):
        cut = float((rows[row][column].isel(lag=-1) == -np.inf).mean())
        text = f"{value:z.2f}" + (f"\n{cut:.0%} cut" if cut else "")
        color = "white" if abs(value) > 0.6 * REACH else "black"
        ax.text(column, row, text, color=color, ha="center", va="center", fontsize=7)
    ax.grid(False)
    names = [str(name).replace("_", "\n") for name in dataset.activation.values]
    ax.set_xticks(range(len(names)), names, fontsize=7)
    ax.set_yticks(range(dataset.sizes["init"]), [str(name) for name in dataset.init.values])
    ax.set_title(r"Slope of $\log\|\partial h_T/\partial h_k\|$")
    ax.figure.colorbar(image, ax=ax, label="nats per step")


def _draw_curves(ax: "Axes", data: "xarray.DataArray", axis: str) -> None:
    for name, look in _looks(data):
        decades = data.sel(activation=name) / np.log(10)
        study.figure.band(ax, data[axis], decades.transpose("run", axis), "run", **look)
    ax.set_xlim(0, int(data[axis][-1]))


def _draw_live(ax: "Axes", dataset: "xarray.Dataset") -> None:
    """The paths of the activation that has the fewest live ones, by initialiser."""
    fewest = dataset.log_live.isel(lag=-1).mean(["init", "run"]).argmin("activation")
    data = dataset.isel(activation=int(fewest))
    for index, name in enumerate(data.init.values):
        line = INIT_LINES[index % len(INIT_LINES)]
        look = {"color": "#404040", "linestyle": line, "label": str(name)}
        decades = data.log_live.sel(init=name) / np.log(10)
        study.figure.band(ax, data.lag, decades, "run", **look)
    ax.set(
        xlabel="lag T − k (steps)",
        ylabel=r"$\log_{10}$ share",
        title=f"Live paths, {data.activation.values}",
        xlim=(0, data.sizes["lag"] - 1),
    )
    ax.legend(fontsize=6.5, loc="lower left")


def _draw_losses(ax: "Axes", dataset: "xarray.Dataset", init: str) -> None:
    for name, look in _looks(dataset):
        loss = dataset.loss.sel(activation=name, init=init)
        study.figure.band(ax, dataset["update"], loss, "run", **look)
    baseline = dataset.attrs["baseline"]
    ax.axhline(baseline, color="#606060", lw=0.8, ls=(0, (1, 2)))
    task = str(dataset.attrs["task"]).partition("(")[0]
    ax.set(yscale="log", xlabel="update", title=f"{task} from {init}", ylim=(None, 6 * baseline))


def summary(dataset: "xarray.Dataset") -> str:
    """Decay, dead paths, blow-up and loss of each activation, and what held of the claim."""
    rows = [
        _row(dataset.sel(activation=a, init=i)) for i in dataset.init for a in dataset.activation
    ]
    gains = [
        {"φ": str(a), **gain_sweep.row(dataset.sel(activation=a))}
        for a in dataset.activation.values
    ]
    return "\n".join([study.table(rows), "", study.table(gains), *_verdicts(dataset)])


def _row(data: "xarray.Dataset") -> dict[str, str]:
    loss = data.loss.isel(update=-1).values
    live, size = data.log_live.isel(lag=-1).values, data.log_size.isel(step=-1).values
    return {
        "W_h": str(data.init.values),
        "φ": str(data.activation.values),
        "nats a step": f"{statistics.estimate(rates(data.log_norm)):z.3f}",
        "log10 live paths at T": f"{statistics.estimate(live / math.log(10)):z.1f}",
        "runs at -inf": f"{float((data.log_norm.isel(lag=-1) == -np.inf).mean()):.0%}",
        "log10 RMS of h_T": f"{statistics.estimate(size / math.log(10)):z.2f}",
        "final loss": f"{statistics.estimate(loss):z.4f}" if np.isfinite(loss).any() else "",
    }


def _verdicts(dataset: "xarray.Dataset") -> list[str]:
    """The verdicts on tanh and ReLU, of what is there of them."""
    if not {"tanh", "relu"} <= {str(name) for name in dataset.activation.values}:
        return []
    signs = {"orthogonal": 1, "identity": -1}
    lines = [_kept(dataset, init, signs[init]) for init in signs if init in dataset.init.values]
    of_relu, of_tanh = (
        gain_sweep.blow_up(dataset.sel(activation=name)) for name in ("relu", "tanh")
    )
    near = abs(np.median(of_relu) / math.sqrt(2) - 1) <= TOLERANCE
    holds = bool(near and np.isinf(of_tanh).all())
    return [
        *lines,
        f"relu's state blows up from a gain of √2, and tanh's at none: {study.verdict(holds)} "
        f"(relu's from {gain_sweep.text(of_relu)}; tanh's: {gain_sweep.text(of_tanh)})",
    ]


def _kept(dataset: "xarray.Dataset", init: str, sign: int) -> str:
    """The verdict on which of the two keeps its gradient longer: tanh, if the sign is 1."""
    of = {name: dataset.log_norm.sel(init=init, activation=name) for name in ("tanh", "relu")}
    more = statistics.estimate(rates(of["tanh"]) - rates(of["relu"]))
    holds = more.low > 0 if sign > 0 else more.high < 0
    cut = [f"{k} {float((norms.isel(lag=-1) == -np.inf).mean()):.0%}" for k, norms in of.items()]
    return (
        f"tanh keeps its gradient {'longer' if sign > 0 else 'less long'} than relu from {init}: "
        f"{study.verdict(holds)} ({more:z.3f} nats a step; runs cut exactly: {', '.join(cut)})"
    )


EXPERIMENT = study.Experiment(
    name="relu_vs_tanh",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    section="training",
    order=5,
    gallery={"relu_vs_tanh": study.Picture()},
    quick={
        "activations": ("tanh", "relu", "identity"),
        "inits": "orthogonal,identity",
        "hidden_size": 6,
        "input_size": 2,
        "num_steps": 12,
        "num_gains": 6,
        "task": "adding(num_steps=6)",
        "num_updates": 10,
        "eval_every": 5,
        "batch_size": 4,
        "num_seeds": 2,
    },
    full={
        "hidden_size": 64,
        "num_steps": 200,
        "num_gains": 120,
        "task": "adding(num_steps=100)",
        "num_trained": 99,
        "num_updates": 3000,
    },
    doc=__doc__,
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
