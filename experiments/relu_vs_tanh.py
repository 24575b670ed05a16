"""Orthogonal tanh keeps its gradient longer than ReLU, ReLU from the identity, until it blows up.

Plain networks h_t = φ(W_x x_t + W_h h_{t-1} + b) with the same W_h, for each initialiser, with each
activation φ, on x ~ N(0, 1). Measured are the rate of log ‖∂h_T/∂h_k‖ per step, the size of the
state along time, learning curves on the adding problem, and a sweep of the gain, W_h = gain · W,
with W from the first initialiser. With D_t = diag(1 where φ'(a_t) ≠ 0) and A the pattern of W_h
(see `log_live_paths`)::

    ∂h_T/∂h_k = diag(φ'(a_T)) W_h ... diag(φ'(a_{k+1})) W_h
    fraction of live paths = 1ᵀ D_T A ... D_{k+1} A 1 / 1ᵀ A ... A 1

If no path is live, ∂h_T/∂h_k = 0 and its log norm is -inf: the fraction of such runs is recorded.

Three claims, each with a criterion set before the recorded run. From an orthogonal matrix tanh
keeps its gradient longer than ReLU, half of whose units are dead at each step; from the identity
ReLU keeps it longer; both by the 95 % interval over seeds of the difference in nats per step. The
state of ReLU blows up from a gain of √2 on, and that of tanh never: half of ReLU's runs have blown
up (see `_kit.gain_sweep`) at a gain within 10 % of √2, and none of tanh's.

Source: Le, Jaitly, Hinton 2015, arXiv:1504.00941; Glorot, Bordes, Bengio 2011 (dead and live
paths of rectifiers); Pascanu, Mikolov, Bengio 2013, arXiv:1211.5063 (slopes of 1 and of 1/4).

    python experiments/relu_vs_tanh.py
    python experiments/relu_vs_tanh.py --full
    python experiments/relu_vs_tanh.py --activations=tanh,relu,elu,gelu --inits=normal,glorot

Takes some 80 seconds on two cores at the defaults, and half an hour, by estimate, with ``--full``.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from _kit import curves, decisions, fields, gain_sweep, outcomes, rates, runs, trained

from gradflow import flow, statistics, study, unroll
from gradflow.cells import rnn
from gradflow.cells.activations import resolve_activation
from gradflow.cells.rnn import switched_rnn, with_each_activation
from gradflow.numerics.exact_slopes import exact_slopes
from gradflow.spec import split_specs
from gradflow.tasks import resolve_task
from gradflow.train import Schedule, Training, resolve_clipping, resolve_optimiser

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gradflow import Params

TOLERANCE = 0.1
"""The relative distance from √2 up to which the gain from which ReLU blows up counts as equal."""

REACH = 1.0
"""Nats per step, up or down, at which the colours of the heat map end."""

FLOOR = -25
"""The log10 norm at the lower edge of its panel."""

INIT_LINES = ("-", "--", ":", "-.", (0, (8, 2)))
"""The line styles of the initialisers, in their order."""


@dataclass(frozen=True)
class Config(study.Config):
    """Which networks, and how long they run and train."""

    num_seeds: int = fields.num_seeds(5)
    activations: tuple[str, ...] = study.field(
        ("tanh", "relu", "leaky_relu", "softplus", "sigmoid", "identity"),
        help="Elementwise functions of jax.nn by name; identity and tanh as well.",
    )
    inits: str = study.field(
        "orthogonal,identity,glorot,normal,sparse",
        help="Initialisers of W_h, separated by commas: a name, or name(option=value).",
    )
    hidden_size: int = fields.hidden_size(32)
    input_size: int = fields.input_size(4)
    num_steps: int = fields.num_steps(100)
    num_gains: int = study.field(60, help="Gains of the sweep.", positive=True)
    max_gain: float = study.field(3.0, help="Largest gain; the sweep begins at 0.", positive=True)
    task: str = fields.task("adding(num_steps=50)")
    num_trained: int = study.field(
        2, help="Initialisers, from the first on, that are trained.", positive=True
    )
    learning_rate: float = fields.learning_rate(1e-3)
    num_updates: int = fields.num_updates(1000)
    eval_every: int = fields.eval_every(50)
    batch_size: int = fields.batch_size()

    @property
    def schedule(self) -> Schedule:
        """How long, and when there is an evaluation."""
        return Schedule(self.num_updates, self.eval_every, early_stop=False)


Networks = tuple["Params", jax.Array]
"""Parameters of `switched_rnn`, (initialiser, run, ...), with phi at 0; and inputs for each run."""


def initialise(config: Config, input_size: int) -> Networks:
    """Initialises the networks that are measured, swept and, for the inputs of a task, trained."""
    k_params, k_inputs = jax.random.split(jax.random.key(config.seed))
    cells = [
        rnn(input_size, config.hidden_size, recurrent_init=spec)
        for spec in split_specs(config.inits)
    ]
    net = runs.initialise_each(cells, jax.random.split(k_params, config.num_seeds))
    inputs = jax.random.normal(k_inputs, (config.num_seeds, config.num_steps, input_size))
    return {"phi": jnp.zeros(net["b"].shape[:2], net["b"].dtype), "net": net}, inputs


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """Measures, sweeps and trains; dimensions activation, init, run, and lag, gain or update."""
    import xarray

    _check(config)
    task = resolve_task(config.task)
    networks = initialise(config, config.input_size)
    parts = [
        once("flow", partial(_measure, config, networks)),
        once("gains", partial(_sweep, config, networks)),
        once("training", partial(_train, config, task)),
    ]
    merged = xarray.merge(parts, join="outer", compat="no_conflicts", combine_attrs="no_conflicts")
    return merged.sel(init=split_specs(config.inits))  # an outer join sorts them


def _check(config: Config) -> None:
    for name in config.activations:
        resolve_activation(name)
    if not config.activations or not split_specs(config.inits):
        raise ValueError(
            f"Expected an activation and an initialiser, got activations={config.activations} and "
            f"inits={config.inits!r}. Try --activations=tanh --inits=orthogonal."
        )
    _ = config.schedule  # numbers that do not divide are reported before anything is measured


def log_live_paths(W_h: jax.Array, slopes: jax.Array) -> jax.Array:
    """Computes log(live paths / all paths) from h_k to h_T, for every lag T - k = 0 ... T.

    In a network h_t = φ(a_t), a_t = W_x x_t + W_h h_{t-1} + b, a path is a chain of units that no
    zero of W_h breaks; it is dead if φ' is exactly 0 at a unit on it after the first. With A the
    pattern of W_h, 1 where it is not zero, and D_t = diag(1 where φ'(a_t) ≠ 0)::

        ∂h_T/∂h_k = Σ over the chains of units i_k ... i_T:  Π_t φ'(a_t)_{i_t} (W_h)_{i_t i_{t-1}}
        fraction of live paths = 1ᵀ D_T A ... D_{k+1} A 1 / 1ᵀ A ... A 1

    If all paths are dead, ∂h_T/∂h_k is exactly zero. The number of live ones does not give its
    size, because live paths can cancel, or each be small.

    Args:
      W_h: The recurrent weights.
      slopes: φ'(a_t) for t = 1 ... T.

    Returns:
      Log fractions in nats, index = lag. Exactly -inf where no path is live; NaN where W_h has none
      to begin with.

    Source: Glorot, Bordes, Bengio 2011, AISTATS (paths of active units).
    """
    pattern = (W_h != 0).astype(W_h.dtype)

    def back(counts: tuple, slope: jax.Array) -> tuple[tuple, jax.Array]:
        live, every = pattern.T @ jnp.where(slope != 0, counts[0], 0), pattern.T @ counts[1]
        totals = jnp.sum(live), jnp.sum(every)
        scaled = live / jnp.where(totals[0] > 0, totals[0], 1), every / totals[1]
        return scaled, jnp.log(totals[0]) - jnp.log(totals[1])

    ones = jnp.ones(len(W_h), W_h.dtype) / len(W_h)  # counts, up to a factor that the sum keeps
    _, changes = jax.lax.scan(back, (ones, ones), slopes[::-1])
    return jnp.concatenate([jnp.zeros(1, W_h.dtype), jnp.cumsum(changes)])


def _measure(config: Config, networks: Networks) -> "xarray.Dataset":
    """Norms, live paths and sizes of the state of every initialiser with every activation."""
    import xarray

    shape = len(config.activations), *networks[0]["phi"].shape
    params = with_each_activation(networks[0], shape[0])
    inputs = jnp.tile(networks[1], (shape[0] * shape[1], 1, 1))
    found = runs.measure(partial(_measure_run, config), params, inputs)
    norms, live, sizes = (values.reshape(*shape, -1) for values in found)
    dims = ("activation", "init", "run")
    return xarray.Dataset(
        {
            "log_norm": ((*dims, "lag"), norms, {"units": "nats"}),
            "log_live": ((*dims, "lag"), live, {"units": "nats", "of": "fraction of live paths"}),
            "log_size": ((*dims, "step"), sizes, {"units": "nats", "of": "RMS of h_t"}),
        },
        coords={
            "activation": list(config.activations),
            "init": split_specs(config.inits),
            **curves.coordinates(config.num_steps),
        },
    )


def _measure_run(config: Config, params: "Params", x: jax.Array) -> tuple[jax.Array, ...]:
    """The norms, the live paths and the sizes of the state of one network on one sequence."""
    cell = switched_rnn(config.activations, config.input_size, config.hidden_size)
    # JAX's slopes of saturated units round to 0, which would count them as dead.
    step = exact_slopes(cell.step)
    outputs = unroll(cell, params, x).outputs
    before = jnp.concatenate([cell.initial_carry()[None], outputs[:-1]])

    def by_bias(b: jax.Array) -> jax.Array:
        shifted = {**params, "net": {**params["net"], "b": b}}
        return jax.vmap(partial(step, shifted))(before, x)[0]

    b = params["net"]["b"]
    slopes = jax.jvp(by_bias, (b,), (jnp.ones_like(b),))[1]  # φ'(a_t)
    live = log_live_paths(params["net"]["W_h"], slopes)
    return flow.log_norms(cell, params, x), live, gain_sweep.log_rms(outputs)


def _sweep(config: Config, networks: Networks) -> "xarray.Dataset":
    """Sizes of the state, and ‖∂h_T/∂h_0‖, of the first initialiser at each gain."""
    import xarray

    cell = switched_rnn(config.activations, config.input_size, config.hidden_size)
    gains = np.linspace(0, config.max_gain, config.num_gains + 1)[1:]
    first = jax.tree.map(lambda leaf: leaf[:1], networks[0])
    params = with_each_activation(first, len(config.activations))
    inputs = jnp.tile(networks[1], (len(config.activations), 1, 1))
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

    training = Training(
        switched_rnn(config.activations, task.input_size, config.hidden_size),
        task,
        resolve_optimiser("adam"),
        clipping=resolve_clipping("global_norm(threshold=1)"),
        batch_size=config.batch_size,
    )
    names = split_specs(config.inits)[: config.num_trained]
    networks = jax.tree.map(lambda leaf: leaf[: len(names)], initialise(config, task.input_size)[0])
    params = jax.device_get(with_each_activation(networks, len(config.activations)))
    sizes = {
        "activation": len(config.activations),
        "init": len(names),
        "run": config.num_seeds,
    }
    with jax.enable_x64(False):  # initialised in float64 as those that are measured
        key = jax.random.fold_in(jax.random.key(config.seed), 1)
        keys = jax.random.split(key, config.num_seeds)
        settings = [(config.learning_rate,)] * (sizes["activation"] * sizes["init"])
        cells = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
        begun = trained.begin(training, keys, settings, cells)
        last = trained.to_end(training, begun, config.schedule)
    return xarray.Dataset(
        trained.curves(last, ("loss", "accuracy"), sizes),
        coords={
            "activation": list(config.activations),
            "init": names,
            "update": ("update", config.schedule.evaluations, {"units": "updates"}),
        },
        attrs={"task": config.task, "baseline": task.baseline, "loss_kind": task.loss},
    )


def figure(dataset: "xarray.Dataset") -> "Figure":
    """Rate by initialiser and activation; the state along time; the sweep; learning curves."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(7.0, 7.8))
    top, middle, bottom = fig.subfigures(3, 1, height_ratios=(3, 2.6, 2.6), squeeze=False)[:, 0]
    left, right = top.subplots(1, 2, width_ratios=(3, 2))
    _draw_heat(left, dataset)
    _draw_norms(right, dataset)
    _draw_states(middle, dataset)
    _draw_sweep_and_losses(bottom, dataset)
    handles = right.get_legend_handles_labels()
    fig.legend(*handles, loc="outside upper center", ncols=6, handlelength=3)
    return fig


def _looks(dataset: "xarray.Dataset | xarray.DataArray") -> Iterator[tuple[str, dict[str, Any]]]:
    names = [str(name) for name in dataset.activation.values]
    for index, name in enumerate(names):
        marks = 0.025 * index, 0.15  # fractions of the panel, so that no two markers coincide
        yield name, {**study.figure.series_style(index), "label": name, "markevery": marks}


def _draw_heat(ax: "Axes", dataset: "xarray.Dataset") -> None:
    """The rate of each pair, and the fraction of its runs that are exactly 0 at the last lag."""
    norms = dataset.log_norm.transpose("init", "activation", "run", "lag")
    values = rates.slopes(norms).mean(axis=-1)
    cut = np.isneginf(norms.values[..., -1]).mean(axis=-1)
    look: Any = {"cmap": "PuOr", "vmin": -REACH, "vmax": REACH, "aspect": "auto"}
    image = ax.imshow(values, **look)
    for (row, column), value in np.ndenumerate(values):
        text = f"{value:z.2f}" + (f"\n{cut[row, column]:.0%} cut" if cut[row, column] else "")
        color = "white" if abs(value) > 0.6 * REACH else "black"
        ax.text(column, row, text, color=color, ha="center", va="center", fontsize=7)
    ax.grid(False)
    names = [str(name).replace("_", "\n") for name in dataset.activation.values]
    ax.set_xticks(range(len(names)), names, fontsize=7)
    ax.set_yticks(range(dataset.sizes["init"]), [str(name) for name in dataset.init.values])
    ax.set_title(r"Rate of $\log\,\|\partial h_T/\partial h_k\|$")
    ax.figure.colorbar(image, ax=ax, label="nats per step")


def _draw_norms(ax: "Axes", dataset: "xarray.Dataset") -> None:
    init = str(dataset.init.values[0])
    for name, look in _looks(dataset):
        norms = dataset.log_norm.sel(init=init, activation=name)
        curves.draw_norms(ax, dataset.lag, norms, **look)
    curves.lag_axis(ax, dataset)
    ax.set(ylabel=curves.NORM, title=f"Norm from {init}", ylim=(FLOOR, None))


def _draw_states(part: Any, dataset: "xarray.Dataset") -> None:
    """The size of the state from the first two initialisers, and the live paths."""
    panels = part.subplots(1, 3)
    for ax, init in zip(panels[:2], map(str, dataset.init.values), strict=False):
        for name, look in _looks(dataset):
            sizes = dataset.log_size.sel(init=init, activation=name)
            study.figure.band(ax, dataset.step, sizes / curves.NATS, "run", **look)
        ax.set(xlabel="step t", title=f"State from {init}", xlim=(0, dataset.sizes["step"]))
    panels[0].set_ylabel(r"$\log_{10}$ RMS of $h_t$")
    _draw_live(panels[2], dataset)


def _draw_live(ax: "Axes", dataset: "xarray.Dataset") -> None:
    """The paths of the activation that has the fewest live ones, by initialiser."""
    fewest = dataset.log_live.isel(lag=-1).mean(["init", "run"]).argmin("activation")
    data = dataset.isel(activation=int(fewest))
    for index, name in enumerate(data.init.values):
        line = INIT_LINES[index % len(INIT_LINES)]
        look = {"color": "#404040", "linestyle": line, "label": str(name)}
        curves.draw_norms(ax, data.lag, data.log_live.sel(init=name), **look)
    curves.lag_axis(ax, data)
    ax.set(ylabel=r"$\log_{10}$ fraction", title=f"Live paths, {data.activation.values}")
    ax.legend(fontsize=6.5, loc="lower left")


def _draw_sweep_and_losses(part: Any, dataset: "xarray.Dataset") -> None:
    inits = [str(name) for name in dataset.init.values]
    shown = [name for name in inits if np.isfinite(dataset.loss.sel(init=name)).any()][:2]
    sweep, *panels = part.subplots(1, 1 + len(shown))
    gain_sweep.draw_fractions(sweep, dataset, _looks(dataset), math.sqrt(2))
    sweep.annotate("√2", (math.sqrt(2), 1.07), ha="center", fontsize=7)
    sweep.set_xlabel(f"gain of {inits[0]} $W_h$")
    task, baseline = str(dataset.attrs["task"]).partition("(")[0], dataset.attrs["baseline"]
    for ax, init in zip(panels, shown, strict=True):
        for name, look in _looks(dataset):
            loss = dataset.loss.sel(activation=name, init=init)
            study.figure.band(ax, dataset["update"], loss, "run", **look)
        title = f"{task} from {init}"
        outcomes.draw_losses(ax, baseline, title=title, ylim=(None, 6 * baseline))
    panels[0].set_ylabel("loss")


def summary(dataset: "xarray.Dataset") -> str:
    """Rate, dead paths, blow-up and loss of each activation."""
    rows = [
        _row(dataset.sel(activation=a, init=i)) for i in dataset.init for a in dataset.activation
    ]
    gains = [
        {"φ": str(a), **gain_sweep.row(dataset.sel(activation=a))}
        for a in dataset.activation.values
    ]
    return "\n".join([study.table(rows), "", study.table(gains)])


def _row(data: "xarray.Dataset") -> dict[str, str]:
    loss = data.loss.isel(update=-1).values
    live, size = data.log_live.isel(lag=-1).values, data.log_size.isel(step=-1).values
    return {
        "W_h": str(data.init.values),
        "φ": str(data.activation.values),
        "nats per step": f"{statistics.estimate(run_rates(data.log_norm)):z.3f}",
        "log10 live paths at T": f"{statistics.estimate(live / curves.NATS):z.1f}",
        "runs at -inf": f"{cut_fraction(data.log_norm):.0%}",
        "log10 RMS of h_T": f"{statistics.estimate(size / curves.NATS):z.2f}",
        "final loss": f"{statistics.estimate(loss):z.4f}" if np.isfinite(loss).any() else "",
    }


def run_rates(log_norms: "xarray.DataArray") -> np.ndarray:
    """Fits the rate of each run, in nats per step, up to the lag from which its norm is 0."""
    return rates.slopes(log_norms.transpose("run", "lag"))


def cut_fraction(log_norms: "xarray.DataArray") -> float:
    """Computes the fraction of runs whose gradient is exactly 0 at the longest lag."""
    return float(np.isneginf(log_norms.isel(lag=-1)).mean())


def claims(dataset: "xarray.Dataset") -> list[study.Claim]:
    """Which of tanh and ReLU keeps its gradient longer, and which blows up, if both are there."""
    if not {"tanh", "relu"} <= {str(name) for name in dataset.activation.values}:
        return []
    signs = {"orthogonal": 1, "identity": -1}
    kept = [_kept(dataset, init, signs[init]) for init in signs if init in dataset.init.values]
    return [*kept, _blows_up(dataset)]


def _kept(dataset: "xarray.Dataset", init: str, sign: int) -> study.Claim:
    """Whether tanh (sign 1) or ReLU (sign -1) keeps its gradient longer from an initialiser."""
    norms = {name: dataset.log_norm.sel(init=init, activation=name) for name in ("tanh", "relu")}
    more = statistics.estimate(run_rates(norms["tanh"]) - run_rates(norms["relu"]))
    longer, other = ("tanh", "ReLU") if sign > 0 else ("ReLU", "tanh")
    side = "above" if sign > 0 else "below"
    return study.claim(
        decisions.identifier(longer, "longer from", init),
        f"Initialised {init}, {longer} keeps its gradient longer than {other}.",
        decisions.above(more) if sign > 0 else decisions.below(more),
        measured=[
            study.Measured.of("rate of tanh less that of ReLU", more, "nats per step"),
            *(
                study.Measured(f"fraction of {name} runs exactly 0", cut_fraction(of))
                for name, of in norms.items()
            ),
        ],
        criterion=f"the 95 % interval of the difference in nats per step lies {side} 0",
    )


def _blows_up(dataset: "xarray.Dataset") -> study.Claim:
    of_relu, of_tanh = (
        gain_sweep.blow_up(dataset.sel(activation=name)) for name in ("relu", "tanh")
    )
    near = abs(np.median(of_relu) / math.sqrt(2) - 1) <= TOLERANCE
    return study.claim(
        "relu-blows-up",
        "The state of ReLU blows up from a gain of √2 on, and that of tanh never.",
        bool(near and np.isinf(of_tanh).all()),
        measured={
            "gain from which half of ReLU's runs blow up": float(np.median(of_relu)),
            "fraction of tanh runs that blow up": float(np.isfinite(of_tanh).mean()),
        },
        criterion=f"half of ReLU's runs have blown up at a gain within {TOLERANCE:.0%} of √2, and "
        "none of tanh's at any gain",
    )


EXPERIMENT = study.Experiment(
    name="relu_vs_tanh",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    claims=claims,
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
