"""Exploding gradients are cliffs of the error surface, and clipping keeps a step from leaving them.

Fig. 6: the error after 50 steps of one unit without input, over its two parameters::

    x_t = w σ(x_{t-1}) + b    x_0 = 0.5    E = (σ(x_50) - 0.7)²

The wall is where x_0 is the unstable fixed point, b = 0.5 - w σ(0.5). Fig. 3: the states at which
the unit settles against b, at w = 5, with the two folds where one of them is lost.

Source: Pascanu, Mikolov, Bengio 2013, arXiv:1211.5063, Fig. 3 and 6, Algorithm 1.

    python experiments/papers/pascanu2013.py

Takes about 15 seconds on two cores.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray
from _kit import fields
from _paper import Paper

from gradflow import Cell, Params, study, unroll
from gradflow.study import Claim, derived, statement
from gradflow.study.figure import Figure

FOLD_W = 5.0
START = 0.5
WALL_W = (5.0, 5.5, 6.0, 6.5)
LEARNING_RATE = 0.01
THRESHOLD = 1.0

FOLD_MARGIN = 0.005
"""The spacing in b of Fig. 3; nearer to a fold the state settles too slowly to be classified."""

SHOWN = np.array([[5, 6.5], [-3.4, -2.4]])
"""The ends of w and of b in the picture of the surface."""


@dataclass(frozen=True)
class Config(study.Config):
    """The grid of the surface, and the time in which the states settle."""

    num_steps: int = fields.positive(50, help="Time steps of the model of Fig. 6.")
    grid: int = fields.positive(1201, help="Points along each axis of w and b.")
    settle: int = fields.positive(5000, help="Time steps until a state has settled.")


def one_unit() -> Cell:
    """x_t = w σ(x_{t-1}) + b, with the carry x and the output σ(x)."""

    def step(params: Params, x: jax.Array, _: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = params["w"] * jax.nn.sigmoid(x) + params["b"]
        return x, jax.nn.sigmoid(x)

    return Cell(lambda key: {"w": jnp.zeros(()), "b": jnp.zeros(())}, step, lambda: jnp.zeros(1))


def states(w: jax.Array, b: jax.Array, start: jax.Array, num_steps: int) -> jax.Array:
    """Computes x_0 ... x_T."""
    inputs = jnp.zeros((num_steps, 0))
    return unroll(one_unit(), {"w": w, "b": b}, inputs, carry=start[None]).carries[:, 0]


def error(theta: jax.Array, num_steps: int) -> jax.Array:
    """Computes E of Fig. 6 at theta = (w, b)."""
    last = states(theta[0], theta[1], jnp.asarray(START), num_steps)[-1]
    return (jax.nn.sigmoid(last) - 0.7) ** 2


@partial(jax.jit, static_argnums=2)
def surface(w: jax.Array, b: jax.Array, num_steps: int) -> tuple[jax.Array, jax.Array]:
    """Computes E and ‖∂E/∂(w, b)‖ over the grid, each of shape (w, b)."""
    at = jax.vmap(jax.value_and_grad(partial(error, num_steps=num_steps)))

    def row(w: jax.Array) -> tuple[jax.Array, jax.Array]:
        value, slope = at(jnp.stack([jnp.full_like(b, w), b], axis=1))
        return value, jnp.linalg.norm(slope, axis=1)

    return jax.lax.map(row, w)


slope = jax.jit(jax.grad(error), static_argnums=1)


def wall(w: float, num_steps: int) -> float:
    """Finds the b of the steepest point at this w, by a grid that is refined three times."""
    low, high, best = -4.0, -1.0, 0.0
    for _ in range(3):
        b = np.linspace(low, high, 1201)
        best = float(b[np.argmax(surface(np.array([w]), b, num_steps)[1][0])])
        low, high = best - 2 * (b[1] - b[0]), best + 2 * (b[1] - b[0])
    return best


def folds(w: float) -> list[float]:
    """Finds the two b where a fixed point is lost: the map has slope 1 there. Bisects x."""
    cell = one_unit()
    params = {"w": jnp.asarray(w), "b": jnp.zeros(())}

    def move(x: jax.Array) -> jax.Array:
        return cell.step(params, x[None], jnp.zeros(0))[0][0]

    slope_at = jax.jit(jax.grad(move))
    found = []
    for outside in (-10.0, 10.0):  # where the map is flat; its slope is largest at 0
        flat, steep = outside, 0.0
        for _ in range(60):
            middle = (flat + steep) / 2
            flat, steep = (middle, steep) if slope_at(jnp.asarray(middle)) < 1 else (flat, middle)
        found.append(float(steep - move(jnp.asarray(steep))))
    return found


def descend(theta: np.ndarray, num_steps: int, clip: bool, updates: int) -> np.ndarray:
    """Descends on E from theta, plainly or with the gradient clipped by its norm."""
    clipping = optax.clip_by_global_norm(THRESHOLD) if clip else optax.identity()
    optimiser = optax.chain(clipping, optax.sgd(LEARNING_RATE))
    at, state, path = jnp.asarray(theta), optimiser.init(jnp.asarray(theta)), [theta]
    for _ in range(updates):
        change, state = optimiser.update(slope(at, num_steps), state)
        at = at + jnp.asarray(change)
        path.append(np.asarray(at))
    return np.stack(path)


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Computes the surface with its wall and two descents, and the settled states."""
    del once  # it takes seconds
    T = config.num_steps
    w, b = np.linspace(4, 7, config.grid), np.linspace(-4, -1, config.grid)
    value, size = map(np.asarray, surface(w, b, T))
    steepest = np.unravel_index(int(np.argmax(size)), size.shape)
    peak = np.array([w[steepest[0]], b[steepest[1]]])
    start = np.array([5.6, wall(5.6, T)])
    shown = {"w": np.linspace(5, 6.5, 76), "b": np.linspace(-3.4, -2.4, 76)}
    shown_b = np.linspace(-3.2, -1.8, 281)
    settled = jax.jit(jax.vmap(jax.vmap(partial(_settle, config.settle), (None, 0)), (0, None)))
    return xarray.Dataset(
        {
            "gradient": (("quantile",), np.quantile(size, [0.5, 0.99, 1.0])),
            "error": (("quantile",), np.quantile(value, [0, 0.5, 1.0])),
            "surface": (("w", "b"), surface(shown["w"], shown["b"], T)[0]),
            "wall": (("wall_w",), [wall(w, T) for w in WALL_W]),
            "fold": (("side",), folds(FOLD_W)),
            "settled": (("fold_b", "start"), np.asarray(settled(shown_b, np.array([-9.0, 9.0])))),
            "throw": (("update", "theta"), descend(peak, T, False, 1)),
            "path": (("clip", "update_of_path", "theta"), _both(start, T, 30)),
        },
        coords={**shown, "wall_w": list(WALL_W), "fold_b": shown_b, "clip": [False, True],
                "quantile": [0.5, 0.99, 1.0]},
    )  # fmt: skip


def _settle(num_steps: int, b: jax.Array, start: jax.Array) -> jax.Array:
    return states(jnp.asarray(FOLD_W), b, start, num_steps)[-1]


def _both(theta: np.ndarray, num_steps: int, updates: int) -> np.ndarray:
    return np.stack([descend(theta, num_steps, clip, updates) for clip in (False, True)])


def claims(dataset: xarray.Dataset) -> list[Claim]:
    """The bifurcations of Fig. 3, and the wall of Fig. 6 with a step from it."""
    return [*about_folds(dataset), *about_wall(dataset), about_step(dataset)]


def about_folds(dataset: xarray.Dataset) -> list[Claim]:
    """The two bifurcations of Fig. 3."""
    size = 0.5 * (1 + np.array([-1, 1]) * np.sqrt(1 - 4 / FOLD_W))  # σ(x) with w σ(1 - σ) = 1
    fold = np.log(size / (1 - size)) - FOLD_W * size
    bistable = np.ptp(dataset.settled.values, axis=1) > 0.1
    b, low, high = dataset.fold_b, fold.min(), fold.max()
    inside = (b > low + FOLD_MARGIN) & (b < high - FOLD_MARGIN)
    outside = (b < low - FOLD_MARGIN) | (b > high + FOLD_MARGIN)
    return [
        derived(
            "fig3-folds",
            "At w = 5 the two folds are where the map's slope at a fixed point is 1 (measured: b).",
            fold,
            dataset.fold.values,
            atol=1e-5,
            source="roots of w σ(x)(1 - σ(x)) = 1; the paper prints none",
            digits=7,
        ),
        statement(
            "fig3-bistable",
            "At w = 5 there are two bifurcations, with two attractors between them.",
            "two attractors for a range of b",
            {f"values of b with two attractors, of {bistable.size}": bistable.sum()},
            source="Fig. 3 and its caption",
            exact=True,
            criterion="two states are found at every b between the folds and one at every other",
            holds=bistable[inside].all() and not bistable[outside].any(),
        ),
    ]


def about_wall(dataset: xarray.Dataset) -> list[Claim]:
    """The wall of Fig. 6."""
    gradient = dataset.gradient.values
    sigma = 1 / (1 + np.exp(-START))
    return [
        derived(
            "fig6-wall",
            "The wall is where x_0 is the unstable fixed point (b at w = 5, 5.5, 6, 6.5).",
            START - sigma * dataset.wall_w.values,
            dataset.wall.values,
            atol=1e-3,
            digits=6,
            source="x_0 is the unstable fixed point, b = 0.5 - w σ(0.5)",
        ),
        statement(
            "fig6-cliff",
            "The error surface has a wall of steep gradients.",
            "a high-curvature wall",
            {"largest over median gradient": gradient[2] / gradient[0]},
            source="Fig. 6",
            criterion="the largest gradient of the grid is over 1e4 times its median",
            holds=gradient[2] / gradient[0] > 1e4,
            picture=True,
        ),
    ]


def about_step(dataset: xarray.Dataset) -> Claim:
    """One plain step from the wall."""
    moved = float(np.linalg.norm(dataset.throw[1] - dataset.throw[0]))
    return statement(
        "fig6-throw",
        "A plain gradient step at the wall moves the parameters far away.",
        "thrown over the wall",
        {"distance moved": moved},
        source="Fig. 6, solid arrows",
        criterion="a step with learning rate 0.01 moves them by over 1",
        holds=moved > 1,
        picture=True,
    )


def figure_6(dataset: xarray.Dataset) -> Figure:
    """The surface of Fig. 6, with a plain descent (solid) and a clipped one (dashed)."""
    from mpl_toolkits.mplot3d import Axes3D

    fig = study.figure.empty(5.0, 4.0)
    ax = fig.add_subplot(projection="3d", computed_zorder=False)
    assert isinstance(ax, Axes3D)
    w, b = np.meshgrid(dataset.w, dataset.b, indexing="ij")
    ax.plot_surface(w, b, dataset.surface.values, cmap="viridis", alpha=0.8, rcount=76, ccount=76)
    for clip, look in ((0, "-"), (1, "--")):
        path = dataset.path.values[clip]
        gone = np.any((path < SHOWN[:, 0]) | (path > SHOWN[:, 1]), axis=1)
        if gone.any():  # the first step that leaves the picture is drawn to its edge
            last = int(np.argmax(gone))
            path = np.concatenate([path[:last], [_cut(path[last - 1], path[last])]])
        heights = [float(error_plain(*theta)) + 0.01 for theta in path]
        label = "gradient clipped" if clip else "plain gradient descent"
        ax.plot(*path.T, heights, "k" + look, marker=".", label=label, zorder=5)
    ax.set(xlabel="w", ylabel="b", zlabel="error $E_{50}$", xlim=SHOWN[0], ylim=SHOWN[1])
    ax.view_init(elev=32, azim=-50)
    ax.legend(loc="upper left")
    return fig


def error_plain(w: float, b: float) -> float:
    """Computes E of Fig. 6 in plain numbers, for the arrows of the picture."""
    x = START
    for _ in range(50):
        x = w / (1 + np.exp(-x)) + b
    return (1 / (1 + np.exp(-x)) - 0.7) ** 2


def _cut(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Finds the point where the line from start to end leaves the picture."""
    (low, high), way = SHOWN.T, end - start
    with np.errstate(divide="ignore", invalid="ignore"):
        times = np.where(
            way > 0, (high - start) / way, np.where(way < 0, (low - start) / way, np.inf)
        )
    return start + min(1.0, float(times.min())) * way


def figure_3(dataset: xarray.Dataset) -> Figure:
    """The state at which the unit settles, against b."""
    fig = study.figure.empty()
    ax = fig.subplots()
    for start, color in zip(dataset.settled.values.T, ("#0072B2", "#D55E00"), strict=True):
        ax.plot(dataset.fold_b, start, ".", color=color, ms=2)
    low, high = dataset.settled.values[[0, -1]].mean(axis=1)
    x = np.linspace(low, high, 400)
    ax.plot(x - FOLD_W / (1 + np.exp(-x)), x, color="0.6", lw=0.8, zorder=0, label="fixed points")
    for b in dataset.fold.values:
        ax.axvline(b, color="0.3", lw=0.8, ls=":")
    ax.set(xlabel="b", ylabel=r"$x_\infty$", title="Settled states from both sides, w = 5")
    ax.legend()
    return fig


EXPERIMENT = Paper(
    name="papers/pascanu2013",
    config=Config,
    run=run,
    figure=figure_6,
    claims=claims,
    quick={"grid": 201, "settle": 2000},
    doc=__doc__,
    citation="Pascanu, Mikolov, Bengio 2013, On the difficulty of training recurrent neural "
    "networks, arXiv:1211.5063",
    figures={"fig6": figure_6, "fig3": figure_3},
    traps=(
        "The paper prints no number for either figure, and the ranges of the axes of Fig. 6 were "
        "not read in it.",
        "The largest gradient has no bound: it grows as the grid is refined.",
    ),
)

if __name__ == "__main__":
    study.main(EXPERIMENT)
