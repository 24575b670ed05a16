"""Which matrices a function decomposes is read from its trace."""

import jax
import jax.numpy as jnp
import jax.scipy.linalg
import pytest

from gradflow.lapack import decomposed

BY_LAPACK = {
    "cholesky": jnp.linalg.cholesky,
    "eig": jnp.linalg.eig,
    "eigh": jnp.linalg.eigh,
    "expm": jax.scipy.linalg.expm,
    "inv": jnp.linalg.inv,
    "lu": jax.scipy.linalg.lu,
    "norm": lambda a: jnp.linalg.norm(a, 2),
    "qr": jnp.linalg.qr,
    "schur": jax.scipy.linalg.schur,
    "slogdet": jnp.linalg.slogdet,
    "solve": lambda a: jnp.linalg.solve(a, a),
    "svd": jnp.linalg.svd,
    "triangular": lambda a: jax.scipy.linalg.solve_triangular(a, a),
}


@pytest.mark.parametrize("name", BY_LAPACK)
def test_whatever_lapack_computes_is_found_wherever_it_is(name):
    function, a = BY_LAPACK[name], jnp.eye(3)
    assert (3, 3) in decomposed(function, a)

    def inside(a):
        of_it = lambda _: jax.tree.leaves(jax.jit(function)(a))  # noqa: E731
        return jax.lax.map(of_it, jnp.arange(2))

    assert (3, 3) in decomposed(inside, a)


def test_a_batch_is_in_front_and_what_is_no_decomposition_is_not_found():
    a = jax.ShapeDtypeStruct((5, 3, 3), float)
    assert set(decomposed(jnp.linalg.qr, a)) == {(5, 3, 3)}
    assert decomposed(lambda a: jnp.fft.fft(a @ a).real + jnp.sort(a), a) == []
