"""Food and kitchen things that no catalogue has, put together from solids."""

from __future__ import annotations

import numpy as np
from solids import (
    BLACK,
    BROWN,
    CREAM,
    DARK,
    DARKWOOD,
    GOLD,
    GREEN,
    LEAF,
    PALE,
    PINK,
    RED,
    STEEL,
    WHITE,
    WOOD,
    YELLOW,
    Part,
    around,
    ball,
    box,
    lathe,
    mirrored,
    moved,
    ring,
    rod,
    tube,
)


def _dome(
    radius: float, height: float, colour: tuple[float, float, float], at: tuple[float, float, float] = (0, 0, 0)
) -> Part:
    """The upper half of an ellipsoid, flat below; the lower half with a negative height."""
    a = np.linspace(0, np.pi / 2, 14)
    profile = [(0, 0), *[(radius * np.cos(t), height * np.sin(t)) for t in a]]
    return lathe(profile if height > 0 else profile[::-1], colour, at)


def pretzel() -> list[Part]:
    t = np.linspace(-0.15 * np.pi, 1.15 * np.pi, 40)
    loop = [(0.9 * np.cos(a) * (1 + 0.1 * np.sin(a)), 0.75 * np.sin(a), 0) for a in t]
    path = [
        (0.42, -0.75, 0.12),
        (0.15, -0.45, 0.12),
        (-0.2, -0.1, 0.1),
        (-0.55, -0.35, 0.05),
        *[(-x, y, z) for x, y, z in loop[::-1]][5:-5],
        (0.55, -0.35, -0.05),
        (0.2, -0.1, 0.0),
        (-0.15, -0.45, 0.02),
        (-0.42, -0.75, 0.05),
    ]
    return tube(path, 0.15, (0.6, 0.33, 0.12))


def bagel() -> list[Part]:
    seeds = [
        ball(
            (0.62 * np.cos(a) + 0.12 * np.sin(5 * a), 0.3, 0.62 * np.sin(a) + 0.12 * np.cos(7 * a)),
            (0.04, 0.02, 0.025),
            CREAM,
        )
        for a in np.linspace(0, 2 * np.pi, 30)
    ]
    return [ring((0, 0, 0), 0.62, 0.31, (0.78, 0.52, 0.26)), *seeds]


def croissant() -> list[Part]:
    angles = np.linspace(200, 340, 9)
    sizes = [0.14, 0.24, 0.33, 0.4, 0.44, 0.4, 0.33, 0.24, 0.14]
    return [
        ball((np.cos(np.deg2rad(a)), np.sin(np.deg2rad(a)) + 0.8, 0), (0.2, s, s), (0.82, 0.52, 0.2), ("z", float(a)))
        for a, s in zip(angles, sizes, strict=True)
    ]


def waffle() -> list[Part]:
    bars = [box((x, 0, 0.12), (0.1, 1.5, 0.16), (0.82, 0.58, 0.26)) for x in np.linspace(-0.7, 0.7, 6)]
    bars += [box((0, y, 0.12), (1.5, 0.1, 0.16), (0.82, 0.58, 0.26)) for y in np.linspace(-0.7, 0.7, 6)]
    return [
        box((0, 0, 0), (1.5, 1.5, 0.14), (0.72, 0.47, 0.2)),
        *bars,
        box((0, 0.05, 0.24), (0.35, 0.35, 0.12), YELLOW),
    ]


def pie() -> list[Part]:
    lattice = [
        box((0, 0.27, z), (1.7 * np.sqrt(max(1 - (z / 0.95) ** 2, 0.05)), 0.05, 0.14), (0.85, 0.62, 0.3))
        for z in (-0.6, -0.2, 0.2, 0.6)
    ]
    lattice += [
        box((x, 0.29, 0), (0.14, 0.05, 1.7 * np.sqrt(max(1 - (x / 0.95) ** 2, 0.05))), (0.85, 0.62, 0.3))
        for x in (-0.6, -0.2, 0.2, 0.6)
    ]
    return [
        lathe([(0, -0.2), (0.7, -0.2), (1.0, 0.22), (0.9, 0.25), (0, 0.25)], (0.78, 0.52, 0.24)),
        rod((0, 0.22, 0), (0, 0.27, 0), 0.88, (0.6, 0.1, 0.12), sides=40),
        ring((0, 0.25, 0), 0.94, 0.09, (0.85, 0.62, 0.3)),
        *lattice,
    ]


def soda_can() -> list[Part]:
    return [
        lathe([(0, -0.9), (0.4, -0.9), (0.48, -0.8), (0.48, 0.75), (0.4, 0.88), (0, 0.86)], RED),
        lathe([(0.4, 0.87), (0.42, 0.92), (0.38, 0.9)], STEEL),
        rod((0, 0.84, 0), (0, 0.88, 0), 0.4, STEEL),
        lathe([(0.485, -0.25), (0.495, 0.2), (0.485, 0.25)], WHITE),
        ring((0, 0.9, 0.12), 0.1, 0.03, STEEL),
    ]


def tin_can() -> list[Part]:
    ribs = [ring((0, y, 0), 0.6, 0.02, STEEL) for y in np.linspace(-0.6, 0.6, 9)]
    return [
        rod((0, -0.8, 0), (0, 0.8, 0), 0.6, STEEL, sides=44),
        ring((0, 0.8, 0), 0.58, 0.05, STEEL),
        ring((0, -0.8, 0), 0.58, 0.05, STEEL),
        *ribs,
    ]


def jam_jar() -> list[Part]:
    return [
        lathe([(0, -0.75), (0.5, -0.75), (0.56, -0.65), (0.56, 0.35), (0.46, 0.5), (0, 0.5)], (0.7, 0.1, 0.15)),
        rod((0, 0.5, 0), (0, 0.75, 0), 0.5, GOLD, sides=40),
        box((0, -0.1, 0.545), (0.55, 0.5, 0.05), CREAM),
        ball((0, -0.05, 0.58), (0.12, 0.14, 0.02), RED),
    ]


def ketchup_bottle() -> list[Part]:
    return [
        lathe([(0, -1), (0.4, -1), (0.44, -0.9), (0.42, 0.1), (0.2, 0.6), (0.18, 0.75), (0, 0.75)], RED),
        rod((0, 0.75, 0), (0, 0.95, 0), 0.2, WHITE),
        rod((0, 0.95, 0), (0, 1.15, 0), 0.09, WHITE, 0.04),
        lathe([(0.445, -0.7), (0.455, -0.3), (0.435, 0.0)], WHITE),
    ]


def whisk() -> list[Part]:
    loops = [
        part
        for k in range(4)
        for part in moved(
            tube(
                [(0.3 * np.sin(a), 0.55 - 0.85 * np.cos(a), 0) for a in np.linspace(-np.pi * 0.93, np.pi * 0.93, 30)],
                0.025,
                STEEL,
                6,
            ),
            (0, -0.6, 0),
            1.0,
            ("y", 45 * k),
        )
    ]
    return [rod((0, 0.75, 0), (0, 1.6, 0), 0.1, DARK), *loops]


def rolling_pin() -> list[Part]:
    return [
        rod((-0.9, 0, 0), (0.9, 0, 0), 0.27, WOOD, sides=36),
        *mirrored([rod((0.9, 0, 0), (1.05, 0, 0), 0.08, DARKWOOD), ball((1.3, 0, 0), (0.28, 0.13, 0.13), DARKWOOD)]),
    ]


def grater() -> list[Part]:
    holes = [
        ball((x, y, 0.4 - 0.16 * (y + 0.8) / 1.6 + 0.02), (0.05, 0.04, 0.03), DARK)
        for x in (-0.2, 0, 0.2)
        for y in np.linspace(-0.6, 0.5, 6)
    ]
    body = lathe([(0.55, -0.8), (0.33, 0.8), (0.3, 0.8), (0.52, -0.8)], STEEL, (0, 0, 0), ("y", 45), sides=4)
    return [body, *holes, *tube([(-0.22, 0.8, 0), (-0.22, 1.1, 0), (0.22, 1.1, 0), (0.22, 0.8, 0)], 0.06, BLACK)]


def funnel() -> list[Part]:
    return [
        lathe(
            [(0.08, -1), (0.12, -0.2), (0.85, 0.7), (0.85, 0.85), (0.8, 0.85), (0.8, 0.7), (0.08, -0.18), (0.05, -1)],
            RED,
        )
    ]


def peach() -> list[Part]:
    return [
        ball((0, 0, 0), (0.85, 0.8, 0.85), (0.97, 0.65, 0.42)),
        ball((0.3, 0.05, 0.25), (0.6, 0.62, 0.6), (0.93, 0.45, 0.35)),
        rod((0, 0.75, 0), (0.05, 0.98, 0), 0.04, BROWN),
        ball((0.3, 0.9, 0), (0.3, 0.06, 0.14), LEAF, ("z", 20)),
    ]


def kiwi() -> list[Part]:
    seeds = around(
        [ball((0.3, 0.03, 0), (0.035, 0.02, 0.015), BLACK), ball((0.4, 0.03, 0.1), (0.035, 0.02, 0.015), BLACK)], 12
    )
    half = [
        _dome(0.75, -0.8, (0.45, 0.32, 0.16)),
        rod((0, -0.01, 0), (0, 0.02, 0), 0.71, (0.5, 0.72, 0.18), sides=40),
        rod((0, 0, 0), (0, 0.03, 0), 0.2, CREAM),
        *seeds,
    ]
    return moved(half, (0, 0, 0), 1.0, ("x", 50))


def coconut() -> list[Part]:
    half = [
        _dome(0.85, -0.85, (0.35, 0.22, 0.12)),
        rod((0, -0.01, 0), (0, 0.02, 0), 0.82, WHITE, sides=40),
        rod((0, 0, 0), (0, 0.03, 0), 0.55, PALE, sides=40),
    ]
    return moved(half, (0, 0, 0), 1.0, ("x", 45))


def cucumber() -> list[Part]:
    return [
        *tube(
            [(-1.1, 0.05, 0), (-0.6, -0.05, 0), (0, -0.1, 0), (0.6, -0.05, 0), (1.1, 0.05, 0)],
            [0.2, 0.26, 0.28, 0.26, 0.18],
            (0.2, 0.45, 0.15),
        ),
        rod((1.2, 0.07, 0), (1.4, 0.12, 0), 0.05, LEAF),
    ]


def radish() -> list[Part]:
    leaves = around([*tube([(0.05, 0.5, 0), (0.2, 1.0, 0), (0.45, 1.3, 0)], [0.05, 0.09, 0.13], LEAF)], 5)
    return [
        ball((0, 0, 0), (0.55, 0.55, 0.55), (0.85, 0.12, 0.3)),
        rod((0, -0.45, 0), (0, -1.1, 0), 0.14, WHITE, 0.0),
        *leaves,
    ]


def garlic() -> list[Part]:
    cloves = around([ball((0.32, -0.1, 0), (0.34, 0.5, 0.3), CREAM)], 7)
    return [*cloves, ball((0, 0.05, 0), (0.45, 0.5, 0.45), WHITE), rod((0, 0.35, 0), (0.05, 1.0, 0), 0.16, CREAM, 0.07)]


def chili_pepper() -> list[Part]:
    return [
        *tube(
            [(-0.7, 0.4, 0), (-0.3, 0.3, 0), (0.2, 0.1, 0), (0.7, -0.2, 0), (1.0, -0.55, 0)],
            [0.24, 0.26, 0.22, 0.14, 0.03],
            RED,
        ),
        ball((-0.75, 0.42, 0), (0.16, 0.22, 0.22), GREEN),
        *tube([(-0.85, 0.45, 0), (-1.1, 0.65, 0)], 0.06, GREEN),
    ]


def acorn() -> list[Part]:
    return [
        lathe([(0, -0.9), (0.08, -0.82), (0.4, -0.5), (0.5, -0.1), (0.48, 0.15), (0, 0.15)], (0.7, 0.48, 0.22)),
        ball((0, 0.15, 0), (0.6, 0.38, 0.6), BROWN),
        rod((0, 0.45, 0), (0.06, 0.8, 0), 0.06, BROWN),
    ]


def chopsticks() -> list[Part]:
    one = [rod((0, -1.4, 0), (0, 1.4, 0), 0.035, WOOD, 0.08), rod((0, 0.9, 0), (0, 1.41, 0), 0.085, RED)]
    return [*moved(one, (0.15, 0, 0), 1.0, ("z", -6)), *moved(one, (-0.15, 0, 0.1), 1.0, ("z", 6))]


def soap_bar() -> list[Part]:
    return [
        ball((0, 0, 0), (0.9, 0.28, 0.58), PINK),
        box((0, 0, 0), (1.3, 0.4, 0.8), PINK),
        ball((0, 0.22, 0), (0.5, 0.03, 0.25), WHITE),
    ]


PANTRY = {
    "pretzel": pretzel, "bagel": bagel, "croissant": croissant, "waffle": waffle, "pie": pie, "soda_can": soda_can,
    "tin_can": tin_can, "jam_jar": jam_jar, "ketchup_bottle": ketchup_bottle, "whisk": whisk,
    "rolling_pin": rolling_pin, "grater": grater, "funnel": funnel, "peach": peach, "kiwi": kiwi, "coconut": coconut,
    "cucumber": cucumber, "radish": radish, "garlic": garlic, "chili_pepper": chili_pepper, "acorn": acorn,
    "chopsticks": chopsticks, "soap": soap_bar,
}  # fmt: skip
