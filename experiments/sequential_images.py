"""Whether a net that reads an image pixel by pixel learns its class, and how far its gradient went.

Each cell, with a linear readout of h_T, reads digits one pixel a step, row after row and in one
fixed random order (permuted), and says the class at the end: T = 64 for scikit-learn's 8×8
digits, which are not the papers' data, T = 784 for MNIST. Beside the accuracy on all held-out
images stands the flow, log ‖∂h_T/∂s_k‖ on the whole carry s_k, at birth and at the end, over the
same held-out sequences::

    ∂h_T/∂s_k = (∂h_T/∂s_T) J_T J_{T-1} ... J_{k+1}

The cells: tanh with Glorot's W_h, tanh with an orthogonal one, the IRNN (relu, W_h = I, here with
inputs of unit variance), the LSTM with chrono initialisation for T steps, and the GRU. Adam,
gradients clipped at a global norm of 1, each cell at its own learning rate, which falls to 0 by a
cosine; the rates were chosen on training images that were left out for it, never on the held-out
ones. Two claims, judged in the first order: (1) a gated cell or the IRNN classifies 95 % of the
held-out images, which tanh with Glorot's law does not; (2) training lifts the gradient that reaches
the first pixel.

Source: Le, Jaitly, Hinton 2015, arXiv:1504.00941; Arjovsky, Shah, Bengio 2016, arXiv:1511.06464;
Vorontsov, Trabelsi, Kadoury, Pal 2017, arXiv:1702.00071 (Glorot and orthogonal tanh).

    python experiments/sequential_images.py
    python experiments/sequential_images.py --data=mnist --data_dir=FOLDER --full
    python experiments/sequential_images.py --cells='lstm(forget_bias=1),lem' --orders=plain
    python experiments/sequential_images.py --probe=log_norms,components,gates --orders=plain

Takes three minutes on two cores at the defaults. A killed run goes on from its last evaluation;
params/ has the trained cells of the first seed, for `experiments/vanishing.py --params`.
"""

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _kit import probes

from gradflow import flow, statistics, study
from gradflow.cells import resolve
from gradflow.devices import map_runs
from gradflow.interop import save_params
from gradflow.spec import check_name, parse_spec, split_specs
from gradflow.structure import check_structure
from gradflow.study.config import sanitise
from gradflow.tasks.image_tasks import Sequences, digit_sequences, digits, mnist, mnist_sequences
from gradflow.tasks.task import Batch, Task
from gradflow.train.clipping import resolve_clipping
from gradflow.train.driver import Schedule, fit
from gradflow.train.model import predict
from gradflow.train.optimisers import Optimiser
from gradflow.train.probes import Probing
from gradflow.train.runs import begin, fresh_sequences
from gradflow.train.training import Training

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

    from gradflow import Cell, Params

NAMES = {
    "tanh": "rnn(recurrent_init='glorot')",
    "orthogonal": "rnn(recurrent_init='orthogonal')",
    "irnn": "irnn(input_init='lecun')",
    "lstm": "lstm(forget_bias='chrono(max_lag={steps})')",
    "gru": "gru",
}
"""The cells that have a short name here, and what each is for a number of steps."""

RATES = {"tanh": 0.003, "orthogonal": 0.003, "irnn": 0.001, "lstm": 0.01, "gru": 0.01}
"""The learning rate of each of them; `OTHER_RATE` of any other cell."""

OTHER_RATE = 0.003

ORDERS = ("plain", "permuted")

STAGES = ("birth", "end")

ENOUGH = 0.95
"""The share of held-out images that the first claim asks for."""

PUBLISHED = {"tanh": (0.667, 0.793), "orthogonal": (0.932, 0.905), "irnn": (0.97, 0.82),
             "lstm": (0.989, 0.902)}  # fmt: skip
"""Test accuracies on MNIST, plain and permuted: Vorontsov 2017 (tanh, both laws), Le 2015 (IRNN of
100 units), Cooijmans 2017, arXiv:1603.09025 (LSTM of 100 units)."""


@dataclass(frozen=True)
class Config(study.Config):
    """Which nets, on which images, and for how long."""

    num_seeds: int = study.field(3, help="Nets of each cell, side by side.", positive=True)
    precision: Literal["float64", "float32"] = study.field(
        "float32", help="Precision of the training; the flow is measured in float64."
    )
    data: Literal["digits", "mnist"] = study.field("digits", help="Which images.")
    data_dir: str | None = study.field(None, help="Where the official files of MNIST are.")
    cells: str = study.field(
        ",".join(NAMES), help="tanh, orthogonal, irnn, lstm, gru, or cells with their options."
    )
    orders: tuple[str, ...] = study.field(ORDERS, help="plain, permuted or both.")
    hidden_size: int = study.field(64, help="Hidden units.", positive=True)
    batch_size: int = study.field(32, help="Sequences in an update.", positive=True)
    num_updates: int = study.field(1000, help="Updates.", positive=True)
    num_evaluations: int = study.field(10, help="Evaluations after the first.", positive=True)
    eval_size: int = study.field(360, help="Held-out images drawn for each.", positive=True)
    num_probed: int = study.field(4, help="Images that the flow is measured on.", positive=True)
    learning_rate: float | None = study.field(
        None, help="One for all cells; by default each its own.", positive=True
    )
    probe: str = probes.flag()
    probe_every: int | None = probes.every_flag()

    @property
    def schedule(self) -> Schedule:
        """When there is an evaluation, and a probing."""
        every = self.num_updates // self.num_evaluations
        return Schedule(self.num_updates, every, self.probe_every, early_stop=False)


class Images(NamedTuple):
    """What is trained on, and all that is held out."""

    task: Task
    held_out: Sequences


def images(config: Config, order: str) -> Images:
    """The images of a configuration, read in an order."""
    permuted = order == "permuted"
    if config.data == "mnist":
        task = mnist(data_dir=config.data_dir, permuted=permuted)
        return Images(task, mnist_sequences(config.data_dir, "test", permuted=permuted))
    return Images(digits(permuted=permuted), digit_sequences("test", permuted=permuted))


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """Trains and measures each cell; dimensions order, cell, seed, update, stage, image, lag."""
    import xarray

    _check(config)
    everything = {order: images(config, order) for order in config.orders}
    num_steps = everything[config.orders[0]].task.num_steps
    cells = {name: _cell(spec(name, num_steps), config) for name in split_specs(config.cells)}
    orders = []
    for order, found in everything.items():
        names = {name: f"{order}, cell={name}" for name in cells}
        parts = [
            once(
                names[name],
                partial(
                    _measure, config, (order, name), cell, found, partial(once.folder, names[name])
                ),
            )
            for name, cell in cells.items()
        ]
        orders.append(xarray.concat(parts, dim="cell", join="outer", coords="minimal"))
    return xarray.concat(orders, dim="order", join="outer", coords="minimal").assign_attrs(
        data=config.data
    )


def _check(config: Config) -> None:
    if not split_specs(config.cells):
        raise ValueError(f"the name of a cell is expected, got {config.cells!r}; try lstm")
    if not config.orders:
        raise ValueError("an order of the pixels is expected, got none; try plain")
    for order in config.orders:
        check_name("order of the pixels", order, ORDERS)
    if config.num_updates % config.num_evaluations:
        raise ValueError(
            f"num_updates is expected to be a multiple of "
            f"num_evaluations={config.num_evaluations}, got {config.num_updates}"
        )
    _ = config.schedule  # that bad numbers are said at once


def spec(name: str, num_steps: int) -> str:
    """What a name stands for: one of `NAMES`, or itself."""
    return NAMES[name].format(steps=num_steps) if name in NAMES else name


def _cell(name: str, config: Config) -> "Cell":
    factory = resolve(name)
    check_structure(factory)
    return factory(1, config.hidden_size)


def learning_rate(name: str, config: Config) -> float:
    """The learning rate that a cell is trained at."""
    return config.learning_rate or RATES.get(name, OTHER_RATE)


def _training(name: str, cell: "Cell", task: Task, config: Config) -> Training:
    schedule = partial(optax.cosine_decay_schedule, decay_steps=config.num_updates)
    return Training(
        cell,
        task,
        Optimiser(lambda rate: optax.adam(schedule(rate)), learning_rate(name, config)),
        clipping=resolve_clipping("global_norm(threshold=1)"),
        batch_size=config.batch_size,
        eval_size=config.eval_size,
    )


def _measure(
    config: Config, place: tuple[str, str], cell: "Cell", found: Images, folder: Any
) -> "xarray.Dataset":
    import xarray

    (order, name), rate = place, learning_rate(place[1], config)
    training = _training(name, cell, found.task, config)
    keys = jax.random.split(jax.random.key(config.seed), config.num_seeds)
    runs = begin(training, keys, jnp.full(config.num_seeds, rate))
    born = jax.device_get(runs.params)
    names, k_probe = probes.names(config.probe, cell), jax.random.key(config.seed)
    probing = Probing(names, k_probe, config.num_probed) if names else None
    kept, identity = folder(), {**dataclasses.asdict(config), "order": order, "cell": name}
    source = fresh_sequences(training, runs, probing)
    steps = fit(source, config.schedule, folder=kept, identity=identity)
    *_, last = study.progress(steps, f"{order}, {name}, evaluations")
    trained = jax.device_get(last.state.params)
    if kept is not None:
        save_params(
            study.params_folder(kept) / f"{sanitise(name)}_{order}.safetensors",
            jax.tree.map(lambda leaf: leaf[0], trained["cell"]),
            cell=spec(name, found.task.num_steps),
            input_size=1,
            hidden_size=config.hidden_size,
        )
    probed = found.held_out._replace(pixels=found.held_out.pixels[: config.num_probed])
    norms = [log_norms(cell, params, probed) for params in (born, trained)]
    curves = {key: last.metrics[key].T for key in ("loss", "accuracy")}
    measured = {key: np.moveaxis(values, 0, 1) for key, values in last.probes.items()}
    return xarray.Dataset(
        {
            **{key: (("seed", "update"), values) for key, values in curves.items()},
            "accuracy": ("seed", accuracy(cell, trained, found.held_out)),
            "log_norm": (("stage", "seed", "image", "lag"), np.stack(norms), {"units": "nats"}),
            "learning_rate": rate,
            **probes.variables(measured, ("seed", "probe_update"), axis="lag"),
        },
        coords={
            "stage": list(STAGES),
            "update": ("update", config.schedule.evaluations, {"units": "updates"}),
            **({"probe_update": config.schedule.probings} if measured else {}),
            **probes.coordinates(measured),
            "lag": ("lag", np.arange(found.task.num_steps + 1), {"units": "steps"}),
        },
    ).expand_dims(order=[order], cell=[name])


def log_norms(cell: "Cell", params: "Params", probed: Sequences) -> np.ndarray:
    """log ‖∂h_T/∂s_k‖ for every model and image, index = lag T - k."""

    def of_run(params: "Params", x: jax.Array) -> jax.Array:
        return map_runs(partial(flow.log_norms, cell, params, source="carry"))(x)

    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["cell"])
    with jax.enable_x64(True):
        x = jnp.swapaxes(probed.at(np.arange(len(probed.pixels))).inputs, 0, 1)
        measure = jax.jit(map_runs(lambda one: of_run(one, x)))
        return jax.device_get(measure(params))


def accuracy(cell: "Cell", params: "Params", held_out: Sequences) -> np.ndarray:
    """The share of all held-out images that each model classifies correctly."""

    @jax.jit
    def right(params: "Params", batch: Batch) -> jax.Array:
        def of_run(params: "Params") -> jax.Array:
            said = jnp.argmax(predict(cell, params, batch.inputs)[-1], axis=-1)
            return jnp.sum(said == batch.targets[-1])

        return jax.vmap(of_run)(params)

    number = len(held_out.labels)
    parts = np.array_split(np.arange(number), max(1, number // 200))
    found = [jax.device_get(right(params, held_out.at(part))) for part in parts]
    return np.sum(found, axis=0) / number


def figure(dataset: "xarray.Dataset") -> "Figure":
    """A row for each order: accuracy by update, the flow at birth and the end; then the probes."""
    from matplotlib.figure import Figure

    orders = [str(order) for order in dataset.order.values]
    maps = [(order, row) for order in orders for row in probes.rows(dataset)]
    heights = (0.6 + 2.6 * len(orders), *(probes.ROW_HEIGHT for _ in maps))
    fig = Figure(figsize=(7.2, sum(heights)))
    parts = fig.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    _draw_probes(parts[1:], dataset)
    panels = parts[0].subplots(len(orders), 3, squeeze=False)
    for row, order in zip(panels, orders, strict=True):
        row[2].sharey(row[1])
        for index, name in enumerate(map(str, dataset.cell.values)):
            _draw(row, dataset.sel(order=order, cell=name), _look(name, index))
        row[0].set(
            ylabel="held out: right (%)", ylim=(0, 101), title=f"{order} {dataset.attrs['data']}"
        )
        row[0].axhline(95, color="#808080", lw=0.8, ls=(0, (1, 1)))
        row[1].set(ylabel=r"$\log_{10}\,\|\partial h_T/\partial s_k\|$", title="flow at birth")
        row[2].set(title="flow at the end")
    panels[-1][0].set_xlabel("update")
    for ax in panels[-1][1:]:
        ax.set_xlabel("lag T − k (steps)")
    handles, labels = panels[0][0].get_legend_handles_labels()
    parts[0].legend(handles, labels, loc="outside upper center", ncols=len(handles))
    return fig


def _draw_probes(parts: Any, dataset: "xarray.Dataset") -> None:
    """The maps of each order, one under the other."""
    orders = [str(order) for order in dataset.order.values]
    for order, those in zip(orders, np.array_split(parts, len(orders)), strict=True):
        data = dataset.sel(order=order)
        nets = {f"{cell}, {order}": data.sel(cell=cell) for cell in map(str, data.cell.values)}
        probes.draw_rows(list(those), dataset, nets)


def _look(name: str, index: int) -> dict:
    kind = {"tanh": "rnn"}.get(name, parse_spec(name)[0])
    return study.figure.cell_style(kind, index) | {"label": name}


def _draw(row: "np.ndarray", data: "xarray.Dataset", look: dict) -> None:
    """A cell's line in each of the three panels of a row."""
    study.figure.band(row[0], data["update"], 100 * data.accuracy, "seed", **look)
    for ax, stage in zip(row[1:], STAGES, strict=True):
        decades = data.log_norm.sel(stage=stage).median("image") / np.log(10)
        study.figure.band(ax, data.lag, decades, "seed", **look)
        ax.set_xlim(0, data.sizes["lag"] - 1)


def reaching(dataset: "xarray.Dataset") -> "xarray.DataArray":
    """log10 ‖∂h_T/∂s_0‖, the median over images, by order, cell, stage and seed."""
    return dataset.log_norm.isel(lag=-1).median("image") / np.log(10)


def summary(dataset: "xarray.Dataset") -> str:
    """What each cell came to in each order, and whether the two claims hold in this run."""
    rows = [
        _row(dataset.sel(order=order, cell=cell))
        for order in dataset.order.values
        for cell in dataset.cell.values
    ]
    first = dataset.isel(order=0)
    lift = reaching(first).sel(stage="end") - reaching(first).sel(stage="birth")
    held = {str(c): statistics.estimate(lift.sel(cell=c).values).low > 0 for c in lift.cell.values}
    return "\n".join(
        [
            study.table(rows),
            "(accuracy on all held-out images, and log10 ‖∂h_T/∂s_0‖: means over seeds, 95 %)",
            _reached(first),
            f"training lifts the gradient at the first pixel, by this run: {study.verdicts(held)}",
        ]
    )


def _reached(data: "xarray.Dataset") -> str:
    """The verdict on 95 % with a gated cell or the IRNN, and without by tanh."""
    mean = {str(cell): float(data.accuracy.sel(cell=cell).mean()) for cell in data.cell.values}
    others = {name: value for name, value in mean.items() if name not in ("tanh", "orthogonal")}
    claim = (
        f"{ENOUGH:.0%} held out with a gated cell or the IRNN, and less with tanh, by this run: "
    )
    if not others or "tanh" not in mean:
        return claim + "not judged without tanh and another"
    best = max(others, key=lambda name: others[name])
    holds = others[best] >= ENOUGH > mean["tanh"]
    return claim + (f"{study.verdict(holds)} ({best} {others[best]:.3f}, tanh {mean['tanh']:.3f})")


def _row(data: "xarray.Dataset") -> dict[str, str]:
    name, order = str(data.cell.values), str(data.order.values)
    birth, end = (reaching(data).sel(stage=stage).values for stage in STAGES)
    row = {
        "order": order,
        "cell": name,
        "learning rate": f"{float(data.learning_rate):g}",
        "accuracy": f"{statistics.estimate(data.accuracy.values):.3f}",
        "flow at birth": f"{statistics.estimate(birth):.1f}",
        "at the end": f"{statistics.estimate(end):.1f}",
    }
    if data.attrs.get("data") == "mnist":
        published = PUBLISHED.get(name)
        row["published"] = f"{published[ORDERS.index(order)]:.3f}" if published else ""
    return row


EXPERIMENT = study.Experiment(
    name="sequential_images",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    section="sequences",
    order=2,
    gallery={"sequential_images": study.Picture()},
    quick={
        "cells": "tanh,gru",
        "hidden_size": 6,
        "batch_size": 8,
        "num_updates": 6,
        "num_evaluations": 3,
        "eval_size": 16,
        "num_probed": 2,
        "num_seeds": 2,
    },
    full={
        "hidden_size": 100,
        "batch_size": 100,
        "num_updates": 60_000,
        "num_evaluations": 100,
    },
    doc=__doc__,
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
