"""Names with options, as typed on a command line: ``lstm(forget_bias=2, peephole=True)``.

One grammar serves cells, initialisers and tasks. Options are Python literals, and nothing is
ever evaluated, so that a command line is data. Names and options are checked here for all tables.
"""

import ast
import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from gradflow.checks import check_text, shorten

Made = TypeVar("Made")


def parse_spec(spec: str) -> tuple[str, dict[str, Any]]:
    """Splits ``name(option=literal, ...)`` into the name and a dictionary of its options.

    Raises:
      TypeError: If the spec is not a string.
      ValueError: If the options are not keyword literals.
    """
    check_text("a name with options", spec)
    name, bracket, options = spec.strip().partition("(")
    if not name.strip():
        raise ValueError(
            f"Expected a name, got {shorten(repr(spec))}. Write name or name(option=...)."
        )
    if not bracket:
        return name, {}
    got = f"got {shorten(repr(spec))}"
    fix = f"{got}. Write name(option=literal, ...), for example lstm(forget_bias=2)."
    try:
        call = ast.parse(f"f({options}", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # some for too deep a nesting
        raise ValueError(f"Expected options between brackets, {fix}") from None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
        raise ValueError(f"Expected options by keyword, {fix}")
    names = [keyword.arg or "**" for keyword in call.keywords]
    if "**" in names or len(set(names)) < len(names):
        raise ValueError(f"Expected each option once and by its name, {fix}")
    try:
        values = [ast.literal_eval(keyword.value) for keyword in call.keywords]
        return name.strip(), dict(zip(names, values, strict=True))
    except (ValueError, TypeError, RecursionError, MemoryError):
        raise ValueError(f"Expected a literal as the value of each option, {fix}") from None


def split_specs(specs: str) -> list[str]:
    """Splits a list of specs at the commas that stand outside brackets and quotes.

    Raises:
      TypeError: If it is not a string.
    """
    check_text("a list of names", specs)
    parts, depth, quote = [""], 0, ""
    for char in specs:
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        depth += (char in "([{") - (char in ")]}") if not quote else 0
        if char == "," and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts if part.strip()]


def check_name(kind: str, name: str, known: Iterable[str], *, hint: str = "") -> None:
    """Checks that a name is known.

    Args:
      kind: What it is a name of, in an error: "cell", "task", ...
      name: The name.
      known: All known names.
      hint: A sentence that ends the error's message.

    Raises:
      TypeError: If it is not a string.
      ValueError: If it is not known, with the nearest known name and the list of all.
    """
    check_text(f"the name of the {kind}", name)
    if name not in (names := sorted(known)):
        raise ValueError(" ".join(filter(None, (_unknown(kind, name, names), hint))))


def check_options(
    kind: str, name: str, factory: Callable[..., Any], options: Iterable[str], *, skip: int = 0
) -> None:
    """Checks that a factory takes options of these names.

    Args:
      kind: What the factory makes, in an error: "cell", "task", ...
      name: The factory's name, in an error.
      factory: The factory.
      options: The options' names.
      skip: How many of the factory's first parameters are not options.

    Raises:
      ValueError: If there is an option that it does not take, with the list of those it takes.
    """
    parameters = list(inspect.signature(factory).parameters.values())[skip:]
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    taken = [p.name for p in parameters if p.kind is not p.VAR_POSITIONAL]
    for option in options:
        if option not in taken:
            raise ValueError(_unknown("option", option, taken, f" of {kind} {name!r}"))


def make_from_spec(kind: str, spec: str, table: Mapping[str, Callable[..., Made]]) -> Made:
    """Calls the factory that a spec names with the options that it gives.

    Args:
      kind: What the factories make, in an error: "task", "optimiser", ...
      spec: ``name`` or ``name(option=literal, ...)``.
      table: The factories by name.

    Raises:
      ValueError: If the name or an option is not known, or the factory refuses a value.
    """
    name, options = parse_spec(spec)
    check_name(kind, name, table)
    check_options(kind, name, table[name], options)
    return table[name](**options)


def _unknown(kind: str, name: str, known: Sequence[str], of: str = "") -> str:
    nearest = difflib.get_close_matches(name[:100], known, n=1, cutoff=0.5)
    hint = f"Did you mean {nearest[0]!r}? " if nearest else ""
    return f"Unknown {kind} {shorten(repr(name))}{of}. {hint}Known: {', '.join(known) or 'none'}."
