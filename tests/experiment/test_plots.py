import json
import math

import numpy as np
import pytest
from matplotlib.colors import to_hex

from jaxpg.algorithm import InputError
from jaxpg.experiment.plots import COLOURS, plot_learning_curves, read_curves

PNG = b"\x89PNG\r\n\x1a\n"


def write_run(directory, returns, algorithm="ppo", env="CartPole-v1", steps=1000):
    """A run's folder, from (point, seed) returns; NaN is written as null."""
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps({"algorithm": algorithm, "env": env, "config": {}}))
    chunks = [
        {
            "update": index,
            "env_steps": steps * (index + 1),
            "seconds": 0.5 * (index + 1),
            "episode_return": [None if math.isnan(value) else value for value in row],
            "policy_loss": [0.0] * len(row),
        }
        for index, row in enumerate(returns)
    ]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(chunk) + "\n" for chunk in chunks))
    return directory


def thick_lines(axes):
    return [line for line in axes.lines if line.get_linewidth() > 1]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


# --- Reading ------------------------------------------------------------------------------------------------


def test_reads_what_was_written(tmp_path):
    run = read_curves(write_run(tmp_path / "run", [[1.0, math.nan], [3.0, 4.0], [5.0, 6.0]]))
    assert (run.algorithm, run.env, run.directory) == ("ppo", "CartPole-v1", tmp_path / "run")
    np.testing.assert_array_equal(run.env_steps, [1000, 2000, 3000])
    np.testing.assert_array_equal(run.seconds, [0.5, 1.0, 1.5])
    np.testing.assert_array_equal(run.metrics["episode_return"], [[1, 3, 5], [math.nan, 4, 6]])
    assert set(run.metrics) == {"episode_return", "policy_loss"}


def test_a_torn_last_line_is_left_out(tmp_path):
    run = write_run(tmp_path / "run", [[1.0], [2.0]])
    log = run / "metrics.jsonl"
    log.write_text(log.read_text() + '{"env_steps": 3000, "episode_ret')
    np.testing.assert_array_equal(read_curves(run).metrics["episode_return"], [[1, 2]])


def test_a_repeated_chunk_counts_once_and_a_metric_may_be_missing_from_some(tmp_path):
    run = write_run(tmp_path / "run", [[1.0, 1.0], [2.0, 2.0]])
    with (run / "metrics.jsonl").open("a") as log:
        log.write('{"update": 3, "env_steps": 3000, "seconds": 10, "episode_return": [9, 9], "steps_per_second": 5}\n\n')
        log.write('{"update": 2, "env_steps": 2000, "seconds": 9, "episode_return": [7, 8]}\n')
    curves = read_curves(run)
    np.testing.assert_array_equal(curves.env_steps, [1000, 2000, 3000])
    np.testing.assert_array_equal(curves.metrics["episode_return"], [[1, 7, 9], [1, 8, 9]])
    np.testing.assert_array_equal(curves.metrics["policy_loss"], [[0, math.nan, math.nan]] * 2)
    np.testing.assert_array_equal(curves.metrics["steps_per_second"], [[math.nan, math.nan, 5]])


FIRST = '{"update": 1, "env_steps": 1, "x": [1, 2]}'


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("metrics.jsonl", "", "is empty"),
        ("metrics.jsonl", '{"env_steps": 1', "is empty"),  # the only line is torn
        ("metrics.jsonl", f"nonsense\n{FIRST}\n", "damaged at line 1"),
        ("metrics.jsonl", f'{FIRST}\n{{"update": 2, "seconds": 1}}\n', "damaged at line 2"),
        ("metrics.jsonl", f"{FIRST}\n[1, 2]\n", "damaged at line 2"),
        ("metrics.jsonl", f'{FIRST}\n{{"update": true, "env_steps": 2}}\n', "damaged at line 2"),
        ("metrics.jsonl", f'{FIRST}\n{{"update": 2, "env_steps": 2, "x": ["much"]}}\n', "damaged at line 2"),
        ("metrics.jsonl", f'{FIRST}\n{{"update": 2, "env_steps": 2, "x": [NaN]}}\n', "damaged at line 2"),
        ("metrics.jsonl", f"{FIRST}\n{'[' * 10**5}\n", "damaged at line 2"),
        ("metrics.jsonl", f'{FIRST}\n{{"update": 2, "env_steps": 2, "x": [1]}}\n', "one number per seed"),
        ("config.json", "{", "cannot read"),
        ("config.json", '{"algorithm": "ppo"}', "damaged"),
        ("config.json", '{"algorithm": "ppo", "env": "CartPole-v1", "seed": {}}', "a number as 'seed'"),
    ],
)
def test_damaged_files_are_named(tmp_path, file, content, message):
    run = write_run(tmp_path / "run", [[1.0]])
    (run / file).write_text(content)
    with pytest.raises(InputError, match=f"{file}.*{message}|{message}.*{file}"):
        read_curves(run)


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere.*no such folder"):
        read_curves(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no run in .*config\.json"):
        read_curves(tmp_path)
    (write_run(tmp_path / "run", [[1.0]]) / "metrics.jsonl").unlink()
    with pytest.raises(InputError, match=r"metrics\.jsonl is missing"):
        read_curves(tmp_path / "run")


# --- Drawing ------------------------------------------------------------------------------------------------


def test_the_curve_is_the_interquartile_mean_by_hand(tmp_path):
    returns = [[math.nan] * 4, [0.0, 10.0, 20.0, 1000.0], [math.nan, 1.0, 2.0, 6.0], [5.0, 5.0, 5.0, 5.0]]
    figure = plot_learning_curves(write_run(tmp_path / "run", returns), tmp_path / "new" / "curve.png")
    assert (tmp_path / "new" / "curve.png").read_bytes().startswith(PNG)
    assert figure._repr_png_().startswith(PNG)
    (axes,) = figure.axes
    (line,) = thick_lines(axes)
    np.testing.assert_array_equal(line.get_xdata(), [2000, 3000, 4000])  # no seed has a value at the first point
    np.testing.assert_allclose(line.get_ydata(), [15.0, 3.0, 5.0])
    seeds = [line for line in axes.lines if line.get_linewidth() < 1]
    assert [list(line.get_ydata()) for line in seeds] == [[0, 5], [10, 1, 5], [20, 2, 5], [1000, 6, 5]]
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() >= 0
    assert band[:, 1].max() <= 1000
    assert (axes.get_title("left"), axes.get_xlabel()) == ("CartPole-v1", "environment steps")
    assert axes.get_ylabel() == "episode return"
    assert legend(figure) == ["ppo (4 seeds)"]
    assert axes.xaxis.get_major_formatter()(1_500_000) == "1.5M"


def test_runs_in_one_environment_share_axes_and_an_algorithm_keeps_its_colour(tmp_path):
    runs = [
        write_run(tmp_path / "a", [[1.0, 2.0], [2.0, 3.0]]),
        write_run(tmp_path / "b", [[4.0], [5.0]], algorithm="a2c"),
        write_run(tmp_path / "c", [[4.0] * 3, [5.0] * 3], env="brax/hopper"),
    ]
    figure = plot_learning_curves(runs)
    assert [axes.get_title("left") for axes in figure.axes] == ["CartPole-v1", "brax/hopper"]
    colours = [[to_hex(line.get_color()).upper() for line in thick_lines(axes)] for axes in figure.axes]
    assert colours == [[COLOURS[0], COLOURS[1]], [COLOURS[0]]]
    assert legend(figure) == ["ppo (2 to 3 seeds)", "a2c (1 seed)"]


def test_runs_that_look_alike_are_told_apart_by_their_folders(tmp_path):
    alike = [write_run(tmp_path / name, [[1.0]]) for name in ("first", "second")]
    assert legend(plot_learning_curves(alike)) == ["ppo · first (1 seed)", "ppo · second (1 seed)"]
    deeper = [write_run(tmp_path / name / "run", [[1.0]]) for name in ("third", "fourth")]
    expected = [f"ppo · {directory} (1 seed)" for directory in deeper]
    assert legend(plot_learning_curves(deeper)) == expected


def test_the_legend_of_many_runs_fits_the_picture(tmp_path):
    runs = [write_run(tmp_path / f"a-run-of-{number}-experiments", [[1.0, 2.0]]) for number in range(6)]
    figure = plot_learning_curves(runs, tmp_path / "curves.png")
    box = figure.legends[0].get_window_extent()
    assert len(legend(figure)) == 6
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width


def test_a_run_in_which_no_episode_has_ended_is_drawn_and_said(tmp_path):
    figure = plot_learning_curves(write_run(tmp_path / "run", [[math.nan] * 2] * 3), tmp_path / "curve.png")
    assert legend(figure) == ["ppo (no values yet)"]


def test_what_cannot_be_drawn_is_said(tmp_path):
    run = write_run(tmp_path / "run", [[1.0]])
    with pytest.raises(InputError, match=r"'episode_returns'.*did you mean 'episode_return'"):
        plot_learning_curves(run, metric="episode_returns")
    with pytest.raises(InputError, match=r"'pgn'.*did you mean 'png'"):
        plot_learning_curves(run, tmp_path / "curve.pgn")
    with pytest.raises(InputError, match="at least one"):
        plot_learning_curves([])
    with pytest.raises(InputError, match="cannot write"):
        plot_learning_curves(run, run / "config.json" / "curve.png")
