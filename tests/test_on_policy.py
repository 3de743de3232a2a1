"""What every on-policy algorithm does alike: states that keep their shapes, memories that agree with themselves, spaces of any
kind."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import assert_close, quick_jit, row
from environments import Box, Cycle, Discrete, Walk

import jaxpg
from jaxpg.algorithm import InputError, configure
from jaxpg.algorithms.online.a2c import A2CConfig
from jaxpg.networks import recall
from jaxpg.on_policy import Behaviour, make_actor, make_network
from jaxpg.rollout import init_rollout

ON_POLICY = ("a2c", "impala", "pmoe_ppo", "ppo", "reinforce", "trpo")
WALK, KEY = Walk(), jax.random.key(0)
SMALL = {"num_envs": 4, "num_steps": 6, "hidden_sizes": (4,), "total_steps": 96}


def small(name, env, params, **fields):
    has_minibatches = name in ("ppo", "pmoe_ppo", "trpo")
    sizes = SMALL | ({"num_minibatches": 2} if has_minibatches else {})
    sizes |= {"memory_size": 5} if fields.get("memory", "none") != "none" else {}
    return jaxpg.make(name, env, params, **sizes, **fields)


@pytest.mark.parametrize("memory", ["none", "gru", "lstm"])
@pytest.mark.parametrize("name", ON_POLICY)
def test_an_update_keeps_the_state_in_shape(name, memory):
    """Shapes, dtypes and weak types: what a scan demands, and what keeps a second call from tracing again."""
    algorithm = small(name, WALK, WALK.params(), memory=memory)
    before = jax.eval_shape(algorithm.init, KEY)
    after, metrics = jax.eval_shape(algorithm.update, before)
    describe = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)
    assert describe(after) == describe(before)
    assert {x.shape for x in metrics.values()} == {()}
    assert {"episodes", "episode_return", "episode_length", "gradient_norm", "parameter_norm"} <= set(metrics)
    assert ("memory" in before.learner.params) == (memory != "none")


@pytest.mark.parametrize("name", ON_POLICY)
def test_a_second_update_or_evaluation_traces_nothing(name):
    env = Walk()
    algorithm = small(name, env, env.params())
    init, update = quick_jit(algorithm.init), quick_jit(algorithm.update)
    evaluate = quick_jit(lambda state: jaxpg.evaluate(algorithm.policy(state), env, env.params(), KEY, 2))
    state, traces = init(KEY), []
    for _ in range(3):
        state, _ = update(state)
        evaluate(state)
        traces.append(env.traces)
    assert traces[0] > 0
    assert traces[1:] == traces[:1] * 2
    assert update._cache_size() == evaluate._cache_size() == 1


class Collected:
    """Two rollouts in a row of a policy with a memory, episodes of 1 to 5 steps, and what the learner makes of the second."""

    def __init__(self, cell):
        self.config = configure("a2c", A2CConfig, SMALL | {"memory": cell, "num_steps": 12, "normalize_rewards": False})
        self.network = make_network("a2c", self.config, WALK, WALK.params())
        self.actor = actor = make_actor(self.config, WALK, WALK.params(), self.network)

        def collect(key):
            learner = actor.init(key, lambda params: ())
            # Initially the policy hardly depends on anything: larger weights make what it remembers show.
            learner = learner._replace(params=jax.tree.map(lambda x: 3.0 * x, learner.params))
            start = init_rollout(key, WALK, WALK.params(), 4, initial_carry=self.network.initial_carry)
            middle, _ = actor.collect(jax.random.key(1), learner, start, WALK.params())
            _, transitions = actor.collect(jax.random.key(2), learner, middle, WALK.params())
            return learner, middle, transitions, actor.appraise(learner, transitions)[1]

        self.learner, self.middle, self.transitions, self.experience = quick_jit(collect)(KEY)


@pytest.fixture(scope="module", params=["gru", "lstm"])
def collected(request):
    return Collected(request.param)


def test_memories_recalled_are_the_memories_of_acting(collected):
    """Along a rollout that begins within episodes, from its first carry alone: the same log-probabilities and values."""
    network, params, e = collected.network, collected.learner.params, collected.experience
    assert 4 < e.starts.sum() < 40
    assert any(np.abs(x).max() > 0.01 for x in jax.tree.leaves(e.carry))

    def of(params, carry, starts):
        contexts = recall(network, params, carry, e.features, starts)
        return network.distribution(params, contexts).log_prob(e.action), network.value(params, contexts)

    recalled = quick_jit(of)
    assert_close(recalled(params, e.carry, e.starts), (e.log_prob, e.value), rtol=1e-4, atol=1e-4)
    # It would show if memories were not set back, or the carry had been forgotten.
    forgotten = jax.tree.map(jnp.zeros_like, e.carry)
    for carry, starts in ((e.carry, jnp.zeros_like(e.starts)), (forgotten, e.starts)):
        assert np.abs(recalled(params, carry, starts)[0] - e.log_prob).max() > 0.003


def test_a_policy_that_acts_alone_remembers_as_in_a_rollout(collected):
    """From the observations of an environment, until its episode ends: the memories with which the rollout's steps began."""
    policy, t = collected.actor.policy(collected.learner), collected.transitions
    act = quick_jit(lambda observation, carry: policy.act(policy.params, KEY, observation, carry)[1])
    env = int(np.argmax(np.asarray(t.done).argmax(0)))  # where the first end is the latest
    end = int(np.asarray(t.done)[:, env].argmax())
    assert end > 1
    carry = row(t.extras.carry, 0, env)
    for time in range(end):
        carry = act(t.observation[time, env], carry)
        assert_close(carry, row(t.extras.carry, time + 1, env), rtol=1e-4, atol=1e-5)


def test_values_of_successors_remember_the_step_before(collected):
    """Within an episode the next value is the value of the next step; at a time limit it is that of the final observation."""
    e, transitions, network = collected.experience, collected.transitions, collected.network
    done = np.asarray(transitions.done)
    np.testing.assert_allclose(
        np.asarray(e.next_value)[:-1][~done[:-1]], np.asarray(e.value)[1:][~done[:-1]], rtol=1e-4, atol=1e-5
    )
    assert np.abs(np.asarray(e.next_value)[:-1][done[:-1]] - np.asarray(e.value)[1:][done[:-1]]).max() > 0.01
    cut = np.asarray(transitions.truncated & ~transitions.terminated)
    time, env = (int(i[0]) for i in np.nonzero(cut))
    behaviour: Behaviour = transitions.extras
    step = quick_jit(lambda *x: network.remember(collected.learner.params, *x))
    carry, _ = step(row(behaviour.carry, time, env), e.features[time, env])
    # Statistics of no observation normalise by 1.
    _, context = step(carry, jnp.clip(transitions.next_observation[time, env] / np.sqrt(1 + 1e-8), -10, 10))
    value = quick_jit(network.value)(collected.learner.params, context)
    np.testing.assert_allclose(e.next_value[time, env], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("memory", ["none", "gru"])
def test_values_of_successors_where_few_were_cut(memory):
    """Then most are read from the next step: the same values as when every successor is evaluated."""
    config = configure("a2c", A2CConfig, SMALL | {"memory": memory, "num_steps": 12})
    params = WALK.params(time_limit=100)
    network = make_network("a2c", config, WALK, params)
    actor = make_actor(config, WALK, params, network)

    def appraise(key):
        learner = actor.init(key, lambda params: ())
        start = init_rollout(key, WALK, params, 4, initial_carry=network.initial_carry)
        _, transitions = actor.collect(key, learner, start, params)
        # The flag alone, of steps within episodes: what happened stays as it was.
        flag = lambda steps: transitions._replace(truncated=transitions.truncated.at[:steps].set(True))
        next_value = lambda transitions: actor.appraise(learner, transitions)[1].next_value
        both = jax.vmap(next_value)(jax.tree.map(lambda *x: jnp.stack(x), flag(1), flag(2)))
        return transitions, next_value(transitions), next_value(flag(1)), next_value(flag(2)), both

    transitions, *values, both = quick_jit(appraise)(KEY)
    terminated = np.asarray(transitions.terminated)
    assert not transitions.truncated.any()
    assert 2 < terminated[2:-1].sum() < 30
    shared, few, evaluated = values  # 4 of 48 steps are few, 8 are not
    for some in (shared, few, *both):
        assert_close(some[~terminated], evaluated[~terminated], rtol=1e-4, atol=1e-5)
    # What tells the branches apart: after an end, one holds the value of the next episode's start. Among a batch in which
    # too many were cut, every successor is evaluated.
    for some in (shared, few):
        assert np.abs(some - evaluated)[2:-1][terminated[2:-1]].max() > 1e-3
    assert_close(both[0], evaluated, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_minibatches_of_sequences_begin_with_their_own_memories(cell):
    """A policy that does not move has ratio 1 in every minibatch, also where a rollout begins within an episode."""
    algorithm = small("ppo", WALK, WALK.params(), memory=cell, learning_rate=0.0, num_epochs=2)

    def second_update(key):
        state = algorithm.init(key)
        # Initially the policy hardly depends on anything: larger weights make what it remembers show.
        larger = jax.tree.map(lambda x: 10.0 * x, state.learner.params)
        state = state._replace(learner=state.learner._replace(params=larger))
        return algorithm.update(algorithm.update(state)[0])[1]

    metrics = quick_jit(second_update)(KEY)
    assert abs(metrics["approximate_kl"]) < 1e-6
    assert metrics["clip_fraction"] == 0


# --- Spaces ------------------------------------------------------------------------------------------------------------


class Switches(Cycle):
    """A dictionary is observed, and three switches of 2, 3 and 4 positions set at once; pays the share set to the place."""

    def move(self, key, state, action, params):
        moved, _, ended = super().move(key, state, action, params)
        return moved, (action == state["place"]).mean(), ended

    def observe(self, state):
        return {"place": state["place"], "picture": jnp.ones((2, 2)) * state["place"]}

    def observation_space(self, params):
        return SimpleNamespace(spaces={"place": Discrete(2), "picture": Box(0, 1, (2, 2))})

    def action_space(self, params):
        return SimpleNamespace(nvec=(2, 3, 4))


@pytest.mark.parametrize("name", sorted(set(ON_POLICY) - {"pmoe_ppo"}))
def test_dictionaries_and_several_actions_at_once(name):
    env = Switches(2)
    params = env.params([0.0, 0.0], 10)
    algorithm = small(name, env, params)
    state, _ = jax.eval_shape(lambda key: algorithm.update(algorithm.init(key)), KEY)
    assert state.learner.observation_statistics.mean.shape == (6,)
    assert jax.eval_shape(lambda s: jaxpg.evaluate(algorithm.policy(s), env, params, KEY, 3), state).shape == (3,)


def test_several_switches_are_learned():
    """All set right pays 10 an episode; at random 10 * (1/2 + 1/3 + 1/4) / 3 = 3.6."""
    env = Switches(2)
    params = env.params([0.0, 0.0], 10)
    sizes = {"num_envs": 16, "num_steps": 16, "num_epochs": 4, "num_minibatches": 4, "hidden_sizes": (8,)}
    algorithm = jaxpg.make("ppo", env, params, learning_rate=2e-2, total_steps=40 * 256, **sizes)
    state, _ = quick_jit(lambda key: jaxpg.train(algorithm, key))(KEY)
    returns = quick_jit(lambda s: jaxpg.evaluate(algorithm.policy(s), env, params, KEY, 16))(state)
    np.testing.assert_allclose(returns, 10.0, rtol=1e-5)


# --- Mistakes ----------------------------------------------------------------------------------------------------------


def test_sequences_that_do_not_divide_are_refused():
    with pytest.raises(InputError, match=r"num_envs = 4 sequences for the memory does not divide into num_minibatches = 3"):
        jaxpg.make("ppo", WALK, WALK.params(), **SMALL, num_minibatches=3, memory="gru")
    with pytest.raises(InputError, match=r"= 4 \* 6 = 24 steps does not divide into num_minibatches = 5.* is (4|6)"):
        jaxpg.make("trpo", WALK, WALK.params(), **SMALL, num_minibatches=5)
