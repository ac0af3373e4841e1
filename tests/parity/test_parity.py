"""Every C function is reached from Python and from Node. The table is made from the header, then checked: the names
exist, and the compiled parts import the function (or the one that carries its data)."""

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("EXPERT_BUILD_DIR", ROOT / "build" / "release"))
NODE = BUILD / "node" / "node_modules" / "@hivellm"
sys.path[:0] = [str(ROOT / "tools"), str(BUILD / "python")]

import capi_header  # noqa: E402
import expert  # noqa: E402
import expert._request  # noqa: E402
import expert.errors  # noqa: E402
import parity  # noqa: E402

ROWS = [row for row in parity.rows() if not row.reason]
needs_node = pytest.mark.skipif(not NODE.exists(), reason="built without EXPERT_NODE")


def imported(library):
    listed = subprocess.run(["nm", "-D", "--undefined-only", library], check=True, capture_output=True, text=True).stdout
    return set(re.findall(r" U (expert_\w+)", listed))


def test_the_page_is_up_to_date():
    assert parity.PAGE.read_text(encoding="utf-8") == parity.page(), "run tools/parity.py --write"


def test_reasons_are_for_memory_and_errors_alone():
    without = {row.function for row in parity.rows() if row.reason}
    assert all(name.endswith("_free") or name == "expert_clear_error" for name in without)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.function)
def test_python_has_the_name(row):
    owner, _, member = row.python.partition(".")
    found = getattr(expert, owner)
    if not member:
        return
    described = owner == "ExpertError" and member in vars(found("x"))
    assert hasattr(found, member) or described


def test_python_calls_every_function():
    library = next((BUILD / "python" / "expert").glob("_core*.so"))
    calls = imported(library)
    assert [row.function for row in ROWS if not {row.function, row.through} & calls] == []


SCRIPT = """
const expert = require(process.argv[1]);
const has = (name) => {
  const [owner, member] = name.split('.');
  const found = expert[owner];
  if (found === undefined) return false;
  if (member === undefined) return true;
  if (typeof found === 'object') return member in found;
  if (/Error$/.test(owner)) return member in new found('x');
  return member in found.prototype;
};
console.log(JSON.stringify(process.argv.slice(2).map((name) => [name, has(name)])));
"""


@needs_node
def test_node_has_every_name():
    declared = (ROOT / "bindings" / "node" / "index.d.ts").read_text(encoding="utf-8")
    names = sorted({row.node for row in ROWS})
    plain = [name for name in names if name.split(".")[0] in ("Result", "Chunk")]  # objects without a class
    for name in plain:
        owner, _, member = name.partition(".")
        interface = re.search(rf"interface {owner} \{{(.*?)\n\}}", declared, re.S).group(1)
        assert not member or re.search(rf"^  {member}\??:", interface, re.M), name
    asked = [name for name in names if name not in plain]
    told = subprocess.run(["node", "-e", SCRIPT, NODE / "expert", *asked], check=True, capture_output=True, text=True)
    assert [name for name, there in json.loads(told.stdout) if not there] == []


@needs_node
def test_node_calls_every_function():
    calls = imported(next(NODE.glob("expert-*")) / "expert.node")
    assert [row.function for row in ROWS if not {row.function, row.through} & calls] == []


# Fields of the options structs: what a caller may set in C, it may set everywhere. Lengths, counts, flags and user data are
# how C says what other languages say otherwise.
C_ONLY = {"struct_size", "flags", "progress_user_data"}
OTHERWISE = {"logit_bias_tokens": "logit_bias", "logit_bias_values": "logit_bias"}


def fields(struct):
    _, declarations = capi_header.parse()
    body = re.sub(r"/\*.*?\*/", "", next(d.text for d in declarations if d.name == struct), flags=re.S)
    names = re.findall(r"(\w+);", body.split("{", 1)[1].rsplit("}", 1)[0])
    assert len(names) > 5
    plain = [name for name in names if name not in C_ONLY and not name.endswith(("_length", "_count"))]
    return sorted({OTHERWISE.get(name, name) for name in plain})


REQUEST, OPTIONS = fields("expert_request"), fields("expert_engine_options")


def test_python_has_every_field():
    keywords = inspect.signature(expert.Engine.__init__).parameters
    assert [name for name in OPTIONS if name not in keywords] == []
    told = expert._request.RequestOptions.__annotations__
    assert [name for name in REQUEST if name not in told and name != "prompt"] == []


def test_cpp_has_every_field():
    header = (ROOT / "include" / "expert" / "expert.hpp").read_text(encoding="utf-8")
    for struct, names in (("Request", REQUEST), ("EngineOptions", OPTIONS)):
        body = re.search(rf"^struct {struct} \{{(.*?)^\}};", header, re.S | re.M).group(1)
        assert [name for name in names if not re.search(rf"\b{name}\b( =|\{{)", body)] == []


def test_node_has_every_field():
    declared = (ROOT / "bindings" / "node" / "index.d.ts").read_text(encoding="utf-8")
    for interface, names in (("ExpertRequest", REQUEST), ("EngineOptions", OPTIONS)):
        body = re.search(rf"interface {interface} .*?\{{(.*?)\n\}}", declared, re.S).group(1)
        known = {*re.findall(r"^  (\w+)\?:", body, re.M), "onProgress"}
        spelled = {name: "onProgress" if name == "progress" else parity.camel(name) for name in names}
        assert [name for name in names if spelled[name] not in known] == []
