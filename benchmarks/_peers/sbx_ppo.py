"""SBX: Stable-Baselines3's PPO with its gradient step in JAX."""

import functools

import sb3_ppo

measure = functools.partial(sb3_ppo.measure, library="sbx")
