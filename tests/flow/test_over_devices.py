"""A network whose rows are distributed over devices is measured as on one, in less memory each.

A process has its number of devices from the start, so that they are tried in one of its own.
"""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from gradflow import flow
from gradflow.cells import rnn

SETTING = """
import json, warnings
from functools import partial
import jax, jax.numpy as jnp, numpy as np
from gradflow import flow
from gradflow.cells import lru, lstm, rnn

warnings.simplefilter("error")
T, DEVICES = 5, jax.devices()
assert len(DEVICES) == 4

def problem(cell, size):
    cell = cell(3, size)
    return cell, cell.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (T, 3))

def off(measure, *problem, devices=DEVICES, **options):
    found = flow.over_devices(partial(measure, **options), devices=devices)(*problem)
    wanted = measure(*problem, **options)
    differences = []
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert a.devices() == set(devices), measure
        a, b = np.asarray(a), np.asarray(b)
        assert a.shape == b.shape and (np.isfinite(a) == np.isfinite(b)).all()
        differences.append(np.abs(a - b)[np.isfinite(b)].max(initial=0))
    return float(max(differences))

def memory(cell, measure, number):
    cell = cell(3, 64)
    given = jax.eval_shape(cell.init, jax.random.key(0)), jax.ShapeDtypeStruct((T, 3), float)
    lower = jax.jit(partial(measure, cell)).lower
    program = flow.over_devices(lower, devices=DEVICES[:number])(*given).compile()
    return program.memory_analysis().temp_size_in_bytes

large = problem(lstm, 37)  # no number of devices divides it
frobenius = partial(flow.log_norms, norm="frobenius")
"""

NORMS = """
certificate = flow.over_devices(flow.norm_certificate)(*large)
print(json.dumps({
    "four": off(flow.log_norms, *large),
    "two": off(flow.log_norms, *large, devices=DEVICES[:2]),
    "certified": float(jnp.max(certificate.upper - certificate.lower)),
    "in blocks": off(frobenius, *problem(lru, 6), source="carry", target="carry"),
}))
"""

EVERYTHING = """
print(json.dumps({
    "frobenius": off(frobenius, *large, source="c", target="carry"),
    "map": off(flow.log_norm_map, *large),
    "spectrum": off(flow.log_singular_values, *problem(rnn, 9)),
    "exponents": off(flow.lyapunov_exponents, *large, qr_every=1),
}))
"""

MEMORY = """
measures = (lstm, frobenius), (lstm, flow.log_norms), (rnn, flow.lyapunov_exponents)
print(json.dumps([[memory(*measure, number) for number in (1, 2, 4)] for measure in measures]))
"""


def run(program):
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "4", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", SETTING + program],
        env=environment | {"JAX_ENABLE_X64": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


SLOW = pytest.mark.slow  # compiles each measurement for one device and for four


@pytest.mark.parametrize(
    "program",
    [pytest.param(NORMS, id="norms"), pytest.param(EVERYTHING, id="everything", marks=SLOW)],
)
def test_the_numbers_are_those_of_one_device(program):
    """Differences in nats."""
    assert {name: value for name, value in run(program).items() if not value < 1e-9} == {}


@pytest.mark.slow  # compiles three measurements for one, two and four devices
def test_the_memory_of_a_device_falls_with_their_number():
    frobenius, spectral, exponents = run(MEMORY)
    assert frobenius[2] < 0.6 * frobenius[1] < 0.36 * frobenius[0]
    for one, two, four in (spectral, exponents):
        assert four < 0.95 * two < 0.95**2 * one


def test_bad_arguments_raise():
    cell, inputs = rnn(1, 2), jnp.zeros((3, 1))
    params = cell.init(jax.random.key(0))
    with pytest.raises(
        ValueError, match=r"Expected at least one device, got none. Remove devices="
    ):
        flow.over_devices(flow.log_norms, devices=[])(cell, params, inputs)
    measure = flow.over_devices(flow.log_norms)
    with pytest.raises(ValueError, match="outside of jax.jit.*over_devices.jax.jit.function"):
        jax.jit(lambda params: measure(cell, params, inputs))(params)
