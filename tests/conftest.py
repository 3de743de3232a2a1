"""Checks the shapes in signatures while the tests run, and keeps compiled programs between runs."""

from pathlib import Path

import jaxtyping

jaxtyping.install_import_hook(["jaxpg", "jaxpg_envs"], "beartype.beartype")

import jax  # noqa: E402

from jaxpg.randomness import use_fast_random_bits  # noqa: E402

use_fast_random_bits()  # compiling is most of what the tests cost
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".cache" / "jax"))
