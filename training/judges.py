"""Right or wrong, by running or parsing the answer wherever that is possible."""
import json
import random
import re
import shutil
import sqlite3
import subprocess
import tempfile
from pathlib import Path


# ----------------------------------------------------------------------- sql
DATABASES = 8
_LITERAL = re.compile(r"(\w+) (?:=|!=|<=?|>=?|LIKE|BETWEEN) ('[^']*'|\d+)(?: AND (\d+))?")


def _constants(sql):
    """{column: values that the reference statement compares it with}"""
    out = {}
    for col, value, second in _LITERAL.findall(sql):
        values = out.setdefault(col, [])
        values.append(value.strip("'%") if value[0] == "'" else int(value))
        if second:
            values.append(int(second))
    return out


def _cell(rng, known):
    if rng.random() < 0.08:
        return None
    if not known:
        return rng.randint(1, 9) if rng.random() < 0.5 else rng.randint(1, 9999)
    v = rng.choice(known)
    if isinstance(v, int):
        return rng.choice((v - 1, v, v, v + 1, rng.randint(0, 2 * v + 2), rng.randint(0, 9999)))
    return rng.choice((v, v, v + "x", "x" + v, "q" + v + "z", "other", v[:2]))


def _database(tables, sql, seed):
    rng, known = random.Random(seed), _constants(sql)
    db = sqlite3.connect(":memory:")
    for table, cols in tables.items():
        db.execute(f'CREATE TABLE "{table}" ({", ".join(chr(34) + c + chr(34) for c in cols)})')
        rows = [[_cell(rng, known.get(c)) for c in cols] for _ in range(rng.randint(12, 25))]
        db.executemany(f'INSERT INTO "{table}" VALUES ({",".join("?" * len(cols))})', rows)
    return db


def _deny(action, *rest):
    bad = (sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_PRAGMA, sqlite3.SQLITE_DETACH)
    return sqlite3.SQLITE_DENY if action in bad else sqlite3.SQLITE_OK


def _run_sql(tables, sql, reference, seed):
    db = _database(tables, reference, seed)
    db.set_authorizer(_deny)
    steps = iter(range(2000))
    db.set_progress_handler(lambda: 0 if next(steps, None) is not None else 1, 1000)
    rows = db.execute(sql.strip()).fetchall()
    db.set_progress_handler(None, 0)
    state = [db.execute(f'SELECT * FROM "{t}" ORDER BY rowid').fetchall() for t in tables]
    return rows, state


def judge_sql(c, text):
    for i in range(DATABASES):
        seed = f"{c['id']}/{i}"
        try:
            got = _run_sql(c["tables"], text, c["expected_sql"], seed)
        except (sqlite3.Error, sqlite3.Warning, ValueError):
            return False
        want = _run_sql(c["tables"], c["expected_sql"], c["expected_sql"], seed)
        if got[1] != want[1]:
            return False
        ordered = "ORDER BY" in c["expected_sql"] or "LIMIT" in c["expected_sql"]
        rows = [g if ordered else sorted(g, key=repr) for g in (got[0], want[0])]
        if rows[0] != rows[1]:
            return False
    return True


# --------------------------------------------------------------------- shell
COMMANDS = {"ls", "cat", "head", "tail", "wc", "grep", "cp", "mv", "rm", "mkdir", "touch", "sort", "uniq", "sed", "find",
            "echo", "tac", "tr", "cut", "nl"}
_SAFE = re.compile(r"[A-Za-z0-9_.,*'<>| /-]+")
_SED = re.compile(r"s/[A-Za-z0-9_.]+/[A-Za-z0-9_.]+/g?|\d+p")


def is_safe(command: str) -> bool:
    """Only whitelisted tools, relative paths, no substitution, no way to start anything else."""
    if not _SAFE.fullmatch(command) or ".." in command or re.search(r"(^|[\s'<>|])/", command):
        return False
    if re.search(r"--|-(exec|ok|delete|fprint|fls|files0|o\b)", command):
        return False
    for part in command.split("|"):
        words = part.split()
        if not words or words[0] not in COMMANDS:
            return False
        if words[0] == "sed" and not _SED.fullmatch(" ".join(re.findall(r"'([^']*)'", part))):
            return False
    return True


def _scratch(folder: Path, slots, seed):
    """Files and folders that the request may speak about, with telling contents."""
    rng = random.Random(seed)
    w, v, e = slots["w"], slots["v"], slots["e"]
    lines = [f"{w} one", "zeta,alpha,beta,gamma,delta", f"the {w.upper()} here", f"{v} and {w} and {w}", "9,8,7,6,5", "10,2,3,4,1",
             "zeta,alpha,beta,gamma,delta", "2 tail", "Upper Case", f"{w}s last"]
    lines += [f"row {rng.randint(1, 99)},{rng.randint(1, 9)},x{rng.randint(1, 9)},k,m" for _ in range(40)]
    for name in (slots["f"], slots["h"]):
        rng.shuffle(lines)
        (folder / name).write_text("\n".join(lines) + "\n")
    sub = folder / slots["d"]
    sub.mkdir()
    for i, text in enumerate((f"{w}\n", "nothing\n", f"x {w} y\n")):
        (sub / f"part{i}.{e}").write_text(text)
    (sub / "plain").write_text("plain\n")
    (sub / "deep").mkdir()
    (sub / "deep" / f"low.{e}").write_text("low\n")
    (sub / "deep" / slots["f"]).write_text(f"{w}\n")


def _run_shell(command, slots, seed):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _scratch(folder, slots, seed)
        done = subprocess.run(["sh", "-c", "ulimit -f 64 -t 2; " + command], cwd=folder, capture_output=True, timeout=5,
                              env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"}, stdin=subprocess.DEVNULL)
        tree = {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}
        return done.returncode, done.stdout, tree


def judge_shell(c, text):
    text = text.strip()
    if not is_safe(text):
        return False
    slots = c["slots"]
    if len({slots[k] for k in "fghdx"}) < 5:
        return text == c["expected_shell"]
    try:
        return _run_shell(text, slots, c["id"]) == _run_shell(c["expected_shell"], slots, c["id"])
    except (subprocess.TimeoutExpired, OSError):
        return False


# ---------------------------------------------------------------- text, json
def parse(text):
    """A JSON document; duplicate keys and NaN are refused."""
    def pairs(items):
        if len({k for k, _ in items}) != len(items):
            raise ValueError("duplicate key")
        return dict(items)

    def constant(name):
        raise ValueError(name)
    try:
        return json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    except (ValueError, RecursionError):
        return None


def same(a, b):
    """Equality with types: 1 is not true, 1 is not "1"."""
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


def judge(c, text) -> bool:
    kind = c["judge"]
    if kind.startswith("wrapped-"):
        got = parse(text)
        if not isinstance(got, dict) or list(got) != [c["key"]] or not isinstance(got[c["key"]], str):
            return False
        inner = dict(c, judge=kind[len("wrapped-"):], expected=json.loads(c["expected"])[c["key"]])
        return judge(inner, got[c["key"]])
    if kind == "sql":
        return judge_sql(dict(c, expected_sql=c["expected"]), text)
    if kind == "shell":
        return judge_shell(dict(c, expected_shell=c["expected"]), text)
    if kind == "json":
        got = parse(text)
        return got is not None and same(got, parse(c["expected"]))
    return text.strip() == c["expected"]
