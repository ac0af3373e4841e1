"""Writes src/text/unicode_tables.inc: the character classes and the NFC data that Hugging Face `tokenizers` uses.

The tables are read out of `tokenizers` itself, because being equal to it is their only purpose: its regular expressions
follow Unicode 16.0, its NFC an older version. tests/oracle/test_tokenizer.py compares every code point again.

    python tools/unicode/generate_tables.py > src/text/unicode_tables.inc        (needs tokenizers; about a minute)
"""

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
LETTER, NUMBER, SPACE, WORD, DIGIT, PUNCTUATION = 1, 2, 4, 8, 16, 32
BLOCK = 256
HANGUL = range(0xAC00, 0xD7A4)  # composed by rule, not by table


def chunks(items, size):
    return (items[i : i + size] for i in range(0, len(items), size))


def members(pattern):
    """Code points that match a one-character regular expression in a Split pre-tokenizer."""
    split = pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True)
    found = set()
    for part in chunks(CODE_POINTS, 4096):
        for piece, _ in split.pre_tokenize_str("".join(map(chr, part))):
            found.update(map(ord, piece))
    return found


def word_members():
    """Code points that count as a word's part for added tokens with single_word=True (\\w of Rust's regex crate)."""
    tokenizer = Tokenizer(models.BPE(vocab={}, merges=[]))
    tokenizer.add_tokens([AddedToken("@@", single_word=True, normalized=False)])
    return {c for c in CODE_POINTS if c != 0x40 and not tokenizer.encode("@@" + chr(c)).ids}


def digit_members():
    """Numbers of the Digits pre-tokenizer: those of Rust's standard library, newer than those of the expressions."""
    digits = pre_tokenizers.Digits(individual_digits=True)
    return {c for c in CODE_POINTS if len(digits.pre_tokenize_str("a" + chr(c))) == 2}


def punctuation_members():
    """What the Punctuation pre-tokenizer takes for it: an older Unicode than that of the expressions."""
    punctuation = pre_tokenizers.Punctuation("isolated")
    return {c for c in CODE_POINTS if len(punctuation.pre_tokenize_str("a" + chr(c))) == 2}


def class_blocks():
    """Class sets as (distinct sets, block index, blocks of indices into the sets)."""
    flags = [0] * 0x110000
    for bit, found in [
        (LETTER, members(r"\p{L}")),
        (NUMBER, members(r"\p{N}")),
        (SPACE, members(r"\s")),
        (WORD, word_members()),
        (DIGIT, digit_members()),
        (PUNCTUATION, punctuation_members()),
    ]:
        for c in found:
            flags[c] |= bit
    sets = sorted(set(flags))
    assert len(sets) <= 16  # an index into them is stored in four bits
    return sets, *two_stage([sets.index(f) for f in flags])


CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co Cn".split()


def category_ranges():
    """(first code point, general category) of every run; surrogates, which no text holds, join their neighbours."""
    categories = {c: number for number, name in enumerate(CATEGORIES) for c in members(rf"\p{{{name}}}")}
    assert len(categories) == len(CODE_POINTS)
    return [(c, categories[c]) for i, c in enumerate(CODE_POINTS) if i == 0 or categories[c] != categories[CODE_POINTS[i - 1]]]


def two_stage(values):
    index, blocks, seen = [], [], {}
    for block in map(tuple, chunks(values, BLOCK)):
        if block not in seen:
            seen[block] = len(blocks)
            blocks.append(block)
        index.append(seen[block])
    return index, blocks


def combining_classes(nfd):
    """ccc of every code point, found by whether two marks change places: they do if 0 < ccc(second) < ccc(first)."""

    def swaps(a, b):
        return a != b and nfd(chr(a) + chr(b)) == chr(b) + chr(a)

    # One mark per class; the order of the classes is all that normalisation needs, so classes are numbered 1, 2, ….
    candidates = [c for c in CODE_POINTS if nfd(chr(c)) == chr(c) and (swaps(c, 0x334) or swaps(0x345, c))]
    candidates += [0x334, 0x345]
    representatives = []
    for c in candidates:
        if not any(not swaps(c, r) and not swaps(r, c) for r in representatives):
            representatives.append(c)
    representatives = sorted(representatives, key=lambda r: sum(swaps(r, other) for other in representatives))
    classes = {}
    for c in candidates:
        for number, r in enumerate(representatives, 1):
            if not swaps(c, r) and not swaps(r, c):
                classes[c] = number
    return classes


def normalization():
    nfc, nfd = normalizers.NFC().normalize_str, normalizers.NFD().normalize_str
    classes = combining_classes(nfd)
    decompositions, compositions = {}, {}
    for c in CODE_POINTS:
        full = nfd(chr(c))
        if full == chr(c) or c in HANGUL:
            continue
        decompositions[c] = [ord(x) for x in full]
        if len(full) > 1 and nfc(full) == chr(c):
            first = nfc(full[:-1])
            assert len(first) == 1 and nfc(first + full[-1]) == chr(c), hex(c)
            compositions[(ord(first), ord(full[-1]))] = c
    return classes, decompositions, compositions


def emit(declaration, values, form="{}"):
    print(f"constexpr {declaration} = {{")
    line = "   "
    for value in values:
        item = " " + form.format(value) + ","
        if len(line) + len(item) > 118:
            print(line)
            line = "   "
        line += item
    print(line + "\n};\n")


def main():
    sets, index, blocks = class_blocks()
    starts = category_ranges()
    classes, decompositions, compositions = normalization()
    print(f"// Generated by tools/unicode/generate_tables.py from tokenizers {tokenizers.__version__}; do not edit.")
    print("// clang-format off\n")
    emit(f"uint8_t kClassSets[{len(sets)}]", sets)
    emit(f"uint8_t kClassIndex[{len(index)}]", index)
    nibbles = [low | high << 4 for block in blocks for low, high in chunks(block, 2)]
    emit(f"uint8_t kClassBlocks[{len(nibbles)}]", nibbles, "0x{:02x}")

    emit(f"CategoryRange kCategories[{len(starts)}]", (f"{{0x{a:x}, {n}}}" for a, n in starts))

    ranges = []  # runs of one combining class
    for c in sorted(classes):
        if ranges and ranges[-1][1] + 1 == c and ranges[-1][2] == classes[c]:
            ranges[-1][1] = c
        else:
            ranges.append([c, c, classes[c]])
    emit(f"CombiningRange kCombining[{len(ranges)}]", (f"{{0x{a:x}, 0x{b:x}, {n}}}" for a, b, n in ranges))

    pool, entries = [], []
    for c, parts in sorted(decompositions.items()):
        entries.append(f"{{0x{c:x}, {len(pool)}, {len(parts)}}}")
        pool += parts
    emit(f"char32_t kDecompositionPool[{len(pool)}]", pool, "0x{:x}")
    emit(f"Decomposition kDecompositions[{len(entries)}]", entries)
    pairs = [f"{{0x{a:x}, 0x{b:x}, 0x{c:x}}}" for (a, b), c in sorted(compositions.items())]
    emit(f"Composition kCompositions[{len(pairs)}]", pairs)
    print("// clang-format on")


if __name__ == "__main__":
    main()
