"""What the study measures: rates, live paths, sizes of the state, the sweep of the gain, losses."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from _kit import curves, gain_sweep, rates, runs, trained, tuning

from gradflow import Params, flow, unroll
from gradflow.cell import Key
from gradflow.cells import rnn
from gradflow.cells.rnn import switched_rnn, with_each_activation
from gradflow.numerics.exact_slopes import exact_slopes
from gradflow.spec import split_specs
from gradflow.tasks import Task
from relu_vs_tanh.config import Config
from relu_vs_tanh.paths import log_live_paths


def initialise(config: Config, keys: Key, input_size: int) -> Params:
    """Initialises `switched_rnn` from each initialiser and key, (initialiser, run, ...).

    The activation is the first one: phi is 0.
    """
    cells = [
        rnn(input_size, config.hidden_size, recurrent_init=spec)
        for spec in split_specs(config.inits)
    ]
    net = runs.initialise_each(cells, jax.vmap(runs.cell_key)(keys))
    return {"phi": jnp.zeros(net["b"].shape[:2], net["b"].dtype), "net": net}


def measure(config: Config) -> xarray.Dataset:
    """Norms, live paths and sizes of the state of every initialiser with every activation."""
    dims, shape, params, inputs = _measured(config)
    found = runs.measure(partial(_of_run, config), params, config.input_stds[-1] * inputs)
    norms, live, sizes = (values.reshape(*shape, -1) for values in found)
    return xarray.Dataset(
        {
            "log_norm": ((*dims, "lag"), norms, {"units": "nats"}),
            "log_live": ((*dims, "lag"), live, {"units": "nats", "of": "fraction of live paths"}),
            "log_size": ((*dims, "step"), sizes, {"units": "nats", "of": "RMS of h_t"}),
        },
        coords={**_names(config), **curves.coordinates(config.num_steps)},
    )


def measure_scales(config: Config) -> xarray.Dataset:
    """The rate of the norm of every network at each scale of its inputs."""
    dims, shape, params, inputs = _measured(config)
    cell = switched_rnn(config.activations, config.input_size, config.hidden_size)

    def of_run(params: Params, x: jax.Array) -> jax.Array:
        stds = jnp.asarray(config.input_stds, x.dtype)
        return jax.lax.map(lambda std: flow.log_norms(cell, params, std * x), stds)

    found = rates.slopes(runs.measure(of_run, params, inputs)).reshape(*shape, -1)
    return xarray.Dataset(
        {"rate": ((*dims, "input_std"), found, {"units": "nats per step"})},
        coords={**_names(config), "input_std": list(config.input_stds)},
    )


def _names(config: Config) -> dict[str, list[str]]:
    return {"activation": list(config.activations), "init": split_specs(config.inits)}


def _measured(config: Config) -> tuple[tuple[str, ...], tuple[int, ...], Params, jax.Array]:
    """All networks, one after the other, with their dimensions, and inputs of deviation 1."""
    networks = initialise(config, runs.keys(config), config.input_size)
    shape = len(config.activations), *networks["phi"].shape
    inputs = jnp.tile(runs.inputs(config), (shape[0] * shape[1], 1, 1))
    return ("activation", "init", "run"), shape, with_each_activation(networks, shape[0]), inputs


def _of_run(config: Config, params: Params, x: jax.Array) -> tuple[jax.Array, ...]:
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


def sweep(config: Config) -> xarray.Dataset:
    """Sizes of the state, and ‖∂h_T/∂h_0‖, of the first initialiser at each gain."""
    cell = switched_rnn(config.activations, config.input_size, config.hidden_size)
    gains = np.linspace(0, config.max_gain, config.num_gains + 1)[1:]
    networks = initialise(config, runs.keys(config), config.input_size)
    first = jax.tree.map(lambda leaf: leaf[:1], networks)
    params = with_each_activation(first, len(config.activations))
    inputs = jnp.tile(config.input_stds[-1] * runs.inputs(config), (len(config.activations), 1, 1))
    shape = len(config.activations), config.num_seeds, config.num_gains
    found = gain_sweep.sweep(cell, params, inputs, gains)
    return xarray.Dataset(
        {
            name: (("activation", "run", "gain"), values.reshape(shape), gain_sweep.ATTRS[name])
            for name, values in found.items()
        },
        coords={"activation": list(config.activations), "gain": gains},
    )


def train(config: Config, task: Task, folder: Path | None) -> xarray.Dataset:
    """Trains the first initialiser with every activation at its own learning rate."""
    cell = switched_rnn(config.activations, task.input_size, config.hidden_size)
    training = trained.setup(config, cell, task, clipping="global_norm(threshold=1)")
    grid, number = config.learning_rates, len(config.activations)
    test, validation = tuning.keys(config)
    cells = [_first(config, keys, task.input_size) for keys in (test, validation)]
    with jax.enable_x64(False):
        settings = [(rate,) for rate in grid for _ in range(number)]
        again = jax.tree.map(
            lambda leaf: np.tile(leaf, [len(grid)] + [1] * (leaf.ndim - 1)), cells[1]
        )
        found = tuning.final_losses(config, training, settings, cells=again, folder=folder)
        tried = np.moveaxis(found.reshape(len(grid), number, -1), 0, 1)
        chosen = [(rate,) for rate in tuning.best(tried, grid)]
        last = trained.to_end(
            training,
            trained.begin(training, test, chosen, jax.tree.map(jnp.asarray, cells[0])),
            config.schedule,
            folder=folder,
            identity=trained.identity(config),
        )
    sizes = {"activation": number, "run": config.num_seeds}
    return xarray.Dataset(
        {
            **trained.curves(last, ("loss", "accuracy"), sizes),
            **tuning.variables(tried, grid, "activation"),
        },
        coords={
            "activation": list(config.activations),
            "update": ("update", config.schedule.evaluations, {"units": "updates"}),
        },
        attrs={"task": config.task, "baseline": task.baseline},
    )


def _first(config: Config, keys: Key, input_size: int) -> Params:
    """The first initialiser with every activation, (activation x run, ...), in float32."""
    first = jax.tree.map(lambda leaf: leaf[:1], initialise(config, keys, input_size))
    networks = with_each_activation(first, len(config.activations))
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), networks)
