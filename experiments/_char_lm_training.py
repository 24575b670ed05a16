"""The trainings of the study of characters: each cell on the text, and what is measured of it."""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import _probes
import jax
import jax.numpy as jnp
import numpy as np
from _char_lm_writing import params_file

from gradflow import study
from gradflow.cells import resolve
from gradflow.data.characters import Characters, as_segments, as_streams
from gradflow.interop import save_params
from gradflow.structure import check_structure
from gradflow.tasks import Task
from gradflow.tasks.reading import reading
from gradflow.train.clipping import resolve_clipping
from gradflow.train.keeper import Keeper
from gradflow.train.language import Language, begin, num_windows
from gradflow.train.optimisers import resolve_optimiser
from gradflow.train.probes import Probing, probe
from gradflow.train.reader import Progress, Text, fit_language

if TYPE_CHECKING:
    from char_lm import Config

    from gradflow import Params


class Training(NamedTuple):
    """A cell, and the text that it learns: what is the same for all its seeds."""

    spec: str
    language: Language
    text: Text
    task: Task
    probing: Probing

    def measure(self, params: "Params") -> dict[str, np.ndarray]:
        """What is probed of a net, on windows of the last tenth, from s_0."""
        one = jax.tree.map(lambda leaf: leaf[None], params)
        found = probe(self.language.cell, self.task, one, self.probing)
        return {name: values[0] for name, values in found.items()}


def trainings(config: "Config", specs: Sequence[str], characters: Characters) -> list[Training]:
    """What is to be trained: one for each spec.

    Raises:
      ValueError: For what cannot be.
    """
    codes, split, size = characters.codes, characters.num_trained, len(characters.alphabet)
    languages = [_language(config, spec, size) for spec in specs]
    streams = jnp.asarray(as_streams(codes[:split], config.num_streams))
    num_windows(len(streams), config.window)
    segments = as_segments(codes, split, config.num_streams, config.warm_up)
    text = Text(streams, jnp.asarray(segments.codes), jnp.asarray(segments.weights))
    task = reading(codes[split:], size, config.flow_steps)
    k_probe, found = jax.random.fold_in(jax.random.key(config.seed), 1), []
    for spec, language in zip(specs, languages, strict=True):
        names = dict.fromkeys(["log_norms", *_probes.names(config.probe, language.cell)])
        probing = Probing(tuple(names), k_probe, config.flow_sequences)
        found.append(Training(spec, language, text, task, probing))
    return found


def _language(config: "Config", spec: str, num_symbols: int) -> Language:
    factory = resolve(spec)
    check_structure(factory)
    return Language(
        factory(num_symbols, config.hidden_size),
        num_symbols,
        resolve_optimiser(config.optimiser),
        resolve_clipping(config.clipping),
        config.window,
        config.num_updates,
    )


def train(
    config: "Config", training: Training, seed: int, folder: Callable[[], Path | None]
) -> Progress:
    """Trains a cell from a seed; a killed training goes on from its last evaluation."""
    spec, language, text = training[:3]
    place, identity = folder(), {**dataclasses.asdict(config), "cell": spec, "seed": seed}
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), 0), seed)
    state = begin(language, key, config.num_streams)
    with contextlib.nullcontext() if place is None else Keeper(place, identity) as keeper:
        how: Any = {"measure": training.measure, "keeper": keeper}
        steps = fit_language(language, state, text, config.schedule, **how)
        *_, last = study.progress(steps, f"cell={spec},seed={seed}, evaluations")
    if place is not None and seed == 0:
        save_params(
            params_file(place.parents[1], spec),
            last.state.params["cell"],
            cell=spec,
            input_size=language.num_symbols,
            hidden_size=config.hidden_size,
        )
    return last
