"""Flags from a dataclass, on a FlagValues that belongs to one call of one experiment."""

import copy
import dataclasses
import difflib
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_origin, get_type_hints

import jax
from absl import flags

from gradflow.study.config import check, example, field, text
from gradflow.study.experiment import Experiment
from gradflow.study.kinds import Kind, kind_of

MOST_DEVICES = 1024
"""The devices of one process: JAX takes minutes to make more, which are then slower than few."""


@dataclass(frozen=True)
class Options:
    """The flags that every experiment takes besides its configuration."""

    workdir: str | None = field(None, help="Folder of the record; named after the flags if absent.")
    quick: bool = field(False, help="Use the defaults of a small run, which takes seconds.")
    full: bool = field(False, help="Use the defaults of the long form, if there is one.")
    replot: bool = field(False, help="Only draw the figure again from the record.")
    overwrite: bool = field(False, help="Remove an existing record and start again.")
    compilation_cache_dir: str | None = field(
        None, help="Folder of compiled programs; in the user's cache if absent."
    )
    distributed: bool = field(
        False,
        help="Run on the devices of all processes that run this command; Slurm, Open MPI, "
        "Kubernetes and TPU pods are recognised.",
    )
    coordinator: str | None = field(
        None, help="HOST:PORT at which process 0 can be reached, where they are not recognised."
    )
    num_processes: int | None = field(None, help="Number of processes, then.", positive=True)
    process_id: int | None = field(None, help="Number of this process, from 0 on, then.")
    verbosity: int = field(0, help="Log level; from 1 on, errors show their traceback.")
    help: bool = field(False, help="Show this text.")
    helpshort: bool = field(False, help="Show this text.")

    @property
    def is_distributed(self) -> bool:
        """Whether this process is to be one of several."""
        return self.distributed or self.coordinator is not None


class Request(NamedTuple):
    """The content of a command line.

    Attributes:
      given: The fields of the configuration that it gives, parsed.
      options: The flags that every experiment takes.
      jax: The options of JAX's own that it gives.
    """

    given: dict[str, Any]
    options: Options
    jax: dict[str, Any]


class _Parser(flags.ArgumentParser):
    """Reads one field; absl reports its errors with the flag's name and value."""

    def __init__(self, field: dataclasses.Field[Any], kind: Kind) -> None:
        super().__init__()
        self.field, self.kind = field, kind

    def parse(self, argument: str) -> Any:
        try:
            value = self.kind.read(argument)
        except (KeyError, ValueError):
            message = f"Expected {self.kind.words}{example(self.field.default)}"
            raise ValueError(message) from None
        check(self.field, value)
        return value


def _define(values: flags.FlagValues, cls: type) -> None:
    hints = get_type_hints(cls)
    for one in dataclasses.fields(cls):
        if one.name in values:
            raise ValueError(
                f"The configuration has a field {one.name}, which is a flag of every experiment. "
                "Give the field another name."
            )
        parser = _Parser(one, kind_of(hints[one.name]))
        # None is "not given": the defaults stay in the dataclass, so that a form can have others.
        flag = flags.Flag(parser, None, one.name, None, "", boolean=hints[one.name] is bool)
        flags.DEFINE_flag(flag, flag_values=values)


def _define_jax(values: flags.FlagValues) -> list[str]:
    if "jax_platforms" not in flags.FLAGS:
        jax.config.config_with_absl()
    names = [name for name in jax.config.values if name in flags.FLAGS and name.startswith("jax_")]
    for name in names:
        values[name] = copy.deepcopy(flags.FLAGS[name])  # what is parsed here stays here
    return names


def _nearest(argument: str, values: flags.FlagValues) -> str:
    name = argument.lstrip("-").partition("=")[0]
    near = difflib.get_close_matches(name, list(values), n=1, cutoff=0.5)
    return f"Did you mean --{near[0]}? " if near else ""


def _read(values: flags.FlagValues, argv: Sequence[str]) -> list[str]:
    try:
        return values(["", *argv])[1:]
    except flags.UnrecognizedFlagError as error:
        hint = _nearest(error.flagname, values)
        message = f"Unknown flag --{error.flagname}. {hint}--helpshort lists the known ones."
    except (flags.Error, ValueError) as error:
        message = str(error)
    raise flags.Error(message)


def parse(experiment: Experiment, argv: Sequence[str], options: type[Options] = Options) -> Request:
    """Reads a command line, without the program's name.

    Args:
      experiment: The experiment whose configuration it gives.
      argv: The command line.
      options: The dataclass of the flags besides the configuration's.

    Raises:
      absl.flags.Error: For an unknown flag, a bad value, or an argument that is not a flag.
      ValueError: If a field of the configuration has the name of another flag.
      TypeError: If a field of the configuration has a type that cannot be a flag.
    """
    values = flags.FlagValues()
    _define(values, options)
    names = _define_jax(values)
    _define(values, experiment.config)
    left = _read(values, argv)
    if left:
        hint = _nearest(left[0], values)
        raise flags.Error(f"Unexpected argument {left[0]!r}. {hint}Write flags as --name=value.")
    if values["jax_enable_x64"].present:
        raise flags.Error("--precision sets --jax_enable_x64. Use --precision=float64.")
    number = values["jax_num_cpu_devices"]
    if number.present and number.value not in range(1, MOST_DEVICES + 1):
        raise flags.Error(
            f"flag --jax_num_cpu_devices={number.value}: Expected an integer from 1 to "
            f"{MOST_DEVICES}, for example 1."
        )
    given: dict[str, Any] = {name: values[name].value for name in values if values[name].present}
    common = {one.name for one in dataclasses.fields(options)}
    chosen = options(**{name: value for name, value in given.items() if name in common})
    if chosen.replot and chosen.overwrite:
        raise flags.Error("--replot needs the record that --overwrite removes. Remove one of them.")
    if chosen.full and not experiment.full:
        raise flags.Error(f"{experiment.name} has no long form. Remove --full.")
    if chosen.full and chosen.quick:
        raise flags.Error("--quick is the small run and --full the long one. Remove one of them.")
    _check_processes(chosen)
    return Request(
        {name: value for name, value in given.items() if name not in {*common, *names}},
        chosen,
        {name: value for name, value in given.items() if name in names},
    )


def _check_processes(options: Options) -> None:
    """Checks the flags of a run on several processes."""
    names = ("coordinator", "num_processes", "process_id")
    coordinator, number, own = (getattr(options, name) for name in names)
    missing = [f"--{name}" for name in names if getattr(options, name) is None]
    if options.replot and options.is_distributed:
        raise flags.Error("--replot runs in one process. Remove the flags of several.")
    if len(missing) == len(names):
        return
    if missing:
        raise flags.Error(f"Expected --{', --'.join(names)} together. Add {', '.join(missing)}.")
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise flags.Error(
            f"flag --coordinator={coordinator}: Expected HOST:PORT, for example node1:1234."
        )
    if own not in range(number):
        raise flags.Error(
            f"flag --process_id={own}: Expected an integer from 0 to {number - 1}, which is below "
            "--num_processes."
        )


def help_text(experiment: Experiment, options: type[Options] = Options) -> str:
    """Writes the experiment's docstring, its own flags, and the flags of every experiment."""
    lines = [(experiment.doc or experiment.name).strip(), "", f"Flags of {experiment.name}:"]
    lines += _describe(experiment.config, experiment)
    lines += ["", "Flags of every experiment:", *_describe(options, experiment)]
    return "\n".join(
        [*lines, "", "JAX's own flags are accepted too, for example --jax_platforms=cpu."]
    )


def _describe(cls: type, experiment: Experiment) -> list[str]:
    hints, lines = get_type_hints(cls), []
    for one in dataclasses.fields(cls):
        name = f"[no]{one.name}" if hints[one.name] is bool else one.name
        facts = [f"default {text(one.default) or 'empty'}"]
        for form in ("quick", "full"):
            if one.name in getattr(experiment, form):
                facts.append(f"{form} {text(getattr(experiment, form)[one.name])}")
        if get_origin(hints[one.name]) is Literal:
            facts.insert(0, kind_of(hints[one.name]).words)
        line = f"--{name}: {one.metadata.get('help', '')} ({'; '.join(facts)})"
        lines.append(textwrap.fill(line, 88, initial_indent="  ", subsequent_indent="      "))
    return lines
