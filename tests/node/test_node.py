"""The Node package: its own tests, its types, and the two folders that npm would publish, installed where nothing is."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("EXPERT_BUILD_DIR", ROOT / "build" / "release"))
SOURCE = ROOT / "bindings" / "node"
STAGED = BUILD / "node" / "node_modules" / "@hivellm"

pytestmark = pytest.mark.skipif(not (STAGED / "expert").exists(), reason="built without EXPERT_NODE")


def run(*command, cwd, **environment):
    result = subprocess.run([str(part) for part in command], check=False, capture_output=True, text=True, timeout=600,
                            cwd=cwd, env={**os.environ, **environment})  # fmt: skip
    assert result.returncode == 0, f"{command}\n{result.stdout[-6000:]}{result.stderr[-3000:]}"
    return result.stdout


def test_its_own_tests():
    run("node", "--expose-gc", "--test", "test/", cwd=SOURCE, EXPERT_BUILD_DIR=str(BUILD))


def test_types():
    run("node", ROOT / "node_modules" / "typescript" / "bin" / "tsc", "-p", SOURCE, cwd=SOURCE)


def test_options_of_a_request_are_declared():
    """Every option that lib/request.js reads stands in ExpertRequest, and the other way round."""
    listed = run("node", "-p", f"require('{STAGED}/expert/lib/request.js').knownFields.join(' ')", cwd=SOURCE).split()
    declared = re.search(r"interface ExpertRequest \{(.*?)\n\}", (SOURCE / "index.d.ts").read_text(), re.S).group(1)
    assert sorted(re.findall(r"^  (\w+)\?:", declared, re.M)) == sorted([*listed, "signal"])


def test_versions_agree():
    version = re.search(r'EXPERT_VERSION_STRING "([^"]+)"', (ROOT / "include" / "expert" / "version.h").read_text()).group(1)
    package = json.loads((SOURCE / "package.json").read_text())
    assert package["version"] == version
    assert set(package["optionalDependencies"].values()) == {version}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """An empty folder after `npm install` of the two packed packages, without a network."""
    prefix, folder = tmp_path_factory.mktemp("publish"), tmp_path_factory.mktemp("empty")
    run("cmake", "--install", BUILD, "--component", "node", "--prefix", prefix, cwd=folder)
    packed = []
    for package in sorted(path for path in prefix.iterdir() if path.is_dir()):
        packed.append(prefix / run("npm", "pack", "--silent", package, cwd=prefix).strip())
    (folder / "package.json").write_text('{"private": true}')
    run("npm", "install", "--offline", "--no-audit", "--no-fund", "--ignore-scripts", *packed, cwd=folder,
        npm_config_cache=str(prefix / "cache"))  # fmt: skip
    return folder


@pytest.mark.parametrize(
    ("kind", "load"),
    [
        ("cjs", "const { ExpertEngine } = require('@hivellm/expert');"),
        ("mjs", "import { ExpertEngine } from '@hivellm/expert';"),
    ],
)
def test_the_packed_package_answers(installed, tmp_path, kind, load):
    program = installed / f"main.{kind}"
    program.write_text(
        f"{load}\nconst engine = new ExpertEngine();\n"
        "engine.infer({ prompt: 'Hello', experts: ['sql'], maxTokens: 2 })"
        ".then(async ({ tokens }) => console.log(tokens.length, (await engine.info()).path));"
    )
    output = run("node", program, cwd=installed, EXPERT_HOME=str(tmp_path))
    assert str(installed) in output  # the model that came with the package


def test_require_is_quick(installed):
    took = run("node", "-p", "let t = performance.now(); require('@hivellm/expert'); performance.now() - t", cwd=installed)
    assert float(took) < 500  # the goal is 50 ms on a quiet machine; tests/bench measures it
