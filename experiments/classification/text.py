"""A classifier of token sequences: an embedding, layers, a head, and dropout between them."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gradflow.cell import Key, Params
from gradflow.cells.masks import map_matrices
from gradflow.models.shapes import Model
from gradflow.unroll import Lengths

EMBEDDING_SCALE = 0.1


def text_classifier(
    layers: Sequence[Model],
    *,
    num_symbols: int,
    embedding_size: int,
    num_classes: int,
    dropout: float = 0.0,
    recurrent_dropout: float = 0.0,
) -> Model:
    """Makes a classifier of token sequences that returns logits.

    ``apply(params, ids, *, lengths=None, key=None)`` takes token ids (T, *batch) and returns
    (*batch, classes); dropout is active only with a key. Tokens are looked up before the layers,
    outside of any recurrence. The parameters are ``params["embedding"]``,
    ``params["layers"]`` and ``params["head"]``.

    Args:
      layers: From the first to the last, which returns one vector, as `many_to_one` does.
      num_symbols: The number of tokens.
      embedding_size: Size of an embedding, sampled from N(0, 0.1²).
      num_classes: The number of classes.
      dropout: Probability that an input of a layer or of the head is dropped.
      recurrent_dropout: Probability that a column of every W_h is dropped, as in `with_dropout`:
        the gates of a cell share the mask, and so do all sequences and steps of a batch.

    Raises:
      ValueError: If there is no layer, a rate is not in [0, 1), or, when it is applied with
        recurrent dropout, no layer has a W_h.

    Source: Gal & Ghahramani 2016, arXiv:1512.05287 (recurrent dropout).
    """
    if not layers:
        raise ValueError("Expected at least one layer, got none. Use many_to_one(lstm(8, 64)).")
    for name, rate in (("dropout", dropout), ("recurrent_dropout", recurrent_dropout)):
        if not 0 <= rate < 1:
            raise ValueError(f"Expected {name} in [0, 1), got {rate}. Use 0 for no dropout.")

    def init(key: Key) -> Params:
        k_embedding, k_head, *k_layers = jax.random.split(key, 2 + len(layers))
        params = [layer.init(k) for layer, k in zip(layers, k_layers, strict=True)]
        embedding = EMBEDDING_SCALE * jax.random.normal(k_embedding, (num_symbols, embedding_size))
        size = _output_size(layers, params, embedding_size)
        bound = (6 / (size + num_classes)) ** 0.5
        W = jax.random.uniform(k_head, (num_classes, size), minval=-bound, maxval=bound)
        head = {"W": W, "b": jnp.zeros(num_classes)}
        return {"embedding": embedding, "layers": params, "head": head}

    def apply(
        params: Params,
        ids: Int[Array, " steps *batch"],
        *,
        lengths: Lengths | None = None,
        key: Key | None = None,
    ) -> Float[Array, "*batch classes"]:
        hidden = params["embedding"][ids]
        for number, (layer, own) in enumerate(zip(layers, params["layers"], strict=True)):
            if key is not None:
                k_units, k_columns = jax.random.split(jax.random.fold_in(key, number))
                hidden = drop(k_units, hidden, dropout)
                own = drop_columns(k_columns, own, recurrent_dropout)
            hidden = layer.apply(own, hidden, lengths=lengths)
        if key is not None:
            hidden = drop(jax.random.fold_in(key, len(layers)), hidden, dropout)
        return hidden @ params["head"]["W"].T + params["head"]["b"]

    return Model(init, apply)


def drop(key: Key, values: Float[Array, "..."], rate: float) -> Float[Array, "..."]:
    """Sets each number to 0 with a probability, and scales the others so that the mean is kept."""
    if rate == 0:
        return values
    kept = jax.random.bernoulli(key, 1 - rate, values.shape)
    return jnp.where(kept, values / (1 - rate), 0)


def drop_columns(key: Key, params: Params, rate: float) -> Params:
    """Drops the same columns of all W_h of a cell.

    The two cells of a bidirectional layer have their own masks.

    Raises:
      ValueError: If there is no W_h.
    """
    if rate == 0:
        return params
    if set(params) == {"forward", "backward"}:
        keys = dict(zip(params, jax.random.split(key), strict=True))
        return {name: drop_columns(keys[name], part, rate) for name, part in params.items()}
    return map_matrices(params, W_h=lambda W: W * drop(key, jnp.ones(W.shape[-1], W.dtype), rate))


def _output_size(layers: Sequence[Model], params: Params, embedding_size: int) -> int:
    hidden = jax.ShapeDtypeStruct((1, 1, embedding_size), jnp.zeros(()).dtype)
    for layer, own in zip(layers, params, strict=True):
        hidden = jax.eval_shape(layer.apply, own, hidden)
    return hidden.shape[-1]
