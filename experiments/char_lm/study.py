"""Language models of characters: bits per character, and the gradient flow of the trained cells.

A cell reads one-hot characters in parallel streams, and a linear readout predicts the next one::

    p(x_{t+1} | x_1 ... x_t) = softmax(W h_t + b)          bits = log2 1/p(x_{t+1})

Backpropagation is truncated at a window, and the carry is passed from one window to the next. The
bits per character are those of the last tenth of the text, which is held out. Each of its
characters is predicted once, after a warm-up on the 2000 or more characters before it: from s_0 a
trained LSTM takes that long to reach the states of its training. On windows of the last tenth,
from s_0, log ‖∂h_T/∂h_k‖ is measured at initialisation and after training, and with --probe during
the training.

All cells have as many weights, as nearly as their hidden sizes allow, and each has its own learning
rate, the best of five on a validation seed (and the same held-out text). The gates that keep the
state have the same initial bias, 1. The claims: lstm and gru need fewer bits than rnn; after
training their gradient is above 1e-3 for more steps; the best network needs fewer than 2.5 bits.
Each is decided by a 95 % interval over seeds. With a single seed the intervals of the bits are over
stretches of text, that is, over other text and not over other trainings, and the gradient's reach
has no interval.

Source: Karpathy, Johnson, Fei-Fei 2016, arXiv:1506.02078 (the set-up and the text); Feng, Tung,
Ahmed, Bengio, Hajimirsadeghi 2024, arXiv:2410.01201 (published losses, of three-layer networks).

    python experiments/char_lm --text=PATH
    python experiments/char_lm --text=PATH --sample="ROMEO:" --temperature=0.8
    python experiments/char_lm --text=PATH --cell=gru --probe=gates,adjoints --probe_every=600
    python experiments/char_lm --text=PATH --full

Any UTF-8 text will do; Tiny Shakespeare is published at https://github.com/karpathy/char-rnn, as
data/tinyshakespeare/input.txt. With --sample each trained network continues that text
by --num_characters characters; a finished run is not trained again. The
trained cells are in params/ of the record, for `vanishing.py --params=FILE --inputs=text:PATH`.
Takes ten minutes on two idle cores at the defaults, by estimate; --full, the LSTM of 512 × 2, more
than an hour.
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np
import xarray
from _kit import cells, probes, trained, tuning

from char_lm.config import Config
from char_lm.figure import figure
from char_lm.results import claims, summary
from char_lm.sampling import train_and_write
from char_lm.training import Reader, readers, train, tried_bits
from gradflow import study
from gradflow.data.characters import TINY_SHAKESPEARE, read_characters
from gradflow.spec import split_specs


def run(config: Config, once: study.Once = study.call) -> xarray.Dataset:
    """Trains each cell from each seed; dimensions cell, seed, update, stretch, lag."""
    specs = cells.specs(config.cell)
    if config.text is None:
        raise ValueError(
            "Expected the file of a text, got none. Set --text=PATH, for example to Tiny "
            f"Shakespeare, which is published at {TINY_SHAKESPEARE}."
        )
    characters = read_characters(config.text)
    _ = config.schedule  # so that bad numbers are reported before any training
    todo, parts = readers(config, specs, characters), []
    for reader in todo:
        tried = once(f"cell={reader.spec},rates", partial(_tried, config, reader))
        rate, name = tried[tuning.RATE].item(), f"cell={reader.spec},seed="
        seeds = [
            trained.unit(once, f"{name}{seed}", _measure, config, reader, seed, rate)
            for seed in range(config.num_seeds)
        ]
        parts.append(xarray.merge([xarray.concat(seeds, dim="seed"), tried]))
    whole = xarray.concat(parts, dim="cell", join="outer", coords="minimal")
    return whole.assign_attrs(  # pyright: ignore[reportReturnType]
        alphabet=characters.alphabet,
        num_characters=len(characters.codes),
        num_trained=characters.num_trained,
        characters_an_update=config.num_streams * config.window,
        alone=todo[0].task.baseline / np.log(2),
    )


def _tried(config: Config, reader: Reader) -> xarray.Dataset:
    """Chooses the learning rate of a cell on the validation seeds."""
    tried = tuning.variables(tried_bits(config, reader), config.learning_rates)
    return xarray.Dataset(tried).expand_dims(cell=[reader.spec])


def _measure(
    config: Config, reader: Reader, seed: int, rate: float, folder: Path | None
) -> xarray.Dataset:
    """Trains a cell from a seed at a rate, and keeps its curves, its probes and its readout."""
    last, run = jax.device_get(train(config, reader, seed, rate, folder)), ("cell", "seed")
    params, lengths = last.state.params, np.asarray(reader.text.weights).sum(axis=0)
    bits, train_bits = (last.metrics[name][None, None] for name in ("stretch_bits", "train_bits"))
    each = {name: values[None, None] for name, values in last.probes.items()}
    times = ("probe_update", config.schedule.probings, {"units": "updates"})
    probed, at = probes.record(each, (*run, "probe_update"), times, axis="lag")
    dims, log_norm = probed["log_norms"]
    if "log_norms" not in split_specs(config.probe):
        del probed["log_norms"]
    return xarray.Dataset(
        {
            "bits": ((*run, "update", "stretch"), bits, {"of": "last tenth"}),
            "train_bits": ((*run, "update"), train_bits),
            "log_norm": (dims, log_norm, {"units": "nats"}),
            **probed,
            "num_weights": (run, [[sum(leaf.size for leaf in jax.tree.leaves(params["cell"]))]]),
            "readout_W": ((*run, "symbol", "unit"), params["readout"]["W"][None, None]),
            "readout_b": ((*run, "symbol"), params["readout"]["b"][None, None]),
        },
        coords={
            "cell": [reader.spec],
            "seed": [seed],
            "update": ("update", config.schedule.evaluations, {"units": "updates"}),
            "lag": ("lag", np.arange(log_norm.shape[-1]), {"units": "steps"}),
            "unit": np.arange(params["readout"]["W"].shape[1]),
            "length": ("stretch", lengths, {"units": "characters"}),
            **at,
        },
    )


EXPERIMENT = study.Experiment(
    name="char_lm",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    claims=claims,
    files=lambda config: () if config.text is None else (config.text,),
    section="sequences",
    order=5,
    gallery={"char_lm": study.Picture(("--text=data/input.txt",), ("data/input.txt",))},
    quick={
        "cell": "rnn,gru",
        "num_weights": 300,
        "num_streams": 4,
        "window": 8,
        "num_updates": 60,
        "num_seeds": 1,
        "learning_rates": (0.003, 0.03),
        "eval_every": 20,
        "flow_steps": 12,
        "flow_sequences": 2,
        "warm_up": 12,
    },
    full={
        "cell": "stack(cells='lstm,lstm')",
        "num_seeds": 1,
        "hidden_size": 512,
        "num_streams": 64,
        "window": 64,
        "num_updates": 1500,
        "eval_every": 125,
        "learning_rates": (0.001, 0.003),
    },
    doc=__doc__,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Trains, unless that is done, and with --sample writes; returns the exit code."""
    return train_and_write(EXPERIMENT, sys.argv[1:] if argv is None else argv)
