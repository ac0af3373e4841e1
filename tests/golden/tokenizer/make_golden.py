"""Writes the golden files of tests/text/test_tokenizer.cpp: tokenizers, texts and what Hugging Face makes of them.

    python tests/golden/tokenizer/make_golden.py        (needs tokenizers, transformers)

cases.json holds, per tokenizer, a list of {text, ids, decoded}; llama2.json and llama3.json are the small tokenizers
themselves (trained on this repository's oracle corpus), qwen3 is tests/data/qwen3-tokenizer.
"""

import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "oracle"))
import test_tokenizer as oracle  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402

TEXTS = [
    "",
    " ",
    "Find all users older than 25",
    "It's we'll THEY'RE 'S x'LL don\u2019t it'\u017f",
    "def f(x):\n    return x**2\n\n\n\tif y:\r\n        pass  \n",
    "  leading, double  and trailing  ",
    "12345678 3.14 \u0663\u0664 \u00bd \u2167 \U0001d7d8",
    "\u6771\u4eac\u90fd \u4f60\u597d\uff0c\u4e16\u754c \uc548\ub155 \u1112\u1161\u11ab \u0645\u064e\u0631\u062d \u05e2\u05d1",
    "e\u0301 n\u0303 \u212b q\u0307\u0323 \u0344 \u0958 \u09c7\u09be",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f3f3\ufe0f\u200d\U0001f308 \U0001f44d\U0001f3fd",
    "a\u00a0b\u3000c\u2028d\u0085e\u180ef\ufeffg\u200bh",
    "\x00\x01\x7f\ufffd\U0010ffff",
    "<|im_start|>user\nHi<|im_end|>\n<tool_call>{}</tool_call><s>x</s> <unk> <0x41> \u2581 \u2581\u2581 \u0120",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
]


def cases(tokenizer):
    result = []
    for text in TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        tokenizer.encode_special_tokens = True
        plain = tokenizer.encode(text, add_special_tokens=False).ids
        tokenizer.encode_special_tokens = False
        result.append(
            {
                "text": text,
                "ids": ids,
                "plain_ids": plain,
                "with_post_processor": tokenizer.encode(text).ids,
                "decoded": tokenizer.decode(ids, skip_special_tokens=False),
                "skipped": tokenizer.decode(ids),
            }
        )
    return result


def small(tokenizer, name):
    data = json.loads(tokenizer.to_str())
    (HERE / name).write_text(json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    return cases(Tokenizer.from_file(str(HERE / name)))


def main():
    golden = {
        "qwen3": cases(AutoTokenizer.from_pretrained(oracle.QWEN3).backend_tokenizer),
        "llama3.json": small(oracle.PIPELINES["llama3"](), "llama3.json"),
        "llama2.json": small(oracle.PIPELINES["llama2"](), "llama2.json"),
    }
    (HERE / "cases.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
