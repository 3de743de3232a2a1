"""A simulator that turns NaN and terminates: every family trains on. One that turns NaN and goes on: metrics count it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import assert_same, numbers, quick_jit, row
from environments import Box, Diverging, DivergingChoices, Environment, Glitches
from flax import struct

import jaxpg
from jaxpg.algorithms.quality_diversity.episodes import Steps, as_task, controller_network, open_loop_controller
from jaxpg.algorithms.quality_diversity.generations import Emitter, QualityDiversityConfig, as_algorithm, untargeted
from jaxpg.algorithms.quality_diversity.gradients import GradientConfig, gradients
from jaxpg.experiment.program import faults
from jaxpg.rollout import existing_successors
from jaxpg_envs.cave_escape import cave_escape
from jaxpg_envs.grid_world import GridWorld
from jaxpg_envs.point_omni import PointOmni

KEY = jax.random.key(0)
CONTINUOUS, DISCRETE = Diverging(), DivergingChoices()
ROLLOUT = {"num_envs": 4, "num_steps": 8, "hidden_sizes": (4,), "total_steps": 10_000}
BATCHES = ROLLOUT | {"num_minibatches": 2}
REPLAY = {"num_envs": 4, "num_steps": 4, "batch_size": 16, "hidden_sizes": (4,), "gradient_steps": 2, "learning_starts": 16}
REPLAY |= {"total_steps": 10_000, "buffer_size": 64, "n_step": 3, "normalize_observations": True}
RUNS = {
    "ppo": (CONTINUOUS, BATCHES),
    "ppo, mask": (CONTINUOUS, BATCHES | {"time_limit": "mask"}),
    "ppo, terminal": (CONTINUOUS, BATCHES | {"time_limit": "terminal"}),
    "ppo, lstm": (CONTINUOUS, BATCHES | {"memory": "lstm", "memory_size": 4}),
    "pmoe_ppo": (CONTINUOUS, BATCHES),
    "trpo": (CONTINUOUS, BATCHES),
    "a2c": (DISCRETE, ROLLOUT),
    "impala": (DISCRETE, ROLLOUT),
    "learned_rule": (DISCRETE, ROLLOUT),
    "reinforce": (DISCRETE, ROLLOUT),
    "reinforce, mean": (DISCRETE, ROLLOUT | {"baseline": "mean"}),
    "pqn": (DISCRETE, BATCHES | {"normalize_observations": True}),
    "dqn": (DISCRETE, REPLAY),
    "dqn, prioritized": (DISCRETE, REPLAY | {"prioritized": True}),
    "qr_dqn": (DISCRETE, REPLAY),
    "sac_discrete": (DISCRETE, REPLAY),
    "ddpg": (CONTINUOUS, REPLAY),
    "td3": (CONTINUOUS, REPLAY),
    "sac": (CONTINUOUS, REPLAY),
    "pmoe_sac": (CONTINUOUS, REPLAY),
    "soft_option_critic": (CONTINUOUS, REPLAY),
}


def train(make, *variants, updates=8):
    """States and the metrics of every update, of all variants in one compilation, leaves (variant, ...)."""

    def run(variant):
        algorithm = make(variant)
        return jax.lax.scan(lambda state, _: algorithm.update(state), algorithm.init(KEY), None, updates)

    return quick_jit(jax.vmap(run))(jax.tree.map(lambda *leaves: jnp.stack(leaves), *variants))


def faulty(metrics):
    """Names of the metrics that stop a run."""
    return {name for name, stops in faults({name: np.asarray(x) for name, x in metrics.items()}).items() if stops.any()}


def is_finite(tree):
    return all(np.isfinite(x).all() for x in jax.tree.leaves(numbers(tree)) if np.issubdtype(x.dtype, np.floating))


@pytest.mark.parametrize("name", RUNS)
def test_a_simulator_that_diverges_stops_the_run_unless_it_terminates(name):
    env, fields = RUNS[name]
    variants = [env.params(time_limit=6, **ending) for ending in ({}, {"goes_on": True}, {"unpaid": True})]
    make = lambda params: jaxpg.make(name.split(",")[0], env, params, **fields)
    states, metrics = train(make, *variants)
    assert (metrics["episodes"].sum(1) > 0).all()
    assert not faulty(row(metrics, 0))
    state = row(states, 0)
    assert is_finite(state.params if name == "pqn" else state.learner)
    assert is_finite(state.observation_statistics if hasattr(state, "observation_statistics") else ())
    if hasattr(state, "buffer"):
        assert np.isnan(state.buffer.steps.next_observation).any(), "what the environment reported is kept as it was"
    assert faulty(row(metrics, 1)), "it goes on"
    assert "episode_return" in faulty(row(metrics, 2)), "a reward that is no number counts wherever it is paid"
    rewards, observations = metrics["nonfinite_rewards"], metrics["nonfinite_observations"]
    assert not rewards[0].any()
    assert not observations[0].any(), "behind a termination anything may be"
    assert observations[1].any()
    assert rewards[2, 0] > 0, "in the update in which it was collected"
    assert not observations[2, 0]


@struct.dataclass
class Levelled:
    """The parameters of a level."""

    level: Any


class DivergingLevels(DivergingChoices):
    """The choices, on levels that are all alike."""

    def __init__(self, level):
        super().__init__()
        self.level = level

    def sample_level(self, key):
        return self.level

    def reset(self, key, params):
        return super().reset(key, getattr(params, "level", params))

    def step(self, key, state, action, params):
        return super().step(key, state, action, params.level)


LIVES = {
    "num_envs": 4,
    "num_steps": 8,
    "hidden_sizes": (4,),
    "num_minibatches": 1,
    "lifetime": 3,
    "rule_size": 4,
    "num_bins": 2,
}
META = LIVES | {"num_agents": 2, "num_inner_updates": 1, "remat": False}
META_LEARNERS = {"evolved_rule": LIVES | {"num_pairs": 2}, "lpg": META, "groove": META | {"buffer_size": 4}}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.thorough] * (name != "evolved_rule")) for name in META_LEARNERS]
)
def test_meta_learners_do_the_same(name):
    variants = [Levelled(CONTINUOUS.params(time_limit=6, **ending)) for ending in ({}, {"goes_on": True}, {"unpaid": True})]
    make = lambda params: jaxpg.make(name, DivergingLevels(params.level), params, **META_LEARNERS[name])
    states, metrics = train(make, *variants, updates=4)
    assert not faulty(row(metrics, 0))
    assert is_finite(row(states, 0).rule)
    for number in (1, 2):
        assert faulty(row(metrics, number)), "it goes on"


def test_no_algorithm_is_forgotten():
    """Curricula have tests of their own, which say the same of each."""
    tested = {name.split(",")[0] for name in RUNS} | set(SEARCHES) | set(META_LEARNERS)
    entries = jaxpg.REGISTRY.values()
    assert tested == {entry.name for entry in entries if entry.field != "environment_design"}


GLITCHES = {
    "none": ({}, 0, 0),
    "unpaid": ({"unpaid": 2}, 2, 0),  # steps 0 1 2 0 1 2 0 1
    "infinite": ({"unpaid": 0, "number": jnp.inf}, 3, 0),
    "unseen": ({"unseen": 1}, 0, 6),  # led to by 0, left by 1
    "at the time limit": ({"unseen": 3}, 0, 2),
    "at the end": ({"unseen": 3, "ends": True}, 0, 0),
    "both": ({"unseen": 3, "unpaid": 3, "number": -jnp.inf}, 0, 2),
}


@pytest.mark.parametrize("name", ["a2c", "dqn", "pqn"])
def test_what_an_update_collects_that_is_no_number_is_counted(name):
    env = Glitches()
    variants = [env.params(**fault) for fault, *_ in GLITCHES.values()]
    sizes = RUNS[name][1] | {"num_envs": 4, "num_steps": 8}
    _, metrics = train(lambda params: jaxpg.make(name, env, params, **sizes), *variants, updates=1)
    np.testing.assert_array_equal(metrics["nonfinite_rewards"][:, 0], [4 * rewards for _, rewards, _ in GLITCHES.values()])
    np.testing.assert_array_equal(metrics["nonfinite_observations"][:, 0], [4 * seen for *_, seen in GLITCHES.values()])


# --- Quality diversity and curricula --------------------------------------------------------------------------------------


class Abyss(PointOmni):
    """Where x passes 0.01 the simulator breaks: observation, and if `lost` the descriptor, are NaN; the episode terminates."""

    lost = False

    def step_env(self, key, state, action, params):
        observation, state, reward, _, info = super().step_env(key, state, action, params)
        broken = state.position[0] > 0.01
        descriptor = jnp.where(broken & self.lost, jnp.nan, info["descriptor"])
        return jnp.where(broken, jnp.nan, observation), state, reward, broken, info | {"descriptor": descriptor}


class Lost(Abyss):
    lost = True


LEARNING = {"critic_hidden_sizes": (4,), "critic_steps": 3, "policy_gradient_steps": 2, "batch_size": 16}
SEARCH = {"num_cells": 16, "num_offspring": 8, "hidden_sizes": (4,), "total_steps": 8 * 6 * 20}
SEARCHES = {
    "map_elites": {},
    "cma_me": {"num_emitters": 2},
    "me_es": {"num_offspring": 9, "generations_per_elite": 2, "sigma": 0.1},
    "pga_map_elites": LEARNING,
    "dcg_map_elites": LEARNING | {"actor_hidden_sizes": (4,)},
    "dcrl_map_elites": LEARNING,
}


def search(name, env, updates):
    """Trains; checks that the run went on, that every offspring was counted, and that nothing but numbers was kept."""
    fields = SEARCH | SEARCHES[name]
    params = env.default_params.replace(max_steps_in_episode=6, half_width=0.2)
    states, metrics = train(lambda _: jaxpg.make(name, env, params, **fields), jnp.int32(0), updates=updates)
    assert not faulty(metrics)
    np.testing.assert_array_equal(metrics["episodes"] + metrics["rejected"], fields["num_offspring"])
    repertoire = states.repertoire
    assert is_finite((repertoire.genotypes, repertoire.descriptors, repertoire.fitnesses[repertoire.fitnesses > -np.inf]))
    emitter = states.emitter.learner if hasattr(states.emitter, "learner") else states.emitter
    assert not any(np.isnan(x).any() for x in jax.tree.leaves(numbers(emitter)))
    return states, metrics


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_goes_on_where_controllers_break_the_simulator(name):
    env = Abyss() if name == "dcg_map_elites" else Lost()  # without a descriptor there would be nothing to learn from
    _, metrics = search(name, env, updates=4)
    if env.lost:
        assert metrics["rejected"].max() > 0
    else:
        assert metrics["episode_length"].min() < 6
        assert not metrics["rejected"].any(), "whoever fell has a fitness and a descriptor"


class Mirage(PointOmni):
    """Where x passes 0.01 only the observation is NaN: the episode goes on, and takes actions that are NaN for zeros."""

    def step_env(self, key, state, action, params):
        observation, state, *rest = super().step_env(key, state, jnp.nan_to_num(action), params)
        return jnp.where(state.position[0] > 0.01, jnp.nan, observation), state, *rest


@pytest.mark.parametrize("name", ["me_es", "pga_map_elites"])
def test_who_acts_on_what_is_no_number_is_no_elite_and_no_teacher(name):
    states, metrics = search(name, Mirage(), updates=2)
    assert (metrics["rejected"] > 0).all()
    assert (states.repertoire.descriptors[..., 0] <= 0.02).all()
    if name == "pga_map_elites":
        assert is_finite(states.emitter.memory)
        assert 6 * metrics["episodes"].sum() < states.emitter.memory.count[0] < 6 * 8 * 2, "steps before it are remembered"


class Logarithms(Environment):
    """One step that pays -log(action[0]); log(action[1]) is the descriptor."""

    name = "Logarithms"

    class Params(NamedTuple):
        max_steps_in_episode: int = 1

    def start(self, key, params):
        return {"action": jnp.ones(2)}

    def step(self, key, state, action, params):
        observation = self.observe(state)
        info = {"final_observation": observation, "descriptor": jnp.log(action[1:])}
        return observation, state, -jnp.log(action[0]), jnp.bool_(True), jnp.bool_(False), info

    def observe(self, state):
        return jnp.zeros(1)

    def observation_space(self, params):
        return Box(0.0, 1.0, (1,))

    def action_space(self, params):
        return Box(-1.0, 1.0, (2,))

    def descriptor_bounds(self, params):
        return jnp.full(1, -1.0), jnp.ones(1)


def test_offspring_that_are_rejected_are_counted_and_leave_no_trace():
    """NaN and both infinities, as fitness or descriptor, beside one that gets in: as if it were alone."""
    task = as_task("a test", Logarithms(), Logarithms.Params())
    config = QualityDiversityConfig(num_cells=4, num_offspring=6, total_steps=60)
    offspring = jnp.array([[-1.0, 1], [0, 1], [0.5, 0], [0.5, -1], [0.5, 0.5], [1, 1]])
    alone = jnp.broadcast_to(jnp.array([0.5, 0.5]), (6, 2)).at[-1].set(1.0)

    @quick_jit
    def generation(genotypes):
        emitter = Emitter({"all": 6}, lambda *_: (genotypes[:, None], untargeted(6, task)))
        algorithm = as_algorithm(config, task, open_loop_controller(task), emitter)
        return algorithm.update(algorithm.init(KEY)._replace(updates=jnp.int32(1)))

    state, metrics = generation(offspring)
    expected, all_count = generation(alone)
    assert_same(state.repertoire, expected.repertoire)
    assert state.repertoire.filled.sum() == 2
    counts = {"rejected": 4, "episodes": 2, "added_by_all": 2, "coverage": 0.5, "episode_length": 1}
    assert {name: float(metrics[name]) for name in counts} == counts
    for name, value in {"max_fitness": 1, "qd_score": 1, "episode_return": 0.5}.items():
        np.testing.assert_allclose(metrics[name], value * np.log(2), rtol=1e-6)
    assert (float(all_count["rejected"]), float(all_count["episodes"])) == (0, 6)


@pytest.mark.parametrize("name", ["cma_me", "me_es"])
def test_a_strategy_outlives_offspring_that_are_rejected(name):
    fields = {key: value for key, value in (SEARCH | SEARCHES[name]).items() if key != "hidden_sizes"}
    algorithm = jaxpg.make(name, Logarithms(), Logarithms.Params(), **fields, controller="open_loop")
    update = quick_jit(algorithm.update)
    state, metrics = update(update(algorithm.init(KEY))[0])
    emitter = state.emitter
    if name == "cma_me":
        emitter = emitter._replace(offspring=emitter.offspring.at[:, 0].set(0.0).at[1, 1].set(-1.0))
        offspring = emitter.offspring.reshape(8, 2)
    else:  # whose first is the one by which novelty is measured
        emitter = emitter._replace(latest=-jnp.ones((1, 2)), mean=jnp.full((1, 2), 0.1))
        change = 0.1 * emitter.noise
        offspring = jnp.concatenate([emitter.latest[None], emitter.mean + change, emitter.mean - change])[:, 0]
    broken = (offspring <= 0).any(1).sum()
    assert 0 < broken < len(offspring)
    state, metrics = update(state._replace(emitter=emitter))
    assert metrics["rejected"] == broken
    assert not any(np.isnan(x).any() for x in jax.tree.leaves(numbers(state.emitter)))
    assert not faulty({name: x[None] for name, x in metrics.items()})


def test_steps_with_what_is_no_number_are_not_remembered():
    """But for what is reported behind a termination: each step of one episode has another fault."""
    task = as_task("a test", PointOmni(), PointOmni().default_params)
    config = GradientConfig(num_offspring=4, total_steps=64, buffer_size=32, hidden_sizes=(2,), critic_hidden_sizes=(2,))
    network = controller_network(task, (2,))
    good = Steps(*(jnp.ones((7, 1, size)) for size in (task.observation_size, 2)), *[jnp.ones((7, 1))] * 4)
    good = good._replace(next_features=good.features, terminated=jnp.zeros((7, 1), bool), valid=jnp.ones((7, 1), bool))
    steps = good._replace(
        features=good.features.at[1, 0, 0].set(jnp.nan),
        action=good.action.at[2, 0, 1].set(jnp.nan),
        reward=good.reward.at[3, 0].set(jnp.inf),
        next_features=good.next_features.at[4, 0, 0].set(jnp.nan).at[5, 0].set(jnp.nan),
        terminated=good.terminated.at[5, 0].set(True),
        valid=good.valid.at[6, 0].set(False),
    )
    achieved = jnp.zeros((1, 2))
    for kernel_length in (None, 0.1):
        learning = gradients(config, task, network, network, 16, kernel_length)
        empty = learning.init(KEY).memory
        assert learning.remember(empty, good, achieved, achieved).count == 7
        memory = learning.remember(empty, steps, achieved, achieved)
        assert memory.count == 2
        assert np.isfinite(memory.rows[0]).all()
        assert np.isnan(memory.rows[1]).any(), "behind the end"


class Collapsing(GridWorld):
    """An episode terminates after three steps in a cave that is NaN; if `unpaid`, so is the reward."""

    unpaid = False

    def step_env(self, key, state, action, params):
        observation, state, reward, _, info = super().step_env(key, state, action, params)
        ended = state.time >= 3
        reward = jnp.where(ended & self.unpaid, jnp.nan, reward)
        return jax.tree.map(lambda x: jnp.where(ended, jnp.nan, x), observation), state, reward, ended, info


@pytest.mark.parametrize("name", ["plr", "paired"])
def test_a_curriculum_goes_on_where_levels_break_the_simulator(name):
    cave, params = cave_escape(5, 12)
    env = Collapsing.__new__(Collapsing)
    env.__dict__.update(cave.__dict__)
    params = params.replace(level=jax.vmap(cave.sample_level)(jax.random.split(KEY, 6)))
    sizes = {"num_envs": 4, "num_steps": 8, "num_epochs": 1, "hidden_sizes": (4,), "memory": "none", "total_steps": 4096}
    sizes |= {"num_walls": 3} if name == "paired" else {}

    def make(unpaid):
        env.unpaid = unpaid
        return jaxpg.make(name, env, params, **sizes)

    states, metrics = train(make, jnp.bool_(False), jnp.bool_(True), updates=3)
    assert metrics["episodes"][0].sum() > 0
    assert not faulty(row(metrics, 0))
    assert is_finite(row(states, 0).learner)
    assert not metrics["nonfinite_observations"][0].any()
    assert not metrics["nonfinite_rewards"][0].any()
    rollouts = 2 if name == "paired" else 1  # of four levels, two episodes of three steps and a bit
    assert metrics["nonfinite_rewards"][1, 0] == rollouts * 4 * 2


class Unknown(GridWorld):
    """After three steps on a level that is not among `known`, observations are NaN, and the episode goes on."""

    def step_env(self, key, state, action, params):
        observation, state, *rest = super().step_env(key, state, action, params)
        is_known = (params.level.layout == self.known).all((-2, -1)).any()
        lost = (state.time >= 3) & ~is_known
        return jax.tree.map(lambda x: jnp.where(lost, jnp.nan, x), observation), state, *rest


def test_levels_that_are_only_looked_at_stop_a_run_too():
    cave, params = cave_escape(5, 12)
    levels = jax.vmap(cave.sample_level)(jax.random.split(KEY, 6))
    env = Unknown.__new__(Unknown)
    env.__dict__.update(cave.__dict__, known=levels.layout)
    sizes = {"num_envs": 4, "num_steps": 8, "num_epochs": 1, "hidden_sizes": (4,), "memory": "none", "total_steps": 4096}
    sizes |= {"levels": "dataset", "buffer_size": 16}
    make = lambda _: jaxpg.make("accel", env, params.replace(level=levels), **sizes)
    states, metrics = train(make, jnp.int32(0), updates=1)
    assert is_finite(states.learner)
    assert faulty(metrics) == {"proposed_value_l1", "nonfinite_observations"}
    assert metrics["nonfinite_observations"] > 0
    assert not metrics["nonfinite_rewards"].any()


def test_an_antagonist_that_is_lost_stops_a_run():
    """It shows in no return, and no gradient leads from it to the student."""
    cave, params = cave_escape(5, 12)
    sizes = {"num_envs": 4, "num_steps": 8, "num_epochs": 1, "hidden_sizes": (4,), "memory": "none", "num_walls": 3}
    algorithm = jaxpg.make("paired", cave, params, **sizes)

    def update(key):
        state = algorithm.init(key)
        lost = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), state.antagonist.params)
        return algorithm.update(state._replace(antagonist=state.antagonist._replace(params=lost)))

    state, metrics = quick_jit(update)(KEY)
    assert is_finite(state.learner)
    assert faulty(jax.tree.map(lambda x: x[None], metrics)) == {"antagonist_parameter_norm"}


# --- Gradients through the successor --------------------------------------------------------------------------------------


def test_the_gradient_of_a_value_behind_a_termination_is_zero():
    """What a product with 0 would not do: 0 times NaN is NaN in the backward pass as well."""
    observation = {"a": jnp.array([[1.0, 2.0], [3.0, 4.0]]), "b": jnp.array([1.0, 2.0])}
    following = {"a": jnp.array([[jnp.nan, jnp.inf], [5.0, 6.0]]), "b": jnp.array([jnp.nan, 3.0])}
    terminated = jnp.array([True, False])

    def target(weights):
        seen = existing_successors(following, observation, terminated)
        value = jnp.tanh(seen["a"] @ weights + seen["b"])
        return (jnp.ones(2) + (1.0 - terminated) * value).sum()

    weights = jnp.array([0.1, -0.2])
    expected = jax.grad(lambda w: jnp.tanh(jnp.array([5.0, 6.0]) @ w + 3.0))(weights)
    np.testing.assert_allclose(jax.grad(target)(weights), expected, rtol=1e-6)


def test_training_can_be_differentiated_where_the_simulator_broke():
    """A meta-gradient goes through the values of successors, also of those that there are not."""
    env, fields = RUNS["a2c"]
    params = env.params(time_limit=6)

    def loss(discount):
        algorithm = jaxpg.make("a2c", env, params, **fields, discount=discount)
        state, metrics = jax.lax.scan(lambda state, _: algorithm.update(state), algorithm.init(KEY), None, 4)
        return sum(jnp.square(x).sum() for x in jax.tree.leaves(state.learner.params)), metrics["episodes"].sum()

    gradient, episodes = quick_jit(jax.grad(loss, has_aux=True))(0.9)
    assert episodes > 0
    assert np.isfinite(gradient)
    assert gradient != 0
