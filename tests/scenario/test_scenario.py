"""One story, four languages, equal results, tokens included."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
BUILD = Path(os.environ.get("EXPERT_BUILD_DIR", ROOT / "build" / "release"))
NODE_PACKAGE = BUILD / "node" / "node_modules" / "@hivellm" / "expert"
STORY = json.loads((HERE / "scenario.json").read_text(encoding="utf-8"))

RUNNERS = {
    "c": [BUILD / "tests" / "scenario" / "scenario_c"],
    "cpp": [BUILD / "tests" / "scenario" / "scenario_cpp"],
    "python": [sys.executable, HERE / "run_python.py"],
    "node": ["node", HERE / "run_node.js", NODE_PACKAGE],
}


@pytest.fixture(scope="module")
def tell(tmp_path_factory):
    told = {}

    def once(language):
        if language not in told:
            command = [*RUNNERS[language], ROOT, tmp_path_factory.mktemp("home")]
            run = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300,
                                 env={**os.environ, "PYTHONPATH": str(BUILD / "python")})  # fmt: skip
            assert run.returncode == 0, run.stderr
            told[language] = json.loads(run.stdout)
        return told[language]

    return once


def test_the_story_in_c_is_as_expected(tell):
    for step, told in zip(STORY["steps"], tell("c"), strict=True):
        outcome = told["outcome"]
        failed = outcome.get("error") if isinstance(outcome, dict) else None
        assert failed == step.get("error"), step["name"]


@pytest.mark.parametrize("language", ["cpp", "python", "node"])
def test_every_language_tells_the_same(tell, language):
    if language == "node" and not NODE_PACKAGE.exists():
        pytest.skip("built without EXPERT_NODE")
    for expected, told in zip(tell("c"), tell(language), strict=True):
        assert told == expected, expected["name"]
