"""Wave function collapse: patterns by hand, and squares that consist of nothing but the template's windows."""

import numpy as np
import pytest

from jaxpg_envs import cave_levels, wave_function_collapse
from jaxpg_envs.wave_function_collapse import overlapping_model, patterns


def template(text):
    return np.array([list(line) for line in text.split()]) == "#"


def test_patterns_by_hand():
    windows, counts = patterns(template("#.. ... ..."), 2)
    # The wall is in each of four windows, five are empty; with eight symmetries.
    expected = {(0, 0, 0, 0): 40, (1, 0, 0, 0): 8, (0, 1, 0, 0): 8, (0, 0, 1, 0): 8, (0, 0, 0, 1): 8}
    assert {tuple(window.ravel().astype(int)): int(count) for window, count in zip(windows, counts, strict=True)} == expected


def test_patterns_hold_every_symmetry():
    windows, counts = patterns(template("##. ... .#."), 3)
    found = {window.tobytes(): count for window, count in zip(windows, counts, strict=True)}
    for window, count in zip(windows, counts, strict=True):
        for other in (np.rot90(window), window.T, window[::-1]):
            assert found[np.ascontiguousarray(other).tobytes()] == count


@pytest.mark.parametrize("structure", cave_levels._TEMPLATES)
def test_every_window_is_the_templates(structure):
    example = template(cave_levels._TEMPLATES[structure])
    known = {window.tobytes() for window in patterns(example, 3)[0]}
    square = cave_levels._layouts(structure)(np.random.default_rng(0), 11)
    assert (square.shape, square.dtype) == ((11, 11), bool)
    for row in range(9):
        for column in range(9):
            assert np.ascontiguousarray(square[row : row + 3, column : column + 3]).tobytes() in known
    assert 0 < square.mean() < 1


def test_frequencies_are_the_templates():
    """Without constraints: every 2 x 2 window occurs, and a cell alone is a wall as often as in the template."""
    draw = overlapping_model(template("##.#.... #..#.##. ...#..## .#.....# ##..#.#. ..###... .#..#..# ...#.##."), 2)
    rng = np.random.default_rng(0)
    single = np.array([draw(rng, 1)[0, 0] for _ in range(4_000)])
    share = template("##.#.... #..#.##. ...#..## .#.....# ##..#.#. ..###... .#..#..# ...#.##.").mean()
    assert abs(single.mean() - share) < 5 * np.sqrt(share * (1 - share) / 4_000)


def test_the_same_generator_draws_the_same():
    draw = overlapping_model(template("#.. .#. ..."), 2)
    one, two, other = (draw(np.random.default_rng(seed), 9) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()


def test_giving_up(monkeypatch):
    monkeypatch.setattr(wave_function_collapse, "_ATTEMPTS", 0)
    with pytest.raises(RuntimeError, match="no square of 9 cells after 0 attempts"):
        overlapping_model(template("#.. ... ..."), 2)(np.random.default_rng(0), 9)
