"""Keeps what a method was called with while something else runs."""

from collections.abc import Callable
from typing import Any

import pytest


def listen(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, heard: Callable[..., Any]) -> list[Any]:
    """Let a method do as ever, and keep what ``heard`` makes of its arguments."""
    kept, original = [], getattr(owner, name)

    def called(self: Any, *arguments: Any, **named: Any) -> Any:
        kept.append(heard(self, *arguments, **named))
        return original(self, *arguments, **named)

    monkeypatch.setattr(owner, name, called)
    return kept
