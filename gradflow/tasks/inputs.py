"""The inputs of an experiment by name: generated, or read from a file."""

from jaxtyping import Array, Float

from gradflow.cell import Key
from gradflow.spec import check_name, check_options, parse_spec
from gradflow.tasks.files import FILES
from gradflow.tasks.generated import GENERATED


def make_inputs(
    spec: str, key: Key, *, num_sequences: int, num_steps: int, input_size: int
) -> Float[Array, "sequences steps input"]:
    """Makes the input sequences x_1 ... x_T that a spec names.

    A kind with a size of its own (adding, digits and all files) takes no notice of
    ``input_size``: build the cell for ``inputs.shape[-1]``.

    Args:
      spec: One of

        - ``gaussian(std=1.0)``: x ~ N(0, std²), every entry by itself;
        - ``constant(value=1.0)``: every entry is the value;
        - ``impulse(size=1.0)``: every entry of x_1 is the size, all others are zero;
        - ``adding``: two channels, values and markers of the adding problem;
        - ``digits``: scikit-learn's 8×8 digits, one pixel a step, in [0, 1];
        - ``text:PATH``: characters of a UTF-8 file as one-hot vectors;
        - ``series:PATH:COLUMN``: a column of a CSV file, to mean 0 and standard deviation 1;
        - ``npy:PATH``: an array (T, input) or (N, T, input) saved by `numpy.save`.
      key: Draws the noise, or the windows and images where there are more than asked for.
      num_sequences: How many sequences.
      num_steps: T, the steps of each.
      input_size: The channels of the kinds that can have any number; 0 is an autonomous run.

    Raises:
      ValueError: For a kind, an option, a size or a file that is not as expected.
    """
    _check_sizes(num_sequences, num_steps, input_size)
    before, _, place = spec.strip().partition(":")
    kind = before.partition("(")[0].strip()
    if kind in FILES:
        return FILES[kind](place, key, num_sequences, num_steps)
    name, options = parse_spec(spec)
    if name not in GENERATED:  # gaussian:3 is none, though gaussian is one
        asked = name if kind in GENERATED else kind
        check_name("kind of inputs", asked, [*GENERATED, *FILES])
    check_options("inputs", name, GENERATED[name], options, skip=2)
    return GENERATED[name](key, (num_sequences, num_steps, input_size), **options)


def _check_sizes(num_sequences: int, num_steps: int, input_size: int) -> None:
    for name, size, least in (
        ("num_sequences", num_sequences, 1),
        ("num_steps", num_steps, 1),
        ("input_size", input_size, 0),
    ):
        if size < least:
            raise ValueError(f"{name} is expected to be at least {least}, got {size}")
