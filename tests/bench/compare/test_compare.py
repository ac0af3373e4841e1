"""What compare.py does without its peers: refuses on a busy machine, sums up samples, draws."""

import json
import os
import subprocess
import sys
import xml.dom.minidom
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
import compare
from picture import draw


def test_a_busy_machine_is_refused(monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(compare, "machine_seconds", lambda: next(clock) * 10.0)
    monkeypatch.setattr(compare.time, "sleep", lambda _: None)
    runs = []
    with pytest.raises(compare.Busy):
        compare.Sampler(foreign=0.08, tries=3).measure(lambda: runs.append(1), [os.getpid()])
    assert len(runs) == 3


def test_a_quiet_machine_gives_the_sample(monkeypatch):
    monkeypatch.setattr(compare, "machine_seconds", lambda: 5.0)
    monkeypatch.setattr(compare, "process_seconds", lambda _: 0.0)
    sampler = compare.Sampler(foreign=0.08, tries=3)
    assert sampler.measure(lambda: 42, [1, 2]) == 42
    assert sampler.repeated == 0


def test_best_median_and_spread():
    assert compare.summary([10.0, 20.0, 12.0]) == {"best": 20.0, "median": 12.0, "spread": 0.833, "samples": [10.0, 20.0, 12.0]}


def test_each_sample_is_held_against_the_reads_around_it(monkeypatch):
    reads = iter([20.0, 30.0])
    monkeypatch.setattr(compare, "bandwidth", lambda args, repeat: next(reads))
    assert compare.between_reads(None, lambda: "answer") == ("answer", 25.0)
    # 0.4 GB a token: 8, 16 and 10 GB/s of 10, 40 and 20.
    assert compare.share_beside(400_000_000, [20.0, 40.0, 25.0], [10.0, 40.0, 20.0]) == 0.5


def test_the_picture_is_well_formed_and_shows_both():
    side = {"best": 20.0, "median": 12.0, "spread": 0.8, "samples": []}
    row = {"experts": 1, "what": "decode", "tokens": 64, "ours": side, "peer": side, "ratio_of_medians": 1.0}
    alone = {**row, "experts": 3, "peer": None}
    result = {"machine": {"cpu": "<A & B>", "date": "2026-01-01"}, "threads": 2, "model": "m",
              "pairs": [{"ours": "int8", "peer": "llama.cpp q8_0", "rows": [row, alone, {**row, "what": "prefill"}]}]}  # fmt: skip
    text = draw(result)
    xml.dom.minidom.parseString(text)
    assert text.count('fill="#1f6f8b"') == 2 and "llama.cpp q8_0" in text


def test_runs_of_one_machine_are_drawn_as_one(tmp_path):
    side = {"best": 20.0, "median": 12.0, "spread": 0.8, "samples": []}
    files = []
    for weights in ("int8", "int4"):
        row = {"experts": 0, "what": "decode", "tokens": 64, "ours": side, "peer": side, "ratio_of_medians": 1.0}
        result = {"machine": {"cpu": "A", "date": "2026-01-01"}, "threads": 2, "model": "m",
                  "pairs": [{"ours": weights, "peer": "llama.cpp", "rows": [row]}]}  # fmt: skip
        files.append(tmp_path / f"{weights}.json")
        files[-1].write_text(json.dumps(result))
    program = [sys.executable, str(Path(compare.__file__).with_name("picture.py"))]
    text = subprocess.run([*program, *files, "--title", "T & U"], check=True, capture_output=True, text=True).stdout
    xml.dom.minidom.parseString(text)
    assert "int8 | llama.cpp" in text and "int4 | llama.cpp" in text and "T &amp; U" in text
