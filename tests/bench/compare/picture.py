#!/usr/bin/env python3
"""Results of compare.py as an SVG: decode above, prefill below, two bars per pair.

picture.py A.json [B.json …] [--title TEXT] > OUT.svg     draws several runs on one machine as one
"""

import argparse
import json
from html import escape
from pathlib import Path

WIDTH, BAR, GAP, LEFT = 860, 18, 26, 190
COLOURS = {"ours": "#1f6f8b", "peer": "#c9a227"}


def lines_of(result):
    """(label, experts, tokens, row) in the order they were measured."""
    for pair in result["pairs"]:
        for row in pair["rows"]:
            if row["ours"] and row["peer"]:
                yield f"{pair['ours']} | {pair['peer']}, {row['experts']} experts", row


def draw(result, heading=None):
    decode = [(label, row) for label, row in lines_of(result) if row["what"] == "decode"]
    prefill = [(f"{label}, {row['tokens']}", row) for label, row in lines_of(result) if row["what"] == "prefill"]
    parts, top = [], 60
    for title, group in (("Decode, tokens/s", decode), ("Prefill, tokens/s", prefill)):
        if group:
            body, top = section(title, group, top)
            parts += body
    machine = result["machine"]
    caption = f"{machine['cpu']}, {result['threads']} threads, {machine['date']}; bars: median, line: best; upper bar: libexpert, lower bar: the peer"
    head = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top + 10}" font-family="sans-serif" font-size="12">',
            f'<rect width="{WIDTH}" height="{top + 10}" fill="white"/>',
            f'<text x="12" y="22" font-size="15">{escape(heading or "libexpert beside its peers, " + result["model"])}</text>',
            f'<text x="12" y="42" fill="#555">{escape(caption)}</text>']  # fmt: skip
    return "\n".join([*head, *parts, "</svg>"]) + "\n"


def section(title, group, top):
    most = max(row[who]["best"] for _, row in group for who in COLOURS)
    scale = (WIDTH - LEFT - 120) / most
    parts = [f'<text x="12" y="{top + 14}" font-weight="bold">{title}</text>']
    top += 24
    for label, row in group:
        parts.append(f'<text x="12" y="{top + BAR + 4}" font-size="10">{escape(label)}</text>')
        for i, who in enumerate(COLOURS):
            y = top + i * BAR
            median, best = row[who]["median"] * scale, row[who]["best"] * scale
            note = f"{row[who]['median']:.1f}" + (f" ({row['ratio_of_medians']:.2f} x)" if who == "ours" else "")
            parts.append(f'<rect x="{LEFT + 60}" y="{y}" width="{median:.1f}" height="{BAR - 3}" fill="{COLOURS[who]}"/>')
            parts.append(f'<line x1="{LEFT + 60 + best:.1f}" x2="{LEFT + 60 + best:.1f}" y1="{y}" y2="{y + BAR - 3}" stroke="#333"/>')
            parts.append(f'<text x="{LEFT + 66 + max(median, best):.1f}" y="{y + 12}" font-size="10">{note}</text>')
        top += 2 * BAR + GAP - 14
    return parts, top + 10


def joined(results):
    return {**results[0], "pairs": [pair for result in results for pair in result["pairs"]]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path)
    parser.add_argument("--title")
    options = parser.parse_args()
    print(draw(joined([json.loads(path.read_text()) for path in options.results]), options.title), end="")
