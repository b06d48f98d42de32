"""The machine of a bench, and whether it was busy."""

import os
import platform
import re
import time
from importlib.metadata import version
from pathlib import Path

import psutil
import torch

from thalweg import __version__


def describe() -> dict[str, str]:
    """A description of the machine and the software."""
    return {
        "processor": _processor(),
        "cores": str(_cores()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
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
    """A warning if other programs use the machine."""
    load = psutil.getloadavg()[0]
    if load < 0.5:
        return []
    return [f"the machine was busy when this began (load {load:.1f} on {_cores()} cores): times are too long, unevenly"]


def free_memory() -> int:
    """The bytes that can be allocated without swapping."""
    return psutil.virtual_memory().available


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()
