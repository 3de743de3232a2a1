"""Makes the peers' environments: `python -m benchmarks._peers.build`.

rejax and jaxued speak the interface of gymnax before 1.0, and Stable-Baselines3 brings PyTorch, so they do not share an
environment with us; everything that both use is pinned as ours. minimax runs with an older JAX only.
"""

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[2] / ".cache" / "peers"
PINS = {
    "rejax": ["rejax==0.1.3", "gymnax==0.0.9"],
    "flashbax": ["flashbax==0.1.3"],
    "qdax": ["qdax==0.5.0"],
    "sb3": ["stable-baselines3==2.9.2", "sbx-rl==0.28.0"],
    "jaxued": ["gymnax==0.0.9", "optax", "distrax", "orbax-checkpoint"],
    "minimax": ["minimax-lib==0.2.0", "jax==0.4.35", "jaxlib==0.4.35", "flax==0.10.2", "chex==0.1.87"],
}
OURS = ("jax", "jaxlib", "flax", "optax", "distrax", "numpy", "chex", "brax", "mujoco", "mujoco-mjx", "orbax-checkpoint")
OLDER = ("minimax",)
CHECKED_OUT = ("jaxued",)  # what is measured is in the repository alone: clone it into the environment's folder, as `source`


def interpreter(peer: str) -> str | None:
    """The Python of a peer's environment, None if it was not made or lacks the checkout that it needs."""
    python, is_whole = FOLDER / peer / "bin" / "python", peer not in CHECKED_OUT or (FOLDER / peer / "source").exists()
    return str(python) if python.exists() and is_whole else None


def build(peer: str) -> None:
    """Makes the environment of a peer, with our versions of what both use."""
    from importlib.metadata import version

    folder = FOLDER / peer
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    shared = folder / "shared.txt"
    shared.write_text("".join(f"{name}=={version(name)}\n" for name in (() if peer in OLDER else OURS)))
    pip = [str(folder / "bin" / "pip"), "install", "--quiet", "--constraint", str(shared)]
    subprocess.run([*pip, *PINS[peer]], check=True)


if __name__ == "__main__":
    for name in PINS:
        build(name)
        print(f"{name}: {interpreter(name)}")
