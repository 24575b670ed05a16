import numpy as np
import pytest
import xarray

from gradflow.report import findings

LAGS = np.arange(101)


def data(**changed) -> xarray.Dataset:
    """A layer of 4 units without any trouble, over 3 sequences of 100 steps."""
    arrays = {
        "log_norm": (("run", "lag"), np.zeros((3, 101))),
        "log_component": (("run", "step"), np.zeros((3, 100))),
        "input_deviation": (("step",), np.ones(100)),
        "unit_deviation": (("unit",), np.ones(4)),
        "unit_saturation": (("unit",), np.zeros(4)),
        "effective_rank": ((), 3.5),
        "output_gradient": (("unit",), np.ones(4)),
        "first_nonfinite": (("run",), np.full(3, -1)),
        "first_nonfinite_input": (("run",), np.full(3, -1)),
        "spectral_radius": (("matrix",), np.asarray([0.8])),
    }
    return xarray.Dataset(arrays | changed)


def falling(*rates: float) -> tuple:
    return ("run", "lag"), np.asarray([rate * LAGS for rate in rates])


def test_a_healthy_layer_is_called_so():
    found = findings.findings(data(), 100)
    assert [one.topic for one in found[:4]] == ["Reach", "Credit", "State", "Readout"]
    assert {one.level for one in found} == {"good"}
    assert found[0].sentence.startswith("The gradient has the size 1 at lag 100")


def test_a_gradient_that_vanishes_is_given_its_horizon_and_what_is_lost():
    found = findings.reach(data(log_norm=falling(-0.2, -0.25, -0.15)), 100)
    # log 1e3 = 6.9: 35 steps at 0.2, 28 at 0.25, 47 at 0.15
    assert "below 1e-3 after 35 steps [28, 47]" in found.sentence
    assert "the first 65 steps can hardly be learnt" in found.sentence and found.level == "bad"


def test_a_horizon_beyond_the_needed_lag_is_good_enough():
    found = findings.reach(data(log_norm=falling(-0.2, -0.2, -0.2)), 10)
    assert found.level == "good" and "0.14 at lag 10" in found.sentence


@pytest.mark.parametrize(("rate", "verb"), [(-0.05, "shrinks"), (0.05, "grows")])
def test_a_gradient_beyond_a_factor_of_ten_is_a_warning(rate, verb):
    found = findings.reach(data(log_norm=falling(rate, rate, rate)), 100)
    assert found.level == "warning" and f"it {verb} by more than a factor of 10" in found.sentence


def test_a_gradient_that_explodes_is_called_so():
    found = findings.reach(data(log_norm=falling(0.2, 0.2, 0.2)), 100)
    assert found.level == "bad" and "grows to 4.9e8 at lag 100" in found.sentence


def test_a_gradient_that_is_not_finite_is_given_its_lag():
    curves = np.zeros((3, 101))
    curves[:, 7:] = np.nan
    found = findings.reach(data(log_norm=(("run", "lag"), curves)), 100)
    assert "not a finite number from lag 7" in found.sentence and found.level == "bad"


def test_credit_is_counted_from_the_end():
    logs = np.full((3, 100), -50.0)
    logs[:, -5:] = 0.0
    found = findings.credit(data(log_component=(("run", "step"), logs)))
    assert "from the last 5 of 100 steps" in found.sentence and found.level == "warning"


def test_credit_on_blank_steps_is_told_apart():
    logs = np.full((3, 100), -50.0)
    logs[:, -5:] = 0.0
    deviation = np.ones(100)
    deviation[-4:] = 0.0
    changed = data(log_component=(("run", "step"), logs), input_deviation=(("step",), deviation))
    found = findings.credit(changed)
    assert "In 4 of these the input is the same in all sequences" in found.sentence
    assert found.level == "bad"
    assert findings.reach(changed, 100).level == "good"


def test_dead_and_saturated_units_are_counted():
    found = findings.state(
        data(
            unit_deviation=(("unit",), np.asarray([0.0, 1, 1, 1])),
            unit_saturation=(("unit",), np.asarray([0.0, 0.9, 0.2, 0.2])),
        )
    )
    assert "Of 4 units 1 never change, and 1 are saturated" in found.sentence
    assert found.level == "warning"


def test_a_dead_readout_is_found_while_the_flow_is_fine():
    found = findings.findings(data(output_gradient=(("unit",), np.zeros(4))), 100)
    levels = {one.topic: one.level for one in found}
    assert levels["Reach"] == "good" and levels["Readout"] == "bad"


def test_a_readout_of_one_unit_is_counted():
    weights = np.asarray([1.0, 0, 0, 0])
    found = findings.readout(data(output_gradient=(("unit",), weights)))
    assert "reads 1.0 of 4 units" in found.sentence


def test_a_forget_gate_that_is_shut_is_the_cause():
    usage = np.full((1, 3, 100), 0.12)
    changed = data(
        log_norm=falling(-2.0, -2.0, -2.0), gate_usage=(("gate", "use", "step"), usage)
    ).assign_coords(gate=["f"], use=["mean", "shut", "open"])
    found = findings.cause(changed, 100)
    assert "forget gate is 0.12 on average" in found.sentence and "raise its bias" in found.sentence
    assert found.level == "bad"


def test_a_plain_network_is_explained_by_its_spectral_radius():
    found = findings.cause(data(log_norm=falling(-0.2, -0.2, -0.2)), 100)
    assert "factor 0.819 per step" in found.sentence and "is 0.80" in found.sentence


def test_formats_are_left_at_their_limits():
    found = findings.precision(data(log_norm=falling(-1.0, -1.0, -1.0)))
    # 24 log 2 = 16.6, 133 log 2 = 92.2
    assert "float16 rounds it to zero from lag 17" in found.sentence
    assert "bfloat16 rounds it to zero from lag 93" in found.sentence


def test_states_that_break_are_reported_with_their_step():
    found = findings.nonfinite(data(first_nonfinite=(("run",), np.asarray([-1, 40, 12]))))
    assert "from step 12 on, in 2 of 3 sequences" in found.sentence


@pytest.mark.parametrize(("after", "best"), [((-3.0, -8.0), "a"), ((-9.0, -8.9), None)])
def test_the_best_change_is_named_and_none_if_nothing_helps(after, best):
    changed = data(
        change_log_norm=(("change",), np.asarray(after)), log_norm_before=((), -9.0)
    ).assign_coords(change=["a", "b"])
    found = findings.advice(changed, 100)
    assert (f"'{best}' helps most" in found.sentence) if best else "None of" in found.sentence
