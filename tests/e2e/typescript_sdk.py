"""Whether the official TypeScript SDK can be run here: Node, and `npm ci` once in the folder `typescript`."""

import shutil
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "typescript"
IS_INSTALLED: Final = shutil.which("node") is not None and (FOLDER / "node_modules" / "@upstash" / "qstash").is_dir()
