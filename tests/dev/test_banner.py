"""What `dev` prints once it is ready."""

import pytest

from qstash_clone.dev.banner import banner
from qstash_clone.settings import DEVELOPMENT_TOKEN, Compat, Settings


@pytest.mark.parametrize(("compat", "window"), [("reference", "90 days"), ("current", "10 minutes")])
def test_it_tells_the_preset_and_for_how_long_repeats_are_recognised(compat: Compat, window: str) -> None:
    text = banner(Settings(compat=compat), engine="Redis 7.0.15", data_dir="/srv/queue")
    assert f"compat={compat} (repeats are recognised for {window})" in text


def test_it_shows_the_public_credentials_but_no_own_ones() -> None:
    public = Settings(token=DEVELOPMENT_TOKEN)
    assert f"export QSTASH_TOKEN={DEVELOPMENT_TOKEN}" in banner(public, engine="Redis", data_dir="data")
    own = banner(Settings(token="my-own-secret"), engine="Redis", data_dir="data")
    assert "my-own-secret" not in own
    assert "QSTASH_CLONE_TOKEN" in own
