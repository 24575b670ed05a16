"""Evaluation of a traced function equation by equation, some of them by another rule."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

Rule = Callable[[core.Jaxpr, core.JaxprEqn, Sequence[Any]], Sequence[Any]]
"""(jaxpr, one of its equations, the operands' values) -> the values of its results."""

Transform = Callable[[core.ClosedJaxpr], Callable[..., tuple[Sequence[Any], Any]]]
"""A program -> a function of its arguments that returns its results and a pytree of counts."""

CALLS = frozenset("jit pjit closed_call core_call remat remat2 checkpoint".split())
"""Primitives that only call a program. (Their names depend on the version of JAX.)"""


def apply_equation(
    jaxpr: core.Jaxpr, equation: core.JaxprEqn, values: Sequence[Any]
) -> Sequence[Any]:
    """Evaluates one equation as it is, including its own derivative rules.

    Args:
      jaxpr: The program that has the equation.
      equation: The equation.
      values: A value for each of its operands; those of literals are ignored.
    """
    operands = zip(equation.invars, values, strict=True)
    # As a dictionary, because x * x has the same variable twice.
    given = {atom: value for atom, value in operands if not isinstance(atom, core.Literal)}
    kept = [place for place, var in enumerate(equation.outvars) if type(var) is core.Var]
    alone = jaxpr.replace(
        constvars=[],
        invars=list(given),
        outvars=[equation.outvars[place] for place in kept],
        eqns=[equation],
        effects=equation.effects,
    )
    results: list[Any] = [None for _ in equation.outvars]
    for place, value in zip(
        kept, core.jaxpr_as_fun(core.ClosedJaxpr(alone, []))(*given.values()), strict=True
    ):
        results[place] = value
    return results


def evaluate(closed: core.ClosedJaxpr, arguments: Sequence[Any], rule: Rule) -> list[Any]:
    """Evaluates a program, each of its equations by the rule.

    A nested program, such as the body of a `jax.jit`, is one equation, which the rule may open.
    """
    jaxpr = closed.jaxpr
    variables = [*jaxpr.constvars, *jaxpr.invars]
    values = dict(zip(variables, [*closed.consts, *arguments], strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    for equation in jaxpr.eqns:
        results = rule(jaxpr, equation, [read(atom) for atom in equation.invars])
        values.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def has_primitive(jaxpr: core.Jaxpr, names: frozenset[str]) -> bool:
    """Returns whether a program, or one nested in it, has a primitive of these names."""
    return any(
        equation.primitive.name in names
        or any(has_primitive(inner, names) for inner in nested(equation))
        for equation in jaxpr.eqns
    )


def nested(equation: core.JaxprEqn) -> list[core.Jaxpr]:
    """Returns the programs in an equation's parameters: bodies of jits, loops and branches."""
    found = []
    for leaf in jax.tree.leaves(
        list(equation.params.values()),
        is_leaf=lambda part: isinstance(part, core.Jaxpr | core.ClosedJaxpr),
    ):
        if isinstance(leaf, core.ClosedJaxpr):
            found.append(leaf.jaxpr)
        elif isinstance(leaf, core.Jaxpr):
            found.append(leaf)
    return found


def apply_nested(
    equation: core.JaxprEqn, values: Sequence[Any], transform: Transform
) -> tuple[Sequence[Any], Any] | None:
    """Evaluates a jit, a loop or a conditional with its programs transformed.

    Also returns the sum of the counts of all that was run: of each iteration of a loop, and of the
    branch that was taken. Returns None for any other equation. The program of a `jax.custom_jvp`
    or a `jax.custom_vjp` is not opened, because its derivative is given by the rule.
    """
    name, params = equation.primitive.name, equation.params
    if name in CALLS:
        inner = params["jaxpr" if "jaxpr" in params else "call_jaxpr"]
        closed = inner if isinstance(inner, core.ClosedJaxpr) else core.ClosedJaxpr(inner, [])
        return transform(closed)(*values)
    if name == "cond":
        return jax.lax.switch(values[0], [transform(b) for b in params["branches"]], *values[1:])
    if name == "scan":
        return _scan(params, values, transform(params["jaxpr"]))
    if name == "while":
        return _while(params, values, transform(params["body_jaxpr"]))
    return None


def _scan(params: dict[str, Any], values: Sequence[Any], body: Callable) -> tuple[Sequence, Any]:
    first, last = params["num_consts"], params["num_consts"] + params["num_carry"]
    constants, carry, xs = values[:first], values[first:last], values[last:]

    def step(carry: Sequence[Any], xs: Sequence[Any]) -> tuple[Sequence[Any], Any]:
        results, counts = body(*constants, *carry, *xs)
        return list(results[: last - first]), (list(results[last - first :]), counts)

    names = "length", "reverse", "unroll"
    options = {name: params[name] for name in names}
    carry, (ys, counts) = jax.lax.scan(step, list(carry), list(xs), **options)
    return [*carry, *ys], jax.tree.map(lambda count: jnp.sum(count, axis=0), counts)


def _while(params: dict[str, Any], values: Sequence[Any], body: Callable) -> tuple[Sequence, Any]:
    first = params["cond_nconsts"]
    last = first + params["body_nconsts"]
    goes_on = core.jaxpr_as_fun(params["cond_jaxpr"])
    of_cond, of_body, carry = values[:first], values[first:last], list(values[last:])

    def turn(state: tuple[Sequence[Any], Any]) -> tuple[Sequence[Any], Any]:
        results, counts = body(*of_body, *state[0])
        return list(results), jax.tree.map(jnp.add, state[1], counts)

    shapes = jax.eval_shape(lambda: body(*of_body, *carry)[1])
    counts = jax.tree.map(lambda count: jnp.zeros(count.shape, count.dtype), shapes)
    return jax.lax.while_loop(lambda s: goes_on(*of_cond, *s[0])[0], turn, (carry, counts))
