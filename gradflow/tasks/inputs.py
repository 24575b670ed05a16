"""Input sequences by name: generated, or read from a file.

Options come from a command line and are checked at run time, so they are not annotated.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Key
from gradflow.checks import check_integer, check_number
from gradflow.spec import check_name, check_options, parse_spec
from gradflow.tasks.files import FILES
from gradflow.tasks.windows import sample_rows

Shape = tuple[int, int, int]
"""(num_sequences, num_steps, input_size)."""


def gaussian(key: Key, shape: Shape, *, std: Any = 1.0) -> Float[Array, "sequences steps input"]:
    """Samples every entry independently from N(0, std²).

    Raises:
      TypeError: If std is not a number.
      ValueError: If std is not positive.
    """
    check_number("std", std, "positive", example=1.0)
    return std * jax.random.normal(key, shape)


def constant(key: Key, shape: Shape, *, value: Any = 1.0) -> Float[Array, "sequences steps input"]:
    """Returns inputs with the same value in every entry.

    Raises:
      TypeError: If the value is not a number.
      ValueError: If the value is not finite.
    """
    del key  # nothing is random
    check_number("value", value, "finite", example=1.0)
    return jnp.full(shape, value, jnp.result_type(float))


def impulse(key: Key, shape: Shape, *, size: Any = 1.0) -> Float[Array, "sequences steps input"]:
    """Returns inputs with x_1 = size in every channel and zero at all later steps.

    Raises:
      TypeError: If the size is not a number.
      ValueError: If the size is not finite.
    """
    del key  # nothing is random
    check_number("size", size, "finite", example=1.0)
    return jnp.zeros(shape).at[:, 0].set(size)


def adding(key: Key, shape: Shape) -> Float[Array, "sequences steps 2"]:
    """Samples inputs of the adding problem: values U(0, 1) in channel 1, markers in channel 2.

    One marker is in the first ⌊T/2⌋ steps, the other in the remaining steps. The target of the
    task is the sum of the two marked values.

    Raises:
      ValueError: If there are fewer than two steps.

    Source: Hochreiter & Schmidhuber 1997, doi:10.1162/neco.1997.9.8.1735, in the form of Le,
    Jaitly, Hinton 2015, arXiv:1504.00941.
    """
    num_sequences, num_steps, _ = shape
    check_integer("num_steps", num_steps, 2)  # one marked step in each half
    k_values, k_first, k_second = jax.random.split(key, 3)
    half = num_steps // 2
    first = jax.random.randint(k_first, (num_sequences,), 0, half)
    second = jax.random.randint(k_second, (num_sequences,), half, num_steps)
    values = jax.random.uniform(k_values, (num_sequences, num_steps))
    markers = jax.nn.one_hot(first, num_steps) + jax.nn.one_hot(second, num_steps)
    return jnp.stack([values, markers.astype(values.dtype)], axis=-1)


def digits(key: Key, shape: Shape) -> Float[Array, "sequences steps 1"]:
    """Samples images of handwritten digits as sequences of 64 pixels, with grey levels in [0, 1].

    Pixels are read row by row, one at each step. The key selects the images, without repetition
    if there are enough. With fewer steps the first pixels are used.

    Raises:
      ValueError: If there are more steps than pixels.

    Source: Alpaydin & Kaynak 1998, doi:10.24432/C50P49, as `sklearn.datasets.load_digits`.
    """
    from sklearn.datasets import load_digits  # here, because the import takes about a second

    images = load_digits(return_X_y=True)[0] / 16  # grey levels 0 to 16
    num_sequences, num_steps, _ = shape
    check_integer("num_steps of digits", num_steps, 1, images.shape[1])
    rows = sample_rows(key, len(images), num_sequences)
    return jnp.asarray(images[rows, :num_steps, None])


GENERATED: dict[str, Callable[..., Array]] = {
    "adding": adding,
    "constant": constant,
    "digits": digits,
    "gaussian": gaussian,
    "impulse": impulse,
}


def make_inputs(
    spec: str, key: Key, *, num_sequences: int, num_steps: int, input_size: int
) -> Float[Array, "sequences steps input"]:
    """Makes the input sequences x_1 ... x_T that a spec names.

    Kinds with a fixed input size (adding, digits and all files) ignore ``input_size``: build the
    cell for ``inputs.shape[-1]``.

    Args:
      spec: One of

        - ``gaussian(std=1.0)``: x ~ N(0, std²), independent entries;
        - ``constant(value=1.0)``: every entry is the value;
        - ``impulse(size=1.0)``: every entry of x_1 is the size, all later inputs are zero;
        - ``adding``: two channels, values and markers of the adding problem;
        - ``digits``: scikit-learn's 8×8 digits, one pixel per step, in [0, 1];
        - ``text:PATH``: characters of a UTF-8 file as one-hot vectors;
        - ``series:PATH:COLUMN``: a column of a CSV file, standardised to mean 0 and variance 1;
        - ``npy:PATH``: an array (T, input) or (N, T, input) saved by `numpy.save`.
      key: Random key of the noise, or of the selection of windows and images.
      num_sequences: Number of sequences.
      num_steps: T, the number of steps of each.
      input_size: Number of channels, for kinds without a fixed input size; 0 is an autonomous run.

    Raises:
      TypeError: If the value of an option is not a number.
      ValueError: For an unknown kind, or an invalid option, size or file.
    """
    check_integer("num_sequences", num_sequences, 1)
    check_integer("num_steps", num_steps, 1)
    check_integer("input_size", input_size, 0)
    before, _, place = spec.strip().partition(":")
    kind = before.partition("(")[0].strip()
    if kind in FILES:
        return FILES[kind](place, key, num_sequences, num_steps)
    name, options = parse_spec(spec)
    if name not in GENERATED:  # for "gaussian:3" report the whole name, because gaussian is known
        asked = name if kind in GENERATED else kind
        check_name("kind of inputs", asked, [*GENERATED, *FILES])
    check_options("inputs", name, GENERATED[name], options, skip=2)
    return GENERATED[name](key, (num_sequences, num_steps, input_size), **options)
