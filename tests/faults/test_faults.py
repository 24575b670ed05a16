"""A short form of the attacks, on a run that takes a second; `harness` has the long one."""

from pathlib import Path

import guided
import harness
import pytest

SEED = 1


@pytest.fixture(scope="module")
def tally(tmp_path_factory: pytest.TempPathFactory) -> harness.Tally:
    return harness.Tally(harness.kinds(tmp_path_factory.mktemp("faults"), ["tiny"]), SEED)


@pytest.mark.parametrize(
    ("kind", "tries"),
    [
        ("flags", 6),
        *((kind, 2) for kind in ("kill", "interrupt", "terminate", "damaged")),
        *((kind, 1) for kind in ("two at once", "file limit", "small disk", "read-only")),
        ("vanishing", 1),
    ],
)
def test_no_attack_goes_wrong(tally, capsys, kind, tries):
    for _ in range(tries):
        tally.once(kind)
    assert not tally.counts[kind]["wrong"], capsys.readouterr().out
    if tally.counts[kind]["skipped"]:
        pytest.skip("a small disk is a tmpfs, which this user cannot mount")


def test_what_goes_wrong_is_counted_and_can_be_repeated(tmp_path, capsys):
    def attack(rng, folder: Path) -> str:
        if rng.random() < 0.5:
            raise AssertionError("the value\nis another one")
        return "survived"

    def tried(seed: int, tries: int) -> harness.Tally:
        tally = harness.Tally({"one": harness.Kind(attack, 1)}, seed)
        harness.attack(tally, minutes=0, tries=tries)
        return tally

    tally = tried(SEED, 40)
    assert 0 < tally.wrong < 40
    assert str(tally).splitlines()[-1].split() == [
        *("all", "40", str(40 - tally.wrong), "0", "0", str(tally.wrong))
    ]
    shown = capsys.readouterr().out.splitlines()
    assert (
        shown[1] == "  AssertionError: the value is another one" and len(shown) == 2 * tally.wrong
    )
    seed = int(shown[0].partition("--seed=")[2].split()[0])
    assert tried(seed, 1).wrong == 1


def test_every_kind_gets_its_part_of_the_time():
    def attack(rng, folder: Path) -> str:
        return "survived"

    tally = harness.Tally({"a": harness.Kind(attack, 1), "b": harness.Kind(attack, 3)}, SEED)
    tally.seconds.update(a=1.0, b=2.5)
    assert tally.next() == "b"
    tally.seconds.update(b=3.5)
    assert tally.next() == "a"


def test_the_exit_code_says_whether_anything_was_wrong(monkeypatch, capsys):
    def attack(rng, folder: Path) -> str:
        raise AssertionError("no")

    assert harness.main(["--only=damaged", "--tries=0"]) == 0
    monkeypatch.setattr(harness, "kinds", lambda folder, names: {"bad": harness.Kind(attack, 1)})
    assert harness.main(["--tries=1"]) == 1
    assert (
        "./run.sh faults --only='bad' --seed=0 --tries=1\n  AssertionError: no\n"
        in capsys.readouterr().out
    )
    with pytest.raises(SystemExit):
        harness.main(["--only=none"])


def test_the_guided_attack_finds_what_is_wrong(tmp_path, monkeypatch, capsys):
    tried: dict[str, tuple[int, str]] = {"trec": (900, ""), "npy": (7, "AssertionError: no")}
    monkeypatch.setattr(guided, "available", lambda: True)
    monkeypatch.setattr(guided, "attack_all", lambda names, **_: {n: tried[n] for n in names})
    monkeypatch.setattr(harness, "LOADERS", tried)
    assert harness.main(["--guided", "--only=trec"]) == 0
    assert harness.main(["--guided"]) == 1
    shown = capsys.readouterr().out
    assert "npy:\nAssertionError: no\n" in shown and ["npy", "7", "1"] in map(
        str.split, shown.splitlines()
    )
    monkeypatch.setattr(guided, "available", lambda: False)
    with pytest.raises(SystemExit):
        harness.main(["--guided"])


@pytest.mark.skipif(not guided.available(), reason="atheris is not installed")
def test_a_reader_is_attacked_by_coverage():
    tried, wrong = guided.attack_all(["trec"], minutes=0.03, seed=0)["trec"]
    assert tried > 100 and not wrong
