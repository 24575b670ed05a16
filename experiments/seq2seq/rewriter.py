"""An encoder-decoder over token ids, with teacher forcing or free-running."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from gradflow.cell import Carry, Cell, Key, Params, whole_carry
from gradflow.initializers import lecun
from gradflow.models.shapes import encoder_decoder
from gradflow.unroll import Lengths, unroll

Sources = Int[Array, "steps batch"]
Logits = Float[Array, "*written_steps_and_batch written"]
Loss = Callable[[Logits, Int[Array, "*written_steps_and_batch"]], Float[Array, ""]]
"""(logits, targets) -> scalar."""


class Half(NamedTuple):
    """The encoder or the decoder on one pair: the arguments of a measurement of `gradflow.flow`.

    Attributes:
      cell: The encoder, whose output is then its whole carry, or the decoder.
      params: Its parameters.
      inputs: What it reads, (steps, symbols).
      carry: What it starts from.
      loss: Its outputs -> the loss of the pair.
    """

    cell: Cell
    params: Params
    inputs: Float[Array, "steps symbols"]
    carry: Carry
    loss: Callable[[Array], Array]


class Rewriter(NamedTuple):
    """An encoder and a decoder with a readout, over token ids.

    The encoder reads x_1 ... x_T, one-hot. The decoder starts from the encoder's last carry s_T,
    reads y_0 = 0, y_1, ... and gives the logits of the symbol of each step, z_i = W h_i + b. Before
    z_{i+1} it reads the true y_i, one-hot (`forced`, teacher forcing), or the most likely symbol of
    z_i (`free`, free-running). A negative id is no symbol: it is read as zeros.

    Attributes:
      encoder: A cell with num_read inputs.
      decoder: A cell with the same structure of its carry and num_written inputs.
      num_read: Symbols that are read.
      num_written: Symbols that are written.

    Source: Sutskever, Vinyals, Le 2014, arXiv:1409.3215; Williams & Zipser 1989,
    doi:10.1162/neco.1989.1.2.270 (teacher forcing).
    """

    encoder: Cell
    decoder: Cell
    num_read: int
    num_written: int

    def init(self, key: Key) -> Params:
        """Initialises ``encoder``, ``decoder`` and ``readout`` (W and b).

        W, (written, hidden), is sampled from LeCun's distribution, of variance 1/hidden; b is zero.
        """
        k_encoder, k_written = jax.random.split(key)
        k_decoder, k_readout = jax.random.split(k_written)
        hidden = jax.eval_shape(lambda: self.decoder.hidden(self.decoder.initial_carry())).size
        dtype = jnp.result_type(float)
        W = lecun()(k_readout, (self.num_written, hidden), dtype)
        return {
            "encoder": self.encoder.init(k_encoder),
            "decoder": self.decoder.init(k_decoder),
            "readout": {"W": W, "b": jnp.zeros(self.num_written, dtype)},
        }

    def forced(
        self,
        params: Params,
        sources: Sources,
        targets: Int[Array, "written_steps batch"],
        *,
        lengths: Lengths | None = None,
    ) -> Logits:
        """Computes the logits (S, B, written) under teacher forcing.

        Raises:
          ValueError: If the carries of encoder and decoder are not alike.
        """
        read = jax.nn.one_hot(sources, self.num_read)
        model = encoder_decoder(self.encoder, self.decoder)
        h = model.apply(params, read, self._before(targets), lengths=lengths)
        return _read_out(params, h)

    def free(
        self, params: Params, sources: Sources, num_steps: int, *, lengths: Lengths | None = None
    ) -> Int[Array, "written_steps batch"]:
        """Decodes greedily, free-running: the most likely symbol of each step, (num_steps, B)."""
        read = jax.nn.one_hot(sources, self.num_read)
        carries = unroll(self.encoder, params["encoder"], read, lengths=lengths).carries
        step = jax.vmap(partial(self.decoder.step, params["decoder"]))

        def write(state: tuple, _: None) -> tuple[tuple, Array]:
            carry, given = state
            carry, h = step(carry, given)
            symbol = jnp.argmax(_read_out(params, h), axis=-1)
            return (carry, jax.nn.one_hot(symbol, self.num_written, dtype=given.dtype)), symbol

        start = _last(carries), jnp.zeros((sources.shape[1], self.num_written))
        return jax.lax.scan(write, start, length=num_steps)[1]

    def encoding(
        self,
        params: Params,
        source: Int[Array, " steps"],
        target: Int[Array, " written_steps"],
        loss: Loss,
    ) -> Half:
        """Returns the encoder, with the decoder's loss as a function of the last carry."""
        encoder, decoder = self.encoder, self.decoder
        start = encoder.initial_carry()
        unravel = ravel_pytree(start)[1]

        def of_carries(carries: Array) -> Array:
            carry, before = unravel(carries[-1]), self._before(target)
            h = unroll(decoder, params["decoder"], before, carry=carry).outputs
            return loss(_read_out(params, h), target)

        whole = encoder._replace(step=partial(_whole_step, encoder), hidden=whole_carry)
        read = jax.nn.one_hot(source, self.num_read)
        return Half(whole, params["encoder"], read, start, of_carries)

    def decoding(
        self,
        params: Params,
        source: Int[Array, " steps"],
        target: Int[Array, " written_steps"],
        loss: Loss,
    ) -> Half:
        """Returns the decoder under teacher forcing, from the encoder's last carry."""
        read = jax.nn.one_hot(source, self.num_read)
        carries = unroll(self.encoder, params["encoder"], read).carries

        def of_outputs(h: Array) -> Array:
            return loss(_read_out(params, h), target)

        before = self._before(target)
        return Half(self.decoder, params["decoder"], before, _last(carries), of_outputs)

    def _before(self, targets: Int[Array, " written_steps *batch"]) -> Array:
        """The decoder's inputs under teacher forcing: zeros, then the true symbols."""
        before = jax.nn.one_hot(targets[:-1], self.num_written)
        return jnp.concatenate([jnp.zeros((1, *before.shape[1:])), before])


def _read_out(params: Params, h: Array) -> Array:
    return h @ params["readout"]["W"].T + params["readout"]["b"]


def _last(carries: Carry) -> Carry:
    return jax.tree.map(lambda leaf: leaf[-1], carries)


def _whole_step(cell: Cell, params: Params, carry: Any, x: Array) -> tuple[Any, Array]:
    carry, _ = cell.step(params, carry, x)
    return carry, whole_carry(carry)
