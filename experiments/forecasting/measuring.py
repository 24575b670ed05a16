"""How the networks of the study are made, trained, probed and measured."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from _kit import probes

from forecasting.config import Config
from forecasting.forecasters import Forecaster, dense, forecaster, read_out
from forecasting.training import Forecasting, Plan
from gradflow import flow
from gradflow.devices import map_runs
from gradflow.interop import save_params
from gradflow.spec import parse_spec
from gradflow.study.config import sanitise
from gradflow.train.probes import Subject, prober

Folder = Callable[[str], Path | None]

LAYERS = {cell: f"{cell}(input_init='glorot')" for cell in ("rnn", "lstm", "gru", "gru_layer_norm")}
"""Cells that are initialised as in Keras: W_x by Glorot's law, W_h orthogonal."""


def _two(cell: str) -> str:
    return f"{LAYERS[cell]},{LAYERS[cell]}"


NETS = {
    **LAYERS,
    "deep_rnn": f'stack(cells="{_two("rnn")}")',
    "deep_lstm": f'stack(cells="{_two("lstm")}")',
    "deep_gru": f'stack(cells="{_two("gru")}")',
    "conv_gru": f'conv(cell="{LAYERS["gru"]}")',
    "conv_deep_gru": "conv(cell={!r})".format("stack(cells={!r})".format(_two("gru"))),
    "batch_norm": f'batch_norm(cells="{_two("rnn")}")',
}
"""Networks by name; any other name is that of a cell."""

PLAIN = ("naive", "seasonal", "linear", "arima")
"""Models without a gradient."""

AHEAD = 10

INTERVAL = (0.1, 0.9)
"""Quantiles of the errors that bound the interval of a forecast."""

WINDOWS = 8
"""Test windows on which the flow is measured."""


def make_net(config: Config, name: str) -> Forecaster:
    """Makes the network of a name."""
    if name == "dense":
        return dense(config.num_steps, config.hidden_size, AHEAD)
    return forecaster(NETS.get(name, name), config.hidden_size, AHEAD)


def log_norms(net: Forecaster, params: Any, inputs: np.ndarray) -> np.ndarray:
    """Computes log ‖∂h_T/∂h_k‖ in every seed's network on windows: (seeds · windows, lags)."""
    if net.cell is None or net.measured is None:
        return np.full((1, 1), np.nan)
    cell, measured = net.cell, net.measured

    def one(params: Any) -> jax.Array:
        own, read = measured(params, jnp.asarray(inputs).T[:, :, None])
        curves = map_runs(lambda x: flow.log_norms(cell, own, x))(jnp.moveaxis(read, 1, 0))
        return curves[:, :-1]  # the Jacobian of a layer norm at s_0 = 0 is exceptional

    with jax.enable_x64(True):
        exact = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
        found = np.asarray(jax.jit(map_runs(one))(exact))
    return found.reshape(-1, found.shape[-1])


def interval(predicted: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Returns the offsets of the interval from the first seed's forecasts: (2, ahead)."""
    return np.quantile(targets - predicted[0], INTERVAL, axis=0)


def coverage(predicted: np.ndarray, targets: np.ndarray, offset: np.ndarray) -> float:
    """Computes the fraction of targets inside the interval of the first seed's forecasts."""
    off = targets - predicted[0]
    return float(np.mean((offset[0] <= off) & (off <= offset[1])))


def plan_of(config: Config, **options: Any) -> Plan:
    """Makes the plan of a configuration, with some options changed."""
    given = {
        "num_epochs": config.epochs,
        "batch_size": config.batch,
        "num_windows": config.num_windows,
        "learning_rate": config.learning_rate or 0.005,
        "falls": True,
        "patience": 10 if config.is_real else None,
        "num_seeds": config.num_seeds,
        "seed": config.seed,
    }
    return Plan(**{**given, **options})


class WholeWindow(NamedTuple):
    """Takes one window through a network that forecasts at every step, as a probe measures it."""

    net: Forecaster

    def __call__(self, params: Any, window: tuple[jax.Array, jax.Array]) -> Subject:
        """Returns what is measured, given parameters, a window and the targets of its steps."""
        net, (x, targets) = self.net, window
        assert net.cell is not None and net.measured is not None
        own, read = net.measured(params, x[:, None, None])
        targets = targets[net.first - 1 :: net.stride]

        def loss(h: jax.Array) -> jax.Array:
            return jnp.mean((read_out(params, h) - targets) ** 2)

        return Subject(net.cell, own, read[:, 0], loss)


def measure_of(
    config: Config, training: Forecasting
) -> Callable[[Any], dict[str, np.ndarray]] | None:
    """Measures the seq2seq networks during the training, on windows of the validation."""
    net = training.net
    names = probes.names(config.probe, net.cell) if config.probe and net.cell else ()
    if not names or "seq2seq" not in training.data:
        return None
    valid = training.data["seq2seq"].valid
    rows = np.linspace(0, len(valid.inputs) - 1, WINDOWS).astype(int)
    measure = prober(names, WholeWindow(net), (valid.inputs[rows], valid.targets[rows]))

    def of_all(params: Any) -> dict[str, np.ndarray]:
        return measure(training.of_task("seq2seq", training.settled(params)))

    return of_all


def fit(
    config: Config, training: Forecasting, folder: Folder, unit: str
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns the trained parameters by task, and the probes; long trainings have checkpoints."""
    place = folder(unit) if config.published else None
    return training.fit(
        measure=measure_of(config, training),
        probe_every=config.probe_every,
        folder=place,
        identity={"unit": unit},
    )


def record(
    config: Config,
    name: str,
    net: Forecaster | None,
    norms: np.ndarray,
    measured: dict[str, np.ndarray],
    own: dict[str, Any],
) -> xarray.Dataset:
    """Makes the record of one model: its own variables, the flow through it, and its probes."""
    lag = (1 if net is None else net.stride) * np.arange(norms.shape[1])
    variables, times = _probed(config, measured)
    return xarray.Dataset(
        {
            **own,
            "log_norm": (("model", "curve", "lag"), norms[None], {"units": "nats"}),
            **variables,
        },
        coords={
            "model": [name],
            "curve": np.arange(len(norms)),
            "lead": np.arange(1, AHEAD + 1),
            "lag": ("lag", lag, {"units": "steps of the series"}),
            **times,
        },
    )


def _probed(config: Config, measured: dict[str, np.ndarray]) -> tuple[dict, dict]:
    """The probes as variables of the record of one model, and their coordinates."""
    each = {name: np.moveaxis(values, 0, 1)[None] for name, values in measured.items()}
    epochs = np.arange(0, config.epochs + 1, config.probe_every)
    found, at = probes.record(each, ("model", "seed", "probe_epoch"), epochs, axis="lag")
    # Without s_0, for the reason given in `log_norms`.
    return {k: (d, v[..., :-1] if d[-1] == "lag" else v) for k, (d, v) in found.items()}, at


def save_cell(config: Config, name: str, net: Forecaster, params: Any, folder: Path | None) -> None:
    """Writes the first seed's cell, which ``vanishing.py --params`` reads."""
    if folder is None or net.cell is None or net.measured is None:
        return
    one = jax.tree.map(lambda a: a[0], params)
    own, read = net.measured(one, jnp.zeros((config.num_steps, 1, 1)))
    spec = NETS.get(name, name)
    cell = {"conv": "cell", "batch_norm": "cells"}.get(parse_spec(spec)[0])
    if cell is not None:
        spec = parse_spec(spec)[1][cell]
        spec = f"stack(cells={spec!r})" if cell == "cells" else spec
    path = folder / f"{sanitise(name)}.safetensors"
    sizes = {"input_size": read.shape[-1], "hidden_size": config.hidden_size}
    save_params(path, own, cell=spec, **sizes)
