"""Whether the convention that a user names can be that of a file."""

from gradflow.interop.loading import Options


def check_convention(options: Options, what: str, *known: str) -> None:
    """Checks that the user names no other convention than those of a kind of file.

    Raises:
      ValueError: If it is another one.
    """
    if options.convention is not None and options.convention not in known:
        raise ValueError(
            f"Expected no convention but {' or '.join(known)} for {what}, got "
            f"{options.convention}. Remove the convention: the file has its own."
        )
