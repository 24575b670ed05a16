"""Read pixel by pixel, a gated cell classifies 95 % of the held-out digits and tanh fewer.

Each cell, with a linear readout of h_T, reads digits one pixel per step, row after row and in one
fixed random order (permuted), and classifies them at the end: T = 64 for scikit-learn's 8×8 digits,
which are not the papers' data, T = 784 for MNIST. Measured are the accuracy on all held-out images,
and the flow log ‖∂h_T/∂s_k‖ from the whole carry s_k, at initialisation and after the training, on
the same held-out sequences::

    ∂h_T/∂s_k = (∂h_T/∂s_T) J_T J_{T-1} ... J_{k+1}

The cells: tanh with Glorot's W_h, tanh with an orthogonal one, the IRNN (ReLU, W_h = I, here with
inputs of unit variance), the LSTM with chrono initialisation for T steps, and the GRU. They train
with Adam, gradients clipped at a global norm of 1, each at its own learning rate, which decays to 0
by a cosine and was chosen on training images left out for that purpose, never on the held-out ones.

The claims, in the first order: a gated cell or the IRNN classifies 95 % of the held-out images, and
tanh with Glorot's W_h fewer; and, for each cell, training lifts the gradient that reaches the first
pixel. Each is decided by 95 % intervals over seeds.

Source: Le, Jaitly, Hinton 2015, arXiv:1504.00941; Arjovsky, Shah, Bengio 2016, arXiv:1511.06464;
Vorontsov, Trabelsi, Kadoury, Pal 2017, arXiv:1702.00071 (Glorot and orthogonal tanh).

    python experiments/sequential_images.py
    python experiments/sequential_images.py --data=mnist --data_dir=FOLDER --full
    python experiments/sequential_images.py --cells='lstm(forget_bias=1),lem' --orders=plain
    python experiments/sequential_images.py --probe=log_norms,components,gates --orders=plain

Takes three minutes on two cores at the defaults. A killed run resumes from its last evaluation;
params/ has the trained cells of the first seed, for `experiments/vanishing.py --params`.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray
from _kit import cells, curves, decisions, fields, outcomes, probes, runs, trained

from gradflow import Cell, Params, flow, statistics, study
from gradflow.data.idx import mnist_files
from gradflow.devices import map_runs
from gradflow.interop import save_params
from gradflow.spec import check_name, parse_spec
from gradflow.study.config import sanitise
from gradflow.study.figure import Figure
from gradflow.tasks.image_tasks import Sequences, digit_sequences, digits, mnist, mnist_sequences
from gradflow.tasks.task import Batch, Task
from gradflow.train import Optimiser, Probing, Schedule, Training, resolve_clipping
from gradflow.train.model import predict

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

STAGES = ("initialisation", "trained")

ENOUGH = 0.95
"""The accuracy on held-out images that the first claim asks for."""

PUBLISHED = {"tanh": (0.667, 0.793), "orthogonal": (0.932, 0.905), "irnn": (0.97, 0.82),
             "lstm": (0.989, 0.902)}  # fmt: skip
"""Test accuracies on MNIST, plain and permuted: Vorontsov 2017 (tanh, both laws), Le 2015 (IRNN of
100 units), Cooijmans 2017, arXiv:1603.09025 (LSTM of 100 units)."""


@dataclass(frozen=True)
class Config(study.Config):
    """Which networks, on which images, and for how long."""

    num_seeds: int = fields.num_seeds(3)
    precision: Literal["float64", "float32"] = fields.training_precision()
    data: Literal["digits", "mnist"] = study.field("digits", help="Which images.")
    data_dir: str | None = study.field(None, help="Folder with the official files of MNIST.")
    cells: str = study.field(
        ",".join(NAMES),
        help="Cells, separated by commas: tanh, orthogonal, irnn, lstm, gru, or any other with "
        "options or without.",
    )
    orders: tuple[str, ...] = study.field(ORDERS, help="Orders of the pixels: plain, permuted.")
    hidden_size: int = fields.hidden_size(64)
    batch_size: int = fields.batch_size(32)
    num_updates: int = fields.num_updates(1000)
    num_evaluations: int = fields.num_evaluations(10)
    eval_size: int = fields.positive(360, help="Held-out images in an evaluation.")
    num_probed: int = fields.positive(4, help="Images that the flow is measured on.")
    learning_rate: float | None = fields.positive(
        None, help="Learning rate of all cells; by default each has its own."
    )
    probe: str = probes.flag()
    probe_every: int | None = probes.every_flag()

    @property
    def schedule(self) -> Schedule:
        """How long, and when there is an evaluation, and a probing."""
        every = self.num_updates // self.num_evaluations
        return Schedule(self.num_updates, every, self.probe_every, early_stop=False)


class Images(NamedTuple):
    """The task of the training images, and all images that are held out."""

    task: Task
    held_out: Sequences


def images(config: Config, order: str) -> Images:
    """Reads the images of a configuration, with their pixels in an order."""
    permuted = order == "permuted"
    if config.data == "mnist":
        task = mnist(data_dir=config.data_dir, permuted=permuted)
        return Images(task, mnist_sequences(config.data_dir, "test", permuted=permuted))
    return Images(digits(permuted=permuted), digit_sequences("test", permuted=permuted))


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Trains and measures each cell; dimensions order, cell, seed, update, stage, image, lag."""
    _check(config)
    everything = {order: images(config, order) for order in config.orders}
    num_steps = everything[config.orders[0]].task.num_steps
    specs = {name: spec(name, num_steps) for name in cells.specs(config.cells)}
    made = {name: cells.factory(one)(1, config.hidden_size) for name, one in specs.items()}
    orders = []
    for order, found in everything.items():
        parts = [
            trained.unit(
                once, f"{order}, cell={name}", _measure, config, (order, name), cell, found
            )
            for name, cell in made.items()
        ]
        orders.append(xarray.concat(parts, dim="cell", join="outer", coords="minimal"))
    both = xarray.concat(orders, dim="order", join="outer", coords="minimal")
    return both.assign_attrs(data=config.data)


def _check(config: Config) -> None:
    if not config.orders:
        raise ValueError("Expected an order of the pixels, got none. Try --orders=plain.")
    for order in config.orders:
        check_name("order of the pixels", order, ORDERS)
    if config.num_updates % config.num_evaluations:
        raise ValueError(
            f"Expected num_updates to be a multiple of num_evaluations={config.num_evaluations}, "
            f"got {config.num_updates}. Change one of the two."
        )
    _ = config.schedule  # numbers that do not divide are reported before anything is trained


def spec(name: str, num_steps: int) -> str:
    """Gives the spec that a name stands for: one of `NAMES`, or itself."""
    return NAMES[name].format(steps=num_steps) if name in NAMES else name


def learning_rate(name: str, config: Config) -> float:
    """Gives the learning rate of a cell."""
    return config.learning_rate or RATES.get(name, OTHER_RATE)


def _training(name: str, cell: Cell, task: Task, config: Config) -> Training:
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
    config: Config, place: tuple[str, str], cell: Cell, found: Images, folder: Path | None
) -> xarray.Dataset:
    order, name = place
    one = spec(name, found.task.num_steps)
    training, rate = _training(name, cell, found.task, config), learning_rate(name, config)
    begun = trained.begin(training, runs.keys(config), [(rate,)])
    first = jax.device_get(begun.params)
    names = probes.names(config.probe, cell)
    probing = Probing(names, jax.random.key(config.seed), config.num_probed) if names else None
    last = trained.to_end(
        training,
        begun,
        config.schedule,
        folder=folder,
        identity=trained.identity(config, order=order, cell=name),
        probing=probing,
        description=f"{order}, {name}, evaluations",
    )
    params = jax.device_get(last.state.params)
    if folder is not None:
        path = folder.parents[1] / "params" / f"{sanitise(name)}_{order}.safetensors"
        _save(path, params["cell"], one, config.hidden_size)
    probed = found.held_out._replace(pixels=found.held_out.pixels[: config.num_probed])
    norms = np.stack([log_norms(cell, of_stage, probed) for of_stage in (first, params)])
    measured = {
        "held_out_accuracy": ("seed", accuracy(cell, params, found.held_out)),
        "log_norm": (("stage", "seed", "image", "lag"), norms, {"units": "nats"}),
        "learning_rate": rate,
    }
    lag = curves.coordinates(found.task.num_steps)["lag"]
    dataset = xarray.Dataset(measured, {"stage": list(STAGES), "lag": lag})
    return dataset.merge(_curves(config, last)).expand_dims(order=[order], cell=[name])


def _save(path: Path, params: Params, spec: str, hidden_size: int) -> None:
    """Writes the cell of the first seed."""
    one = jax.tree.map(lambda leaf: leaf[0], params)
    save_params(path, one, cell=spec, input_size=1, hidden_size=hidden_size)


def _curves(config: Config, progress: Any) -> xarray.Dataset:
    """Loss and accuracy by update, and what was probed."""
    sizes = {"seed": config.num_seeds}
    found = {name: np.moveaxis(values, 0, 1) for name, values in progress.probes.items()}
    schedule = config.schedule
    dims = ("seed", "probe_update")
    probed, at = probes.record(found, dims, schedule.probings, axis="lag")
    return xarray.Dataset(
        {
            **trained.curves(progress, ("loss", "accuracy"), sizes),
            **probed,
        },
        coords={
            "update": ("update", schedule.evaluations, {"units": "updates"}),
            **at,
        },
    )


def log_norms(cell: Cell, params: Params, probed: Sequences) -> np.ndarray:
    """Computes log ‖∂h_T/∂s_k‖ for every model and image, index = lag T - k, in float64."""

    def of_run(x: jax.Array, params: Params) -> jax.Array:
        return map_runs(partial(flow.log_norms, cell, params, source="carry"))(x)

    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["cell"])
    with jax.enable_x64(True):
        x = jnp.swapaxes(probed.at(np.arange(len(probed.pixels))).inputs, 0, 1)
        return runs.measure(partial(of_run, x), params)


def accuracy(cell: Cell, params: Params, held_out: Sequences) -> np.ndarray:
    """Computes the fraction of all held-out images that each model classifies correctly."""

    @jax.jit
    def number_correct(params: Params, batch: Batch) -> jax.Array:
        def of_run(params: Params) -> jax.Array:
            classes = jnp.argmax(predict(cell, params, batch.inputs)[-1], axis=-1)
            return jnp.sum(classes == batch.targets[-1])

        return jax.vmap(of_run)(params)

    number = len(held_out.labels)
    parts = np.array_split(np.arange(number), max(1, number // 200))
    found = [jax.device_get(number_correct(params, held_out.at(part))) for part in parts]
    return np.sum(found, axis=0) / number


def figure(dataset: xarray.Dataset) -> Figure:
    """A row for each order: accuracy by update, the flow before and after; then the probes."""
    orders = [str(order) for order in dataset.order.values]
    maps = [(order, row) for order in orders for row in probes.rows(dataset)]
    heights = (0.6 + 2.6 * len(orders), *(probes.ROW_HEIGHT for _ in maps))
    fig = study.figure.empty(7.2, sum(heights))
    parts = fig.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    _draw_probes(parts[1:], dataset)
    panels = parts[0].subplots(len(orders), 3, squeeze=False)
    for row, order in zip(panels, orders, strict=True):
        _draw_order(row, dataset.sel(order=order))
    panels[-1][0].set_xlabel("update")
    for ax in panels[-1][1:]:
        ax.set_xlabel(curves.LAG)
    study.figure.legend_above(parts[0], panels[0][0])
    return fig


def _draw_probes(parts: Any, dataset: xarray.Dataset) -> None:
    """The maps of each order, one under the other."""
    orders = [str(order) for order in dataset.order.values]
    for order, those in zip(orders, np.array_split(parts, len(orders)), strict=True):
        data = dataset.sel(order=order)
        networks = {f"{c}, {order}": data.sel(cell=c) for c in map(str, data.cell.values)}
        probes.draw_rows(list(those), dataset, networks)


def _draw_order(row: np.ndarray, data: xarray.Dataset) -> None:
    row[2].sharey(row[1])
    for index, name in enumerate(map(str, data.cell.values)):
        _draw(row, data.sel(cell=name), _look(name, index))
    title = f"{data.order.values} {data.attrs['data']}"
    row[0].set(ylabel="accuracy on held-out images", ylim=(0, 1.01), title=title)
    row[0].axhline(ENOUGH, **outcomes.REFERENCE)
    row[1].set(ylabel=curves.norm_label("h", "s"), title="flow at initialisation")
    row[2].set(title="flow after training")


def _look(name: str, index: int) -> dict:
    kind = {"tanh": "rnn"}.get(name, parse_spec(name)[0])
    return study.figure.cell_style(kind, index) | {"label": name}


def _draw(row: np.ndarray, data: xarray.Dataset, look: dict) -> None:
    """A cell's line in each of the three panels of a row."""
    study.figure.band(row[0], data["update"], data.accuracy, "seed", **look)
    for ax, stage in zip(row[1:], STAGES, strict=True):
        norms = data.log_norm.sel(stage=stage).median("image") / curves.NATS
        study.figure.band(ax, data.lag, norms, "seed", **look)
        ax.set_xlim(0, data.sizes["lag"] - 1)


def log10_at_first_pixel(dataset: xarray.Dataset) -> xarray.DataArray:
    """Computes log10 ‖∂h_T/∂s_0‖, the median over images, by order, cell, stage and seed."""
    return dataset.log_norm.isel(lag=-1).median("image") / curves.NATS


def summary(dataset: xarray.Dataset) -> str:
    """A table of the cells in each order."""
    rows = [
        _row(dataset.sel(order=order, cell=cell))
        for order in dataset.order.values
        for cell in dataset.cell.values
    ]
    note = "(accuracy on all held-out images; log10 ‖∂h_T/∂s_0‖; means over seeds, 95 %)"
    return f"{study.table(rows)}\n{note}"


def _row(data: xarray.Dataset) -> dict[str, str]:
    name, order = str(data.cell.values), str(data.order.values)
    norms = {stage: log10_at_first_pixel(data).sel(stage=stage).values for stage in STAGES}
    row = {
        "order": order,
        "cell": name,
        "learning rate": f"{float(data.learning_rate):g}",
        "accuracy": f"{statistics.estimate(data.held_out_accuracy.values):.3f}",
        **{f"flow, {stage}": f"{statistics.estimate(of):.1f}" for stage, of in norms.items()},
    }
    if data.attrs.get("data") == "mnist":
        published = PUBLISHED.get(name)
        row["published"] = f"{published[ORDERS.index(order)]:.3f}" if published else ""
    return row


def claims(dataset: xarray.Dataset) -> list[study.Claim]:
    """Whether a gated cell or the IRNN reaches 95 %, and where training lifts the gradient."""
    first = dataset.isel(order=0)
    names = [str(cell) for cell in first.cell.values]
    others = [name for name in names if name not in ("tanh", "orthogonal")]
    enough = [_enough(first, others)] if others and "tanh" in names else []
    return [*enough, *(_lifted(first, name) for name in names)]


def _enough(data: xarray.Dataset, others: list[str]) -> study.Claim:
    found = {
        name: statistics.estimate(data.held_out_accuracy.sel(cell=name).values)
        for name in (*others, "tanh")
    }
    best = max(others, key=lambda name: found[name].value)
    images = f"{data.order.values} {data.attrs['data']}"
    return study.claim(
        "gated-enough",
        f"A gated cell or the IRNN classifies {ENOUGH:.0%} of the held-out {images}, and tanh "
        "fewer.",
        decisions.every(
            [decisions.above(found[best], ENOUGH), decisions.below(found["tanh"], ENOUGH)]
        ),
        measured={f"accuracy of {name}": found[name] for name in (best, "tanh")},
        criterion=f"the 95 % interval of the best of them lies above {ENOUGH:g} and that of tanh "
        "below",
    )


def _lifted(data: xarray.Dataset, name: str) -> study.Claim:
    norms = log10_at_first_pixel(data.sel(cell=name))
    with np.errstate(invalid="ignore"):  # of a gradient that is exactly 0 before and after
        change = (norms.sel(stage="trained") - norms.sel(stage="initialisation")).values
    lift = statistics.estimate(change)
    return study.claim(
        decisions.identifier("training-lifts", name),
        f"Training lifts the gradient that reaches the first pixel ({name}).",
        decisions.above(lift),
        measured={"change of log10 ‖∂h_T/∂s_0‖": lift},
        criterion="the 95 % interval of the change lies above 0",
    )


EXPERIMENT = study.Experiment(
    name="sequential_images",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    claims=claims,
    files=lambda config: mnist_files(config.data_dir) if config.data == "mnist" else (),
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
