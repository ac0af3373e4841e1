"""Reads include/expert/expert.h: every function with its section, signature and comment. The parity table, the API
reference and the tests of both are made from what this finds, never from a list written by hand."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADER = ROOT / "include" / "expert" / "expert.h"


@dataclass(frozen=True)
class Function:
    name: str
    section: str
    signature: str  # on one line, without EXPERT_API
    comment: str  # "" when there is none
    fails: bool  # returns expert_status


@dataclass(frozen=True)
class Declaration:
    """A struct, enum, callback or macro with the comment before it."""

    name: str
    section: str
    text: str
    comment: str


def _clean(comment: str) -> str:
    lines = [
        re.sub(r"^\s*\*? ?", "", line) for line in comment.strip().removeprefix("/*").removesuffix("*/").splitlines()
    ]
    return " ".join(line.strip() for line in lines if line.strip())


_TOKEN = re.compile(
    r"/\* -{4} (?P<section>.+?) -{4,} \*/"
    r"|(?P<comment>/\*.*?\*/)"
    r"|(?P<function>EXPERT_API\s+[^;{]+;)"
    r"|(?P<type>typedef\s+(?:struct|enum)\s+\w+\s*\{.*?\}\s*\w+;|typedef\s[^;{]+;)"
    r"|(?P<macro>\#define\s+EXPERT_\w+(?:[^\n]*\\\n)*[^\n]*)"
    r"|(?P<blank>\n[ \t]*\n)",
    re.S,
)


def _tokens(text: str) -> list[tuple[str, str, bool]]:
    """(kind, text, stands on the line of the token before it)"""
    out = []
    start = text.index("/* ---- ")
    previous_end = start
    for match in _TOKEN.finditer(text, start):
        same_line = "\n" not in text[previous_end : match.start()]
        out.append((str(match.lastgroup), str(match.group(str(match.lastgroup))), same_line))
        previous_end = match.end()
    return out


def parse(path: Path = HEADER) -> tuple[list[Function], list[Declaration]]:
    functions: list[Function] = []
    declarations: list[Declaration] = []
    section = comment = ""
    tokens = _tokens(path.read_text(encoding="utf-8"))
    for index, (kind, text, _) in enumerate(tokens):
        after = tokens[index + 1] if index + 1 < len(tokens) else ("", "", False)
        trailing = _clean(after[1]) if after[0] == "comment" and after[2] else ""
        own = " ".join(part for part in (comment, trailing) if part)
        if kind == "section":
            section, comment = text.strip(), ""
        elif kind == "blank":
            comment = ""
        elif kind == "comment":
            before = tokens[index - 1][0] if index else ""
            if not (tokens[index][2] and before in ("function", "macro", "type")):
                comment = f"{comment} {_clean(text)}".strip() if before == "comment" else _clean(text)
        elif kind == "function":
            signature = " ".join(text.removeprefix("EXPERT_API").split()).rstrip(";")
            name = re.search(r"(expert_\w+)\(", signature).group(1)
            functions.append(Function(name, section, signature, own, signature.startswith("expert_status ")))
            comment = ""
        elif kind in ("type", "macro"):
            found = (
                re.search(r"#define\s+(\w+)", text) or re.search(r"\(\*(\w+)\)", text) or re.search(r"(\w+);$", text)
            )
            declarations.append(Declaration(found.group(1), section, text, own))
            comment = ""
    return functions, declarations


if __name__ == "__main__":
    for function in parse()[0]:
        print(f"{function.name:32} {function.section:40} {function.comment[:80]}")
