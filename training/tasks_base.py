"""The base model's mixture: skills, and a private notation for every answer.

No answer here is SQL, JSON or a shell command.  Each task may carry a format
request on its last line; contents and formats are drawn independently, which
is what lets a content expert and a format expert compose later.
A document is a list of (role, text) messages.
"""
import random

import requests_grammar as rg
from lexicon import OUTPUT_SIGNS, OUTPUT_WORDS, TOPIC_CODES, TOPICS

# name, has a key, result.  {k} key, {x} answer
FORMATS = [
    ("brackets", False, "[{x}]"), ("parens", False, "({x})"), ("quotes", False, '"{x}"'),
    ("line", False, "-- {x} --"), ("stars", False, "* {x} *"), ("set", False, "{{{x}}}"), ("end", False, "{x} !"),
    ("label", True, "{k}: {x}"), ("tag", True, "<{k}>{x}</{k}>"), ("call", True, "{k}({x})"),
    ("note", True, "# {k} # {x}"), ("pair", True, "{k} = {x}"), ("box", True, "[{k}| {x} |]"),
    ("arrow", True, "{k} => {x}"), ("twin", True, "{k} / {x} / {k}"), ("map", True, "{{{k}: {x}}}"),
    ("text", True, '{k} "{x}"'), ("record", True, '<"{k}" = "{x}">'), ("slot", True, '("{k}"; "{x}")'),
]
# The format expert words its request the same way, only the name differs.
KEYED = ["Reply as {f} with key {k}", "Answer as {f} with key {k}", "Reply as a {f} with the key {k}",
         "Return {f} with key {k}", "Give the answer as {f} under the key {k}", "Use {f} with key {k}",
         "as {f}, key {k}", "Put the answer in a {f} object under {k}", "Wrap the answer in {f} with key {k}"]
PLAIN = ["Reply as {f}", "Answer as {f}", "Return {f}", "Use {f}", "Give the answer as {f}", "as {f}"]


def format_line(rng, name, keyed, key) -> str:
    text = rng.choice(KEYED if keyed else PLAIN).format(f=name, k=key)
    return text + ("." if rng.random() < 0.4 else "")


def add_format(rng, words, ask: str, answer: str):
    """Adds a base format to one question and its answer."""
    name, keyed, form = rng.choice(FORMATS)
    key = rng.choice(OUTPUT_KEYS) if rng.random() < 0.15 else words.ident(rng)
    return ask + "\n" + format_line(rng, name, keyed, key), form.format(k=key, x=answer)


OUTPUT_KEYS = ["answer", "result", "value", "text", "output", "query", "command", "label", "data", "reply"]


def chat(rng, words, turns, system=None, fmt=0.4):
    doc = [("system", system)] if system else []
    for ask, answer in turns:
        if rng.random() < fmt:
            ask, answer = add_format(rng, words, ask, answer)
        doc += [("user", ask), ("assistant", answer)]
    return doc


def some(rng, words, n):
    """Words for copying: mostly random, sometimes output words, names, numbers."""
    out = []
    for _ in range(n):
        r = rng.random()
        out.append(words.word(rng) if r < 0.55 else words.name(rng) if r < 0.7 else words.ident(rng) if r < 0.8 else
                   rng.choice(OUTPUT_WORDS) if r < 0.86 else rng.choice(OUTPUT_SIGNS) if r < 0.92 else str(rg.number(rng)) if r < 0.97 else rg.file_name(rng, words))
    return out


def copy(rng, words):
    """Repeats words, names, numbers, file names."""
    turns = []
    for _ in range(rng.randint(1, 4)):
        items = some(rng, words, rng.randint(1, 7))
        text = rng.choice((" ", " ", ", ", "; ", " - ")).join(items)
        turns.append((rng.choice(("Repeat: {}", "Copy {}", "Say {}", "Write: {}", "Repeat after me: {}")).format(text), text))
    return chat(rng, words, turns)


# ------------------------------------------------------- look-up, extraction
LAYOUTS = ["{k}: {v}", "{k} = {v}", "{k} is {v}", "the {k} is {v}", "{k} -> {v}", "{k} {v}", "- {k}: {v}", "{v} ({k})",
           "with {k} {v}", "{k}={v}", "its {k} is {v}", "has {k} {v}"]
JOINS = ["\n", "\n", ", ", "; ", " and ", ". "]


def fact_value(rng, words):
    """(text in the prompt, python value)"""
    r = rng.random()
    if r < 0.28:
        n = rg.number(rng)
        return str(n), n
    if r < 0.40:
        items = words.words(rng, rng.randint(2, 3))
        return ", ".join(items[:-1]) + rng.choice((" and ", " and ", ", ")) + items[-1], items
    if r < 0.48:
        yes = rng.random() < 0.5
        return ("yes" if yes else "no"), yes
    if r < 0.58:
        v = words.word(rng) + " " + words.word(rng)
        return v, v
    v = rg.value_word(rng, words)
    return v, v


def facts(rng, words, lo=2, hi=6):
    keys = words.idents(rng, rng.randint(lo, hi))
    for i in range(len(keys)):
        if rng.random() < 0.15:
            keys[i] = rng.choice(rg.NUMERIC_COLUMNS + rg.TEXT_COLUMNS)
    return {k: fact_value(rng, words) for k in dict.fromkeys(keys)}


def facts_text(rng, table) -> str:
    layout = rng.choice(LAYOUTS)
    has_list = any(isinstance(v, list) for _, v in table.values())
    join = rng.choice(("\n", "; ", ". ") if has_list else JOINS)
    text = join.join(layout.format(k=k, v=t) for k, (t, _) in table.items())
    if join != "\n" and rng.random() < 0.4:
        text = text[0].upper() + text[1:] if rng.random() < 0.5 else text
        text += "."
    return text


def plain_value(v) -> str:
    """The base's notation of a value: a + b for lists, void for missing."""
    if v is None:
        return "void"
    if isinstance(v, bool):
        return "on" if v else "off"
    return " + ".join(v) if isinstance(v, list) else str(v)


def pick_keys(rng, words, table, n):
    keys = rng.sample(list(table), min(n, len(table)))
    if rng.random() < 0.2:
        keys[rng.randrange(len(keys))] = words.ident(rng)
    return keys


def lookup(rng, words):
    """Single and several fields out of facts; the answer notation is ours."""
    table = facts(rng, words)
    turns = []
    for _ in range(rng.randint(1, 5)):
        if rng.random() < 0.45:
            k = pick_keys(rng, words, table, 1)[0]
            ask = rng.choice(("What is {}?", "What is the {}?", "{}?", "Read {}", "Give the {}", "Look up {}")).format(k)
            turns.append((ask, plain_value(table.get(k, (0, None))[1])))
        else:
            keys = pick_keys(rng, words, table, rng.randint(2, 4))
            ask = rng.choice(("Read {}", "Collect {}", "Pick {}", "Give {}", "Note the {}")).format(rg.listing(rng, keys))
            turns.append((ask, " ; ".join(f"{k} == {plain_value(table.get(k, (0, None))[1])}" for k in keys)))
    text = facts_text(rng, table)
    first, answer = turns[0]
    # The text stands before the question, or after it as a body.
    turns[0] = (f"{text}\n{first}" if rng.random() < 0.4 else f"{first}\n\n{text}", answer)
    doc = chat(rng, words, turns[1:])
    if rng.random() < 0.4:
        # As in the engine: the format line belongs to the prompt, the body comes after it.
        if "\n\n" in turns[0][0] and rng.random() < 0.7:
            ask, answer = add_format(rng, words, first, answer)
            turns[0] = (f"{ask}\n\n{text}", answer)
        else:
            turns[0] = add_format(rng, words, turns[0][0], answer)
    return [("user", turns[0][0]), ("assistant", turns[0][1])] + doc


# ------------------------------------------------------- invented languages
def rules(rng, words):
    """Rules given in the prompt, then requests that they translate."""
    verbs = words.words(rng, rng.randint(2, 4))
    made = []
    for v in verbs:
        n = rng.choice((1, 1, 2, 2, 2, 3))
        slots = ["A", "B", "C"][:n]
        links = [rng.choice(("to", "with", "in", "of", "from", "and", "for", words.word(rng))) for _ in slots]
        left = v + " " + slots[0] + "".join(f" {l} {s}" for l, s in zip(links, slots[1:]))
        order = rng.sample(slots, n)
        k = rng.choice((words.word(rng), words.word(rng), words.word(rng).upper()[:6], rng.choice(OUTPUT_WORDS)))
        opn, sep, end = rng.choice((("(", "; ", ")"), (" ", " ", ""), (" [", "|", "]"), (": ", ", ", ";"), (" -", " -", ""),
                                    (" '", "' '", "'"), (" ", " " + words.word(rng) + " ", ""), (" <", "/", ">")))
        made.append((left, k + opn + sep.join(order) + end))
    text = "Rules:\n" + "\n".join(f"{l} -> {r}" for l, r in made)
    turns = []
    for _ in range(rng.randint(3, 6)):
        left, right = rng.choice(made)
        fill = dict(zip("ABC", some(rng, words, 3)))
        turns.append(tuple(_fill(side, fill) for side in (left, right)))
    turns[0] = (text + "\n" + rng.choice(("", "", "Use: ")) + turns[0][0], turns[0][1])
    return chat(rng, words, turns)


def _fill(side, fill):
    import re
    return re.sub(r"(?<![A-Za-z0-9_.])([ABC])(?![A-Za-z0-9_.])", lambda m: fill[m.group(1)], side)


# ------------------------------------------------------------ table requests
def system_schema(rng, words, schema) -> str:
    """The engine's system message; the dialect line is there only sometimes."""
    text = "Schema:\n" + rg.schema_text(rng, schema)
    return f"Dialect: {words.word(rng)}\n{text}" if rng.random() < 0.4 else text


def plan(rng, words):
    """Answers table requests in the private plan notation."""
    while True:
        first = rg.make_query(rng, words)
        if first.shape() not in rg.HELD_OUT_SHAPES:
            break
    queries = [first]
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        q = None
        while q is None or q.shape() in rg.HELD_OUT_SHAPES:
            q = rg._draw(rng, words, rng.choice(list(first.schema)), first.schema, True)
        queries.append(q)
    turns = [(rg.request_text(rng, q), rg.plan_text(q)) for q in queries]
    return chat(rng, words, turns, system_schema(rng, words, first.schema))


def columns(rng, words):
    """Which table holds a column, which columns a table has."""
    schema = {}
    for t in words.idents(rng, rng.randint(2, 4)):
        schema[t] = words.idents(rng, rng.randint(2, 4))
    turns = []
    for _ in range(rng.randint(3, 6)):
        t = rng.choice(list(schema))
        if rng.random() < 0.6:
            turns.append((f"{rng.choice(('Home of', 'Where is', 'Owner of'))} {rng.choice(schema[t])}?", t))
        else:
            turns.append((f"{rng.choice(('Parts of', 'Inside of', 'Members of'))} {t}?", " + ".join(schema[t])))
    return chat(rng, words, turns, system_schema(rng, words, schema))


def files(rng, words):
    """Answers file requests in a private notation."""
    ops = [rg.make_file_op(rng, words) for _ in range(rng.randint(2, 4))]
    return chat(rng, words, [(o.text, o.plan) for o in ops])


# -------------------------------------------------------------------- topics
FRAMES = ["The {0} and the {1} were here.", "We talked about the {0} and the {1}.", "I saw a {0} near the {1}.",
          "She asked for the {0}, then the {1}.", "They need a new {0} for the {1}.", "My {0} was better than your {1}.",
          "He said the {0} is good.", "The {0} came with a {1} today.", "Our {0} will be there tomorrow.",
          "Look at that {0}!", "A {0}, a {1} and a {2}.", "There is no {0} without {1}.", "I read about {0}, {1} and {2}.",
          "The {0} was old but the {1} is new.", "What a {0}!", "Everyone liked the {0} and its {1}."]


def topic_text(rng, pool, n=None) -> str:
    out = []
    for _ in range(n or rng.choice((1, 1, 2, 3))):
        out.append(rng.choice(FRAMES).format(*rng.sample(pool, 3)))
    return " ".join(out)


def topics(rng, words):
    """Gives a private code for the subject of sentences."""
    turns = []
    for _ in range(rng.randint(2, 5)):
        t = rng.choice(list(TOPICS))
        text = topic_text(rng, TOPICS[t], rng.choice((1, 1, 2)))
        ask = rng.choice(("Subject of: {}", "{} Subject?", "Code for: {}", "Subject\n\n{}", "Give the subject code.\n\n{}"))
        turns.append((ask.format(text), TOPIC_CODES[t]))
    return chat(rng, words, turns, fmt=0.25)


def lists(rng, words):
    """Reverses, joins, quotes, counts the items of a list."""
    items = some(rng, words, rng.randint(3, 6))
    asks = [("first of", items[0]), ("last of", items[-1]), ("second of", items[1]), ("reverse", " ".join(items[::-1])),
            ("join with +", " + ".join(items)), ("count", str(len(items))), ("without the first", " ".join(items[1:])),
            ("quote each of", " ".join(f"'{i}'" for i in items)), ("double quote each of", " ".join(f'"{i}"' for i in items)),
            ("chain", " ".join(f"{i};" for i in items)), ("option", " ".join(f"-{i}" for i in items))]
    picked = rng.sample(asks, rng.randint(2, 5))
    turns = [(f"{a}: {' '.join(items)}" if i == 0 else f"{a}: them", ans) for i, (a, ans) in enumerate(picked)]
    return chat(rng, words, turns)


MIXTURE = [(plan, 30), (rules, 10), (lookup, 22), (files, 17), (copy, 6), (topics, 8), (columns, 3), (lists, 4)]
# What the first stage learns last gets more room in a second one.
LATER = [(plan, 25), (rules, 15), (lookup, 22), (files, 7), (copy, 12), (topics, 3), (columns, 7), (lists, 9)]
TASKS = {t.__name__: t for t, _ in MIXTURE}


def document(rng, words, mixture=MIXTURE):
    task = rng.choices([t for t, _ in mixture], [w for _, w in mixture])[0]
    return task(rng, words)


if __name__ == "__main__":
    from words import Words
    r, w = random.Random(3), Words()
    for t in TASKS.values():
        for _ in range(3):
            print(t.__name__, *t(r, w), sep="\n   ")
