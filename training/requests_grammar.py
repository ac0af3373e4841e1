"""English requests about tables and files, with their exact meaning.

One grammar words the requests; the base answers them in a private notation
(`plan_text`, `op_text`), the experts in SQL or shell.  So the base learns what
is asked and an expert only how its language says it.
"""
from dataclasses import dataclass, field

from lexicon import (COMMON_TABLES, COMPARATIVES, NUMERIC_COLUMNS, SUPERLATIVES, TEXT_COLUMNS)


@dataclass
class Cond:
    col: str
    op: str                  # > >= < <= = != between like_in like_start like_end null notnull
    val: object = None       # int, str or (int, int)
    words: str = ""          # the phrase that stands for the whole condition


@dataclass
class Query:
    kind: str                # select count agg group distinct delete update insert
    table: str
    schema: dict             # table -> [columns]
    cols: list = field(default_factory=list)
    conds: list = field(default_factory=list)
    junction: str = "and"
    order: tuple = None      # (column, descending)
    limit: int = None
    agg: str = None          # avg sum max min
    group: str = None
    sets: list = field(default_factory=list)
    order_words: str = ""
    limit_words: str = ""

    def shape(self) -> str:
        parts = [self.kind]
        if self.cols:
            parts.append("cols" if len(self.cols) > 1 else "col")
        if self.conds:
            parts.append(self.junction.join("c" for _ in self.conds) if len(self.conds) > 1 else "c")
        if any(c.op.startswith("like") for c in self.conds):
            parts.append("like")
        if any(c.op == "between" for c in self.conds):
            parts.append("between")
        if self.order:
            parts.append("order")
        if self.limit:
            parts.append("limit")
        return " ".join(parts)


# Shapes never shown in training (neither to the base nor to an expert).
HELD_OUT_SHAPES = {
    "count corc", "count between", "count c between", "distinct col c order", "select cols c between order",
    "select cols cand c", "select cols candc limit", "select c like order", "agg col candc",
    "select corc order", "delete candc", "select col c order limit", "group col c",
}


# ---------------------------------------------------------------- conditions
GT = ["is greater than", "is above", "is more than", "over", "above", "greater than", "more than", "larger than",
      "bigger than", "higher than", ">", "is over", "exceeds", "is larger than", "is bigger than", "is higher than"]
LT = ["is less than", "is below", "below", "under", "less than", "smaller than", "lower than", "<", "is under",
      "is smaller than", "is lower than"]
GE = ["at least", "is at least", ">=", "greater than or equal to", "is not less than", "not below", "no less than"]
LE = ["at most", "is at most", "<=", "up to", "less than or equal to", "is not more than", "not above", "no more than"]
EQ = ["is", "equals", "equal to", "=", "is equal to", "is exactly", "of"]
NE = ["is not", "!=", "other than", "different from", "not equal to", "is not equal to", "does not equal"]
OPS = {">": GT, "<": LT, ">=": GE, "<=": LE, "=": EQ, "!=": NE}


def number(rng) -> int:
    return rng.choice((rng.randint(1, 99), rng.randint(1, 99), rng.randint(100, 999), rng.randint(1000, 9999)))


def value_word(rng, words) -> str:
    return words.name(rng) if rng.random() < 0.5 else words.word(rng)


def make_cond(rng, words, cols, allow_adjective=True) -> Cond:
    col = rng.choice(cols)
    known = [a for a, (c, _) in COMPARATIVES.items() if c in cols]
    if known and allow_adjective and rng.random() < 0.6:
        adj = rng.choice(known)
        col, up = COMPARATIVES[adj]
        n = number(rng)
        if n == 25:
            n = 26              # the README's question stays unseen
        return Cond(col, ">" if up else "<", n, f"{adj} than {n}")
    textual = col in TEXT_COLUMNS or (col not in NUMERIC_COLUMNS and rng.random() < 0.35)
    if textual:
        return _text_cond(rng, words, col)
    r = rng.random()
    if r < 0.08:
        lo, hi = sorted((number(rng), number(rng)))
        form = rng.choice(("between {} and {}", "is between {} and {}", "from {} to {}", "in the range {} to {}"))
        return Cond(col, "between", (lo, hi), f"{col} {form.format(lo, hi)}")
    if r < 0.13:
        form, op = rng.choice((("no {}", "null"), ("missing {}", "null"), ("empty {}", "null"), ("a {}", "notnull"),
                               ("any {}", "notnull")))
        return Cond(col, op, None, form.format(col))
    op = rng.choice((">", ">", ">", "<", "<", "<", ">=", "<=", "=", "=", "!="))
    n = number(rng)
    if op in (">=", "<=") and rng.random() < 0.3:
        return Cond(col, op, n, f"{col} {n} or " + rng.choice(("more", "higher", "above") if op == ">=" else
                                                             ("less", "lower", "below")))
    return Cond(col, op, n, f"{col} {rng.choice(OPS[op])} {n}")


def _text_cond(rng, words, col) -> Cond:
    v = value_word(rng, words)
    r = rng.random()
    if r < 0.6:
        q = f"'{v}'" if rng.random() < 0.2 else v
        return Cond(col, "=", v, f"{col} {rng.choice(('is', 'equals', 'equal to', '=', 'is', 'of'))} {q}")
    if r < 0.72:
        return Cond(col, "!=", v, f"{col} {rng.choice(NE)} {v}")
    op, forms = rng.choice((("like_in", ("contains", "containing", "including")),
                            ("like_start", ("starts with", "starting with", "begins with")),
                            ("like_end", ("ends with", "ending with", "ending in"))))
    return Cond(col, op, v, f"{col} {rng.choice(forms)} {v}")


def glue_cond(rng, cond: Cond, first: bool) -> str:
    """How a condition joins the noun before it."""
    w = cond.words
    if w.split()[0] in COMPARATIVES:
        return rng.choice(("", "", "", "that are ", "who are ", "which are ")) + w
    if cond.op in ("null", "notnull"):
        return rng.choice(("with ", "that have ", "having ")) + w
    verbal = any(f" {v} " in w for v in ("is", "equals", "exceeds", "contains", "does"))
    link = ("where ", "where the ", "whose ", "with ", "for which ", "where ", "whose ") if verbal else \
        ("with ", "with a ", "having ", "with ", "where ", "that have ")
    return rng.choice(link) + w


def conds_text(rng, q: Query) -> str:
    if not q.conds:
        return ""
    out = glue_cond(rng, q.conds[0], True)
    for c in q.conds[1:]:
        # "older than 3 and with price above 4" / "with a above 3 and b below 4"
        again = glue_cond(rng, c, False) if rng.random() < 0.5 else c.words
        out += f" {q.junction} {again}"
    return " " + out


# -------------------------------------------------------------------- schema
def make_schema(rng, words, plain=False) -> dict:
    """One to three tables.  `plain` keeps to unseen words (for test sets)."""
    schema = {}
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3))):
        common = not plain and rng.random() < 0.3
        table = rng.choice(COMMON_TABLES) if common else words.ident(rng)
        if not plain and not common and rng.random() < 0.4 and not table.endswith("s") and words.own(table + "s"):
            table += "s"
        pool = words.idents(rng, rng.randint(2, 5))
        if not plain:
            for i in range(len(pool)):
                if rng.random() < (0.5 if common else 0.25):
                    pool[i] = rng.choice(NUMERIC_COLUMNS + TEXT_COLUMNS)
        cols = list(dict.fromkeys(pool))
        if rng.random() < 0.4 and not plain:
            cols.insert(0, "id")
        if table in cols or table in schema or cols == ["id", "name", "age"] or len(cols) < 2:
            continue
        schema[table] = cols
    return schema or make_schema(rng, words, plain)


def schema_text(rng, schema: dict) -> str:
    comma = rng.choice((",", ",", ", "))
    parts = [f"{t}({comma.join(c)})" for t, c in schema.items()]
    return rng.choice(("\n", "\n", " ", "; ", ", ")).join(parts)


# ------------------------------------------------------------------- queries
AGG_WORDS = {"avg": ("average", "mean"), "sum": ("total", "sum of the", "sum of"), "max": ("highest", "maximum", "largest",
             "biggest"), "min": ("lowest", "minimum", "smallest")}


def make_query(rng, words, plain=False, adjective=True) -> Query:
    """Draws a meaning.  plain: unseen identifiers only; adjective: allow 'older than'."""
    while True:
        schema = make_schema(rng, words, plain)
        table = rng.choice(list(schema))
        q = _draw(rng, words, table, schema, adjective)
        if q is not None:
            return q


def _draw(rng, words, table, schema, adjective):
    cols = schema[table]
    q = Query("select", table, schema)
    r = rng.random()
    if r < 0.58:
        if rng.random() < 0.55:
            q.cols = rng.sample(cols, min(len(cols), rng.choice((1, 1, 2, 2, 3))))
        n = rng.choice((0, 1, 1, 1, 1, 2))
        _order_limit(rng, q, cols)
    elif r < 0.70:
        q.kind, n = "count", rng.choice((0, 1, 1, 2))
    elif r < 0.79:
        q.kind, q.agg, q.cols, n = "agg", rng.choice(list(AGG_WORDS)), [rng.choice(cols)], rng.choice((0, 1, 1, 2))
    elif r < 0.85:
        q.kind, q.group, n = "group", rng.choice(cols), rng.choice((0, 0, 1))
        if rng.random() < 0.4 and len(cols) > 1:
            q.agg = rng.choice(list(AGG_WORDS))
            q.cols = [rng.choice([c for c in cols if c != q.group])]
    elif r < 0.91:
        q.kind, q.cols, n = "distinct", [rng.choice(cols)], rng.choice((0, 0, 1))
        if rng.random() < 0.25:
            q.order, q.order_words = (q.cols[0], False), ""
    elif r < 0.95:
        q.kind, n = "delete", rng.choice((1, 1, 1, 2))
    elif r < 0.98:
        q.kind, n = "update", rng.choice((0, 1, 1, 1))
        q.sets = [(rng.choice(cols), _new_value(rng, words))]
    else:
        q.kind, n = "insert", 0
        q.sets = [(c, _new_value(rng, words)) for c in rng.sample(cols, rng.randint(1, min(3, len(cols))))]
    if n == 2:
        q.junction = rng.choice(("and", "and", "or"))
    used = set()
    for _ in range(n):
        c = make_cond(rng, words, cols, adjective)
        if c.col in used:
            return None
        used.add(c.col)
        q.conds.append(c)
    if q.kind == "distinct" and q.order:
        q.order_words = _order_phrase(rng, q.order)
    return q


def _new_value(rng, words):
    return number(rng) if rng.random() < 0.5 else value_word(rng, words)


def _order_limit(rng, q, cols):
    r = rng.random()
    sup = [s for s, (c, _) in SUPERLATIVES.items() if c in cols]
    if sup and r < 0.3:
        s = rng.choice(sup)
        c, up = SUPERLATIVES[s]
        q.order, q.limit = (c, up), rng.randint(1, 20)
        q.limit_words, q.order_words = "super", s
        return
    if r < 0.30:
        q.order = (rng.choice(cols), rng.random() < 0.5)
        q.order_words = _order_phrase(rng, q.order)
        if rng.random() < 0.4:
            q.limit = rng.randint(2, 30)
            if q.order[1] and rng.random() < 0.5:
                q.limit_words, q.order_words = "top", f"by {q.order[0]}"
    elif r < 0.40:
        q.limit = rng.randint(2, 50)


def _order_phrase(rng, order) -> str:
    col, down = order
    by = rng.choice(("sorted by", "ordered by", "order by", "sort by", "in order of"))
    if down:
        tail = rng.choice((" descending", " in descending order", " from highest to lowest", ", highest first",
                           " desc", ", largest first", " from high to low"))
    else:
        tail = rng.choice(("", "", " ascending", " in ascending order", " from lowest to highest", ", lowest first",
                           ", smallest first", " from low to high"))
    return f"{by} {col}{tail}"


def listing(rng, items) -> str:
    if len(items) == 1:
        return items[0]
    return ", ".join(items[:-1]) + rng.choice((" and ", " and ", ", ")) + items[-1]


SHOW = ["Find", "Show", "List", "Get", "Give me", "Show me", "Display", "Select", "Return", "Fetch", "Find me",
        "I need", "I want", "Please show", "Look up", "Print", "Tell me", "Please find", "Can you show", "Get me"]


def request_text(rng, q: Query) -> str:
    text = {"select": _say_select, "count": _say_count, "agg": _say_agg, "group": _say_group,
            "distinct": _say_distinct, "delete": _say_delete, "update": _say_update,
            "insert": _say_insert}[q.kind](rng, q)
    return finish(rng, text)


def finish(rng, text: str) -> str:
    text = " ".join(text.split()).replace(" ,", ",")
    r = rng.random()
    if r < 0.25:
        text = text[0].lower() + text[1:]
    if rng.random() < 0.35:
        text += "?" if text.lower().startswith(("which", "what", "how", "who", "can")) else "."
    return text


def noun(rng, q) -> str:
    t = q.table
    return rng.choice((t, t, t, t, f"rows in {t}", f"rows of {t}", f"records from {t}", f"rows from the {t} table",
                       f"entries in {t}", f"records in {t}"))


def _say_select(rng, q):
    conds = conds_text(rng, q)
    limit = ""
    if q.limit_words == "super":
        head = f"{rng.choice(SHOW)} the {q.limit} {q.order_words} "
        body = (f"{q.table}" if not q.cols else f"{q.table} ({listing(rng, q.cols)} only)")
        return head + body + conds
    if q.limit:
        pre = rng.choice(("the first {}", "{}", "first {}", "only {}")) if not q.limit_words else \
            rng.choice(("the top {}", "top {}"))
        limit = pre.format(q.limit) + " "
        if not q.limit_words and rng.random() < 0.3:
            limit, tail = "", rng.choice((", limit {}", " limit {}", ", only the first {}", ", at most {} rows"))
            return _select_body(rng, q, "", conds) + tail.format(q.limit)
    return _select_body(rng, q, limit, conds)


def _select_body(rng, q, limit, conds):
    order = " " + q.order_words if q.order_words else ""
    if not q.cols:
        every = limit or rng.choice(("all ", "all ", "the ", "", "every ", "all the ")) + ""
        if conds and not limit and rng.random() < 0.18:
            return f"Which {q.table} {_bare(rng, q)}" + order if _bare_ok(q) else f"Which {q.table} are there" + conds + order
        return f"{rng.choice(SHOW)} {every}{noun(rng, q)}{conds}{order}"
    what = listing(rng, q.cols)
    det = rng.choice(("the ", "", "the ", "only the ", "just the "))
    if limit:
        return f"{rng.choice(SHOW)} {det}{what} of {limit}{q.table}{conds}{order}"
    of = rng.choice((" of all ", " of ", " from ", " of the ", " for all ", " of every ", " for ", " in "))
    verb = rng.choice(SHOW + ["What is", "What are"])
    return f"{verb} {det}{what}{of}{q.table}{conds}{order}"


def _bare_ok(q):
    return all(c.words.split()[0] in COMPARATIVES or c.op in ("null", "notnull") for c in q.conds)


def _bare(rng, q):
    return f" {q.junction} ".join(("are " if c.op not in ("null", "notnull") else "have ") + c.words for c in q.conds)


def _say_count(rng, q):
    conds = conds_text(rng, q)
    form = rng.choice(("How many {} are there{}", "Count the {}{}", "Count all {}{}", "Number of {}{}", "How many {}{}",
                       "Count {}{}", "Tell me how many {} there are{}", "Give me the number of {}{}",
                       "What is the number of {}{}", "Get the count of {}{}"))
    return form.format(noun(rng, q) if rng.random() < 0.3 else q.table, conds)


def _say_agg(rng, q):
    w = rng.choice(AGG_WORDS[q.agg])
    verb = rng.choice(("What is the", "Find the", "Show the", "Get the", "Give me the", "Compute the", "Tell me the", "the"))
    return f"{verb} {w} {q.cols[0]} {rng.choice(('of', 'of all', 'in', 'for', 'from'))} {q.table}{conds_text(rng, q)}"


def _say_group(rng, q):
    per = rng.choice(("per {}", "for each {}", "by {}", "grouped by {}", "for every {}")).format(q.group)
    conds = conds_text(rng, q)
    if q.agg:
        w = rng.choice(AGG_WORDS[q.agg])
        verb = rng.choice(("Show the", "What is the", "Get the", "Find the", "Give me the"))
        return f"{verb} {w} {q.cols[0]} of {q.table} {per}" + (f" for rows{conds}" if conds else "")
    verb = rng.choice(("Count the {} {}", "Show the number of {} {}", "How many {} {}", "Count {} {}",
                       "Get the count of {} {}"))
    return verb.format(q.table, per) + (f" for rows{conds}" if conds else "")


def _say_distinct(rng, q):
    w = rng.choice(("distinct", "unique", "different"))
    order = " " + q.order_words if q.order_words else ""
    return f"{rng.choice(SHOW)} {rng.choice(('the ', 'all ', 'all the ', ''))}{w} {q.cols[0]} " \
           f"{rng.choice(('of', 'in', 'from', 'values of', 'values in'))} {q.table}{conds_text(rng, q)}{order}"


def _say_delete(rng, q):
    return f"{rng.choice(('Delete', 'Remove', 'Erase', 'Drop', 'Please delete'))} " \
           f"{rng.choice(('all ', 'the ', 'every ', ''))}{noun(rng, q)}{conds_text(rng, q)}"


def _say_update(rng, q):
    c, v = q.sets[0]
    form = rng.choice(("Set {c} to {v} for all {t}{w}", "Set the {c} of {t} to {v}{w}", "Change {c} to {v} in {t}{w}",
                       "Update {t}: set {c} to {v}{w}", "Change the {c} of all {t} to {v}{w}"))
    return form.format(c=c, v=v, t=q.table, w=conds_text(rng, q))


def _say_insert(rng, q):
    form = rng.choice(("Add a row to {t} with {v}", "Insert into {t} {v}", "Add to {t}: {v}", "Insert a row in {t} with {v}",
                       "Create a record in {t} with {v}"))
    link = rng.choice((" ", " = ", " "))
    return form.format(t=q.table, v=listing(rng, [f"{c}{link}{v}" for c, v in q.sets]))


# -------------------------------------------------------------- plan notation
def plan_text(q: Query) -> str:
    """The base's private notation for a table request."""
    head = {"select": "take " + (", ".join(q.cols) or "*"), "count": "tally", "distinct": "each " + "".join(q.cols),
            "agg": f"{q.agg}. " + "".join(q.cols), "group": f"tally" if not q.agg else f"{q.agg}. " + "".join(q.cols),
            "delete": "drop", "update": "put " + ", ".join(f"{c} := {v}" for c, v in q.sets),
            "insert": "new " + ", ".join(f"{c} := {v}" for c, v in q.sets)}[q.kind]
    parts = [head, f"@ {q.table}"]
    if q.group:
        parts.append(f"per {q.group}")
    if q.conds:
        parts.append("if " + (" & " if q.junction == "and" else " | ").join(_plan_cond(c) for c in q.conds))
    if q.order:
        parts.append(f"{'down' if q.order[1] else 'up'} {q.order[0]}")
    if q.limit:
        parts.append(f"keep {q.limit}")
    return " ~ ".join(parts)


def _plan_cond(c: Cond) -> str:
    name = {">": "over", ">=": "min", "<": "under", "<=": "max", "=": "==", "!=": "/=", "like_in": "has",
            "like_start": "heads", "like_end": "tails"}
    if c.op == "between":
        return f"{c.col} in {c.val[0]}..{c.val[1]}"
    if c.op in ("null", "notnull"):
        return f"{c.col} {'void' if c.op == 'null' else 'full'}"
    return f"{c.col} {name[c.op]} {c.val}"


def sql_text(q: Query) -> str:
    where = ""
    if q.conds:
        where = " WHERE " + f" {q.junction.upper()} ".join(_sql_cond(c) for c in q.conds)
    if q.kind == "delete":
        return f"DELETE FROM {q.table}{where};"
    if q.kind == "update":
        c, v = q.sets[0]
        return f"UPDATE {q.table} SET {c} = {_lit(v)}{where};"
    if q.kind == "insert":
        return f"INSERT INTO {q.table} ({', '.join(c for c, _ in q.sets)}) VALUES ({', '.join(_lit(v) for _, v in q.sets)});"
    what = {"select": ", ".join(q.cols) or "*", "count": "COUNT(*)", "distinct": "DISTINCT " + "".join(q.cols),
            "agg": f"{str(q.agg).upper()}({''.join(q.cols)})", "group": ""}[q.kind]
    if q.kind == "group":
        what = f"{q.group}, " + (f"{q.agg.upper()}({q.cols[0]})" if q.agg else "COUNT(*)")
    out = f"SELECT {what} FROM {q.table}{where}"
    if q.group:
        out += f" GROUP BY {q.group}"
    if q.order:
        out += f" ORDER BY {q.order[0]}" + (" DESC" if q.order[1] else "")
    if q.limit:
        out += f" LIMIT {q.limit}"
    return out + ";"


def _lit(v):
    return str(v) if isinstance(v, int) else f"'{v}'"


def _sql_cond(c: Cond) -> str:
    if c.op == "between":
        return f"{c.col} BETWEEN {c.val[0]} AND {c.val[1]}"
    if c.op in ("null", "notnull"):
        return f"{c.col} IS {'NOT ' if c.op == 'notnull' else ''}NULL"
    if c.op.startswith("like"):
        pat = {"like_in": f"%{c.val}%", "like_start": f"{c.val}%", "like_end": f"%{c.val}"}[c.op]
        return f"{c.col} LIKE '{pat}'"
    return f"{c.col} {c.op} {_lit(c.val)}"


# ------------------------------------------------------------- file requests
# name, wordings, the base's notation, the shell command.  {f} {g} files,
# {d} directory, {w} {v} words, {n} number, {e} extension.
FILE_OPS = [
    ("ls", ["list the files in {d}", "show what is in {d}", "list {d}", "show the contents of the folder {d}",
            "what files are in {d}", "list everything in {d}"], "peek {d}", "ls {d}"),
    ("cat", ["print {f}", "show {f}", "show the contents of {f}", "display {f}", "print the file {f}",
             "read {f}", "show me {f}"], "say {f}", "cat {f}"),
    ("head", ["show the first {n} lines of {f}", "print the first {n} lines of {f}", "first {n} lines of {f}",
              "get the top {n} lines of {f}"], "front {n} {f}", "head -n {n} {f}"),
    ("tail", ["show the last {n} lines of {f}", "print the last {n} lines of {f}", "last {n} lines of {f}",
              "get the final {n} lines of {f}"], "rear {n} {f}", "tail -n {n} {f}"),
    ("wcl", ["count the lines in {f}", "how many lines are in {f}", "number of lines in {f}", "count lines of {f}",
             "how many lines does {f} have"], "size.l {f}", "wc -l < {f}"),
    ("wcw", ["count the words in {f}", "how many words are in {f}", "number of words in {f}", "count words of {f}"],
     "size.w {f}", "wc -w < {f}"),
    ("wcc", ["count the bytes in {f}", "how many bytes are in {f}", "number of bytes in {f}"], "size.b {f}", "wc -c < {f}"),
    ("grep", ["find {w} in {f}", "show the lines with {w} in {f}", "find the lines containing {w} in {f}",
              "search for {w} in {f}", "search {f} for {w}", "print lines of {f} that contain {w}"],
     "seek {w} {f}", "grep '{w}' {f}"),
    ("grepi", ["find {w} in {f} ignoring case", "search {f} for {w} in any case", "search for {w} in {f} ignoring case"],
     "seek.i {w} {f}", "grep -i '{w}' {f}"),
    ("grepv", ["show the lines without {w} in {f}", "print lines of {f} that do not contain {w}",
               "show lines of {f} without {w}"], "avoid {w} {f}", "grep -v '{w}' {f}"),
    ("grepc", ["count the lines with {w} in {f}", "how many lines of {f} contain {w}",
               "count lines containing {w} in {f}", "how many lines in {f} have {w}"], "seek.n {w} {f}", "grep -c '{w}' {f}"),
    ("grepr", ["find {w} in all files of {d}", "search the folder {d} for {w}", "search for {w} in every file in {d}",
               "which files in {d} contain {w}"], "seek.d {w} {d}", "grep -rl '{w}' {d}"),
    ("cp", ["copy {f} to {g}", "make a copy of {f} named {g}", "copy the file {f} to {g}", "duplicate {f} as {g}"],
     "twin {f} > {g}", "cp {f} {g}"),
    ("cpd", ["copy {f} into the folder {d}", "copy {f} into {d}", "put a copy of {f} in {d}"], "twin.d {f} > {d}", "cp {f} {d}/"),
    ("mv", ["rename {f} to {g}", "move {f} to {g}", "change the name of {f} to {g}", "rename the file {f} to {g}"],
     "shift {f} > {g}", "mv {f} {g}"),
    ("mvd", ["move {f} into the folder {d}", "move {f} into {d}", "put {f} in the folder {d}"], "shift.d {f} > {d}", "mv {f} {d}/"),
    ("rm", ["delete {f}", "remove {f}", "delete the file {f}", "remove the file {f}", "erase {f}"], "drop {f}", "rm {f}"),
    ("rmr", ["delete the folder {d}", "remove the directory {d}", "delete the folder {d} with everything in it",
             "erase the folder {d}"], "drop.d {d}", "rm -r {d}"),
    ("mkdir", ["create a folder named {x}", "make a directory {x}", "create the folder {x}", "make a new folder {x}",
               "create a directory called {x}"], "build {x}", "mkdir {x}"),
    ("touch", ["create an empty file {g}", "make an empty file named {g}", "create the file {g}", "make a new file {g}"],
     "blank {g}", "touch {g}"),
    ("sort", ["sort {f}", "sort the lines of {f}", "show {f} sorted", "print {f} in order", "sort {f} by line"], "rank {f}", "sort {f}"),
    ("sortr", ["sort {f} in reverse", "sort the lines of {f} in reverse order", "show {f} sorted in reverse",
               "sort {f} descending"], "rank.r {f}", "sort -r {f}"),
    ("sortn", ["sort {f} by number", "sort the numbers in {f}", "sort {f} as numbers"], "rank.n {f}", "sort -n {f}"),
    ("sortu", ["show the unique lines of {f}", "sort {f} without duplicates", "print the distinct lines of {f}",
               "remove duplicate lines from {f}"], "rank.u {f}", "sort -u {f}"),
    ("sorto", ["sort {f} and save it to {g}", "sort {f} into {g}", "save the sorted lines of {f} to {g}"],
     "rank {f} > {g}", "sort {f} > {g}"),
    ("sed", ["replace {w} with {v} in {f}", "print {f} with {w} replaced by {v}", "change {w} to {v} in {f}",
             "show {f} with {v} instead of {w}"], "swap {w} {v} {f}", "sed 's/{w}/{v}/g' {f}"),
    ("sedp", ["show line {n} of {f}", "print line {n} of {f}", "get line number {n} of {f}"], "nth {n} {f}", "sed -n '{n}p' {f}"),
    ("find", ["find all {e} files in {d}", "find files ending with .{e} in {d}", "find the files with extension {e} in {d}",
              "list all .{e} files under {d}"], "hunt {e} {d}", "find {d} -name '*.{e}'"),
    ("findn", ["find the file {f} in {d}", "look for {f} in {d}", "where is {f} in {d}"], "hunt.f {f} {d}", "find {d} -name '{f}'"),
    ("echo", ["write {w} to {g}", "save the word {w} in {g}", "put the word {w} into {g}"], "note {w} > {g}", "echo '{w}' > {g}"),
    ("echoa", ["append {w} to {f}", "add {w} to the end of {f}", "add the line {w} to {f}"], "note.a {w} > {f}", "echo '{w}' >> {f}"),
    ("cat2", ["join {f} and {h} into {g}", "combine {f} and {h} into {g}", "concatenate {f} and {h} to {g}"],
     "fuse {f} {h} > {g}", "cat {f} {h} > {g}"),
    ("lsn", ["count the files in {d}", "how many files are in {d}", "number of files in {d}"], "size.d {d}", "ls {d} | wc -l"),
    ("rev", ["print {f} backwards by line", "show the lines of {f} in reverse", "print the lines of {f} from last to first"],
     "flip {f}", "tac {f}"),
    ("upper", ["print {f} in upper case", "show {f} in capitals", "convert {f} to upper case"], "loud {f}", "tr a-z A-Z < {f}"),
    ("cut", ["show column {n} of {f}", "print field {n} of {f}", "get column {n} of {f} separated by commas"],
     "slice {n} {f}", "cut -d, -f{n} {f}"),
    ("nl", ["number the lines of {f}", "show {f} with line numbers", "print {f} with line numbers"], "index {f}", "nl {f}"),
    ("greph", ["show the first {n} lines with {w} in {f}", "find {w} in {f} and show the first {n} lines",
               "first {n} lines of {f} that contain {w}"], "seek {w} {f} ~ front {n}", "grep '{w}' {f} | head -n {n}"),
    ("sorth", ["sort {f} and show the first {n} lines", "first {n} lines of {f} sorted", "show the first {n} lines of sorted {f}"],
     "rank {f} ~ front {n}", "sort {f} | head -n {n}"),
    ("uwc", ["count the unique lines in {f}", "how many different lines are in {f}", "number of distinct lines in {f}"],
     "rank.u {f} ~ size.l", "sort -u {f} | wc -l"),
    ("greps", ["find {w} in {f} and sort the lines", "show the lines with {w} in {f} sorted", "sort the lines of {f} that contain {w}"],
     "seek {w} {f} ~ rank", "grep '{w}' {f} | sort"),
    ("grepo", ["save the lines with {w} in {f} to {g}", "find {w} in {f} and save it to {g}", "write the lines of {f} that contain {w} to {g}"],
     "seek {w} {f} > {g}", "grep '{w}' {f} > {g}"),
    ("heado", ["save the first {n} lines of {f} to {g}", "write the first {n} lines of {f} to {g}"],
     "front {n} {f} > {g}", "head -n {n} {f} > {g}"),
]
EXTENSIONS = ["txt", "csv", "log", "md", "dat", "cfg", "out", "tmp"]
POLITE = ["", "", "", "", "", "please ", "can you ", "i want to ", "now "]
IMPERATIVE = ("list", "show", "print", "count", "find", "copy", "make", "move", "rename", "delete", "remove", "create",
              "sort", "replace", "search", "get", "put", "write", "save", "append", "add", "join", "combine", "number",
              "erase", "display", "read", "convert", "look", "change", "duplicate", "concatenate")


@dataclass
class FileOp:
    name: str
    slots: dict
    text: str
    plan: str
    command: str


def file_name(rng, words) -> str:
    base = words.word(rng)
    return base + "." + rng.choice(EXTENSIONS) if rng.random() < 0.85 else base


def make_file_op(rng, words) -> FileOp:
    name, wordings, plan, command = rng.choice(FILE_OPS)
    f, g, h = (file_name(rng, words) for _ in range(3))
    slots = {"f": f, "g": g, "h": h, "d": words.word(rng), "x": words.word(rng), "w": value_word(rng, words),
             "v": words.word(rng), "n": rng.randint(2, 30) if name not in ("cut", "sedp") else rng.randint(1, 5),
             "e": rng.choice(EXTENSIONS)}
    wording = rng.choice(wordings)
    if wording.split()[0] in IMPERATIVE:
        wording = rng.choice(POLITE) + wording
    text = wording.format(**slots)
    if rng.random() < 0.6:
        text = text[0].upper() + text[1:]
    question = wording.split()[0] in ("how", "what", "which", "where", "can")
    if rng.random() < 0.3:
        text += "?" if question else "" if text.endswith(tuple(EXTENSIONS)) else "."
    return FileOp(name, slots, text, plan.format(**slots), command.format(**slots))
