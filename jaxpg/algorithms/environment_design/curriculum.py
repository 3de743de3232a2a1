"""What environment design does alike: a student plays levels and learns, and what differs is which levels come next.

A level is a field of the environment's `params`. An update plays one level in each environment, from fresh episodes that are
reset to the same level, lets the student learn from it, and, where a curriculum proposes levels, plays those as well without
learning from them. Every such rollout counts among the environment steps.

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
from jaxpg.algorithms.environment_design.scores import Episodes
from jaxpg.algorithms.online import a2c, impala, ppo, trpo
from jaxpg.algorithms.online.ppo import CHUNK_HELP, CLIP_HELP, KL_HELP, LAMBDA_HELP, SURROGATE_HELP, PPOConfig
from jaxpg.counting import increment, init_count
from jaxpg.errors import name_of
from jaxpg.on_policy import ENCODER_HELP, MEMORY, Learner, make_network
from jaxpg.rollout import Transition, episode_metrics, init_rollout, nonfinite_metrics
from jaxpg.transforms import mean_of
from jaxpg_envs.levels import CaveLevel, level_set

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
    hidden_sizes: tuple[int, ...] = static((32, 32), "hidden layers of actor and critic")
    encoder: Literal["dense", "convolution"] = static("convolution", ENCODER_HELP)
    memory: Literal["none", "gru", "lstm"] = static("lstm", "recurrent cell in front of actor and critic")
    memory_size: int = static(256, "units of the recurrent cell", high=MOST_UNITS, needs=MEMORY)
    normalize_observations: bool = static(False, "divide observations by their running standard deviation")
    normalize_rewards: bool = static(False, "divide rewards by the running standard deviation of returns")
    anneal_learning_rate: bool = static(False, "let the learning rate fall linearly to zero over total_steps")
    learning_rate: Scalar = hyperparameter(1e-4, "step size", low=0)
    discount: Scalar = hyperparameter(0.995, "gamma", low=0, high=1)
    value_coefficient: Scalar = hyperparameter(0.5, "weight of the value loss", low=0, needs=JOINT)
    gae_lambda: Scalar = hyperparameter(0.95, LAMBDA_HELP, low=0, high=1, needs=ADVANTAGES)
    clip_epsilon: Scalar = hyperparameter(0.2, CLIP_HELP, low=0, needs=PPO)
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
    """What came of playing each level in one rollout."""

    episodes: Episodes
    value_l1: Float[Array, " level"]
    positive_value_loss: Float[Array, " level"]
    mean_value: Float[Array, " level"]


class Choice(NamedTuple):
    """The levels to train on, one per environment.

    Attributes:
      slots: of a buffer that they come from; beyond its last slot for new ones.
      learn: whether the student learns from them.
    """

    levels: PyTree
    slots: Int[Array, " level"]
    learn: Bool[Array, ""]


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
      play: `(key, learner, levels) -> (transitions, outcome, metrics)`.
      learn: `(key, learner, transitions) -> (learner, metrics)`.
      policy: `(learner, deterministic=True) -> Policy`.
    """

    init: Callable[[jax.Array], Learner]
    play: Callable[[jax.Array, Learner, PyTree], tuple[Transition, Outcome, Metrics]]
    learn: Callable[[jax.Array, Learner, Transition], tuple[Learner, Metrics]]
    policy: Callable[..., Policy]


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
    parts = make_parts(student_config, env, params, network)

    def play(key: jax.Array, learner: Learner, levels: PyTree) -> tuple[Transition, Outcome, Metrics]:
        reset_key, act_key = jax.random.split(key)
        rows = jax.tree.map(lambda x: jnp.broadcast_to(x, (config.num_envs, *jnp.shape(x))), params).replace(level=levels)
        start = init_rollout(reset_key, env, rows, config.num_envs, params_axis=0, initial_carry=parts.initial_carry)
        end, transitions = parts.collect(act_key, learner, start, rows, params_axis=0)
        _, e = parts.appraise(learner, transitions)
        advantages, _ = losses.generalized_advantage_estimation(
            e.reward, e.value, e.next_value, e.terminated, e.truncated, config.discount, config.gae_lambda
        )
        episodes = scores.count_episodes(transitions.reward, transitions.done)
        outcome = Outcome(episodes, scores.value_l1(advantages), scores.positive_value_loss(advantages), e.value.mean(axis=0))
        solved = mean_of(episodes.solved.sum(), episodes.completed.sum())
        return transitions, outcome, episode_metrics(end.episodes) | {"episode_solved": solved}

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
        transitions, outcome, metrics = student.play(play_key, state.learner, choice.levels)
        learned, learning = student.learn(learn_key, state.learner, transitions)
        learner = jax.tree.map(lambda new, old: jnp.where(choice.learn, new, old), learned, state.learner)
        memory = curriculum.record(state.memory, choice, outcome, now)
        metrics |= learning | curriculum.measure(memory, choice, now)
        played = [transitions]
        if curriculum.propose is not None and curriculum.admit is not None:
            proposed = curriculum.propose(propose_key, memory, choice, outcome)
            looked, judged, _ = student.play(look_key, learner, proposed)
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
        raise InputError(f"{name} chooses levels, but {name_of(env)} has none: choose CaveEscape-v0 or Maze-v0")
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
