"""The tour of discovery runs, and says what it is there to show."""

from __future__ import annotations

import pytest


@pytest.mark.slow
def test_the_tour_runs(capsys: pytest.CaptureFixture[str]) -> None:
    from examples.discover import main

    main()
    shown = capsys.readouterr().out
    assert "clamp -1: complies 0%" in shown
    assert "the error term 0%" in shown
    assert "0.attention restores 100% of the refusal" in shown
