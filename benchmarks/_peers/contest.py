"""PPO's return beside the peers': all train for the same number of environment steps, one evaluation for all.

A peer trains in a process of its own (`rejax_policies.py`, `brax_policies.py`) and writes its policy's arrays, with the outputs
of its own network at some observations, which ours must reproduce. Then `jaxpg.evaluate` plays 128 whole episodes per seed with
every contender's policy, from the same starts. Of a peer's settings the one with the best mean return counts.
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import jaxpg
import jaxpg_envs
from benchmarks._claims import above, above_all, claim, difference_of, estimate, null_of
from benchmarks._peers.build import interpreter
from benchmarks._runs import Task, train
from jaxpg.algorithm import Policy
from jaxpg.experiment import load
from jaxpg.experiment.plots import COLOURS, Picture, plain_axes
from jaxpg.experiment.statistics import bootstrap_interval, interquartile_mean

PAPER = "learning per environment step; peers' public code"
EPISODES = 128
FOLDER = Path(__file__).parent


class Peer(NamedTuple):
    """rejax's or brax's PPO with some settings, in its own words; `networks` are brax's, empty for its default."""

    name: str
    settings: dict[str, Any]
    networks: dict[str, Any]


class Contest(NamedTuple):
    """A task with our settings, the peers by the name of their settings, and which kind of policy is evaluated."""

    task: Task
    peers: dict[str, Peer]
    deterministic: bool


def hold(contests: list[Contest], num_seeds: int) -> tuple[dict[str, Any], Picture]:
    """Results and picture of every contest by everyone who runs here."""
    interpreters = {"rejax": interpreter("rejax"), "brax": sys.executable}
    results: dict[str, Any] = {"missing peers": [], "contests": {}}
    with tempfile.TemporaryDirectory() as temporary:
        for contest in contests:
            env = contest.task.env
            scores = _ours(Path(temporary) / env, contest, num_seeds)
            for label, peer in contest.peers.items():
                if python := interpreters[peer.name]:
                    scores[label] = _theirs(python, Path(temporary) / "policies.npz", contest, peer, num_seeds)
                else:
                    results["missing peers"].append(f"{label}: {env}")
            for label, score in scores.items():
                print(f"{env}, {label}: {score['returns']}", flush=True)
            results["contests"][env] = scores
    return results, _picture(results["contests"])


def claims_of(results: dict[str, Any], compare: bool) -> list[dict[str, Any]]:
    """That we are above the best peer or, if they are not to be compared, that all learned something."""
    found = _comparison if compare else _learning
    return list(itertools.chain(*(found(env, scores) for env, scores in results["contests"].items())))


def _ours(folder: Path, contest: Contest, num_seeds: int) -> dict[str, Any]:
    """Of our PPO, untrained and trained."""
    summary = train(folder, "ppo", contest.task, num_seeds)
    algorithm, states = (trained := load(folder)).algorithm, trained.states
    untrained = jax.vmap(algorithm.init)(jax.random.split(jax.random.key(0), num_seeds))
    policies = jax.vmap(partial(algorithm.policy, deterministic=contest.deterministic))
    facts = {"total_steps": summary["total_steps"], "seconds": summary["compile_seconds"] + summary["train_seconds"]}
    return {
        "untrained": _score(policies(untrained), contest, num_seeds) | {"total_steps": 0},
        "jaxpg": _score(policies(states), contest, num_seeds) | facts | {"settings": contest.task.hyperparameters},
    }


def _theirs(python: str, path: Path, contest: Contest, peer: Peer, num_seeds: int) -> dict[str, Any]:
    """Of a peer's PPO, trained in a process of its own on one core's thread."""
    task = contest.task
    job = {"env": task.env.removeprefix("brax/"), "steps": task.steps, "seeds": num_seeds, "settings": peer.settings}
    job |= {"backend": (task.env_options or {}).get("backend"), "networks": peer.networks}
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | {"NPROC": "1"}
    if jax.config.jax_compilation_cache_dir:  # brax compiles anew for every seed
        environment["JAX_COMPILATION_CACHE_DIR"] = jax.config.jax_compilation_cache_dir
    command = [python, str(FOLDER / f"{peer.name}_policies.py"), json.dumps(job), str(path)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{peer.name} failed on {task.env}: {result.stderr[-2000:]}")
    facts = json.loads(result.stdout.splitlines()[-1])
    score = _score(_read_policies(peer, path), contest, num_seeds)
    return score | facts | {"settings": peer.settings, "networks": peer.networks}


def _read_policies(peer: Peer, path: Path) -> Policy:
    """A peer's policies, stacked over seeds, from the arrays that it wrote.

    Raises:
      RuntimeError: they do not act as the peer's own network does.
    """
    with np.load(path) as file:
        arrays = {name: jnp.asarray(file[name]) for name in file.files}
    observations, outputs = arrays.pop("observations"), arrays.pop("outputs")
    named = peer.networks if peer.name == "brax" else peer.settings["agent_kwargs"]
    activation = getattr(nn, named.get("activation", "swish"))
    num_layers = sum(name.startswith("kernel") for name in arrays)

    def output(params: dict[str, jax.Array], observation: jax.Array) -> jax.Array:
        x = ((observation - params["mean"]) / params["std"]).reshape(-1)
        for i in range(num_layers):
            x = (activation(x) if i else x) @ params[f"kernel_{i}"] + params[f"bias_{i}"]
        return jax.nn.softmax(x) if peer.name == "rejax" else jnp.tanh(jnp.split(x, 2)[0])

    def act(params: dict[str, jax.Array], key: jax.Array, observation: jax.Array, carry: tuple) -> tuple[jax.Array, tuple]:
        result = output(params, observation)
        return (jax.random.categorical(key, jnp.log(result)) if peer.name == "rejax" else result), carry

    ours = jax.vmap(lambda params: jax.vmap(partial(output, params))(observations))(arrays)
    if not np.allclose(ours, outputs, atol=1e-3):
        raise RuntimeError(f"{peer.name}'s policy was not read as it is: outputs differ by {np.abs(ours - outputs).max()}")
    return Policy(arrays, act)


def _score(policies: Policy, contest: Contest, num_seeds: int) -> dict[str, Any]:
    """Returns of policies stacked over seeds; all contenders get the same keys."""
    env, params = jaxpg_envs.make(contest.task.env, **(contest.task.env_options or {}))
    evaluate = lambda policy, key: jaxpg.evaluate(policy, env, params, key, EPISODES).mean()
    returns = np.asarray(jax.jit(jax.vmap(evaluate))(policies, jax.random.split(jax.random.key(1), num_seeds)), float)
    return {
        "returns": returns.tolist(),
        "mean": float(returns.mean()),
        "iqm": float(interquartile_mean(returns)),
        "iqm_ci": [float(end) for end in bootstrap_interval(returns)],
        "evaluation": f"{EPISODES} episodes per seed, {'deterministic' if contest.deterministic else 'stochastic'} policy",
    }


def _comparison(env: str, scores: dict[str, Any]) -> list[dict[str, Any]]:
    """Against the best of the peers' counts; nothing where no peer ran."""
    peers = {label: score for label, score in scores.items() if label not in ("jaxpg", "untrained")}
    if not peers:
        return []
    best = max(peers, key=lambda label: peers[label]["mean"])
    ours, theirs = scores["jaxpg"], peers[best]
    measured, interval = estimate(difference_of(np.mean), ours["returns"], theirs["returns"])
    text = f"{env}: mean return {ours['mean']:.1f} after {ours['total_steps']:,} steps less the best peer's, {best}: "
    text += f"{theirs['mean']:.1f} after {theirs['total_steps']:,}"
    return [claim(text, PAPER, measured, above(0), null=0, interval=interval)]


def _learning(env: str, scores: dict[str, Any]) -> list[dict[str, Any]]:
    """Everyone learned something: is above all that the untrained policies' interval holds."""
    null = null_of(np.mean, scores["untrained"]["returns"])
    found = []
    for label, score in scores.items():
        if label != "untrained":
            measured, interval = estimate(np.mean, score["returns"])
            text = f"{env}: {label} after {score['total_steps']:,} steps, mean return"
            found.append(claim(text, PAPER, measured, above_all(null, " (untrained)"), null=null, interval=interval))
    return found


def _picture(contests: dict[str, Any]) -> Picture:
    figure = Picture(figsize=(1.6 + 3.6 * len(contests), 2.6), layout="constrained")
    for axes, (env, scores) in zip(figure.subplots(1, len(contests), squeeze=False)[0], contests.items(), strict=True):
        plain_axes(axes)
        for row, (label, score) in enumerate(scores.items()):
            colour = COLOURS[0] if label == "jaxpg" else COLOURS[-1]
            axes.plot(score["returns"], [row] * len(score["returns"]), "o", color=colour, alpha=0.4, markersize=5)
            axes.plot(score["mean"], row, "|", color=colour, markersize=18, markeredgewidth=2.5)
        axes.set_yticks(range(len(scores)), list(scores))
        axes.set_ylim(len(scores) - 0.5, -0.5)
        axes.set_title(env, loc="left", fontsize=10)
    figure.supxlabel("mean return: seeds (dots) and their mean (bar)", fontsize=9)
    return figure
