"""What the figures were measured on."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

_LIBRARIES = ("uvicorn", "starlette", "uvloop", "httptools", "aiohttp", "redis", "hiredis")


def facts() -> dict[str, str]:
    """Processor, memory and versions; nothing that identifies the machine."""
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{_memory_mib() // 1024} GiB",
        "system": f"{platform.system()} {platform.release().split('-', 1)[0]} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "libraries": ", ".join(f"{name} {version(name)}" for name in _LIBRARIES),
    }


def filesystem_of(folder: Path) -> str:
    """The kind of file system a folder lies on, `tmpfs` for memory."""
    wanted = folder.resolve()
    best, kind = "", "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, found, *_ = line.split(" ")
        point = Path(mount.replace("\\040", " "))
        if (wanted == point or point in wanted.parents) and len(mount) > len(best):
            best, kind = mount, found
    return kind


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _memory_mib() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024 // 1024
