"""What environment design does alike: a student plays levels and learns, and what differs is which levels come next.

A level is a field of the environment's `params`. An update plays levels in all environments, from fresh episodes, and lets the
student learn from them; where a curriculum proposes levels, those are played as well without learning from them. Every such
rollout counts among the environment steps. In replay, an environment whose episode ends goes on with a level drawn anew, by
the probabilities at the start of the update; a level that is new stays in its environment for the whole rollout.

The student's network is by default that of DRED's authors: a convolution over the view and a few units for the direction, a
recurrent cell, and a small actor and critic.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxpg import losses
from jaxpg.algorithm import LONGEST, MOST_UNITS, Algorithm, InputError, Metrics, Policy, Scalar, fields, hyperparameter, static
from jaxpg.algorithms.environment_design import scores
from jaxpg.algorithms.environment_design.scores import Episodes, Scores
from jaxpg.algorithms.online import a2c, impala, ppo, trpo
from jaxpg.algorithms.online.ppo import (
    CHUNK_HELP,
    CLIP_HELP,
    CLIP_VALUES_HELP,
    KL_HELP,
    LAMBDA_HELP,
    SURROGATE_HELP,
    PPOConfig,
)
from jaxpg.counting import increment, init_count
from jaxpg.errors import name_of
from jaxpg.on_policy import ANNEAL_HELP, ENCODER_HELP, MEMORY, Learner, make_network
from jaxpg.rollout import Transition, episode_metrics, init_rollout, nonfinite_metrics
from jaxpg.transforms import mean_of
from jaxpg_envs.levels import CaveLevel, level_set
from jaxpg_envs.redraw import Redrawn

DATASET, GENERATOR = {"levels": ("dataset",)}, {"levels": ("generator",)}
LEVELS_HELP = "begin with a training set, or use the environment's random generator"
STUDENTS: dict[str, tuple[type, Callable]] = {
    "ppo": (PPOConfig, ppo.make_parts),
    "a2c": (a2c.A2CConfig, a2c.make_parts),
    "impala": (impala.IMPALAConfig, impala.make_parts),
    "trpo": (trpo.TRPOConfig, trpo.make_parts),
}


PPO, JOINT = {"student": ("ppo",)}, {"student": ("ppo", "a2c", "impala")}
ADVANTAGES = {"student": ("ppo", "a2c", "trpo")}  # which these students estimate with lambda, as scores of levels do


@struct.dataclass
class StudentConfig(PPOConfig):
    """The student's hyperparameters, by default those of DRED.

    Students other than PPO read what they share with it, and have their own defaults for the rest.
    """

    student: Literal["ppo", "a2c", "impala", "trpo"] = static("ppo", "the algorithm that learns to act")
    total_steps: int = static(5_000_000, "environment steps of the whole run, those nobody learns from included", high=LONGEST)
    num_envs: int = static(36, "levels played side by side")
    num_steps: int = static(256, "steps on every level and update")
    num_epochs: int = static(5, "passes over the batch per update", needs=PPO)
    num_minibatches: int = static(1, "gradient steps per pass", needs={"student": ("ppo", "trpo")})
    chunk_size: int = static(0, CHUNK_HELP, low=0, needs=PPO | {"memory": ("none",)})
    surrogate: Literal["clip", "kl"] = static("clip", SURROGATE_HELP, needs=PPO)
    clip_values: bool = static(True, CLIP_VALUES_HELP, needs=PPO)
    hidden_sizes: tuple[int, ...] = static((32, 32), "hidden layers of actor and critic")
    encoder: Literal["dense", "convolution"] = static("convolution", ENCODER_HELP)
    memory: Literal["none", "gru", "lstm"] = static("lstm", "recurrent cell in front of actor and critic")
    memory_size: int = static(256, "units of the recurrent cell", high=MOST_UNITS, needs=MEMORY)
    normalize_observations: bool = static(False, "divide observations by their running standard deviation")
    normalize_rewards: bool = static(False, "divide rewards by the running standard deviation of returns")
    anneal_learning_rate: bool = static(False, ANNEAL_HELP)
    learning_rate: Scalar = hyperparameter(1e-4, "step size", low=0)
    discount: Scalar = hyperparameter(0.995, "gamma", low=0, high=1)
    value_coefficient: Scalar = hyperparameter(0.5, "weight of the value loss", low=0, needs=JOINT)
    gae_lambda: Scalar = hyperparameter(0.95, LAMBDA_HELP, low=0, high=1, needs=ADVANTAGES)
    clip_epsilon: Scalar = hyperparameter(
        0.2, CLIP_HELP, low=0, needs=(PPO | {"surrogate": ("clip",)}, PPO | {"clip_values": (True,)})
    )
    kl_coefficient: Scalar = hyperparameter(1.0, KL_HELP, low=0, needs=PPO | {"surrogate": ("kl",)})


@struct.dataclass
class CurriculumConfig(StudentConfig):
    """And where levels come from."""

    levels: Literal["dataset", "generator"] = static("dataset", LEVELS_HELP)
    num_levels: int = static(
        512, "size of the training set, where params hold no levels of one (CaveEscape-v0)", high=100_000, needs=DATASET
    )
    dataset_seed: int = static(0, "seed of that training set, the same for all agents", low=0, needs=DATASET)


class CurriculumState(NamedTuple):
    """The whole state of a run; `memory` is what the curriculum keeps, `updates` how many there were."""

    key: jax.Array
    learner: Learner
    memory: PyTree
    updates: Int[Array, "*digit"]


class Outcome(NamedTuple):
    """What came of one rollout: of each slot, and of each environment, whose `value_l1` is a mean over all its steps."""

    slots: Scores
    episodes: Episodes
    value_l1: Float[Array, " env"]


class Choice(NamedTuple):
    """The levels to train on.

    Attributes:
      levels: stacked, those of a buffer first, by slots; then new ones.
      slots: of the levels that an environment plays in its episodes, one after the other; the last one is played from then on.
      learn: whether the student learns from them.
    """

    levels: PyTree
    slots: Int[Array, "env episode"]
    learn: Bool[Array, ""]

    @property
    def first(self) -> PyTree:
        """The level that each environment begins with, stacked."""
        return levels_at(self.levels, self.slots[:, 0])


class Played(NamedTuple):
    """An episode of a rollout: its number in its environment, and the slot of its level."""

    number: Int[Array, "*step"]
    slot: Int[Array, "*step"]


class Curriculum(NamedTuple):
    """Which levels come next.

    Attributes:
      init: `key -> memory`.
      choose: `(key, memory, now) -> Choice`, `now` being the number of the update.
      record: `(memory, choice, outcome, now) -> memory`.
      propose: `(key, memory, choice, outcome) -> levels` to be played without learning from them; None: none are.
      admit: `(memory, levels, outcome, now) -> (memory, metrics)`, of the levels proposed.
      measure: `(memory, choice, now) -> metrics`.
      period: of what they do every so many updates.
    """

    init: Callable[[jax.Array], PyTree]
    choose: Callable[..., Choice]
    record: Callable[..., PyTree] = lambda memory, choice, outcome, now: memory
    propose: Callable[..., PyTree] | None = None
    admit: Callable[..., tuple[PyTree, Metrics]] | None = None
    measure: Callable[..., Metrics] = lambda memory, choice, now: {}
    period: int = 1


class Student(NamedTuple):
    """An on-policy algorithm of the framework that plays levels.

    Attributes:
      init: `key -> learner`.
      play: `(key, learner, levels, slots) -> (transitions, outcome, metrics)`, levels and slots as in a `Choice`.
      learn: `(key, learner, transitions) -> (learner, metrics)`.
      policy: `(learner, deterministic=True) -> Policy`.
    """

    init: Callable[[jax.Array], Learner]
    play: Callable[[jax.Array, Learner, PyTree, Int[Array, "env episode"]], tuple[Transition, Outcome, Metrics]]
    learn: Callable[[jax.Array, Learner, Transition], tuple[Learner, Metrics]]
    policy: Callable[..., Policy]


class LevelSource(NamedTuple):
    """What the levels of one environment's episodes are drawn from: parameters with one level, and what a `Choice` holds."""

    params: PyTree
    levels: PyTree
    slots: Int[Array, " episode"]


def draw_level(key: jax.Array, source: LevelSource, params: PyTree, last: Played | None) -> tuple[PyTree, Played]:
    """The parameters of the next episode, for `Redrawn`: slots were drawn before the rollout, all at once."""
    number = jnp.int32(0) if last is None else last.number + 1
    slot = source.slots[jnp.minimum(number, source.slots.size - 1)]
    return source.params.replace(level=levels_at(source.levels, slot)), Played(number, slot)


def make_student(config: StudentConfig, env: Any, params: PyTree, num_updates: int) -> Student:
    """The student that `config.student` names.

    Args:
      params: with one level.
      num_updates: over which the learning rate falls, if it does.
    """
    config_class, make_parts = STUDENTS[config.student]
    shared = {field.name for field in fields(config_class)} & {field.name for field in fields(type(config))}
    values = {name: getattr(config, name) for name in shared}
    values["total_steps"] = num_updates * config.num_envs * config.num_steps
    student_config = config_class(**values)
    network = make_network(config.student, student_config, env, params)
    env = Redrawn(env, draw_level)
    parts = make_parts(student_config, env, params, network)
    axes = LevelSource(params=None, levels=None, slots=0)

    def play(
        key: jax.Array, learner: Learner, levels: PyTree, slots: Int[Array, "env episode"]
    ) -> tuple[Transition, Outcome, Metrics]:
        reset_key, act_key = jax.random.split(key)
        source = LevelSource(params, levels, slots)
        start = init_rollout(reset_key, env, source, config.num_envs, axes, parts.initial_carry)
        end, t = parts.collect(act_key, learner, start, source, axes)
        _, e = parts.appraise(learner, t)
        advantages, _ = losses.generalized_advantage_estimation(
            e.reward, e.value, e.next_value, e.terminated, e.truncated, config.discount, config.gae_lambda
        )
        number = jax.tree.leaves(levels)[0].shape[0]
        of_slots = scores.score_slots(t.context.slot, t.reward, t.done, advantages, e.value, number)
        episodes = scores.count_episodes(t.reward, t.done)
        solved = mean_of(episodes.solved.sum(), episodes.completed.sum())
        outcome = Outcome(of_slots, episodes, jnp.abs(advantages).mean(axis=0))
        return t, outcome, episode_metrics(end.episodes) | {"episode_solved": solved}

    return Student(parts.init, play, parts.learn, parts.policy)


def as_algorithm(
    config: CurriculumConfig, env: Any, params: PyTree, curriculum: Curriculum, learns_from: int = 1, until_then: str = ""
) -> Algorithm:
    """A student under a curriculum. An update is: choose levels, play, learn, record; propose levels, play, admit."""
    updates = num_updates(config, 1 if curriculum.propose is None else 2)
    student = make_student(config, env, params, updates)

    def init(key: jax.Array) -> CurriculumState:
        key, learner_key, memory_key = jax.random.split(key, 3)
        return CurriculumState(key, student.init(learner_key), curriculum.init(memory_key), init_count(updates))

    def update(state: CurriculumState) -> tuple[CurriculumState, Metrics]:
        key, choose_key, play_key, learn_key, propose_key, look_key = jax.random.split(state.key, 6)
        now = state.updates
        choice = curriculum.choose(choose_key, state.memory, now)
        transitions, outcome, metrics = student.play(play_key, state.learner, choice.levels, choice.slots)
        learned, learning = student.learn(learn_key, state.learner, transitions)
        learner = jax.tree.map(lambda new, old: jnp.where(choice.learn, new, old), learned, state.learner)
        memory = curriculum.record(state.memory, choice, outcome, now)
        metrics |= learning | curriculum.measure(memory, choice, now)
        played = [transitions]
        if curriculum.propose is not None and curriculum.admit is not None:
            proposed = curriculum.propose(propose_key, memory, choice, outcome)
            looked, judged, _ = student.play(look_key, learner, proposed, own_slots(config.num_envs))
            played.append(looked)
            memory, admission = curriculum.admit(memory, proposed, judged, now)
            metrics |= admission | {"proposed_value_l1": judged.value_l1.mean()}
        metrics |= nonfinite_metrics(*played)
        return CurriculumState(key, learner, memory, increment(now, curriculum.period)), metrics

    def policy(state: CurriculumState, deterministic: bool = True) -> Policy:
        return student.policy(state.learner, deterministic)

    return Algorithm(init, update, policy, config, steps_per_update(config, curriculum), updates, learns_from, until_then)


def steps_per_update(config: CurriculumConfig, curriculum: Curriculum) -> int:
    """Environment steps of the one or two rollouts of an update."""
    return (1 if curriculum.propose is None else 2) * config.num_envs * config.num_steps


def num_updates(config: StudentConfig, rollouts: int) -> int:
    """Updates of a whole run, of so many rollouts each."""
    return math.ceil(config.total_steps / (rollouts * config.num_envs * config.num_steps))


def sample_levels(env: Any, key: jax.Array, number: int) -> PyTree:
    """Levels of the random generator, stacked."""
    return jax.vmap(env.sample_level)(jax.random.split(key, number))


def levels_at(levels: PyTree, slots: Int[Array, "*n"]) -> PyTree:
    """Those of a stack in these places."""
    return jax.tree.map(lambda x: x[slots], levels)


def own_slots(number: int, offset: int = 0) -> Int[Array, "{number} 1"]:
    """Of as many levels as there are environments, behind `offset` others: each environment keeps its own."""
    return offset + jnp.arange(number, dtype=jnp.int32)[:, None]


def with_new(levels: PyTree, new: PyTree) -> PyTree:
    """The levels of a buffer, and new ones behind them."""
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b.astype(a.dtype)]), levels, new)


def where_rows(flags: Bool[Array, " level"], levels: PyTree, others: PyTree) -> PyTree:
    """The levels where the flag is set, the others elsewhere."""
    choose = lambda flag, *rows: jax.tree.map(lambda level, other: jnp.where(flag, level, other), *rows)
    return jax.vmap(choose)(flags, levels, others)


def single_level(name: str, env: Any, params: PyTree) -> tuple[PyTree, PyTree]:
    """Parameters with one level, and the levels that they held, if those were several (else None).

    Raises:
      InputError: the environment has no levels.
    """
    if not hasattr(env, "sample_level") or not hasattr(params, "level"):
        raise InputError(f"{name} chooses levels, but {name_of(env)} has none: choose CaveEscape-v0, Maze-v0 or GridWorlds-v0")
    single = jax.tree.leaves(jax.eval_shape(env.sample_level, jax.random.key(0)))[0]
    if jnp.ndim(jax.tree.leaves(params.level)[0]) == single.ndim:
        return params, None
    levels = jax.tree.map(jnp.asarray, params.level)
    return params.replace(level=jax.tree.map(lambda x: x[0], levels)), levels


def split_params(name: str, config: CurriculumConfig, env: Any, params: PyTree) -> tuple[PyTree, PyTree]:
    """Parameters with one level, and the training set (None if levels come from the generator).

    The training set is `params.level` if that holds several levels, else CaveEscape's "train" of `num_levels` levels.

    Raises:
      InputError: the environment has no levels, or no training set of its own and none was given, or a training set is given
        and one of another size or seed is asked for.
    """
    params, levels = single_level(name, env, params)
    if config.levels == "generator":
        return params, None
    if levels is not None:
        for field in fields(type(config)):
            if field.name in ("num_levels", "dataset_seed") and getattr(config, field.name) != field.default:
                raise InputError(
                    f"{name}: {field.name} is read only where params hold no training set, but they hold one: "
                    f"leave {field.name} at {field.default}, or give params with one level"
                )
        return params, levels
    if not isinstance(params.level, CaveLevel):
        raise InputError(
            f"{name}: {name_of(env)} has no training set; give levels in params (params.replace(level=levels), stacked "
            "along a leading axis), or train on random ones (levels = generator)"
        )
    with jax.ensure_compile_time_eval():  # also where hyperparameters are traced
        return params, level_set("train", config.dataset_seed, config.num_levels, params.level.layout.shape[-1])
