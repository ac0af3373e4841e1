"""What needs no engine: installed experts, registered models, publishers, measuring, the log."""

from __future__ import annotations

import atexit
import json
from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, Union

from . import _core, _request
from ._progress import Progress, listener

Path = Union[str, "PathLike[str]"]

_SKIP_VERIFY = 1
_FORCE = 2
_LIST_BUNDLED = 1


def _home(home: Path | None) -> bytes | None:
    return None if home is None else _request.path_bytes("home", home)


def _optional(name: str, value: str | None) -> bytes | None:
    return None if value is None else _request.path_bytes(name, value)


def _install_flags(skip_verify: bool, force: bool) -> int:
    return (_SKIP_VERIFY if skip_verify else 0) | (_FORCE if force else 0)


class packages:  # a namespace: expert.packages.install(…)
    """Installed experts. `home`: where they are, by default $EXPERT_HOME or ~/.expert."""

    @staticmethod
    def install(
        source: Path, *, skip_verify: bool = False, force: bool = False, home: Path | None = None
    ) -> dict[str, Any]:
        """Installs a .expert file or a directory; gives its entry of list(). skip_verify takes an unsigned package,
        force replaces the same name and version. SignatureError for an unsigned package."""
        flags = _install_flags(skip_verify, force)
        entry: dict[str, Any] = json.loads(
            _core.package_install(_home(home), _request.path_bytes("source", source), flags)
        )
        return entry

    @staticmethod
    def uninstall(name: str, *, home: Path | None = None) -> None:
        """Removes "sql", "expert-sql" (every version) or "sql@0.3.0"."""
        _core.package_uninstall(_home(home), _request.path_bytes("name", name))

    @staticmethod
    def update(
        name: str, *, skip_verify: bool = False, force: bool = False, home: Path | None = None
    ) -> dict[str, Any]:
        """Not built yet: UnsupportedError."""
        flags = _install_flags(skip_verify, force)
        entry: dict[str, Any] = json.loads(_core.package_update(_home(home), _request.path_bytes("name", name), flags))
        return entry

    @staticmethod
    def list(*, bundled: bool = False, home: Path | None = None) -> list[dict[str, Any]]:
        """[{name, version, base_model, kinds, size_bytes, path, verified, publisher}]; bundled: also the experts that
        come with the library."""
        entries: list[dict[str, Any]] = json.loads(_core.package_list(_home(home), _LIST_BUNDLED if bundled else 0))
        return entries

    @staticmethod
    def info(name_or_path: Path, *, home: Path | None = None) -> dict[str, Any]:
        """The manifest of an installed or bundled expert, a file or a directory, and its entry of list()."""
        entry: dict[str, Any] = json.loads(_core.package_info(_home(home), _request.path_bytes("name", name_or_path)))
        return entry

    @staticmethod
    def verify(name_or_path: Path, *, home: Path | None = None) -> dict[str, Any]:
        """Not built yet: UnsupportedError."""
        entry: dict[str, Any] = json.loads(_core.package_verify(_home(home), _request.path_bytes("name", name_or_path)))
        return entry

    @staticmethod
    def create(directory: Path, output: Path, *, manifest: str | None = None) -> dict[str, Any]:
        """Not built yet: UnsupportedError."""
        source, target = _request.path_bytes("directory", directory), _request.path_bytes("output", output)
        entry: dict[str, Any] = json.loads(_core.package_create(source, _optional("manifest", manifest), target))
        return entry

    @staticmethod
    def sign(file: Path, key: Path) -> None:
        """Not built yet: UnsupportedError."""
        _core.package_sign(_request.path_bytes("file", file), _request.path_bytes("key", key))


class models:
    """Registered base models."""

    @staticmethod
    def add(directory: Path, *, name: str | None = None, home: Path | None = None) -> dict[str, Any]:
        """Registers a Hugging Face directory: {name, path, size_bytes, default}. The first becomes the default."""
        entry: dict[str, Any] = json.loads(
            _core.model_add(_home(home), _request.path_bytes("directory", directory), _optional("name", name))
        )
        return entry

    @staticmethod
    def remove(name: str, *, home: Path | None = None) -> None:
        """Forgets it; the directory stays."""
        _core.model_remove(_home(home), _request.path_bytes("name", name))

    @staticmethod
    def set_default(name: str, *, home: Path | None = None) -> None:
        """The model that Engine() opens."""
        _core.model_set_default(_home(home), _request.path_bytes("name", name))

    @staticmethod
    def list(*, home: Path | None = None) -> list[dict[str, Any]]:
        """[{name, path, size_bytes, default}]"""
        entries: list[dict[str, Any]] = json.loads(_core.model_list(_home(home)))
        return entries


class trust:
    """Publishers whose signatures are believed. Not built yet: UnsupportedError."""

    @staticmethod
    def add(public_key: str, name: str, *, home: Path | None = None) -> None:
        """Believes signatures of `public_key` ("ed25519:" and 64 hexadecimal digits)."""
        _core.trust_add(_home(home), _request.path_bytes("public_key", public_key), _request.path_bytes("name", name))

    @staticmethod
    def remove(name: str, *, home: Path | None = None) -> None:
        """Believes that publisher no longer."""
        _core.trust_remove(_home(home), _request.path_bytes("name", name))

    @staticmethod
    def list(*, home: Path | None = None) -> list[dict[str, Any]]:
        """[{name, public_key}]"""
        entries: list[dict[str, Any]] = json.loads(_core.trust_list(_home(home)))
        return entries


def generate_key(output: Path, *, name: str | None = None) -> dict[str, Any]:
    """Makes a signing key. Not built yet: UnsupportedError."""
    entry: dict[str, Any] = json.loads(
        _core.key_generate(_request.path_bytes("output", output), _optional("name", name))
    )
    return entry


def bench(
    *,
    model: Path | None = None,
    experts: Sequence[int | str] | None = None,
    progress: Progress = None,
    **options: Any,
) -> dict[str, Any]:
    """Measures this machine; minutes on a large model. Options: device, weights, kv, home, prompt_tokens,
    decode_tokens, repeat, threads. progress: a callable that hears 0 … 1, or True for a tqdm bar."""
    named = {"model": None if model is None else str(model), "experts": experts, **options}
    document = _request.json_bytes("options", {key: value for key, value in named.items() if value is not None}, dict)
    with listener(progress, "bench") as heard:
        report: dict[str, Any] = json.loads(_core.bench(document, heard))
    return report


_LEVELS = ("debug", "info", "warning", "error")


def set_log_callback(callback: Callable[[str, str], object] | None, level: str = "info") -> None:
    """`callback(level, message)` hears the library, on whatever thread speaks; None silences it. One receiver per
    process. What it raises goes to sys.unraisablehook."""
    if level not in _LEVELS:
        raise ValueError(f"level is {level!r}, not one of {', '.join(_LEVELS)}")
    if callback is None:
        _core.set_log_callback(None, _LEVELS.index(level))
        return
    if not callable(callback):
        raise TypeError("the callback must be callable or None")
    told = callback
    _core.set_log_callback(lambda number, message: told(_LEVELS[number], message), _LEVELS.index(level))


# No thread of the library may call into an interpreter that has ended.
atexit.register(_core.set_log_callback, None, 0)


def library_info() -> dict[str, Any]:
    """How the library was built: version, compiler, build_type, bundled_model."""
    info: dict[str, Any] = json.loads(_core.library_info())
    return info


def home() -> str:
    """The directory of installed experts and registered models: $EXPERT_HOME, else ~/.expert."""
    return _core.home()
