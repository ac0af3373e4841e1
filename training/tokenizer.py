"""A small byte-level BPE tokenizer in the published Qwen layout.

Merges are learned on bare letter runs only, so an unseen word is cut into the
same pieces after a space, a bracket or a comma: copying it is always the same
token sequence.  Merges (space, word) are then added for the words that the
templates use, and a few punctuation merges.
"""
import json
import random
import re
import sys
from collections import Counter
from pathlib import Path

import lexicon
from words import Words

PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SIZE = 4096
TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


def byte_alphabet():
    """GPT-2's printable stand-ins for the 256 bytes, in byte order."""
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    chars, extra = {}, 0
    for b in range(256):
        if b in keep:
            chars[b] = chr(b)
        else:
            chars[b] = chr(256 + extra)
            extra += 1
    return [chars[b] for b in range(256)]


def learn_letter_merges(counts: Counter, n: int):
    """Plain BPE training over whole words (a few thousand merges, seconds)."""
    seqs = [(list(w), c) for w, c in counts.items()]
    pairs, where = Counter(), {}
    for i, (s, c) in enumerate(seqs):
        for p in zip(s, s[1:]):
            pairs[p] += c
            where.setdefault(p, set()).add(i)
    merges = []
    while len(merges) < n and pairs:
        best = max(pairs, key=lambda p: (pairs[p], p))
        merges.append(best)
        for i in list(where[best]):
            _merge_in(seqs, i, best, pairs, where)
        pairs.pop(best, None)
    return merges


def _merge_in(seqs, i, best, pairs, where):
    s, c = seqs[i]
    for p in zip(s, s[1:]):
        pairs[p] -= c
    out, j = [], 0
    while j < len(s):
        if j + 1 < len(s) and (s[j], s[j + 1]) == best:
            out.append(s[j] + s[j + 1])
            j += 2
        else:
            out.append(s[j])
            j += 1
    seqs[i] = (out, c)
    for p in zip(out, out[1:]):
        pairs[p] += c
        where.setdefault(p, set()).add(i)


def corpus(seed=0) -> Counter:
    counts = Counter()
    w = Words("train")
    for word in w.lower:
        counts[word] += 1
    for word in w.names:
        counts[word] += 1
    for word in lexicon.BARE:
        counts[word] += 40
    for words in lexicon.TOPICS.values():
        for word in words:
            counts[word] += 12
    for word in lexicon.FUNCTION_WORDS:
        counts[word] += 12
    return Counter({k: v for k, v in counts.items() if re.fullmatch("[A-Za-z]+", k)})


def apply_merges(word, ranks):
    s = list(word)
    while len(s) > 1:
        best = min(range(len(s) - 1), key=lambda i: ranks.get((s[i], s[i + 1]), 1 << 30))
        if (s[best], s[best + 1]) not in ranks:
            break
        s[best:best + 2] = [s[best] + s[best + 1]]
    return s


def build():
    vocab = byte_alphabet()
    space, newline = vocab[32], vocab[10]
    merges = [('{', '"'), ('"', '}'), ('"', ':'), (newline, newline), ("(", "*"), ("(*", ")"), ("-", ">"), ("=", "=")]
    spaced = [w for w in lexicon.SPACED if re.fullmatch("[A-Za-z]+", w)]
    spaced_punct = [space + c for c in '=~;>|-&:<!/"\'+']
    room = SIZE - len(SPECIALS) - 256 - len(merges) - len(spaced) - len(spaced_punct)
    letters = learn_letter_merges(corpus(), room)
    # Template words must be one token each before a space can join them.
    ranks = {m: i for i, m in enumerate(letters)}
    whole = [w for w in spaced if len(apply_merges(w, ranks)) == 1]
    merges += letters + [(space, w) for w in whole] + [(space, p[1:]) for p in spaced_punct]
    have = set(vocab)
    for a, b in merges:
        if a + b not in have:
            have.add(a + b)
            vocab.append(a + b)
    return vocab, merges


def save(folder: Path) -> None:
    vocab, merges = build()
    folder.mkdir(parents=True, exist_ok=True)
    added = [{"id": len(vocab) + i, "content": t, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": True} for i, t in enumerate(SPECIALS)]
    data = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}]},
        "post_processor": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
                  "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {t: i for i, t in enumerate(vocab)}, "merges": [list(m) for m in merges]},
    }
    (folder / "tokenizer.json").write_text(json.dumps(data, ensure_ascii=False, indent=1), encoding="utf-8")
    config = {
        "add_bos_token": False, "add_prefix_space": False, "bos_token": None, "chat_template": TEMPLATE,
        "clean_up_tokenization_spaces": False, "eos_token": "<|im_end|>", "errors": "replace",
        "model_max_length": 1024, "pad_token": "<|endoftext|>", "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer", "unk_token": None,
        "added_tokens_decoder": {str(a["id"]): {k: a[k] for k in a if k != "id"} for a in added},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


class Encoder:
    """Turns documents into token ids with a mask over the answers."""

    def __init__(self, folder: Path):
        from tokenizers import Tokenizer
        self.tok = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.end = self.tok.token_to_id("<|im_end|>")
        self.pad = self.tok.token_to_id("<|endoftext|>")

    def ids(self, text):
        return self.tok.encode(text, add_special_tokens=False).ids

    def prompt(self, doc):
        return "".join(f"<|im_start|>{r}\n{t}<|im_end|>\n" for r, t in doc) + "<|im_start|>assistant\n"

    def document(self, doc):
        """(ids, mask): mask marks answer tokens including the end token."""
        ids, mask = [], []
        for role, text in doc:
            head = self.ids(f"<|im_start|>{role}\n")
            body = self.ids(text) + [self.end]
            judged = 1 if role == "assistant" else 0
            ids += head + body
            mask += [0] * len(head) + [judged] * len(body)
            nl = self.ids("\n")
            ids += nl
            mask += [0] * len(nl)
        return ids, mask


if __name__ == "__main__":
    out = Path(sys.argv[1])
    save(out)
    enc = Encoder(out)
    r, w = random.Random(0), Words("test")
    words = [w.word(r) for _ in range(2000)]
    print("tokens", enc.tok.get_vocab_size(), "pieces per unseen word", sum(len(enc.ids(x)) for x in words) / 2000)
