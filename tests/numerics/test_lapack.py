"""Decompositions that LAPACK computes are found in a traced program."""

import jax
import jax.numpy as jnp
import jax.scipy.linalg

from gradflow.numerics.lapack import decomposed_shapes

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


def shapes(function, *arguments):
    return decomposed_shapes(jax.make_jaxpr(function)(*arguments).jaxpr)


def test_every_lapack_decomposition_is_found_in_a_trace():
    a = jnp.eye(3)
    for name, function in BY_LAPACK.items():
        assert (3, 3) in shapes(function, a), name

        def inside(a, function=function):
            of_it = lambda _: jax.tree.leaves(jax.jit(function)(a))  # noqa: E731
            return jax.lax.map(of_it, jnp.arange(2))

        assert (3, 3) in shapes(inside, a), name


def test_batch_axes_come_first_and_other_functions_have_no_decomposition():
    a = jax.ShapeDtypeStruct((5, 3, 3), float)
    assert set(shapes(jnp.linalg.qr, a)) == {(5, 3, 3)}
    assert shapes(lambda a: jnp.fft.fft(a @ a).real + jnp.sort(a), a) == []
