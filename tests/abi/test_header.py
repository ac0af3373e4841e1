"""The header as a promise: every function documented, and the binary interface as it is written down."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import capi_header  # noqa: E402

FUNCTIONS, DECLARATIONS = capi_header.parse()


def test_the_parser_finds_every_function():
    text = capi_header.HEADER.read_text(encoding="utf-8")
    marked = re.findall(r"^EXPERT_API[^;{]*?(expert_\w+)\(", text, re.M)
    assert [function.name for function in FUNCTIONS] == marked
    assert 60 <= len(marked) <= 90 and len(set(marked)) == len(marked)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.name)
def test_every_function_is_documented(function):
    assert function.comment, "no comment"
    if function.fails:
        assert re.search(r"Errors: |UNSUPPORTED by name|INVALID_REQUEST|first one that failed", function.comment), "no errors named"


@pytest.mark.parametrize("declaration", [d for d in DECLARATIONS if d.text.startswith("typedef struct") and "{" in d.text],
                         ids=lambda declaration: declaration.name)  # fmt: skip
def test_options_structs_can_grow(declaration):
    frozen = {"expert_use", "expert_error"}  # an array element; one that only the library makes
    assert ("size_t struct_size;" in declaration.text) != (declaration.name in frozen)


@pytest.mark.skipif(shutil.which("abidiff") is None, reason="abigail-tools is not installed")
def test_the_binary_interface_is_as_written_down():
    result = subprocess.run([sys.executable, ROOT / "tools" / "abi.py"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
