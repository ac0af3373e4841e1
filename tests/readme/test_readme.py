"""Executes what the README shows: every ```console and ```python block, compared with the output printed there.

In a console block a line "$ command" is run by bash with the release build on PATH; the lines after it are its expected
output. A python block that is followed by a ```text block must print that text. "…" in an expectation stands for
anything on that line (times, paths); a line that is only "…" stands for any number of lines. Blocks under a heading
that ends in "(not run)" are skipped: installing packages, say.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("EXPERT_BUILD_DIR", ROOT / "build" / "release"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.S | re.M)


def sections(text):
    """(heading, body) pairs of the README."""
    parts = re.split(r"^#+ (.*)$", text, flags=re.M)
    return list(zip(parts[1::2], parts[2::2]))


def cases():
    for heading, body in sections((ROOT / "README.md").read_text(encoding="utf-8")):
        if heading.endswith("(not run)"):
            continue
        blocks = FENCE.findall(body)
        for index, (language, content) in enumerate(blocks):
            following = blocks[index + 1] if index + 1 < len(blocks) else ("", "")
            if language == "console":
                for command, expected in split_console(content):
                    yield pytest.param("bash", command, expected, id=f"{heading}: {command[:50]}")
            elif language == "python":
                expected = following[1] if following[0] == "text" else ""
                yield pytest.param("python", content, expected, id=f"{heading}: python")


def split_console(block):
    runs = []
    for line in block.splitlines():
        if line.startswith("$ "):
            runs.append([line[2:], []])
        elif runs:
            runs[-1][1].append(line)
    return [(command, "\n".join(lines)) for command, lines in runs]


def pattern(expected):
    lines = []
    for line in expected.rstrip("\n").splitlines():
        if line.strip() == "…":
            lines.append(r"(?:.*\n)*?")
        else:
            lines.append(".*?".join(re.escape(part.rstrip()) for part in line.split("…")) + r"[ \t]*\n")
    return "".join(lines)


@pytest.mark.parametrize("language, source, expected", list(cases()))
def test_readme_block(language, source, expected, tmp_path):
    environment = {
        **os.environ,
        "PATH": f"{BUILD / 'cli'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(BUILD / "python"),
        "EXPERT_HOME": str(tmp_path / "home"),
    }
    command = ["bash", "-c", source] if language == "bash" else [sys.executable, "-c", source]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=300)
    assert run.returncode == 0, run.stderr
    shown = run.stdout.rstrip("\n") + "\n" if run.stdout.strip() else ""
    assert re.fullmatch(pattern(expected), shown), f"README shows:\n{expected}\nit printed:\n{run.stdout}"
