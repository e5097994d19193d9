from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstash_clone.domain.header_names import canonical_name
from qstash_clone.domain.message import Headers, Redaction
from qstash_clone.domain.redaction import (
    parse_redaction,
    redacted_text,
    redaction_of_callback,
    shown_body,
    shown_headers,
)
from qstash_clone.errors import InvalidRequest

HEADER = "Upstash-Redact-Fields"


@pytest.mark.parametrize(
    ("text", "redaction"),
    [
        ("body", Redaction(body=True)),
        ("header", Redaction(all_headers=True)),
        ("headers", Redaction(all_headers=True)),
        ("body,header", Redaction(body=True, all_headers=True)),
        (" body , headers ", Redaction(body=True, all_headers=True)),
        ("header[X-API-key]", Redaction(header_names=("X-Api-Key",))),
        ("headers[ authorization ]", Redaction(header_names=("Authorization",))),
        ("header[B],body,headers[a],header[b]", Redaction(body=True, header_names=("B", "A"))),
        ("header[A],header", Redaction(all_headers=True)),
        ("header[Host]", Redaction(header_names=("Host",))),
        ("body,,", Redaction(body=True)),
        ("", None),
        (" , ", None),
    ],
)
def test_what_is_to_be_hidden(text: str, redaction: Redaction | None) -> None:
    assert parse_redaction(HEADER, text) == redaction


@pytest.mark.parametrize("item", ["Body", "url", "header[", "header]", "header X", "header[A]x", "xheader[A]"])
def test_other_fields_are_refused(item: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_redaction(HEADER, f"body, {item}")
    assert str(caught.value) == f'{HEADER}: invalid field "{item}", use body, header or header[Name]'


@pytest.mark.parametrize("item", ["header[]", "header[ ]", "headers[a b]", "header[é]", "header[[A]]"])
def test_header_names_are_checked(item: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_redaction(HEADER, item)
    assert str(caught.value) == f'{HEADER}: invalid field "{item}", it holds no header name'


def test_the_replacement() -> None:
    assert redacted_text(b"secret") == ("REDACTED:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b")


LINES: Headers = (("Content-Type", "text/plain"), ("X", "one\xe9"), ("X", "two"), ("Y", "one\xe9"))


@pytest.mark.parametrize("redaction", [None, Redaction(body=True), Redaction(header_names=("Z",))])
def test_headers_that_are_not_meant_are_shown(redaction: Redaction | None) -> None:
    assert shown_headers(LINES, redaction) == LINES


def test_one_header_is_hidden_value_by_value() -> None:
    hidden = f"REDACTED:{sha256(b'one' + bytes([0xE9])).hexdigest()}"
    assert shown_headers(LINES, Redaction(header_names=("X",))) == (
        ("Content-Type", "text/plain"),
        ("X", hidden),
        ("X", redacted_text(b"two")),
        ("Y", "one\xe9"),
    )


def test_all_headers_are_hidden_with_the_content_type() -> None:
    shown = shown_headers(LINES, Redaction(all_headers=True))
    assert [name for name, _ in shown] == [name for name, _ in LINES]
    assert shown[0][1] == redacted_text(b"text/plain")


@pytest.mark.parametrize("redaction", [None, Redaction(all_headers=True, header_names=("A",))])
def test_a_body_that_is_not_meant_is_shown(redaction: Redaction | None) -> None:
    assert shown_body(b"\x00body", redaction) == b"\x00body"


def test_a_body_is_hidden() -> None:
    assert shown_body(b"\x00body", Redaction(body=True)) == redacted_text(b"\x00body").encode()


def test_an_empty_body_stays_empty() -> None:
    assert shown_body(b"", Redaction(body=True)) == b""


def test_a_callback_hides_its_body_for_it_repeats_the_source() -> None:
    assert redaction_of_callback(None) is None
    assert redaction_of_callback(Redaction(body=True)) == Redaction(body=True)
    assert redaction_of_callback(Redaction(all_headers=True)) == Redaction(body=True, all_headers=True)
    assert redaction_of_callback(Redaction(header_names=("A",))) == Redaction(body=True, header_names=("A",))


_names = st.from_regex(r"[A-Za-z0-9_-]{1,8}", fullmatch=True)
_latin = st.text(st.characters(max_codepoint=255), max_size=20)


@given(st.lists(_names, min_size=1, max_size=4), st.booleans())
def test_any_list_of_names_is_understood_in_any_case(names: list[str], has_body: bool) -> None:
    text = ",".join([f"header[{name}]" for name in names] + ["body"] * has_body)
    redaction = parse_redaction(HEADER, text.replace("header[", "headers["))
    assert redaction is not None
    assert redaction == parse_redaction(HEADER, text)
    assert redaction.body == has_body
    assert set(redaction.header_names) == {canonical_name(name.encode()) for name in names}


@given(st.lists(st.tuples(_names.map(lambda name: canonical_name(name.encode())), _latin), max_size=5), st.data())
def test_what_is_hidden_never_shows_and_the_rest_stays(lines: list[tuple[str, str]], data: st.DataObject) -> None:
    hidden = data.draw(st.sets(st.sampled_from([name for name, _ in lines] or ["X"])))
    shown = shown_headers(tuple(lines), Redaction(header_names=tuple(sorted(hidden))))
    assert len(shown) == len(lines)
    for (name, value), (shown_name, shown_value) in zip(lines, shown, strict=True):
        assert shown_name == name
        expected = f"REDACTED:{sha256(value.encode('latin-1')).hexdigest()}" if name in hidden else value
        assert shown_value == expected


@given(st.text(max_size=40))
def test_any_text_is_understood_or_refused(text: str) -> None:
    try:
        redaction = parse_redaction(HEADER, text)
    except InvalidRequest as error:
        refusal, redaction = str(error), None
    else:
        refusal = ""
    assert refusal.isprintable()
    assert redaction is None or redaction.body or redaction.all_headers or redaction.header_names
