#!/usr/bin/env python3
"""Which name in Python and in Node reaches which C function: docs/parity.md, made from the parsed C header.

    tools/parity.py [--write]      prints the table, or writes it to docs/parity.md

The names follow from rules; SPECIAL holds the functions that have another name or none. tests/parity checks that each
name exists and that each C function is called by both bindings, or is one whose data travels in another's JSON.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass

import capi_header

PAGE = capi_header.ROOT / "docs" / "parity.md"


@dataclass(frozen=True)
class Row:
    function: str
    section: str
    python: str  # "Engine.infer"; "" with a reason
    node: str
    through: str  # the C function whose JSON carries it, or ""
    reason: str  # why a language needs no name for it, or ""


def camel(name: str) -> str:
    return re.sub(r"_([a-z0-9])", lambda match: match.group(1).upper(), name)


# (prefix of the C function, Python owner, Node owner)
OWNERS = [
    ("expert_engine_", "Engine", "ExpertEngine"),
    ("expert_expert_", "Expert", "Expert"),
    ("expert_result_", "Result", "Result"),
    ("expert_chunk_", "Chunk", "Chunk"),
    ("expert_package_", "packages", "packages"),
    ("expert_model_", "models", "models"),
    ("expert_trust_", "trust", "trust"),
    ("expert_stream_", "Handle", "Handle"),
]
MODULE_FUNCTIONS = {"expert_set_log_callback", "expert_library_info", "expert_home", "expert_bench"}
FREES = "memory is the language's: freed when nothing refers to it"

# C function: (Python, Node), or a reason why there is no name.
SPECIAL: dict[str, tuple[str, str] | str] = {
    "expert_last_error": ("ExpertError.hint", "ExpertError.hint"),
    "expert_clear_error": "errors are exceptions",
    "expert_status_name": ("errors.from_status", "ExpertError.code"),
    "expert_version": ("__version__", "version"),
    "expert_engine_open": ("Engine", "ExpertEngine"),
    "expert_engine_find": ("Engine.find_expert", "ExpertEngine.findExpert"),
    "expert_load": ("Engine.load_expert", "ExpertEngine.loadExpert"),
    "expert_unload": ("Expert.unload", "Expert.unload"),
    "expert_stream_next": ("Stream", "Stream.next"),
    "expert_stream_wait": ("Handle.result", "Handle.result"),
    "expert_stream_listen": ("Engine.astream", "Stream"),
    "expert_stream_signal_end": ("Engine.ainfer", "Handle.result"),
    "expert_cancel": ("Handle.cancel", "Handle.cancel"),
    "expert_result_expert": ("Result.experts_used", "Result.expertsUsed"),
    "expert_result_expert_count": ("Result.experts_used", "Result.expertsUsed"),
    "expert_result_logprob": ("Result.logprobs", "Result.logprobs"),
    "expert_result_logprob_count": ("Result.logprobs", "Result.logprobs"),
    "expert_result_json": ("Result", "Result"),
    "expert_finish_reason_name": ("Result.finish_reason", "Result.finishReason"),
    "expert_key_generate": ("generate_key", "generateKey"),
}

# Functions whose data comes in the JSON of another call, or that another call replaces.
THROUGH = {
    "expert_finish_reason_name": "expert_result_json",
    "expert_infer": "expert_submit",
    "expert_infer_batch": "expert_submit",
    "expert_stream_next": "expert_stream_listen",
    "expert_stream_wait": "expert_stream_listen",
    "expert_stream_done": "expert_stream_listen",
    "expert_stream_listen": "expert_stream_next",
    "expert_stream_signal_end": "expert_stream_wait",
}


def _row(function: capi_header.Function) -> Row:
    name, section = function.name, function.section
    through = "expert_result_json" if name.startswith("expert_result_") and name != "expert_result_json" else ""
    through = THROUGH.get(name, through)
    if name == "expert_free" or name.endswith("_free"):
        return Row(name, section, "", "", "", FREES)
    special = SPECIAL.get(name)
    if isinstance(special, str):
        return Row(name, section, "", "", "", special)
    if special:
        return Row(name, section, *special, through, "")
    if name in MODULE_FUNCTIONS:
        plain = name.removeprefix("expert_")
        return Row(name, section, plain, camel(plain), through, "")
    for prefix, python, node in OWNERS:
        if name.startswith(prefix):
            verb = name.removeprefix(prefix)
            return Row(name, section, f"{python}.{verb}", f"{node}.{camel(verb)}", through, "")
    verb = name.removeprefix("expert_")  # a verb of the engine: expert_infer
    return Row(name, section, f"Engine.{verb}", f"ExpertEngine.{camel(verb)}", through, "")


def rows() -> list[Row]:
    return [_row(function) for function in capi_header.parse()[0]]


def page() -> str:
    lines = [
        "# Parity",
        "",
        "Every function of `expert.h` and the name that reaches it in Python and Node. Made by `tools/parity.py --write`",
        "from the header; `tests/parity` fails when a name is missing or a binding no longer calls a function. In C++",
        "(`expert.hpp`) the names are Python's. A function in the last column carries the same data for the bindings.",
        "",
    ]
    section = ""
    for row in rows():
        if row.section != section:
            section = row.section
            lines += ["", f"## {section}", "", "| C | Python | Node | or through |", "|---|---|---|---|"]
        if row.reason:
            lines.append(f"| `{row.function}` | – | – | {row.reason} |")
        else:
            through = f"`{row.through}`" if row.through else ""
            lines.append(f"| `{row.function}` | `{row.python}` | `{row.node}` | {through} |")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)) + "\n"


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        print(page())
