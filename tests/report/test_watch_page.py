import numpy as np
import pytest

from gradflow.report.live.page import report_of
from gradflow.report.live.record import dataset_of


def line(update: int, rate: float, *, horizon: float, step: int = -1) -> dict:
    layer = {
        "name": "lstm",
        "horizon": horizon,
        "factor": float(np.exp(rate)) if step < 0 else None,
        "nonfinite_step": step,
        "needed_lag": 20,
        "lags": list(range(21)),
        "log_norms": [rate * lag if step < 0 else None for lag in range(21)],
        "saturation": {"f": [0.3, 0.1]},
    }
    return {"update": update, "seconds": 0.5, "layers": [layer]}


def test_a_training_whose_gradient_grows_longer_is_described():
    lines = [line(1, -1.0, horizon=7), line(101, -0.5, horizon=14), line(201, 0.0, horizon=np.inf)]
    report = report_of(dataset_of(lines), "PyTorch")
    section = report.sections[0]
    assert "updates 1 to 201" in report.title
    assert section.level == "good"
    assert "after 7 steps at first and > 20 at the end; the loss needs 20." in section.summary
    panels = {panel.title: panel for panel in section.panels}
    np.testing.assert_array_equal(panels["Horizon by update"].lines[0].y, [7, 14, np.nan])
    curves = {one.label: one.y for one in panels["Norm against lag"].lines}
    np.testing.assert_allclose(curves["update 101"][10], -5 / np.log(10))
    assert panels["Norm by update and lag"].image.values.shape == (3, 21)
    shut = panels["Saturated gates by update"].lines[0]
    assert shut.label == "f shut" and shut.y.tolist() == [0.3] * 3


def test_a_training_that_breaks_is_described_by_its_first_bad_update():
    lines = [line(1, -1.0, horizon=7), line(101, 0.0, horizon=np.nan, step=4)]
    section = report_of(dataset_of(lines), "PyTorch").sections[0]
    assert section.level == "bad"
    assert "not finite from step 4 on at update 101" in section.summary


def test_nothing_measured_has_no_report():
    with pytest.raises(ValueError, match="Expected measurements of a training, got none"):
        report_of(dataset_of([]), "PyTorch")
