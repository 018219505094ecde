"""Counting the instructions that a piece of Python costs, with valgrind's callgrind.

A clock measures the machine's other work as well. What a processor has been told to do is nearly
the same number on every run, so a bar on it holds or breaks for a reason. The kernel's own
counters (``perf_event_open``) are missing on most virtual machines; valgrind needs none.

A process asks valgrind for something by a sequence of instructions that does nothing elsewhere
(``valgrind.h``); `Counter` runs it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

__all__ = ["Counter", "can_count", "count"]

# valgrind.h, amd64: mov rax, rdi; xor edx, edx; rol rdi, 3; 13; 61; 51; xchg rbx, rbx;
# mov rax, rdx; ret. The four rotations are 128 bits together.
_CALL: Final = bytes.fromhex("4889f831d248c1c70348c1c70d48c1c73d48c1c7334887db4889d0c3")
_RUNNING_ON_VALGRIND: Final = 0x1001
# callgrind.h: "CT", and the requests' numbers.
_DUMP_STATS_AT: Final = 0x4354_0003
_START: Final = 0x4354_0004
_STOP: Final = 0x4354_0005

_NAME: Final = re.compile(r"^desc: Trigger: Client Request: (.+)$", re.MULTILINE)
_TOTAL: Final = re.compile(r"^totals: (\d+)$", re.MULTILINE)


def can_count() -> bool:
    """Whether instructions can be counted here."""
    return platform.machine() == "x86_64" and shutil.which("valgrind") is not None


class Counter:
    """What the counted process counts with."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | 4)
        self._page.write(_CALL)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._page))
        self._call = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p)(address)
        if not self._ask(_RUNNING_ON_VALGRIND):
            raise RuntimeError("this process does not run on valgrind")

    def count(self, name: str, call: Callable[[], object]) -> None:
        """Count what a call costs.

        Args:
            name: What `count` calls the figure.
            call: The call.
        """
        self._ask(_START)
        call()
        self._ask(_STOP)
        text = ctypes.create_string_buffer(name.encode())
        self._ask(_DUMP_STATS_AT, ctypes.addressof(text))

    def _ask(self, request: int, argument: int = 0) -> int:
        words = (ctypes.c_size_t * 6)(request, argument)
        return int(self._call(ctypes.addressof(words)))


def count(module: str, arguments: Sequence[str]) -> dict[str, int]:
    """Run a module on valgrind, and return what its `Counter` has counted.

    Args:
        module: The module, as for ``python -m``.
        arguments: Its arguments.

    Returns:
        User-space instructions, by name.

    Raises:
        RuntimeError: The module failed.
    """
    with tempfile.TemporaryDirectory(prefix="cleanclose-bench-") as folder:
        command = (
            "valgrind",
            "-q",
            "--tool=callgrind",
            "--instr-atstart=no",
            f"--callgrind-out-file={folder}/out",
            sys.executable,
            "-m",
            module,
            *arguments,
        )
        # Where strings come in a set or a dict is part of what a look-up costs.
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        done = subprocess.run(
            command, env=environment, stderr=subprocess.PIPE, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{module}, on valgrind: {done.stderr}")
        counted: dict[str, int] = {}
        for file in Path(folder).iterdir():
            text = file.read_text()
            name, total = _NAME.search(text), _TOTAL.search(text)
            # The one that is written at the end has no request's name.
            if name is not None and total is not None:
                counted[name[1]] = int(total[1])
        return counted
