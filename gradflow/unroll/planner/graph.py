"""A step as a graph: its jaxpr with nested jits inlined, and what each value depends on."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
from jax.extend import core

from gradflow.numerics.jaxprs import apply_equation

PARAMS, INPUT, CARRY = range(3)
"""What a value depends on: parameters and constants alone, x as well, or the carry as well."""


@dataclass(frozen=True, eq=False)
class Node:
    """One equation of a jaxpr; its operands and results are given by their numbers in the graph."""

    source: core.Jaxpr
    eqn: core.JaxprEqn
    operands: tuple[int, ...]
    results: tuple[int, ...]

    @property
    def name(self) -> str:
        """The name of the primitive."""
        return self.eqn.primitive.name

    def apply(self, *values: Any) -> list[Any]:
        """Computes the results from values of the operands."""
        given = iter(values)
        operands = [None if isinstance(v, core.Literal) else next(given) for v in self.eqn.invars]
        results = apply_equation(self.source, self.eqn, operands)
        return [r for r, v in zip(results, self.eqn.outvars, strict=True) if type(v) is core.Var]


@dataclass
class Graph:
    """The equations of a step. Its values are numbered, and the lists hold their numbers.

    Attributes:
      avals: The abstract value of each number.
      depends: `PARAMS`, `INPUT` or `CARRY` for each.
      made_by: The node that computes a value, for each that is not given.
      constants: Known values: those that the step closes over.
      params: The leaves of the parameters.
      carry: The leaves of the carry.
      x: The leaves of x.
      results: The leaves of the new carry, and h.
      uses: How often each value is an operand of a node or a result of the step.
      has_effects: Whether the step has side effects, such as printing.
    """

    avals: list[Any] = field(default_factory=list)
    depends: list[int] = field(default_factory=list)
    made_by: dict[int, Node] = field(default_factory=dict)
    constants: dict[int, Any] = field(default_factory=dict)
    params: list[int] = field(default_factory=list)
    carry: list[int] = field(default_factory=list)
    x: list[int] = field(default_factory=list)
    results: list[int] = field(default_factory=list)
    uses: dict[int, int] = field(default_factory=dict)
    has_effects: bool = False

    def new(self, aval: Any, depends: int) -> int:
        """Adds a value and returns its number."""
        self.avals.append(aval)
        self.depends.append(depends)
        return len(self.avals) - 1

    def nodes(self) -> list[Node]:
        """All nodes, in topological order."""
        return list(dict.fromkeys(self.made_by.values()))


def graph_of(step: Callable, params: Any, carry: Any, x: Any) -> Graph:
    """Traces a step of one example into its graph; the arguments need only shapes and types."""
    closed = jax.make_jaxpr(step)(params, carry, x)
    graph = Graph(has_effects=bool(closed.effects))
    counts = [len(jax.tree.leaves(tree)) for tree in (params, carry, x)]
    kinds = [k for k, n in zip((PARAMS, CARRY, INPUT), counts, strict=True) for _ in range(n)]
    given = [graph.new(v.aval, k) for v, k in zip(closed.jaxpr.invars, kinds, strict=True)]
    graph.params, graph.carry = given[: counts[0]], given[counts[0] : sum(counts[:2])]
    graph.x = given[sum(counts[:2]) :]
    graph.results = _inline(graph, closed, given)
    for number in [*graph.results, *(n for node in graph.nodes() for n in node.operands)]:
        graph.uses[number] = graph.uses.get(number, 0) + 1
    return graph


def _inline(graph: Graph, closed: core.ClosedJaxpr, given: list[int]) -> list[int]:
    """Adds the equations of a jaxpr, with nested jits inlined, and returns its results."""
    numbers = dict(zip(closed.jaxpr.invars, given, strict=True))

    def number(atom: Any) -> int:
        if not isinstance(atom, core.Literal):
            return numbers[atom]
        constant = graph.new(atom.aval, PARAMS)
        graph.constants[constant] = atom.val
        return constant

    for var, value in zip(closed.jaxpr.constvars, closed.consts, strict=True):
        numbers[var] = graph.new(var.aval, PARAMS)
        graph.constants[numbers[var]] = value
    for eqn in closed.jaxpr.eqns:
        if eqn.primitive.name in ("jit", "pjit"):
            results = _inline(graph, eqn.params["jaxpr"], [number(v) for v in eqn.invars])
            numbers.update(zip(eqn.outvars, results, strict=True))
        else:
            operands = tuple(number(v) for v in eqn.invars if not isinstance(v, core.Literal))
            depends = max((graph.depends[n] for n in operands), default=PARAMS)
            kept = [v for v in eqn.outvars if type(v) is core.Var]  # without the dropped ones
            results = [graph.new(v.aval, depends) for v in kept]
            node = Node(closed.jaxpr, eqn, operands, tuple(results))
            graph.made_by.update(dict.fromkeys(results, node))
            numbers.update(zip(kept, results, strict=True))
    return [number(v) for v in closed.jaxpr.outvars]
