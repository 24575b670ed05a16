"""Samples text from the trained networks of a record, and the command line for it."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp

from char_lm.config import Config
from char_lm.writing import write as write_symbols
from gradflow import study
from gradflow.cells import resolve
from gradflow.data.characters import encode
from gradflow.paths import user_path
from gradflow.processes import is_first
from gradflow.spec import split_specs
from gradflow.study.config import sanitise
from gradflow.study.flags import parse
from gradflow.study.folder import PARAMS
from gradflow.study.record import default_workdir


def params_file(folder: Path, spec: str) -> Path:
    """Returns the file of the trained cell of a spec in a record's folder of parameters."""
    return folder / f"{sanitise(spec)}.safetensors"


def write(
    record: Path,
    start: str,
    temperature: float,
    num_characters: int,
    seed: int,
    *,
    trusted: Sequence[str] = (),
) -> Iterator[str]:
    """Yields, piece by piece, the text that each network of a finished run continues.

    The record names the cells; one that is code is executed only if it is among those in trusted.

    Raises:
      ValueError: If the text is empty or has a character that the network has not seen, or the
        temperature is not positive.
      OSError: If there is no finished run.
    """
    from gradflow.interop import read_description, read_params

    dataset = study.read_dataset(record / "result.nc")
    alphabet = dataset.attrs["alphabet"]
    codes = encode(start, alphabet)
    for spec in map(str, dataset.cell.values):
        path = params_file(record / PARAMS, spec)
        about = read_description(path, trusted=trusted)
        cell = resolve(about.cell)(about.input_size, about.hidden_size)
        own = read_params(path, jax.eval_shape(cell.init, jax.eval_shape(jax.random.key, 0)))
        data = dataset.sel(cell=spec).isel(seed=0)
        W, b = data.readout_W.dropna("unit", how="all").values, data.readout_b.values
        params = {"cell": own, "readout": {"W": jnp.asarray(W), "b": jnp.asarray(b)}}
        sampled = write_symbols(cell, params, codes, jax.random.key(seed), temperature)
        yield f"\n--- {spec}, temperature {temperature:g} ---\n{start}"
        for _, code in zip(range(num_characters), sampled, strict=False):
            yield alphabet[code]
        yield "\n"


def train_and_write(experiment: study.Experiment, arguments: Sequence[str]) -> int:
    """Runs the study unless it is finished, samples text with --sample; returns the exit code."""
    reader = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    reader.add_argument("--sample")
    reader.add_argument("--temperature", type=float, default=0.8)
    reader.add_argument("--num_characters", type=int, default=500)
    try:
        asked, rest = reader.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    code = study.main(experiment, rest)
    if code or asked.sample is None or not is_first():
        return code
    request = parse(experiment, rest)
    options = request.options
    config = experiment.resolve(request.given, quick=options.quick, full=options.full)
    assert isinstance(config, Config)  # the experiment is the study of this folder
    folder = user_path(options.workdir or default_workdir(config, experiment.identity(config)))
    try:
        with study.precision(config):
            how = asked.temperature, asked.num_characters, config.seed
            for piece in write(folder, asked.sample, *how, trusted=split_specs(config.cell)):
                print(piece, end="", flush=True)
    except (ValueError, OSError) as error:
        print("error:", *str(error).split(), file=sys.stderr)
        return 1
    return 0
