"""The names of the suites that are extras: `SUITES[suite][name]` is a line of description.

A suite's adapter is the module `SUITE_adapter`, and its extra has the suite's name.
"""

_JUMANJI = {
    "BinPack-v2": "pack boxes into a container",
    "CVRP-v1": "deliver with a vehicle of limited capacity",
    "Cleaner-v0": "clean a maze with three agents",
    "FlatPack-v0": "fill a grid with blocks",
    "Game2048-v1": "slide and merge tiles",
    "GraphColoring-v1": "colour a graph with few colours",
    "JobShop-v0": "schedule jobs on machines",
    "Knapsack-v1": "fill a knapsack with the most value",
    "MMST-v0": "connect nodes by several spanning trees",
    "Maze-v0": "find the way out of a maze",
    "Minesweeper-v0": "open a board without hitting a mine",
    "PacMan-v1": "eat pellets, avoid ghosts; over after 1000 steps, which one does not see coming",
    "RobotWarehouse-v0": "bring shelves with four robots",
    "RubiksCube-partly-scrambled-v0": "solve a cube at most seven turns away",
    "RubiksCube-v0": "solve a scrambled cube",
    "SlidingTilePuzzle-v0": "order sliding tiles",
    "Snake-v1": "eat fruit, grow, and do not bite yourself",
    "Sudoku-v0": "fill a Sudoku",
    "Sudoku-very-easy-v0": "fill a Sudoku with many clues",
    "TSP-v1": "visit all cities on a short tour",
    "Tetris-v0": "fill lines with falling pieces",
}

_PGX = {
    "2048": "slide and merge tiles",
    "animal_shogi": "Shogi on 3 x 4; over after 256 moves",
    "backgammon": "Backgammon",
    "chess": "chess; over after 512 moves",
    "connect_four": "four in a row, by gravity",
    "gardner_chess": "chess on 5 x 5; over after 256 moves",
    "go_19x19": "Go on 19 x 19; over after 722 moves, which one does not see coming",
    "go_9x9": "Go on 9 x 9; over after 162 moves, which one does not see coming",
    "hex": "connect two sides of a board of hexagons",
    "kuhn_poker": "poker with three cards",
    "leduc_holdem": "poker with six cards and two rounds",
    "minatar-asterix": "MinAtar: collect treasure, avoid enemies",
    "minatar-breakout": "MinAtar: break bricks with a ball and a paddle",
    "minatar-freeway": "MinAtar: cross a road with traffic",
    "minatar-seaquest": "MinAtar: rescue divers with a submarine that needs air",
    "minatar-space_invaders": "MinAtar: shoot descending aliens",
    "othello": "Othello",
    "shogi": "Shogi; over after 512 moves, which one does not see coming",
    "tic_tac_toe": "three in a row",
}

_CRAFTAX = {
    "Craftax-Classic-Symbolic-v1": "survive, gather and craft in an open world",
    "Craftax-Symbolic-v1": "the same with nine levels, magic and a boss",
}

_XMINIGRID = {
    "MiniGrid-BlockedUnlockPickUp": "clear a locked door, open it, pick up an object",
    **{f"MiniGrid-DoorKey-{n}x{n}": "fetch a key, open a door, reach the goal" for n in (5, 6, 8, 16)},
    **{f"MiniGrid-Empty-{n}x{n}": "reach the goal in an empty room" for n in (5, 6, 8, 16)},
    **{f"MiniGrid-EmptyRandom-{n}x{n}": "the same from anywhere in the room" for n in (5, 6, 8, 16)},
    "MiniGrid-FourRooms": "reach the goal in four rooms",
    "MiniGrid-LockedRoom": "find a key and the room that it opens",
    **{f"MiniGrid-MemoryS{n}": "recall an object at the end of a corridor: memory" for n in (8, 16, 32, 64, 128)},
    "MiniGrid-Playground": "nine rooms with objects and no goal",
    "MiniGrid-Unlock": "open a locked door",
    "MiniGrid-UnlockPickUp": "open a locked door, pick up an object",
} | {
    f"XLand-MiniGrid-R{rooms}-{n}x{n}": f"a goal and rules given by `ruleset`, in {rooms} rooms: meta-learning"
    for rooms, sizes in {
        1: (9, 11, 13, 15, 17),
        2: (9, 11, 13, 15, 17),
        4: (9, 11, 13, 15, 17),
        6: (13, 17, 19),
        9: (16, 19, 25),
    }.items()
    for n in sizes
}

_PLAYGROUND = {
    "AcrobotSwingup": "swing up a two-link arm",
    "AcrobotSwingupSparse": "the same with a sparse reward",
    "BallInCup": "catch a ball on a string in a cup",
    "CartpoleBalance": "balance a pole on a cart",
    "CartpoleBalanceSparse": "the same with a sparse reward",
    "CartpoleSwingup": "swing a pole up on a cart",
    "CartpoleSwingupSparse": "the same with a sparse reward",
    "CheetahRun": "run with two legs in a plane",
    "FingerSpin": "spin a body with a finger",
    "FingerTurnEasy": "turn a body to a large target",
    "FingerTurnHard": "turn a body to a small target",
    "FishSwim": "swim to a target",
    "HopperHop": "hop forward on one leg",
    "HopperStand": "stand on one leg",
    "HumanoidRun": "run with a human-like body",
    "HumanoidStand": "stand with a human-like body",
    "HumanoidWalk": "walk with a human-like body",
    "PendulumSwingup": "swing a pendulum up and hold it",
    "PointMass": "move a point to the centre",
    "SwimmerSwimmer6": "swim with six links",
    "WalkerRun": "run with two legs in a plane",
    "WalkerStand": "stand on two legs in a plane",
    "WalkerWalk": "walk with two legs in a plane",
}

SUITES = {"jumanji": _JUMANJI, "pgx": _PGX, "craftax": _CRAFTAX, "xminigrid": _XMINIGRID, "playground": _PLAYGROUND}


def how_to_install(extra: str) -> str:
    """What to type for an extra, with the pinned versions that are tested."""
    return f"in jaxpg's folder, .venv/bin/pip install -c requirements.lock -e '.[{extra}]'"
