"""The run-time type checker of the tests, also where it reuses what it made for a signature."""

import jax.numpy as jnp
import pytest
from jaxtyping import Array, Float, TypeCheckError, jaxtyped
from typechecker import check


def taking(factor, kind=" n"):
    """A function within a function, which is decorated at every call of this one."""

    @jaxtyped(typechecker=check)
    def scaled(x: Float[Array, kind]) -> Float[Array, " n"]:
        return factor * x if factor else x.sum()

    return scaled


def test_functions_of_one_signature_are_each_called_and_checked():
    for factor in (2.0, 3.0):
        assert taking(factor)(jnp.ones(4))[0] == factor
        with pytest.raises(TypeCheckError, match="parameters of .*taking.<locals>.scaled"):
            taking(factor)(jnp.ones((4, 4)))
    with pytest.raises(TypeCheckError, match="return value of .*taking.<locals>.scaled"):
        taking(0.0)(jnp.ones(4))


def test_another_annotation_is_another_signature():
    assert taking(2.0)(jnp.ones(4)).shape == (4,)
    with pytest.raises(TypeCheckError, match="parameters of .*taking.<locals>.scaled"):
        taking(2.0, " m n")(jnp.ones(4))
