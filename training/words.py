"""Word supply for the data generators.

The words come from the SCOWL-derived Debian package `wamerican` (notice:
models/NOTICE), filtered here; the list itself is not part of this repository.
A fixed hash splits them into training words and test-only words, so that
"unseen" means unseen.
"""
import codecs
import hashlib
import re
from functools import lru_cache
from pathlib import Path

LIST = Path("/usr/share/dict/american-english")

# Stems that must not appear in a bundled model's data.  They are stored in
# ROT13 so that this file itself stays clean.  Over-blocking is fine.
_RUDE_ROT13 = (
    "shpx fuvg phag penc cvff qvpx pbpx chffl nff nany navy nahf ovgpu onfgneq "
    "juber fyhg ubbxre enc encr avtt avttre snt qlxr fcvp xvxr puvax tbbx jbc "
    "ergneq frk cbea crav crav inti obbo gvg gvgf gheq ghq sneg jnax gjng "
    "qnza uryy anmv yrfo ubzb dhrre cvzc fcrez frzra benf betnf betl rebgv "
    "ahqr ahqvgl cvff cbb cbbc fphz fuvzn negnex xvyy zheqre fhvpvq tnatone "
    "qebja pbpnva urebva bcvhz fyni frkl yhfg ynfpvi zbyrfg crqb crire "
    "onyyf obar obaxrq cebfgvg cervpx cevpx zbtt qnzzvg obyybpx ohttre fpebg "
    "oernfg avccyr trav grfgvp obfbz qhat rkpery hevar hevan cvffbve abbxvr "
    "uhzc fperj fhpx oybj wvfz fzhg zvqtrg fnivntr chav goet ubeal xabpxre "
    "wrj zbfyrz zhfyvz puevfg nyynu wrfhf xbena ovoyr whvtnobb pbba qntb "
    "frkv frkh frkg frkl tlc tlcfl wnc fdhnj rfxvzb cvxre cnxv unys-oerrq zhynggb beny envy"
)
RUDE = tuple(sorted(set(codecs.decode(_RUDE_ROT13, "rot13").split())))
# Short stems would hit innocent words as substrings; they only match whole
# words (with a plural or verb ending).
_ENDINGS = ("", "s", "es", "ed", "er", "ers", "ing", "y", "ies", "ish", "t", "ty", "hole", "wit")


def is_rude(word: str) -> bool:
    w = word.lower()
    for stem in RUDE:
        if len(stem) >= 5 and stem in w:
            return True
        if w.startswith(stem) and w[len(stem):] in _ENDINGS:
            return True
        if len(stem) == 4 and w.startswith(stem) and len(w) <= 8:
            return True
    return False


def word_list() -> list:
    """Plain words and names of 3 to 8 letters out of the system's word list."""
    if not LIST.exists():
        raise SystemExit(f"{LIST} is missing: install the package wamerican")
    lines = LIST.read_text(encoding="utf-8").split("\n")
    return [w for w in lines if re.fullmatch(r"[a-z]{3,8}|[A-Z][a-z]{3,7}", w) and not is_rude(w)]


# The README's question uses this table; neither form may occur in training.
RESERVED = {"users", "user", "Users", "User"}


def bucket(word: str) -> int:
    return hashlib.sha256(("split:" + word.lower()).encode()).digest()[0] % 8


@lru_cache(None)
def _all() -> dict:
    words = word_list()
    lower = [w for w in words if w[0].islower()]
    upper = [w for w in words if w[0].isupper()]
    from lexicon import FUNCTION_WORDS
    common = FUNCTION_WORDS
    out = {"train": [], "test": [], "train_names": [], "test_names": []}
    for w in lower:
        if w in common or w in RESERVED:
            continue
        out["test" if bucket(w) == 0 else "train"].append(w)
    for w in upper:
        if w.lower() in common or w in RESERVED:
            continue
        out["test_names" if bucket(w) == 0 else "train_names"].append(w)
    return out


class Words:
    """Draws words of one split: training words, or words never trained on."""

    def __init__(self, split: str = "train"):
        self.split = split
        self.lower = _all()[split]
        self.names = _all()[split + "_names"]

    def word(self, rng) -> str:
        return rng.choice(self.lower)

    def words(self, rng, n: int) -> list:
        return rng.sample(self.lower, n)

    def name(self, rng) -> str:
        return rng.choice(self.names)

    def own(self, word: str) -> bool:
        """A made-up form is ours unless it is a word of the other split."""
        return bucket(word) != 0 and not is_rude(word) and word not in RESERVED

    def ident(self, rng) -> str:
        """An identifier: one word, sometimes two joined by an underscore."""
        if rng.random() < 0.12:
            first, second = self.word(rng)[:6], self.word(rng)[:5]
            if not is_rude(first) and not is_rude(second):
                return first + "_" + second
        return self.word(rng)

    def idents(self, rng, n: int) -> list:
        out = []
        while len(out) < n:
            w = self.ident(rng)
            if w not in out:
                out.append(w)
        return out
