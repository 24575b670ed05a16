"""Names with options, as typed on a command line: ``lstm(forget_bias=2, peephole=True)``.

One grammar serves cells, initialisers and tasks. Options are Python literals and nothing is
ever evaluated, so that a command line is data.
"""

import ast
import difflib
from collections.abc import Iterable
from typing import Any


def parse_spec(spec: str) -> tuple[str, dict[str, Any]]:
    """Splits ``name(option=literal, ...)`` into the name and a dictionary of its options.

    Raises:
      ValueError: If the options are not keyword literals.
    """
    name, bracket, options = spec.strip().partition("(")
    if not name.strip():
        raise ValueError(f"a name is expected, got {spec!r}; write it as name or name(option=...)")
    if not bracket:
        return name, {}
    mend = f"got {spec!r}; write it as name(option=literal, ...), for example lstm(forget_bias=2)"
    try:
        call = ast.parse(f"f({options}", mode="eval").body
    except SyntaxError:
        raise ValueError(f"options are expected between brackets: {mend}") from None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
        raise ValueError(f"options are expected by keyword: {mend}")
    names = [keyword.arg or "**" for keyword in call.keywords]
    if "**" in names or len(set(names)) < len(names):
        raise ValueError(f"each option is expected once, by its name: {mend}")
    try:
        values = [ast.literal_eval(keyword.value) for keyword in call.keywords]
        return name.strip(), dict(zip(names, values, strict=True))
    except (ValueError, TypeError):
        raise ValueError(f"an option's value is expected to be a literal: {mend}") from None


def split_specs(specs: str) -> list[str]:
    """Splits a list of specs at the commas that stand outside brackets and quotes."""
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


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that is not known: the nearest one, and the list of all."""
    names = sorted(known)
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    return f"unknown {kind} {name!r}: {hint}The known ones are {', '.join(names)}."
