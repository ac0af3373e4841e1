"""The fingerprint that binds an expert to its base.

SHA-256 over the tensors sorted by name: framed name, framed dtype, rank, shape, byte count, bytes; numbers are
little-endian 64 bit, a frame is a length before its bytes.  The engine computes the same (`src/io/fingerprint.cpp`).
"""
import hashlib
import json
import struct
from pathlib import Path


def base_fingerprint(weights: Path) -> str:
    data = weights.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + length])
    header.pop("__metadata__", None)
    digest = hashlib.sha256()

    def number(value):
        digest.update(struct.pack("<Q", value))

    for name in sorted(header):
        entry = header[name]
        for text in (name.encode(), entry["dtype"].encode()):
            number(len(text))
            digest.update(text)
        number(len(entry["shape"]))
        for size in entry["shape"]:
            number(size)
        first, last = (8 + length + at for at in entry["data_offsets"])
        number(last - first)
        digest.update(data[first:last])
    return digest.hexdigest()
