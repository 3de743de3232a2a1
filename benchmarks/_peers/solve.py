"""CartPole-v1 solved by one contender in a process of its own: `python solve.py CONTENDER JOB`; prints one line of JSON.

JOB is JSON: `steps` per seed, `seeds`, `episodes` that judge a seed, `target` and `devices`. The line: `scores`, the mean
return of each seed after `steps`, and the times of day (seconds) when all was `imported`, `compiled` (None where that is not a
step of its own) and the scores were `known`.

Each contender imports only its own packages, so that it runs in its own environment and pays for nothing else.
"""

import json
import math
import os
import sys
import time

PIECES = 20  # of jaxpg's run, each of them judged


def jaxpg(job):
    """PPO with its default hyperparameters in pieces, each of them judged; the first that reaches the target ends it."""
    # What `jaxpg.experiment.use_cpu_devices` sets, without importing what else is in `jaxpg.experiment`.
    os.environ["NPROC"] = str(job["devices"])
    os.environ["XLA_FLAGS"] = "--xla_cpu_opt_preset=CPU_OPT_PRESET_FAST_COMPILE"
    from concurrent.futures import ThreadPoolExecutor

    import jax
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    jax.config.update("jax_num_cpu_devices", job["devices"])
    import jaxpg
    import jaxpg_envs
    from jaxpg.randomness import use_fast_random_bits
    from jaxpg.training import advance

    use_fast_random_bits()
    env, params = jaxpg_envs.make("CartPole-v1")
    imported = time.time()
    algorithm = jaxpg.make("ppo", env, params, total_steps=job["steps"])

    def score(state, seed):
        key = jax.random.key(job["seeds"] + seed)
        return jaxpg.evaluate(algorithm.policy(state), env, params, key, job["episodes"]).mean()

    mesh, seed_axis = Mesh(np.array(jax.devices()), ("seed",)), PartitionSpec("seed")
    over_seeds = lambda function, in_specs, **options: jax.jit(
        jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=seed_axis, check_vma=False), **options
    )
    init = over_seeds(jax.vmap(lambda seed: algorithm.init(jax.random.key(seed))), seed_axis)
    step = jax.vmap(lambda state, num_updates: advance(algorithm.update, state, num_updates)[0], (0, None))
    run = over_seeds(step, (seed_axis, PartitionSpec()), donate_argnums=0)
    judge = over_seeds(jax.vmap(score), (seed_axis, seed_axis))
    seeds = jax.device_put(np.arange(job["seeds"], dtype=np.int32), NamedSharding(mesh, seed_axis))

    def begin():
        states = jax.block_until_ready(init(seeds))
        return states, judge.lower(states, seeds).compile()

    with ThreadPoolExecutor(1) as other:  # one core compiles what trains, the other all else
        begun = other.submit(begin)
        like = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=seeds.sharding), jax.eval_shape(init, seeds)
        )
        run = run.lower(like, np.int32(0)).compile()
        states, judge = begun.result()
    compiled = time.time()
    total, quarter = algorithm.num_updates, len(seeds) // 4
    length = math.ceil(total / PIECES)
    for start in range(0, total, length):
        done = min(start + length, total)
        states = jax.block_until_ready(run(states, np.int32(done - start)))
        scores = np.asarray(judge(states, seeds))
        if np.sort(scores)[quarter : len(seeds) - quarter].mean() >= job["target"]:  # the interquartile mean
            break
    return scores, done * algorithm.env_steps_per_update, imported, compiled, time.time()


def purejaxrl(job):
    """purejaxrl's published settings: the whole run is one program; the deterministic policy of its end is judged in it."""
    import gymnax
    import jax
    import jax.numpy as jnp
    from purejaxrl_ppo import Network, make_train

    env, env_params = gymnax.make("CartPole-v1")
    imported = time.time()
    num_updates = job["steps"] // (4 * 128)
    row = {"env": "CartPole-v1", "num_envs": 4, "num_steps": 128, "num_epochs": 4, "num_minibatches": 4}
    row |= {"num_updates": num_updates, "hidden_sizes": (64, 64), "activation": "tanh"}
    train, network = make_train(row), Network(env.action_space(env_params).n, row["hidden_sizes"], row["activation"])

    def play(params, key):
        def step(carry, key):
            observation, state, alive, total = carry
            action = network.apply(params, observation)[0].mode()
            observation, state, reward, terminated, truncated, _ = env.step(key, state, action, env_params)
            return (observation, state, alive & ~(terminated | truncated), total + alive * reward), None

        reset_key, step_key = jax.random.split(key)
        carry = (*env.reset(reset_key, env_params), True, jnp.float32(0))
        longest = env_params.max_steps_in_episode
        return jax.lax.scan(step, carry, jax.random.split(step_key, longest))[0][-1]

    def score(key):
        train_key, key = jax.random.split(key)
        return jax.vmap(play, (None, 0))(train(train_key)[0], jax.random.split(key, job["episodes"])).mean()

    keys = jax.random.split(jax.random.PRNGKey(0), job["seeds"])
    run = jax.jit(jax.vmap(score)).lower(keys).compile()
    compiled = time.time()
    scores = jax.block_until_ready(run(keys))
    return scores, num_updates * 4 * 128, imported, compiled, time.time()


def rejax(job):
    """rejax with its published settings (`configs/gymnax/cartpole.yaml`), which evaluate 100 times: the last evaluation counts.

    Its own evaluation plays 128 episodes with the stochastic policy. `judged_once`: instead, the deterministic policy is judged
    as everyone's is, at the end alone.
    """
    import jax
    from rejax import get_algo
    from rejax.evaluate import evaluate

    imported = time.time()
    once = job.get("judged_once", False)
    algorithm = get_algo("ppo").create(
        env="CartPole-v1",
        agent_kwargs={"activation": "tanh"},
        num_envs=5,
        num_steps=100,
        num_epochs=5,
        num_minibatches=5,
        learning_rate=0.00075,
        max_grad_norm=0.5,
        total_timesteps=100_000,
        eval_freq=100_000 if once else 1000,
        skip_initial_evaluation=once,
        gamma=0.99,
        gae_lambda=0.95,
        clip_eps=0.2,
        ent_coef=0.01,
        vf_coef=0.5,
    )

    def judge(algorithm, state, key):
        distribution = lambda x: algorithm.actor.apply(state.actor_ts.params, x[None], method="_action_dist")
        act = lambda observation, key: distribution(observation).mode()[0]
        return evaluate(act, key, algorithm.env, algorithm.env_params, job["episodes"])

    if once:
        algorithm = algorithm.replace(eval_callback=judge)

    def score(key):
        state, (_, returns) = algorithm.train(key)
        return state.global_step, returns[-1].mean()

    keys = jax.random.split(jax.random.PRNGKey(0), job["seeds"])
    run = jax.jit(jax.vmap(score)).lower(keys).compile()
    compiled = time.time()
    steps, scores = jax.block_until_ready(run(keys))
    return scores, steps[0], imported, compiled, time.time()


def sb3(job):
    """Stable-Baselines3."""
    import stable_baselines3

    return _rl_zoo(stable_baselines3.PPO, job)


def sbx(job):
    """SBX, Stable-Baselines3 in JAX."""
    import sbx

    return _rl_zoo(sbx.PPO, job)


def _rl_zoo(PPO, job):
    """RL Zoo's settings for CartPole, seed after seed; `known` is when the first seed was judged."""
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy

    imported, known, scores = time.time(), None, []
    for seed in range(job["seeds"]):
        model = PPO(
            "MlpPolicy",
            make_vec_env("CartPole-v1", n_envs=8, seed=seed),
            n_steps=32,
            batch_size=256,
            n_epochs=20,
            gae_lambda=0.8,
            gamma=0.98,
            learning_rate=lambda remaining: 0.001 * remaining,
            clip_range=lambda remaining: 0.2 * remaining,
            seed=seed,
            device="cpu",
        )
        model.learn(100_000)
        judge = make_vec_env("CartPole-v1", n_envs=job["episodes"], seed=job["seeds"] + seed)
        scores.append(evaluate_policy(model, judge, job["episodes"], deterministic=True)[0])
        known = known or time.time()
    return scores, model.num_timesteps, imported, None, known


if __name__ == "__main__":
    contender = {"jaxpg": jaxpg, "purejaxrl": purejaxrl, "rejax": rejax, "sb3": sb3, "sbx": sbx}[sys.argv[1]]
    scores, steps, imported, compiled, known = contender(json.loads(sys.argv[2]))
    scores = [float(score) for score in scores]
    print(json.dumps({"scores": scores, "steps": int(steps), "imported": imported, "compiled": compiled, "known": known}))
