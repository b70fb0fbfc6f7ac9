from __future__ import annotations

import io
import sys

import pytest

from tasks.engine.progress import bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    assert list(bar(iter([3, 1, 2]), total=3, title="epoch 1/2")) == [3, 1, 2]
    assert "epoch 1/2" in screen.getvalue()


def test_a_log_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    assert list(bar(iter([3, 1, 2]), total=3, title="epoch 1/2")) == [3, 1, 2]
    assert log.getvalue() == ""
