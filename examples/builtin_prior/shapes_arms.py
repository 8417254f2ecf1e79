"""Arms and armour that no catalogue has, put together from solids."""

from __future__ import annotations

import numpy as np
from solids import (
    BLACK,
    BLUE,
    BRASS,
    BROWN,
    CREAM,
    CYAN,
    DARK,
    DARKWOOD,
    GOLD,
    GREY,
    ORANGE,
    RED,
    STEEL,
    TAN,
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
    plate,
    ring,
    rod,
    tube,
)


def sword(blade=STEEL, hilt=GOLD) -> list[Part]:
    edge = plate([(-0.11, 0), (0.11, 0), (0.09, 1.75), (0, 2.05), (-0.09, 1.75)], 0.05, blade)
    return moved(
        [
            edge,
            box((0, 0.85, 0), (0.05, 1.6, 0.075), (0.55, 0.57, 0.6)),
            *tube([(-0.42, 0.03, 0), (-0.3, -0.03, 0), (0.3, -0.03, 0), (0.42, 0.03, 0)], 0.06, hilt),
            rod((0, -0.05, 0), (0, -0.5, 0), 0.06, DARKWOOD),
            *[ring((0, -0.12 - 0.1 * k, 0), 0.06, 0.015, BLACK) for k in range(4)],
            ball((0, -0.57, 0), 0.11, hilt),
        ],
        (0, 0, 0),
        (1.45, 1.0, 1.8),
    )


def katana() -> list[Part]:
    points = [(0.06 * np.sin(t), 2.2 * t / 1.2, 0) for t in np.linspace(0, 1.2, 12)]
    blade = plate(
        [(x - 0.055, y) for x, y, _ in points[:-1]][::-1]
        + [(x + 0.055, y) for x, y, _ in points[:-1]]
        + [(points[-1][0], points[-1][1] + 0.1)],
        0.035,
        STEEL,
    )
    return moved(
        [
            blade,
            lathe([(0, -0.02), (0.2, -0.02), (0.2, 0.02), (0, 0.02)], BLACK),
            rod((0, 0, 0), (0, -0.65, 0), 0.07, RED),
            *[
                box((0, -0.1 - 0.12 * k, 0), (0.1, 0.03, 0.15), BLACK, ("y", 0), ("z", 30 * (-1) ** k))
                for k in range(5)
            ],
        ],
        (0, 0, 0),
        (1.5, 1.0, 2.0),
    )


def lightsaber() -> list[Part]:
    return moved(
        [
            rod((0, 0, 0), (0, 2.0, 0), 0.075, (0.4, 0.95, 0.5)),
            ball((0, 2, 0), 0.075, (0.4, 0.95, 0.5)),
            rod((0, 0, 0), (0, -0.6, 0), 0.1, STEEL),
            *[ring((0, -0.1 * k - 0.1, 0), 0.1, 0.02, BLACK) for k in range(5)],
            box((0, -0.15, 0.1), (0.06, 0.12, 0.06), RED),
        ],
        (0, 0, 0),
        (1.5, 1.0, 1.5),
    )


def _heater(scale=1.0) -> list[tuple[float, float]]:
    left = [(-0.75, 0.9), (-0.78, 0.2), (-0.6, -0.4), (-0.3, -0.85), (0, -1.1)]
    return [
        (scale * x, scale * y)
        for x, y in [*left, *[(-x, y) for x, y in left[-2::-1]], (0.35, 0.83), (0, 0.92), (-0.35, 0.83)]
    ]


def shield(field=BLUE, mark=GOLD) -> list[Part]:
    bar = [box((0, -0.05, 0.085), (0.22, 1.55, 0.06), mark), box((0, 0.25, 0.085), (1.25, 0.22, 0.06), mark)]
    return [
        plate(_heater(1.08), 0.1, STEEL),
        plate(_heater(0.97), 0.16, field),
        *bar,
        ball((0, 0.25, 0.1), (0.2, 0.2, 0.12), STEEL),
    ]


def round_shield() -> list[Part]:
    boards = [
        box(
            (x, 0, 0),
            (0.2, 2 * np.sqrt(1 - min(abs(x) + 0.1, 1) ** 2) + 0.02, 0.1),
            WOOD if k % 2 else (0.55, 0.36, 0.18),
        )
        for k, x in enumerate(np.arange(-0.8, 0.81, 0.2))
    ]
    rivets = [ball((0.93 * np.cos(a), 0.93 * np.sin(a), 0.09), 0.05, STEEL) for a in np.arange(12) * np.pi / 6]
    return [
        *boards,
        ring((0, 0, 0), 0.94, 0.09, (0.45, 0.46, 0.5), ("x", 90)),
        ball((0, 0, 0.06), (0.27, 0.27, 0.18), STEEL),
        *rivets,
    ]


def bomb() -> list[Part]:
    return [
        ball((0, 0, 0), 0.9, BLACK),
        rod((0, 0.8, 0), (0, 1.05, 0), 0.22, DARK),
        *tube([(0, 1.05, 0), (0.1, 1.25, 0), (0.32, 1.35, 0)], 0.04, TAN),
        ball((0.36, 1.38, 0), 0.1, ORANGE),
    ]


def bow_and_arrow() -> list[Part]:
    limb = [(0.55 * np.cos(a) - 0.5, 1.2 * np.sin(a), 0) for a in np.linspace(-np.pi / 2 + 0.15, np.pi / 2 - 0.15, 15)]
    limb = [(limb[0][0] - 0.05, limb[0][1] - 0.12, 0), *limb, (limb[-1][0] - 0.05, limb[-1][1] + 0.12, 0)]
    return [
        *tube(limb, [0.03, *[0.04 + 0.035 * np.sin(np.linspace(0, np.pi, 15)[k]) for k in range(15)], 0.03], WOOD),
        *tube([limb[1], (-0.6, 0, 0), limb[-2]], 0.012, CREAM, 6),
        rod((-0.65, 0, 0), (0.55, 0, 0), 0.022, TAN),
        lathe([(0.07, 0), (0, 0.2), (0, 0)], STEEL, (0.55, 0, 0), ("z", -90)),
        *[plate([(-0.65, 0), (-0.4, 0), (-0.5, s * 0.09), (-0.72, s * 0.09)][:: int(s)], 0.02, RED) for s in (1, -1)],
        box((0.05, 0, 0), (0.1, 0.28, 0.1), DARKWOOD),
    ]


def arrow() -> list[Part]:
    return [
        rod((0, -1.2, 0), (0, 1, 0), 0.035, TAN),
        lathe([(0.14, 0), (0, 0.35), (0, 0)], STEEL, (0, 1, 0), sides=4),
        *around([plate([(0.02, -1.2), (0.2, -1.25), (0.2, -0.85), (0.02, -0.7)], 0.02, RED)], 3),
    ]


def mace() -> list[Part]:
    spikes = [
        p
        for v in [
            (1, 0, 0),
            (-1, 0, 0),
            (0, 0, 1),
            (0, 0, -1),
            (0, 1, 0),
            (0.7, 0.7, 0),
            (-0.7, 0.7, 0),
            (0, 0.7, 0.7),
            (0, 0.7, -0.7),
            (0.7, -0.6, 0),
            (-0.7, -0.6, 0),
            (0, -0.6, 0.7),
            (0, -0.6, -0.7),
            (0.7, 0, 0.7),
            (-0.7, 0, 0.7),
            (0.7, 0, -0.7),
            (-0.7, 0, -0.7),
        ]
        for p in (
            rod(
                np.array((0, 0.85, 0)) + 0.28 * np.array(v) / np.linalg.norm(v),
                np.array((0, 0.85, 0)) + 0.55 * np.array(v) / np.linalg.norm(v),
                0.08,
                STEEL,
                0.005,
            ),
        )
    ]
    return [
        ball((0, 0.85, 0), 0.34, GREY),
        *spikes,
        rod((0, 0.6, 0), (0, -1.1, 0), 0.07, DARKWOOD),
        ball((0, -1.12, 0), 0.1, STEEL),
    ]


def pistol() -> list[Part]:
    return [
        box((0, 0.35, 0), (1.5, 0.3, 0.18), DARK),
        rod((-0.75, 0.38, 0), (-0.85, 0.38, 0), 0.08, BLACK),
        plate([(0.28, 0.2), (0.72, 0.2), (0.95, -0.75), (0.5, -0.8)][::-1], 0.2, BROWN),
        *tube([(0.3, 0.2, 0), (0.2, -0.08, 0), (-0.05, -0.1, 0), (-0.12, 0.2, 0)], 0.035, DARK),
        *tube([(0.12, 0.2, 0), (0.08, 0.02, 0)], 0.03, STEEL),
        box((0.68, 0.55, 0), (0.1, 0.12, 0.08), BLACK),
        box((-0.65, 0.53, 0), (0.08, 0.06, 0.05), BLACK),
    ]


def ray_gun() -> list[Part]:
    return [
        *tube([(-0.6, 0.3, 0), (0.3, 0.3, 0), (0.7, 0.3, 0)], [0.2, 0.32, 0.15], RED, 20),
        *[ring((x, 0.3, 0), 0.3 - 0.08 * k, 0.04, STEEL, ("z", 90)) for k, x in enumerate((-0.15, -0.45, -0.75))],
        rod((-0.6, 0.3, 0), (-1.1, 0.3, 0), 0.06, CYAN),
        ball((-1.12, 0.3, 0), 0.11, YELLOW),
        plate([(0.2, 0.1), (0.55, 0.1), (0.75, -0.65), (0.42, -0.65)][::-1], 0.18, STEEL),
        *tube([(0.25, 0.05, 0), (0.12, -0.2, 0), (0.38, -0.25, 0)], 0.035, STEEL),
        plate([(0.1, 0.6), (0.6, 0.55), (0.6, 0.85)], 0.06, YELLOW),
    ]


def cannon() -> list[Part]:
    barrel = moved(
        [
            lathe(
                [
                    (0, -0.75),
                    (0.3, -0.72),
                    (0.3, 0.1),
                    (0.22, 0.95),
                    (0.28, 1.05),
                    (0.26, 1.15),
                    (0.15, 1.15),
                    (0.15, 0.9),
                    (0, 0.9),
                ],
                (0.22, 0.22, 0.24),
            ),
            ball((0, -0.82, 0), 0.12, (0.22, 0.22, 0.24)),
            *[ring((0, y, 0), r, 0.03, BRASS) for y, r in ((-0.5, 0.3), (0, 0.3), (0.6, 0.255))],
        ],
        (0, 0.15, 0),
        1.0,
        ("x", 78),
    )
    wheel = [
        ring((0.5, -0.2, 0), 0.5, 0.07, WOOD, ("z", 90)),
        *[
            rod((0.5, -0.2, 0), (0.5, -0.2 + 0.48 * np.sin(a), 0.48 * np.cos(a)), 0.04, WOOD)
            for a in np.arange(8) * np.pi / 4
        ],
        rod((0.4, -0.2, 0), (0.6, -0.2, 0), 0.1, DARKWOOD),
    ]
    return [
        *barrel,
        *mirrored(wheel),
        *mirrored([box((0.28, -0.15, -0.35), (0.12, 0.3, 1.3), WOOD, ("x", -14))]),
        rod((-0.5, -0.2, 0), (0.5, -0.2, 0), 0.07, DARKWOOD),
    ]


def tank(colour=(0.33, 0.38, 0.22)) -> list[Part]:
    dark = tuple(0.75 * c for c in colour)
    tread = [
        plate(
            [(-1.0, -0.3), (0.95, -0.3), (1.15, -0.02), (1.0, 0.12), (-1.05, 0.12), (-1.2, -0.02)],
            0.34,
            BLACK,
            (0.6, 0, 0),
            ("y", 90),
        ),
        *[rod((0.78, -0.14, z), (0.8, -0.14, z), 0.14, dark) for z in np.linspace(-0.85, 0.85, 6)],
    ]
    return [
        *mirrored(tread),
        plate([(-1.1, -0.1), (0.9, -0.1), (1.15, 0.12), (0.8, 0.3), (-1.1, 0.3)], 1.0, colour, (0, 0, 0), ("y", -90)),
        box((0, 0.17, 0), (1.56, 0.06, 2.2), colour),
        lathe([(0, 0.3), (0.55, 0.3), (0.5, 0.55), (0.3, 0.65), (0, 0.66)], colour),
        box((0, 0.45, 0.35), (0.4, 0.26, 0.35), colour),
        rod((0, 0.46, 0.4), (0, 0.5, 1.7), 0.07, dark),
        rod((0, 0.5, 1.62), (0, 0.505, 1.8), 0.1, dark),
        lathe([(0, 0), (0.17, 0), (0.17, 0.08), (0, 0.08)], dark, (-0.15, 0.65, -0.1)),
        rod((0.3, 0.6, -0.3), (0.3, 1.2, -0.35), 0.012, BLACK),
    ]


ARMS = {
    "sword": sword,
    "golden_sword": lambda: sword((0.8, 0.82, 0.85), (0.35, 0.2, 0.1)),
    "katana": katana,
    "lightsaber": lightsaber,
    "shield": shield,
    "red_shield": lambda: shield(RED, WHITE),
    "round_shield": round_shield,
    "bomb": bomb,
    "bow_and_arrow": bow_and_arrow,
    "arrow": arrow,
    "mace": mace,
    "pistol": pistol,
    "ray_gun": ray_gun,
    "cannon": cannon,
    "tank": tank,
}
