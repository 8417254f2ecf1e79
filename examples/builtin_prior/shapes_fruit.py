"""Fruit and vegetables that no catalogue has, put together from solids."""

from __future__ import annotations

import numpy as np
from solids import BLACK, BROWN, GREEN, LEAF, ORANGE, RED, YELLOW, Part, arc, around, ball, lathe, moved, plate, tube


def _stalk(height: float, at=(0, 0, 0)) -> list[Part]:
    x, y, z = at
    return tube([(x, y, z), (x + 0.02, y + height * 0.6, z), (x + 0.08, y + height, z)], [0.035, 0.03, 0.04], BROWN)


def apple(skin=RED) -> list[Part]:
    a = np.linspace(-np.pi / 2, np.pi / 2, 24)
    profile = [
        (0, -0.78),
        *zip(0.95 * np.cos(a) ** 0.8 * (1 + 0.08 * np.sin(a)), 0.85 * np.sin(a) - 0.12 * np.cos(a) ** 0, strict=True),
        (0, 0.55),
    ]
    leaf = plate([(0, 0), (0.25, -0.1), (0.5, 0), (0.25, 0.12)], 0.03, LEAF, (0.06, 0.9, 0), ("x", -60), ("y", 20))
    return [lathe(profile, skin), *_stalk(0.5, (0, 0.55, 0)), leaf]


def pear() -> list[Part]:
    profile = [
        (0, -1),
        (0.4, -0.97),
        (0.68, -0.7),
        (0.72, -0.4),
        (0.55, 0),
        (0.36, 0.4),
        (0.3, 0.7),
        (0.18, 0.85),
        (0, 0.88),
    ]
    return [lathe(profile, (0.72, 0.76, 0.25)), *_stalk(0.35, (0, 0.85, 0))]


def banana() -> list[Part]:
    points = arc((0, 1, 0), 1.0, 200, 340, 14)
    radii = 0.05 + 0.17 * np.sin(np.linspace(0.15, np.pi - 0.15, 14)) ** 0.6
    return [
        *tube(points, radii, YELLOW),
        *tube([points[-1], (points[-1][0] + 0.06, points[-1][1] + 0.16, 0)], 0.05, (0.5, 0.42, 0.12)),
        ball(points[0], 0.075, BROWN),
    ]


def bananas() -> list[Part]:
    one = banana()
    return [p for k in range(4) for p in moved(one, (0, 0, 0.22 * k - 0.33), 1.0, ("x", 14 * k - 21))]


def orange() -> list[Part]:
    return [ball((0, 0, 0), 1.0, ORANGE), ball((0, 0.97, 0), (0.1, 0.06, 0.1), LEAF)]


def lemon() -> list[Part]:
    return [
        ball((0, 0, 0), (1.0, 0.7, 0.7), YELLOW),
        ball((0.98, 0, 0), (0.16, 0.12, 0.12), YELLOW),
        ball((-0.98, 0, 0), (0.12, 0.1, 0.1), YELLOW),
    ]


def cherry() -> list[Part]:
    stems = [tube([(x, 0.3, 0), (x * 0.7, 0.8, 0), (0, 1.3, 0)], 0.03, LEAF) for x in (-0.45, 0.45)]
    leaf = plate([(0, 0), (0.3, -0.15), (0.7, 0), (0.3, 0.18)], 0.04, LEAF, (0, 1.3, 0), ("z", -20))
    return [
        ball((-0.45, 0, 0), 0.38, (0.7, 0.04, 0.1)),
        ball((0.45, 0, 0), 0.38, (0.7, 0.04, 0.1)),
        *stems[0],
        *stems[1],
        leaf,
    ]


def strawberry() -> list[Part]:
    body = lathe([(0, -1), (0.25, -0.85), (0.55, -0.3), (0.68, 0.2), (0.6, 0.45), (0.3, 0.55), (0, 0.55)], RED)
    seeds = []
    for row, (height, radius) in enumerate(((-0.6, 0.41), (-0.25, 0.585), (0.1, 0.675), (0.35, 0.645))):
        for k in range(9):
            a = 2 * np.pi * (k + 0.5 * (row % 2)) / 9
            seeds.append(ball((radius * np.cos(a), height, radius * np.sin(a)), 0.035, YELLOW))
    leaves = around([plate([(0, -0.14), (0.6, 0), (0, 0.14)], 0.05, LEAF, (0, 0.58, 0), ("x", 90), ("z", -12))], 7)
    return [body, *seeds, *leaves, *tube([(0, 0.55, 0), (0.05, 0.8, 0)], 0.05, LEAF)]


def grapes() -> list[Part]:
    parts = []
    for row, (count, radius) in enumerate(((1, 0), (4, 0.25), (6, 0.42), (7, 0.5), (6, 0.42), (3, 0.2))):
        for k in range(count):
            a = 2 * np.pi * (k + 0.5 * row) / count
            parts.append(ball((radius * np.cos(a), -0.9 + 0.34 * row, radius * np.sin(a)), 0.24, (0.4, 0.1, 0.45)))
    leaf = plate(
        [(0, 0), (0.35, -0.3), (0.45, -0.05), (0.75, 0.1), (0.4, 0.25), (0.3, 0.5)], 0.05, LEAF, (0, 1.05, 0.1)
    )
    return [*parts, *tube([(0, 0.8, 0), (0, 1.3, 0)], 0.06, BROWN), leaf]


def pineapple() -> list[Part]:
    body = [ball((0, 0, 0), (0.6, 0.85, 0.6), (0.85, 0.6, 0.15))]
    for row in range(9):
        height = -0.72 + 0.18 * row
        radius = 0.6 * np.sqrt(max(1 - (height / 0.85) ** 2, 0))
        for k in range(10):
            a = 2 * np.pi * (k + 0.5 * (row % 2)) / 10
            body.append(ball((radius * np.cos(a), height, radius * np.sin(a)), 0.1, (0.7, 0.42, 0.1)))
    leaf = plate([(-0.1, 0), (0.1, 0), (0, 0.9)], 0.03, LEAF, (0, 0.75, 0.05), ("x", 25))
    inner = plate([(-0.1, 0), (0.1, 0), (0, 1.0)], 0.03, (0.15, 0.42, 0.15), (0, 0.75, 0.02), ("x", 8))
    return [*body, *around([leaf], 9), *around([inner], 6, first=20)]


def watermelon() -> list[Part]:
    """Half a melon, cut side up and toward the camera."""
    a = np.linspace(-np.pi / 2, 0, 20)
    seeds = [(r * np.cos(b), r * np.sin(b)) for r, n in ((0.35, 6), (0.65, 11)) for b in np.arange(n) * 2 * np.pi / n]
    parts = [
        lathe([*zip(np.cos(a), np.sin(a), strict=True), (0, 0)], GREEN),
        lathe([(0, 0), (0.96, 0), (0.96, 0.015), (0, 0.015)], (0.9, 0.92, 0.75)),
        lathe([(0, 0), (0.88, 0), (0.88, 0.03), (0, 0.03)], (0.9, 0.2, 0.22)),
        *[ball((x, 0.035, z), (0.05, 0.02, 0.03), BLACK) for x, z in seeds],
    ]
    return moved(parts, (0, 0, 0), 1.0, ("x", 35))


def tomato() -> list[Part]:
    leaf = plate([(0, -0.07), (0.45, 0), (0, 0.07)], 0.03, LEAF, (0, 0.76, 0), ("x", 90), ("z", -8))
    return [
        ball((0, 0, 0), (1.0, 0.8, 1.0), (0.85, 0.15, 0.08)),
        *around([leaf], 5),
        *tube([(0, 0.7, 0), (0, 1.0, 0)], 0.06, LEAF),
    ]


def carrot() -> list[Part]:
    leaves = around([*tube([(0, 0.9, 0), (0.15, 1.3, 0), (0.35, 1.6, 0)], [0.05, 0.06, 0.03], LEAF)], 5)
    return [lathe([(0, -1.2), (0.08, -1.1), (0.3, 0.5), (0.32, 0.8), (0.2, 0.93), (0, 0.95)], ORANGE), *leaves]


def eggplant() -> list[Part]:
    body = lathe(
        [(0, -1), (0.35, -0.92), (0.55, -0.6), (0.5, -0.2), (0.34, 0.4), (0.28, 0.7), (0.15, 0.85), (0, 0.87)],
        (0.25, 0.08, 0.3),
    )
    return [body, lathe([(0.3, 0.68), (0.2, 0.86), (0.07, 0.92), (0.06, 1.15), (0, 1.15)], LEAF)]


def pepper() -> list[Part]:
    lobes = [
        ball((0.25 * np.cos(a), -0.05, 0.25 * np.sin(a)), (0.45, 0.75, 0.45), RED)
        for a in np.arange(4) * np.pi / 2 + 0.4
    ]
    return [*lobes, *tube([(0, 0.6, 0), (0, 0.85, 0), (0.12, 1.05, 0)], [0.14, 0.08, 0.09], LEAF)]


def onion() -> list[Part]:
    return [
        lathe(
            [
                (0, -0.85),
                (0.3, -0.82),
                (0.8, -0.45),
                (0.95, 0),
                (0.75, 0.45),
                (0.3, 0.75),
                (0.12, 1.0),
                (0.1, 1.3),
                (0, 1.3),
            ],
            (0.78, 0.5, 0.25),
        )
    ]


def potato() -> list[Part]:
    return [
        ball((0, 0, 0), (1.0, 0.62, 0.7), (0.72, 0.55, 0.33)),
        ball((0.45, 0.1, 0.1), (0.6, 0.55, 0.6), (0.72, 0.55, 0.33)),
        *[ball(p, 0.05, BROWN) for p in ((0.3, 0.62, 0.2), (-0.4, 0.45, 0.4), (0.1, 0.2, 0.72))],
    ]


def avocado() -> list[Part]:
    profile = [(0, -1), (0.5, -0.9), (0.72, -0.5), (0.65, 0), (0.42, 0.5), (0.3, 0.85), (0.12, 1), (0, 1)]
    skin, flesh, stone = (
        lathe(profile, (0.12, 0.25, 0.1)),
        lathe(profile, (0.8, 0.85, 0.45)),
        ball((0, -0.4, 0.05), 0.36, BROWN),
    )
    skin[0].vertices[:, 2] = np.minimum(skin[0].vertices[:, 2], 0.0)
    flesh[0].apply_scale(0.92)
    flesh[0].vertices[:, 2] = np.clip(flesh[0].vertices[:, 2], -0.3, 0.02)
    return [skin, flesh, stone]


FRUIT = {
    "apple": apple,
    "green_apple": lambda: apple((0.5, 0.72, 0.2)),
    "pear": pear,
    "banana": banana,
    "bananas": bananas,
    "orange": orange,
    "lemon": lemon,
    "cherry": cherry,
    "strawberry": strawberry,
    "grapes": grapes,
    "pineapple": pineapple,
    "watermelon": watermelon,
    "tomato": tomato,
    "carrot": carrot,
    "eggplant": eggplant,
    "pepper": pepper,
    "onion": onion,
    "potato": potato,
    "avocado": avocado,
}
