"""Takes a rule out of the core, in memory: the proof that the test named for it would see it gone.

A mutant is a piece of a module's source and what stands there instead. The piece must be found, exactly once, so that
no mutant rots unseen. The module is compiled anew, and its functions take the place of the real ones for one test.
"""

from __future__ import annotations

import importlib
import pkgutil
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import raftfast.consensus
from raftfast.hot.log_py import RaftLog

FAILURES = (AssertionError, pytest.fail.Exception)
"""How a test fails. A mutant that crashes otherwise proves nothing."""


class Mutant(NamedTuple):
    """`test` must fail where each `changes[i]`, (module, old text, new text), is made.

    `source` is where the rule stands, where the test's own name does not tell it.
    """

    rule: str
    test: Callable[[type], None]
    changes: Sequence[tuple[str, str, str]]
    source: str = ""


def mutant(rule: str, test: Callable[[type], None], *changes: tuple[str, str, str], source: str = "") -> Any:
    """A case for `@pytest.mark.parametrize("case", …)`."""
    return pytest.param(Mutant(rule, test, changes, source), id=rule)


def given(test: Callable[..., None], *arguments: Any) -> Callable[[type], None]:
    """A test of another signature, as a mutant's."""

    def named(log_class: type) -> None:
        test(*(log_class if argument is type else argument for argument in arguments))

    named.__name__ = test.__name__
    return named


def expect_failure(case: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test holds as things are, and fails without the rule."""
    assert is_killed(case, monkeypatch), f"{case.test.__name__} holds without its rule: {case.rule}"


def is_killed(case: Mutant, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the test, which must hold as things are, fails without the rule."""
    case.test(RaftLog)
    by_module: dict[str, list[tuple[str, str]]] = {}
    for module, old, new in case.changes:
        by_module.setdefault(module, []).append((old, new))
    for module, changes in by_module.items():
        take_out(monkeypatch, module, changes)
    try:
        case.test(RaftLog)
    except FAILURES:
        return True
    return False


def take_out(monkeypatch: pytest.MonkeyPatch, module: str, changes: Sequence[tuple[str, str]]) -> None:
    """Puts the changed source's functions in the place of the real ones."""
    real = importlib.import_module(f"raftfast.consensus.{module}")
    path = Path(str(real.__file__))
    source = path.read_text(encoding="utf-8")
    for old, new in changes:
        assert source.count(old) == 1, f"{path.name} has {source.count(old)} times {old!r}"
        source = source.replace(old, new)
    changed = types.ModuleType(real.__name__)
    changed.__dict__.update({"__package__": real.__package__, "__file__": str(path)})
    exec(compile(source, str(path), "exec", dont_inherit=True), changed.__dict__)
    for name, value in list(vars(changed).items()):
        ours = vars(real).get(name)
        if isinstance(value, type) and value.__module__ == real.__name__ and isinstance(ours, type):
            for attribute, function in vars(value).items():
                if isinstance(function, (types.FunctionType, property, staticmethod)):
                    monkeypatch.setattr(ours, attribute, function)
            setattr(changed, name, ours)  # the functions must know the classes that are in use
        elif isinstance(value, types.FunctionType) and value.__module__ == real.__name__:
            _replace_everywhere(monkeypatch, ours, value)


def _replace_everywhere(monkeypatch: pytest.MonkeyPatch, ours: Any, function: types.FunctionType) -> None:
    for info in pkgutil.iter_modules(raftfast.consensus.__path__):
        module = importlib.import_module(f"raftfast.consensus.{info.name}")
        for name, value in list(vars(module).items()):
            if value is ours:
                monkeypatch.setattr(module, name, function)
