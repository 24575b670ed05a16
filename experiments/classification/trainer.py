"""Trains, tests and probes the networks of the study."""

from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _kit import probes

from classification.config import Config
from classification.nets import Net
from classification.probing import WholeText, alike
from classification.text import text_classifier
from gradflow import Params, flow, study
from gradflow.data.batches import PaddedBatch, batches_in_order, bucket_sizes, shuffled_batches
from gradflow.data.corpus import Corpus, Part
from gradflow.devices import map_runs
from gradflow.interop import save_params
from gradflow.models import Model
from gradflow.train import (
    Learner,
    Progress,
    Schedule,
    Source,
    epochs,
    fit,
    resolve_clipping,
    resolve_optimiser,
)
from gradflow.train.probes import prober


def cross_entropy(model: Model, params: Params, batch: PaddedBatch, key: jax.Array) -> jax.Array:
    """Computes the mean of -log p(class) over the examples of a batch, with dropout."""
    scores = model.apply(params, batch.ids, lengths=batch.lengths, key=key)
    chosen = jnp.take_along_axis(jax.nn.log_softmax(scores), batch.labels[:, None], axis=1)[:, 0]
    return -jnp.sum(batch.weights * chosen) / jnp.sum(batch.weights)


class Trainer:
    """Trains one model on one corpus; all its seeds share the compiled programs."""

    def __init__(self, config: Config, net: Net, corpus: Corpus) -> None:
        self.config, self.corpus, self.setting = config, corpus, config.setting
        self.sizes = bucket_sizes(self.setting.max_length, count=self.setting.buckets)
        self.net = net
        self.model = text_classifier(
            net.layers,
            num_symbols=corpus.num_words,
            embedding_size=config.embedding_size,
            num_classes=len(corpus.classes),
            dropout=config.dropout,
            recurrent_dropout=net.recurrent_dropout,
        )
        self.learner = Learner(
            self.model.init,
            partial(cross_entropy, self.model),
            resolve_optimiser(config.optimiser),
            resolve_clipping(config.clipping),
        )

    @cached_property
    def _scores(self) -> Callable[..., jax.Array]:
        return jax.jit(lambda params, ids, lengths: self.model.apply(params, ids, lengths=lengths))

    def log_likelihoods(self, params: Params, part: Part) -> np.ndarray:
        """Computes the log probability of every class for every text, without dropout."""
        found = np.zeros((len(part.labels), len(self.corpus.classes)))
        batches = batches_in_order(*part, 4 * self.setting.batch_size, sizes=self.sizes[-1:])
        for rows, batch in batches:
            scores = np.asarray(self._scores(params, batch.ids, batch.lengths), float)
            found[rows] = scores[: len(rows)]
        return found - np.logaddexp.reduce(found, axis=1, keepdims=True)

    def validate(self, params: Params) -> dict[str, float]:
        """Computes the fraction of errors and the mean loss on the held-out tenth."""
        part = self.corpus.validation
        found = self.log_likelihoods(params, part)
        loss = -found[np.arange(len(part.labels)), part.labels].mean()
        return {"error": float((found.argmax(axis=1) != part.labels).mean()), "loss": float(loss)}

    @cached_property
    def measure(self) -> Callable[[Params], dict[str, np.ndarray]] | None:
        """What is probed during the training, on held-out texts."""
        if not self.config.probe or self.net.cell is None:
            return None
        names = probes.names(self.config.probe, self.net.cell)
        texts = alike(self.corpus.validation, self.config.flow_sequences)
        measure = prober(names, WholeText(self.net), texts)

        def of_one(params: Params) -> dict[str, np.ndarray]:
            found = measure(jax.tree.map(lambda leaf: leaf[None], params))
            return {name: values[0] for name, values in found.items()}

        return of_one

    @property
    def schedule(self) -> Schedule:
        """How many epochs, and how often they are probed."""
        return Schedule(self.setting.num_epochs, probe_every=self.config.probe_every)

    def fit(self, seed: int, folder: Path | None) -> Progress:
        """Trains to the end; with a folder, a killed training resumes from its last epoch."""
        # A training on TREC takes seconds, as long as writing its checkpoints would.
        folder = None if self.config.data == "trec" else folder
        steps = fit(self._source(seed), self.schedule, folder=folder, identity={"seed": seed})
        *_, last = study.progress(steps, "epochs")
        return last

    def initial(self, seed: int) -> Params:
        """Returns the parameters at initialisation."""
        return self._source(seed).state.best_params

    def _source(self, seed: int) -> Source:
        return epochs(
            self.learner,
            jax.random.fold_in(jax.random.key(self.config.seed), seed),
            partial(self._epoch, seed),
            self.validate,
            patience=self.config.patience,
            measure=self.measure,
        )

    def _epoch(self, seed: int, epoch: int) -> Any:
        seeds = (self.config.seed, seed, epoch)
        part, size = self.corpus.training, self.setting.batch_size
        return shuffled_batches(*part, size, sizes=self.sizes, seed=seeds)

    def save_cell(self, params: Params, path: Path) -> None:
        """Writes the cell whose flow is measured, so that other studies can load it."""
        if self.net.cell is not None:
            save_params(
                path.with_name(f"{path.name}.safetensors"),
                self.net.cell_params(params["layers"]),
                cell=self.net.cell_spec,
                input_size=self.config.embedding_size,
                hidden_size=self.config.hidden_size,
            )

    def log_norms(self, params: Params) -> np.ndarray:
        """Computes log ‖∂h_T/∂h_k‖ of the first forward cell on words of the test; index = lag."""
        shape = self.config.flow_sequences, self.config.flow_steps
        if self.net.cell is None:
            return np.full((shape[0], shape[1] + 1), np.nan)
        words = np.resize(np.concatenate(self.corpus.test.sequences), shape)
        given = self.net.cell_params(params["layers"]), np.asarray(params["embedding"])[words]
        with jax.enable_x64(True):
            exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), given)
            return np.asarray(self._flow(*exact))

    @cached_property
    def _flow(self) -> Callable[..., jax.Array]:
        cell = self.net.cell
        assert cell is not None

        def measure(own: Params, inputs: jax.Array) -> jax.Array:
            return map_runs(partial(flow.log_norms, cell, own))(inputs)

        return jax.jit(measure)
