"""Our tokenizer against Hugging Face `tokenizers` and Transformers: ids, decoded text, streamed text, NFC and classes.

Tokenizers are trained here, one per kind of pipeline; the published Qwen3 files come from tests/data. Few strings by
default, many with EXPERT_ORACLE_VOLUME=full.
"""

import json
import os
import random
import subprocess
from functools import cache
from pathlib import Path

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

ROOT = Path(__file__).resolve().parents[2]
QWEN3 = ROOT / "tests" / "data" / "qwen3-tokenizer"
FULL = os.environ.get("EXPERT_ORACLE_VOLUME") == "full"
STRINGS = 6000 if FULL else 120  # per pipeline

TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + TAIL
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + TAIL
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# Expressions of other published tokenizers (tekken, o200k, DeepSeek, Falcon, …), and their constructs put together anew.
WORD = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
CAPS = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
SYMBOLS = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
EXPRESSIONS = {
    "tekken": [WORD + "|" + CAPS + r"|\p{N}" + SYMBOLS],
    "o200k": [WORD + r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|" + CAPS + r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}" + SYMBOLS],
    "cl100k": [r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"],
    "marks": [r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"],
    "deepseek": [r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
                 r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"],
    "triples": [r"\d{1,3}(?=(?:\d{3})*(?!\d))"],
    "cuts": [r"(?=[A-Z])|(?=\d{2,})"],
    "lazy": [r"[a-z]+?(?=[aeiou\s])|\s+?|'.{0,2}?'"],
    "groups": [r"(?:ab|a)(?:b|c){1,2}?|(?:[^\s]x?)+?y|(?>a+)b|(\p{Lu}\p{Ll}+ ?){2,3}"],
    "properties": [r"\p{^L}\P{N}|[^\S\n]+|[\D]{3}|[[a-f][^\x{0}-\x{7F}]]+|\u0041."],
}  # fmt: skip
CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]

# ---------------------------------------------------------------------------------------------------------- strings

POOLS = [
    "the quick brown fox jumps over 13 lazy dogs It's we'll THEY'RE I'd you've 'S 'T 'LL 'Ve 'm' o'clock".split(" "),
    ["don\u2019t", "it'\u017f", "'\u017f ", "'\u212a", "\u017f", "'ſ's", "''ll", "'l", "'r e"],
    ["def f(x):\n    return x**2\n", "SELECT * FROM t WHERE a >= 1;", "if (a&&b) {\r\n\t++c;\r\n}", "/* ... */", "->", "://"],
    ["  ", "   ", "\t", "\t\t", "\n", "\n\n", "\r\n", "\r", " \n", "\n ", "\u00a0", "\u3000", "\u2028", "\u0085", "\x0b", "\u180e", "\ufeff", "\u200b"],
    ["東京都", "日本語テスト", "你好，世界", "안녕하세요", "\u1112\u1161\u11ab", "สวัสดี", "हिन्दी", "العربية", "مَرْحَبًا", "עברית", "Ελληνικά", "Привет"],
    ["👨‍👩‍👧", "🏳️‍🌈", "😀", "👍🏽", "🇩🇪", "©", "™", "½", "²", "٣", "Ⅷ", "一二三", "𝟘𝟙", "12345678", "3.14", "1,000"],
    ["e\u0301", "n\u0303", "\u0041\u030a", "\u212b", "q\u0307\u0323", "\u1e9b\u0323", "\u0344", "\u0958", "\u09c7\u09be", "o\u0328\u0304", "\u0301", "ﬁ", "ﷺ"],
    ["\x00", "\x01", "\x7f", "\ufffd", "\uffff", "\U0010ffff", "\U000e0041", "\u2581", "\u2581\u2581", "<0x41>", "<0x+F>", "Ġ", "Ċ"],
    ["<|im_start|>", "<|im_end|>", "<|im_", "<tool>", "</tool>", "<s>", "</s>", "<unk>", "[WORD]", "  [STRIP]  ", "caf\u00e9", "cafe\u0301", "<|endoftext|>", "<think>"],
]  # fmt: skip


def random_string(rng):
    out = []
    for _ in range(rng.choice([1, 2, 3, 5, 8, 13, 30])):
        kind = rng.random()
        if kind < 0.75:
            out.append(rng.choice(rng.choice(POOLS)))
        elif kind < 0.85:
            out.append(chr(rng.choice(CODE_POINTS)))
        elif kind < 0.95:
            out.append("".join(chr(rng.randrange(0x20, 0x250)) for _ in range(rng.randrange(6))))
        else:
            out.append(rng.choice("ab \n'1") * rng.randrange(1, 80))
        if rng.random() < 0.4:
            out.append(rng.choice([" ", " ", "\n", "  "]))
    return "".join(out)


def strings(seed, count):
    rng = random.Random(seed)
    fixed = ["", " ", "\n", "a", "\u2581", "'", "\U0010ffff"]
    return fixed + [random_string(rng) for _ in range(count)]


# ------------------------------------------------------------------------------------------------------- tokenizers


@cache
def corpus():
    source = [p.read_text(encoding="utf-8") for p in sorted((ROOT / "tests" / "oracle").glob("*.py"))]
    return source + strings("corpus", 3000)


def train(pre_tokenizer, normalizer=None, initial=(), special=(), size=1500):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
    tokenizer.train_from_iterator(
        corpus(),
        trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=list(special),
            initial_alphabet=list(initial),
            limit_alphabet=300,  # the other characters fall back to bytes or are unknown
            show_progress=False,
        ),
    )
    return tokenizer


def byte_level(split=None, normalizer=None, **options):
    last = pre_tokenizers.ByteLevel(add_prefix_space=options.get("prefix", False), use_regex=split is None)
    steps = [pre_tokenizers.Split(Regex(split), behavior="isolated")] if split else []
    steps += options.get("before", [])
    tokenizer = train(pre_tokenizers.Sequence(steps + [last]) if steps else last, normalizer, pre_tokenizers.ByteLevel.alphabet())
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def add_tokens(tokenizer):
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]])
    tokenizer.add_tokens(
        [
            AddedToken("<tool>", normalized=False),
            AddedToken("<|im_start|>x", normalized=False),
            AddedToken("[WORD]", single_word=True, normalized=False),
            AddedToken("[STRIP]", lstrip=True, rstrip=True, normalized=False),
            AddedToken("caf\u00e9", normalized=True),
            AddedToken("quick", single_word=True, normalized=True),
        ]
    )
    return tokenizer


def edited(tokenizer, **model):
    """The same tokenizer with fields of its model changed."""
    data = json.loads(tokenizer.to_str())
    data["model"].update(model)
    return Tokenizer.from_str(json.dumps(data))


def spm_like(pre_tokenizer, normalizer, decoder, byte_tokens=range(256), **model):
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in byte_tokens]
    tokenizer = edited(train(pre_tokenizer, normalizer, special=special), **model)
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = [t for t in data["added_tokens"] if not t["content"].startswith("<0x")]
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.decoder = decoder
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def llama2_decoder():
    return decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )


def llama2(**model):
    options = {"byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>", **model}
    # Trained on words, used on whole texts, as sentencepiece models are.
    normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer = spm_like(pre_tokenizers.Metaspace(split=True), normalizer, llama2_decoder(), **options)
    tokenizer.pre_tokenizer = None
    return tokenizer


def mistral(scheme, split):
    tokenizer = spm_like(
        pre_tokenizers.Metaspace(split=True), None, llama2_decoder(), byte_fallback=True, fuse_unk=True, unk_token="<unk>"
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=split)
    return tokenizer


def llama3():
    tokenizer = add_tokens(edited(byte_level(LLAMA3), ignore_merges=True))
    begin = tokenizer.token_to_id("<|im_start|>")
    end = tokenizer.token_to_id("<|im_end|>")
    template = processors.TemplateProcessing(
        single="<|im_start|> $A <|im_end|>", special_tokens=[("<|im_start|>", begin), ("<|im_end|>", end)]
    )
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return tokenizer


def with_split(pattern, behavior, invert=False):
    return add_tokens(byte_level(before=[pre_tokenizers.Split(pattern, behavior=behavior, invert=invert)]))


def with_decoder(decoder, **model):
    tokenizer = llama2(**model)
    tokenizer.decoder = decoder
    return tokenizer


def with_expressions(expressions):
    return add_tokens(byte_level(before=[pre_tokenizers.Split(Regex(e), behavior="isolated") for e in expressions]))


def falcon3():
    steps = [pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.Digits(individual_digits=False),
             pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), behavior="isolated")]  # fmt: skip
    return add_tokens(byte_level(before=steps))


PIPELINES = {
    **{name: lambda e=expressions: with_expressions(e) for name, expressions in EXPRESSIONS.items()},
    "falcon3": falcon3,
    "punctuation": lambda: add_tokens(byte_level(before=[pre_tokenizers.Punctuation("merged_with_previous")])),
    "regex-removed": lambda: with_split(Regex(r"\s*[,;]|(?=\d)"), "removed"),
    "regex-contiguous": lambda: with_split(Regex(r"\p{P}|(?=\d)"), "contiguous"),
    "regex-inverted": lambda: with_split(Regex(r"[\p{L}\p{N}]+"), "merged_with_next", invert=True),
    "qwen2": lambda: add_tokens(byte_level(QWEN2, normalizers.NFC())),
    "llama3": llama3,
    "gpt2": lambda: add_tokens(byte_level()),
    "gpt2-prefix": lambda: add_tokens(byte_level(prefix=True)),
    "gpt2-split": lambda: add_tokens(byte_level(GPT2)),
    "smollm": lambda: add_tokens(byte_level(before=[pre_tokenizers.Digits(individual_digits=True)])),
    "digits": lambda: add_tokens(byte_level(before=[pre_tokenizers.Digits(individual_digits=False)])),
    "llama2": llama2,
    "llama2-unk": lambda: add_tokens(llama2(byte_fallback=False)),
    "llama2-unk-unfused": lambda: add_tokens(llama2(byte_fallback=False, fuse_unk=False)),
    "llama2-no-unk": lambda: llama2(byte_fallback=False, unk_token=None),
    "llama2-few-bytes": lambda: spm_like(
        None, normalizers.Replace(" ", "\u2581"), llama2_decoder(), range(0, 256, 2), byte_fallback=True, unk_token="<unk>"
    ),
    "mistral-first": lambda: add_tokens(mistral("first", False)),
    "mistral-always": lambda: add_tokens(mistral("always", False)),
    "mistral-never": lambda: mistral("never", False),
    "metaspace-split": lambda: mistral("first", True),
    "metaspace-always-split": lambda: add_tokens(mistral("always", True)),
    "split-removed": lambda: with_split(" ", "removed"),
    "split-previous": lambda: with_split(" ", "merged_with_previous"),
    "split-next": lambda: with_split("a", "merged_with_next"),
    "split-contiguous": lambda: with_split(" ", "contiguous"),
    "split-inverted": lambda: with_split(Regex(QWEN2), "removed", True),
    "split-inverted-text": lambda: with_split("th", "merged_with_next", True),
    "decoder-metaspace": lambda: with_decoder(decoders.Metaspace()),
    "decoder-metaspace-never": lambda: with_decoder(decoders.Metaspace(prepend_scheme="never")),
    "decoder-none": lambda: with_decoder(None),
    "decoder-strip": lambda: with_decoder(decoders.Sequence([decoders.Fuse(), decoders.Strip("\u2581", 2, 0), decoders.Replace("an", "<>")])),
    "decoder-replace": lambda: with_decoder(
        decoders.Sequence([decoders.ByteFallback(), decoders.Fuse(), decoders.Replace("\u2581\u2581", "="), decoders.Replace("the", "")])
    ),
}  # fmt: skip


# -------------------------------------------------------------------------------------------------------- comparing


def ask(directory, requests):
    tool = Path(os.environ.get("EXPERT_BUILD_DIR", ROOT / "build" / "release")) / "tests" / "text" / "tokenize_tool"
    text = "\n".join(json.dumps(r) for r in requests)
    run = subprocess.run([tool, directory], input=text, capture_output=True, encoding="utf-8", check=False)
    answers = [json.loads(line) for line in run.stdout.split("\n") if line]
    assert len(answers) == len(requests), (answers or run.stderr)[-1]
    return answers


def reference_ids(tokenizer, request):
    tokenizer.encode_special_tokens = not request["special_in_text"]
    return tokenizer.encode(request["text"], add_special_tokens=request["add_post_processor"]).ids


def compare(directory, tokenizer, seed, count):
    rng = random.Random(seed)
    requests = [
        {"text": s, "special_in_text": rng.random() < 0.7, "add_post_processor": rng.random() < 0.5}
        for s in strings(seed, count)
    ]
    known = sorted(tokenizer.get_vocab().values())
    small = [tokenizer.token_to_id(f"<0x{b:02X}>") for b in range(256)]
    small = [i for i in small if i is not None] or known[:400]
    for _ in range(count // 3):  # ids that no text gives: broken characters, specials anywhere
        requests.append({"ids": [rng.choice(rng.choice([known, small])) for _ in range(rng.randrange(12))]})
    for request, answer in zip(requests, ask(directory, requests)):
        ids = reference_ids(tokenizer, request) if "text" in request else request["ids"]
        assert answer.get("ids", ids) == ids, request
        assert answer["decoded"] == tokenizer.decode(ids, skip_special_tokens=False), request
        assert answer["skipped"] == tokenizer.decode(ids, skip_special_tokens=True), request
        assert "".join(answer["pieces"]) == answer["decoded"], request


@pytest.mark.parametrize("name", PIPELINES)
def test_pipeline(name, tmp_path):
    tokenizer = PIPELINES[name]()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    compare(tmp_path, tokenizer, name, STRINGS)


def test_legacy_spelling_of_merges(tmp_path):
    tokenizer = PIPELINES["gpt2"]()
    data = json.loads(tokenizer.to_str())
    data["model"]["merges"] = [" ".join(m) for m in data["model"]["merges"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    compare(tmp_path, tokenizer, "legacy", 100)


def test_published_qwen3_files():
    tokenizer = AutoTokenizer.from_pretrained(QWEN3).backend_tokenizer
    compare(QWEN3, tokenizer, "qwen3", STRINGS * 2)


def test_published_qwen3_as_tokenizer_json(tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(QWEN3).backend_tokenizer
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    compare(tmp_path, tokenizer, "qwen3-json", STRINGS)


# ---------------------------------------------------------------------------------------- directories as Transformers


def write(directory, **files):
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (directory / name.replace("__", ".")).write_text(text, encoding="utf-8")


def split_files(tokenizer):
    """vocab.json and merges.txt of a trained tokenizer."""
    model = json.loads(tokenizer.to_str())["model"]
    return {
        "vocab__json": model["vocab"],
        "merges__txt": "#version: 0.2\n" + "".join(" ".join(m) + "\n" for m in model["merges"]),
    }


DIRECTORIES = {
    "gpt2": ({"tokenizer_class": "GPT2Tokenizer"}, {}),
    "gpt2-fast-prefix-bos": (
        {"tokenizer_class": "GPT2TokenizerFast", "add_prefix_space": True, "add_bos_token": True, "bos_token": "<s>"}, {}),
    "qwen2-defaults": ({"tokenizer_class": "Qwen2Tokenizer"}, {}),
    "qwen2-bos-eos": (
        {"tokenizer_class": "Qwen2TokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": None,
         "add_bos_token": True, "add_eos_token": True, "additional_special_tokens": ["<tool>", "<|im_start|>"]}, {}),
    "qwen2-old-style": (
        {"tokenizer_class": "Qwen2Tokenizer", "model_max_length": 10},
        {"special_tokens_map__json": {"eos_token": {"content": "<|im_end|>", "lstrip": True, "rstrip": False,
                                                    "normalized": False, "single_word": False},
                                      "pad_token": "<|endoftext|>", "additional_special_tokens": ["<tool>"]},
         "added_tokens__json": "OLD"}),
}  # fmt: skip


@pytest.mark.parametrize("name", DIRECTORIES)
def test_vocab_and_merges(name, tmp_path):
    trained = byte_level()
    config, others = DIRECTORIES[name]
    next_id = trained.get_vocab_size()
    if others.get("added_tokens__json") == "OLD":
        tokens = ["<|endoftext|>", "<|im_end|>", "<tool>", "</tool>"]
        others = {**others, "added_tokens__json": {t: next_id + i for i, t in enumerate(tokens)}}
    write(tmp_path, tokenizer_config__json=config, **split_files(trained), **others)
    compare(tmp_path, AutoTokenizer.from_pretrained(tmp_path).backend_tokenizer, name, STRINGS // 2)


BESIDE = {
    "named-tokens": {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "pad_token": "[PAD]"},
    "extra": {"tokenizer_class": "PreTrainedTokenizerFast", "extra_special_tokens": ["the", "<tool>"], "bos_token": "<s>"},
    "old-extra": {"tokenizer_class": "PreTrainedTokenizerFast", "additional_special_tokens": ["<think>"]},
    "named-extra": {"tokenizer_class": "PreTrainedTokenizerFast", "image_token": "<think>"},
    "no-effect": {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": True, "bos_token": "<|im_start|>",
                  "clean_up_tokenization_spaces": True},
}  # fmt: skip


@pytest.mark.parametrize("name", BESIDE)
def test_configuration_beside_tokenizer_json(name, tmp_path):
    tokenizer = add_tokens(byte_level(QWEN2, normalizers.NFC()))
    write(tmp_path, tokenizer_config__json=BESIDE[name], tokenizer__json=tokenizer.to_str())
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    compare(tmp_path, loaded.backend_tokenizer, name, STRINGS // 2)
    ids = loaded.encode(" . Hello , world ! n't")
    assert ask(tmp_path, [{"ids": ids}])[0]["decoded"] == loaded.decode(ids)


# ------------------------------------------------------------------------------------------------ every code point


def plain(normalizer=None, pre_tokenizer=None):
    """A vocabulary of bytes, so that ids are the text's bytes and piece boundaries do not hide."""
    vocab = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.normalizer, tokenizer.decoder = normalizer, decoders.ByteLevel()
    tokenizer.pre_tokenizer = pre_tokenizer or pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return tokenizer


def test_nfc(tmp_path):
    tokenizer = plain(normalizers.NFC())
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    nfc = tokenizer.normalizer.normalize_str
    rng = random.Random("nfc")
    changing = [c for c in CODE_POINTS if normalizers.NFD().normalize_str(chr(c)) != chr(c)]
    marks = [c for c in CODE_POINTS if nfc(chr(c) + "\u0334") != chr(c) + "\u0334" or nfc("\u0345" + chr(c)) != "\u0345" + chr(c)]
    jamo = list(range(0x1100, 0x1200)) + list(range(0xAC00, 0xAC40))
    step = 1 if FULL else 11
    texts = ["a" + "a".join(map(chr, CODE_POINTS[i : i + 500 * step : step])) for i in range(0, len(CODE_POINTS), 500 * step)]
    texts += [
        "".join(chr(rng.choice(rng.choice([changing, marks, marks, jamo, CODE_POINTS, [0x61]]))) for _ in range(12))
        for _ in range(100_000 if FULL else 2000)
    ]
    for text, answer in zip(texts, ask(tmp_path, [{"text": t} for t in texts])):
        assert answer["decoded"] == nfc(text), ascii(text)


CLASSES = {
    "letters": pre_tokenizers.Split(Regex(QWEN2), behavior="isolated"),
    "gpt2": pre_tokenizers.Split(Regex(GPT2), behavior="isolated"),
    "digits": pre_tokenizers.Digits(individual_digits=True),
    "categories": pre_tokenizers.Split(Regex(EXPRESSIONS["tekken"][0]), behavior="isolated"),
    "punctuation": pre_tokenizers.Punctuation("isolated"),
}


@pytest.mark.parametrize("name", CLASSES)
def test_every_code_point_is_classified_alike(name, tmp_path):
    """Contexts in which letters, numbers, spaces and the rest fall apart differently; every merge that could join is there."""
    split = CLASSES[name]
    pre = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer = joining(pre)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    forms = ["a{0}1{0}!{0}{0} {0}", "{0}\n"]
    step = 1 if FULL else 41
    texts = ["".join(f.format(chr(c)) for f in forms for c in CODE_POINTS[i : i + 64 * step : step]) for i in range(0, len(CODE_POINTS), 64 * step)]  # fmt: skip
    for text, answer in zip(texts, ask(tmp_path, [{"text": t, "ids_only": True} for t in texts])):
        assert answer["ids"] == tokenizer.encode(text).ids, ascii(text)


def joining(pre_tokenizer):
    """Merges that join 'x' with a neighbouring ASCII byte or character: a boundary more or less changes the ids."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {c: i for i, c in enumerate(alphabet)}
    merges = []
    for left in alphabet:
        for right in alphabet:
            vocab[left + right] = len(vocab)
            merges.append((left, right))
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizer, decoders.ByteLevel()
    return tokenizer


def test_word_characters(tmp_path):
    """single_word looks at \\w, which no pre-tokenizer uses."""
    tokenizer = plain()
    tokenizer.add_tokens([AddedToken("@@", single_word=True, normalized=False)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    step = 16 if FULL else 16 * 29  # short texts: `tokenizers` scans what stands before a match again each time
    texts = ["".join(f"@@{chr(c)} {chr(c)}@@ " for c in CODE_POINTS[i : i + 16]) for i in range(0, len(CODE_POINTS), step)]
    for text, answer in zip(texts, ask(tmp_path, [{"text": t, "ids_only": True} for t in texts])):
        assert answer["ids"] == tokenizer.encode(text).ids, ascii(text)
