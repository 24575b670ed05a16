"""Trains each cell on the text, and measures it."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from _kit import cells, probes, trained

from char_lm.config import Config
from char_lm.language import Language, initial_state, num_windows
from char_lm.reader import Text, streams
from char_lm.reading import reading
from char_lm.sampling import params_file
from gradflow import Params, study
from gradflow.data.characters import Characters, as_segments, as_streams
from gradflow.interop import save_params
from gradflow.spec import parse_spec
from gradflow.tasks import Task
from gradflow.train import Progress, fit, resolve_clipping, resolve_optimiser
from gradflow.train.probes import Probing, probe


class Reader(NamedTuple):
    """A cell and the text that it learns, the same for all seeds."""

    spec: str
    language: Language
    text: Text
    task: Task
    probing: Probing

    def measure(self, params: Params) -> dict[str, np.ndarray]:
        """Measures the probes of a network on windows of the last tenth, from s_0."""
        one = jax.tree.map(lambda leaf: leaf[None], params)
        found = probe(self.language.cell, self.task, one, self.probing)
        return {name: values[0] for name, values in found.items()}


def readers(config: Config, specs: Sequence[str], characters: Characters) -> list[Reader]:
    """Makes one reader for each spec.

    Raises:
      ValueError: If a flag or the text does not fit.
    """
    codes, split, size = characters.codes, characters.num_trained, len(characters.alphabet)
    languages = [_language(config, spec, size) for spec in specs]
    learnt = jnp.asarray(as_streams(codes[:split], config.num_streams))
    num_windows(len(learnt), config.window)
    segments = as_segments(codes, split, config.num_streams, config.warm_up)
    text = Text(learnt, jnp.asarray(segments.codes), jnp.asarray(segments.weights))
    task = reading(codes[split:], size, config.flow_steps)
    k_probe, found = jax.random.fold_in(jax.random.key(config.seed), 1), []
    for spec, language in zip(specs, languages, strict=True):
        names = dict.fromkeys(["log_norms", *probes.names(config.probe, language.cell)])
        probing = Probing(tuple(names), k_probe, config.flow_sequences)
        found.append(Reader(spec, language, text, task, probing))
    return found


def _language(config: Config, spec: str, num_symbols: int) -> Language:
    if "learning_rate" in parse_spec(config.optimiser)[1]:
        raise ValueError(
            f"Expected the learning rates in --learning_rates, got one in {config.optimiser!r}. "
            "Remove it from the optimiser."
        )
    make = cells.factory(spec)
    size = config.hidden_size or cells.size_with(make, num_symbols, config.num_weights)
    return Language(
        make(num_symbols, size),
        num_symbols,
        resolve_optimiser(config.optimiser),
        resolve_clipping(config.clipping),
        config.window,
        config.num_updates,
    )


def tried_bits(config: Config, reader: Reader) -> np.ndarray:
    """Trains the validation seeds at every rate; returns their final bits, (rate, seed).

    Validation seeds have the numbers after those of the test seeds. Their bits are those of the
    same held-out text.
    """
    seeds = range(config.num_seeds, config.num_seeds + config.num_validation)
    found = [
        [train(config, reader, seed, rate, None).metrics["bits"][-1] for seed in seeds]
        for rate in config.learning_rates
    ]
    return np.array(found, float)


def train(config: Config, reader: Reader, seed: int, rate: float, folder: Path | None) -> Progress:
    """Trains a cell from a seed; a killed training resumes from its last evaluation."""
    spec, language, text = reader[:3]
    identity = trained.identity(config, cell=spec, seed=seed, rate=rate)
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), 0), seed)
    state = initial_state(language, key, config.num_streams, rate)
    is_test = seed < config.num_seeds
    source = streams(language, state, text, measure=reader.measure if is_test else None)
    steps = fit(source, config.schedule, folder=folder, identity=identity)
    *_, last = study.progress(steps, f"cell={spec},seed={seed},rate={rate:g}, evaluations")
    if folder is not None and seed == 0:
        save_params(
            params_file(study.params_folder(folder), spec),
            last.state.params["cell"],
            cell=spec,
            input_size=language.num_symbols,
            hidden_size=last.state.params["readout"]["W"].shape[1],
        )
    return last
