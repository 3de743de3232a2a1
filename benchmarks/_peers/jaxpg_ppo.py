"""Our PPO at the peers' setting."""

import jax

import jaxpg
import jaxpg_envs
from jaxpg.experiment import use_cpu_devices
from jaxpg.rollout import init_rollout
from jaxpg.training import advance


def prepare(row):
    """What the command line does before JAX wakes."""
    use_cpu_devices(row["devices"], linear_algebra=False)
    import gymnax  # noqa: F401  (the peers import it before the clock starts, too; it wakes JAX)


def make_algorithm(row):
    """Environment, its parameters, and PPO; observations are normalised where the peer (brax) does it."""
    is_brax = row["env"].startswith("brax/")
    env, params = jaxpg_envs.make(row["env"], **({"backend": "spring"} if is_brax else {}))
    sizes = {name: row[name] for name in ("num_envs", "num_steps", "num_epochs", "num_minibatches", "activation")}
    algorithm = jaxpg.make(
        "ppo",
        env,
        params,
        total_steps=row["num_envs"] * row["num_steps"] * row["num_updates"],
        hidden_sizes=tuple(row["hidden_sizes"]),
        clip_values=True,
        learning_rate=2.5e-4,
        entropy_coefficient=0.01,
        normalize_observations=is_brax,
        normalize_rewards=False,
        **sizes,
    )
    return env, params, algorithm


def make_train(row):
    """`key -> (learner, metrics)`."""
    _, _, algorithm = make_algorithm(row)

    def train(key: jax.Array):
        state, metrics = advance(algorithm.update, algorithm.init(key), row["num_updates"])
        return state.learner, metrics

    return train


def make_rollouts(row):
    """`key -> transitions of the last rollout`: what `train` collects, and nothing is learned."""
    from jaxpg.algorithms.online import ppo
    from jaxpg.on_policy import make_network

    env, params, algorithm = make_algorithm(row)
    network = make_network("ppo", algorithm.config, env, params)
    parts = ppo.make_parts(algorithm.config, env, params, network)

    def rollouts(key: jax.Array):
        learner, state = parts.init(key), init_rollout(key, env, params, row["num_envs"])
        first = parts.collect(key, learner, state, params)
        step = lambda i, carry: parts.collect(jax.random.fold_in(key, i), learner, carry[0], params)
        return jax.lax.fori_loop(1, row["num_updates"], step, first)

    return rollouts
