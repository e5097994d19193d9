"""The signing keys: each partition has a copy, the first one decides."""

import secrets
import string
from typing import Final

from qstash_clone.domain.message import SigningKeys
from qstash_clone.storage.access import StoreAccess
from qstash_clone.storage.codec import STORAGE_VERSION

_ALPHANUMERIC: Final = string.ascii_letters + string.digits


def new_signing_key() -> str:
    """`sig_` and 28 random alphanumerics."""
    return "sig_" + "".join(secrets.choice(_ALPHANUMERIC) for _ in range(28))


class SigningKeyStore:
    """The part of `AdminStore` that shows and rotates the signing keys."""

    def __init__(self, access: StoreAccess) -> None:
        self._access = access

    async def get_signing_keys(self) -> SigningKeys:
        return (await self._read())[0]

    async def _read(self) -> tuple[SigningKeys, int]:
        """The pair of the first partition, and its revision."""
        meta = self._access.keys[0].meta
        current, following, revision = await self._access.commands.ask("HMGET", meta, "ck", "nk", "kr")
        if revision is None:
            # Redis was emptied: any script makes it ready again, with the configured pair.
            await self._access.runner.run("probe", [meta], [STORAGE_VERSION])
            current, following, revision = await self._access.commands.ask("HMGET", meta, "ck", "nk", "kr")
        return SigningKeys(current=current.decode(), next=following.decode()), int(revision)

    async def rotate_signing_keys(self) -> SigningKeys:
        old, revision = await self._read()
        wanted = SigningKeys(current=old.next, next=new_signing_key())
        stored = wanted
        for keys in self._access.keys:
            reply, _ = await self._access.runner.run(
                "rotate_keys", [keys.meta], [STORAGE_VERSION, revision + 1, stored.current, stored.next]
            )
            # Of two rotations at once the first one wins, and both answer with its pair.
            stored = SigningKeys(current=reply[1].decode(), next=reply[2].decode())
        return stored
