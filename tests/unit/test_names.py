"""The rule for names."""

import pytest

from qstash_clone.domain.names import check_name, is_name
from qstash_clone.errors import InvalidRequest


@pytest.mark.parametrize("name", ["a", "orders-eu_1.v2", "A", "0", "-", ".", "a" * 256])
def test_a_name_passes_unchanged(name: str) -> None:
    assert is_name(name)
    assert check_name("queue", name) == name


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a:b", "\xe9", "a\n", "a" * 257])
def test_other_texts_are_named_in_the_refusal(name: str) -> None:
    assert not is_name(name)
    with pytest.raises(InvalidRequest) as caught:
        check_name("queue", name)
    shown = name.replace("\n", "\ufffd")[:100]
    assert str(caught.value) == f"queue: invalid name \"{shown}\", use 1 to 256 of A-Z, a-z, 0-9, '.', '_' and '-'"
