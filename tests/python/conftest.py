"""The module of the build in EXPERT_BUILD_DIR and one engine over the bundled model."""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("EXPERT_BUILD_DIR", ROOT / "build" / "release"))
sys.path.insert(0, str(BUILD / "python"))

import expert  # noqa: E402


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def engine(home):
    with expert.Engine(ROOT / "models" / "base", threads=1, home=home) as opened:
        yield opened


@pytest.fixture
def new_engine(home):
    with expert.Engine(ROOT / "models" / "base", threads=1, home=home) as opened:
        yield opened


@pytest.fixture(scope="session")
def sql_directory():
    return ROOT / "models" / "experts" / "sql"
