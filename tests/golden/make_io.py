"""Makes tests/golden/io: files as the reference implementations write them (safetensors, tarfile, zipfile).

Run by hand: python tests/golden/make_io.py
"""

import gzip
import hashlib
import io
import json
import struct
import tarfile
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save, save_file

OUT = Path(__file__).parent / "io"
DTYPE_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64", torch.bool: "BOOL"}


def number(value: int) -> bytes:
    return struct.pack("<Q", value)


def framed(data: bytes) -> bytes:
    return number(len(data)) + data


def fingerprint(tensors: dict) -> str:
    """The formula of src/io/fingerprint.h, written a second time."""
    digest = hashlib.sha256()
    for name in sorted(tensors, key=lambda name: name.encode()):
        tensor = tensors[name]
        data = tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
        digest.update(framed(name.encode()) + framed(DTYPE_NAMES[tensor.dtype].encode()) + number(tensor.dim()))
        digest.update(b"".join(number(dim) for dim in tensor.shape) + framed(data))
    return digest.hexdigest()


def example_files() -> dict:
    return {"manifest.json": b"{}", "dir/weights.bin": bytes(range(256)) * 20, "empty": b""}


def write_tar(path: Path, format: int) -> None:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=format) as archive:
        for name, data in example_files().items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    path.write_bytes(gzip.compress(plain.getvalue(), mtime=0))


def write_zip(path: Path, compression: int) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in example_files().items():
            archive.writestr(zipfile.ZipInfo(name), data, compression)


def main() -> None:
    OUT.mkdir(exist_ok=True)
    torch.manual_seed(1)
    tensors = {
        "a.weight": torch.randn(3, 5),
        "b": torch.randn(2, 2, 2).to(torch.bfloat16),
        "c": torch.randn(7).to(torch.float16),
        "é.name": torch.arange(4),
        "flag": torch.tensor([True, False]),
        "none": torch.zeros(0, 3),
        "scalar": torch.tensor(2.5),
    }
    save_file(tensors, OUT / "mixed.safetensors", metadata={"format": "pt"})
    expected = {
        "fingerprint": fingerprint(tensors),
        "sums": {name: tensor.double().sum().item() for name, tensor in tensors.items() if tensor.is_floating_point()},
        "shapes": {name: list(tensor.shape) for name, tensor in tensors.items()},
        "dtypes": {name: DTYPE_NAMES[tensor.dtype] for name, tensor in tensors.items()},
    }
    (OUT / "mixed.json").write_text(json.dumps(expected, indent=1) + "\n")
    (OUT / "empty.safetensors").write_bytes(save({}))
    write_tar(OUT / "gnu.tar.gz", tarfile.GNU_FORMAT)
    write_tar(OUT / "pax.tar.gz", tarfile.PAX_FORMAT)
    write_zip(OUT / "deflated.zip", zipfile.ZIP_DEFLATED)
    write_zip(OUT / "stored.zip", zipfile.ZIP_STORED)


if __name__ == "__main__":
    main()
