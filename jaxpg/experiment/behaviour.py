"""Pictures of behaviour: an episode recorded, filmed, and split among the experts of a mixture."""

import dataclasses
import html
import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from jaxtyping import Array, Float, Int, PyTree, Real
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb
from matplotlib.ticker import PercentFormatter
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

from jaxpg.algorithm import InputError, Policy, in_32_bits
from jaxpg.experiment.files import write_atomically
from jaxpg.experiment.plots import COLOURS, INK, Picture, plain_axes

TIME = LinearSegmentedColormap.from_list("time", matplotlib.colormaps["viridis"](np.linspace(0, 0.9, 64)))
PROP = "#D55E00"  # targets and objects, told apart from the robot
FIXED = "#D4D4D4"


# --- Recording ----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Episode:
    """One episode; every array leads with time, up to and including the step that ended it.

    Attributes:
      observations: what the policy saw before each action.
      actions: what it did.
      rewards: what it got.
      states: the environment's state before each action. The state after the last is not among them: the
        automatic reset has already replaced it.
      length: number of steps.
      ended: False if the recording stopped before the episode did.
    """

    observations: PyTree
    actions: PyTree
    rewards: Float[np.ndarray, " time"]
    states: PyTree
    length: int
    ended: bool


def record_episode(policy: Policy, env: Any, params: PyTree, key: jax.Array, max_steps: int = 1000) -> Episode:
    """Plays one episode from a reset to its first end, or for `max_steps` steps, and keeps everything.

    Not a pure function: the result has as many steps as the episode had, as NumPy arrays. The playing itself
      is
    compiled, once per policy, environment and `max_steps`.

    Raises:
      InputError: `max_steps` is not positive.
    """
    if max_steps < 1:
        raise InputError(f"max_steps must be positive, got {max_steps}")
    recording, done = jax.device_get(_play(policy, env, params, key, max_steps))
    length = int(done.argmax()) + 1 if done.any() else max_steps
    observations, actions, rewards, states = jax.tree.map(lambda x: x[:length], recording)
    ended = bool(done.any())
    return Episode(observations, actions, rewards, states, length, ended)


@partial(jax.jit, static_argnums=(1, 4))
@in_32_bits
def _play(policy: Policy, env: Any, params: PyTree, key: jax.Array, max_steps: int) -> tuple[PyTree, Array]:
    reset_key, step_key = jax.random.split(key)
    observation, state = env.reset(reset_key, params)

    def step(loop: tuple, key: jax.Array) -> tuple[tuple, tuple]:
        observation, state, carry = loop
        act_key, env_key = jax.random.split(key)
        action, carry = policy.act(policy.params, act_key, observation, carry)
        next_observation, next_state, reward, terminated, truncated, _ = env.step(env_key, state, action, params)
        reward = jnp.asarray(reward, jnp.float32).reshape(())
        done = jnp.asarray(terminated | truncated, bool)
        return (next_observation, next_state, carry), ((observation, action, reward, state), done)

    start = (observation, state, policy.initial_carry)
    return jax.lax.scan(step, start, jax.random.split(step_key, max_steps))[1]


# --- Robots -------------------------------------------------------------------------------------------------


def save_brax_html(episode: Episode, env: Any, path: str | os.PathLike, caption: str = "") -> None:
    """Writes an episode of a Brax environment as a web page that plays it in three dimensions.

    All that it needs is within the file: it works without a network.

    Args:
      caption: what stands above.

    Raises:
      InputError: the environment is not simulated by Brax, or the place cannot be written to.
    """
    robot, links = _robot(env), _links(episode)  # first: they say what is wrong with the environment
    solids, ground = _solids(robot.sys)
    motion = {
        "dt": float(robot.dt),
        "ground": ground,
        "solids": [dataclasses.asdict(solid) | {"points": np.round(solid.points, 4).tolist()} for solid in solids],
        "frames": np.round(np.concatenate([links.pos, links.rot], axis=-1), 4).tolist(),  # one per environment step
        "returns": np.round(np.cumsum(episode.rewards), 4).tolist(),
    }
    page = Path(__file__).with_name("viewer.html").read_text(encoding="utf-8")
    page = page.replace("TITLE", html.escape(caption or type(robot).__name__)).replace("MOTION", json.dumps(motion))
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(Path(path), page)
    except OSError as error:
        raise InputError(f"cannot write {str(path)!r}: {error.strerror}") from error


def plot_brax_strobe(
    episodes: Mapping[str, Episode],
    env: Any,
    path: str | os.PathLike | None = None,
    view: str = "auto",
    num_poses: int = 10,
    caption: str = "",
) -> Picture:
    """Draws the robot at several moments of each episode: a row per episode, coloured from start to end.

    A robot that gets somewhere is drawn at its places along one axis that all rows share, in even steps of
    time. One that stays where it is, or goes too far for that, is drawn in frames of a film. There, half of
    the frames' spacing goes by time and half by how much moves, lest a motion that is soon over fall between
    two frames; each frame says its time and shows the moments just before in pale.

    Args:
      episodes: label of the row -> episode, e.g. "before training" and "after training".
      env: the Brax environment of all the episodes.
      path: where to write the picture; None writes nothing.
      view: "side" looks along y, "top" looks down; "auto" looks down on what is flat, like the reacher.
      num_poses: frames in a row of film; a robot that gets somewhere is drawn about three times per length of
        its body.
      caption: what stands above.

    Raises:
      InputError: no episodes, an environment that is not simulated by Brax, an unknown view, or a bad `path`.
    """
    if not episodes:
        raise InputError("no episodes to draw: give at least one, as {label: episode}")
    if view not in ("auto", "side", "top"):
        raise InputError(f"unknown view {view!r}: it is 'auto', 'side' or 'top'")
    robot = _robot(env)
    solids, ground = _solids(robot.sys)
    rows = [_Row(label, episode, solids, ground, view, float(robot.dt)) for label, episode in episodes.items()]
    size = max((row.high[0] - row.low[0]).max() for row in rows)
    travel = max(row.travel for row in rows) / size
    figure = _draw_places(rows, num_poses, size) if 1.5 < travel < 18 else _draw_film(rows, num_poses, size)
    figure.caption(caption)
    figure.save(path)
    return figure


def _robot(env: Any) -> Any:
    """The Brax environment proper, whose `sys` is the robot and `dt` the seconds of one step."""
    robot = getattr(env, "brax", env)
    if not hasattr(robot, "sys"):
        raise InputError(f"{type(env).__name__} is not simulated by Brax: give an environment named 'brax/...'")
    return robot


def _links(episode: Episode) -> Any:
    """Of the links: places `pos` (time, link, 3), in metres, and quaternions `rot` (time, link, 4)."""
    state = getattr(episode.states, "brax", None)
    if state is None:
        raise InputError("the episode's states are not Brax's: record it in an environment named 'brax/...'")
    return state.pipeline_state.x


@dataclasses.dataclass(frozen=True)
class _Solid:
    """Part of a body, in its link's frame: the hull of points swollen by a radius (a capsule: two points)."""

    link: int  # -1: fixed to the world
    points: Float[np.ndarray, "point 3"]
    radius: float
    prop: bool  # a target or an object: a link of its own beside the robot


def _solids(sys: Any) -> tuple[list[_Solid], float | None]:
    """The parts of a Brax system, and the height of its ground if it has one."""
    from mujoco import mjtGeom

    parents = list(map(int, sys.link_parents))
    alone = [link for link, parent in enumerate(parents) if parent < 0 and link not in parents]
    props = alone if len(alone) < parents.count(-1) else []
    solids, ground = [], None
    for geom in range(sys.ngeom):
        kind = int(sys.geom_type[geom])
        x, y, _ = size = np.asarray(sys.geom_size[geom], float)
        ring = np.stack([np.cos(angles := np.linspace(0, 2 * np.pi, 16)), np.sin(angles), np.zeros(16)], axis=-1)
        radius = 0.0
        if kind == mjtGeom.mjGEOM_PLANE:
            ground = float(sys.geom_pos[geom][2])
            continue
        if kind == mjtGeom.mjGEOM_SPHERE:
            points, radius = np.zeros((1, 3)), x
        elif kind == mjtGeom.mjGEOM_CAPSULE:
            points, radius = np.array([[0, 0, -y], [0, 0, y]]), x
        elif kind == mjtGeom.mjGEOM_CYLINDER:
            points = np.concatenate([x * ring + [0, 0, -y], x * ring + [0, 0, y]])
        elif kind == mjtGeom.mjGEOM_BOX:
            points = size * np.array([[a, b, c] for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)])
        elif kind == mjtGeom.mjGEOM_MESH:
            model, mesh = sys.mj_model, sys.mj_model.geom_dataid[geom]
            points = model.mesh_vert[model.mesh_vertadr[mesh] :][: model.mesh_vertnum[mesh]]
        else:  # height fields and ellipsoids, which no robot of Brax is made of
            continue
        link = int(sys.geom_bodyid[geom]) - 1
        turn = Rotation.from_quat(np.asarray(sys.geom_quat[geom]), scalar_first=True)
        solids.append(_Solid(link, turn.apply(points) + np.asarray(sys.geom_pos[geom]), radius, link in props))
    return solids, ground


class _Row:
    """One episode in the plane of the picture.

    Attributes:
      low, high: (time, 2) corners of the box around all that moves.
      centre: (time,) horizontal place of the robot.
      moved: (time,) how much has moved until then.
    """

    def __init__(
        self,
        label: str,
        episode: Episode,
        solids: Sequence[_Solid],
        ground: float | None,
        view: str,
        dt: float,
    ):
        self.label, self.episode, self.dt, self.solids = label, episode, dt, solids
        links = _links(episode)
        places = [_places(solid, links) for solid in solids]
        if view == "auto":
            start = [place[0] for place, solid in zip(places, solids, strict=True) if solid.link >= 0]
            extent = np.ptp(np.concatenate(start), axis=0)
            view = "top" if extent[2] < 0.15 * extent[:2].max() else "side"
        self.ground = ground if view == "side" else None
        self.points = [place[..., [0, 2] if view == "side" else [0, 1]] for place in places]  # (time, point, 2)
        moving = [(points, solid) for points, solid in zip(self.points, solids, strict=True) if solid.link >= 0]
        self.low = np.min([points.min(axis=1) - solid.radius for points, solid in moving], axis=0)
        self.high = np.max([points.max(axis=1) + solid.radius for points, solid in moving], axis=0)
        self.centre = np.mean([points[..., 0].mean(axis=1) for points, solid in moving if not solid.prop], axis=0)
        steps = np.sum([np.abs(np.diff(points, axis=0)).mean((1, 2)) for points, _ in moving], axis=0)
        self.moved = np.concatenate([[0.0], np.cumsum(steps)])
        self.travel = float(np.ptp(self.centre))

    def draw(self, axes: Axes, time: int, alpha: float) -> None:
        """Draws all that moves, at a time."""
        colour = TIME(time / max(self.episode.length - 1, 1))
        self._draw(axes, time, lambda solid: PROP if solid.prop else colour, alpha, moving=True)

    def draw_surroundings(self, axes: Axes) -> None:
        """Draws what is fixed to the world."""
        if self.ground is not None:
            axes.axhline(self.ground, color="#9A9A9A", linewidth=1, zorder=1)
        self._draw(axes, 0, lambda solid: FIXED, 1.0, moving=False)

    def draw_titles(self, left: Axes, right: Axes) -> None:
        left.set_title(self.label, loc="left", fontsize=11, weight="bold", color=INK)
        seconds = f"{self.episode.length * self.dt:.3g} s" + ("" if self.episode.ended else " (not ended)")
        score = f"return {self.episode.rewards.sum():.4g} in {seconds}"
        right.set_title(score, loc="right", fontsize=9, color="#666666")

    def _draw(self, axes: Axes, time: int, colour: Callable[[_Solid], Any], alpha: float, moving: bool) -> None:
        parts = [(p[time], s) for p, s in zip(self.points, self.solids, strict=True) if (s.link >= 0) == moving]
        axes.add_collection(
            PolyCollection(
                [_hull(points, solid.radius) for points, solid in parts],
                facecolors=[colour(solid) for _, solid in parts],
                edgecolors="white",
                linewidths=0.5,
                alpha=alpha,
                zorder=2 if moving else 0.5,
            ),
            autolim=False,
        )


def _places(solid: _Solid, links: Any) -> Float[np.ndarray, "time point 3"]:
    """Where the points of a solid are in the world."""
    length, num_points = len(links.pos), len(solid.points)
    if solid.link < 0:
        return np.broadcast_to(solid.points, (length, num_points, 3))
    turns = Rotation.from_quat(np.repeat(links.rot[:, solid.link], num_points, axis=0), scalar_first=True)
    turned = turns.apply(np.tile(solid.points, (length, 1))).reshape(length, num_points, 3)
    return turned + links.pos[:, solid.link, None]


def _hull(points: Float[np.ndarray, "point 2"], radius: float) -> Float[np.ndarray, "corner 2"]:
    """Corners of the convex hull of points swollen by a radius."""
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    disc = max(radius, 1e-4) * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    swollen = (points[:, None] + disc).reshape(-1, 2)
    return swollen[ConvexHull(swollen).vertices]


def _draw_places(rows: Sequence[_Row], num_poses: int, size: float) -> Picture:
    left, bottom = np.min([row.low.min(axis=0) for row in rows], axis=0) - 0.03 * size
    right, top = np.max([row.high.max(axis=0) for row in rows], axis=0) + 0.03 * size
    width = 11.0
    height = width * (top - bottom) / (right - left)
    figure = Picture(figsize=(width + 0.3, len(rows) * (height + 0.4) + 0.9), layout="constrained")
    all_axes = figure.subplots(len(rows), sharex=True, squeeze=False)[:, 0]
    for axes, row in zip(all_axes, rows, strict=True):
        row.draw_surroundings(axes)
        count = int(np.clip(3 * row.travel / size + 1, num_poses / 2, 40))
        for time in np.unique(np.linspace(0, row.episode.length - 1, count).round().astype(int)).tolist():
            row.draw(axes, time, alpha=1.0)
        plain_axes(axes, grid=False)
        axes.spines[:].set_visible(False)
        axes.tick_params(bottom=axes is all_axes[-1])
        axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal", yticks=[])
        row.draw_titles(axes, axes)
    all_axes[-1].set_xlabel("place [m]")
    colours = ScalarMappable(Normalize(0, 1), TIME)
    bar = figure.colorbar(colours, ax=list(all_axes), location="bottom", shrink=0.2, aspect=30)
    bar.set_ticks([0, 1], labels=["start", "end"])
    bar.ax.tick_params(labelsize=8, labelcolor=INK, length=0)
    bar.outline.set_visible(False)
    return figure


def _draw_film(rows: Sequence[_Row], num_poses: int, size: float) -> Picture:
    follow = max(row.travel for row in rows) > 1.5 * size  # the camera goes along
    shifts = [np.stack([follow * row.centre, np.zeros(row.episode.length)], axis=1) for row in rows]
    low = [(row.low - shift).min(axis=0) for row, shift in zip(rows, shifts, strict=True)]
    high = [(row.high - shift).max(axis=0) for row, shift in zip(rows, shifts, strict=True)]
    left, bottom = np.min(low, axis=0) - 0.05 * size
    right, top = np.max(high, axis=0) + 0.05 * size
    width = 12.0
    height = width / num_poses * (top - bottom) / (right - left)
    figure = Picture(figsize=(width + 0.3, len(rows) * (height + 0.56)), layout="constrained")
    grid = figure.subplots(len(rows), num_poses, squeeze=False)
    for strip, row, shift in zip(grid, rows, shifts, strict=True):
        progress = np.linspace(0, 1, row.episode.length) + row.moved / max(row.moved[-1], 1e-9)
        times = np.searchsorted(progress, np.linspace(0, progress[-1], num_poses) - 1e-6)
        for axes, time in zip(strip, times.tolist(), strict=True):
            row.draw_surroundings(axes)
            for before, alpha in ((6, 0.1), (4, 0.15), (2, 0.25), (0, 1.0)):
                if time >= before:
                    row.draw(axes, time - before, alpha)
            x = shift[time, 0]
            travelled = f", {x - shift[0, 0]:.1f} m" if follow else ""
            axes.set(xlim=(left + x, right + x), ylim=(bottom, top), aspect="equal", xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            axes.set_facecolor("#F7F7F7")
            axes.set_xlabel(f"{time * row.dt:.3g} s{travelled}", fontsize=8, color=INK, labelpad=3)
        row.draw_titles(strip[0], strip[-1])
    return figure


# --- Mixtures of experts ------------------------------------------------------------------------------------


def plot_experts(
    observations: Real[np.ndarray | Array, "time *observation"],
    expert_weights: Float[np.ndarray | Array, "time expert"],
    expert_index: Int[np.ndarray | Array, " time"],
    path: str | os.PathLike | None = None,
    state_labels: Sequence[str] | None = None,
    caption: str = "",
) -> Picture:
    """Shows which expert of a mixture policy acts where, when, and how often.

    Left: the observations, one after the other, in the plane in which they spread most (the leading principal
    components of the standardised observations), coloured by the expert that acted. Right, from above: the
    routing weights over time; the experts that acted; their shares of the steps, beside the mean weight (a
    black tick).

    Args:
      observations: what the policy saw, e.g. `Episode.observations`.
      expert_weights: the routing weights w_k(s), which sum to one.
      expert_index: the expert that acted, or the one most responsible for the action.
      path: where to write the picture; None writes nothing.
      state_labels: names of the observation's components; each axis of the plane then names those that weigh
        most.
      caption: what stands above, before how far the mixture has specialised: the largest weight, on average over the steps,
        beside that of equal weights.

    Raises:
      InputError: fewer than two steps, lengths that differ, an expert that does not exist, or a bad `path`.

    Source: after the analysis of primitives in Ren et al., Probabilistic Mixture-of-Experts for Efficient
      Deep
    Reinforcement Learning (2021).
    """
    weights, experts = np.asarray(expert_weights), np.asarray(expert_index)
    length, num_experts = weights.shape
    if length < 2 or not len(observations) == len(experts) == length:
        raise InputError(
            "observations, expert_weights and expert_index must have equally many steps, at least 2, "
            f"got {len(observations)}, {length} and {len(experts)}"
        )
    if experts.min() < 0 or experts.max() >= num_experts:
        found = f"{experts.min()} ... {experts.max()}"
        raise InputError(f"expert_index must lie in 0 ... {num_experts - 1}, got {found}")
    samples = np.asarray(observations, float).reshape(length, -1)
    if state_labels is not None and len(state_labels) != samples.shape[1]:
        raise InputError(f"state_labels must name {samples.shape[1]} components, got {len(state_labels)}")

    colours = _expert_colours(num_experts)
    figure = Picture(figsize=(12.0, 5.2), layout="constrained")
    panels = figure.subplot_mosaic(
        [["plane", "weights"], ["plane", "acting"], ["plane", "shares"]],
        width_ratios=[1, 1.25],
        height_ratios=[2.4, 0.25, min(0.6 + 0.22 * num_experts, 2.4)],
    )
    for axes in panels.values():
        plain_axes(axes, grid=False)
    _draw_plane(panels["plane"], samples, experts, colours, state_labels)

    steps = np.arange(length)
    axes = panels["weights"]
    axes.stackplot(steps, weights.T, colors=colours, linewidth=0, alpha=0.9)
    axes.set(xlim=(0, length - 1), ylim=(0, 1), xticks=[], ylabel="routing weight")
    axes = panels["acting"]
    strip = np.array(colours)[experts][None]
    axes.imshow(strip, aspect="auto", extent=(-0.5, length - 0.5, 0, 1), interpolation="none")
    axes.set(xlim=(0, length - 1), yticks=[], xlabel="step of the episode")
    axes.set_ylabel("acting", rotation=0, ha="right", va="center")

    axes = panels["shares"]
    shares, means = np.bincount(experts, minlength=num_experts) / length, weights.mean(axis=0)
    names = [f"expert {index}" for index in range(num_experts)]
    axes.barh(names, shares, color=colours, height=0.7)
    axes.scatter(means, names, marker="|", s=900 / (num_experts + 2), color="black", linewidths=1.5, zorder=3)
    for index, ends in enumerate(np.maximum(shares, means)):
        style: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": 9, "color": INK}
        axes.annotate(f"{shares[index]:.0%}", (ends, index), (6, 0), **style)
    axes.set(xlim=(0, 1.08), xlabel="share of the steps    |  mean routing weight")
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.invert_yaxis()
    figure.caption("\n".join(filter(None, [caption, specialisation(weights)])))
    figure.save(path)
    return figure


def specialisation(weights: Float[np.ndarray, "time expert"]) -> str:
    """How far a mixture divides the work, in words: the largest routing weight of each step, and who has it."""
    num_experts, largest = weights.shape[1], weights.max(axis=1).mean()
    leaders = np.bincount(weights.argmax(axis=1), minlength=num_experts) / len(weights)
    words = f"largest weight {largest:.2f} on average (equal weights: {1 / num_experts:.2f})"
    if num_experts == 1:
        return f"{words}: a single expert"
    if largest < (1 + 2 / num_experts) / 3:
        return f"{words}: the mixture has hardly specialised"
    busy = int((leaders > 0.1).sum())
    return f"{words}; " + (
        f"{busy} experts lead in a tenth of the steps or more" if busy > 1 else "one expert leads nearly always"
    )


def _expert_colours(num_experts: int) -> list[tuple[float, float, float]]:
    if num_experts <= len(COLOURS):
        return [to_rgb(colour) for colour in COLOURS[:num_experts]]
    return [to_rgb(colour) for colour in matplotlib.colormaps["turbo"](np.linspace(0.05, 0.95, num_experts))]


def _draw_plane(
    axes: Axes,
    samples: Float[np.ndarray, "time feature"],
    experts: Int[np.ndarray, " time"],
    colours: Sequence[tuple[float, float, float]],
    state_labels: Sequence[str] | None,
) -> None:
    places, directions, variances = principal_components(samples)
    x, y = places.T
    axes.plot(x, y, color="#D0D0D0", linewidth=0.5, zorder=1)
    axes.scatter(x, y, c=np.array(colours)[experts], s=18, edgecolors="white", linewidths=0.3, zorder=2)
    axes.scatter(x[:1], y[:1], s=90, facecolors="none", edgecolors="black", linewidths=1.5, zorder=3)
    axes.annotate("start", (x[0], y[0]), (8, 8), textcoords="offset points", fontsize=9, color=INK)
    for name, direction, variance, axis in zip("12", directions, variances, (axes.xaxis, axes.yaxis), strict=True):
        label = f"principal component {name} ({variance:.0%} of the variance)"
        if state_labels is not None:
            heaviest = np.argsort(-np.abs(direction))[:3]
            label += "\n" + "   ".join(f"{direction[i]:+.1f} {state_labels[i]}" for i in heaviest)
        axis.set_label_text(label)


def principal_components(
    samples: Real[np.ndarray, "sample feature"],
) -> tuple[Float[np.ndarray, "sample 2"], Float[np.ndarray, "2 feature"], Float[np.ndarray, " 2"]]:
    """The two leading principal components of the standardised samples; zero where they do not exist.

    Returns:
      The samples' coordinates, the unit directions (their largest entry positive, for the sign is arbitrary),
      and the share of the variance along each. Features that never change count for nothing.
    """
    centred = samples - samples.mean(axis=0)
    spread = samples.std(axis=0)
    varies = spread > 1e-8 * np.abs(samples).max(axis=0)
    standardised = np.divide(centred, spread, out=np.zeros_like(centred), where=varies)
    _, singular_values, directions = np.linalg.svd(standardised, full_matrices=False)
    variances = singular_values**2 / max((singular_values**2).sum(), 1e-12)
    missing = max(0, 2 - len(variances))
    directions = np.pad(directions, ((0, missing), (0, 0)))[:2]
    heaviest = np.take_along_axis(directions, np.abs(directions).argmax(axis=1, keepdims=True), axis=1)
    directions = directions * np.where(heaviest < 0, -1.0, 1.0)
    return standardised @ directions.T, directions, np.pad(variances, (0, missing))[:2]
