import math
from collections.abc import Callable
from typing import assert_never

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstash_clone.domain.retry_expression import (
    MAX_CHARACTERS,
    MAX_DEPTH,
    MAX_NODES,
    Binary,
    Call,
    Negation,
    Node,
    Number,
    Retried,
    RetryExpression,
    parse,
)

DAY_MS = 86_400_000


@pytest.mark.parametrize(
    ("text", "retried", "expected_ms"),
    [
        ("15000", 0, 15_000),
        ("7000 * retried", 3, 21_000),
        ("pow(retried, 2) * 1000", 4, 16_000),
        ("retried", 7, 7),
        ("1 + 2 * 3", 0, 7),
        ("(1 + 2) * 3", 0, 9),
        ("10 - 3 - 2", 0, 5),
        ("100 / 10 / 2", 0, 5),
        ("100 / 10 * 2", 0, 20),
        ("10 % 4 * 3", 0, 6),
        ("7 % 2.5", 0, 2),
        ("100 - -5", 0, 105),
        ("--5", 0, 5),
        ("-(-5)", 0, 5),
        ("5 + -2 * -3", 0, 11),
        ("100 + -7 % 4", 0, 97),
        (".5 * 10", 0, 5),
        ("1.25 * 4", 0, 5),
        ("1.9", 0, 1),
        ("exp(0) * 5", 0, 5),
        ("sqrt(16)", 0, 4),
        ("abs(3 - 10)", 0, 7),
        ("floor(2.9) * 10", 0, 20),
        ("ceil(2.1) * 10", 0, 30),
        ("round(2.5) * 10", 0, 30),
        ("round(1.5) * 10", 0, 20),
        ("round(2.4) * 10", 0, 20),
        ("round(0.49999999999999994) * 10", 0, 0),
        ("100 + round(-2.5)", 0, 97),
        ("min(60000, 1000 * pow(2, retried))", 10, 60_000),
        ("max(5, 1, retried, 3)", 9, 9),
        ("\t ( retried+1 )*1000 ", 1, 2_000),
        ("min(1,2)", 0, 1),
    ],
)
def test_expressions_have_their_usual_value(text: str, retried: int, expected_ms: int) -> None:
    assert parse(text).evaluate_ms(retried) == expected_ms


@pytest.mark.parametrize(
    ("text", "expected_ms"),
    [("-1", 0), ("0 - 100", 0), ("-0", 0), ("86400000", DAY_MS), ("86400001", DAY_MS), ("1" * 300, DAY_MS)],
)
def test_delay_is_kept_between_zero_and_a_day(text: str, expected_ms: int) -> None:
    assert parse(text).evaluate_ms(0) == expected_ms


@pytest.mark.parametrize(
    "text",
    [
        "1 / 0",
        "1 / retried",
        "1 % 0",
        "0 / 0",
        "exp(1000)",
        "pow(10, 400)",
        "pow(0, -1)",
        "pow(-8, 0.5)",
        "sqrt(-1)",
        "pow(10, 300) * pow(10, 300)",
        "min(5, pow(10, 300) * pow(10, 300))",
        "-pow(10, 300) - pow(10, 308) * 9",
        "max(5, 1 / 0)",
    ],
)
def test_a_step_without_a_finite_value_leaves_the_delay_to_the_default(text: str) -> None:
    assert parse(text).evaluate_ms(0) is None


def test_an_absurd_count_has_no_value() -> None:
    assert parse("retried").evaluate_ms(10**400) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it ends too early"),
        ("  ", "it ends too early"),
        ("1 +", "it ends too early"),
        ("(1", "it ends too early"),
        ("min(1, 2", "it ends too early"),
        ("pow", "it ends too early"),
        ("-", "it ends too early"),
        ("1 2", 'unexpected "2"'),
        ("2retried", 'unexpected "retried"'),
        ("1.2.3", 'unexpected ".3"'),
        ("1)", 'unexpected ")"'),
        ("()", 'unexpected ")"'),
        ("* 2", 'unexpected "*"'),
        ("+5", 'unexpected "+"'),
        ("2 ** 3", 'unexpected "*"'),
        ("7 // 2", 'unexpected "/"'),
        ("1, 2", 'unexpected ","'),
        ("pow(,1)", 'unexpected ","'),
        ("pow()", 'unexpected ")"'),
        ("pow 2", 'unexpected "2"'),
        ("retried(1)", 'unexpected "("'),
        ("5.", 'unexpected character "."'),
        ("1 & 2", 'unexpected character "&"'),
        ("1\n", 'unexpected character "\ufffd"'),
        ("\u0661", 'unexpected character "\u0661"'),
        ("1e3", 'unexpected "e3"'),
        ("0x10", 'unexpected "x10"'),
        ("'1'", 'unexpected character "\'"'),
        ("retries", 'unknown name "retries"'),
        ("Retried", 'unknown name "Retried"'),
        ("POW(1, 2)", 'unknown name "POW"'),
        ("__import__(1)", 'unknown name "__import__"'),
        ("inf", 'unknown name "inf"'),
        ("pow(1)", "pow takes two arguments, not 1"),
        ("pow(1, 2, 3)", "pow takes two arguments, not 3"),
        ("sqrt(1, 2)", "sqrt takes one argument, not 2"),
        ("min(1)", "min takes two or more arguments, not 1"),
        ("9" * 400, "a number is too large"),
        ("1" * (MAX_CHARACTERS + 1), f"it has more than {MAX_CHARACTERS} characters"),
        ("(" * (MAX_DEPTH + 1) + "1" + ")" * (MAX_DEPTH + 1), f"it is nested more than {MAX_DEPTH} deep"),
        ("-" * (MAX_DEPTH + 1) + "1", f"it is nested more than {MAX_DEPTH} deep"),
        ("abs(" * (MAX_DEPTH + 1) + "1" + ")" * (MAX_DEPTH + 1), f"it is nested more than {MAX_DEPTH} deep"),
        ("1+" * MAX_NODES + "1", f"it has more than {MAX_NODES} parts"),
    ],
)
def test_refused_expressions_say_why(text: str, reason: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        parse(text)
    assert str(caught.value) == reason


def test_the_bounds_themselves_are_allowed() -> None:
    assert parse("(" * MAX_DEPTH + "1" + ")" * MAX_DEPTH).evaluate_ms(0) == 1
    assert parse("-" * MAX_DEPTH + "1").evaluate_ms(0) == 1
    assert parse("1".rjust(MAX_CHARACTERS)).evaluate_ms(0) == 1
    assert parse("+".join("1" * (MAX_NODES // 2))).evaluate_ms(0) == MAX_NODES // 2


def test_depth_counts_nesting_and_not_length() -> None:
    assert parse("(1)" + "+(1)" * (MAX_DEPTH + 5)).evaluate_ms(0) == MAX_DEPTH + 6
    assert parse("-1" + "*-1" * (MAX_DEPTH + 1)).evaluate_ms(0) == 1


_numbers = st.integers(0, 100_000).map(lambda tenths: Number(value=tenths / 10))


def _compound(children: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    def call(name: str, least: int, most: int) -> st.SearchStrategy[Node]:
        arguments = st.lists(children, min_size=least, max_size=most)
        return arguments.map(lambda items: Call(function=name, arguments=tuple(items)))

    return st.one_of(
        children.map(lambda operand: Negation(operand=operand)),
        st.builds(Binary, operator=st.sampled_from("+-*/%"), left=children, right=children),
        call("pow", 2, 2),
        call("min", 2, 4),
        call("max", 2, 4),
        st.sampled_from(["exp", "sqrt", "abs", "floor", "ceil", "round"]).flatmap(lambda name: call(name, 1, 1)),
    )


_trees: st.SearchStrategy[Node] = st.recursive(st.one_of(_numbers, st.just(Retried())), _compound, max_leaves=8)


def render(node: Node) -> str:
    match node:
        case Number():
            return str(node.value)
        case Retried():
            return "retried"
        case Negation():
            return f"-{_operand(node.operand)}"
        case Binary():
            return f"{_operand(node.left)} {node.operator} {_operand(node.right)}"
        case Call():
            return f"{node.function}({', '.join(render(item) for item in node.arguments)})"
        case _:
            assert_never(node)


def _operand(node: Node) -> str:
    return f"({render(node)})" if isinstance(node, Binary | Negation) else render(node)


def within_bounds(text: str) -> bool:
    return len(text) <= MAX_CHARACTERS and text.count("(") < MAX_DEPTH


@given(_trees.filter(lambda tree: within_bounds(render(tree))))
def test_parsing_a_rendered_tree_gives_the_tree(tree: Node) -> None:
    assert parse(render(tree)) == RetryExpression(root=tree)


@given(_trees, st.integers(0, 10_000))
def test_a_value_is_a_delay_or_none(tree: Node, retried: int) -> None:
    value = RetryExpression(root=tree).evaluate_ms(retried)
    assert value is None or 0 <= value <= DAY_MS


@given(st.text(alphabet="0123456789.+-*/%(), \trieddpowminaxbscfl\u00e9", max_size=40), st.integers(0, 1000))
def test_any_text_is_parsed_or_refused(text: str, retried: int) -> None:
    try:
        value = parse(text).evaluate_ms(retried)
    except ValueError:
        return
    assert value is None or 0 <= value <= DAY_MS


_left_to_right: dict[str, Callable[[float, float], float]] = {
    "+": lambda left, right: left + right,
    "-": lambda left, right: left - right,
}


@given(st.lists(st.tuples(st.sampled_from("+-"), st.integers(0, 1000)), min_size=1, max_size=20))
def test_operators_of_one_rank_apply_from_left_to_right(steps: list[tuple[str, int]]) -> None:
    expected = 50_000.0
    for operator, operand in steps:
        expected = _left_to_right[operator](expected, operand)
    text = "50000" + "".join(f"{operator}{operand}" for operator, operand in steps)
    assert parse(text).evaluate_ms(0) == math.trunc(expected)
