"""Stable-Baselines3's PPO on gymnasium's environment of the same name: a loop in Python, one environment after the other."""

import time


def measure(row, library="stable_baselines3"):
    """The speed of each piece of training after the first."""
    import importlib

    import flax.linen
    import torch
    from stable_baselines3.common.env_util import make_vec_env

    torch.set_num_threads(1)
    of_library = {"stable_baselines3": torch.nn.Tanh, "sbx": flax.linen.tanh}
    sizes = list(row["hidden_sizes"])
    started = time.perf_counter()
    model = importlib.import_module(library).PPO(
        "MlpPolicy",
        make_vec_env(row["env"], n_envs=row["num_envs"], seed=0),
        learning_rate=2.5e-4,
        n_steps=row["num_steps"],
        n_epochs=row["num_epochs"],
        batch_size=row["num_envs"] * row["num_steps"] // row["num_minibatches"],
        gamma=0.99,
        gae_lambda=0.95,
        clip_range=0.2,
        ent_coef=0.01,
        vf_coef=0.5,
        max_grad_norm=0.5,
        policy_kwargs={"net_arch": {"pi": sizes, "vf": sizes}, "activation_fn": of_library[library]},
        device="cpu" if library == "stable_baselines3" else "auto",
        seed=0,
    )
    batch = row["num_envs"] * row["num_steps"]
    model.learn(batch)
    start_seconds = time.perf_counter() - started
    speeds = []
    for _ in range(row["repeats"]):
        started = time.perf_counter()
        model.learn(16 * batch, reset_num_timesteps=False)
        speeds.append(16 * batch / (time.perf_counter() - started))
    return {"compile_seconds": start_seconds, "speeds": speeds}
