#!/usr/bin/env bash
# pgx 2.6.0, Go (on jax 0.10.2).
#
# Good guess:      a game of Go ends by two passes, so what an agent sees says all that decides how the game goes on; a limit of
#                  moves, if there is one, is reported as a truncation.
# What happens:    the game ends after 2 * size**2 moves (9 x 9: 162), scored as it stands, `terminated` but not `truncated`.
#                  The observation has no clock: of two games with the same moves and observations one ends and the other does
#                  not. Random players who pass only when they must get there. Chess, Gardner chess and animal shogi have a
#                  limit too, but a plane of their observation shows the move number.
# Do instead:      add the number of moves, over the limit, to the observation before learning values.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pgx==2.6.0 jax==0.10.2 jaxlib==0.10.2
JAX_PLATFORMS=cpu "$folder/venv/bin/python" -I - <<'PYTHON'
import sys

import jax
import jax.numpy as jnp
import pgx
from pgx.go import Go


def random_move(key, state):
    points = state.legal_action_mask[:-1]
    return jnp.where(points.any(), jax.random.categorical(key, jnp.where(points, 0.0, -jnp.inf)), points.size)


usual, short = pgx.make("go_9x9"), Go(size=9, max_terminal_steps=20)
step, step_short, move = jax.jit(usual.step), jax.jit(short.step), jax.jit(random_move)
state, other = usual.init(jax.random.key(0)), short.init(jax.random.key(0))
same, ends, moves = True, None, 0
while not (state.terminated | state.truncated):
    action = move(jax.random.fold_in(jax.random.key(1), moves), state)
    if ends is None:
        same &= bool((state.observation == other.observation).all())
        other = step_short(other, action)
        ends = moves + 1 if other.terminated else None
    state, moves = step(state, action), moves + 1

passes = int(state._x.consecutive_pass_count)
print("guess: the game ends by two passes, or is truncated; a limit can be seen coming")
print(
    f"seen:  it ends after {moves} moves and {passes} passes: terminated {bool(state.terminated)}, truncated",
    f"{bool(state.truncated)}, rewards {state.rewards.tolist()}",
)
print(f"       with max_terminal_steps=20 it ends after {ends} moves; the observations before each move are the same: {same}")
sys.exit(not (moves == 162 and passes < 2 and state.terminated and not state.truncated and ends == 20 and same))
PYTHON
