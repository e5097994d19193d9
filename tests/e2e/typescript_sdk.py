"""Whether the official TypeScript SDKs can be run here: Node, and `npm ci` once in the folder `typescript`."""

import shutil
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "typescript"
_PACKAGES: Final = FOLDER / "node_modules" / "@upstash"
_HAS_NODE: Final = shutil.which("node") is not None
IS_INSTALLED: Final = _HAS_NODE and (_PACKAGES / "qstash").is_dir()
IS_KAFKA_INSTALLED: Final = _HAS_NODE and (_PACKAGES / "kafka").is_dir()
