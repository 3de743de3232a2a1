"""Makes the peers' environments: `python -m benchmarks._peers.build`.

rejax and jaxued speak the interface of gymnax before 1.0, and Stable-Baselines3 brings PyTorch, so they do not share an
environment with us; everything that both use is pinned as ours. minimax runs with an older JAX only.

GROOVE's code asks for JAX 0.4.13, flax 0.6.11, optax 0.1.5, gymnax 0.0.6, evosax 0.1.4 and tensorstore 0.1.40. What it leaves
open is pinned to what was there in 2023: NumPy before 2, SciPy before 1.13, ml_dtypes 0.2 and Orbax 0.2.7 (newer ones need a
newer JAX); six, which gymnax imports, is not among its requirements. The tools that it asks for but does not train with
(tensorflow, black, pre-commit) are left out.
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
    "groove": [
        *("jax==0.4.13", "jaxlib==0.4.13", "flax==0.6.11", "optax==0.1.5", "gymnax==0.0.6", "evosax==0.1.4"),
        *("tensorstore==0.1.40", "orbax-checkpoint==0.2.7", "numpy==1.26.4", "scipy==1.12.0"),
        *("ml_dtypes==0.2.0", "six", "rich"),
    ],
}
OURS = ("jax", "jaxlib", "flax", "optax", "distrax", "numpy", "chex", "brax", "mujoco", "mujoco-mjx", "orbax-checkpoint")
OLDER = ("minimax", "groove")
# What is measured is in the repository alone: clone it into the environment's folder, as `source`.
CHECKED_OUT = ("jaxued", "groove")


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
