"""Losses on the gradient flow itself, which are added to the loss of a task."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow import flow
from gradflow.cell import Cell, Params
from gradflow.checks import check_integer, check_number
from gradflow.spec import make_from_spec
from gradflow.train.omega import Loss, preserve_norm

Regulariser = Callable[[Cell, Params, Float[Array, "steps batch input"], Loss], Float[Array, ""]]
"""(loss of the outputs, cell, its parameters, inputs) -> a scalar to be added to the loss."""


def omega(*, weight: float = 1.0, squared: Any = False) -> Regulariser:
    """Makes the regulariser weight · Ω, which keeps the adjoint's norm from step to step.

    Ω and its immediate derivative are those of `gradflow.train.omega.preserve_norm`. (The
    paper's settings differ: 4 in the ICML text, 2 in the appendix of the preprint and in the code.)

    Args:
      weight: The factor.
      squared: Whether to use the ratio of the squared norms, as the paper's code does.

    Raises:
      TypeError: If the weight is not a number, or squared is not a bool.
      ValueError: If the weight is not positive.

    Source: Pascanu, Mikolov, Bengio 2013, arXiv:1211.5063, eq. 9 and 10.
    """
    check_number("weight", weight, "positive", example=1.0)
    if not isinstance(squared, bool):
        raise TypeError(f"Expected squared to be True or False, got {squared!r}.")

    def regulariser(cell: Cell, params: Params, inputs: Array, loss: Loss) -> Float[Array, ""]:
        return weight * preserve_norm(cell, params, inputs, loss=loss, squared=squared)

    return regulariser


def flossing(
    *, weight: float = 1.0, num_exponents: int = 1, burn_in: int = 0, num_sequences: int = 1
) -> Regulariser:
    """Makes the regulariser weight · mean λ_i², which drives Lyapunov exponents to zero.

    Gradient flossing: of the first k exponents along each of the first sequences of a batch::

        weight / k Σ_{i=1}^k λ_i²      averaged over the sequences

    differentiated through the trajectory and the QR of every step. The loss of the task plays no
    part.

    Args:
      weight: The factor.
      num_exponents: k.
      burn_in: Steps at the start that are left out.
      num_sequences: Sequences of the batch; the cost grows with it.

    Raises:
      TypeError: If the weight is not a number, or a count is not an integer.
      ValueError: If the weight is not positive, or a count is too small; and, when it is called,
        if there are fewer exponents, steps or sequences than asked for.

    Source: Engelken 2023, arXiv:2312.17306.
    """
    check_number("weight", weight, "positive", example=1.0)
    for name, count, least in (
        ("num_exponents", num_exponents, 1),
        ("burn_in", burn_in, 0),
        ("num_sequences", num_sequences, 1),
    ):
        check_integer(name, count, least)

    def regulariser(cell: Cell, params: Params, inputs: Array, loss: Loss) -> Float[Array, ""]:
        del loss  # the exponents depend on the network alone
        if num_sequences > inputs.shape[1]:
            raise ValueError(
                f"Expected a batch of at least num_sequences={num_sequences} sequences, got "
                f"{inputs.shape[1]}. Use fewer sequences or a larger batch."
            )

        def exponents(one: Array) -> Float[Array, " exponents"]:
            return flow.lyapunov_exponents(
                cell, params, one, num_exponents=num_exponents, burn_in=burn_in
            ).exponents

        return weight * jnp.mean(jax.vmap(exponents, 1)(inputs[:, :num_sequences]) ** 2)

    return regulariser


REGULARISERS: dict[str, Callable[..., Regulariser]] = {"flossing": flossing, "omega": omega}
"""The regularisers by name; options are those of each function."""


def resolve_regulariser(spec: str) -> Regulariser:
    """Makes the regulariser of a spec, such as ``omega(weight=2)``.

    Raises:
      TypeError: If an option has the wrong type.
      ValueError: For an unknown regulariser or option, or an invalid value.
    """
    return make_from_spec("regulariser", spec, REGULARISERS)
