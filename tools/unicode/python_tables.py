"""Writes jinja_unicode_tables.h: the character properties and case mappings behind Python's str methods.

    python3 tools/unicode/python_tables.py > src/text/jinja_unicode_tables.h

Everything is asked of Python itself, so that the templates' strings behave as Python's do.
"""

import sys
import unicodedata

CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]


def ranges(predicate):
    out = []
    for c in CODE_POINTS:
        if not predicate(chr(c)):
            continue
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def before_sigma(text):
    return (text + "\u03a3").lower()[-1] == "\u03c2"


PROPERTIES = {
    "kSpace": str.isspace,
    "kAlpha": str.isalpha,
    "kDecimal": str.isdecimal,
    "kDigit": str.isdigit,
    "kNumeric": str.isnumeric,
    "kLower": str.islower,
    "kUpper": str.isupper,
    "kTitle": lambda c: unicodedata.category(c) == "Lt",
    "kPrintable": str.isprintable,
    "kCased": lambda c: before_sigma(c),
    "kCaseIgnorable": lambda c: not before_sigma(c) and before_sigma("a" + c),
}

MAPPINGS = {"kToUpper": str.upper, "kToLower": str.lower, "kToTitle": str.title, "kToFold": str.casefold}


def main():
    write = sys.stdout.write
    write(f"// Written by tools/unicode/python_tables.py from Python's str methods, Unicode {unicodedata.unidata_version}. Do not edit.\n")
    write("#pragma once\n\n#include <array>\n\nnamespace expert::jinja::unicode_tables {\n\n")
    write("// clang-format off\n")
    write("struct Range { char32_t first, last; };\n")
    write("struct Mapping { char32_t from; char32_t to[3]; };  // to: up to three code points, 0 where fewer\n")
    for name, predicate in PROPERTIES.items():
        rows = ranges(predicate)
        write(f"\ninline constexpr Range {name}[] = {{\n")
        for i in range(0, len(rows), 8):
            write("    " + " ".join("{{0x{:x}, 0x{:x}}},".format(*tuple(r)) for r in rows[i : i + 8]) + "\n")
        write("};\n")
    for name, mapping in MAPPINGS.items():
        rows = [(c, mapping(chr(c))) for c in CODE_POINTS if mapping(chr(c)) != chr(c)]
        write(f"\ninline constexpr Mapping {name}[] = {{\n")
        for i in range(0, len(rows), 6):
            cells = []
            for c, text in rows[i : i + 6]:
                to = [ord(x) for x in text] + [0] * (3 - len(text))
                cells.append("{{0x{:x}, {{0x{:x}, 0x{:x}, 0x{:x}}}}},".format(c, *to))
            write("    " + " ".join(cells) + "\n")
        write("};\n")
    write("// clang-format on\n\n}  // namespace expert::jinja::unicode_tables\n")


if __name__ == "__main__":
    main()
