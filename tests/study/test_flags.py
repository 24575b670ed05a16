import dataclasses
import subprocess
import sys
from dataclasses import dataclass
from typing import Literal, Optional

import pytest
import tiny
from absl import flags

from gradflow import study
from gradflow.study.flags import help_text, parse
from gradflow.study.kinds import kind_of


def given(*argv: str) -> dict:
    return parse(tiny.EXPERIMENT, argv).given


def test_every_kind_of_field_is_read():
    assert given(
        "--num_steps=12",
        "--gains=0.5, 1e-3,2",
        "--cells=lstm(forget_bias=2, peephole=True),gru",
        "--norm=frobenius",
        "--bias=-0.5",
        "--centre",
        "--log=a b",
        "--seed",
        "3",
    ) == {
        "num_steps": 12,
        "gains": (0.5, 1e-3, 2.0),
        "cells": ("lstm(forget_bias=2, peephole=True)", "gru"),
        "norm": "frobenius",
        "bias": -0.5,
        "centre": True,
        "log": "a b",
        "seed": 3,
    }


def test_an_optional_field_takes_none_and_a_boolean_takes_no():
    assert given("--bias=none", "--nocentre") == {"bias": None, "centre": False}


def test_optional_may_be_written_either_way_round():
    for hint in (int | None, None | int, Optional[int]):  # noqa: UP045
        assert [kind_of(hint).read(value) for value in ("3", "None")] == [3, None]
    assert kind_of(tuple[bool, ...]).read("true,0,False") == (True, False, False)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--num_steps=0", "flag --num_steps=0: Expected a number above zero, for example 6[.]"),
        (
            "--seed=4294967296",
            "flag --seed=4294967296: Expected a whole number from 0 to 42949",
        ),
        (
            "--num_steps=1000000000000",
            "flag --num_steps=10*: Expected an integer up to 2147483647, ",
        ),
        ("--num_steps=-1000000000000", "flag --num_steps=-10*: Expected a number above zero, for "),
        ("--bias=inf", "flag --bias=inf: Expected a finite number[.]"),
        ("--bias=1e400", "flag --bias=1e400: Expected a finite number[.]"),
        ("--gains=1,nan", "flag --gains=1,nan: Expected numbers above zero, for example 0.5"),
        ("--seed=-1", "flag --seed=-1: Expected a whole number from 0 to 4294967295"),
        ("--num_steps=2.5", "flag --num_steps=2.5: Expected an integer, for example 6[.]"),
        ("--gains=1,-1", "flag --gains=1,-1: Expected numbers above zero, for example 0.5"),
        ("--gains=1,x", "flag --gains=1,x: Expected a comma-separated list, each a number"),
        ("--gains=", "flag --gains=: Expected a comma-separated list, each a number"),
        ("--norm=trace", "flag --norm=trace: Expected one of spectral, frobenius"),
        ("--bias=x", "flag --bias=x: Expected a number or none"),
        ("--centre=maybe", "flag --centre=maybe: Expected true or false, for example false"),
        ("--nocentre=1", "--nocentre=1 does not take an argument"),
        ("--seed", "Missing value for flag --seed"),
        (
            "--num_step=3",
            "Unknown flag --num_step[.] Did you mean --num_steps[?] --helpshort",
        ),
        ("--jax_platfroms=cpu", "Unknown flag --jax_platfroms[.] Did you mean --jax_platforms[?]"),
        ("--xyzzy", "Unknown flag --xyzzy[.] --helpshort lists"),
        (
            "gains=3",
            "Unexpected argument 'gains=3'[.] Did you mean --gains[?] Write flags as",
        ),
        ("7", "Unexpected argument '7'[.] Write flags as --name=value"),
        ("--jax_numpy_rank_promotion=no", "flag --jax_numpy_rank_promotion=no: .*allow|warn|raise"),
        (
            "--jax_num_cpu_devices=1000000",
            "jax_num_cpu_devices=1000000: Expected .* from 1 to 1024",
        ),
        ("--jax_num_cpu_devices=0", "jax_num_cpu_devices=0: Expected an integer from 1 to 1024"),
        ("--jax_enable_x64", "--precision sets --jax_enable_x64[.] Use --precision=float64"),
    ],
)
def test_a_bad_flag_is_named_with_its_fix(argument, message):
    with pytest.raises(flags.Error, match=message):
        parse(tiny.EXPERIMENT, ["--num_seeds=2", argument])


def test_what_draws_the_record_cannot_discard_it():
    with pytest.raises(flags.Error, match="--replot needs the record .*[.] Remove one of them"):
        parse(tiny.EXPERIMENT, ["--replot", "--overwrite"])


@dataclass(frozen=True)
class Other(study.Config):
    gains: Literal["large", "small"] = study.field("small", help="Another thing by this name.")


def test_two_experiments_side_by_side_keep_their_own_flags():
    other = dataclasses.replace(tiny.EXPERIMENT, name="other", config=Other, quick={}, full={})
    for _ in range(2):
        assert parse(other, ["--gains=large"]).given == {"gains": "large"}
        assert given("--gains=0.5") == {"gains": (0.5,)}
    with pytest.raises(flags.Error, match="Unknown flag --num_steps"):
        parse(other, ["--num_steps=3"])
    assert "gains" not in flags.FLAGS


def test_quick_changes_the_defaults_and_flags_win():
    request = parse(tiny.EXPERIMENT, ["--quick", "--num_seeds=5"])
    assert request.options.quick
    config = tiny.EXPERIMENT.resolve(request.given, quick=True)
    assert config == tiny.Config(num_steps=3, num_seeds=5)
    assert tiny.EXPERIMENT.resolve(request.given) == tiny.Config(num_seeds=5)


def test_full_changes_the_defaults_and_flags_win():
    request = parse(tiny.EXPERIMENT, ["--full"])
    assert request.options.full and not request.given
    assert tiny.EXPERIMENT.resolve({}, full=True).num_steps == 50
    assert tiny.EXPERIMENT.resolve({"num_steps": 7}, full=True).num_steps == 7
    with pytest.raises(flags.Error, match="--quick is the small run and --full the long one"):
        parse(tiny.EXPERIMENT, ["--full", "--quick"])
    with pytest.raises(flags.Error, match="tiny has no long form[.] Remove --full"):
        parse(dataclasses.replace(tiny.EXPERIMENT, full={}), ["--full"])


@pytest.mark.parametrize("form", ["quick", "full"])
def test_a_form_can_only_name_fields(form):
    with pytest.raises(ValueError, match=f"Unknown field .* {form} 'num_step'. Did you mean"):
        dataclasses.replace(tiny.EXPERIMENT, **{form: {"num_step": 3}})


def test_flags_of_jax_are_read_and_leave_no_trace():
    request = parse(tiny.EXPERIMENT, ["--jax_log_compiles", "--jax_default_matmul_precision=high"])
    assert request.jax == {"jax_log_compiles": True, "jax_default_matmul_precision": "high"}
    assert request.given == {}
    assert parse(tiny.EXPERIMENT, []).jax == {}
    assert not flags.FLAGS["jax_log_compiles"].present


@dataclass(frozen=True)
class Clashing(study.Config):
    quick: int = 3


@dataclass(frozen=True)
class Untypical(study.Config):
    sizes: list[int] | None = None


def test_a_field_with_the_name_of_another_flag_is_refused():
    with pytest.raises(ValueError, match="has a field quick, .* another name"):
        parse(dataclasses.replace(tiny.EXPERIMENT, config=Clashing, quick={}, full={}), [])


@pytest.mark.parametrize("hint", [dict, list[int], tuple[int, int], int | str, Literal[1, 2]])
def test_a_type_that_cannot_be_a_flag_is_refused(hint):
    with pytest.raises(TypeError, match="Expected a field of type int, .* got .*[.] Declare it"):
        kind_of(hint)


def test_a_field_of_such_a_type_is_refused():
    with pytest.raises(TypeError, match="got list.int."):
        parse(dataclasses.replace(tiny.EXPERIMENT, config=Untypical, quick={}, full={}), [])


def test_the_help_shows_the_docstring_and_every_flag_with_its_defaults():
    shown = help_text(tiny.EXPERIMENT)
    assert shown.startswith("Powers of a gain vanish.\n\nlog norm = lag · log gain.\n")
    assert "\n  --num_steps: The largest lag. (default 6; quick 3; full 50)\n" in shown
    assert "\n  --norm: Which norm. (one of spectral, frobenius; default spectral)\n" in shown
    assert "\n  --[no]centre: Whether to centre. (default false)\n" in shown
    for one in (*dataclasses.fields(tiny.Config), "workdir", "replot", "compilation_cache_dir"):
        name = one if isinstance(one, str) else one.name
        assert f"--{name}:" in shown or f"--[no]{name}:" in shown
    assert "jax_log_compiles" not in shown


def test_importing_defines_no_flag_and_loads_nothing_heavy():
    code = """
import sys
import gradflow.study
from absl import flags
heavy = {"matplotlib", "xarray", "tqdm", "h5netcdf", "h5py", "pandas"} & set(sys.modules)
print(sorted(heavy), [name for name in flags.FLAGS if name.startswith("jax_") or name == "seed"])
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "[] []\n"


def by_hand(*replaced: str) -> tuple[str, ...]:
    """The flags of one of two processes, some of them replaced."""
    flags = "--coordinator=node1:1234", "--num_processes=2", "--process_id=1"
    return *flags, *replaced


def test_the_flags_of_several_processes_are_read():
    for argv in (by_hand(), ("--distributed",), by_hand("--distributed")):
        assert parse(tiny.EXPERIMENT, argv).options.is_distributed
    assert not parse(tiny.EXPERIMENT, ()).options.is_distributed


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (by_hand()[:1], "together. Add --num_processes, --process_id[.]"),
        (by_hand()[1:], "together. Add --coordinator[.]"),
        (by_hand("--coordinator=node1"), "coordinator=node1: Expected HOST:PORT, for example"),
        (by_hand("--coordinator=node1:70000"), "Expected HOST:PORT"),
        (by_hand("--process_id=2"), "process_id=2: Expected an integer from 0 to 1, which is"),
        (by_hand("--num_processes=0"), "num_processes=0: Expected a number above zero"),
        (("--distributed", "--replot"), "replot runs in one process. Remove the flags of several"),
    ],
)
def test_flags_of_several_processes_that_do_not_fit_are_refused(argv, message):
    with pytest.raises(flags.Error, match=message):
        parse(tiny.EXPERIMENT, argv)
