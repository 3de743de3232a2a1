"""Quality-diversity tasks on brax's robots: run everywhere, or run in every way.

The tasks of QDax and of DCG-MAP-Elites (Faldor et al., 2023). The robots are those of brax today, not of its first version,
and the hexapod, which neither brax nor QDax has any more, is our own, so that figures of the papers are of other bodies. Every
episode starts alike, without noise.
"""

from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import brax.contact
import jax.numpy as jnp
import numpy as np
from brax import envs
from brax.io import mjcf
from flax import struct
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jaxpg_envs import hexapod
from jaxpg_envs.auto_reset import vary_alike
from jaxpg_envs.brax_adapter import BraxEnvironment, BraxParams, BraxState
from jaxpg_envs.registry import EnvironmentInputError

BACKENDS = ("spring", "mjx")


class Task(NamedTuple):
    """What makes a task of a robot.

    Attributes:
        robot: brax's environment, or "hexapod".
        offset: added to every reward, which is then clipped to at least 0.
        max_steps_in_episode: time limit in steps.
        feet: names of the robot's geoms whose contacts with the ground are the descriptor; none: the position is.
        trap: whether a U-shaped wall stands in the way.
        half_width: of the square that positions are clipped to, in m.
    """

    robot: str
    offset: float
    max_steps_in_episode: int
    feet: tuple[str, ...] = ()
    trap: bool = False
    half_width: float = 30.0


_ANT_FEET = ("left_foot_geom", "right_foot_geom", "third_foot_geom", "fourth_foot_geom")

# Offsets and lengths: the paper and its code, QDax for the offsets of ant_uni and hopper_uni. QDax has a humanoid_omni of
# ±10 m too.
TASKS = {
    "ant_omni": Task("ant", 3.03, 250),
    "anttrap_omni": Task("ant", 3.03, 250, trap=True),
    "hexapod_omni": Task("hexapod", 3.53, 250, half_width=2.0),
    "humanoid_omni": Task("humanoid", -3.3, 1000),
    "ant_uni": Task("ant", 3.24, 1000, _ANT_FEET),
    "halfcheetah_uni": Task("halfcheetah", 0.6, 1000, ("bfoot", "ffoot")),
    "hopper_uni": Task("hopper", 0.9, 1000, ("foot_geom",)),
    "walker2d_uni": Task("walker2d", 0.0, 1000, ("foot_geom", "foot_left_geom")),
}


@struct.dataclass
class QualityDiversityBraxState(BraxState):
    """`contacts`: in how many steps of the episode each foot touched the ground, float32 of shape (foot,)."""

    contacts: Any


class QualityDiversityBrax(BraxEnvironment):
    """A robot of brax with a descriptor.

    Omnidirectional tasks ("omni") reward staying alive and saving force, without brax's reward for running forward. The
    descriptor is the torso's position (x, y) in m, clipped to the task's square. Observed is also the position, in units of
    half its width.

    Unidirectional tasks ("uni") have brax's reward. The descriptor holds for each foot in which fraction of the episode's
    steps it touched the ground when the step was over. Observed is also that fraction so far, 0 at the start.

    The reward is offset, and clipped where it still is negative: a repertoire's score would rather have a cell empty
    than hold a negative fitness.
    """

    def __init__(self, brax_environment: Any, name: str, task: Task, max_steps_in_episode: int) -> None:
        """`brax_environment` as in `BraxEnvironment`: of the task's robot, and without noise at the start."""
        super().__init__(brax_environment, name, max_steps_in_episode)
        self.task = task
        model = brax_environment.sys.mj_model
        self._feet = np.array([model.geom(foot).id for foot in task.feet], int)

    def descriptor_bounds(
        self, params: BraxParams | None = None
    ) -> tuple[Float[Array, " descriptor"], Float[Array, " descriptor"]]:
        """The least and the largest descriptor."""
        if self.task.feet:
            return jnp.zeros(len(self.task.feet)), jnp.ones(len(self.task.feet))
        corner = jnp.full(2, self.task.half_width, jnp.float32)
        return -corner, corner

    def descriptor_names(self, params: BraxParams | None = None) -> tuple[str, ...]:
        """What the descriptor's components are, with their units."""
        feet = tuple(
            f"{foot.removesuffix('_geom').replace('_', ' ')} on the ground (share of steps)" for foot in self.task.feet
        )
        return feet or ("final x (m)", "final y (m)")

    def reset_env(self, key: PRNGKeyArray, params: BraxParams) -> tuple[Array, QualityDiversityBraxState]:
        """The start of an episode, the same for every key: observation, state."""
        _, start = super().reset_env(key, params)
        contacts = jnp.zeros(len(self.task.feet))
        state, _ = vary_alike((QualityDiversityBraxState(time=start.time, brax=start.brax, contacts=contacts), key))
        return self._observe(start.brax.obs, state), state

    def step_env(
        self, key: PRNGKeyArray, state: QualityDiversityBraxState, action: Float[Array, " action"], params: BraxParams
    ) -> tuple[Array, QualityDiversityBraxState, Float[Array, ""], Bool[Array, ""], dict]:
        """One step without automatic reset; `info["descriptor"]` is the episode's so far, this step included."""
        observation, moved, reward, terminated, info = super().step_env(key, state, action, params)
        contacts = state.contacts + self._touching(moved)
        successor = QualityDiversityBraxState(time=moved.time, brax=moved.brax, contacts=contacts)
        if not self.task.feet:
            reward = reward - info["metrics"]["forward_reward"]
        reward = jnp.maximum(reward + self.task.offset, 0.0)
        descriptor = jnp.clip(self._behaviour(successor), *self.descriptor_bounds(params))
        return self._observe(observation, successor), successor, reward, terminated, info | {"descriptor": descriptor}

    def _touching(self, state: BraxState) -> Float[Array, " foot"]:
        """1 for each foot on the ground: the feet's geoms collide with nothing else."""
        if not self.task.feet:
            return jnp.zeros(0)
        # Once a step; brax's own, which `debug=True` asks for, are those of every substep.
        contact = brax.contact.get(self.brax.sys, state.brax.pipeline_state.x)
        of_foot = (contact.geom1 == self._feet[:, None]) | (contact.geom2 == self._feet[:, None])
        return (of_foot & (contact.dist <= 0.0)).any(axis=1).astype(jnp.float32)

    def _behaviour(self, state: QualityDiversityBraxState) -> Float[Array, " descriptor"]:
        """The descriptor before it is clipped; for the uni tasks 0 at the start of an episode."""
        if self.task.feet:
            return state.contacts / jnp.maximum(state.time, 1)
        return state.brax.pipeline_state.x.pos[0, :2]

    def _observe(self, observation: Array, state: QualityDiversityBraxState) -> Array:
        """brax's observation, and the descriptor in units of its bounds."""
        return jnp.concatenate([observation, self._behaviour(state) / self.descriptor_bounds()[1]])


def with_trap(ant: Any) -> Any:
    """brax's ant before a trap: three lying capsules of radius 0.5 m that open towards the start.

    The inside is 5 m wide and reaches from x = 6.5 m to 11.5 m, the geometry of DCG-MAP-Elites. Only torso and lower legs
    meet the walls, to limit what collisions cost.

    Args:
        ant: `brax.envs.ant.Ant`; it is changed and returned.
    """
    model = ElementTree.parse(Path(envs.__file__).parent / "assets" / "ant.xml").getroot()
    for geom in model.iter("geom"):
        if geom.get("name") == "torso_geom" or geom.get("name", "").endswith("ankle_geom"):
            geom.set("contype", "2")  # a kind of its own, so that the floor is met by the feet alone as ever
    world = model.find("worldbody")
    assert world is not None
    for name, ends in (("back", "12 -2 .5 12 2 .5"), ("right", "7 -3 .5 12 -3 .5"), ("left", "7 3 .5 12 3 .5")):
        wall = {"name": f"{name}_wall", "type": "capsule", "size": "0.5", "fromto": ends, "conaffinity": "2"}
        ElementTree.SubElement(world, "geom", wall)
    walled = mjcf.loads(ElementTree.tostring(model, encoding="unicode"))
    ant.sys = walled.replace(opt=ant.sys.opt, actuator=ant.sys.actuator)  # brax tunes these for each backend
    return ant


def make(name: str, backend: str = "spring", max_steps_in_episode: int | None = None) -> QualityDiversityBrax:
    """The task `brax/name`.

    Args:
        name: one of `TASKS`.
        backend: "spring" or "mjx".
        max_steps_in_episode: time limit in `default_params`, by default the task's.

    Raises:
        EnvironmentInputError: another backend.
    """
    if backend not in BACKENDS:
        raise EnvironmentInputError(f"brax/{name}: unknown backend {backend!r}; choose one of {', '.join(BACKENDS)}")
    task = TASKS[name]
    if task.robot == "hexapod":
        robot = hexapod.make(backend)
    else:
        robot = envs.get_environment(task.robot, backend=backend, reset_noise_scale=0.0)
    if task.trap:
        robot = with_trap(robot)
    limit = task.max_steps_in_episode if max_steps_in_episode is None else max_steps_in_episode
    return QualityDiversityBrax(robot, f"brax/{name}", task, limit)
