"""LPG: learned policy gradients (Oh et al., 2020, arXiv 2007.08794), and the population that meta-learns them.

Agents live on levels of their own, side by side, and learn by the same rule. In an update each learns K times, and the rule
takes a step along the mean meta-gradient: how the agents do next, differentiated through what they have just learned. Whose
life is over makes room for a new agent on another level. LPG draws levels at random; `groove` replays those of high regret.

With `temporally_aware` the rule knows how much of a life is left (Jackson et al. 2024, arXiv 2402.05828).

Differences from the paper are those of GROOVE's code, whose defaults these are, and from that code: time limits are no
terminations, the meta-gradient's critic learns and advantages belong to their steps (its behaviour without is
`legacy_frozen_critic`, `legacy_row_advantage`), first lives end at different times, and agents are scored only when their lives
end, at most `max_endings` per update; others wait, and stay as they are.
"""

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxpg.algorithm import (
    LONGEST,
    MOST_UNITS,
    Algorithm,
    InputError,
    Metrics,
    Policy,
    Scalar,
    hyperparameter,
    register,
    static,
)
from jaxpg.algorithms.environment_design import level_buffer
from jaxpg.algorithms.environment_design.curriculum import levels_at, where_rows
from jaxpg.algorithms.environment_design.level_buffer import LevelBuffer
from jaxpg.algorithms.meta_learning.antagonist import make_antagonist
from jaxpg.algorithms.meta_learning.level_replay import choose_slots, note_scores
from jaxpg.algorithms.meta_learning.lives import LIFETIME_HELP, Lives, make_living
from jaxpg.algorithms.meta_learning.meta_gradient import MetaConfig, Outlook, make_meta_gradient, mean_gradient
from jaxpg.algorithms.meta_learning.rule_agent import make_agent
from jaxpg.algorithms.meta_learning.update_rule import UpdateRule
from jaxpg.counting import increment, init_count
from jaxpg.errors import name_of
from jaxpg.gradient_descent import descend, global_norm
from jaxpg.rollout import episode_metrics
from jaxpg.transforms import any_in_batch, mean_of

SCORES = ("algorithmic_regret", "optimal_regret", "value_l1", "positive_value_loss")
REPLAY = {"score": SCORES}
SCORE_HELP = "by what levels are replayed; uniform: they are not"
MINIBATCH_HELP = "parts of the population whose gradients are computed one after the other"
ENDINGS_HELP = "agents whose lives can end in one update"
DECAY = 0.98  # of the mean regrets in the metrics, per update


@struct.dataclass
class LPGConfig(MetaConfig):
    """Hyperparameters of LPG."""

    total_steps: int = static(20_000_000_000, "environment steps of all agents, antagonists and scores left out", high=LONGEST)
    num_agents: int = static(512, "agents that live side by side")
    num_minibatches: int = static(16, MINIBATCH_HELP)
    lifetime: int = static(0, LIFETIME_HELP, low=0)
    max_endings: int = static(32, ENDINGS_HELP)
    rule_size: int = static(256, "units of the rule's recurrent network", high=MOST_UNITS)
    num_bins: int = static(8, "m, of the agents' predictions", low=2, high=MOST_UNITS)
    temporally_aware: bool = static(False, "the rule reads how far an agent's life has come")
    meta_learning_rate: Scalar = hyperparameter(1e-4, "step size of Adam on the rule", low=0)
    score: Literal["uniform", "algorithmic_regret", "optimal_regret", "value_l1", "positive_value_loss"] = static(
        "uniform", SCORE_HELP
    )
    buffer_size: int = static(4000, "levels that are remembered", high=1_000_000, needs=REPLAY)
    replay_probability: Scalar = hyperparameter(0.5, "share of replayed levels among the new ones", low=0, high=1, needs=REPLAY)
    prioritization: Literal["rank", "proportional"] = static(
        "rank", "replay of the best levels, or in proportion to exp(score / temperature)", needs=REPLAY
    )
    temperature: Scalar = hyperparameter(
        1.0, "of prioritisation", low=1e-3, needs=REPLAY | {"prioritization": ("proportional",)}
    )
    antagonist_entropy_coefficient: Scalar = hyperparameter(
        0.01, "weight of the A2C antagonist's entropy bonus", low=0, needs={"score": ("algorithmic_regret",)}
    )


class Tally(NamedTuple):
    """Sums of scores and their number, of which what is old counts less."""

    total: Float[Array, ""]
    count: Float[Array, ""]

    def add(self, scores: Float[Array, " n"], counts: Bool[Array, " n"]) -> "Tally":
        """With these scores."""
        return Tally(DECAY * self.total + jnp.where(counts, scores, 0.0).sum(), DECAY * self.count + counts.sum())


class LPGState(NamedTuple):
    """The whole state of a run.

    Attributes:
      rule: parameters of the update rule.
      slots: of the buffer, in which an agent's level is; `buffer_size` if it is new.
      buffer: `()` where levels are drawn at random.
      fresh, replayed: scores at the end of lives on levels that were new, and on those that had been played before.
    """

    key: jax.Array
    rule: PyTree
    optimizer: PyTree
    lives: Lives
    slots: Int[Array, " agent"]
    buffer: LevelBuffer | tuple
    fresh: Tally
    replayed: Tally
    updates: Int[Array, "*digit"]


class Ended(NamedTuple):
    """Agents whose lives end in an update, in rows of a fixed number, some of which are none."""

    index: Int[Array, " row"]
    exists: Bool[Array, " row"]
    life: Lives
    slot: Int[Array, " row"]
    outlook: Outlook


def meta_learner(name: str, config: LPGConfig, env: Any, params: PyTree) -> Algorithm:
    """A population of agents that share a rule, and the rule's updates.

    Raises:
      InputError: actions are not discrete, the environment has no levels, or agents do not divide into minibatches.
    """
    if config.num_agents % config.num_minibatches:
        raise InputError(
            f"num_agents = {config.num_agents} does not divide into num_minibatches = {config.num_minibatches}: "
            f"take num_minibatches = {math.gcd(config.num_agents, config.num_minibatches)}"
        )
    if config.score == "optimal_regret" and not hasattr(env, "optimal_return"):
        raise InputError(f"score = optimal_regret needs the optimal return of a level, which {name_of(env)} cannot tell")
    rule = UpdateRule(config.rule_size, config.num_bins, config.temporally_aware)
    agent = make_agent(name, config, env, params, rule.apply, config.num_bins)
    living = make_living(name, config, config.lifetime, env, params, agent)
    observation = jax.eval_shape(env.reset, jax.random.key(0), params)[0]
    meta = make_meta_gradient(config, agent, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), observation))
    optimizer = optax.adam(config.meta_learning_rate)
    antagonist = make_antagonist(config, env, params)
    num_agents, num_endings = config.num_agents, min(config.max_endings, config.num_agents)
    steps = num_agents * config.num_envs * config.num_steps * (config.num_inner_updates + 1)
    num_updates = math.ceil(config.total_steps / steps)
    replays = config.score != "uniform"

    def birth(key: jax.Array, level: PyTree) -> Lives:
        life_key, critic_key = jax.random.split(key)
        return living.born(life_key, level, meta.init_critic(critic_key))

    def init(key: jax.Array) -> LPGState:
        key, rule_key, level_key, life_key, age_key = jax.random.split(key, 5)
        rule_params = rule.initial(rule_key)
        levels = jax.vmap(living.sample_level)(jax.random.split(level_key, num_agents))
        lives = jax.vmap(birth)(jax.random.split(life_key, num_agents), levels)
        # First lives are shorter, so that lives do not all end at once.
        first = jax.random.randint(age_key, (num_agents,), 1, lives.lifetime + 1)
        buffer = ()
        if replays:
            buffer = level_buffer.init_buffer(config.buffer_size, jax.eval_shape(env.sample_level, key))
        none = Tally(jnp.float32(0), jnp.float32(0))
        return LPGState(
            key=key,
            rule=rule_params,
            optimizer=optimizer.init(rule_params),
            lives=lives._replace(lifetime=first),
            slots=jnp.full(num_agents, config.buffer_size, jnp.int32),
            buffer=buffer,
            fresh=none,
            replayed=none,
            updates=init_count(num_updates),
        )

    def score(key: jax.Array, ended: Ended) -> Float[Array, " row"]:
        if config.score in ("value_l1", "positive_value_loss"):
            return getattr(ended.outlook, config.score)
        own_key, other_key = jax.random.split(key)
        own = jax.vmap(living.return_of)(jax.random.split(own_key, num_endings), ended.life.learner, ended.life.level)
        if config.score == "optimal_regret":
            return jax.vmap(env.optimal_return)(ended.life.level) - own
        lifetimes = jnp.where(ended.exists, ended.life.lifetime, 0)
        return antagonist(other_key, jax.vmap(living.params_of)(ended.life.level), lifetimes) - own

    def end_lives(state: LPGState, key: jax.Array, ended: Ended) -> LPGState:
        score_key, choose_key, level_key, life_key = jax.random.split(key, 4)
        levels = jax.vmap(living.sample_level)(jax.random.split(level_key, num_endings))
        slots = jnp.full(num_endings, config.buffer_size, jnp.int32)
        if replays:
            scores = score(score_key, ended)
            was_new = ended.exists & (ended.slot == config.buffer_size)
            goes_on = state.slots.at[ended.index].set(config.buffer_size, mode="drop")
            active = jnp.zeros(config.buffer_size, bool).at[goes_on].set(True, mode="drop")
            buffer = note_scores(state.buffer, active, ended.life.level, ended.slot, scores, ended.exists, state.updates)
            temperature = config.temperature if config.prioritization == "proportional" else None
            slots = choose_slots(choose_key, buffer, active, num_endings, num_agents, config.replay_probability, temperature)
            levels = where_rows(slots < config.buffer_size, levels_at(buffer.level, slots), levels)
            state = state._replace(
                buffer=buffer,
                fresh=state.fresh.add(scores, was_new),
                replayed=state.replayed.add(scores, ended.exists & ~was_new),
            )
        born = jax.vmap(birth)(jax.random.split(life_key, num_endings), levels)
        write = lambda old, new: old.at[ended.index].set(new, mode="drop")
        return state._replace(lives=jax.tree.map(write, state.lives, born), slots=write(state.slots, slots))

    def update(state: LPGState) -> tuple[LPGState, Metrics]:
        key, learn_key, end_key = jax.random.split(state.key, 3)
        keys = jax.random.split(learn_key, num_agents)
        gradient, lives, outlook = mean_gradient(
            meta.loss, state.rule, keys, state.lives, living.params_of, config.num_minibatches
        )
        rule_params, optimizer_state = descend(optimizer, gradient, state.rule, state.optimizer)
        state = state._replace(
            key=key, rule=rule_params, optimizer=optimizer_state, lives=lives, updates=increment(state.updates)
        )
        is_over = lives.learner.step >= lives.lifetime
        index = jnp.nonzero(is_over, size=num_endings, fill_value=num_agents)[0].astype(jnp.int32)
        rows = jax.tree.map(lambda x: x[jnp.minimum(index, num_agents - 1)], (lives, state.slots, outlook))
        ended = Ended(index, index < num_agents, *rows)
        state = jax.lax.cond(any_in_batch(is_over.any()), end_lives, lambda state, *_: state, state, end_key, ended)
        # Episodes that ended in the last rollout of an update.
        episodes = jax.tree.map(jnp.sum, lives.rollout.episodes)
        means = jax.tree.map(jnp.mean, outlook)
        metrics = episode_metrics(episodes) | {
            "meta_loss": means.meta_loss,
            "policy_loss": means.policy_loss,
            "value_loss": means.value_loss,
            **means.measures._asdict(),
            "reward": means.reward,
            "meta_gradient_norm": global_norm(gradient),
            "ended_lives": ended.exists.sum(dtype=jnp.float32),
            **jax.tree.map(jnp.sum, outlook.nonfinite),
        }
        if replays:
            metrics |= {
                "score_fresh": mean_of(state.fresh.total, state.fresh.count),
                "score_replayed": mean_of(state.replayed.total, state.replayed.count),
                "buffer_filled": state.buffer.seen.mean(dtype=jnp.float32),
            }
        return state, metrics

    def policy(state: LPGState, deterministic: bool = True) -> Policy:
        """That of a new agent, which lives on the level of the parameters and learns by the rule."""
        return living.policy(state.rule, jax.random.fold_in(state.key, 0), deterministic)

    return Algorithm(init, update, policy, config, steps, num_updates)


@register(
    "lpg",
    LPGConfig,
    paper="Oh et al. 2020, arXiv 2007.08794",
    field="meta_learning",
    actions="discrete",
    status="complete",
)
def lpg(config: LPGConfig, env: Any, params: PyTree) -> Algorithm:
    """Meta-gradients of an update rule on levels drawn at random."""
    return meta_learner("lpg", config, env, params)
