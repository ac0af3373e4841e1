"""cmake --install and the Debian package, and strangers who use what they installed: CMake, pkg-config, the command
line. What needs another build of the library is in tests/full/consumers.py."""

import json
import os
import re
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
    assert headers == ["expert.h", "expert.hpp", "version.h"]
    assert (prefix / "share" / "expert" / "models" / "base" / "config.json").exists()
    assert (prefix / "share" / "expert" / "THIRD_PARTY_NOTICES.md").exists()
    assert not list(prefix.rglob("*.a")) and not list(prefix.rglob("*.node"))


def test_a_cmake_project_finds_it(prefix, tmp_path):
    run("cmake", "-S", CONSUMER, "-B", tmp_path, f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", tmp_path)
    for program in ("consumer", "consumer_cpp"):
        info = json.loads(run(tmp_path / program, EXPERT_HOME=str(tmp_path / "home")))
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


@pytest.mark.skipif(shutil.which("dpkg-deb") is None or shutil.which("cpack") is None, reason="no Debian tools")
def test_the_debian_package(tmp_path):
    run("cpack", "-G", "DEB", "--config", BUILD / "CPackConfig.cmake", "-B", tmp_path / "deb")
    package = next((tmp_path / "deb").glob("libexpert_*.deb"))
    fields = run("dpkg-deb", "--field", package)
    for needed in ("Package: libexpert", "Architecture: ", "libfmt", "libarchive"):
        assert needed in fields
    run("dpkg-deb", "--extract", package, tmp_path / "root")
    root = tmp_path / "root" / "usr"
    assert (root / "share" / "expert" / "LICENSE").exists() and not list(root.rglob("*.node"))
    library = next(path for path in root.rglob("libexpert.so.*.*.*"))
    assert library.stat().st_size < 6_000_000  # stripped
    answer = run(root / "bin" / "expert-cli", "run", "Hello", "--experts", "", "--max-tokens", "2",
                 EXPERT_HOME=str(tmp_path / "home"))  # fmt: skip
    assert answer.strip()


def test_the_vcpkg_port_says_what_we_are():
    """The tool cannot be had here, so the port is not built; its fields are checked."""
    port = ROOT / "packaging" / "vcpkg" / "ports" / "libexpert"
    manifest = json.loads((port / "vcpkg.json").read_text())
    version = re.search(r'EXPERT_VERSION_STRING "([^"]+)"', (ROOT / "include/expert/version.h").read_text()).group(1)
    assert manifest["version"] == version and manifest["license"] == "Apache-2.0"
    names = {entry if isinstance(entry, str) else entry["name"] for entry in manifest["dependencies"]}
    assert {"fmt", "libsodium", "libarchive", "nlohmann-json", "openssl"} <= names
    portfile = (port / "portfile.cmake").read_text()
    for call in ("vcpkg_cmake_configure", "vcpkg_cmake_install", "vcpkg_cmake_config_fixup", "vcpkg_install_copyright"):
        assert call in portfile
    for option in re.findall(r"-D(EXPERT_\w+)=", portfile):
        assert option in (ROOT / "cmake" / "options.cmake").read_text()
