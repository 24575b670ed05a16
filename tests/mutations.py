"""Plants bugs that shape tests do not catch, and checks that a test fails for each of them.

    python tests/mutations.py

Each bug goes alone into a copy of the project. Bugs in a cell or in the products are left to the
three sacred tests: values and Jacobians against an independent implementation, log norms against
automatic differentiation of the whole unroll, and the closed form at long lag. The other bugs make
a certificate, an interval or a verdict promise too much, or stand where shapes cannot tell: in an
axis, a mask, a key, a share of a batch. Takes about a quarter of an hour.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]

SACRED = [
    "tests/cells/test_lstm.py",
    "tests/flow/test_norms.py::test_equal_automatic_differentiation_of_the_whole_unroll[lstm]",
    "tests/flow/test_norms.py::test_equal_automatic_differentiation_of_the_whole_unroll[rnn]",
    "tests/flow/test_norms.py::test_closed_form_far_beyond_the_range_of_floats",
]

CERTIFICATE = ["tests/flow/test_certificate.py", "-k", "family and float64"]

BLOCKS = ["tests/flow/test_structure.py"]


class Bug(NamedTuple):
    """A line, or a part of one, and what stands there instead."""

    name: str
    file: str
    right: str
    wrong: str
    tests: Sequence[str] = SACRED


BUGS = [
    Bug("gates i and f swapped", "cells/lstm.py", "f * carry.c + i * g", "i * carry.c + f * g"),
    Bug(
        "gradient cut at the carry",
        "cells/lstm.py",
        "gates, c = advance(params, carry, x)",
        "gates, c = advance(params, jax.lax.stop_gradient(carry), x)",
    ),
    Bug(
        "gradient cut at h alone",
        "cells/lstm.py",
        "gates, c = advance(params, carry, x)",
        "gates, c = advance(params, carry._replace(h=jax.lax.stop_gradient(carry.h)), x)",
    ),
    Bug(
        "gates of combined matrices without the way through the pointwise rest",
        "unroll/planner/rows.py",
        "zip(direct, through, strict=True)",
        "zip(map(jnp.zeros_like, direct), through, strict=True)",
    ),
    Bug(
        "small factors of combined matrices without room",
        "unroll/planner/rows.py",
        "_product(leaves, _pushed(plan, side, lambda z: rest(at, z), z, W.T * room),",
        "room * _product(leaves, _pushed(plan, side, lambda z: rest(at, z), z, W.T),",
        ["tests/unroll/test_rows.py"],
    ),
    Bug(
        "product in the wrong order",
        "flow/trace.py",
        "        num_rows = len(jax.tree.leaves(rows.value)[0])",
        "        num_rows, wrong = len(jax.tree.leaves(rows.value)[0]), self.num_steps - 1 - index\n"
        "        s, x = jax.tree.map(lambda leaf: leaf[wrong], (self.before, self.xs))",
    ),
    Bug(
        "product of the blocks h to h",
        "flow/trace.py",
        "        return rescale(pulled, rows.exponent - shift)",
        "        hidden = self.cell.hidden\n"
        "        keep = lambda row: jax.vjp(hidden, row)[1](hidden(row))[0]\n"
        "        return rescale(jax.vmap(keep)(pulled), rows.exponent - shift)",
    ),
    Bug(
        "lag off by one",
        "flow/norms.py",
        "        norms = jax.tree.map(jnp.append, norms, at_T)",
        "        norms = jax.tree.map(lambda rest, _: jnp.append(rest[0], rest), norms, at_T)",
    ),
    Bug(
        "product not rescaled",
        "numerics/scaling.py",
        "    return Scaled(jax.tree.map(lambda leaf: leaf * factor, value), exponent + shift)",
        "    return Scaled(value, exponent + 0 * shift * factor.astype(int))",
    ),
    Bug(
        "search that stops once it looks converged",
        "numerics/spectral.py",
        "is_certified = (rest < bound) & is_below(coupling * scale[:, None] * scale, "
        "jnp.ones_like(rest))",
        "is_certified = jnp.sum(residual[0] ** 2) <= 1e-10 * values[0] * (values[0] - values[1])",
        CERTIFICATE,
    ),
    Bug(
        "trace of the complement halved",
        "numerics/spectral.py",
        "rest = jnp.maximum(trace - jnp.sum(values), 0) + rounding",
        "rest = jnp.maximum(trace - jnp.sum(values), 0) / 2 + rounding",
        CERTIFICATE,
    ),
    Bug(
        "inertia that is never negative",
        "numerics/spectral.py",
        "        certified = is_below(later @ later.T, value * margin)",
        "        certified = jnp.isfinite(jnp.sum(later))",
        CERTIFICATE,
    ),
    Bug(
        "map certified by the Lanczos residual alone",
        "numerics/lanczos.py",
        "stage=jnp.where(is_new, jnp.where(",
        "stage=jnp.where(is_new | is_hopeless, jnp.where(",
        ["tests/flow/test_certified_map.py", "-k", "short"],
    ),
    Bug(
        "slope of tanh that is rounded to zero",
        "numerics/slopes.py",
        "    return 4 * _logistic_slope(2 * x)",
        "    return 1 - jnp.tanh(x) ** 2",
        ["tests/numerics/test_exact_slopes.py"],
    ),
    Bug(
        "interval of a normal quantile",
        "statistics.py",
        "    return float(special.stdtrit(freedom, (1 + LEVEL) / 2))",
        "    return float(special.ndtri((1 + LEVEL) / 2))",
        ["tests/test_statistics.py"],
    ),
    Bug(
        "term of the loss at each step dropped from the adjoint",
        "flow/reverse.py",
        "        adjoint, exponent = _add(later, direct)",
        "        adjoint, exponent = later",
        ["tests/flow/test_adjoint.py"],
    ),
    Bug(
        "axes of the map swapped",
        "flow/norm_map.py",
        "norms = jnp.concatenate([norms, measure(first)[None]]).T",
        "norms = jnp.concatenate([norms, measure(first)[None]])",
        ["tests/flow/test_norm_map.py"],
    ),
    Bug(
        "chunk that starts from the carry of the chunk before",
        "flow/chunks.py",
        "carry=self._borders[i], mask=mask)",
        "carry=self._borders[max(i - 1, 0)], mask=mask)",
        ["tests/flow/test_chunks.py"],
    ),
    Bug(
        "padded steps that are run",
        "padding.py",
        "        carry = jax.tree.map(choose, new, carry)",
        "        carry = new",
        ["tests/test_padding.py"],
    ),
    Bug(
        "share of a batch lost",
        "devices.py",
        "restore(jax.lax.psum(flat, _BATCH)), rows",
        "restore(flat), rows",
        ["tests/test_devices.py"],
    ),
    Bug(
        "logarithm to the wrong base",
        "numerics/scaling.py",
        "    return jnp.log(value) + exponent * math.log(2)",
        "    return jnp.log(value) + exponent * math.log10(2)",
    ),
    Bug(
        "evaluation on the sequences of the training",
        "train/runs.py",
        "batch = task.fresh(_stream(run, _EVALUATE), training.eval_size)",
        "batch = task.fresh(_stream(run, _TRAIN), training.eval_size)",
        ["tests/train/test_runs.py"],
    ),
    Bug(
        "cell initialised from the stream of the training data",
        "train/runs.py",
        "params = init_model(training.cell, output_size, jax.random.fold_in(key, _INIT))",
        "params = init_model(training.cell, output_size, jax.random.fold_in(key, _TRAIN))",
        ["tests/test_kit.py"],
    ),
    Bug(
        "affine maps composed in the wrong order",
        "unroll/affine.py",
        "return product(later[0], earlier[0]), product",
        "return product(earlier[0], later[0]), product",
        ["tests/unroll/test_newton.py"],
    ),
    Bug(
        "planned weight gradient without the products of the carry",
        "unroll/planner/tangent.py",
        "    _, W, stacks = primals\n    d_vector, _, d_stacks = tangents",
        "    _, W, stacks = primals\n    W = 0 * W\n    d_vector, _, d_stacks = tangents",
        ["tests/unroll/test_planner.py"],
    ),
    Bug(
        "scale of the derivative by the input removed twice",
        "flow/input_norms.py",
        "        by_x = rescale(by_x, product.exponent - shift)",
        "        by_x = rescale(by_x, product.exponent - 2 * shift)",
        ["tests/flow/test_input_norms.py"],
    ),
    Bug(
        "patience that waits one epoch too long",
        "train/finite.py",
        "state.epoch - state.best_epoch >= patience",
        "state.epoch - state.best_epoch > patience",
        ["tests/train/test_finite.py"],
    ),
    Bug(
        "verdict that ignores the interval",
        "study/decide.py",
        "    if holds is not None:\n",
        "    if True:\n",
        ["tests/study/test_claims.py"],
    ),
    Bug(
        "checksum of a dataset that is not compared",
        "study/store.py",
        "        if hashlib.sha256(body).hexdigest().encode() != seal[len(_SEAL) :]:",
        "        if not body:",
        ["tests/study/test_store.py"],
    ),
    Bug(
        "content of files left out of the identity of a run",
        "study/sources.py",
        '            whole = hashlib.file_digest(file, "sha256")',
        "            whole = hashlib.sha256()",
        ["tests/study/test_sources.py"],
    ),
    Bug(
        "lock that is not taken",
        "locks.py",
        "            lock.acquire()\n",
        "            pass\n",
        ["tests/test_locks.py"],
    ),
    Bug(
        "code in a file of parameters that is executed",
        "interop/weights.py",
        "resolve(found.cell, allow_code=False)",
        "resolve(found.cell)",
        ["tests/interop/test_weights.py"],
    ),
    Bug(
        "rows of a table with too few fields",
        "data/series.py",
        "        if len(row) != len(names):",
        "        if len(row) > len(names) + 99:",
        ["tests/data/test_series.py"],
    ),
    Bug(
        "a row of a shared Jacobian in another member's block",
        "flow/decoupled.py",
        "seeds[row // members, group.entries[:, row % members, row]] = 1",
        "seeds[row // members, group.entries[:, row % members, row - 1]] = 1",
        BLOCKS,
    ),
    Bug(
        "blocks taken as equal that are not",
        "flow/decoupled.py",
        "return ~jnp.any(jnp.max(spread, axis=1) > rounding)",
        "return jnp.ones((), bool)",
        BLOCKS,
    ),
    Bug(
        "the norm of the last block for that of the largest",
        "flow/joins.py",
        "NormCertificate(*(jnp.max(leaf, axis=0) for leaf in (lower, upper, stage)))",
        "NormCertificate(*(leaf[-1] for leaf in (lower, upper, stage)))",
        BLOCKS,
    ),
    Bug(
        "a block counted once that stands for several",
        "flow/joins.py",
        "jnp.repeat(values, members, axis=-1)",
        "jnp.repeat(values, 1, axis=-1)",
        BLOCKS,
    ),
    Bug(
        "derivatives that leak between blocks",
        "flow/step_pattern.py",
        "if len(pulled) < LEAST_POINTS or pulled[:, 0].any():",
        "if len(pulled) < LEAST_POINTS:",
        BLOCKS,
    ),
]


def plant(bug: Bug, project: Path) -> None:
    """Changes the one place, which must be there once."""
    file = project / "gradflow" / bug.file
    source = file.read_text()
    if source.count(bug.right) != 1:
        raise ValueError(f"{bug.file} is expected to hold {bug.right!r} once: correct {bug.name!r}")
    file.write_text(source.replace(bug.right, bug.wrong))


def caught(bug: Bug) -> bool:
    """Whether a test fails in a copy of the project with the bug."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        for part in ("gradflow", "tests", "experiments"):
            shutil.copytree(ROOT / part, project / part)
        shutil.copy(ROOT / "pyproject.toml", project)
        plant(bug, project)
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-n0", *bug.tests]
        # The project's folder comes before the installed package on the path of `-m`.
        result = subprocess.run(command, cwd=project, capture_output=True, text=True)
    if result.returncode not in (0, 1):
        raise RuntimeError(f"the tests did not run with {bug.name!r}:\n{result.stdout[-3000:]}")
    return result.returncode == 1


def main() -> int:
    """Reports bug by bug; the exit code is 0 if every one is caught."""
    verdicts = []
    for bug in BUGS:
        verdicts.append(caught(bug))
        print(f"{'caught' if verdicts[-1] else 'MISSED'}  {bug.name}", flush=True)
    print(f"{sum(verdicts)} of {len(BUGS)} caught")
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
