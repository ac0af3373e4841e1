"""Writes golden.json: chat templates, conversations and what Transformers renders of them (text, or null where it fails).

    python tests/template/make_golden.py

Renderings that show the time are left out. The published Qwen3 template is named by its file.
"""

import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/oracle"))
from template_cases import CONVERSATIONS, SNIPPETS, TEMPLATES, TOOLS, USER, VARIABLES  # noqa: E402
from test_chat_template import expected  # noqa: E402


def case(messages, tools, variables, add_generation_prompt):
    return {"messages": messages, "tools": tools, "variables": variables, "add_generation_prompt": add_generation_prompt}


def rendered(template, item):
    text, _ = expected(template, *item.values())
    return {**item, "text": text}


def main():
    cases = [case(m, t, v, g) for i, m in enumerate(CONVERSATIONS) for t in (None, TOOLS) for v in VARIABLES[i % 2 :: 2] for g in ((i + len(v)) % 2 == 0,)]
    qwen3 = (ROOT / "tests/data/qwen3-tokenizer/chat_template.jinja").read_text(encoding="utf-8")
    golden = {"qwen3": {"file": "tests/data/qwen3-tokenizer/chat_template.jinja", "cases": [rendered(qwen3, item) for item in cases[::2]]}}
    for name, template in TEMPLATES.items():
        if "strftime_now(" not in template:
            golden[name] = {"template": template, "cases": [rendered(template, item) for item in cases[len(golden) % 5 :: 7]]}
    one = case([USER, {"role": "assistant", "content": "x"}], None, {"bos_token": "<s>"}, True)
    for i, template in enumerate(SNIPPETS):
        golden["snippet %d" % i] = {"template": template, "cases": [rendered(template, one)]}
    path = ROOT / "tests/template/golden.json"
    lines = ["%s: %s" % (json.dumps(name), json.dumps(entry, ensure_ascii=False)) for name, entry in golden.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
