"""docs/peft-cases.md names tests of ours: every one of them exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "docs" / "peft-cases.md"


def short_names():
    text = TABLE.read_text()
    return dict(re.findall(r"\*\*(\w+)\*\*(?: is)?\s+`(tests/[^`]+)`", text))


def named_tests():
    """(file, test) of every `test` behind a file or its short name, in the right-hand column."""
    names = short_names()
    for line in TABLE.read_text().splitlines():
        if not line.startswith("|") or line.count("|") < 3:
            continue
        here = line.strip("|").rsplit("|", 1)[-1]
        for where, tests in re.findall(r"(?:^|[\s;(])(\w+|`tests/[^`]+`): ((?:`[^`]+`(?: \([^)]*\))?(?:, )?)+)", here):
            file = names.get(where, where.strip("`"))
            for test in re.findall(r"`([^`]+)`", tests):
                yield file, test


def test_the_table_names_many_tests():
    assert len(short_names()) == 7
    assert len(list(named_tests())) > 60


@pytest.mark.parametrize("file, test", sorted(set(named_tests())))
def test_exists(file, test):
    source = (ROOT / file).read_text()
    if file.endswith(".py"):
        assert re.search(rf"^def {re.escape(test)}\(", source, re.M)
    else:
        assert f'TEST_CASE("{test}")' in source
