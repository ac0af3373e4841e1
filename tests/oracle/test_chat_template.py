"""Chat templates against Jinja2, configured as Transformers configures it.

As a test: pytest (EXPERT_BUILD_DIR names the build directory, whose render tool it runs).
By hand, with as many random templates as wanted:  python test_chat_template.py --tool PATH --random 100000 --seed 1
"""

import argparse
import datetime
import json
import os
import pathlib
import shutil
import subprocess
import sys

import jinja2
import pytest
import transformers
import transformers.utils.chat_template_utils as chat_template_utils

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from template_cases import CONVERSATIONS, SNIPPETS, TEMPLATES, TOOLS, USER, VARIABLES, Grammar  # noqa: E402
from template_cases_more import MORE  # noqa: E402

TEMPLATES = {**TEMPLATES, **MORE}

ROOT = pathlib.Path(__file__).resolve().parents[2]
NOW = 1732233600
QWEN3 = ROOT / "tests/data/qwen3-tokenizer/chat_template.jinja"


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(NOW, tz)


chat_template_utils.datetime = Clock


def expected(template, messages, tools=None, variables=None, add_generation_prompt=True):
    """What Transformers' apply_chat_template(tokenize=False) gives, or the exception."""
    try:
        messages = [{k: v for k, v in message.items() if v is not None} for message in messages]
        rendered, _ = chat_template_utils.render_jinja_template(
            conversations=[messages], tools=tools, chat_template=template, add_generation_prompt=add_generation_prompt, **(variables or {})
        )
        return rendered[0], None
    except RecursionError as error:
        return None, error
    except Exception as error:  # whatever Python raises is an error of the template
        return None, error


class Tool:
    def __init__(self, path):
        self.process = subprocess.Popen([str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")

    def render(self, template, messages, tools=None, variables=None, add_generation_prompt=True):
        return self.ask({"template": template, "messages": messages, "tools": tools, "variables": variables or {}, "add_generation_prompt": add_generation_prompt, "now": NOW})

    def ask(self, request):
        self.process.stdin.write(json.dumps(request, ensure_ascii=False) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the render tool ended")
        return json.loads(line)


# Where we refuse by name what Jinja2 renders: documented limits, never a wrong text.
REFUSALS = ("not supported", "does not fit 64 bits", "has no text that could be printed", "a 64-bit integer", "too long", "too large", "complex numbers")


def difference(tool, template, *case, reference=None):
    want, error = reference or expected(template, *case)
    got = tool.render(template, *case)
    if "text" in got:
        if error is not None:
            return "we render %r, Jinja2 fails: %r" % (got["text"], error)
        return None if got["text"] == want else "we render %r, Jinja2 %r" % (got["text"], want)
    if error is None and any(words in got["error"] for words in REFUSALS):
        return None
    return None if error is not None else "we fail: %s; Jinja2 renders %r" % (got["error"], want)


@pytest.fixture(scope="session")
def tool():
    build = pathlib.Path(os.environ.get("EXPERT_BUILD_DIR", ROOT / "build"))
    found = sorted(build.rglob("template_render_tool"))
    if not found:
        pytest.skip("template_render_tool is not built in %s" % build)
    return Tool(found[0])


def cases():
    for messages in CONVERSATIONS:
        for variables in VARIABLES:
            for tools in (None, TOOLS, []):
                for add_generation_prompt in (True, False):
                    yield messages, tools, variables, add_generation_prompt


def check_all(tool, template):
    for case in cases():
        problem = difference(tool, template, *case)
        assert problem is None, "%s\ncase: %r" % (problem, case)


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_template(tool, name):
    check_all(tool, TEMPLATES[name])


@pytest.mark.skipif(not QWEN3.exists(), reason="no Qwen3 tokenizer in tests/data")
def test_published_qwen3(tool):
    check_all(tool, QWEN3.read_text(encoding="utf-8"))


@pytest.mark.parametrize("index", range(len(SNIPPETS)))
def test_snippet(tool, index):
    problem = difference(tool, SNIPPETS[index], [USER, {"role": "assistant", "content": "x"}], None, {"bos_token": "<s>"}, True)
    assert problem is None, "%s\ntemplate: %s" % (problem, SNIPPETS[index])


LISTED = [{"name": "default", "template": TEMPLATES["zephyr"]}, {"name": "tool_use", "template": "{{ bos_token }}{{ tools|tojson }}"}]


@pytest.mark.skipif(not QWEN3.exists(), reason="no Qwen3 tokenizer in tests/data")
@pytest.mark.parametrize("variant", ["published", "list", "additional", "map", "decoder and map"])
def test_model_directory(tool, tmp_path, variant):
    for path in QWEN3.parent.iterdir():
        shutil.copy(path, tmp_path / path.name)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    tokens = {"bos_token": {"content": "<|im_start|>", "special": True}, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    if variant == "list":
        (tmp_path / "chat_template.jinja").unlink()
        config["chat_template"] = LISTED
    if variant == "additional":
        (tmp_path / "additional_chat_templates").mkdir()
        (tmp_path / "additional_chat_templates/tool_use.jinja").write_text(LISTED[1]["template"], encoding="utf-8")
    if "map" in variant:
        (tmp_path / "chat_template.jinja").write_text("{{ bos_token }}|{{ eos_token }}|{{ pad_token }}|{{ unk_token }}", encoding="utf-8")
        (tmp_path / "special_tokens_map.json").write_text(json.dumps(tokens), encoding="utf-8")
        config["eos_token"] = "<|vision_start|>"
    if variant == "map":
        config.pop("added_tokens_decoder", None)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for tools in (None, TOOLS):
        want = tokenizer.apply_chat_template(CONVERSATIONS[3], tools=tools, tokenize=False, add_generation_prompt=True)
        got = tool.ask({"directory": str(tmp_path), "messages": CONVERSATIONS[3], "tools": tools})
        assert got.get("text") == want, got


def random_problems(tool, seeds):
    rendered = failed = 0
    for seed in seeds:
        template = Grammar(seed).template()
        case = (CONVERSATIONS[seed % len(CONVERSATIONS)], TOOLS if seed % 3 == 0 else None, VARIABLES[seed % len(VARIABLES)], seed % 2 == 0)
        # objects print their address in Python, so those renderings have no fixed text
        want, error = expected(template, *case)
        rendered, failed = rendered + (error is None), failed + (error is not None)
        if want is not None and (" at 0x" in want or "<function " in want or "<class " in want or "<built-in " in want):
            continue
        problem = difference(tool, template, *case, reference=(want, error))
        if problem is not None:
            yield seed, template, problem
    print("%d rendered, %d failed in Jinja2" % (rendered, failed), file=sys.stderr)


def test_random_templates(tool):
    problems = list(random_problems(tool, range(300)))
    assert not problems, "seed %d: %s\ntemplate: %s" % (problems[0][0], problems[0][2], problems[0][1])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tool", required=True)
    parser.add_argument("--random", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--show", type=int, default=10)
    options = parser.parse_args()
    tool = Tool(options.tool)
    count = 0
    for name, template in list(TEMPLATES.items()) + [("snippet %d" % i, t) for i, t in enumerate(SNIPPETS)] + ([("qwen3", QWEN3.read_text())] if QWEN3.exists() else []):
        for case in cases() if name in TEMPLATES or name == "qwen3" else [([USER, {"role": "assistant", "content": "x"}], None, {"bos_token": "<s>"}, True)]:
            problem = difference(tool, template, *case)
            if problem is not None:
                count += 1
                if count <= options.show:
                    print("%s: %s\n  %r\n" % (name, problem, template if name.startswith("snippet") else case))
                break
    print("%d fixed templates differ" % count)
    count = 0
    for seed, template, problem in random_problems(tool, range(options.seed, options.seed + options.random)):
        count += 1
        if count <= options.show:
            print("seed %d: %s\n  %r\n" % (seed, problem, template))
    print("%d of %d random templates differ" % (count, options.random))


if __name__ == "__main__":
    main()
