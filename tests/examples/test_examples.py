"""The examples, run as a reader would run them."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("EXPERT_BUILD_DIR", ROOT / "build" / "release"))
NODE = BUILD / "node"
NAMES = ["answer", "chat", "compose", "batch", "route"]
needs_node = pytest.mark.skipif(not (NODE / "node_modules").exists(), reason="built without EXPERT_NODE")


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    return {**os.environ, "PYTHONPATH": str(BUILD / "python"), "EXPERT_HOME": str(tmp_path_factory.mktemp("home"))}


@pytest.fixture(scope="module")
def node_folder(tmp_path_factory):
    """The examples beside the packages, as after `npm install @hivellm/expert express`."""
    folder = tmp_path_factory.mktemp("node")
    shutil.copytree(ROOT / "examples" / "node", folder, dirs_exist_ok=True)
    modules = folder / "node_modules"
    modules.mkdir()
    installed = ROOT / "node_modules"
    for package in installed.iterdir() if installed.exists() else []:
        (modules / package.name).symlink_to(package)
    (modules / "@hivellm").symlink_to(NODE / "node_modules" / "@hivellm")
    return folder


def run(command, environment, cwd=None):
    process = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300, cwd=cwd,
                             env=environment, input="Hello\nAnd again?\n")  # fmt: skip
    assert process.returncode == 0, process.stderr
    return process.stdout


def check(name, output):
    if name == "chat":
        assert output.count("\n") >= 2
    elif name == "compose":
        assert "expert-sql" in output and "expert-jsonfmt" in output
    elif name == "batch":
        lines = [line for line in output.splitlines() if " -> " in line or line.endswith(" ->")]
        assert [line.split(" ->")[0] for line in lines] == ["Find all users", "List the files here", "Hello there"]
    elif name == "route":
        assert "expert-sql" in output


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("language", ["c", "cpp"])
def test_compiled_examples(name, language, environment):
    check(name, run([BUILD / "examples" / f"example_{name}_{language}"], environment))


@pytest.mark.parametrize("name", NAMES)
def test_python_examples(name, environment):
    output = run([sys.executable, ROOT / "examples" / "python" / f"{name}.py"], environment)
    check(name if name != "compose" else "", output)
    if name == "compose":
        assert [line.split("  ")[0].strip() for line in output.splitlines()] == ["base", "sql", "jsonfmt", "sql + jsonfmt"]


@needs_node
@pytest.mark.parametrize("name", NAMES)
def test_node_examples(name, environment, node_folder):
    program = next(node_folder.glob(f"{name}.*js"))
    check(name, run(["node", program], environment, node_folder))


# -- services -----------------------------------------------------------------------------------------------------------


def post(port, path, body):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(),
                                     {"content-type": "application/json"})  # fmt: skip
    try:
        with urllib.request.urlopen(request, timeout=120) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


class Service:
    """A service process; its port is read from what it says."""

    def __init__(self, command, environment, cwd):
        self.process = subprocess.Popen([str(part) for part in command], env=environment, cwd=cwd, text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
        self.port = None
        said = ""
        deadline = time.monotonic() + 120
        while self.port is None and time.monotonic() < deadline and self.process.poll() is None:
            said += self.process.stdout.readline()
            found = re.search(r"(?:listening on |http://127\.0\.0\.1:)(\d+)", said)
            self.port = int(found.group(1)) if found else None
        assert self.port, said

    def __enter__(self):
        return self.port

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            self.process.stdout.close()


def ask_the_service(port, names):
    """`names`: how this service spells max_tokens and finish_reason."""
    max_tokens, finish_reason = names
    status, text = post(port, "/answer", {"prompt": "Hello", "experts": ["sql"], max_tokens: 3})
    assert status == 200 and json.loads(text)["experts"] == ["expert-sql"]
    status, text = post(port, "/stream", {"prompt": "Hello<|im_end|>", "experts": [], max_tokens: 3})
    events = [block for block in text.split("\n\n") if block]
    assert status == 200 and events[-1].startswith("event: end") and finish_reason in events[-1]
    assert all(json.loads(block.removeprefix("data: "))["text"] is not None for block in events[:-1])
    status, text = post(port, "/answer", {"prompt": "", max_tokens: 3})
    assert status == 400 and json.loads(text)["error"]
    status, _ = post(port, "/answer", {"prompt": 5})
    assert status in (400, 422)


@pytest.mark.skipif(not (importlib.util.find_spec("fastapi") and importlib.util.find_spec("uvicorn")),
                    reason="fastapi and uvicorn are not installed")  # fmt: skip
def test_fastapi_service(environment):
    command = [sys.executable, "-m", "uvicorn", "service:app", "--port", "0"]
    with Service(command, environment, ROOT / "examples" / "python") as port:
        ask_the_service(port, ("max_tokens", "finish_reason"))


@needs_node
@pytest.mark.skipif(not (ROOT / "node_modules" / "express").exists(), reason="express is not installed: npm ci")
def test_express_service(environment, node_folder):
    with Service(["node", "service.mjs"], {**environment, "PORT": "0"}, node_folder) as port:
        ask_the_service(port, ("maxTokens", "finishReason"))


def test_the_command_line_through_python(environment):
    path = f"{BUILD / 'cli'}:{os.environ['PATH']}"
    process = subprocess.run([sys.executable, "-m", "expert", "--version"], capture_output=True, text=True,
                             env={**environment, "PATH": path})  # fmt: skip
    assert process.stdout.startswith("expert-cli ")
