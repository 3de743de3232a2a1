"""Populations of agents that learn by one rule: whose life ends, on which level the next one lives, and rules by evolution."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import assert_close, assert_same, quick_jit, row

import jaxpg
import jaxpg_envs
from jaxpg.algorithms.meta_learning import evolved_rule, lpg
from jaxpg.algorithms.meta_learning.antagonist import make_antagonist
from jaxpg.algorithms.meta_learning.lives import Lives, make_living
from jaxpg.algorithms.meta_learning.meta_gradient import Outlook, mean_gradient
from jaxpg_envs.grid_worlds_levels import GridWorldsLevel

KEY = jax.random.key(0)
ENV, PARAMS = jaxpg_envs.make("GridWorlds-v0", levels="small")
AGENTS, K, LIFETIME, ENDINGS, CAPACITY = 4, 2, 4, 2, 16
RULES = {"num_envs": 2, "num_steps": 3, "lifetime": LIFETIME, "rule_size": 8, "num_bins": 3, "num_minibatches": 2}
SIZES = RULES | {"num_agents": AGENTS, "num_inner_updates": K, "max_endings": ENDINGS, "meta_learning_rate": 0.01}
REPLAY = SIZES | {"max_endings": AGENTS, "buffer_size": CAPACITY, "replay_probability": 1.0}
EVOLVED = RULES | {"num_pairs": 3, "noise": 0.1, "meta_learning_rate": 0.01}


@cache
def compiled():
    """`(algorithm, init, update)` of LPG, compiled once for all tests."""
    algorithm = jaxpg.make("lpg", ENV, PARAMS, **SIZES)
    return algorithm, quick_jit(algorithm.init), quick_jit(algorithm.update)


def with_lifetimes(state, lifetimes):
    return state._replace(lives=state.lives._replace(lifetime=jnp.asarray(lifetimes, jnp.int32)))


def over(state):
    """Whose lives the next update ends."""
    return np.flatnonzero(state.lives.learner.step + K >= state.lives.lifetime)


def same_life(after, before, index):
    assert_same(*(row(state.lives._replace(lifetime=()), index) for state in (after, before)))


# --- Lives ----------------------------------------------------------------------------------------------------------------


def test_who_is_at_the_end_of_its_life_makes_room_and_nobody_else():
    """Of others, the update is that of agents who have long to live, to the bit."""
    _, init, update = compiled()
    state, endings = with_lifetimes(init(KEY), [3, 1, 6, 8]), []
    for _ in range(5):
        before, ended = state, over(state)
        state, metrics = update(before)
        undisturbed, _ = update(with_lifetimes(before, before.lives.lifetime + 100))
        assert metrics["ended_lives"] == len(ended)
        for index in range(AGENTS):
            new, old = row(state.lives, index), row(before.lives, index)
            if index not in ended:
                same_life(state, undisturbed, index)
                assert new.lifetime == old.lifetime
                continue
            assert (int(new.learner.step), int(new.lifetime)) == (0, LIFETIME)
            assert (new.level.reward != old.level.reward).any()
            assert (jax.tree.leaves(new.learner.actor)[0] != jax.tree.leaves(old.learner.actor)[0]).any()
            assert (jax.tree.leaves(new.critic)[0] != jax.tree.leaves(old.critic)[0]).any()
            assert new.rollout.episodes.completed == 0
        endings.append(ended.tolist())
    assert endings == [[1], [0], [1, 2], [0, 3], [1, 2]]


def test_who_cannot_end_its_life_yet_waits_as_it_is():
    """All at once, of whom two may end: the others are as they were when their lives were over."""
    _, init, update = compiled()
    first, metrics = update(with_lifetimes(init(KEY), [1] * AGENTS))
    assert metrics["ended_lives"] == ENDINGS
    assert first.lives.learner.step.tolist() == [0, 0, 1, 1]
    second, _ = update(first)
    assert second.lives.learner.step.tolist() == [K, K, 0, 0]
    waiting, _ = update(with_lifetimes(first, [0, 0, 1, 1]))
    assert waiting.lives.learner.step.tolist() == [0, 0, 1, 1]
    for index in (2, 3):
        assert_same(row(waiting.lives.learner, index), row(first.lives.learner, index))


def test_first_lives_end_at_different_times():
    algorithm, _, _ = compiled()
    states = quick_jit(jax.vmap(algorithm.init))(jax.random.split(KEY, 64))
    counts = np.bincount(states.lives.lifetime.ravel(), minlength=LIFETIME + 1)
    assert counts.size == LIFETIME + 1
    assert counts[0] == 0
    np.testing.assert_allclose(counts[1:] / 256, 1 / LIFETIME, atol=4 * np.sqrt(0.25 * 0.75 / 256))


def test_the_rule_moves_by_the_step_size():
    """Adam's first step, wherever there is a gradient. Its loss: agents are to do well and stay curious, the rule modest."""
    _, init, update = compiled()
    state = init(KEY)
    after, metrics = update(state)
    steps = np.concatenate([np.ravel(x - y) for x, y in zip(*map(jax.tree.leaves, (after.rule, state.rule)), strict=True)])
    assert metrics["meta_gradient_norm"] > 0
    weights = {"policy_entropy": -0.05, "prediction_entropy": -0.001, "policy_target_l2": 0.005, "prediction_target_l2": 0.001}
    parts = sum(weight * metrics[name] for name, weight in weights.items())
    np.testing.assert_allclose(metrics["meta_loss"] - metrics["policy_loss"], parts, rtol=1e-3)
    assert np.abs(steps).max() == pytest.approx(SIZES["meta_learning_rate"], rel=1e-3)


@pytest.mark.parametrize("num_minibatches", [1, 3])
def test_the_gradient_is_the_mean_of_the_agents(num_minibatches):
    """Of agent i with level i the loss is level * rule^2 / 2, whatever the number of parts; what became of each is in order."""
    levels = jnp.arange(6.0)
    lives = Lives((), (), (), levels, jnp.arange(6, dtype=jnp.int32))

    def loss(rule, key, life, level):
        outlook = Outlook(*[life.level] * len(Outlook._fields))
        return level * jnp.square(rule) / 2, (life._replace(level=life.level + 10), outlook)

    keys = jax.random.split(KEY, 6)
    gradient, after, outlook = mean_gradient(loss, jnp.float32(3), keys, lives, lambda level: 2 * level, num_minibatches)
    assert gradient == pytest.approx(2 * 2.5 * 3)
    assert_same(after, lives._replace(level=levels + 10))
    np.testing.assert_array_equal(outlook.meta_loss, levels)


def test_seeds_side_by_side_are_the_seeds_alone():
    """Lives end in one of the two first, then in the other."""
    algorithm, init, update = compiled()
    alone = [with_lifetimes(init(jax.random.key(seed)), lifetimes) for seed, lifetimes in enumerate([[2] * 4, [4] * 4])]
    together, both = jax.tree.map(lambda *x: jnp.stack(x), *alone), quick_jit(jax.vmap(algorithm.update))
    for expected in ([ENDINGS, 0], [ENDINGS, ENDINGS]):
        together, metrics = both(together)
        alone = [update(state)[0] for state in alone]
        assert metrics["ended_lives"].tolist() == expected
        for index, state in enumerate(alone):
            assert_close(row(together, index), state, rtol=1e-3, atol=1e-4)


def test_groove_without_scores_is_lpg():
    """One program, from one start."""
    algorithm, _, _ = compiled()
    groove = jaxpg.make("groove", ENV, PARAMS, **SIZES | {"score": "uniform"})
    start = jax.eval_shape(algorithm.init, KEY)
    assert quick_jit(groove.init).lower(KEY).as_text() == quick_jit(algorithm.init).lower(KEY).as_text()
    assert quick_jit(groove.update).lower(start).as_text() == quick_jit(algorithm.update).lower(start).as_text()


# --- Scores and replay ----------------------------------------------------------------------------------------------------


def without_gradient(loss, rule_params, keys, lives, env_params_of, num_minibatches):
    """As `mean_gradient`, but the rule stays as it is."""
    one = lambda key, life: loss(rule_params, key, life, env_params_of(life.level))[1]
    return jax.tree.map(jnp.zeros_like, rule_params), *jax.vmap(one)(keys, lives)


def earned(key, learner, level):
    """In the place of an agent's return: its age, and what tells levels apart."""
    return learner.step + level.reward[0]


@pytest.fixture
def arithmetic(monkeypatch):
    """Returns that are known: agents earn `earned`, antagonists 100 for every update of their lives."""
    monkeypatch.setattr(lpg, "mean_gradient", without_gradient)
    monkeypatch.setattr(lpg, "make_living", lambda *args: make_living(*args)._replace(return_of=earned))
    monkeypatch.setattr(lpg, "make_antagonist", lambda *_: lambda key, env_params, lifetime: 100.0 * lifetime)


def test_levels_are_scored_when_lives_end_and_replayed(arithmetic):
    """Regret is what the antagonist earns in as long a life beyond what the agent does; all of it by hand."""
    algorithm = jaxpg.make("groove", ENV, PARAMS, **REPLAY)
    state, update = quick_jit(algorithm.init)(KEY), quick_jit(algorithm.update)
    state = with_lifetimes(state, [1, 2, 3, 3])
    known, tallies, rescored = {}, {"fresh": np.zeros(2), "replayed": np.zeros(2)}, 0
    name_of = lambda level, index: float(level.reward[index, 0])
    for _ in range(8):
        before, ended = state, over(state)
        state, metrics = update(before)
        found = {"fresh": [], "replayed": []}
        for index in ended:
            lifetime, level = int(before.lives.lifetime[index]), name_of(before.lives.level, index)
            score, slot = 100.0 * lifetime - (lifetime + level), int(before.slots[index])
            assert (level in known) == (slot < CAPACITY)
            found["replayed" if slot < CAPACITY else "fresh"].append(score)
            if slot < CAPACITY:
                assert name_of(state.buffer.level, slot) == level
                assert float(state.buffer.score[slot]) == pytest.approx(score)
                rescored += score != known[level]
            known[level] = score
        # The buffer is what has been scored, each level once with what it was last.
        slots = np.flatnonzero(state.buffer.seen)
        assert slots.size == len(known)
        in_buffer = {name_of(state.buffer.level, slot): float(state.buffer.score[slot]) for slot in slots}
        assert in_buffer == pytest.approx(known)
        # Nobody shares a slot, and whoever is on one lives on its level.
        taken = [int(slot) for slot in state.slots if slot < CAPACITY]
        assert len({*taken}) == len(taken)
        for index, slot in enumerate(state.slots):
            assert slot == CAPACITY or name_of(state.lives.level, index) == name_of(state.buffer.level, slot)
        waits = len(known) - sum(slot < CAPACITY for index, slot in enumerate(before.slots) if index not in ended)
        assert all((state.slots[index] < CAPACITY) == (waits >= AGENTS) for index in ended)
        for name, scores in found.items():
            if ended.size:
                tallies[name] = lpg.DECAY * tallies[name] + (sum(scores), len(scores))
            if tallies[name][1]:
                np.testing.assert_allclose(metrics[f"score_{name}"], tallies[name][0] / tallies[name][1], rtol=1e-4)
        assert metrics["buffer_filled"] == len(known) / CAPACITY
    assert rescored >= 2


def test_optimal_regret_is_what_the_best_policy_earns_beyond_the_agent(arithmetic):
    algorithm = jaxpg.make("groove", ENV, PARAMS, **REPLAY | {"score": "optimal_regret"})
    state = with_lifetimes(quick_jit(algorithm.init)(KEY), [1, 2, 3, 4])
    after, _ = quick_jit(algorithm.update)(state)
    levels, slots = row(state.lives.level, slice(2)), np.flatnonzero(after.buffer.seen)
    expected = jax.vmap(ENV.optimal_return)(levels) - jnp.array([1, 2]) - levels.reward[:, 0]
    assert slots.size == 2
    np.testing.assert_allclose(np.sort(after.buffer.score[slots]), np.sort(expected), rtol=1e-5, atol=1e-5)


def test_an_antagonist_learns_for_as_long_as_it_is_told():
    """A cell with an object of worth 1 that ends the episode, two steps away in the corner: in 4 steps at random, rarely."""
    side = PARAMS.level.walls.shape[0]
    walls = np.ones((side, side), bool)
    walls[:3, :3] = False
    kinds = np.zeros_like(PARAMS.level.reward)
    level = GridWorldsLevel(
        walls=walls,
        start=np.int32(0),
        objects=np.full_like(PARAMS.level.objects, 2),
        kind=np.zeros_like(PARAMS.level.kind),
        reward=kinds + 1,
        termination=kinds + 1,
        respawn=kinds,
        number=np.int32(1),
        size=np.int32(3),
        max_steps=np.int32(4),
        lifetime=np.int32(1),
    )
    lifetimes, params = jnp.array([0, 1, 40], jnp.int32), PARAMS.replace(level=level)
    stacked = jax.tree.map(lambda x: jnp.stack([jnp.asarray(x)] * lifetimes.size), params)

    def returns(learning_rate):
        config = lpg.LPGConfig(num_envs=32, num_steps=8, learning_rate=learning_rate)
        keys = jax.random.split(KEY, lifetimes.size)
        return jax.vmap(make_antagonist(config, ENV, params))(keys, stacked, lifetimes)

    still, learning = quick_jit(jax.vmap(returns))(jnp.array([0.0, 40.0]))
    # Of each the keys are its own, and so is who it is at first.
    assert learning[0] == still[0] < 0.45
    assert learning[1] != still[1]
    assert still[2] < 0.45 < 0.9 < learning[2]


# --- Evolution ------------------------------------------------------------------------------------------------------------


def evolve(monkeypatch, updates, **living):
    """Metrics of the updates, where lives are what is said."""
    monkeypatch.setattr(evolved_rule, "make_living", lambda *args: make_living(*args)._replace(**living))
    algorithm = jaxpg.make("evolved_rule", ENV, PARAMS, **EVOLVED)
    state, update, rows = quick_jit(algorithm.init)(KEY), quick_jit(algorithm.update), []
    for _ in range(updates):
        state, metrics = update(state)
        rows.append({name: float(value) for name, value in metrics.items()})
    return rows


def test_the_mean_goes_where_the_better_rule_of_each_pair_is(monkeypatch):
    """The fitness is one of the rule's numbers, so that the pairs' mean is the mean's; Adam's first step is the step size."""
    first = lambda key, rule_params, level: jax.tree.leaves(rule_params)[0].ravel()[0]
    one, two = evolve(monkeypatch, 2, grown=lambda rule_params, key, life: rule_params, return_of=first)
    assert one["decided_pairs"] == 1
    assert one["fitness_min"] < one["fitness_mean"] < one["fitness_max"]
    assert two["fitness_mean"] - one["fitness_mean"] == pytest.approx(EVOLVED["meta_learning_rate"], rel=1e-2)


def test_a_pair_is_of_one_level_and_one_start(monkeypatch):
    """Whoever has not learned is the same on both sides, and another one on every level."""
    start = lambda key, life, level: jax.tree.leaves(life.learner.actor)[0].sum() + level.reward[0] + level.start
    (metrics,) = evolve(monkeypatch, 1, grown=lambda rule_params, key, life: life, return_of=start)
    assert metrics["decided_pairs"] == 0
    assert metrics["fitness_min"] < metrics["fitness_max"]


def test_agents_live_to_the_end(monkeypatch):
    """And where all do alike, the mean stays."""
    age = lambda key, learner, level: learner.step.astype(jnp.float32)
    rows = evolve(monkeypatch, 1, return_of=age)
    assert rows == [{"fitness_mean": LIFETIME, "fitness_min": LIFETIME, "fitness_max": LIFETIME, "decided_pairs": 0}]
