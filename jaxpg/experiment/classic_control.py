"""Films of classic control: the cart and its pole, the pendulum, the car in the valley, the two-link arm."""

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import PyTree
from matplotlib.axes import Axes

from jaxpg.experiment.behaviour import TIME, Episode
from jaxpg.experiment.plots import INK, Picture

NUM_FRAMES = 10
GREY = "#9A9A9A"


class Scene(NamedTuple):
    """What one system looks like.

    Attributes:
      draw: `(axes, state, colour, alpha)`, one moment; lengths in the task's units.
      surroundings: `(axes)`, what stands still.
      limits: left, right, bottom, top.
      dt: seconds of a step; None where the task has no seconds.
    """

    draw: Callable[[Axes, Any, Any, float], None]
    surroundings: Callable[[Axes], None]
    limits: tuple[float, float, float, float]
    dt: float | None


def find_scene(states: PyTree, params: PyTree) -> Scene | None:
    """How to draw these states, stacked or one, of a gymnax environment; None for anything else."""
    known: dict[str, tuple[set[str], Callable[[Any], Scene]]] = {
        "cart and pole": ({"x", "theta", "theta_dot"}, _cart_and_pole),
        "pendulum": ({"theta", "theta_dot", "last_u"}, _pendulum),
        "two-link arm": ({"joint_angle1", "joint_angle2"}, _two_link_arm),
    }
    for fields, scene in known.values():
        if all(hasattr(states, field) for field in fields):
            return scene(params)
    is_car = all(hasattr(params, name) for name in ("min_position", "max_position", "goal_position"))
    return _car(params) if is_car and hasattr(states, "position") else None


def _rod(axes: Axes, points: list[tuple[Any, Any]], colour: Any, alpha: float) -> None:
    x, y = zip(*points, strict=True)
    axes.plot(x, y, color=colour, alpha=alpha, linewidth=5, solid_capstyle="round")
    axes.plot(x[:-1], y[:-1], "o", color=INK, alpha=alpha, markersize=4)


def _cart_and_pole(params: Any) -> Scene:
    track, length = float(params.x_threshold), 2 * float(params.length)

    def draw(axes: Axes, state: Any, colour: Any, alpha: float) -> None:
        x, angle = float(state.x), float(state.theta)
        axes.plot([x - 0.25, x + 0.25], [0, 0], color=INK, alpha=alpha, linewidth=8, solid_capstyle="butt")
        _rod(axes, [(x, 0.0), (x + length * np.sin(angle), length * np.cos(angle))], colour, alpha)

    def surroundings(axes: Axes) -> None:
        axes.plot([-track, track], [-0.12, -0.12], color=GREY, linewidth=1)
        axes.plot([-track, track], [-0.12, -0.12], "|", color=GREY, markersize=8)  # beyond these it has failed

    return Scene(draw, surroundings, (-track - 0.6, track + 0.6, -0.5, length + 0.4), float(params.tau))


def _pendulum(params: Any) -> Scene:
    length = float(params.l)

    def draw(axes: Axes, state: Any, colour: Any, alpha: float) -> None:
        angle = float(state.theta)  # 0 is upright
        _rod(axes, [(0.0, 0.0), (-length * np.sin(angle), length * np.cos(angle))], colour, alpha)

    reach = 1.2 * length
    return Scene(draw, lambda axes: None, (-reach, reach, -reach, reach), float(params.dt))


def _two_link_arm(params: Any) -> Scene:
    def draw(axes: Axes, state: Any, colour: Any, alpha: float) -> None:
        first, second = float(state.joint_angle1), float(state.joint_angle1 + state.joint_angle2)  # 0 hangs
        elbow = (np.sin(first), -np.cos(first))
        _rod(axes, [(0.0, 0.0), elbow, (elbow[0] + np.sin(second), elbow[1] - np.cos(second))], colour, alpha)

    def surroundings(axes: Axes) -> None:
        axes.axhline(1.0, color=GREY, linewidth=1)  # which the tip has to pass

    return Scene(draw, surroundings, (-2.2, 2.2, -2.2, 2.2), float(getattr(params, "dt", 0.2)))


def _car(params: Any) -> Scene:
    def height(x: Any) -> Any:
        return np.sin(3 * x)

    def draw(axes: Axes, state: Any, colour: Any, alpha: float) -> None:
        x = float(state.position)
        axes.plot([x], [height(x) + 0.08], "o", color=colour, alpha=alpha, markersize=9)

    def surroundings(axes: Axes) -> None:
        x, goal = np.linspace(float(params.min_position), float(params.max_position), 80), float(params.goal_position)
        axes.plot(x, height(x), color=GREY, linewidth=1)
        axes.plot([goal, goal], [height(goal), height(goal) + 0.4], color=INK, linewidth=1)
        axes.plot([goal], [height(goal) + 0.4], ">", color="#D55E00", markersize=6)

    return Scene(draw, surroundings, (float(params.min_position), float(params.max_position) + 0.1, -1.2, 1.6), None)


def plot_film(
    episodes: Mapping[str, Episode], scene: Scene, path: str | os.PathLike | None = None, caption: str = ""
) -> Picture:
    """Draws each episode as a row of moments at equal distances in time, coloured from start to end, with pale ones before.

    Args:
      episodes: label of the row -> episode.
      path: where to write the picture; None writes nothing.
      caption: what stands above.
    """
    left, right, bottom, top = scene.limits
    width = 13.0 / NUM_FRAMES
    height = width * (top - bottom) / (right - left)
    figure = Picture(figsize=(13.3, len(episodes) * (height + 0.7) + 0.3 * bool(caption)), layout="constrained")
    grid = figure.subplots(len(episodes), NUM_FRAMES, squeeze=False)
    for strip, (label, episode) in zip(grid, episodes.items(), strict=True):
        times = np.linspace(0, episode.length - 1, NUM_FRAMES).round().astype(int).tolist()
        for axes, time in zip(strip, times, strict=True):
            scene.surroundings(axes)
            for before, alpha in ((6, 0.1), (4, 0.15), (2, 0.25), (0, 1.0)):
                if time >= before:
                    moment = _Moment(episode.states, time - before)
                    scene.draw(axes, moment, TIME((time - before) / max(episode.length - 1, 1)), alpha)
            axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal", xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            axes.set_facecolor("#F7F7F7")
            clock = f"step {time}" if scene.dt is None else f"{time * scene.dt:.3g} s"
            axes.set_xlabel(clock, fontsize=8, color=INK, labelpad=3)
        strip[0].set_title(label, loc="left", fontsize=11, weight="bold", color=INK)
        length = f"{episode.length} steps" + ("" if episode.ended else " (not ended)")
        strip[-1].set_title(f"return {episode.rewards.sum():.4g} in {length}", loc="right", fontsize=9, color="#666666")
    figure.caption(caption)
    figure.save(path)
    return figure


class _Moment:
    """The state at one time: attributes are those of the stacked states."""

    def __init__(self, states: Any, time: int):
        self._states, self._time = states, time

    def __getattr__(self, name: str) -> Any:
        return getattr(self._states, name)[self._time]
