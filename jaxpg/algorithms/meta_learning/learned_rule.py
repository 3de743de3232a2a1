"""An agent that learns by a meta-trained update rule in the place of a loss (Oh et al., 2020, arXiv 2007.08794).

The rule is one of those that jaxpg ships, comes from files (`rule_file.save_rule`), or from the folder of a run that trains it.
Its numbers are part of the state: a run goes on by the rule with which it began, also if there is another one of the same sizes
in its place by then. Only the sizes are read anew, for which there must be a rule where it was.
"""

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import PyTree

from jaxpg.algorithm import LARGEST, LONGEST, Algorithm, Metrics, Policy, Scalar, hyperparameter, register, static
from jaxpg.algorithms.meta_learning.rule_agent import AgentConfig, Learner, make_agent
from jaxpg.algorithms.meta_learning.rule_file import load_rule
from jaxpg.rollout import RolloutState, episode_metrics, init_rollout, nonfinite_metrics

RULE_HELP = "one that jaxpg ships, the path of its files without their ending, or the folder of a run that trains it"


@struct.dataclass
class LearnedRuleConfig(AgentConfig):
    """Hyperparameters of the agent; defaults are GROOVE's on MinAtar, its two hidden layers of 64 units and Adam."""

    total_steps: int = static(1_000_000, "environment steps of the whole run, which is the agent's life", high=LONGEST)
    rule: str = static("grid_worlds", RULE_HELP)
    hidden_sizes: tuple[int, ...] = static((64, 64), "hidden layers of policy and predictions; none: tables, or linear maps")
    optimizer: Literal["sgd", "adam"] = static("adam", "how the agent descends")
    learning_rate: Scalar = hyperparameter(5e-4, "step size of the policy", low=0)
    prediction_learning_rate: Scalar = hyperparameter(5e-4, "step size of the predictions", low=0)


class LearnedRuleState(NamedTuple):
    """The whole state of a run; `rule_params` never change."""

    key: jax.Array
    learner: Learner
    rollout: RolloutState
    rule_params: PyTree


@register(
    "learned_rule",
    LearnedRuleConfig,
    paper="Oh et al. 2020, arXiv 2007.08794",
    field="meta_learning",
    actions="discrete",
    status="complete",
)
def learned_rule(config: LearnedRuleConfig, env: Any, params: PyTree) -> Algorithm:
    """One agent, and the rule that `config.rule` names."""
    rule, rule_params = load_rule(config.rule)
    agent = make_agent("learned_rule", config, env, params, rule.apply, rule.num_bins)
    steps = config.num_envs * config.num_steps
    num_updates = math.ceil(config.total_steps / steps)
    lifetime = jnp.int32(min(num_updates, LARGEST) if rule.temporally_aware else LARGEST)

    def init(key: jax.Array) -> LearnedRuleState:
        key, learner_key, env_key = jax.random.split(key, 3)
        rollout = init_rollout(env_key, env, params, config.num_envs)
        return LearnedRuleState(key, agent.init(learner_key), rollout, rule_params)

    def update(state: LearnedRuleState) -> tuple[LearnedRuleState, Metrics]:
        key, collect_key = jax.random.split(state.key)
        rollout, transitions = agent.collect(collect_key, state.learner, state.rollout, params)
        learner, measures = agent.learn(state.rule_params, state.learner, transitions, lifetime)
        metrics = episode_metrics(rollout.episodes) | measures._asdict() | nonfinite_metrics(transitions)
        return state._replace(key=key, learner=learner, rollout=rollout), metrics

    def policy(state: LearnedRuleState, deterministic: bool = True) -> Policy:
        return agent.policy(state.learner, deterministic)

    return Algorithm(init, update, policy, config, steps, num_updates)
