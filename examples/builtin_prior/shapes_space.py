"""Spacecraft and the sky that no catalogue has, put together from solids."""

from __future__ import annotations

import numpy as np
from solids import (
    BLACK,
    BLUE,
    CYAN,
    DARK,
    GOLD,
    GREEN,
    GREY,
    NAVY,
    ORANGE,
    PURPLE,
    RED,
    STEEL,
    WHITE,
    YELLOW,
    Part,
    arc,
    around,
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


def rocket(body=WHITE, trim=RED) -> list[Part]:
    fins = around([plate([(0.3, -0.6), (0.75, -1.25), (0.75, -0.85), (0.3, -0.05)], 0.07, trim)], 4, first=45)
    return [
        lathe([(0, -1), (0.28, -1), (0.4, -0.5), (0.42, 0.1), (0.36, 0.6), (0, 0.65)], body),
        lathe([(0.355, 0.6), (0.22, 1.0), (0, 1.3)], trim),
        ring((0, 0.58, 0), 0.36, 0.035, STEEL),
        ball((0, 0.2, 0.4), (0.17, 0.17, 0.06), CYAN),
        ring((0, 0.2, 0.41), 0.17, 0.04, STEEL, ("x", 90)),
        lathe([(0, -1.0), (0.2, -1.0), (0.28, -1.2), (0, -1.2)], DARK),
        *fins,
    ]


def space_shuttle() -> list[Part]:
    wing = plate(
        [
            (-1.05, -0.8),
            (1.05, -0.8),
            (1.05, -0.6),
            (0.35, 0.35),
            (0.2, 0.9),
            (-0.2, 0.9),
            (-0.35, 0.35),
            (-1.05, -0.6),
        ],
        0.08,
        DARK,
        (0, -0.2, 0),
        ("x", 90),
    )
    return [
        rod((0, 0, -0.85), (0, 0, 0.75), 0.27, WHITE),
        ball((0, -0.02, 0.75), (0.27, 0.25, 0.5), WHITE),
        ball((0, 0.14, 0.95), (0.17, 0.1, 0.16), BLACK),
        wing,
        plate([(0.85, 0.2), (0.95, 0.2), (1.15, 0.85), (0.85, 0.85), (0.5, 0.2)], 0.06, WHITE, (0, 0, 0), ("y", 90)),
        *[
            lathe([(0, 0), (0.1, 0), (0.16, 0.2), (0, 0.15)], BLACK, (x, y, -0.85), ("x", -90))
            for x, y in ((-0.13, -0.08), (0.13, -0.08), (0, 0.14))
        ],
    ]


def spaceship() -> list[Part]:
    """A fighter with swept wings."""
    wing = [
        plate([(0.2, -0.7), (1.3, -0.95), (1.35, -0.6), (0.25, 0.55)], 0.09, (0.65, 0.67, 0.72), (0, 0, 0), ("x", 90)),
        rod((1.3, 0, -1.0), (1.3, 0, 0.35), 0.06, DARK),
        plate([(0.45, -0.6), (1.1, -0.8), (1.12, -0.66), (0.48, -0.3)], 0.11, RED, (0, 0, 0), ("x", 90)),
        rod((0.35, 0, -1.0), (0.35, 0, -0.3), 0.17, GREY),
        rod((0.35, 0, -1.05), (0.35, 0, -0.98), 0.13, CYAN),
    ]
    return [
        *tube(
            [(0, 0, 1.3), (0, 0, 0.6), (0, 0.02, -0.1), (0, 0, -0.9)], [0.05, 0.2, 0.27, 0.2], (0.75, 0.77, 0.82), 20
        ),
        ball((0, 0.2, 0.2), (0.17, 0.15, 0.42), (0.15, 0.35, 0.55)),
        plate([(0.9, 0.1), (0.4, 0.1), (0.8, 0.55), (1.0, 0.55)][::-1], 0.06, RED, (0, 0, 0), ("y", 90)),
        *mirrored(wing),
    ]


def ufo() -> list[Part]:
    lights = [ball((1.02 * np.cos(a), -0.05, 1.02 * np.sin(a)), 0.08, YELLOW) for a in np.arange(12) * np.pi / 6]
    return [
        lathe([(0, -0.3), (0.45, -0.27), (1.2, 0), (0.55, 0.25), (0, 0.28)], STEEL),
        ball((0, 0.22, 0), (0.52, 0.45, 0.52), (0.45, 0.85, 0.8)),
        *lights,
        lathe([(0, -0.4), (0.25, -0.38), (0.42, -0.26), (0, -0.25)], DARK),
    ]


def satellite() -> list[Part]:
    panel = (
        [box((0.95 + 0.4 * k, 0, 0), (0.36, 0.62, 0.05), NAVY) for k in range(2)]
        + [box((0.95 + 0.4 * k, 0, 0.03), (0.36, 0.02, 0.01), CYAN) for k in range(2)]
        + [rod((0.3, 0, 0), (0.8, 0, 0), 0.04, STEEL)]
    )
    return [
        box((0, 0, 0), (0.65, 0.85, 0.65), GOLD),
        *mirrored(panel),
        lathe([(0, 0), (0.2, 0.04), (0.45, 0.2), (0.43, 0.22), (0, 0.06)], WHITE, (0, 0.15, 0.33), ("x", 90)),
        rod((0, 0.15, 0.35), (0, 0.15, 0.7), 0.025, DARK),
        *tube([(0, 0.4, 0), (0, 0.8, 0)], 0.025, STEEL),
    ]


def planet() -> list[Part]:
    rings = [
        lathe([(r, -0.012), (r + w, -0.012), (r + w, 0.012), (r, 0.012), (r, -0.012)], c, (0, 0, 0), sides=64)
        for r, w, c in ((1.0, 0.14, (0.8, 0.7, 0.5)), (1.17, 0.16, (0.65, 0.55, 0.4)), (1.36, 0.08, (0.85, 0.78, 0.6)))
    ]
    bands = [
        ball((0, y, 0), (0.72 * s, 0.09, 0.72 * s), c)
        for y, s, c in (
            (0.3, 0.925, (0.85, 0.6, 0.35)),
            (0.05, 1.012, (0.95, 0.8, 0.55)),
            (-0.25, 0.955, (0.8, 0.55, 0.32)),
            (0.52, 0.71, (0.7, 0.5, 0.3)),
        )
    ]
    return moved([ball((0, 0, 0), 0.72, (0.9, 0.7, 0.45)), *bands, *rings], (0, 0, 0), 1.0, ("z", 22), ("x", 12))


def moon() -> list[Part]:
    spots = [
        (0.5, 0.5, 0.7, 0.26),
        (-0.4, 0.6, 0.6, 0.2),
        (-0.1, -0.2, 1, 0.3),
        (0.6, -0.5, 0.5, 0.2),
        (-0.8, -0.1, 0.5, 0.22),
        (0.2, 0.9, -0.2, 0.2),
        (-0.5, -0.7, 0.3, 0.18),
        (0.5, 0.1, -0.8, 0.28),
        (-0.6, 0.4, -0.7, 0.22),
        (0.9, 0.2, 0.1, 0.17),
        (0, -0.6, -0.8, 0.25),
    ]
    return [
        ball((0, 0, 0), 1.0, (0.8, 0.79, 0.75)),
        *[
            p
            for *v, r in spots
            for p in (ball(np.array(v) / np.linalg.norm(v) * (1.02 - 0.5 * r), r * 0.95, (0.6, 0.59, 0.56)),)
        ],
    ]


def crescent() -> list[Part]:
    outer, inner = arc((0, 0, 0), 1.0, -125, 125, 30), arc((-0.38, 0, 0), 0.84, 102, -102, 26)
    return [plate([p[:2] for p in outer] + [p[:2] for p in inner], 0.3, YELLOW, (0, 0, 0), ("y", 180))]


def sun() -> list[Part]:
    return [
        ball((0, 0, 0), (0.62, 0.62, 0.3), YELLOW),
        *[plate([(-0.14, 0.68), (0.14, 0.68), (0, 1.08)], 0.14, ORANGE, (0, 0, 0), ("z", 30 * k)) for k in range(12)],
        *mirrored([ball((0.2, 0.15, 0.27), 0.07, BLACK)]),
        *tube(arc((0, -0.02, 0.28), 0.25, 200, 340, 9), 0.03, BLACK, 8),
    ]


def cloud() -> list[Part]:
    return [
        ball((x, y, z), r, WHITE)
        for x, y, z, r in (
            (-0.75, -0.1, 0, 0.42),
            (-0.3, 0.15, 0.05, 0.52),
            (0.25, 0.25, 0, 0.55),
            (0.75, 0, 0, 0.45),
            (0, -0.15, 0.2, 0.45),
            (0.4, -0.15, 0.15, 0.4),
            (-0.4, -0.2, -0.15, 0.4),
            (1.05, -0.18, 0, 0.28),
            (-1.08, -0.2, 0, 0.26),
        )
    ]


def rainbow() -> list[Part]:
    bands = [
        p
        for k, c in enumerate((RED, ORANGE, YELLOW, GREEN, BLUE, PURPLE))
        for p in tube(arc((0, -0.5, 0), 1.2 - 0.13 * k, 0, 180, 20), 0.07, c, 10)
    ]
    return [
        *bands,
        *[
            ball((x, -0.55, z), r, WHITE)
            for s in (-1, 1)
            for x, z, r in ((0.85 * s, 0.1, 0.25), (1.1 * s, 0, 0.22), (0.65 * s, -0.05, 0.2))
        ],
    ]


def snowflake() -> list[Part]:
    arm = [
        rod((0, 0, 0), (0, 1, 0), 0.055, (0.8, 0.92, 1.0)),
        *mirrored(
            [
                rod((0, 0.45, 0), (0.25, 0.7, 0), 0.045, (0.8, 0.92, 1.0)),
                rod((0, 0.7, 0), (0.18, 0.9, 0), 0.04, (0.8, 0.92, 1.0)),
            ]
        ),
    ]
    return around(arm, 6, "z")


def lightning() -> list[Part]:
    return [
        plate(
            [(-0.1, 1.1), (-0.45, -0.05), (-0.05, -0.05), (-0.3, -1.1), (0.45, 0.25), (0.05, 0.25), (0.35, 1.1)],
            0.25,
            YELLOW,
        )
    ]


def flame() -> list[Part]:
    return [
        lathe([(0, -1), (0.5, -0.85), (0.68, -0.45), (0.5, 0.1), (0.2, 0.7), (0, 1.1)], ORANGE),
        *around(
            [
                lathe(
                    [(0, -0.9), (0.3, -0.7), (0.3, -0.35), (0.1, 0.1), (0, 0.3)],
                    (0.9, 0.3, 0.08),
                    (0.38, 0, 0),
                    ("z", -8),
                )
            ],
            5,
        ),
        lathe([(0, -0.95), (0.36, -0.8), (0.42, -0.5), (0.2, 0.05), (0, 0.4)], YELLOW, (0, 0, 0.33)),
    ]


SPACE = {
    "rocket": rocket,
    "space_shuttle": space_shuttle,
    "spaceship": spaceship,
    "ufo": ufo,
    "satellite": satellite,
    "planet": planet,
    "moon": moon,
    "crescent": crescent,
    "sun": sun,
    "cloud": cloud,
    "rainbow": rainbow,
    "snowflake": snowflake,
    "lightning": lightning,
    "flame": flame,
}
