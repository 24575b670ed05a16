"""The command: what it takes, what it prints, and when its exit code is 1."""

import re
import threading
import time

import numpy as np
import pytest
import run
import xarray
from _paper import Paper

from gradflow import study
from gradflow.locks import locked
from gradflow.study import numbers


def fake(value, *, broken=False):
    """A paper of one number, published as 1."""

    def measure(config, once):
        if broken:
            raise ValueError("nothing comes out")
        return xarray.Dataset({"value": ((), np.float64(value))})

    def claims(dataset):
        measured = float(dataset.value)
        row = {"source": "Table 1", "atol": 0.1}
        return [
            numbers("fig1-any", "at any size", 1.0, measured, exact=True, **row),
            numbers("fig1-large", "at full size", 1.0, measured, **row),
            numbers("fig2-other", "of another figure", 2.0, 2.0, **row),
        ]

    def figure(dataset):
        from matplotlib.figure import Figure

        return Figure(figsize=(1, 1))

    return Paper(
        name="papers/fake2000",
        config=study.Config,
        run=measure,
        figure=figure,
        claims=claims,
        doc="A fake claim.",
        citation="Fake 2000",
        figures={"fig1": figure, "fig2": figure},
        traps=("a trap",),
    )


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Runs the command on a fake paper that measures a value, whose code differs by the value."""
    places = run.Places(tmp_path / "gallery", tmp_path / "papers.md", tmp_path / "runs")
    monkeypatch.setattr(run, "HERE", tmp_path)

    def call(*flags, value=1.0, broken=False, names=("fake2000",)):
        for name in names:
            (tmp_path / f"{name}.py").write_text(
                f"VALUE = {value}\n\ndef run():\n    return VALUE\n\nEXPERIMENT = Paper(run=run)\n"
            )
        made = {name: fake(value, broken=broken) for name in names}
        monkeypatch.setattr(run, "papers", lambda: made)
        return run.main(flags, places)

    call.places = places
    return call


def test_a_run_is_recorded_and_a_lost_claim_fails(call, capsys):
    assert call("--all") == 0
    out = capsys.readouterr().out
    assert re.search(r"paper +claim +reference +measured +verdict +seconds", out)
    assert "[1/1] fake2000: A fake claim." in out
    assert (call.places.gallery / "fake2000-fig1.png").exists()
    assert "A fake claim." in call.places.page.read_text()
    memory = call.places.ledger.read_bytes()
    assert call("--all", value=3.0) == 1
    error = capsys.readouterr().err
    assert "fake2000: fig1-any was reproduced and is not any more: off by 2" in error
    assert call.places.ledger.read_bytes() == memory  # or the second run would pass
    assert call("--all", value=3.0) == 1
    assert call("--all", "--accept", value=3.0) == 0
    assert call("--all", value=3.0) == 0
    assert call.places.ledger.read_bytes() != memory


def test_the_ledger_is_written_by_one_process_at_a_time(call):
    order = []

    def hold() -> None:
        with locked(call.places.gallery):
            held.set()
            time.sleep(0.5)
            order.append(call.places.ledger.exists())

    held, thread = threading.Event(), threading.Thread(target=hold)
    thread.start()
    assert held.wait(30) and call("--all") == 0
    thread.join()
    assert order == [False] and call.places.ledger.exists()
    assert not list(call.places.gallery.glob(".*"))


def test_a_damaged_ledger_is_named_with_its_cure(call, capsys):
    assert call("--all") == 0
    call.places.ledger.write_text("")
    assert call("--all") == 2
    error = capsys.readouterr().err
    assert re.search(r"error: Expected the ledger in .*ledger.json, but it is damaged", error)
    call.places.ledger.unlink()
    assert call("--all") == 0


def test_a_damaged_record_of_a_paper_fails_and_can_be_overwritten(call, capsys):
    assert call("--all") == 0
    (environment,) = call.places.runs.glob("*/*/env.json")
    environment.write_text("")
    assert call("--all") == 1
    error = capsys.readouterr().err
    assert f"{environment}, but it is damaged" in error and "--overwrite" in error
    assert call("--all", "--overwrite") == 0


def test_a_quick_run_checks_the_exact_claims_and_writes_nothing(call, capsys):
    assert call("--all") == 0
    memory = call.places.ledger.read_bytes()
    assert call("--all", "--quick", value=3.0) == 1
    assert capsys.readouterr().err.count("was reproduced") == 1
    assert call("--all", "--quick", value=1.05) == 0
    assert call.places.ledger.read_bytes() == memory


def test_one_figure_shows_its_claims_alone(call, capsys):
    assert call("--figure=fake2000-fig2") == 0
    out = capsys.readouterr().out
    assert "fig2-other" in out and "fig1-any" not in out


def test_a_run_that_fails_is_said(call, capsys):
    assert call("--all", broken=True) == 1
    error = capsys.readouterr().err
    assert "nothing comes out" in error and error.count("\n") == 1
    assert not call.places.ledger.exists()
    assert call("--all", broken=True, names=("fake2000", "fake2001")) == 1
    assert capsys.readouterr().err.endswith("error: fake2000, fake2001 failed\n")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "Expected --figure=NAME, --all or --list"),
        (["--al"], "Did you mean '--all'"),
        (["--all", "--quick", "--full"], "Expected one size"),
        (["--figure=fake2000-fig7"], "Did you mean 'fake2000-fig"),
    ],
)
def test_wrong_flags_are_one_line(call, capsys, flags, message):
    assert call(*flags) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.strip().splitlines()) == 1


def test_the_list_and_the_help(call, capsys):
    assert call("--list") == 0
    assert "fake2000-fig2" in capsys.readouterr().out
    assert call("--helpshort") == 0
    assert "--all" in capsys.readouterr().out
