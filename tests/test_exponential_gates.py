"""The study of exponential gates: steps of the overflow by hand, and its verdicts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from studies import load, verdicts

from gradflow import study
from gradflow.cells import slstm

MODULE = load("exponential_gates")
EXPERIMENT = MODULE.EXPERIMENT


def overflow_of_a_sum(bias, precision):
    """The first t at which n_t = 1 + e^a + ... + e^(a(t - 1)) exceeds the largest float."""
    largest = np.log(np.finfo(precision).max)
    sizes = bias * np.arange(1, 100) + np.log(-np.expm1(-bias * np.arange(1, 100)))
    return 1 + int(np.argmax(sizes - np.log(np.expm1(bias)) > largest))


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_constant_gates_overflow_where_their_sum_does(precision, key):
    forms = [slstm(1, 2, stabilised=s, forget_gate="exp", forget_bias=9.0) for s in (True, False)]
    params = jax.tree.map(lambda leaf: 0 * leaf, forms[0].init(key))
    params["f"]["b"] = jnp.full(2, 9.0)
    params["g"]["b"] = jnp.full(2, 0.5)
    found = MODULE.compare(forms, params, jnp.ones((85, 1)), jnp.ones(2), precision)
    expected = overflow_of_a_sum(9.0, precision)
    assert found["overflow_step"] == found["predicted_step"] == expected
    assert expected == (11 if precision == "float32" else 80)


def test_the_quick_run_finds_what_is_derived(dataset):
    found = verdicts(EXPERIMENT.claims(dataset))
    assert found["overflow-where-predicted"] == found["wrong-at-half"] == "supported"
    assert found["same-before-float32"] == found["same-before-float64"] == "supported"
    assert found["stabilised-never-wrong"] == "supported"
    rows = MODULE.of_gate(dataset, "input").sel(precision="float32", cell="slstm")
    assert np.isinf(rows.overflow_step.sel(bias=60)).all() and (rows.gradient_step[:, 1] == 1).all()
    assert (rows.overflow_step.sel(bias=100) == 1).all()


def test_the_claims_are_decided_by_the_numbers(dataset):
    def of(**changed):
        return verdicts(EXPERIMENT.claims(dataset.assign(changed)))

    late = of(overflow_step=2 * dataset.overflow_step, gradient_step=2 * dataset.overflow_step)
    assert late["overflow-where-predicted"] == "not supported"
    assert late["overflow-as-derived"] == late["wrong-at-half"] == "not supported"
    assert of(predicted_step=np.inf + dataset.predicted_step)["overflow-where-predicted"] == (
        "not supported"
    )
    wrong = of(gradient_error=dataset.gradient_error + 1e-6)
    assert wrong["same-before-float32"] == "supported"
    assert wrong["same-before-float64"] == "not supported"
    unstable = of(stabilised_error=dataset.stabilised_error + 0.02)
    assert unstable["stabilised-never-wrong"] == "not supported"


def test_the_precision_is_that_of_the_reference():
    config = EXPERIMENT.resolve({"precision": "float32"}, quick=True)
    with pytest.raises(ValueError, match="got float32. Remove --precision"):
        EXPERIMENT.run(config, study.call)
