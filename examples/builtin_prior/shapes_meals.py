"""Meals and sweets that no catalogue has, put together from solids."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from solids import (
    LEAF,
    ORANGE,
    PINK,
    RED,
    TAN,
    WHITE,
    YELLOW,
    Part,
    arc,
    ball,
    box,
    lathe,
    mirrored,
    moved,
    plate,
    ring,
    rod,
    tube,
)


def pizza() -> list[Part]:
    parts = [
        lathe([(0, 0), (1.0, 0), (1.0, 0.06), (0, 0.06)], (0.85, 0.62, 0.32)),
        ring((0, 0.06, 0), 0.95, 0.075, (0.75, 0.48, 0.2)),
        lathe([(0, 0.05), (0.9, 0.05), (0.9, 0.085), (0, 0.085)], (0.95, 0.78, 0.3)),
    ]
    for r, n in ((0.25, 2), (0.62, 7)):
        for k in range(n):
            a = 2 * np.pi * (k + 0.3 * r) / n
            parts.append(
                lathe(
                    [(0, 0), (0.15, 0), (0.15, 0.03), (0, 0.03)],
                    (0.75, 0.12, 0.08),
                    (r * np.cos(a), 0.085, r * np.sin(a)),
                )
            )
            b = a + np.pi / n
            parts.append(ball((r * 1.1 * np.cos(b), 0.1, r * 1.1 * np.sin(b)), (0.06, 0.02, 0.04), LEAF))
    return moved(parts, (0, 0, 0), 1.0, ("x", 25))


def cheese() -> list[Part]:
    wedge = plate([(-1, -0.45), (1, -0.45), (1, 0.45), (-1, 0.45)], 0.8, (0.97, 0.8, 0.25))
    wedge[0].vertices[wedge[0].vertices[:, 0] < 0, 2] *= 0.08
    holes = [
        ball((x, y, 0.04 + 0.36 * (x + 1) / 2 - 0.02), (0.13, 0.13, 0.03), (0.8, 0.6, 0.12))
        for x, y in ((0.7, 0.2), (0.3, -0.2), (0.75, -0.25), (0, 0.15), (-0.3, -0.15))
    ]
    return [
        wedge,
        *holes,
        *[ball((1.0, y, z), (0.03, 0.12, 0.12), (0.8, 0.6, 0.12)) for y, z in ((0.15, 0.15), (-0.2, -0.1))],
    ]


def pizza_slice() -> list[Part]:
    crust = tube(arc((0, -1.2, 0), 1.95, 72, 108, 9), 0.12, (0.75, 0.48, 0.2))
    cheese = plate(
        [(0, -1.2), (0.58, 0.66), (0.3, 0.76), (0, 0.78), (-0.3, 0.76), (-0.58, 0.66)], 0.1, (0.95, 0.78, 0.3)
    )
    dots = [
        ball((x, y, 0.06), (0.16, 0.16, 0.03), (0.75, 0.12, 0.08)) for x, y in ((0.2, 0.4), (-0.2, 0.1), (0.08, -0.35))
    ]
    return moved([*crust, cheese, *dots], (0, 0, 0), 1.0, ("x", -50))


def sushi() -> list[Part]:
    rice = ball((0, 0, 0), (1.0, 0.35, 0.5), WHITE)
    fish = plate(
        [
            (-1.1, 0.22),
            (-0.6, 0.33),
            (0, 0.38),
            (0.6, 0.33),
            (1.1, 0.22),
            (1.1, 0.36),
            (0.6, 0.5),
            (0, 0.55),
            (-0.6, 0.5),
            (-1.1, 0.36),
        ],
        0.85,
        (0.96, 0.5, 0.32),
    )
    return [
        rice,
        fish,
        *[box((x, 0.44, 0), (0.05, 0.14, 0.86), (0.98, 0.75, 0.62), ("z", 20)) for x in (-0.6, -0.1, 0.4)],
        box((0, 0.08, 0), (0.3, 0.98, 1.0), (0.08, 0.14, 0.08)),
    ]


def pancakes() -> list[Part]:
    stack = [
        lathe(
            [(0, 0), (0.8, 0), (0.88, 0.08), (0.8, 0.16), (0, 0.16)],
            (0.85, 0.58, 0.28),
            (0.03 * (k % 2), 0.17 * k, 0.02 * k),
        )
        for k in range(5)
    ]
    return [
        lathe([(0, -0.05), (0.7, -0.05), (1.15, 0.05), (1.15, 0.08), (0, 0.0)], WHITE),
        *stack,
        box((0.03, 0.92, 0.08), (0.28, 0.12, 0.28), YELLOW, ("y", 20)),
        lathe([(0, 0), (0.55, 0), (0.5, 0.03), (0, 0.03)], (0.5, 0.25, 0.06), (0.03, 0.86, 0.08)),
    ]


def cookie() -> list[Part]:
    chips = [
        ball((r * np.cos(a), r * np.sin(a), 0.13), 0.1, (0.25, 0.12, 0.06))
        for r, n in ((0.2, 2), (0.6, 7))
        for a in np.arange(n) * 2 * np.pi / n + r
    ]
    return [
        lathe([(0, -0.14), (0.9, -0.14), (1, 0), (0.85, 0.12), (0, 0.16)], (0.78, 0.55, 0.3), (0, 0, 0), ("x", 90)),
        *chips,
    ]


def lollipop() -> list[Part]:
    parts = [
        lathe([(0, -0.18), (0.6, -0.18), (0.7, 0), (0.6, 0.18), (0, 0.18)], RED, (0, 0.7, 0), ("x", 90)),
        rod((0, -1.3, 0), (0, 0.1, 0), 0.06, WHITE),
    ]
    turn = np.linspace(0, 5 * np.pi, 50)
    for z in (0.19, -0.19):
        parts += tube(
            [
                (
                    0.6 * t / turn[-1] * np.cos(t),
                    0.7 + 0.6 * t / turn[-1] * np.sin(t),
                    z * (1 - 0.12 * (t / turn[-1]) ** 4),
                )
                for t in turn
            ],
            0.035,
            WHITE,
            6,
        )
    return parts


def candy() -> list[Part]:
    wing = [lathe([(0.08, 0), (0.45, 0.45), (0.42, 0.5), (0, 0.1)], PINK, (0.62, 0, 0), ("z", -90), sides=10)]
    return [
        ball((0, 0, 0), (0.65, 0.5, 0.5), PINK),
        *mirrored(wing),
        *[ring((x, 0, 0), 0.5 * np.sqrt(1 - (x / 0.65) ** 2), 0.04, WHITE, ("z", 90)) for x in (-0.3, 0, 0.3)],
    ]


def candy_cane() -> list[Part]:
    path = [(0.35, -1 + 0.2 * k, 0) for k in range(8)] + [tuple(p) for p in arc((0, 0.5, 0), 0.35, 0, 200, 12)]
    pieces = enumerate(pairwise(path))
    return [part for k, ends in pieces for part in tube(ends, 0.12, RED if k % 2 else WHITE)]


def popsicle() -> list[Part]:
    bar = plate(
        [(-0.4, -0.6), (0.4, -0.6), *[(x, y) for x, y, _ in arc((0, 0.4, 0), 0.4, 0, 180, 14)]], 0.3, (0.95, 0.4, 0.5)
    )
    return [
        bar,
        plate(
            [(-0.41, 0.2), (0.41, 0.2), *[(x, y) for x, y, _ in arc((0, 0.4, 0), 0.41, 0, 180, 14)]],
            0.31,
            (0.97, 0.75, 0.3),
        ),
        box((0, -0.95, 0), (0.18, 0.75, 0.08), TAN),
    ]


def taco() -> list[Part]:
    outline = [(x, y) for x, y, _ in arc((0, 0, 0), 1.0, 0, 180, 24)]
    shells = [plate(outline, 0.05, (0.9, 0.7, 0.3), (0, 0, 0.16 * s), ("x", 14 * s)) for s in (-1, 1)]
    fill = [
        ball((0.85 * np.cos(a), 0.88 * np.sin(a), 0.05 * (-1) ** k), 0.16, (LEAF, RED, (0.5, 0.3, 0.15), YELLOW)[k % 4])
        for k, a in enumerate(np.linspace(0.15, np.pi - 0.15, 18))
    ]
    return [*shells, *fill]


def bacon_and_eggs() -> list[Part]:
    return [
        lathe([(0, 0), (0.75, 0), (1.2, 0.1), (1.2, 0.14), (0.7, 0.06), (0, 0.06)], WHITE),
        ball((-0.3, 0.08, 0.1), (0.5, 0.05, 0.45), (0.98, 0.98, 0.96)),
        ball((-0.3, 0.14, 0.1), (0.2, 0.1, 0.2), ORANGE),
        *[box((0.45 + 0.2 * k, 0.12, 0), (0.15, 0.05, 0.9), (0.65, 0.2, 0.15), ("y", 8)) for k in range(2)],
    ]


MEALS = {
    "pizza": pizza,
    "pizza_slice": pizza_slice,
    "cheese": cheese,
    "sushi": sushi,
    "pancakes": pancakes,
    "cookie": cookie,
    "lollipop": lollipop,
    "candy": candy,
    "candy_cane": candy_cane,
    "popsicle": popsicle,
    "taco": taco,
    "bacon_and_eggs": bacon_and_eggs,
}
