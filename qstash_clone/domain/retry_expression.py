"""`Upstash-Retry-Delay`: a small arithmetic language for the delay before a retry, in milliseconds.

    sum      = product { ("+" | "-") product }
    product  = unary { ("*" | "/" | "%") unary }
    unary    = "-" unary | primary
    primary  = number | "retried" | name "(" sum { "," sum } ")" | "(" sum ")"

Parsed once into a small tree and evaluated with bounds; nothing of it ever reaches Python's own evaluator.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias, assert_never

from qstash_clone.domain.quoting import quoted

MAX_CHARACTERS = 500
MAX_DEPTH = 30
"""Of parentheses, calls and signs inside each other."""
MAX_NODES = 200
MAX_DELAY_MS = 86_400_000

_TOKEN = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)|([A-Za-z_][A-Za-z0-9_]*)|([-+*/%(),])|[ \t]+")
_END = ""
_VARIABLE = "retried"


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried:
    """The retries made so far, 0 before the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Negation:
    operand: "Node"


@dataclass(frozen=True, slots=True, kw_only=True)
class Binary:
    operator: str
    left: "Node"
    right: "Node"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    function: str
    arguments: "tuple[Node, ...]"


Node: TypeAlias = Number | Retried | Negation | Binary | Call


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryExpression:
    """A parsed expression."""

    root: Node

    def evaluate_ms(self, retried: int) -> int | None:
        """The delay in whole milliseconds, 0 to one day; None if a step of it has no finite value.

        `retried` is the number of retries already made.
        """
        try:
            value = _evaluate(self.root, float(retried))
        except (ArithmeticError, ValueError):
            return None
        return int(min(max(value, 0.0), MAX_DELAY_MS))


@lru_cache(maxsize=256)
def parse(text: str) -> RetryExpression:
    """The expression behind a text. Raises `ValueError` saying what is wrong with it.

    The grammar and its bounds are in docs/reference/retry-expressions.md.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"it has more than {MAX_CHARACTERS} characters")
    return RetryExpression(root=_Parser(_tokens(text)).parse())


def _round(value: float) -> float:
    # Halves away from zero; Python's own rounding goes to the even neighbour.
    magnitude = math.floor(abs(value))
    if abs(value) - magnitude >= 0.5:
        magnitude += 1
    return math.copysign(magnitude, value)


_OPERATORS: dict[str, Callable[[float, float], float]] = {
    "+": lambda left, right: left + right,
    "-": lambda left, right: left - right,
    "*": lambda left, right: left * right,
    "/": lambda left, right: left / right,
    "%": math.fmod,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Function:
    apply: Callable[..., float]
    min_arguments: int
    max_arguments: int = MAX_NODES


_FUNCTIONS: dict[str, _Function] = {
    "pow": _Function(apply=math.pow, min_arguments=2, max_arguments=2),
    "exp": _Function(apply=math.exp, min_arguments=1, max_arguments=1),
    "sqrt": _Function(apply=math.sqrt, min_arguments=1, max_arguments=1),
    "abs": _Function(apply=math.fabs, min_arguments=1, max_arguments=1),
    "floor": _Function(apply=math.floor, min_arguments=1, max_arguments=1),
    "ceil": _Function(apply=math.ceil, min_arguments=1, max_arguments=1),
    "round": _Function(apply=_round, min_arguments=1, max_arguments=1),
    "min": _Function(apply=min, min_arguments=2),
    "max": _Function(apply=max, min_arguments=2),
}


def _evaluate(node: Node, retried: float) -> float:
    match node:
        case Number():
            return node.value
        case Retried():
            return retried
        case Negation():
            return -_evaluate(node.operand, retried)
        case Binary():
            value = _OPERATORS[node.operator](_evaluate(node.left, retried), _evaluate(node.right, retried))
        case Call():
            value = float(_FUNCTIONS[node.function].apply(*[_evaluate(item, retried) for item in node.arguments]))
        case _:  # pragma: no cover
            assert_never(node)
    if not math.isfinite(value):
        raise OverflowError
    return value


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ValueError(f"unexpected character {quoted(text[position])}")
        if match.lastindex is not None:
            tokens.append(match[0])
        position = match.end()
    tokens.append(_END)
    return tokens


class _Parser:
    """Recursive descent over one list of tokens."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._position = 0
        self._depth = 0
        self._nodes = 0

    def parse(self) -> Node:
        root = self._sum()
        if self._peek() != _END:
            raise self._unexpected()
        return root

    def _peek(self) -> str:
        return self._tokens[self._position]

    def _accept(self, *wanted: str) -> str | None:
        token = self._peek()
        if token not in wanted:
            return None
        self._position += 1
        return token

    def _expect(self, wanted: str) -> None:
        if self._accept(wanted) is None:
            raise self._unexpected()

    def _unexpected(self) -> ValueError:
        token = self._peek()
        return ValueError("it ends too early" if token == _END else f"unexpected {quoted(token)}")

    def _count(self) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise ValueError(f"it has more than {MAX_NODES} parts")

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep")

    def _sum(self) -> Node:
        node = self._product()
        while operator := self._accept("+", "-"):
            self._count()
            node = Binary(operator=operator, left=node, right=self._product())
        return node

    def _product(self) -> Node:
        node = self._unary()
        while operator := self._accept("*", "/", "%"):
            self._count()
            node = Binary(operator=operator, left=node, right=self._unary())
        return node

    def _unary(self) -> Node:
        if self._accept("-") is None:
            return self._primary()
        self._count()
        self._enter()
        node = Negation(operand=self._unary())
        self._depth -= 1
        return node

    def _primary(self) -> Node:
        self._count()
        if self._accept("(") is not None:
            self._enter()
            node = self._sum()
            self._depth -= 1
            self._expect(")")
            return node
        token = self._peek()
        if token == _END or token in "+*/%),":
            raise self._unexpected()
        self._position += 1
        if token[0] in ".0123456789":
            value = float(token)
            if not math.isfinite(value):
                raise ValueError("a number is too large")
            return Number(value=value)
        if token == _VARIABLE:
            return Retried()
        return self._call(token)

    def _call(self, name: str) -> Call:
        function = _FUNCTIONS.get(name)
        if function is None:
            raise ValueError(f"unknown name {quoted(name)}")
        self._expect("(")
        self._enter()
        arguments = [self._sum()]
        while self._accept(",") is not None:
            arguments.append(self._sum())
        self._depth -= 1
        self._expect(")")
        if not function.min_arguments <= len(arguments) <= function.max_arguments:
            takes = {1: "one argument", 2: "two arguments"}.get(function.max_arguments, "two or more arguments")
            raise ValueError(f"{name} takes {takes}, not {len(arguments)}")
        return Call(function=name, arguments=tuple(arguments))
