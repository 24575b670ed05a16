"""The gradient over 220 steps where singular values may lie within a margin of 1.

A linear RNN whose recurrent matrix is factorised, with singular values within a margin m of 1 or
without a margin, ::

    h_t = W h_{t-1} + W_x x_t + b    W = U S Vᵀ    s = 1 + 2m (sigmoid(p) - 1/2)

learns copy memory at T = 200, which has 220 steps. U and V stay orthogonal by updates along
geodesics (Cayley) with learning rate 1e-6. RMSprop trains all other parameters at 1e-4, and p at
1e-4/2m, with a weight decay of 1e-4. During training ‖∂L_T/∂h_t‖ is measured for every step, where
L_T is the loss of the last step alone, as the median over 4 sequences in float64; also the singular
values of W, and the accuracy on the ten symbols.

Source: Vorontsov, Trabelsi, Kadoury, Pal 2017, arXiv:1702.00071, Figs. 1, 3 and 4, and its code
(veugene/spectre_release), which has the 128 units. Fig. 1 is reduced to T = 200 and 1000 updates.

    python experiments/papers/vorontsov2017.py

Takes about two minutes on one core, with one network per margin; --full has five, and 5000
updates.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from _kit import curves, fields
from _margins import FREE, RECALLED, Evaluation, margin_of, net, of_last_step, scalar_copy, trainer
from _paper import Paper

from gradflow import study
from gradflow.study import Claim, derived, statement
from gradflow.study.figure import Axes, Figure
from gradflow.train import Schedule
from gradflow.train.probes import Probing, probe

UPDATES = 1000
"""The updates of the paper's Fig. 3."""

FLAT = 1.5
"""The ratio of the largest to the smallest norm over the steps up to which a gradient is flat."""


@dataclass(frozen=True)
class Config(study.Config):
    """The margins, the size, and the training."""

    margins: tuple[str, ...] = study.field(
        ("0", "0.001", "0.01", "0.1", "1", FREE), help="Margins m, from 0 to 1, or none."
    )
    lag: int = study.field(200, help="T of the copy memory; its sequences have T + 20 steps.")
    hidden_size: int = fields.hidden_size(128)
    batch_size: int = fields.batch_size(50)
    num_updates: int = fields.positive(1000, help="Updates.")
    eval_every: int = fields.eval_every(20)
    num_seeds: int = fields.num_seeds(1)
    precision: Literal["float64", "float32"] = fields.training_precision()


def measure(config: Config, train: Callable[..., Evaluation], name: str) -> xarray.Dataset:
    """Trains all seeds at one margin and measures their gradients: seed, update, step."""
    k_train, k_probe = jax.random.split(jax.random.key(config.seed))
    keys = jax.random.split(k_train, config.num_seeds)
    found = jax.device_get(train(keys, jnp.full(config.num_seeds, margin_of(name))))
    times = found.loss.shape
    nets = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), found.net)
    task, probing = of_last_step(scalar_copy(config.lag)), Probing(("adjoints",), k_probe)
    logs = probe(net(config.hidden_size), task, nets, probing)["adjoints"][:, 1:]
    singular = np.linalg.svd(found.net["cell"]["W_h"].astype(float), compute_uv=False)
    return xarray.Dataset(
        {
            "log_norm": (("seed", "update", "step"), logs.reshape(*times, -1)),
            "singular": (("seed", "update", "index"), singular),
            "loss": (("seed", "update"), found.loss, {"units": "nats"}),
            "accuracy": (("seed", "update"), found.accuracy),
        },
        coords={
            "update": np.arange(times[1]) * config.eval_every,
            "step": np.arange(1, logs.shape[1] + 1),
        },
    )


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Trains at every margin; dimensions margin, seed, update, step or index."""
    for name in config.margins:
        margin_of(name)
    task, schedule = scalar_copy(config.lag), Schedule(config.num_updates, config.eval_every)
    train = trainer(task, config.hidden_size, config.batch_size, schedule)
    names = study.progress(config.margins, "margins")
    parts = [once(f"margin={name}", partial(measure, config, train, name)) for name in names]
    return xarray.concat(parts, dim="margin").assign_coords(margin=list(config.margins))


def spreads(dataset: xarray.Dataset) -> xarray.DataArray:
    """Computes log10 of the largest over the smallest norm of all t, median over seeds."""
    logs = dataset.log_norm.sel(update=slice(0, UPDATES))
    spread = (logs.max("step") - logs.min("step")).median("seed") / curves.NATS
    return spread.transpose("margin", "update")


def claims(dataset: xarray.Dataset) -> list[Claim]:
    """The bound of the margin, the gradient at each of them, and what changes with the margin."""
    data = dataset.isel(margin=np.argsort([margin_of(str(m)) for m in dataset.margin.values]))
    margins = [margin_of(str(name)) for name in data.margin.values]
    return [
        about_bound(data, margins),
        *([about_orthogonal(data)] if 0 in margins else []),
        *(about_decay(data, name) for name in ("1", FREE) if name in data.margin),
        *(about_order(data, margins) if len(margins) > 1 else []),
    ]


def about_bound(data: xarray.Dataset, margins: list[float]) -> Claim:
    """The singular values against their margin."""
    excess = (abs(data.singular - 1).max(["seed", "update", "index"]) - margins).max()
    return derived(
        "fig4-bound",
        "No singular value of W leaves its margin at any update (measured: the largest excess).",
        0,
        max(0.0, float(excess)),
        atol=1e-3,
        source="section 2: s is within 1 ± m; the tolerance is for U and V in float32",
    )


def about_orthogonal(data: xarray.Dataset) -> Claim:
    """The network whose W stays orthogonal."""
    return derived(
        "fig3-orthogonal",
        "At m = 0 the norm of the gradient is the same at all steps (measured: largest over "
        "smallest, at any update).",
        1,
        10 ** float(spreads(data).isel(margin=0).max()),
        atol=0.01,
        source="Fig. 3, the first panel: constant; an orthogonal W keeps every norm",
        digits=8,
    )


def about_decay(data: xarray.Dataset, name: str) -> Claim:
    """A network whose gradient does not stay flat."""
    widest = 10 ** float(spreads(data).sel(margin=name).max())
    where = "Without a margin" if name == FREE else f"At margin {name}"
    return statement(
        f"fig3-margin-{name}",
        f"{where} the gradient differs between steps by over 10 times within {UPDATES} updates.",
        "picture",
        {"largest norm over smallest": widest},
        source="Fig. 3, the panels of margin 1 and of none; the factor is our own",
        criterion="at some update the largest norm over the steps is over 10 times the smallest",
        holds=widest > 10,
        picture=True,
    )


def about_order(data: xarray.Dataset, margins: list[float]) -> list[Claim]:
    """What changes with the margin, from the smallest to none."""
    uneven = spreads(data) > np.log10(FLAT)
    until = np.where(uneven.any("update"), uneven.idxmax("update"), np.inf)
    accuracy = data.accuracy.sel(update=slice(0, UPDATES)).isel(update=-1).median("seed").values
    widths = data.singular.isel(update=-1).std("index").median("seed").values
    wide = accuracy[np.array(margins) >= 0.01]
    order = "margins " + ", ".join(map(str, data.margin.values))
    return [
        statement(
            "fig3-flat",
            "The larger the margin, the sooner the gradient is no longer flat over the steps.",
            "picture",
            {f"updates until it is not flat at {order}": until},
            source=f"Fig. 3; flat: largest over smallest up to {FLAT}, a bound of our own",
            criterion="no margin stays flat longer than a smaller one, and the largest does not "
            "stay flat",
            holds=np.all(until[1:] <= until[:-1]) and np.isfinite(until[-1]),
            picture=True,
        ),
        statement(
            "fig1-speed",
            f"At T = 200 a margin speeds up learning (measured: accuracy at update {UPDATES}).",
            "picture",
            {f"accuracy at {order}": accuracy},
            source="Fig. 1, the panel of T = 200; to compare at one update is our own",
            criterion="every margin of 0.01 and more has a higher accuracy than the smallest",
            holds=np.all(wide > accuracy[0]),
            picture=True,
        ),
        statement(
            "fig4-spread",
            "The larger the margin, the further the singular values spread.",
            "picture",
            {f"standard deviation at {order}": widths},
            source="Fig. 4; to compare at the last update is our own",
            criterion="their standard deviation does not decrease with the margin",
            holds=np.all(np.diff(widths) >= 0),
            picture=True,
        ),
    ]


def figure(dataset: xarray.Dataset) -> Figure:
    """Fig. 3: the gradient norm over update and step, a panel for each margin."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    names = [str(name) for name in dataset.margin.values]
    rows, columns = min(3, len(names)), -(-len(names) // 3)
    fig = study.figure.empty(1.2 + 2.6 * columns, 0.5 + 1.45 * rows)
    panels = fig.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).T.ravel()
    logs = dataset.log_norm.median("seed").transpose("margin", "step", "update") / curves.NATS
    logs = logs - logs.max("step")
    scale = ScalarMappable(Normalize(float(logs.min()), 0.0), "viridis")
    for panel, name, image in zip(panels, names, logs, strict=False):
        look = {"norm": scale.norm, "cmap": scale.cmap, "rasterized": True}
        panel.pcolormesh(image["update"], image.step, image, **look)
        panel.set_title("no margin" if name == FREE else f"margin {name}")
        panel.grid(False)
    for panel in panels[len(names) :]:
        panel.set_axis_off()
    fig.supxlabel("update", fontsize=9)
    fig.supylabel("time step t", fontsize=9)
    label = r"$\log_{10}\ \|\partial L_T/\partial h_t\|$, relative to the largest of each update"
    fig.colorbar(scale, ax=list(panels)).set_label(label)
    return fig


def draw_lines(ax: Axes, values: xarray.DataArray, label: str) -> None:
    """Draws a line for each margin against the update, from dark to light."""
    shades = curves.shades(values.sizes["margin"])
    for name, shade, marker in zip(values.margin.values, shades, "osv^DP*X<>", strict=False):
        look = {"color": shade, "marker": marker, "label": str(name)}
        study.figure.band(ax, values["update"], values.sel(margin=name), "seed", **look)
    ax.set(xlabel="update", ylabel=label)


def figure_of_accuracy(dataset: xarray.Dataset) -> Figure:
    """Fig. 1 at one T: the accuracy on the ten symbols against the update."""
    fig = study.figure.empty(4.6, 2.8)
    ax = fig.subplots()
    draw_lines(ax, dataset.accuracy, "accuracy")
    ax.axhline(1 / 8, color="black", lw=0.8, ls=(0, (1, 1)), label="chance")
    ax.set(ylim=(0, 1.03), title=f"Copy memory, T = {dataset.sizes['step'] - 2 * RECALLED}")
    ax.legend(title="margin", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return fig


def figure_of_spectrum(dataset: xarray.Dataset) -> Figure:
    """Fig. 4: mean and standard deviation of the singular values of W against the update."""
    fig = study.figure.empty(6.4, 2.6)
    left, right = fig.subplots(1, 2, sharex=True)
    draw_lines(left, dataset.singular.mean("index"), "mean of the singular values of W")
    draw_lines(right, dataset.singular.std("index"), "standard deviation of the singular values")
    right.legend(title="margin", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return fig


EXPERIMENT = Paper(
    name="papers/vorontsov2017",
    config=Config,
    run=run,
    figure=figure,
    claims=claims,
    quick={
        "margins": ("0", "0.1", FREE),
        "lag": 10,
        "hidden_size": 6,
        "batch_size": 4,
        "num_updates": 20,
        "eval_every": 5,
        "num_seeds": 2,
    },
    full={"num_seeds": 5, "num_updates": 5000, "eval_every": 50},
    doc=__doc__,
    citation="Vorontsov, Trabelsi, Kadoury, Pal 2017, On orthogonality and learning recurrent "
    "networks with long term dependencies, arXiv:1702.00071",
    figures={"fig1": figure_of_accuracy, "fig3": figure, "fig4": figure_of_spectrum},
    traps=(
        "L_T is the loss of the last step alone. The loss of all steps sums over many lags, and "
        "its gradient is constant over t for no W.",
        "The code encodes a symbol as one number, 1 to 8, with 0 for a blank and -1 for the "
        "marker, not one-hot.",
        "The code divides the learning rate of p by 2m, by which the sigmoid multiplies the "
        "gradient. Without that the singular values hardly change at a small margin.",
        "The code forms its skew-symmetric matrix from GᵀQ, but geodesic descent has G Qᵀ, as "
        "here. At a learning rate of 1e-6 neither changes U and V much.",
        "The code clips each entry of the gradient inside the recurrence at 100; here the norm of "
        "the whole gradient is clipped. Its initial state is trained; here it is 0.",
        "By update 1000 the gradient is larger at early steps than at late ones, because the mean "
        "singular value has grown above 1.",
    ),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
