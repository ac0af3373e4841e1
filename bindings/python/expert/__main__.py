"""`python -m expert …` runs expert-cli: the one in this package, else the one on PATH."""

import os
import shutil
import sys
from pathlib import Path


def main() -> None:
    inside = Path(__file__).resolve().parent / "bin" / "expert-cli"
    program = str(inside) if inside.exists() else shutil.which("expert-cli")
    if program is None:
        print(
            "error: expert-cli was not found\n  hint: install the package, or put expert-cli on PATH", file=sys.stderr
        )
        sys.exit(3)
    os.execv(program, [program, *sys.argv[1:]])


if __name__ == "__main__":
    main()
