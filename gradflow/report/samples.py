"""The inputs of every layer of a net: generated, read from a file, or taken from the model."""

import zipfile
from collections.abc import Mapping

import jax
import numpy as np

from gradflow.checks import shorten
from gradflow.interop import Net
from gradflow.interop.net import Captured, feed
from gradflow.paths import user_path
from gradflow.report.losses import Batch
from gradflow.tasks.files import load_array
from gradflow.tasks.inputs import make_inputs

NUM_SEQUENCES = 16
"""Sequences for each seed, by default."""


def generated_batches(
    net: Net, spec: str, *, seed: int, num_sequences: int | None, num_steps: int, num_seeds: int = 1
) -> dict[str, Batch]:
    """Makes inputs for the layers that no layer feeds, and runs the net for those of the others.

    A kind of inputs may have a size of its own, as a file has: layers of another size are left out.

    Args:
      net: The net.
      spec: The kind of inputs, as `gradflow.tasks.inputs.make_inputs` takes it.
      seed: Seed of the random numbers.
      num_sequences: Number of sequences for each seed; by default `NUM_SEQUENCES`, or as many as a
        file of `numpy.save` has, if these are fewer.
      num_steps: Number of steps of each.
      num_seeds: Number of sets of sequences.

    Raises:
      ValueError: If no layer has the size of the inputs.
    """
    found: dict[str, np.ndarray] = {}
    others: dict[str, np.ndarray] = {}
    number = num_seeds * (num_sequences or NUM_SEQUENCES)
    if num_sequences is None:
        number = min(number, _available(spec) or number)
    for layer in net.layers:
        if layer.fed_by:
            continue
        with jax.enable_x64(True):
            # One key for all: the two directions of a layer read the same sequences.
            given = make_inputs(
                spec,
                jax.random.key(seed),
                num_sequences=number,
                num_steps=num_steps,
                input_size=layer.input_size,
            )
            inputs = np.asarray(given, np.float64)
        (found if inputs.shape[-1] == layer.input_size else others)[layer.name] = inputs
    if not found:
        name, inputs = next(iter(others.items()))
        raise ValueError(
            f"Expected {net[name].input_size} channels for layer {name}, got {inputs.shape[-1]} "
            f"from --inputs={spec}. Give inputs of this size, or a sample of the whole model by "
            "--sample."
        )
    return _batches(feed(net, found), None, {})


def _available(spec: str) -> int | None:
    """The number of sequences in the array that a kind of inputs names; None if it names none."""
    kind, _, place = spec.strip().partition(":")
    if kind != "npy" or not (path := user_path(place)).is_file():
        return None
    shape = load_array(path).shape
    return shape[0] if len(shape) == 3 else 1


def captured_batches(
    net: Net, sample: Mapping[str, np.ndarray], lengths: np.ndarray | None
) -> dict[str, Batch]:
    """Runs the original model on a sample, and takes the inputs of each layer there.

    Args:
      net: The net, from a source that can run the whole model.
      sample: The model's inputs by name.
      lengths: The number of real steps of each sequence, or one number for all; by default those
        that the mask of each layer keeps, and all steps of a layer without a mask.

    Raises:
      ValueError: If the model cannot be run, the lengths do not fit, or a layer has a mask that is
        not one of padding at the end.
    """
    if net.capture is None:
        alone = (
            f"the source, {net.framework}, has parameters alone; load the model in Python and call "
            "gradflow.report.diagnose(model, sample=...)"
        )
        raise ValueError(
            f"Expected a model that can be run on a sample, but {net.note or alone}. Or use "
            "--inputs without --sample."
        )
    captured = net.capture(sample)
    masks = captured.masks if isinstance(captured, Captured) else {}
    kept = {name: kept_steps(name, mask, lengths) for name, mask in masks.items()}
    return _batches(feed(net, captured), lengths, kept)


def kept_steps(name: str, mask: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
    """Returns the lengths of the sequences by the mask (N, T) of a layer.

    Raises:
      ValueError: If the mask skips other steps than those at the end, or contradicts the lengths.
    """
    found = mask.sum(axis=1)
    wrong = (mask != (np.arange(mask.shape[1]) < found[:, None])).any(axis=1) | (found == 0)
    if wrong.any():
        raise ValueError(
            f"Expected a mask of layer {name} that skips only steps at the end of a sequence, but "
            f"that of sequence {np.flatnonzero(wrong)[0]} (from 0) skips others. Such masks are "
            "not measured. Pad the sequences of the sample at the end."
        )
    if lengths is not None and (_lengths(lengths, *mask.shape) != found).any():
        raise ValueError(
            f"Expected the lengths {shorten(found.tolist())}, which the mask of layer {name} has, "
            f"got {shorten(lengths.tolist())}. Remove the lengths, which then come from the mask."
        )
    return found


def _batches(
    inputs: dict[str, np.ndarray], lengths: np.ndarray | None, kept: Mapping[str, np.ndarray]
) -> dict[str, Batch]:
    return {
        name: Batch(x, _lengths(kept.get(name, lengths), *x.shape[:2]))
        for name, x in inputs.items()
    }


def read_sample(path: str) -> dict[str, np.ndarray]:
    """Reads the inputs of a model from a file of `numpy.savez`, by name, or of `numpy.save`.

    Raises:
      ValueError: If it is none of these.
      FileNotFoundError: If there is no such file.
    """
    place = user_path(path)
    if not place.is_file():
        raise FileNotFoundError(
            f"Expected a sample at {str(place)!r}, got no file. Check the path."
        )
    try:
        with open(place, "rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"inputs": loaded}
            return {name: loaded[name] for name in loaded.files}
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"Expected the inputs of a model in {path!r}, got: {shorten(error)}. Save them with "
            "numpy.savez(path, name=array)."
        ) from None


def _lengths(given: np.ndarray | None, number: int, steps: int) -> np.ndarray:
    given = np.asarray(steps) if given is None else given
    found = np.full(number, given) if given.ndim == 0 else given
    if found.shape != (number,) or found.dtype.kind not in "iu":
        raise ValueError(
            f"Expected {number} lengths, whole numbers, one for each sequence, got shape "
            f"{found.shape} of {found.dtype}. Give as many as there are sequences."
        )
    if found.min() < 1 or found.max() > steps:
        raise ValueError(
            f"Expected lengths within 1 ... {steps}, the number of steps, got {found.min()} to "
            f"{found.max()}. Correct them."
        )
    return found.astype(int)


def read_lengths(given: str) -> np.ndarray:
    """Reads lengths from a file of `numpy.save`, numbers with commas, or one number for all.

    Raises:
      ValueError: If it is none of these.
    """
    if given.endswith(".npy"):
        return np.asarray(load_array(user_path(given)))
    try:
        found = [int(one) for one in given.split(",")]
        return np.asarray(found if "," in given else found[0])
    except ValueError:
        raise ValueError(
            f"Expected whole numbers with commas, or a file of numpy.save, for lengths, got "
            f"{given!r}. Write, for example, --lengths=20,18,15."
        ) from None
