"""Flowers that no catalogue has, put together from solids."""

from __future__ import annotations

import numpy as np
from solids import LEAF, PINK, WHITE, YELLOW, Part, around, ball, lathe, moved, plate, tube


def flower(petals=PINK, middle=YELLOW, count=8) -> list[Part]:
    head = [
        *around([ball((0, 0.42, 0), (0.17, 0.3, 0.05), petals)], count, "z"),
        ball((0, 0, 0.04), (0.24, 0.24, 0.12), middle),
    ]
    leaf = [
        ball((0.3, -0.9, 0), (0.32, 0.1, 0.04), LEAF, ("z", 35)),
        ball((-0.28, -1.15, 0), (0.3, 0.1, 0.04), LEAF, ("z", -35)),
    ]
    return [
        *moved(head, (0, 0.3, 0.06), 1.0, ("x", -15)),
        *tube([(0, 0.25, 0), (0.03, -0.6, -0.03), (0, -1.6, 0)], 0.055, LEAF),
        *[(m, c) for m, c in leaf],
    ]


def rose() -> list[Part]:
    petals = [
        p
        for n, (r, tilt, size) in enumerate(((0.1, 6, 0.22), (0.2, 18, 0.28), (0.3, 32, 0.32)))
        for p in around(
            [
                ball(
                    (0, 0.14, r),
                    (size, size * 1.05, 0.06),
                    tuple(c * (1 - 0.08 * n) for c in (0.85, 0.08, 0.15)),
                    ("x", tilt),
                )
            ],
            4 + n,
            first=35 * n,
        )
    ]
    leaf = [
        ball((0.32, -0.75, 0), (0.3, 0.12, 0.04), LEAF, ("z", 30)),
        ball((-0.3, -1.05, 0.05), (0.28, 0.12, 0.04), LEAF, ("z", -30)),
    ]
    return [
        *moved([ball((0, 0.12, 0), (0.16, 0.28, 0.16), (0.7, 0.05, 0.1)), *petals], (0, 0.45, 0)),
        ball((0, 0.25, 0), (0.2, 0.12, 0.2), LEAF),
        *tube([(0, 0.25, 0), (0.04, -0.6, 0), (0, -1.6, 0)], 0.045, LEAF),
        *leaf,
    ]


def sunflower() -> list[Part]:
    return flower((0.97, 0.75, 0.1), (0.35, 0.2, 0.1), 16)


def daisy() -> list[Part]:
    return flower(WHITE, YELLOW, 13)


def lotus() -> list[Part]:
    return [
        *[
            p
            for n, (tilt, count, size) in enumerate(((20, 5, 0.5), (42, 8, 0.55), (65, 10, 0.55)))
            for p in around(
                [
                    ball(
                        (0, size * 0.75 * np.cos(np.deg2rad(tilt)), size * 0.75 * np.sin(np.deg2rad(tilt))),
                        (0.2, size * 0.8, 0.06),
                        (0.95, 0.6 + 0.08 * n, 0.75),
                        ("x", tilt),
                    )
                ],
                count,
                first=17 * n,
            )
        ],
        lathe([(0, -0.08), (1.1, -0.05), (1.12, -0.02), (0, 0.0)], LEAF),
        ball((0, 0.2, 0), (0.14, 0.2, 0.14), YELLOW),
    ]


def four_leaf_clover() -> list[Part]:
    heart_ = [
        (0, 0),
        (0.42, 0.38),
        (0.42, 0.62),
        (0.25, 0.74),
        (0.08, 0.68),
        (0, 0.58),
        (-0.08, 0.68),
        (-0.25, 0.74),
        (-0.42, 0.62),
        (-0.42, 0.38),
    ]
    return [
        *around([plate(heart_, 0.09, (0.2, 0.6, 0.22))], 4, "z", 45),
        *tube([(0, 0, -0.03), (0.08, -0.6, 0), (0.28, -1.1, 0)], 0.05, LEAF),
    ]


FLOWERS = {
    "flower": flower,
    "rose": rose,
    "sunflower": sunflower,
    "daisy": daisy,
    "lotus": lotus,
    "four_leaf_clover": four_leaf_clover,
}
