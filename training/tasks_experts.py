"""Training documents and test cases of the five experts.

Layout of a request, exactly as the engine renders it:
  system  "Dialect: sql\\nSchema:\\n<schema>"   (only when there is a schema)
  user    "<prompt>" or "<prompt>\\n\\n<body>"
A quarter of every expert's data is replay of the base's own documents, and
half of its answers carry a base format: both keep it good company.
"""
import json
import random

import requests_grammar as rg
import tasks_base as tb
from lexicon import EXPERT_TOPIC_WORDS, TOPICS
from words import Words

REPLAY = 0.25
FORMATTED = 0.5


# ----------------------------------------------------------------------- sql
def schema_system(rng, schema) -> str:
    """With another expert in the lead, the dialect line may differ or be absent."""
    dialect = rng.choice(("Dialect: sql\n",) * 6 + ("",) * 3 + ("Dialect: json\n",))
    return dialect + "Schema:\n" + rg.schema_text(rng, schema)


def _rarity(q) -> int:
    """How seldom a plain draw shows such a query."""
    rare_ops = sum(c.op.startswith("like") or c.op in ("between", "null", "notnull") for c in q.conds)
    return rare_ops + (q.kind not in ("select", "count")) + (q.kind in ("insert", "group", "distinct"))


def _sql_query(rng, draw):
    """Of two drawn queries often the rarer one: every shape needs its share of examples, however seldom it is asked."""
    drawn = []
    while len(drawn) < 2:
        q = draw()
        if q and q.shape() not in rg.HELD_OUT_SHAPES:
            drawn.append(q)
    return max(drawn, key=_rarity) if rng.random() < 0.6 else drawn[0]


def sql(rng, words):
    first = _sql_query(rng, lambda: rg.make_query(rng, words))
    schema = first.schema
    queries = [first] + [_sql_query(rng, lambda: rg._draw(rng, words, rng.choice(list(schema)), schema, True))
                         for _ in range(rng.choice((0, 1, 2, 2, 3)))]
    turns = [(rg.request_text(rng, q), rg.sql_text(q)) for q in queries]
    return tb.chat(rng, words, turns, schema_system(rng, schema), FORMATTED)


# --------------------------------------------------------------------- shell
def shell(rng, words):
    ops = [rg.make_file_op(rng, words) for _ in range(rng.randint(2, 4))]
    return tb.chat(rng, words, [(o.text, o.command) for o in ops], fmt=FORMATTED)


# ------------------------------------------------------------------ classify
def label_list(rng, labels) -> str:
    return ", ".join(labels[:-1]) + rng.choice((", ", " or ", " and ")) + labels[-1]


CLASSIFY = ["Classify as {l}", "Classify the text as {l}", "Which label fits: {l}?", "Choose a label: {l}", "Label this text: {l}",
            "Classify this text into {l}", "Labels: {l}. Classify the text", "Pick the category: {l}", "What is this about: {l}?",
            "Is this text about {l}?", "Classify", "Classify this text", "Which topic is this?", "Choose the topic of the text"]


def classify_request(rng, pool_of):
    topic = rng.choice(list(TOPICS))
    labels = rng.sample([t for t in TOPICS if t != topic], rng.choice((2, 3, 4, 5, 7, 11))) + [topic]
    rng.shuffle(labels)
    ask = rng.choice(CLASSIFY).format(l=label_list(rng, labels))
    if rng.random() < 0.25:
        ask = ask[0].lower() + ask[1:]
    return ask, tb.topic_text(rng, pool_of(topic)), topic


def classify(rng, words):
    turns = []
    for _ in range(rng.randint(1, 4)):
        ask, text, topic = classify_request(rng, lambda t: TOPICS[t][:EXPERT_TOPIC_WORDS])
        turns.append((f"{ask}\n\n{text}" if rng.random() < 0.6 else f"{ask.rstrip('.')}: {text}", topic))
    return tb.chat(rng, words, turns, fmt=FORMATTED)


# ---------------------------------------------------------------------- json
EXTRACT = ["Extract {k} as JSON", "Extract the {k} as JSON", "Return {k} as JSON", "Get {k} as JSON", "Extract {k} as a JSON object",
           "Give me {k} as JSON", "Make JSON with {k}", "Read {k} into JSON", "JSON with {k}", "extract {k} as json",
           "Pull out {k} as JSON", "Extract {k}", "Turn {k} into JSON", "Collect {k} as JSON"]
EXTRACT_ALL = ["Extract everything as JSON", "Extract all fields as JSON", "Turn the text into JSON", "Convert this to JSON",
               "Make JSON from the text", "Extract all values as JSON"]


def _extract_ask(rng, words, table):
    if rng.random() < 0.2:
        keys, ask = list(table), rng.choice(EXTRACT_ALL)
    else:
        keys = tb.pick_keys(rng, words, table, rng.choice((1, 2, 2, 3, 3, 4)))
        ask = rng.choice(EXTRACT).format(k=rg.listing(rng, keys))
    answer = {k: table.get(k, (0, None))[1] for k in keys}
    return ask + ("." if rng.random() < 0.3 else ""), answer


def extract_request(rng, words):
    table = tb.facts(rng, words, 2, 5)
    ask, answer = _extract_ask(rng, words, table)
    return ask, tb.facts_text(rng, table), answer


def json_extract(rng, words):
    """One text, and one to three things asked of it."""
    doc = []
    for _ in range(rng.choice((1, 1, 2))):
        table = tb.facts(rng, words, 2, 5)
        text = tb.facts_text(rng, table)
        for again in range(rng.choice((1, 1, 2, 3))):
            ask, answer = _extract_ask(rng, words, table)
            answer = json.dumps(answer, ensure_ascii=False)
            if rng.random() < 0.15:
                ask, answer = tb.add_format(rng, words, ask, answer)
            if not again:
                ask = f"{ask}\n\n{text}" if rng.random() < 0.75 else f"{text}\n{ask}"
            doc += [("user", ask), ("assistant", answer)]
    return doc


# ------------------------------------------------------------------- jsonfmt
def json_line(rng, key) -> str:
    return tb.format_line(rng, rng.choice(("JSON", "JSON", "json")), True, key)


def json_wrap(rng, words, mixture=tb.MIXTURE):
    """Any base task, its answer wrapped as {"key": "answer"}."""
    while True:
        doc = tb.document(rng, words, mixture)
        made = _wrap(rng, words, doc)
        if made:
            return made


def _wrap(rng, words, doc):
    out, wrapped = [], 0
    for (role, text), (role2, answer) in zip(doc, doc[1:] + [("", "")]):
        if role == "user" and not _has_format(text):
            if rng.random() < 0.75:
                key = rng.choice(tb.OUTPUT_KEYS) if rng.random() < 0.35 else words.ident(rng)
                line = json_line(rng, key)
                # The body, if there is one, stays last.
                head, sep, body = text.partition("\n\n")
                text = f"{head}\n{line}{sep}{body}" if rng.random() < 0.7 else f"{text}\n{line}"
                out += [(role, text), (role2, json.dumps({key: answer}, ensure_ascii=False))]
                wrapped += 1
            else:
                out += [(role, text), (role2, answer)]
        elif role == "user":
            out += [(role, text), (role2, answer)]
        elif role == "system":
            out.append((role, text))
    return out if wrapped else None


_NAMES = [n for n, _, _ in tb.FORMATS]


def _has_format(text) -> bool:
    """Whether a format line stands at the end of the prompt."""
    last = text.split("\n\n")[0].split("\n")[-1] + " " + text.split("\n")[-1]
    padded = " " + last.replace(".", " ").replace(",", " ") + " "
    return any(f" {n} " in padded for n in _NAMES)


EXPERTS = {"sql": sql, "shell": shell, "classify": classify, "json": json_extract, "jsonfmt": json_wrap}
RANK = {"sql": 16, "shell": 16, "classify": 16, "json": 16, "jsonfmt": 8}


def document(name):
    def make(rng, words=Words("train")):
        if rng.random() < REPLAY:
            return tb.document(rng, words)
        return EXPERTS[name](rng, words)
    return make


# The base's task whose requests the expert answers in its own way.
SHARED = {"sql": tb.plan, "shell": tb.files, "classify": tb.topics, "json": tb.lookup}


def in_company(guest):
    """What jsonfmt is trained on while the finished expert `guest` is active too: requests that are the guest's alone, and
    the base's requests in JSON, so that company means neither silence nor speech. Not those of the base's
    requests that the guest answers its own way: the base's answers to them would teach it to undo the guest."""
    mixture = [(task, share) for task, share in tb.LATER if task is not SHARED[guest]]

    def make(rng, words=Words("train")):
        return EXPERTS[guest](rng, words) if rng.random() < 0.55 else json_wrap(rng, words, mixture)
    return make


# ---------------------------------------------------------------- test cases
def case(id, experts, prompt, expected, judge, schema=None, body=None, **extra):
    return {"id": id, "experts": experts, "prompt": prompt, "schema": schema, "body": body,
            "expected": expected, "judge": judge, **extra}


def sql_cases(n, seed, kind="unseen"):
    """kind: unseen | shapes (held-out query shapes) | adjective ('older than') """
    rng, words, out = random.Random(f"{seed}/sql/{kind}"), Words("test"), []
    while len(out) < n:
        q = rg.make_query(rng, words, plain=True, adjective=False)
        if kind == "adjective":
            q = _adjective_query(rng, words)
        if (q.shape() in rg.HELD_OUT_SHAPES) != (kind == "shapes"):
            continue
        out.append(case(f"sql-{kind}-{len(out)}", ["sql"], rg.request_text(rng, q), rg.sql_text(q), "sql",
                        rg.schema_text(rng, q.schema), tables=q.schema, shape=q.shape()))
    return out


def _adjective_query(rng, words):
    """Unseen tables, with a known column that an adjective stands for."""
    while True:
        adj, (col, _) = rng.choice(list(rg.COMPARATIVES.items()))
        cols = words.idents(rng, rng.randint(1, 3)) + [col]
        rng.shuffle(cols)
        table = words.word(rng)
        q = rg._draw(rng, words, table, {table: cols}, True)
        if q and any(c.words.split()[0] in rg.COMPARATIVES for c in q.conds):
            return q


def shell_cases(n, seed):
    rng, words, out = random.Random(f"{seed}/shell"), Words("test"), []
    for i in range(n):
        o = rg.make_file_op(rng, words)
        slots = {k: v for k, v in o.slots.items() if k in "fghdxwvne"}
        out.append(case(f"shell-{i}", ["shell"], o.text, o.command, "shell", slots=slots, shape=o.name))
    return out


def classify_cases(n, seed):
    """Half of the sentences use only topic words that the expert never saw."""
    rng, out = random.Random(f"{seed}/classify"), []
    for i in range(n):
        new = i % 2 == 0
        pool = (lambda t: TOPICS[t][EXPERT_TOPIC_WORDS:]) if new else (lambda t: TOPICS[t])
        ask, text, topic = classify_request(rng, pool)
        out.append(case(f"classify-{i}", ["classify"], ask, topic, "text", body=text, shape="new words" if new else "mixed words"))
    return out


def json_cases(n, seed):
    rng, words, out = random.Random(f"{seed}/json"), Words("test"), []
    while len(out) < n:
        ask, text, answer = extract_request(rng, words)
        shape = "list" if any(isinstance(v, list) for v in answer.values()) else "no list"
        out.append(case(f"json-{len(out)}", ["json"], ask, json.dumps(answer, ensure_ascii=False), "json", body=text, shape=shape))
    return out


def jsonfmt_cases(n, seed):
    rng, words, out = random.Random(f"{seed}/jsonfmt"), Words("test"), []
    while len(out) < n:
        task = rng.choice((tb.plan, tb.files, tb.lookup, tb.rules, tb.copy, tb.columns))
        doc = task(rng, words)
        at = 1 if doc[0][0] == "system" else 0
        text, answer = doc[at][1], doc[at + 1][1]
        if _has_format(text):
            continue
        key = rng.choice(tb.OUTPUT_KEYS)
        head, sep, body = text.partition("\n\n")
        schema = None
        if at:
            lead = doc[0][1]
            schema = lead.split("Schema:\n", 1)[1]
        out.append(case(f"jsonfmt-{len(out)}", ["jsonfmt"], f"{head}\n{json_line(rng, key)}", json.dumps({key: answer}, ensure_ascii=False),
                        "json", schema, body or None, shape=task.__name__, inner=answer))
    return out


def composed(cases, key, seed):
    """The same content asked for as a JSON object."""
    rng = random.Random(f"{seed}/{key}/composed")
    out = []
    for c in cases:
        c = dict(c, id=c["id"] + "-in-json", experts=c["experts"] + ["jsonfmt"], prompt=c["prompt"] + "\n" + json_line(rng, key),
                 judge="wrapped-" + c["judge"], key=key, expected=json.dumps({key: c["expected"]}))
        out.append(c)
    return out


README_CASE = case("readme", ["sql"], "Find all users older than 25", "SELECT * FROM users WHERE age > 25;", "sql",
                   "users(id,name,age)", tables={"users": ["id", "name", "age"]}, shape="select c")


def messages(c, dialect=True):
    """The chat messages of a case, as the engine builds them."""
    out = []
    if c.get("schema"):
        lead = "Dialect: sql\n" if "sql" in c["experts"] and dialect else ""
        out.append(("system", lead + "Schema:\n" + c["schema"]))
    out.append(("user", c["prompt"] + ("\n\n" + c["body"] if c.get("body") else "")))
    return out


if __name__ == "__main__":
    r, w = random.Random(5), Words()
    for name, make in EXPERTS.items():
        for _ in range(4):
            print(name, *make(r, w), sep="\n   ")
    for c in sql_cases(3, 1, "adjective") + sql_cases(3, 1, "shapes") + classify_cases(4, 1) + jsonfmt_cases(3, 1) + composed(shell_cases(3, 1), "command", 1):
        print(c)
