"""What the study of classification shares: its corpora, how its nets are trained, and the flow."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import _probes
import jax
import jax.numpy as jnp
import numpy as np

from gradflow import flow, study
from gradflow.data.ag_news import read_ag_news
from gradflow.data.batches import Batch, batches_in_order, bucket_sizes, shuffled_batches
from gradflow.data.corpus import Corpus, Part, make_corpus
from gradflow.data.imdb import read_imdb
from gradflow.data.trec import read_trec
from gradflow.devices import map_runs
from gradflow.interop import save_params
from gradflow.models import Model
from gradflow.models.nets import Net
from gradflow.models.text import text_classifier
from gradflow.train.clipping import resolve_clipping
from gradflow.train.epochs import Fit, Learner, fit_epochs
from gradflow.train.keeper import Keeper
from gradflow.train.optimisers import resolve_optimiser
from gradflow.train.prober import Watch
from gradflow.train.probes import Subject, prober

if TYPE_CHECKING:
    from classification import Config

    from gradflow import Params


class Setting(NamedTuple):
    """What suits a corpus, where the command line does not say otherwise."""

    max_length: int
    max_words: int
    min_count: int
    batch_size: int
    num_epochs: int
    keep: str = "start"
    buckets: int = 2


SETTINGS = {
    "trec": Setting(max_length=40, max_words=10_000, min_count=2, batch_size=32, num_epochs=12),
    "ag_news": Setting(max_length=80, max_words=20_000, min_count=2, batch_size=64, num_epochs=8),
    "imdb": Setting(200, 10_000, min_count=1, batch_size=64, num_epochs=6, keep="end"),
}


def read_corpus(config: "Config") -> Corpus:
    """Reads the files; the tenth that is kept out is the same one for all seeds.

    Raises:
      ValueError: If a file is missing or damaged, or a flag is for another corpus.
    """
    folder = config.data_dir
    if config.train_file is not None and config.data != "ag_news":
        raise ValueError(f"--train_file is for --data=ag_news alone, got --data={config.data}")
    if config.data == "ag_news":
        titles = config.train_file is None
        train = read_ag_news(folder, "train", name=config.train_file, titles=titles)
        test = read_ag_news(folder, "test", titles=titles)
    else:
        read = {"trec": read_trec, "imdb": read_imdb}[config.data]
        train, test = read(folder, "train"), read(folder, "test")
    s = config.setting
    return make_corpus(
        train,
        test,
        seed=config.seed,
        max_length=s.max_length,
        max_words=s.max_words,
        min_count=s.min_count,
        keep=s.keep,
    )


def cross_entropy(model: Model, params: "Params", batch: Batch, key: jax.Array) -> jax.Array:
    """The mean of -log p(class) over the examples of a batch, under dropout."""
    scores = model.apply(params, batch.ids, lengths=batch.lengths, key=key)
    chosen = jnp.take_along_axis(jax.nn.log_softmax(scores), batch.labels[:, None], axis=1)[:, 0]
    return -jnp.sum(batch.weights * chosen) / jnp.sum(batch.weights)


class WholeText(NamedTuple):
    """A net on one whole text: its first forward cell, and the loss as a function of that one's h.

    The loss is -log p(class) of the net without dropout. Where there is a backward cell, its h do
    not depend on those of the forward one, and stay as they are.
    """

    net: Net

    def __call__(self, params: "Params", text: tuple[jax.Array, jax.Array]) -> Subject:
        """What of a net's parameters, the words of a text and its class is to be measured."""
        (words, label), net = text, self.net
        assert net.cell is not None and net.above is not None
        inputs, above = params["embedding"][words], net.above

        def loss(h: jax.Array) -> jax.Array:
            top = above(params["layers"], h, inputs)
            scores = params["head"]["W"] @ top + params["head"]["b"]
            return -jax.nn.log_softmax(scores)[label]

        return Subject(net.cell, net.cell_params(params["layers"]), inputs, loss)


def alike(part: Part, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Whole texts of one length, which need no padding, and their classes.

    It is the longest length that so many texts have, or, if none has, as many as any.
    """
    lengths = np.array([len(words) for words in part.sequences])
    counts = np.bincount(lengths)
    number = min(number, counts.max())
    rows = np.flatnonzero(lengths == np.flatnonzero(counts >= number)[-1])[:number]
    return np.stack([part.sequences[row] for row in rows]), np.asarray(part.labels)[rows]


def check_probes(config: "Config", nets: Mapping[str, Net]) -> None:
    """Says at once what cannot be probed.

    Raises:
      ValueError: If a probe is not known, or no net has what it measures.
    """
    cells = [net.cell for net in nets.values() if net.cell is not None]
    if config.probe and not cells:
        raise ValueError(
            f"a recurrent model is expected for --probe={config.probe}, got {config.models!r}: "
            "add one, such as gru"
        )
    for cell in cells:
        _probes.names(config.probe, cell)


class Trainer:
    """One model on one corpus: what is compiled once serves all its seeds."""

    def __init__(self, config: "Config", net: Net, corpus: Corpus) -> None:
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

    def log_likelihoods(self, params: "Params", part: Part) -> np.ndarray:
        """log of the probability of every class for every text, without dropout."""
        found = np.zeros((len(part.labels), len(self.corpus.classes)))
        batches = batches_in_order(*part, 4 * self.setting.batch_size, sizes=self.sizes[-1:])
        for rows, batch in batches:
            scores = np.asarray(self._scores(params, batch.ids, batch.lengths), float)
            found[rows] = scores[: len(rows)]
        return found - np.logaddexp.reduce(found, axis=1, keepdims=True)

    def validate(self, params: "Params") -> dict[str, float]:
        """The share of errors and the mean loss on what is kept out of the training."""
        part = self.corpus.validation
        found = self.log_likelihoods(params, part)
        loss = -found[np.arange(len(part.labels)), part.labels].mean()
        return {"error": float((found.argmax(axis=1) != part.labels).mean()), "loss": float(loss)}

    @cached_property
    def watch(self) -> Watch | None:
        """What is probed along the epochs, on texts that are kept out."""
        if not self.config.probe or self.net.cell is None:
            return None
        names = _probes.names(self.config.probe, self.net.cell)
        texts = alike(self.corpus.validation, self.config.flow_sequences)
        measure = prober(names, WholeText(self.net), texts)

        def of_one(params: "Params") -> dict[str, np.ndarray]:
            found = measure(jax.tree.map(lambda leaf: leaf[None], params))
            return {name: values[0] for name, values in found.items()}

        return Watch(of_one, self.config.probe_every)

    def fit(self, seed: int, folder: Path | None) -> Fit:
        """Trains to the end; with a folder, a killed training goes on from its last epoch."""
        # TREC's trainings take seconds, and so would their checkpoints.
        keeper = None
        if folder is not None and self.config.data != "trec":
            keeper = Keeper(folder, {"seed": seed})
        with keeper or contextlib.nullcontext():
            *_, last = study.progress(self._fits(seed, keeper, self.watch), "epochs")
        return last

    def born(self, seed: int) -> "Params":
        """The parameters that a training begins with."""
        return next(self._fits(seed, None, None)).best_params

    def _fits(self, seed: int, keeper: Keeper | None, watch: Watch | None) -> Iterator[Fit]:
        return fit_epochs(
            self.learner,
            jax.random.fold_in(jax.random.key(self.config.seed), seed),
            partial(self._epoch, seed),
            self.validate,
            num_epochs=self.setting.num_epochs,
            patience=self.config.patience,
            watch=watch,
            keeper=keeper,
        )

    def _epoch(self, seed: int, epoch: int) -> Any:
        seeds = (self.config.seed, seed, epoch)
        part, size = self.corpus.training, self.setting.batch_size
        return shuffled_batches(*part, size, sizes=self.sizes, seed=seeds)

    def save_cell(self, params: "Params", path: Path) -> None:
        """Writes the cell whose flow is measured, for other studies to measure."""
        if self.net.cell is not None:
            save_params(
                path.with_name(f"{path.name}.safetensors"),
                self.net.cell_params(params["layers"]),
                cell=self.net.cell_spec,
                input_size=self.config.embedding_size,
                hidden_size=self.config.hidden_size,
            )

    def log_norms(self, params: "Params") -> np.ndarray:
        """log ‖∂h_T/∂h_k‖ of the first forward cell along words of the test set; index = lag."""
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

        def measure(own: "Params", inputs: jax.Array) -> jax.Array:
            return map_runs(partial(flow.log_norms, cell, own))(inputs)

        return jax.jit(measure)
