"""What a bench ran on, and whether that was quiet."""

import os
import platform
import re
import time
from importlib.metadata import version
from pathlib import Path

import torch

from thalweg import __version__


def describe() -> dict[str, str]:
    """The machine and the software, in words."""
    return {
        "processor": _processor(),
        "cores": str(_cores()),
        "memory": f"{_meminfo('MemTotal') / 2**30:.0f} GiB" if _meminfo("MemTotal") else "unknown",
        "threads": str(torch.get_num_threads()),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": version("torch"),
        "numba": version("numba"),
        "thalweg": __version__,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def busy() -> list[str]:
    """A warning, where others use the machine."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load < 0.5:
        return []
    return [f"the machine was busy when this began (load {load:.1f} on {_cores()} cores): times are too long, unevenly"]


def free_memory() -> int:
    """The bytes that can still be had; a very large number where that is unknown."""
    return _meminfo("MemAvailable") or 2**62


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()


def _meminfo(name: str) -> int:
    found = re.search(rf"^{name}:\s*(\d+) kB$", _read("/proc/meminfo"), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
