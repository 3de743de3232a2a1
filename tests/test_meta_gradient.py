"""The meta-gradient of learned update rules, and what a rule reads."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from checks import assert_same, quick_jit
from environments import Box, Cycle, Discrete

import jaxpg_envs
from jaxpg.algorithms.meta_learning.lives import Lives
from jaxpg.algorithms.meta_learning.meta_gradient import MetaConfig, make_meta_gradient
from jaxpg.algorithms.meta_learning.rule_agent import AgentConfig, make_agent, make_optimizer
from jaxpg.algorithms.meta_learning.update_rule import Lived, Targets, UpdateRule
from jaxpg.rollout import EpisodeStatistics, RolloutState, Transition

TIME, ROWS, BINS, UPDATES = 4, 3, 3, 3
RULE = UpdateRule(hidden_size=5, num_bins=BINS)
KEY = jax.random.key(0)
CARTPOLE, PARAMS = jaxpg_envs.make("CartPole-v1")
SIZES = {"num_envs": ROWS, "num_steps": TIME, "num_inner_updates": UPDATES, "activation": "tanh", "max_gradient_norm": 0.05}
SIZES |= {"learning_rate": 0.5, "prediction_learning_rate": 0.3}


def lived(key, time=TIME):
    keys = jax.random.split(key, 4)
    predictions = jax.nn.softmax(jax.random.normal(keys[0], (2, time, ROWS, BINS)))
    never = jnp.zeros((time, ROWS), bool)
    return Lived(
        jax.random.normal(keys[1], (time, ROWS)), never, never, jax.random.uniform(keys[2], (time, ROWS)), *predictions
    )


def transitions(key, number):
    """Of CartPole's kind, with ends of both kinds."""
    keys = jax.random.split(key, 5)
    shape = (number, TIME, ROWS)
    return Transition(
        observation=jax.random.normal(keys[0], (*shape, 4)),
        action=jax.random.randint(keys[1], shape, 0, 2),
        reward=jax.random.normal(keys[2], shape),
        terminated=jnp.zeros(shape, bool).at[:, 1, 0].set(True),
        truncated=jnp.zeros(shape, bool).at[:, 2, 1].set(True),
        next_observation=jax.random.normal(keys[3], (*shape, 4)),
        extras=jax.random.randint(keys[1], shape, 0, 2),
    )


def replaying(agent, data):
    """The agent, who meets these transitions whatever it has become; the environments' state is how many it has met."""

    def collect(key, learner, state, env_params):
        return state._replace(env_state=state.env_state + 1), jax.tree.map(lambda x: x[state.env_state], data)

    return agent._replace(collect=collect)


def life_of(agent, meta, lifetime=10):
    zero = jnp.float32(0)
    start = RolloutState(jnp.int32(0), (), EpisodeStatistics(jnp.zeros(ROWS), jnp.zeros(ROWS, int), zero, zero, zero))
    return Lives(agent.init(jax.random.key(2)), start, meta.init_critic(jax.random.key(3)), (), jnp.int32(lifetime))


@pytest.mark.parametrize(("optimizer", "temporally_aware"), [("sgd", False), ("adam", True)])
def test_the_meta_gradient_is_that_of_finite_differences(optimizer, temporally_aware):
    """Through three updates of an agent, with rollouts that stay the same whatever the agent has become."""
    rule = UpdateRule(5, BINS, temporally_aware)
    config = MetaConfig(**SIZES, hidden_sizes=(4,), optimizer=optimizer)
    with jax.enable_x64(True):
        wide = lambda tree: jax.tree.map(lambda x: x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)
        data = wide(transitions(jax.random.key(1), UPDATES + 1))
        agent = replaying(make_agent("lpg", config, CARTPOLE, PARAMS, rule.apply, BINS), data)
        meta = make_meta_gradient(config, agent, jnp.zeros(4))
        eta, life = wide(rule.initial(jax.random.key(0))), wide(life_of(agent, meta))
        gradient = quick_jit(jax.grad(lambda eta: meta.loss(eta, KEY, life, PARAMS)[0]))(eta)
        # What the rule reads is data: in the differences it stays what the agent that learned by `eta` has lived.
        learner, read = life.learner, []
        for number in range(UPDATES):
            t = jax.tree.map(lambda x, number=number: x[number], data)
            read.append(agent.read(learner, t))
            learner, _ = quick_jit(agent.learn)(eta, learner, t, life.lifetime)
        read = jax.tree.map(lambda *x: jnp.stack(x), *read)
        recalled = lambda eta, _, step, lifetime: rule.apply(eta, jax.tree.map(lambda x: x[step], read), step, lifetime)
        same = replaying(make_agent("lpg", config, CARTPOLE, PARAMS, recalled, BINS), data)
        frozen = make_meta_gradient(config, same, jnp.zeros(4))
        loss = quick_jit(lambda eta: frozen.loss(eta, KEY, life, PARAMS)[0])
        flat, unravel = jax.flatten_util.ravel_pytree(eta)
        exact = jax.flatten_util.ravel_pytree(gradient)[0]
        assert jnp.abs(exact).max() > 1e-5
        for index in np.argsort(-np.abs(exact))[:6]:
            step = 1e-6 * jnp.zeros_like(flat).at[index].set(1.0)
            measured = (loss(unravel(flat + step)) - loss(unravel(flat - step))) / 2e-6
            np.testing.assert_allclose(exact[index], measured, rtol=1e-5, atol=1e-9)


def test_nothing_after_an_end_is_read_before_it():
    """Targets up to the end are the same whatever follows, and those after it are not; without the end all differ."""
    eta = RULE.initial(jax.random.key(0))
    apply = quick_jit(lambda lived: RULE.apply(eta, lived, jnp.int32(0), jnp.int32(1)))
    one, other = lived(jax.random.key(1)), lived(jax.random.key(2))
    spliced = jax.tree.map(lambda a, b: jnp.concatenate([a[:2], b[2:]]), one, other)
    for flag in ("terminated", "truncated"):
        ends = jnp.zeros((TIME, ROWS), bool).at[1, 0].set(True)
        with_end = {"done": ends} | ({"terminated": ends} if flag == "terminated" else {})
        a, b = (apply(x._replace(**with_end)) for x in (one, spliced))
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x[:2, 0], y[:2, 0])
            assert (jnp.abs(x[2:, 0] - y[2:, 0]) > 1e-6).all()
            assert (jnp.abs(x[:2, 1:] - y[:2, 1:]) > 1e-7).any()


def test_behind_a_time_limit_there_is_a_state_and_behind_a_termination_none():
    eta = RULE.initial(jax.random.key(0))
    apply = lambda lived: RULE.apply(eta, lived, jnp.int32(0), jnp.int32(1)).policy
    one = lived(jax.random.key(1))
    other = one._replace(next_prediction=one.next_prediction[..., ::-1])
    ends = jnp.ones((TIME, ROWS), bool)
    cut, over = ((apply(x._replace(done=ends)), apply(x._replace(done=ends, terminated=ends))) for x in (one, other))
    assert (jnp.abs(cut[0] - over[0]) > 1e-7).any()  # truncated: the prediction is read
    np.testing.assert_array_equal(cut[1], over[1])  # terminated: it is not
    assert (jnp.abs(cut[0] - cut[1]) > 1e-7).any()


def test_one_update_by_hand():
    """Of linear maps without bias, against the gradient of softmaxes; the rule says what it is told."""
    targets = Targets(jax.random.normal(KEY, (TIME, ROWS)), jax.nn.log_softmax(jax.random.normal(KEY, (TIME, ROWS, BINS))))
    config = AgentConfig(num_envs=ROWS, num_steps=TIME, learning_rate=0.5, prediction_learning_rate=0.3, max_gradient_norm=0.1)
    agent = make_agent("lpg", config, CARTPOLE, PARAMS, lambda *_: targets, BINS)
    t = jax.tree.map(lambda x: x[0], transitions(jax.random.key(1), 1))
    learner = agent.init(jax.random.key(2))
    after, measures = quick_jit(agent.learn)((), learner, t, jnp.int32(1))

    softmax = lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)
    x = np.asarray(t.observation, float).reshape(-1, 4)
    actor, critic = (np.asarray(jax.tree.leaves(params)[0], float) for params in (learner.actor, learner.critic))
    policy, y = softmax(x @ actor), softmax(x @ critic)
    taken = np.eye(2)[np.asarray(t.extras).ravel()]
    by_logits = np.asarray(targets.policy, float).reshape(-1, 1) * (taken - policy)
    apart = np.log(y) - np.asarray(targets.log_prediction, float).reshape(-1, BINS)
    by_bins = 0.5 * y * (apart - (y * apart).sum(-1, keepdims=True))
    for params, gradient, rate, start in ((after.actor, by_logits, 0.5, actor), (after.critic, by_bins, 0.3, critic)):
        gradient = x.T @ gradient / len(x)
        gradient *= min(1, 0.1 / np.linalg.norm(gradient))
        np.testing.assert_allclose(jax.tree.leaves(params)[0], start - rate * gradient, rtol=1e-4, atol=1e-6)
    updated = softmax(x @ np.asarray(jax.tree.leaves(after.actor)[0], float))
    np.testing.assert_allclose(measures.policy_entropy, -(updated * np.log(updated)).sum(-1).mean(), rtol=1e-5)
    np.testing.assert_allclose(measures.policy_target_l2, np.square(targets.policy).mean(), rtol=1e-5)
    np.testing.assert_allclose(measures.prediction_target_l2, np.exp(2 * targets.log_prediction).sum(-1).mean(), rtol=1e-5)


def test_tables_learn_as_linear_maps_of_one_hot_features_do():
    """On numbered states, of which the agent reads rows."""
    targets = Targets(jax.random.normal(KEY, (TIME, ROWS)), jax.nn.log_softmax(jax.random.normal(KEY, (TIME, ROWS, BINS))))
    table = make_agent("lpg", AgentConfig(), *cycle(True), lambda *_: targets, BINS)
    linear = make_agent("lpg", AgentConfig(), *cycle(False), lambda *_: targets, BINS)
    states = jax.random.randint(KEY, (2, TIME, ROWS), 0, 3)
    t = jax.tree.map(lambda x: x[0], transitions(jax.random.key(1), 1))
    learner = table.init(jax.random.key(2))
    found = []
    for agent, encode in ((table, lambda x: x), (linear, lambda x: jax.nn.one_hot(x, 3))):
        like = agent.init(KEY)
        same = jax.tree.unflatten(jax.tree.structure(like), jax.tree.leaves(learner))
        seen = t._replace(observation=encode(states[0]), next_observation=encode(states[1]))
        found.append(jax.tree.leaves(quick_jit(agent.learn)((), same, seen, jnp.int32(1))))
    assert len(found[0]) == len(found[1])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def cycle(numbered):
    """Three states and actions, seen as numbers or one-hot."""
    env = Cycle()
    space = Discrete(3) if numbered else Box(0, 1, (3,))
    return SimpleNamespace(observation_space=lambda params: space, action_space=env.action_space), env.params([1.0], 3)


def test_whose_life_is_over_stays_to_the_bit():
    config = MetaConfig(**SIZES, hidden_sizes=(4,), optimizer="adam")
    agent = replaying(make_agent("lpg", config, CARTPOLE, PARAMS, RULE.apply, BINS), transitions(KEY, UPDATES + 1))
    meta = make_meta_gradient(config, agent, jnp.zeros(4))
    grow = quick_jit(lambda life: meta.loss(RULE.initial(KEY), KEY, life, PARAMS)[1][0].learner)
    life = life_of(agent, meta)
    lived = {lifetime: grow(life._replace(lifetime=jnp.int32(lifetime))) for lifetime in (0, 2, 3, 10)}
    assert {lifetime: int(learner.step) for lifetime, learner in lived.items()} == {0: 0, 2: 2, 3: 3, 10: 3}
    assert_same(lived[0], life.learner)
    assert_same(lived[3], lived[10])
    assert not np.array_equal(jax.tree.leaves(lived[2].actor)[0], jax.tree.leaves(lived[3].actor)[0])


def test_the_legacy_switches_do_as_the_released_code_does():
    """Advantages (T, 1) times log-probabilities (T,), whose product is (T, T); a critic that does not learn."""
    data = transitions(KEY, UPDATES + 1)
    found = {}
    for switch in ({}, {"legacy_row_advantage": True}, {"legacy_frozen_critic": True}, {"remat": False}):
        config = MetaConfig(**SIZES, hidden_sizes=(4,), **switch)
        agent = replaying(make_agent("lpg", config, CARTPOLE, PARAMS, RULE.apply, BINS), data)
        meta = make_meta_gradient(config, agent, jnp.zeros(4))
        start = life_of(agent, meta)
        run = lambda eta, meta=meta, start=start: meta.loss(eta, KEY, start, PARAMS)
        is_legacy = any(name.startswith("legacy") for name in switch)
        gradient = (lambda eta, run=run: (None, run(eta)[1])) if is_legacy else jax.grad(run, has_aux=True)
        found[tuple(switch)] = *quick_jit(gradient)(RULE.initial(KEY)), start, agent
    plain, rows, frozen, whole = found.values()
    for one, other in zip(*map(jax.tree.leaves, (plain[0], whole[0])), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    assert_same(frozen[1][0].critic, frozen[2].critic)
    assert not np.array_equal(jax.tree.leaves(plain[1][0].critic)[0], jax.tree.leaves(plain[2].critic)[0])
    life, outlook = rows[1]
    t = jax.tree.map(lambda x: x[-1], data)
    log_probs = np.asarray(rows[3].log_prob(life.learner.actor, t), float)
    # The loss is that of credit that is the same in a row: without the mean of a row, nothing of it would be left.
    credit = credit_of(rows[2], data, MetaConfig(**SIZES, hidden_sizes=(4,)))
    product = np.mean([np.outer(credit[:, row], log_probs[:, row]).mean() for row in range(ROWS)])
    np.testing.assert_allclose(outlook.policy_loss, -product, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(plain[1][1].policy_loss, -(credit * log_probs).mean(), rtol=1e-4, atol=1e-6)


def credit_of(start, data, config):
    """Normalised advantages of the last transitions, by a critic that has learned from those before, one step on each."""
    agent = make_agent("lpg", config, CARTPOLE, PARAMS, RULE.apply, BINS)
    module, (params, state) = agent.critic(1), start.critic
    for number in range(UPDATES + 1):
        t = jax.tree.map(lambda x, number=number: x[number], data)
        values, following = (module.apply(params, x)[..., 0] for x in (t.observation, t.next_observation))
        advantages, targets = advantages_by_hand(t, np.asarray(values), np.asarray(following), config)
        if number == UPDATES:
            return (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        loss = lambda params, t=t, targets=targets: jnp.square(module.apply(params, t.observation)[..., 0] - targets).mean()
        changes, state = agent.optimizer.update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, changes)


def advantages_by_hand(t, values, following, config):
    """By hand, step by step from the end."""
    advantages, later = np.zeros(values.shape), np.zeros(ROWS)
    for time in reversed(range(TIME)):
        terminated, done = np.asarray(t.terminated[time]), np.asarray(t.done[time])
        delta = np.asarray(t.reward[time]) + config.discount * ~terminated * following[time] - values[time]
        later = delta + config.discount * config.gae_lambda * ~done * later
        advantages[time] = later
    return advantages, advantages + values


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_step_without_a_gradient_has_a_derivative(name):
    """Policies that are sure of themselves have none: the meta-gradient through them is zero, and not NaN."""
    optimizer = make_optimizer(AgentConfig(optimizer=name, max_gradient_norm=0.5), 2.0)
    start = jnp.array([3.0, 4.0])
    step = lambda scale: optimizer.update(scale * start, optimizer.init(start))[0]
    derivative = jax.jacobian(step)
    np.testing.assert_array_equal(step(0.0), 0.0)
    assert jnp.isfinite(derivative(0.0)).all()
    if name == "sgd":
        bounded = optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(2.0))
        expected = lambda scale: bounded.update(scale * start, bounded.init(start))[0]
        for scale in (0.05, 0.0999, 0.2, 3.0):  # of norm 0.5 at 0.1
            np.testing.assert_allclose(step(scale), expected(scale), rtol=1e-6)
            np.testing.assert_allclose(derivative(scale), jax.jacobian(expected)(scale), rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(derivative(0.0), -2 * start)
