"""What is shown while a run goes on, on terminals of any width and in files."""

import io
import re

import pytest
from rich.console import Console

from jaxpg.experiment.progress import RunProgress, stage

TITLE = "pmoe_ppo on brax/inverted_double_pendulum"


def shown(file):
    """All that was written, without colours."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", file.getvalue())


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_a_bar_is_whole_whatever_the_width(width):
    file = io.StringIO()
    with RunProgress(TITLE, 100, 0, Console(file=file, force_terminal=True, width=width)) as progress:
        progress.report(37, 1234.5, 123456.0, 100.0)
        progress.report(38, 1234.5, 123456.0, 100.0)
    text = shown(file)
    for words in ("38%", "left", "return 1,234.5", "123,456 steps/s"):
        assert words in text
    assert "…" not in text
    assert TITLE in text


def test_a_stage_is_a_line_in_a_file():
    file = io.StringIO()
    with stage(Console(file=file, width=20), "evaluating 128 episodes for each of 2 seeds"):
        assert file.getvalue() == "evaluating 128 episodes for each of 2 seeds …\n"


def test_a_stage_is_shown_on_a_terminal_while_it_lasts():
    file = io.StringIO()
    with stage(Console(file=file, force_terminal=True, width=60), "drawing the learning curves"):
        pass
    assert "drawing the learning curves …" in shown(file)
    assert file.getvalue().endswith("\x1b[1A\x1b[2K")  # and then its line is cleared
