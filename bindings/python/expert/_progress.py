"""Long calls say how far they are: to a callable, or as a tqdm bar."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Union

Progress = Union[Callable[[float], object], bool, None]
Listener = Callable[[float], object]


@contextlib.contextmanager
def listener(progress: Progress, title: str) -> Iterator[Listener | None]:
    if progress is None or progress is False:
        yield None
    elif progress is True:
        with _bar(title) as bar:
            yield bar
    elif callable(progress):
        yield progress
    else:
        raise TypeError(f"progress must be a callable or a bool, not {type(progress).__name__}")


@contextlib.contextmanager
def _bar(title: str) -> Iterator[Listener]:
    try:
        from tqdm import tqdm
    except ImportError:
        raise ImportError("progress=True needs tqdm: pip install tqdm") from None
    with tqdm(total=100, desc=title, unit="%", bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}") as shown:
        bar: Any = shown

        def update(fraction: float) -> None:
            bar.update(max(0.0, 100 * fraction - bar.n))

        yield update
