"""Our SAC and TD3 at the peers' setting."""

import jax

import jaxpg
import jaxpg_envs
from jaxpg.experiment import use_cpu_devices
from jaxpg.training import advance


def prepare(row):
    """What the command line does before JAX wakes."""
    use_cpu_devices(row["devices"], linear_algebra=False)
    import gymnax  # noqa: F401  (the peers import it before the clock starts, too; it wakes JAX)


def make_train(row):
    """`key -> (learner, metrics)`."""
    is_brax = row["env"].startswith("brax/")
    env, params = jaxpg_envs.make(row["env"], **({"backend": "spring"} if is_brax else {}))
    algorithm = jaxpg.make(
        row["algorithm"],
        env,
        params,
        total_steps=row["num_envs"] * row["num_updates"],
        num_envs=row["num_envs"],
        gradient_steps=row["gradient_steps"],
        batch_size=row["batch_size"],
        buffer_size=row["buffer_size"],
        learning_starts=row["learning_starts"],
        hidden_sizes=tuple(row["hidden_sizes"]),
        learning_rate=row["learning_rate"],
        normalize_observations=is_brax,
    )

    def train(key: jax.Array):
        state, metrics = advance(algorithm.update, algorithm.init(key), row["num_updates"])
        return state.learner, metrics

    return train
