"""One update against the papers: the same parameters, batch and noise, in numpy and float64.

The numpy code has the papers' losses; their gradients are central differences. Each comparison is repeated with one constant of
the algorithm changed after the other, and must then fail.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from checks import numbers, quick_jit
from environments import Tabular, Walk

import jaxpg
from jaxpg import replay
from jaxpg.algorithm import configure
from jaxpg.algorithms.environment_design import plr, scores
from jaxpg.algorithms.environment_design.level_buffer import init_buffer, update_scores
from jaxpg.algorithms.online import ppo
from jaxpg.algorithms.quality_diversity.episodes import Steps, as_task, controller_network
from jaxpg.algorithms.quality_diversity.gradients import gradients
from jaxpg.algorithms.quality_diversity.pga_map_elites import PGAMapElitesConfig
from jaxpg.on_policy import make_network
from jaxpg.shuffling import shuffled_indices
from jaxpg_envs.point_omni import PointOmni

KEY = jax.random.key(0)
WALK, TABLE = Walk(1), Tabular(num_actions=4)
WALK_PARAMS, TABLE_PARAMS = WALK.params(time_limit=4), TABLE.params()
TOLERANCE = 1e-5
ADAM = {"first_decay": 0.9, "second_decay": 0.999, "epsilon": 1e-8}


def wide(tree):
    return jax.tree.map(lambda x: x.astype(np.float64) if x.dtype == np.float32 else x, numbers(tree))


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def shaped(vector, like):
    leaves, structure = jax.tree.flatten(like)
    ends = np.cumsum([np.size(leaf) for leaf in leaves])[:-1]
    parts = zip(np.split(vector, ends), leaves, strict=True)
    return jax.tree.unflatten(structure, [part.reshape(np.shape(leaf)) for part, leaf in parts])


def shaken(tree, seed):
    """Parameters far from where networks start, at which experts are alike and policies flat."""
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x + 0.5 * generator.standard_normal(x.shape).astype(np.float32), tree)


def gradient(loss, params, step=1e-5):
    """A vector, by central differences."""
    x = flat(params)
    slope = lambda e: (loss(shaped(x + e, params)) - loss(shaped(x - e, params))) / (2 * step)
    return np.array([slope(e) for e in step * np.eye(x.size)])


def moments_of(optimizer_state):
    """Adam's count and its two moving averages."""
    is_adam = lambda x: isinstance(x, optax.ScaleByAdamState)
    (state,) = filter(is_adam, jax.tree.leaves(optimizer_state, is_leaf=is_adam))
    return int(state.count), wide(state.mu), wide(state.nu)


def adam(slope, params, moments, learning_rate, c):
    """Kingma and Ba (2015), algorithm 1: parameters and moments."""
    count, mean, square = moments
    count, mean = count + 1, c["first_decay"] * mean + (1 - c["first_decay"]) * slope
    square = c["second_decay"] * square + (1 - c["second_decay"]) * slope**2
    size = np.sqrt(square / (1 - c["second_decay"] ** count)) + c["epsilon"]
    moved = flat(params) - learning_rate * mean / (1 - c["first_decay"] ** count) / size
    return shaped(moved, params), (count, mean, square)


def follow(target, params, rate):
    return jax.tree.map(lambda old, new: (1 - rate) * old + rate * new, target, params)


def distance(actual, expected):
    """The relative error of a vector, or the largest one of several."""
    if isinstance(expected, dict):
        assert set(actual) == set(expected)
        return max(distance(actual[name], expected[name]) for name in expected)
    return np.linalg.norm(flat(actual) - flat(expected)) / (np.linalg.norm(flat(expected)) or 1.0)


def assert_follows(actual, oracle, constants):
    """That the oracle computes what was computed, and that each of its constants matters."""
    assert distance(actual, oracle(constants)) < TOLERANCE
    for name, value in constants.items():
        if name != "epsilon":  # far below what a float32 shows
            assert distance(actual, oracle(constants | {name: changed(value)})) > 10 * TOLERANCE, name


def changed(constant):
    """Another value of a switch, a period or a number."""
    if isinstance(constant, bool):
        return not constant
    return constant + 2 if isinstance(constant, int) else 0.9 * constant


def dense(layer, x):
    """Of one network, or of each of a stack."""
    return x @ layer["kernel"] + (layer["bias"][:, None] if layer["kernel"].ndim > 2 else layer["bias"])


def trunk(params, x):
    return np.maximum(dense(params["Trunk_0"]["Dense_0"], x), 0.0)


def action_values(critics, features, actions):
    """Q_i(s, a), critics first."""
    critics, x = critics["params"]["VmapCritic_0"], np.concatenate([features, actions], -1)
    values = dense(critics["Dense_0"], trunk(critics, x.reshape(-1, x.shape[-1])))
    return values.reshape(-1, *x.shape[:-1])


# --- Learning from a buffer ---------------------------------------------------------------------------------------------

SIZES = {
    "hidden_sizes": (4,),
    "num_envs": 2,
    "gradient_steps": 1,
    "batch_size": 8,
    "learning_starts": 0,
    "buffer_size": 24,
    "total_steps": 2000,
}
SHARED = {"learning_rate": 0.03, "discount": 0.9, "reward_scale": 0.7, "target_ema_rate": 0.3}


class Remembered:
    """One update of an algorithm with a buffer, which is its sixth: the learner before and after, the batch, and the key."""

    def __init__(self, name, env, params, networks, **fields):
        algorithm = jaxpg.make(name, env, params, **SIZES | fields)
        self.config = algorithm.config
        update, state = quick_jit(algorithm.update), quick_jit(algorithm.init)(KEY)
        for _ in range(5):
            state, _ = update(state)
        apart = {network: shaken(getattr(state.learner, network), seed) for seed, network in enumerate(networks)}
        before = state._replace(learner=state.learner._replace(**apart))
        after, _ = update(before)
        self.before, self.after = before.learner, after.learner
        sample_key, self.key = jax.random.split(jax.random.split(jax.random.split(before.key, 3)[2], 1)[0])
        rows = len(before.buffer.steps.reward)
        newest = jax.tree.map(lambda x: x[before.buffer.count % rows][None], after.buffer.steps)
        self.buffer = replay.add(before.buffer, newest, self.config.n_step)
        drawn = replay.sample(sample_key, self.buffer, self.config.batch_size, 0.0, self.config.n_step)
        self.steps, self.priorities_after = wide(self.buffer.steps), after.buffer.priorities
        self.rows, self.envs = np.asarray(drawn.row), np.asarray(drawn.env)
        self.observation = self.steps.observation[self.rows, self.envs]
        self.action = self.steps.action[self.rows, self.envs]

    def moved(self, *names):
        """How far each part went, so that a small step is not lost in large parameters."""
        difference = lambda name: flat(wide(getattr(self.after, name))) - flat(wide(getattr(self.before, name)))
        return {name: difference(name) for name in names}

    def returns(self, c):
        """Of every sample: discounted rewards up to n steps or the episode's end, the factor of the value behind, and where."""
        rewards, factors, nexts = [], [], []
        for row, env in zip(self.rows, self.envs, strict=True):
            reward, factor = 0.0, 1.0
            for at in [((row + k) % len(self.steps.reward), env) for k in range(self.config.n_step)]:
                reward, factor = reward + factor * c["reward_scale"] * self.steps.reward[at], factor * c["discount"]
                if self.steps.terminated[at] or self.steps.truncated[at]:
                    break
            rewards.append(reward)
            factors.append(0.0 if self.steps.terminated[at] else factor)
            nexts.append(self.steps.next_observation[at])
        return np.array(rewards), np.array(factors), np.array(nexts)


def expected_moves(before, **after):
    return {name: flat(tree) - flat(wide(getattr(before, name))) for name, tree in after.items()}


def descend(learner, name, optimizer, slope, c):
    """The network `name` of a learner after a step of its optimiser."""
    return adam(slope, wide(getattr(learner, name)), moments_of(getattr(learner, optimizer)), c["learning_rate"], c)[0]


def critics_towards(learner, batch, targets, c):
    """Sum over critics of the mean of (Q - y)^2 / 2."""
    loss = lambda critics: sum(0.5 * ((q - targets) ** 2).mean() for q in action_values(critics, *batch))
    return descend(learner, "critics", "critic_optimizer", gradient(loss, wide(learner.critics)), c)


@pytest.mark.parametrize(
    "options",
    [
        {"double": False, "target_period": 3},
        {"dueling": True, "n_step": 2, "prioritized": True, "priority_exponent": 0.6, "importance_exponent": 0.5},
    ],
    ids=["Mnih et al.", "double, dueling, n steps, prioritised"],
)
def test_dqn(options):
    """Mnih et al. 2015, algorithm 1; van Hasselt et al. 2016, equation 4; Wang et al. 2016, equation 9; Schaul et al. 2016,
    algorithm 1."""
    run = Remembered("dqn", TABLE, TABLE_PARAMS, ["params", "target_params"], **SHARED, **options)
    config, learner = run.config, run.before
    state = lambda places: np.eye(TABLE.num_states)[places]

    def values(params, x):
        params = params["params"]
        hidden = trunk(params, x)
        q = dense(params["actions"], hidden)
        return dense(params["state"], hidden) + q - q.mean(-1, keepdims=True) if config.dueling else q

    def priorities(buffer_priorities):
        return wide(buffer_priorities.tree)[buffer_priorities.tree.size // 2 :]

    def oracle(c):
        rewards, factors, nexts = run.returns(c)
        q = values(wide(learner.target_params), state(nexts))
        chooser = values(wide(learner.params), state(nexts)) if c["double"] else q
        targets = rewards + factors * q[np.arange(len(q)), chooser.argmax(-1)]
        errors = lambda params: values(params, state(run.observation))[np.arange(len(q)), run.action] - targets
        weights = np.ones(len(q))
        if config.prioritized:
            before = priorities(run.buffer.priorities)
            index = run.rows * config.num_envs + run.envs
            progress = 5 * config.num_envs / config.total_steps
            beta = c["importance_exponent"] + progress * (1 - c["importance_exponent"])
            weights = ((before > 0).sum() * before[index] / before.sum()) ** -beta
            weights = weights / weights.max()
        loss = lambda params: 0.5 * (weights * errors(params) ** 2).mean()
        params = descend(learner, "params", "optimizer_state", gradient(loss, wide(learner.params)), c)
        is_due = (int(learner.gradient_steps) + 1) % c["target_period"] == 0
        target = follow(wide(learner.target_params), params, c["target_ema_rate"] if is_due else 0.0)
        expected = expected_moves(learner, params=params, target_params=target)
        if config.prioritized:
            before[index] = (abs(errors(wide(learner.params))) + 1e-6) ** c["priority_exponent"]
            expected["priorities"] = before
        return expected

    constants = SHARED | ADAM | {"target_period": config.target_period, "double": config.double}
    actual = run.moved("params", "target_params")
    if config.prioritized:
        constants |= {name: options[name] for name in ("priority_exponent", "importance_exponent")}
        actual["priorities"] = priorities(run.priorities_after)
    assert_follows(actual, oracle, constants)


def td3_step(learner, batch, noise, c):
    """Fujimoto et al. 2018, algorithm 1, of a learner of numpy arrays whose optimisers are (count, mean, square)."""
    observation, action, rewards, factors, nexts = batch
    act = lambda actor, x: np.tanh(dense(actor["params"]["Dense_0"], trunk(actor["params"], x)))
    blur = np.clip(c["target_noise"] * noise, -c["target_noise_clip"], c["target_noise_clip"])
    next_action = np.clip(act(learner["target_actor"], nexts) + blur, -1.0, 1.0)
    targets = rewards + factors * action_values(learner["target_critics"], nexts, next_action).min(0)
    loss = lambda critics: sum(0.5 * ((q - targets) ** 2).mean() for q in action_values(critics, observation, action))
    slope = gradient(loss, learner["critics"])
    critics, critic_optimizer = adam(slope, learner["critics"], learner["critic_optimizer"], c["learning_rate"], c)
    steps = learner["gradient_steps"] + 1
    is_due = steps % c["policy_delay"] == 0
    learner = learner | {"critics": critics, "critic_optimizer": critic_optimizer, "gradient_steps": steps}
    if is_due or c.get("every_step"):
        learner = learner | {"target_critics": follow(learner["target_critics"], critics, c["target_ema_rate"])}
    if not is_due:
        return learner
    actor_loss = lambda actor: -action_values(critics, observation, act(actor, observation))[0].mean()
    slope = gradient(actor_loss, learner["actor"])
    actor, actor_optimizer = adam(slope, learner["actor"], learner["actor_optimizer"], c["learning_rate"], c)
    target_actor = follow(learner["target_actor"], actor, c["target_ema_rate"])
    return learner | {"actor": actor, "actor_optimizer": actor_optimizer, "target_actor": target_actor}


TD3_NETWORKS = ("actor", "critics", "target_actor", "target_critics")
TD3_CONSTANTS = {"target_noise": 0.4, "target_noise_clip": 0.3, "policy_delay": 2}


def td3_learner(learner):
    """As `td3_step` has it."""
    networks = {name: wide(getattr(learner, name)) for name in TD3_NETWORKS}
    optimizers = {name: moments_of(getattr(learner, name)) for name in ("actor_optimizer", "critic_optimizer")}
    return networks | optimizers | {"gradient_steps": int(learner.gradient_steps)}


def test_td3():
    """Fujimoto et al. 2018, algorithm 1."""
    run = Remembered("td3", WALK, WALK_PARAMS, TD3_NETWORKS, **SHARED, **TD3_CONSTANTS)
    noise = np.asarray(jax.random.normal(run.key, run.action.shape), float)

    def oracle(c):
        batch = (run.observation, run.action, *run.returns(c))
        after = td3_step(td3_learner(run.before), batch, noise, c)
        return expected_moves(run.before, **{name: after[name] for name in TD3_NETWORKS})

    assert_follows(run.moved(*TD3_NETWORKS), oracle, SHARED | ADAM | TD3_CONSTANTS)


def squash(mean, scale, noise):
    """Actions tanh(u), u = mean + scale * noise, and their log densities (Haarnoja et al. 2018, appendix C)."""
    u = mean + scale * noise
    log_density = -0.5 * noise**2 - np.log(scale) - 0.5 * np.log(2 * np.pi)
    return np.tanh(u), (log_density - np.log(1 - np.tanh(u) ** 2)).sum(-1)


def experts(actor, features, num_experts):
    """Hidden layer, means and standard deviations, the latter two (batch, expert, action)."""
    actor = actor["params"]
    hidden = trunk(actor, features)
    head = lambda name: dense(actor[name], hidden).reshape(len(features), num_experts, -1)
    return hidden, head("mean"), np.exp(np.clip(head("log_std"), -20.0, 2.0))


SAC_PARTS = ("actor", "critics", "target_critics", "log_temperature")


def soft_actor_critic(run, fresh, following, routing_loss, c):
    """Haarnoja et al. 2018 (1812.05905), algorithm 1: what moves, temperature first.

    `fresh(actor)` are actions and log densities of one or several experts in the batch's states, `following` those in the next
    states, and `routing_loss(actor, values)` is added to the actor's loss.
    """
    learner = run.before
    rewards, factors, nexts = run.returns(c)
    critics = wide(learner.critics)

    def judged(actor):
        """Q and log density of the expert whose action is best, and every expert's Q."""
        actions, log_probs = fresh(actor)
        features = np.broadcast_to(run.observation[:, None], (*actions.shape[:2], run.observation.shape[-1]))
        values = action_values(critics, features, actions).min(0)
        best = (np.arange(len(values)), values.argmax(-1))
        return values[best], log_probs[best], values

    log_temperature = descend(
        learner,
        "log_temperature",
        "temperature_optimizer",
        np.array([-judged(wide(learner.actor))[1].mean() - c["target_entropy_scale"] * run.action.shape[-1]]),
        c,
    )
    temperature = np.exp(log_temperature)

    def actor_loss(actor):
        value, log_prob, values = judged(actor)
        return (temperature * log_prob - value).mean() + routing_loss(actor, values)

    actor = descend(learner, "actor", "actor_optimizer", gradient(actor_loss, wide(learner.actor)), c)
    next_action, next_log_prob = following(nexts)
    next_values = action_values(wide(learner.target_critics), nexts, next_action).min(0)
    targets = rewards + factors * (next_values - temperature * next_log_prob)
    new_critics = critics_towards(learner, (run.observation, run.action), targets, c)
    return expected_moves(
        learner,
        actor=actor,
        critics=new_critics,
        target_critics=follow(wide(learner.target_critics), new_critics, c["target_ema_rate"]),
        log_temperature=log_temperature,
    )


SAC_CONSTANTS = {"target_entropy_scale": -1.3}


def test_sac():
    """Haarnoja et al. 2018 (1812.05905), algorithm 1 and equations 5, 9 and 18."""
    run = Remembered("sac", WALK, WALK_PARAMS, ["actor", "critics", "target_critics"], **SHARED, **SAC_CONSTANTS)
    actor_noise, target_noise = (np.asarray(jax.random.normal(key, run.action.shape)) for key in jax.random.split(run.key))

    def fresh(actor):
        _, mean, scale = experts(actor, run.observation, 1)
        return squash(mean, scale, actor_noise[:, None])

    def following(features):
        _, mean, scale = experts(wide(run.before.actor), features, 1)
        return squash(mean[:, 0], scale[:, 0], target_noise)

    oracle = lambda c: soft_actor_critic(run, fresh, following, lambda actor, values: 0.0, c)
    assert_follows(run.moved(*SAC_PARTS), oracle, SHARED | ADAM | SAC_CONSTANTS)


def test_pmoe_sac():
    """Ren et al. 2021, algorithm 1: the best expert learns, the weights go towards its indicator (their squared distance)."""
    num_experts, networks = 3, ["actor", "critics", "target_critics"]
    run = Remembered("pmoe_sac", WALK, WALK_PARAMS, networks, num_experts=num_experts, **SHARED, **SAC_CONSTANTS)
    actor_key, target_key = jax.random.split(run.key)
    batch, size = run.action.shape
    noise = np.asarray(jax.random.normal(actor_key, (batch, num_experts, size)))
    target_noise = np.asarray(jax.random.normal(target_key, (batch, size)))
    gumbel = np.asarray(jax.random.gumbel(jax.random.fold_in(target_key, 1), (batch, num_experts)))
    trunk_before = experts(wide(run.before.actor), run.observation, num_experts)[0]  # routing does not shape it

    def fresh(actor):
        _, mean, scale = experts(actor, run.observation, num_experts)
        return squash(mean, scale, noise)

    def routing_loss(actor, values):
        logits = dense(actor["params"]["routing"], trunk_before)
        weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        return ((np.eye(num_experts)[values.argmax(-1)] - weights) ** 2).mean()

    def following(features):
        actor = wide(run.before.actor)
        hidden, mean, scale = experts(actor, features, num_experts)
        drawn = (np.arange(batch), (dense(actor["params"]["routing"], hidden) + gumbel).argmax(-1))
        return squash(mean[drawn], scale[drawn], target_noise)

    oracle = lambda c: soft_actor_critic(run, fresh, following, routing_loss, c)
    assert len({*fresh_winners(run, fresh)}) > 1
    assert_follows(run.moved(*SAC_PARTS), oracle, SHARED | ADAM | SAC_CONSTANTS)


def fresh_winners(run, fresh):
    """Which expert's action is best in each state."""
    actions, _ = fresh(wide(run.before.actor))
    features = np.broadcast_to(run.observation[:, None], (*actions.shape[:2], run.observation.shape[-1]))
    return action_values(wide(run.before.critics), features, actions).min(0).argmax(-1).tolist()


# --- Quality diversity --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("critic_targets", "kernel_length"),
    [("every_step", None), ("with_actor", None), ("every_step", 0.7)],
    ids=["PGA", "PGA, targets with the actor", "DCG, ablation 2"],
)
def test_critics_of_a_repertoire(critic_targets, kernel_length):
    """Nilsson and Cully 2021, section 3.3: TD3 on everybody's remembered steps; three steps, one of which moves the actor.

    And Faldor et al. 2023, section 4 and the released code of the second ablation: three steps of whom are remembered under
    what their episodes achieved, and each also under what the one opposite achieved.
    """
    env = PointOmni()
    params = env.default_params.replace(max_steps_in_episode=6)
    fields = {"learning_rate": 0.03, "discount": 0.9, "target_ema_rate": 0.3} | TD3_CONSTANTS
    constants = fields | {"every_step": critic_targets == "every_step"}
    constants |= {"kernel_length": kernel_length} if kernel_length else {}
    sizes = {"hidden_sizes": (4,), "critic_hidden_sizes": (4,), "critic_steps": 3, "batch_size": 5, "total_steps": 480}
    config = configure("pga_map_elites", PGAMapElitesConfig, sizes | fields | {"critic_targets": critic_targets})
    task = as_task("a test", env, params)
    network = controller_network(task, config.hidden_sizes)
    parts = gradients(config, task, network, network, 24, kernel_length, relabel=kernel_length is not None)

    generator, shape = np.random.default_rng(1), (6, 4)
    normal = lambda *size: generator.standard_normal((*shape, *size)).astype(np.float32)
    steps = Steps(
        features=normal(task.observation_size),
        action=np.tanh(normal(task.actions.size)),
        reward=normal(),
        terminated=generator.random(shape) < 0.3,
        next_features=normal(task.observation_size),
        valid=np.ones(shape, bool),
    )
    steps = jax.tree.map(jnp.asarray, steps)
    start = quick_jit(parts.init)(KEY)
    apart = {name: shaken(getattr(start.learner, name), seed) for seed, name in enumerate(TD3_NETWORKS)}
    achieved = 20 * generator.standard_normal((4, 2)).astype(np.float32)
    memory = parts.remember(start.memory, steps, jnp.asarray(achieved), jnp.asarray(achieved))
    train = quick_jit(parts.train)
    before, _ = train(KEY, start._replace(learner=start.learner._replace(**apart), memory=memory))
    key = jax.random.key(1)
    after, _ = train(key, before)

    index_key, learn_key = jax.random.split(key)
    index = np.asarray(jax.random.bits(index_key, (3, 3 if kernel_length else 5)) % np.uint32(24))
    keys = jax.random.split(learn_key, 3)
    rows = jax.tree.map(lambda x: x.reshape(24, *x.shape[2:]), wide(steps))

    def batch_of(drawn, c):
        """Features, actions, rewards, factors and next features."""
        batch = jax.tree.map(lambda x: x[drawn], rows)
        batch = (batch.features, batch.action, batch.reward, c["discount"] * (1 - batch.terminated), batch.next_features)
        if not kernel_length:
            return batch
        own = achieved[drawn % 4].astype(float) / params.half_width
        others = own[::-1]
        similar = np.exp(-np.sqrt(((own - others) ** 2).sum(1)) / c["kernel_length"])
        under = lambda x, descriptors: np.concatenate([x, descriptors], 1)
        features, action, reward, factors, following = batch
        positives = (under(features, own), action, reward, factors, under(following, own))
        negatives = (under(features, others), action, similar * reward, factors, under(following, others))
        return [np.concatenate([one, other])[:5] for one, other in zip(positives, negatives, strict=True)]

    def oracle(c):
        learner = td3_learner(before.learner)
        for key, drawn in zip(keys, index, strict=True):
            noise = np.asarray(jax.random.normal(key, (config.batch_size, task.actions.size)))
            learner = td3_step(learner, batch_of(drawn, c), noise, c)
        return expected_moves(before.learner, **{name: learner[name] for name in TD3_NETWORKS})

    move = lambda name: flat(wide(getattr(after.learner, name))) - flat(wide(getattr(before.learner, name)))
    assert_follows({name: move(name) for name in TD3_NETWORKS}, oracle, constants | ADAM)


# --- Learning from a rollout --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip_values", [True, False])
def test_ppo(clip_values):
    """Schulman et al. 2017, equations 7 and 9, and 2016, equation 16; value clipping and normalisation as in the details of
    Huang et al. 2022."""
    sizes = {"num_envs": 3, "num_steps": 8, "num_epochs": 2, "num_minibatches": 2, "hidden_sizes": (4,), "total_steps": 24 * 9}
    constants = {
        "learning_rate": 0.1,
        "discount": 0.9,
        "gae_lambda": 0.8,
        "clip_epsilon": 0.05,
        "clip_values": clip_values,
        "entropy_coefficient": 0.02,
        "value_coefficient": 0.6,
        "max_gradient_norm": 0.4,
    }
    config = configure("ppo", ppo.PPOConfig, sizes | constants)
    parts = ppo.make_parts(config, WALK, WALK_PARAMS, make_network("ppo", config, WALK, WALK_PARAMS))
    start = jaxpg.make("ppo", WALK, WALK_PARAMS, **sizes | constants).init(KEY)

    @quick_jit
    def update(learner, rollout, key):
        rollout, transitions = parts.collect(jax.random.fold_in(key, 0), learner, rollout, WALK_PARAMS)
        return rollout, transitions, parts.learn(key, learner, transitions)[0]

    learner, rollout = start.learner._replace(params=shaken(start.learner.params, 0)), start.rollout
    for key in jax.random.split(KEY, 3):
        before, (rollout, transitions, learner) = learner, update(learner, rollout, key)
    t, old = wide(transitions), wide(before)
    assert (t.truncated & ~t.terminated).any()
    assert t.terminated.any()
    keys = jax.random.split(key, config.num_epochs * (1 + config.num_minibatches))
    orders = [np.asarray(shuffled_indices(k, 24)).reshape(2, 12) for k in keys[: config.num_epochs]]

    def network(layers, x):
        return dense(layers["Dense_1"], np.tanh(dense(layers["Dense_0"], x)))

    def log_prob(params, x, action):
        actor = params["actor"]["params"]
        mean, log_std = network(actor["MLP_0"], x), actor["log_std"]
        return (-0.5 * ((action - mean) / np.exp(log_std)) ** 2 - log_std - 0.5 * np.log(2 * np.pi)).sum(-1)

    def merged(statistics, batch):
        """Mean and variance of all that was seen, from sums."""
        batch = batch.reshape(-1, *statistics.mean.shape)
        count = statistics.count + len(batch)
        mean = (statistics.count * statistics.mean + batch.sum(0)) / count
        square = statistics.count * (statistics.variance + statistics.mean**2) + (batch**2).sum(0)
        return mean, square / count - mean**2

    def oracle(c):
        normal = lambda x: np.clip(
            (x - old.observation_statistics.mean) / np.sqrt(old.observation_statistics.variance + 1e-8), -10, 10
        )
        value = lambda params, x: network(params["critic"]["params"], x)[..., 0]
        done, returns, running = t.terminated | t.truncated, [], old.reward_scaling.discounted_return
        for reward, ended in zip(t.reward, done, strict=True):
            running = c["discount"] * running + reward
            returns.append(running)
            running = np.where(ended, 0.0, running)
        reward_statistics = merged(old.reward_scaling.statistics, np.array(returns))
        rewards = np.clip(t.reward / np.sqrt(reward_statistics[1] + 1e-8), -10, 10)

        x, values = normal(t.observation), value(old.params, normal(t.observation))
        errors = rewards + c["discount"] * ~t.terminated * value(old.params, normal(t.next_observation)) - values
        advantages, following = np.zeros_like(errors), 0.0
        for i in reversed(range(len(errors))):
            following = advantages[i] = errors[i] + c["discount"] * c["gae_lambda"] * ~done[i] * following
        old_log_prob = log_prob(old.params, x, t.extras.action)
        rows = lambda y: y.reshape(24, *y.shape[2:])
        x, actions, old_log_probs = rows(x), rows(t.extras.action), rows(old_log_prob)
        old_values, advantages, targets = rows(values), rows(advantages), rows(advantages + values)

        params, moments = old.params, moments_of(before.optimizer_state)
        learning_rate = c["learning_rate"] * (1 - 2 / 9)  # the third of nine updates
        for chosen in np.concatenate(orders):
            a = advantages[chosen]
            a = (a - a.mean()) / np.sqrt(a.var() + 1e-8)

            def loss(params, chosen=chosen, a=a):
                ratio = np.exp(log_prob(params, x[chosen], actions[chosen]) - old_log_probs[chosen])
                surrogate = np.minimum(ratio * a, np.clip(ratio, 1 - c["clip_epsilon"], 1 + c["clip_epsilon"]) * a).mean()
                v, v_old, target = value(params, x[chosen]), old_values[chosen], targets[chosen]
                near = v_old + np.clip(v - v_old, -c["clip_epsilon"], c["clip_epsilon"]) if c["clip_values"] else v
                value_loss = 0.5 * np.maximum((v - target) ** 2, (near - target) ** 2).mean()
                entropy = (params["actor"]["params"]["log_std"] + 0.5 * np.log(2 * np.pi * np.e)).sum()
                return -surrogate + c["value_coefficient"] * value_loss - c["entropy_coefficient"] * entropy

            slope = gradient(loss, params)
            slope = slope * min(1.0, c["max_gradient_norm"] / np.linalg.norm(slope))
            params, moments = adam(slope, params, moments, learning_rate, c | {"epsilon": 1e-5})
        return {
            "params": flat(params) - flat(old.params),
            "observation_statistics": flat(merged(old.observation_statistics, t.observation)),
            "reward_statistics": flat(reward_statistics),
        }

    new = wide(learner)
    actual = {
        "params": flat(new.params) - flat(old.params),
        "observation_statistics": flat((new.observation_statistics.mean, new.observation_statistics.variance)),
        "reward_statistics": flat((new.reward_scaling.statistics.mean, new.reward_scaling.statistics.variance)),
    }
    assert_follows(actual, oracle, constants | ADAM)


# --- Levels -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prioritization", ["rank", "proportional"])
def test_plr_priorities(prioritization):
    """Jiang et al. 2021, section 3: after three of six levels were played, from their advantages to the odds of a replay.

    Of a level counts the last episode that ended: in the first environment the only one, in the third the second; or the one
    that filled the rollout, in the second.
    """
    constants = {"temperature": 0.4, "staleness_coefficient": 0.3}
    config = configure(
        "plr", plr.PLRConfig, {"prioritization": prioritization, "buffer_size": 6, "levels": "generator"} | constants
    )
    generator = np.random.default_rng(0)
    now, slots, last = jnp.int32(9), np.array([4, 1, 2]), np.array([3, 5, 8, 7, 2, 0])
    score, advantages = generator.random(6).astype(np.float32), generator.standard_normal((7, 3)).astype(np.float32)
    seen = np.arange(6) < 5
    buffer = init_buffer(6, jnp.int32(0))._replace(
        score=jnp.asarray(score), last_sampled=jnp.asarray(last, jnp.int32), seen=jnp.asarray(seen)
    )
    done = np.zeros((7, 3), bool)
    done[[3, 2, 6], [0, 2, 2]] = True
    on_slots = jnp.broadcast_to(jnp.asarray(slots), (7, 3))
    played = scores.score_slots(on_slots, jnp.ones((7, 3)), jnp.asarray(done), jnp.asarray(advantages), jnp.ones((7, 3)), 6)
    buffer = update_scores(buffer, played, plr.score_of(config, played, played.max_return), now)
    actual = np.asarray(plr.priorities(config, buffer, now + 1), float)

    def oracle(c):
        new_score, new_last = np.where(seen, score, 0.0).astype(float), last.copy()
        a = abs(advantages.astype(float))
        new_score[slots], new_last[slots] = [a[:4, 0].mean(), a[:, 1].mean(), a[3:, 2].mean()], 9
        rank = 1 + (new_score[:, None] < new_score).sum(1)
        h = (1 / rank if prioritization == "rank" else new_score) ** (1 / c["temperature"]) * seen
        staleness = (10 - new_last) * seen
        rho = c["staleness_coefficient"]
        return (1 - rho) * h / h.sum() + rho * staleness / staleness.sum()

    assert_follows(actual, oracle, constants)
