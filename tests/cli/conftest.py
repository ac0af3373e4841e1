"""expert-cli of the build in EXPERT_BUILD_DIR, each test with a home of its own."""

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("EXPERT_BUILD_DIR", ROOT / "build" / "release"))
PROGRAM = BUILD / "cli" / "expert-cli"


class Cli:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("EXPERT_")},
            "EXPERT_HOME": str(home),
            "LC_ALL": "C.UTF-8",
        }

    def __call__(self, *arguments, stdin=None, timeout=120, **environment):
        """Runs to the end; stdin is text, or nothing at all."""
        given = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
        return subprocess.run(
            [PROGRAM, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**self.environment, **environment},
            **given,
        )

    def start(self, *arguments, **options):
        return subprocess.Popen([PROGRAM, *map(str, arguments)], env=self.environment, **options)

    def json(self, *arguments, code=0, **options):
        run = self(*arguments, "--json", **options)
        assert run.returncode == code, run.stderr
        return json.loads(run.stdout)


@pytest.fixture
def cli(tmp_path):
    assert PROGRAM.exists(), f"{PROGRAM} is not built; set EXPERT_BUILD_DIR"
    return Cli(tmp_path / "home")


@pytest.fixture
def sql_directory():
    return ROOT / "models" / "experts" / "sql"
