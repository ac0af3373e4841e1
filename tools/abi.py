#!/usr/bin/env python3
"""The binary interface of libexpert, described and compared (libabigail).

    tools/abi.py            compares include/expert/expert.h with tests/abi/expert.abi
    tools/abi.py --write    writes that description anew (docs/abi.md says when that is right)

Types come from the header, compiled with debug information into a library of empty functions; that the real library
exports exactly these functions is the test capi_symbols.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import capi_header

ROOT = capi_header.ROOT
STORED = ROOT / "tests" / "abi" / "expert.abi"
INCOMPATIBLE = 8
CHANGED = 4


def bodies() -> str:
    lines = ["#include <expert/expert.h>", "#include <stdlib.h>"]
    for function in capi_header.parse()[0]:
        lines.append(f"{function.signature} {{ abort(); }}")
    return "\n".join(lines) + "\n"


def describe(folder: Path) -> Path:
    source, library, out = folder / "expert.c", folder / "libexpert.so", folder / "expert.abi"
    source.write_text(bodies(), encoding="utf-8")
    subprocess.run(["cc", "-std=c99", "-g", "-fPIC", "-shared", "-w", f"-I{ROOT / 'include'}", source, "-o", library],
                   check=True)  # fmt: skip
    subprocess.run(["abidw", "--no-corpus-path", "--no-comp-dir-path", "--no-show-locs", "--out-file", out, library],
                   check=True)  # fmt: skip
    return out


def main() -> int:
    if shutil.which("abidw") is None or shutil.which("abidiff") is None:
        print("abidw and abidiff are needed: apt-get install abigail-tools", file=sys.stderr)
        return 3
    with tempfile.TemporaryDirectory() as name:
        now = describe(Path(name))
        if "--write" in sys.argv[1:]:
            STORED.parent.mkdir(exist_ok=True)
            shutil.copy(now, STORED)
            return 0
        result = subprocess.run(["abidiff", "--no-show-locs", STORED, now], capture_output=True, text=True)
        print(result.stdout + result.stderr, end="")
        if result.returncode & (CHANGED | INCOMPATIBLE):
            print(
                "The interface has changed. docs/abi.md says what may; when it may: tools/abi.py --write, same commit."
            )
        return 0 if result.returncode == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
