"""Trains encoder-decoders to rewrite strings side by side, and evaluates them.

The loss is the mean cross-entropy of the symbols under teacher forcing, in nats. A network that
does well under teacher forcing may fail free-running: both accuracies are reported.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _kit import tuning
from jaxtyping import Array, Float, Int

from gradflow import flow
from gradflow.cell import Key, Params
from gradflow.devices import map_runs
from gradflow.train import Learner, Optimiser, Progress, Schedule, epochs, fit
from gradflow.train.probes import Subject
from seq2seq.config import Config
from seq2seq.strings import Pairs, Rewriting

METRICS = ("loss", "sequences", "forced", "free")
"""The metrics of `evaluate`."""


def cross_entropy(
    logits: Float[Array, "*pairs symbols"], targets: Int[Array, "*pairs"]
) -> Float[Array, ""]:
    """Computes the mean over all symbols of -log p(target), in nats."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()


def evaluate(net: Any, params: Params, pairs: Pairs) -> dict[str, Float[Array, ""]]:
    """Evaluates one network on pairs.

    Returns:
      ``loss``, in nats; ``sequences``, the fraction of targets written without an error, which is
      the same under teacher forcing and free-running (both read the true symbols before the first
      error); and the accuracies of symbols, ``forced`` and ``free``.
    """
    sources, targets = pairs.sources.T, pairs.targets.T
    logits = net.forced(params, sources, targets, lengths=pairs.lengths)
    right = net.free(params, sources, len(targets), lengths=pairs.lengths) == targets
    return {
        "loss": cross_entropy(logits, targets),
        "sequences": jnp.mean(jnp.all(right, axis=0), dtype=logits.dtype),
        "forced": jnp.mean(jnp.argmax(logits, axis=-1) == targets, dtype=logits.dtype),
        "free": jnp.mean(right, dtype=logits.dtype),
    }


class Encoding(NamedTuple):
    """The encoder on one pair, as a probe measures it: its h is its whole carry."""

    net: Any

    def __call__(self, params: Params, pair: Pairs) -> Subject:
        """Returns what is measured, given parameters and a pair."""
        half = self.net.encoding(params, pair.sources, pair.targets, cross_entropy)
        return Subject(half.cell, half.params, half.inputs, half.loss)


def log_adjoints(net: Any, params: Params, pair: Pairs) -> Float[Array, " both_and_one"]:
    """Computes log ‖∂L/∂s_k‖ of one pair under teacher forcing, through decoder and encoder.

    Returns:
      The norms at the encoder's T + 1 carries, the last of which the decoder starts from, and at
      the decoder's S carries after it.
    """
    norms = []
    for half in (net.encoding, net.decoding):
        cell, own, inputs, carry, loss = half(params, pair.sources, pair.targets, cross_entropy)
        norms.append(
            flow.log_adjoint_norms(cell, own, inputs, loss=loss, source="carry", carry=carry)
        )
    in_encoder, in_decoder = norms
    return jnp.concatenate([in_encoder, in_decoder[1:]])


class Rewriters:
    """The networks of one kind, which train side by side and independently.

    Adam trains each, at a rate that falls from its own to 0 by a cosine, with the global norm of
    its gradient clipped.

    Args:
      net: A `seq2seq.rewriter.Rewriter`.
      data: The strings.
      config: How they are trained.
      seeds: The number of each network's seed, which gives its batches.
      rates: The learning rate of each.
    """

    def __init__(
        self, net: Any, data: Rewriting, config: Config, seeds: np.ndarray, rates: np.ndarray
    ) -> None:
        self.net, self.data, self.config = net, data, config
        self.seeds, self.rates = seeds, jnp.asarray(rates, float)
        self._evaluate = jax.jit(self._evaluated)

    def _evaluated(self, params: Params, pairs: Pairs) -> dict[str, Float[Array, " seeds"]]:
        return map_runs(lambda own: evaluate(self.net, own, pairs), sequential=False)(params)

    def fit(
        self,
        first: Params,
        *,
        measure: Callable[[Params], Mapping[str, np.ndarray]] | None = None,
        folder: Path | None = None,
        identity: Mapping[str, Any] | None = None,
    ) -> Iterator[Progress]:
        """Trains parameters with a leading axis of networks, and yields after each evaluation.

        An epoch is what lies between two evaluations.
        """
        each = tuning.side_by_side(self._descent, self.rates)
        source = epochs(
            Learner(lambda _: first, self.loss, Optimiser(lambda _: each, 1.0)),
            jax.random.key(self.config.seed),
            self.batches,
            self.validate,
            measure=measure,
        )
        every = self.config.schedule.eval_every
        probe_every = (self.config.probe_every or every) // every
        schedule = Schedule(self.config.num_evaluations, 1, probe_every, early_stop=False)
        return fit(source, schedule, folder=folder, identity=identity)

    def _descent(self, rate: Array) -> optax.GradientTransformation:
        falling = optax.cosine_decay_schedule(1.0, self.config.num_updates)
        clip = optax.clip_by_global_norm(self.config.clip)
        return optax.chain(clip, optax.adam(lambda count: rate * falling(count)))

    def loss(self, params: Params, batch: Pairs, key: Key) -> Float[Array, ""]:
        """Computes the sum of all networks' losses, of a batch with a leading axis of networks."""
        del key  # there is no noise but the batch

        def of_net(run: tuple[Params, Pairs]) -> Array:
            params, pairs = run
            sources, targets = pairs.sources.T, pairs.targets.T
            logits = self.net.forced(params, sources, targets, lengths=pairs.lengths)
            return cross_entropy(logits, targets)

        return jnp.sum(map_runs(of_net, sequential=False)((params, batch)))

    def batches(self, epoch: int) -> Iterator[Pairs]:
        """Samples each seed's own pairs, with replacement."""
        config, train = self.config, self.data.train
        rng = np.random.default_rng((config.seed, epoch))
        for _ in range(config.num_updates // config.num_evaluations):
            shape = config.num_seeds + config.num_validation, config.batch_size
            yield train.at(rng.integers(len(train.lengths), size=shape)[self.seeds])

    def validate(self, params: Params) -> dict[str, Any]:
        """Evaluates held-out pairs: the mean loss, and the metrics of each network.

        The test seeds are evaluated on the first ``eval_size`` of the pairs, and the validation
        seeds, whose numbers follow, on the next ones.
        """
        test, size = self.data.test, self.config.eval_size
        start = size if self.seeds[0] >= self.config.num_seeds else 0
        pairs = test.at(np.arange(start, min(start + size, len(test.lengths))))
        found = jax.device_get(self._evaluate(params, pairs))
        return {"mean_loss": float(np.mean(found["loss"])), **found}
