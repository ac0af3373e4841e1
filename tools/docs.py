#!/usr/bin/env python3
"""The documentation site: docs/ and the references made from the headers, docstrings and type declarations.

tools/docs.py            writes build/docs
tools/docs.py --build    and builds the site strictly into build/site (needs mkdocs)
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys

import capi_header

ROOT = capi_header.ROOT
OUT = ROOT / "build" / "docs"
PYTHON = ROOT / "bindings" / "python" / "expert"


def c_reference() -> str:
    functions, declarations = capi_header.parse()
    top = capi_header.HEADER.read_text(encoding="utf-8").split("*/", 1)[0]
    rules = [re.sub(r"^ \* ?", "", line) for line in top.splitlines()[1:]]
    lines = ["# C reference", "", "Made from `include/expert/expert.h`.", "", "```text", *rules, "```", ""]
    section = ""
    for item in sorted([*functions, *declarations], key=lambda item: _position(item)):
        if item.section != section:
            section = item.section
            lines += [f"## {section}", ""]
        code = f"{item.signature};" if isinstance(item, capi_header.Function) else item.text
        lines += [f"### `{item.name}`", "", "```c", code, "```", ""]
        if item.comment:
            lines += [_escape(item.comment), ""]
    return "\n".join(lines)


def _position(item: capi_header.Function | capi_header.Declaration) -> int:
    text = capi_header.HEADER.read_text(encoding="utf-8")
    if isinstance(item, capi_header.Function):
        return re.search(rf"EXPERT_API[^;{{]*?\b{item.name}\(", text).end()
    return text.index(item.text)


def _escape(text: str) -> str:
    """Text that Markdown shows as it is; what stands between backticks is left alone."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([<>\[\]*_])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


def cpp_reference() -> str:
    text = (ROOT / "include" / "expert" / "expert.hpp").read_text(encoding="utf-8")
    head, _, body = text.partition("#ifndef")
    public = re.sub(r"namespace detail \{.*?\n\}  // namespace detail\n", "", body, flags=re.S)
    public = public[public.index("// ---- errors") : public.index("}  // namespace v0")]
    return "\n".join(["# C++ reference", "", "The public part of `include/expert/expert.hpp`, in `namespace expert`.", "",
                      "```text", re.sub(r"^// ?", "", head, flags=re.M).rstrip(), "```", "", "```cpp", public.rstrip(), "```", ""])  # fmt: skip


def python_reference() -> str:
    lines = ["# Python reference", "", "Made from the docstrings of `bindings/python/expert`.", ""]
    for module in ("engine", "results", "library", "errors"):
        tree = ast.parse((PYTHON / f"{module}.py").read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                lines += _python_class(node)
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not node.name.startswith("_"):
                lines += _python_function(node, "##")
    return "\n".join(lines)


def _python_class(node: ast.ClassDef) -> list[str]:
    bases = ", ".join(ast.unparse(base) for base in node.bases if not ast.unparse(base).startswith("_"))
    made_by_us = node.name in ("Handle", "Stream", "Expert")
    lines = [f"## `{node.name}`", "", f"```python\nclass {node.name}{f'({bases})' if bases else ''}\n```", ""]
    lines += _docstring(node)
    fields = [ast.unparse(item) for item in node.body if isinstance(item, ast.AnnAssign)]
    if fields:
        lines += ["```python", *fields, "```", ""]
    for item in node.body:
        if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef)) and (
            not item.name.startswith("_") or (item.name == "__init__" and not made_by_us)
        ):
            lines += _python_function(item, "###", node.name)
    return lines


def _python_function(node: ast.FunctionDef | ast.AsyncFunctionDef, level: str, owner: str = "") -> list[str]:
    decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    name = f"{owner}.{node.name}" if owner and node.name != "__init__" else owner or node.name
    if "property" in decorators:
        return [
            f"{level} `{name}`",
            "",
            f"```python\n{name}: {returns.removeprefix(' -> ')}\n```",
            "",
            *_docstring(node),
        ]
    keyword = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    signature = f"{keyword} {node.name}({ast.unparse(node.args)}){returns}"
    return [f"{level} `{name}`", "", f"```python\n{signature}\n```", "", *_docstring(node)]


def _docstring(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    text = ast.get_docstring(node)
    return [_escape(text.strip()), ""] if text else []


def node_reference() -> str:
    text = (ROOT / "bindings" / "node" / "index.d.ts").read_text(encoding="utf-8")
    return f"# Node reference\n\nThe type declarations of `@hivellm/expert`.\n\n```ts\n{text}```\n"


def write() -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    shutil.copytree(ROOT / "docs", OUT)
    (OUT / "api").mkdir()
    for name, make in {
        "c": c_reference,
        "cpp": cpp_reference,
        "python": python_reference,
        "node": node_reference,
    }.items():
        (OUT / "api" / f"{name}.md").write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    write()
    if "--build" in sys.argv[1:]:
        sys.exit(
            subprocess.run(
                [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-f", ROOT / "mkdocs.yml"]
            ).returncode
        )
