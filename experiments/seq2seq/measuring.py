"""Trains the networks of one cell and measures them before and after: a part of the record."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import jax
import numpy as np
import xarray
from _kit import probes, trained, tuning

from gradflow import Params, study
from gradflow.devices import map_runs
from gradflow.interop import save_params
from gradflow.study.config import sanitise
from gradflow.train.prober import Prober
from gradflow.train.probes import prober
from seq2seq.config import Config
from seq2seq.results import STAGES
from seq2seq.rewriter import Rewriter
from seq2seq.strings import Pairs, Rewriting, spelled
from seq2seq.training import METRICS, Encoding, Rewriters, log_adjoints


def measure(
    config: Config, data: Rewriting, spec: str, net: Rewriter, folder: Path | None
) -> xarray.Dataset:
    """Trains the networks of one cell at their best rate, and measures them before and after."""
    tried = _tried_losses(config, data, spec, net, folder)
    (rate,) = tuning.best(tried, config.learning_rates)
    init = jax.jit(jax.vmap(net.init))
    first = jax.device_get(init(tuning.keys(config)[0]))
    numbers = np.arange(config.num_seeds)
    steps = Rewriters(net, data, config, numbers, np.full(config.num_seeds, rate)).fit(
        first,
        measure=_prober(config, net, data),
        folder=folder,
        identity=trained.identity(config, cell=spec),
    )
    *_, last = study.progress(steps, f"{spec}, evaluations")
    params = jax.device_get(last.state.params)
    if folder is not None:
        _save(study.params_folder(folder), spec, (net, config), params)
    probed = data.test.of_one_length(config.num_probed)
    num_encoder, num_decoder = probed.sources.shape[1], probed.targets.shape[1]
    found = {name: np.moveaxis(values, 0, 1) for name, values in last.probes.items()}
    dims, schedule = ("seed", "probe_update"), config.schedule
    variables, at = probes.record(found, dims, schedule.probings, axis="lag")
    return xarray.Dataset(
        {
            **{name: (("seed", "update"), last.metrics[name].T) for name in METRICS},
            **variables,
            "log_adjoint": _norms(net, probed, (first, params)),
            **_examples(net, data, params),
            **tuning.variables(tried, config.learning_rates),
        },
        coords={
            "stage": list(STAGES),
            "step": np.arange(-num_encoder, num_decoder + 1),
            "update": schedule.evaluations,
            **({"lag": np.arange(num_encoder + 1)} if found else {}),
            **at,
        },
    ).expand_dims(cell=[spec])


def _tried_losses(
    config: Config, data: Rewriting, spec: str, net: Rewriter, folder: Path | None
) -> np.ndarray:
    """Trains the validation seeds at every rate; returns their final losses, (rate, seed)."""
    keys, rates = tuning.keys(config)[1], config.learning_rates
    numbers = np.tile(np.arange(len(keys)), len(rates))
    first = jax.device_get(jax.jit(jax.vmap(net.init))(keys[numbers]))
    nets = Rewriters(net, data, config, config.num_seeds + numbers, np.repeat(rates, len(keys)))
    kept = folder and folder / "validation"
    steps = nets.fit(first, folder=kept, identity=trained.identity(config, validated=spec))
    *_, last = study.progress(steps, f"{spec}, learning rates")
    return last.metrics["loss"][-1].reshape(len(rates), len(keys)).astype(float)


def _norms(net: Rewriter, pairs: Pairs, stages: Iterable[Params]) -> tuple:
    """`log_adjoints` of every network and pair at each stage."""

    def of_net(params: Params) -> jax.Array:
        return map_runs(lambda *pair: log_adjoints(net, params, Pairs(*pair)))(*pairs)

    with jax.enable_x64(True):
        measure = jax.jit(map_runs(of_net))
        norms = [jax.device_get(measure(jax.tree.map(np.float64, params))) for params in stages]
    return ("stage", "seed", "sequence", "step"), np.stack(norms)


def _examples(net: Rewriter, data: Rewriting, params: Params) -> dict[str, tuple]:
    """A few sources and targets, and the output of each network."""
    shown = data.test.at(np.arange(6))

    @jax.jit
    def free(params: Params, pairs: Pairs) -> jax.Array:
        num_steps = pairs.targets.shape[1]
        write = partial(net.free, lengths=pairs.lengths)
        return jax.vmap(lambda p: write(p, pairs.sources.T, num_steps))(params)

    outputs = jax.device_get(free(params, shown))
    return {
        "source": ("example", [spelled(row, data.read) for row in shown.sources]),
        "target": ("example", [spelled(row, data.written) for row in shown.targets]),
        "output": (
            ("seed", "example"),
            [[spelled(row, data.written) for row in of_net.T] for of_net in outputs],
        ),
    }


def _save(folder: Path, spec: str, what: tuple[Rewriter, Config], params: Params) -> None:
    """Writes the encoder and the decoder of the first seed."""
    net, config = what
    for name, input_size in (("encoder", net.num_read), ("decoder", net.num_written)):
        save_params(
            folder / f"{sanitise(spec)}_{name}.safetensors",
            jax.tree.map(lambda leaf: leaf[0], params[name]),
            cell=spec,
            input_size=input_size,
            hidden_size=config.hidden_size,
        )


def _prober(config: Config, net: Rewriter, data: Rewriting) -> Prober | None:
    """Probes the encoder during the training, on the pairs that the flow is measured on."""
    names = probes.names(config.probe, net.encoder)
    if not names:
        return None
    return prober(names, Encoding(net), data.test.of_one_length(config.num_probed))
