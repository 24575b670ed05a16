"""A linear RNN with singular values within a margin of 1, and its training by Vorontsov 2017.

U and V stay orthogonal by updates along geodesics; RMSprop trains all other parameters::

    h_t = W h_{t-1} + W_x x_t + b    W = U S Vᵀ    s = 1 + 2m (sigmoid(p) - 1/2)

Source: Vorontsov, Trabelsi, Kadoury, Pal 2017, arXiv:1702.00071, section 2, and its code
(veugene/spectre_release).
"""

import functools
import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gradflow import Cell, Params
from gradflow.cells import rnn
from gradflow.devices import map_runs
from gradflow.initializers import resolve_initializer
from gradflow.tasks import Batch, Task, resolve_task
from gradflow.train import Descent, Schedule, step
from gradflow.train.model import predict
from gradflow.train.objective import batch_loss
from gradflow.train.optimisers import rmsprop

RATE, GEODESIC_RATE, DECAY, CLIP = 1e-4, 1e-6, 1e-4, 100.0
RECALLED = 10
FREE = "none"
"""The name of a network without a margin, whose s = 1 + p."""


@functools.cache
def net(hidden_size: int) -> Cell:
    """Makes the linear RNN, which reads one number per step."""
    return rnn(1, hidden_size, activation="identity")


def margin_of(name: str) -> float:
    """Gives the margin m of a name; infinity for none.

    Raises:
      ValueError: If the name is neither a number from 0 to 1 nor none.
    """
    try:
        margin = math.inf if name == FREE else float(name)
    except ValueError:
        margin = math.nan
    if not (0 <= margin <= 1 or name == FREE):
        raise ValueError(f"Expected a margin from 0 to 1, or {FREE}, got {name!r}. Try 0.1.")
    return margin


def scalar_copy(lag: int) -> Task:
    """Copy memory with the authors' inputs: symbols are 1 ... 8, a blank is 0, the marker -1."""
    task = resolve_task(f"copy(lag={lag})")
    values = np.array([*range(1, 9), 0, -1], np.float32)

    def sample(key: jax.Array, batch_size: int) -> Batch:
        batch = task.sample(key, batch_size)
        return batch._replace(inputs=(batch.inputs @ values)[..., None])

    return task._replace(sample=sample, input_size=1)


def of_last_step(task: Task) -> Task:
    """Changes a task so that its loss is that of the last step alone."""

    def sample(key: jax.Array, batch_size: int) -> Batch:
        batch = task.sample(key, batch_size)
        return batch._replace(weights=jnp.zeros_like(batch.weights).at[-1].set(1))

    return task._replace(sample=sample)


def initialise(key: jax.Array, hidden_size: int) -> Params:
    """Initialises uniform orthogonal U and V, all s = 1, and W_x ~ U(±0.01)."""
    k_U, k_V, k_x, k_out = jax.random.split(key, 4)
    orthogonal, glorot = map(resolve_initializer, ("orthogonal", "glorot"))
    dtype = jnp.result_type(float)
    square = (hidden_size, hidden_size)
    return {
        "U": orthogonal(k_U, square, dtype),
        "V": orthogonal(k_V, square, dtype),
        "p": jnp.zeros(hidden_size),
        "W_x": jax.random.uniform(k_x, (hidden_size, 1), dtype, -0.01, 0.01),
        "b": jnp.zeros(hidden_size),
        "readout": {"W": glorot(k_out, (9, hidden_size), dtype), "b": jnp.zeros(9)},
    }


def spectrum(p: jax.Array, margin: Any) -> jax.Array:
    """Computes the singular values: within the margin of 1, or 1 + p without a margin."""
    is_free = jnp.isinf(margin)
    m = jnp.where(is_free, 1.0, margin)  # with an infinite m the unused branch gives a NaN gradient
    bounded = 1 + 2 * m * (jax.nn.sigmoid(p) - 0.5)
    return jnp.where(is_free, jnp.maximum(1 + p, 0), bounded)


def model(params: Params, margin: Any) -> Params:
    """Computes the parameters of the linear RNN, with W = U S Vᵀ."""
    W_h = (params["U"] * spectrum(params["p"], margin)) @ params["V"].T
    cell = {"W_h": W_h, "W_x": params["W_x"], "b": params["b"]}
    return {"cell": cell, "readout": params["readout"]}


def geodesic(Q: jax.Array, slope: jax.Array, rate: float) -> jax.Array:
    """Computes (I + rate/2 A)⁻¹ (I - rate/2 A) Q with A = G Qᵀ - Q Gᵀ, which is orthogonal.

    G is the gradient, ``slope``.
    """
    A = slope @ Q.T - Q @ slope.T
    eye = jnp.eye(len(Q), dtype=Q.dtype)
    return jnp.linalg.solve(eye + rate / 2 * A, (eye - rate / 2 * A) @ Q)


def rescaling(margin: jax.Array) -> jax.Array:
    """Computes 1/2m, which makes s move equally at every margin; 1 for m = 0 and without one."""
    is_bounded = (margin > 0) & jnp.isfinite(margin)
    return 1 / jnp.where(is_bounded, 2 * margin, 1)


class Evaluation(NamedTuple):
    """The network at an update, and its loss and accuracy on fresh sequences."""

    net: Params
    loss: jax.Array
    accuracy: jax.Array


def trainer(
    task: Task, hidden_size: int, batch_size: int, schedule: Schedule
) -> Callable[[jax.Array, jax.Array], Evaluation]:
    """Makes (keys, margins), one for each run, -> its evaluations; the first is before training."""
    cell, number = net(hidden_size), len(schedule.evaluations)
    clip = optax.clip_by_global_norm(CLIP)

    def objective(params: Params, margin: jax.Array, batch: Batch) -> jax.Array:
        found = model(params, margin)
        loss = batch_loss(task.loss, predict(cell, found, batch.inputs), batch)
        decayed = found["cell"]["W_h"], found["cell"]["W_x"], found["readout"]["W"]
        return loss + DECAY * sum(jnp.sum(W**2) for W in decayed)

    def optimiser(margin: jax.Array) -> optax.GradientTransformation:
        def rescale(moves: Any, params: Any) -> Any:
            return moves | {"p": rescaling(margin) * moves["p"]}

        # The authors train with Lasagne, whose ε is inside the square root.
        free = rmsprop(RATE, decay=0.9, eps=1e-6, eps_in_sqrt=True)
        return optax.chain(free, optax.stateless(rescale))

    def update(margin: jax.Array, descent: Descent, key: jax.Array) -> tuple[Descent, None]:
        params = descent.params
        slope: Any = jax.grad(objective)(params, margin, task.sample(key, batch_size))
        slope, _ = clip.update(slope, optax.EmptyState())
        moved = step(optimiser(margin), descent, slope)
        bases = {n: geodesic(params[n], slope[n], GEODESIC_RATE) for n in ("U", "V")}
        return moved._replace(params=moved.params | bases), None

    def evaluate(margin: jax.Array, key: jax.Array, params: Params) -> Evaluation:
        found, batch = model(params, margin), task.sample(key, batch_size)
        predictions = predict(cell, found, batch.inputs)
        correct = jnp.argmax(predictions, axis=-1) == batch.targets
        loss = batch_loss(task.loss, predictions, batch)
        return Evaluation(found, loss, jnp.mean(correct[-RECALLED:]))

    def one(key: jax.Array, margin: jax.Array) -> Evaluation:
        k_init, k_eval, k_train = jax.random.split(key, 3)
        first = initialise(k_init, hidden_size)

        def chunk(descent: Descent, key: jax.Array) -> tuple[Descent, Params]:
            keys = jax.random.split(key, schedule.eval_every)
            descent, _ = jax.lax.scan(partial(update, margin), descent, keys)
            return descent, descent.params

        keys = jax.random.split(k_train, number - 1)
        _, later = jax.lax.scan(chunk, Descent.start(optimiser(margin), first), keys)
        params = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, later)
        return jax.lax.map(partial(evaluate, margin, k_eval), params)

    return jax.jit(map_runs(one))
