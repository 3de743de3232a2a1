"""The mazes that PLR and its successors held out of training to measure zero-shot transfer.

Walls, goals and starts are those of DCD (Jiang et al. 2021, arXiv 2110.02439), in which SixteenRooms2 is called
SixteenRoomsFewerDoors and StandardMaze is called Maze; the first directions are those of JaxUED and minimax. (In DCD they are
random.)
"""

import numpy as np

from jaxpg_envs.grid import MazeLevel

# Walls are #, the goal is G, and the start an arrow that points where the agent looks.
_MAZES = {
    "SixteenRooms": """
        ...#..#..#...
        .>.......#...
        ...#..#......
        #.###.##.###.
        ...#.........
        ......#..#...
        ##.#.##.###.#
        ...#.....#...
        ...#..#......
        .####.##.#.##
        ...#..#..#...
        ......#....G.
        ...#.....#...
    """,
    "SixteenRooms2": """
        ...#.....#...
        .>....#..#...
        ...#..#..#...
        ####.##.###.#
        ...#..#......
        ......#..#...
        #.#####.#####
        ...#..#..#...
        ...#.........
        ##.##.##.####
        ...#..#..#...
        ......#....G.
        ...#..#..#...
    """,
    "Labyrinth": """
        .............
        .###########.
        .#.........#.
        .#.#######.#.
        .#.#.....#.#.
        .#.#.###.#.#.
        .#.#.#G#.#.#.
        .#.#.#.#.#.#.
        .#...#...#.#.
        .#########.#.
        .....#.....#.
        ####.#.#####.
        >....#.......
    """,
    "LabyrinthFlipped": """
        .............
        .###########.
        .#.........#.
        .#.#######.#.
        .#.#.....#.#.
        .#.#.###.#.#.
        .#.#.#G#.#.#.
        .#.#.#.#.#.#.
        .#.#...#...#.
        .#.#########.
        .#.....#.....
        .#####.#.####
        .......#....<
    """,
    "Labyrinth2": """
        >#...........
        .#.#########.
        .#.#.......#.
        .#.#.#####.#.
        .#.#.#...#.#.
        ...#.#.#.#.#.
        ####.#G#.#.#.
        ...#.###.#.#.
        .#.#.....#.#.
        .#.#######.#.
        .#.........#.
        .###########.
        .............
    """,
    "StandardMaze": """
        .....#>...#..
        .###.####.##.
        .#...........
        .########.###
        ........#....
        ######.#####.
        ....#..#.....
        .##...##.####
        ..#.#..#...#.
        #.#.##.###.#.
        #.#..#...#...
        #.##.###.###.
        ...#..G#.#...
    """,
    "StandardMaze2": """
        ...#.#....#..
        .#.#.####...#
        .#........#..
        .########.###
        ...#..#.#.#.G
        ##.#.##.#.#..
        >#.#....#.##.
        .#.##.###..#.
        .#..#..###.#.
        .##.##.#.#.#.
        .#...#.#.#.#.
        .#.#.#.#.#.#.
        ...#...#.....
    """,
    "StandardMaze3": """
        ...>#.#......
        .####.#.####.
        .#....#.#....
        ...####.#.#.#
        ##.#....#.#..
        ...#.##.#.##.
        .#.#.#..#..#G
        .#.#.#.###.##
        .#...#.#.#...
        .###.#.#.###.
        .#...#.#...#.
        .#.###.#.#.#.
        .#...#...#...
    """,
}

# Cells on each side, of dead ends on both sides of a wall; the goal is at the inner end of one of them.
_CORRIDORS = {"SmallCorridor": 13, "LargeCorridor": 19}

HELD_OUT_MAZES = (*_MAZES, *_CORRIDORS)


def maze_levels(name: str, seed: int, number: int) -> MazeLevel:
    """`number` times the maze `name`, one of `HELD_OUT_MAZES`; the corridors with goals drawn by `seed`."""
    if name in _CORRIDORS:
        return _corridors(_CORRIDORS[name], seed, number)
    rows = _MAZES[name].split()
    flat = "".join(rows)
    arrow = next(arrow for arrow in ">v<^" if arrow in flat)
    walls = np.array([list(row) for row in rows]) == "#"
    level = MazeLevel(walls, np.int32(flat.index("G")), np.int32(flat.index(arrow)), np.int32(">v<^".index(arrow)))
    return MazeLevel(*(np.repeat(field[None], number, axis=0) for field in level))


def _corridors(size: int, seed: int, number: int) -> MazeLevel:
    middle = size // 2
    walls = np.zeros((size, size), bool)
    walls[1:-1, 1::2] = True
    walls[middle, 1:-1] = True
    ends = [row * size + column for row in (middle - 1, middle + 1) for column in range(2, size - 2, 2)]
    goals = np.random.default_rng(seed).choice(np.array(ends, np.int32), number)
    starts = np.full(number, middle * size, np.int32)
    return MazeLevel(np.repeat(walls[None], number, axis=0), goals, starts, np.zeros(number, np.int32))
