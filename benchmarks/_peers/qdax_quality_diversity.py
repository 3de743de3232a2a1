"""QDax's MAP-Elites, PGA-ME and DCRL-ME, put together as its examples do."""

import functools
import sys
import types

import jax
import jax.numpy as jnp

# Its emitters import a type, for an annotation, of environments on brax.v1, which brax no longer has.
for name in ("v1", "v1.envs", "v1.envs.base_env"):
    sys.modules[f"qdax.tasks.brax.{name}"] = types.ModuleType(name)
vars(sys.modules["qdax.tasks.brax.v1.envs.base_env"])["QDEnv"] = object

import qdax.tasks.brax.v2 as environments  # noqa: E402
from brax.envs.base import Wrapper  # noqa: E402
from qdax.core.containers.mapelites_repertoire import compute_cvt_centroids  # noqa: E402
from qdax.core.emitters.dcrl_me_emitter import DCRLMEConfig, DCRLMEEmitter  # noqa: E402
from qdax.core.emitters.mutation_operators import isoline_variation  # noqa: E402
from qdax.core.emitters.pga_me_emitter import PGAMEConfig, PGAMEEmitter  # noqa: E402
from qdax.core.emitters.standard_emitters import MixingEmitter  # noqa: E402
from qdax.core.map_elites import MAPElites  # noqa: E402
from qdax.core.neuroevolution.buffers.buffer import DCRLTransition, QDTransition  # noqa: E402
from qdax.core.neuroevolution.networks.networks import MLP, MLPDC  # noqa: E402
from qdax.tasks.arm import arm_scoring_function  # noqa: E402
from qdax.tasks.brax.v2.env_creators import scoring_function_brax_envs  # noqa: E402
from qdax.tasks.brax.v2.wrappers.reward_wrappers import OffsetRewardWrapper  # noqa: E402
from qdax.utils.metrics import default_qd_metrics  # noqa: E402

VARIATION = functools.partial(isoline_variation, iso_sigma=0.005, line_sigma=0.05)


class NonNegativeReward(Wrapper):
    """QDax's ClipRewardWrapper, which calls `jnp.clip` by a name that it no longer has."""

    def step(self, state, action):
        state = self.env.step(state, action)
        return state.replace(reward=jnp.maximum(state.reward, 0.0))


def make_train(row):
    """`key -> (repertoire, metrics)`: the initial population and `num_updates` generations."""
    batch = row["num_envs"]
    emitter = MixingEmitter(mutation_fn=None, variation_fn=VARIATION, variation_percentage=1.0, batch_size=batch)
    if row["env"] == "arm":
        dimension, scoring = 2, arm_scoring_function
        initial = lambda key: jax.random.uniform(key, (batch, row["num_joints"]))
    else:
        env, policy, sizes = make_task(row)
        dimension, scoring = env.descriptor_length, scoring_on(env, policy, row)
        observations = jnp.zeros((batch, env.observation_size))
        initial = lambda key: jax.vmap(policy.init)(jax.random.split(key, batch), observations)
        shared = {"critic_hidden_layer_size": tuple(row["hidden_sizes"]), "replay_buffer_size": row["buffer_size"]}
        shared |= {"num_critic_training_steps": row["critic_steps"], "num_pg_training_steps": row["policy_gradient_steps"]}
        shared |= {"batch_size": row["batch_size"]}
        if row["algorithm"] == "pga_map_elites":
            config = PGAMEConfig(env_batch_size=batch, proportion_mutation_ga=0.5, **shared)
            emitter = PGAMEEmitter(config=config, policy_network=policy, env=env, variation_fn=VARIATION)
        else:
            config = DCRLMEConfig(
                ga_batch_size=batch // 2, dcrl_batch_size=batch // 4, ai_batch_size=batch // 4, lengthscale=0.1, **shared
            )
            actor = MLPDC(layer_sizes=sizes, kernel_init=jax.nn.initializers.lecun_uniform(), final_activation=jnp.tanh)
            emitter = DCRLMEEmitter(config=config, policy_network=policy, actor_network=actor, env=env, variation_fn=VARIATION)
    algorithm = MAPElites(
        scoring_function=scoring, emitter=emitter, metrics_function=functools.partial(default_qd_metrics, qd_offset=0.0)
    )
    centroids = compute_cvt_centroids(
        dimension, num_init_cvt_samples=10_000, num_centroids=row["num_cells"], minval=0.0, maxval=1.0, key=jax.random.key(0)
    )

    def train(key):
        first_key, init_key, key = jax.random.split(key, 3)
        repertoire, state, _ = algorithm.init(initial(first_key), centroids, init_key)
        carry = (repertoire, state, key)
        (repertoire, _, _), metrics = jax.lax.scan(algorithm.scan_update, carry, (), length=row["num_updates"])
        return repertoire, metrics

    return train


def make_task(row):
    """The environment, the controllers' network and its layers."""
    env = environments.create(row["env"], episode_length=row["episode_length"], backend="spring")
    if row["algorithm"] == "dcrl_map_elites":
        env = NonNegativeReward(OffsetRewardWrapper(env, offset=environments.reward_offset[row["env"]]))
    sizes = (*row["hidden_sizes"], env.action_size)
    policy = MLP(layer_sizes=sizes, kernel_init=jax.nn.initializers.lecun_uniform(), final_activation=jnp.tanh)
    return env, policy, sizes


def scoring_on(env, policy, row):
    """The scoring function of a Brax task."""
    unknown = jnp.full(env.descriptor_length, jnp.nan)

    def play_step(state, params, key):
        actions = policy.apply(params, state.obs)
        following = env.step(state, actions)
        fields = {
            "obs": state.obs,
            "next_obs": following.obs,
            "rewards": following.reward,
            "dones": following.done,
            "actions": actions,
            "truncations": following.info["truncation"],
            "state_desc": state.info["state_descriptor"],
            "next_state_desc": following.info["state_descriptor"],
        }
        if row["algorithm"] == "dcrl_map_elites":
            transition = DCRLTransition(desc=unknown, desc_prime=unknown, **fields)
        else:
            transition = QDTransition(**fields)
        return following, params, key, transition

    return functools.partial(
        scoring_function_brax_envs,
        episode_length=row["episode_length"],
        play_reset_fn=jax.jit(env.reset),
        play_step_fn=play_step,
        descriptor_extractor=environments.descriptor_extractor[row["env"]],
    )
