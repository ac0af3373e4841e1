"""The examples, run as a reader would run them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("EXPERT_BUILD_DIR", ROOT / "build" / "release"))
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(BUILD / "python")}


def run(*command, home):
    process = subprocess.run(command, capture_output=True, text=True, timeout=120,
                             env={**ENVIRONMENT, "EXPERT_HOME": str(home)})  # fmt: skip
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.mark.parametrize("program", ["example_generate_c", "example_stream_cpp"])
def test_compiled_examples(program, home):
    assert run(str(BUILD / "examples" / program), home=home).strip()


def test_python_example(home):
    lines = run(sys.executable, str(ROOT / "examples" / "python" / "compose.py"), home=home).splitlines()
    assert [line.split("  ")[0].strip() for line in lines] == ["base", "sql", "jsonfmt", "sql + jsonfmt"]


def test_the_command_line_through_python(home):
    path = f"{BUILD / 'cli'}:{os.environ['PATH']}"
    process = subprocess.run([sys.executable, "-m", "expert", "--version"], capture_output=True, text=True,
                             env={**ENVIRONMENT, "PATH": path})  # fmt: skip
    assert process.stdout.startswith("expert-cli ")
