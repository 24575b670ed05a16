"""Everything that runs on a device is lowered for GPU and TPU, in float32, without having one.

A program is traced as it would be on an accelerator: JAX's default backend is reported as a GPU.
Each test lists its offenders.
"""

import ast
import functools
import re

import jax
import jax.numpy as jnp
import pytest
from test_architecture import MODULES, parsed

from gradflow import flow, unroll
from gradflow.cells import CELLS, lru, lstm
from gradflow.initializers import BIAS_INITIALIZERS, INITIALIZERS
from gradflow.numerics.jaxprs import has_primitive
from gradflow.presets import PRESETS, with_preset
from gradflow.tasks import resolve_task
from gradflow.train import Training, begin, resolve_optimiser, resolve_regulariser
from gradflow.train.clipping import CLIPPINGS, resolve_clipping
from gradflow.train.optimisers import OPTIMISERS
from gradflow.train.regularisers import REGULARISERS
from gradflow.train.runs import advance

pytestmark = pytest.mark.slow  # traces every cell, measurement and training for two accelerators

PLATFORMS = ("cuda", "tpu")
CALLBACKS = frozenset({"pure_callback", "io_callback", "debug_callback"})

DOUBLES = re.compile(r"tensor<\d[^>]*xf64>")
OPERATION = re.compile(r"(?:stablehlo|chlo|func)\.(\w+)|\bcall\b")
CASTS = frozenset("constant broadcast_in_dim slice reshape convert func return".split()) | {""}
"""Operations that may have a float64 array: under x64 a cell's initial carry is one until it is
cast. (A single number may be float64: JAX's own singular values on a TPU compute with one.)"""


@pytest.fixture(autouse=True, scope="module")
def on_an_accelerator():
    """The programs that the measurements keep are traced anew, before and after."""
    jax.clear_caches()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "default_backend", lambda: "gpu")
        yield
    jax.clear_caches()


def faults(function, *arguments, full_precision=False):
    """What is wrong with the program of a function for GPU and TPU."""
    jitted, found = jax.jit(function), []
    try:
        if has_primitive(jitted.trace(*arguments).jaxpr.jaxpr, CALLBACKS):
            found.append("calls back to the host")
        text = jax.export.export(jitted, platforms=PLATFORMS)(*arguments).mlir_module()
    except (NotImplementedError, TypeError, ValueError) as error:
        return [*found, str(error)]
    if "lapack_" in text:
        found.append("calls LAPACK")
    products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    if full_precision and not all("HIGHEST" in line for line in products):
        found.append("a product in less than full precision")
    lines = [line for line in text.splitlines() if DOUBLES.search(line)]
    operations = {name for line in lines for name in OPERATION.findall(line)[:1]}
    if operations - CASTS:
        found.append(f"float64 in {sorted(operations - CASTS)}")
    return found


def offenders(problems, **options):
    """The faults of each function, by name; each is given with its arguments.

    All are one program at first, which shares what they have in common.
    """
    functions = {name: function for name, (function, *_) in problems.items()}
    arguments = {name: given for name, (_, *given) in problems.items()}

    def together(arguments):
        return {name: function(*arguments[name]) for name, function in functions.items()}

    if not faults(together, arguments, **options):
        return {}
    found = {
        name: faults(function, *arguments[name], **options) for name, function in functions.items()
    }
    return {name: listed for name, listed in found.items() if listed} or "all of them together"


def in_float32(function, *arguments):
    """The shapes of what a function returns, with floats in float32."""
    return jax.tree.map(
        lambda leaf: (
            leaf.update(dtype=jnp.float32) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
        ),
        jax.eval_shape(function, *arguments),
    )


KEY = jax.eval_shape(lambda: jax.random.key(0))


def test_the_faults_are_seen():
    x = jax.ShapeDtypeStruct((3, 3), jnp.float32)
    matrix = jax.ShapeDtypeStruct((3, 3), float)
    host = jax.ShapeDtypeStruct((), jnp.float32)
    assert faults(lambda x: jax.pure_callback(lambda a: a[0, 0], host, x), x)[0].startswith("calls")
    assert len(faults(jnp.linalg.eigvals, x)) == 1
    assert faults(lambda a: a @ a, matrix) == ["float64 in ['dot_general']"]
    imprecise = faults(lambda a: a @ a, x, full_precision=True)
    assert imprecise == ["a product in less than full precision"]
    good, bad = (lambda x: jnp.linalg.qr(x)[0] * 2.0, x), (jnp.tanh, matrix)
    assert offenders({"good": good, "bad": bad}) == {"bad": ["float64 in ['tanh']"]}


@pytest.mark.parametrize("method", ["scan", "auto"])
def test_every_cell_and_its_gradient(method):
    def problem(name):
        cell = CELLS[name](3, 4)

        def loss(params, inputs):
            return jnp.sum(unroll(cell, params, inputs, method=method).outputs)

        inputs = jax.ShapeDtypeStruct((5, 2, 3), jnp.float32)
        return jax.value_and_grad(loss), in_float32(cell.init, KEY), inputs

    assert offenders({name: problem(name) for name in CELLS}) == {}


@pytest.fixture
def float32():
    """As users run on an accelerator: initial parameters are float32 where x64 is off."""
    with jax.enable_x64(False):
        yield


def test_every_initialiser(float32):
    initial = {name: (CELLS[name](3, 4).init, KEY) for name in CELLS}
    options = {"normal": {"radius": 0.9}}
    for name, law in INITIALIZERS.items():
        init = law(**options.get(name, {}))
        initial[name] = (lambda key, init=init: init(key, (5, 5), jnp.float32), KEY)
    for name, law in BIAS_INITIALIZERS.items():
        init = law(9)
        initial[name] = (lambda key, init=init: init(key, (5,), jnp.float32), KEY)
    for framework, kinds in PRESETS.items():
        for kind in kinds:
            cell = with_preset(CELLS[kind](3, 4), framework)
            initial[f"{framework} {kind}"] = cell.init, KEY
    assert offenders(initial) == {}


OWN = {
    "loss": {"loss": jnp.sum},
    "losses": {"losses": lambda outputs: jnp.sum(outputs, axis=1)},
    "lags": {"lags": (0, 2, 6)},
}
"""What a measurement needs beside a cell and a sequence."""


@pytest.mark.parametrize(
    ("cell", "size"), [(lstm, 33), (lru, 6)], ids=["whole", "in blocks"]
)  # from 33 rows on spectral norms are searched for, and frames are made in panels
def test_every_measurement(cell, size):
    cell = cell(3, size)
    arguments = in_float32(cell.init, KEY), jax.ShapeDtypeStruct((7, 3), jnp.float32)

    def problem(entry):
        own = OWN.get(entry.needs, {})
        return (lambda params, inputs: entry(cell, params, inputs, **own)), *arguments

    fits = {
        name: entry
        for name, entry in flow.CATALOGUE.items()
        if entry.needs not in ("lstm", "gates") or cell.gates is not None
    }
    problems = {name: problem(entry) for name, entry in fits.items()}
    given = {"norm": "frobenius"}
    frobenius = functools.partial(flow.log_norm_map, cell, **given)
    problems["log_norm_map frobenius"] = (lambda p, x: frobenius(params=p, inputs=x), *arguments)
    assert offenders(problems, full_precision=True) == {}


def variants():
    """A training for each optimiser, clipping, regulariser and truncation."""
    task, adam = resolve_task("adding(num_steps=6)"), resolve_optimiser("adam")
    sizes = {"batch_size": 2, "eval_size": 2}
    base = functools.partial(Training, lstm(2, 4), task, **sizes)
    found = {name: base(resolve_optimiser(name)) for name in OPTIMISERS}
    found |= {name: base(adam, clipping=resolve_clipping(name)) for name in CLIPPINGS}
    found |= {name: base(adam, regulariser=resolve_regulariser(name)) for name in REGULARISERS}
    found |= {f"k1, k2 = {k}": base(adam, truncation=k) for k in ((2, 2), (2, 4), (4, 2), (4, 4))}
    return found


def test_every_training_step(float32):
    rates = jnp.full(2, 1e-3)

    def problem(training):
        runs = jax.eval_shape(lambda key: begin(training, jax.random.split(key, 2), rates), KEY)
        return (lambda runs: advance(training, runs, 1)), runs

    assert offenders({name: problem(one) for name, one in variants().items()}) == {}


BY_NAME = {
    "gradflow.devices": "several CPU devices run decompositions one by one, which could deadlock",
    "gradflow.flow.tiles": "several CPU devices share the tiles of a map",
    "gradflow.interop.torch.files": "PyTorch's files are read without its devices",
    "gradflow.numerics.lapack": "batched decompositions could deadlock on a CPU",
    "gradflow.numerics.qr": "a panel is decomposed by LAPACK on a CPU, elsewhere by products",
    "gradflow.study.settings": "provenance is read without starting a device",
    "gradflow.testing": "an option of the CPU's compiler",
    "gradflow.unroll.rules": "the table of rules by backend",
}
"""The modules that name the CPU, and why."""


def test_nothing_else_asks_for_a_cpu_by_name():
    def names_it(node):
        if isinstance(node, ast.keyword):
            return node.arg == "cpu"
        return isinstance(node, ast.Constant) and node.value == "cpu"

    found = {m for m, path in MODULES.items() if any(map(names_it, ast.walk(parsed(path))))}
    assert found == set(BY_NAME)
