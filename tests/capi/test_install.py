"""cmake --install, and strangers who use what it installed: CMake, pkg-config, the installed expert-cli."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("EXPERT_BUILD_DIR", ROOT / "build" / "release"))
CONSUMER = Path(__file__).parent / "consumer"


def run(*command, **environment):
    result = subprocess.run([str(part) for part in command], check=False, capture_output=True, text=True, timeout=300,
                            env={**os.environ, **environment})  # fmt: skip
    assert result.returncode == 0, f"{command}\n{result.stdout}{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    where = tmp_path_factory.mktemp("prefix")
    run("cmake", "--install", BUILD, "--prefix", where)
    return where


def test_only_what_belongs_there_is_installed(prefix):
    headers = sorted(path.name for path in prefix.glob("include/expert/*"))
    assert headers == ["expert.h", "version.h"]
    assert (prefix / "share" / "expert" / "models" / "base" / "config.json").exists()
    assert not list(prefix.rglob("*.a"))


def test_a_cmake_project_finds_it(prefix, tmp_path):
    run("cmake", "-S", CONSUMER, "-B", tmp_path, f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", tmp_path)
    info = json.loads(run(tmp_path / "consumer", EXPERT_HOME=str(tmp_path / "home")))
    assert Path(info["path"]).is_relative_to(prefix)


@pytest.mark.skipif(shutil.which("pkg-config") is None, reason="no pkg-config")
def test_pkg_config_finds_it(prefix, tmp_path):
    config = next(prefix.rglob("expert.pc")).parent
    flags = run("pkg-config", "--cflags", "--libs", "expert", PKG_CONFIG_PATH=str(config)).split()
    run("cc", "-std=c99", CONSUMER / "main.c", "-o", tmp_path / "consumer", *flags)
    library = next(prefix.rglob("libexpert.so")).parent
    info = json.loads(run(tmp_path / "consumer", LD_LIBRARY_PATH=str(library), EXPERT_HOME=str(tmp_path / "home")))
    assert Path(info["path"]).is_relative_to(prefix)


def test_the_installed_command_line_runs(prefix, tmp_path):
    answer = run(prefix / "bin" / "expert-cli", "run", "Hello", "--experts", "", "--max-tokens", "2",
                 EXPERT_HOME=str(tmp_path / "home"))  # fmt: skip
    assert answer.strip()
