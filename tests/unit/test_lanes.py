import pytest

from qstash_clone.domain.lanes import host_lane


@pytest.mark.parametrize(
    ("url", "lane"),
    [
        ("https://example.com", "h:example.com"),
        ("http://example.com/other?q=1", "h:example.com"),
        ("https://EXAMPLE.com.:443/", "h:example.com"),
        ("http://example.com:80", "h:example.com"),
        ("http://example.com:443", "h:example.com:443"),
        ("https://example.com:80", "h:example.com:80"),
        ("http://127.0.0.1:3000/p", "h:127.0.0.1:3000"),
        ("http://[::1]/", "h:[::1]"),
        ("http://[0:0:0:0:0:0:0:1]:3000/", "h:[::1]:3000"),
    ],
)
def test_all_spellings_of_a_host_share_a_lane(url: str, lane: str) -> None:
    assert host_lane(url) == lane


def test_what_is_no_url_has_no_lane() -> None:
    with pytest.raises(ValueError, match="invalid scheme"):
        host_lane("example.com")
