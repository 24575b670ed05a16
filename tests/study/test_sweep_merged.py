import json
from dataclasses import replace

import numpy as np
import pytest
import swept
import xarray

from gradflow import study
from gradflow.study.store import to_json
from gradflow.study.sweep.command import _draw
from gradflow.study.sweep.merged import merge

AXES = {"cell": {"rnn": "rnn", "lstm": "lstm"}, "hidden_size": {"8": 8, "4": 4}}


def record(lags: int = 3, fill: float = 0.0, **variables) -> xarray.Dataset:
    config = to_json({"precision": "float64", "fill": fill})
    return xarray.Dataset(
        {"log_norm": ("lag", np.full(lags, fill)), **variables},
        coords={"lag": np.arange(lags)},
        attrs={"config": config, "experiment": "swept"},
    )


def points(*records: xarray.Dataset):
    names = [(cell, size) for cell in ("rnn", "lstm") for size in ("8", "4")]
    found = [dict(zip(AXES, name, strict=True)) for name in names]
    return list(zip(found, records, strict=False))


def test_each_record_is_at_its_place_in_the_order_of_the_flags():
    whole = merge(swept.EXPERIMENT, AXES, points(*(record(fill=-i) for i in range(4))))
    assert whole.cell.values.tolist() == ["rnn", "lstm"]
    assert whole.hidden_size.values.tolist() == [8, 4]
    np.testing.assert_array_equal(whole.log_norm.isel(lag=0), [[0, -1], [-2, -3]])
    np.testing.assert_array_equal(whole.measured[..., 0], [[0, -1], [-2, -3]])
    np.testing.assert_array_equal(whole.measured_low[..., 0], np.full((2, 2), -99))
    assert whole.attrs["experiment"] == "swept" and "config" not in whole.attrs
    assert json.loads(whole.attrs["sweep"]) == {"cell": ["rnn", "lstm"], "hidden_size": ["8", "4"]}


def test_what_a_record_lacks_is_nan(tmp_path):
    regime = {"regime": ((), "stable")}
    whole = merge(swept.EXPERIMENT, AXES, points(record(3, **regime), record(2, **regime)))
    present = np.isfinite(whole.log_norm).sum("lag").values
    np.testing.assert_array_equal(present, [[3, 2], [0, 0]])
    study.write_dataset(tmp_path / "whole.nc", whole)
    stored = study.read_dataset(tmp_path / "whole.nc")
    assert stored.regime.values.tolist() == [["stable", "stable"], ["", ""]]


def test_a_dimension_of_the_record_becomes_that_of_the_flag():
    same = ("lag", [1, 2, 3])
    parts = [record(3, -i, rate=("cell", [float(i)]), same=same) for i in range(2)]
    parts = [one.assign_coords(cell=["one"], target=("cell", ["h"])) for one in parts]
    axes = {"cell": AXES["cell"]}
    records = [({"cell": name}, one) for name, one in zip(axes["cell"], parts, strict=True)]
    whole = merge(swept.EXPERIMENT, axes, records)
    assert whole.cell.values.tolist() == ["rnn", "lstm"]
    assert whole.rate.dims == ("cell",) and whole.rate.values.tolist() == [0, 1]
    assert whole.same.dims == ("lag",)  # as in the record of one run, which the figure is for
    assert whole.target.values.tolist() == ["h", "h"]


def test_numbers_that_are_the_same_in_all_jobs_have_every_axis_too():
    parts = [record().expand_dims(cell=["one"]) for _ in range(4)]
    whole = merge(swept.EXPERIMENT, AXES, points(*parts))
    assert whole.measured_low.dims == whole.measured.dims == ("cell", "hidden_size", "claim")


def test_a_record_without_claims_and_values_that_are_lists_are_joined():
    axes = {"lags": {"0,1": (0, 1), "0,2": (0, 2)}}
    records = [({"lags": name}, record()) for name in axes["lags"]]
    whole = merge(replace(swept.EXPERIMENT, claims=lambda dataset: []), axes, records)
    assert whole.lags.values.tolist() == ["0,1", "0,2"] and whole.sizes["claim"] == 0


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([record(r=("run", [1])), record(r=("run", [1, 2]))], "can be joined, but: .*run"),
        ([record(r=("cell", [1, 2]))], "of one cell to join along cell, got one of 2. Give each"),
        ([record(cell=("lag", [1, 2, 3]))], "without a variable cell .* Sweep another flag than"),
    ],
    ids=["sizes", "dimension", "variable"],
)
def test_records_that_cannot_be_joined_are_refused(parts, message):
    with pytest.raises(ValueError, match=message):
        merge(swept.EXPERIMENT, AXES, points(*parts))


def test_the_figure_is_the_studys_own_where_it_can_be(capsys):
    whole = merge(swept.EXPERIMENT, AXES, points(*(record(fill=-i) for i in range(3))))
    own = swept.EXPERIMENT
    assert not _draw(own, whole, own=True).axes
    (panel,) = _draw(own, whole, own=False).axes
    assert panel.get_xlabel() == "hidden_size" and panel.get_title(loc="left") == "The norm falls."
    lines = {one.get_label(): one.lines[0].get_ydata().tolist() for one in panel.containers}
    np.testing.assert_equal(lines, {"cell=rnn": [0, -1], "cell=lstm": [-2, np.nan]})
    broken = replace(own, figure=lambda dataset: dataset.attrs["config"])
    assert len(_draw(broken, whole, own=True).axes) == 1
    assert "cannot show the joined records: KeyError('config')" in capsys.readouterr().out
