"""Buildings that no catalogue has, put together from solids."""

from __future__ import annotations

import numpy as np
from solids import (
    BROWN,
    CREAM,
    DARK,
    DARKWOOD,
    GOLD,
    GREY,
    RED,
    STONE,
    WHITE,
    WOOD,
    Part,
    arc,
    around,
    ball,
    box,
    lathe,
    mirrored,
    moved,
    plate,
    rod,
    tube,
)


def windmill() -> list[Part]:
    sail = [
        rod((0, 0, 0), (0, 1.05, 0), 0.035, DARKWOOD),
        box((0.14, 0.62, 0), (0.26, 0.8, 0.02), CREAM),
        *[box((0.14, 0.3 + 0.16 * k, 0.015), (0.27, 0.02, 0.02), DARKWOOD) for k in range(5)],
    ]
    return [
        lathe([(0, -1.1), (0.62, -1.1), (0.4, 0.45), (0, 0.45)], WHITE, sides=10),
        lathe([(0.48, 0.42), (0.25, 0.8), (0, 0.92)], (0.5, 0.2, 0.12), sides=10),
        *moved(around(sail, 4, "z", 20), (0, 0.5, 0.55)),
        rod((0, 0.5, 0.2), (0, 0.5, 0.6), 0.07, DARKWOOD),
        box((0, -0.85, 0.58), (0.28, 0.5, 0.08), BROWN),
        *[box((0, y, 0.55 - 0.14 * (y + 0.85)), (0.16, 0.2, 0.08), (0.3, 0.4, 0.5)) for y in (-0.25, 0.15)],
    ]


def wind_turbine() -> list[Part]:
    blade = plate([(-0.04, 0.05), (0.05, 0.05), (0.1, 0.25), (0.02, 1.15), (-0.02, 1.15)], 0.04, WHITE)
    return [
        rod((0, -1.6, 0), (0, 0.6, 0), 0.1, WHITE, 0.055),
        box((0, 0.65, -0.05), (0.16, 0.17, 0.5), WHITE),
        ball((0, 0.65, 0.25), 0.1, GREY),
        *moved(around([blade], 3, "z", 15), (0, 0.65, 0.27)),
    ]


def _window(x, y, z, w=0.22, h=0.28) -> list[Part]:
    return [
        box((x, y, z), (w + 0.06, h + 0.06, 0.03), WHITE),
        box((x, y, z + 0.012), (w, h, 0.02), (0.35, 0.5, 0.65)),
        box((x, y, z + 0.02), (0.02, h, 0.02), WHITE),
        box((x, y, z + 0.02), (w, 0.02, 0.02), WHITE),
    ]


def _house(w, h, d, wall, roof, rise=0.6) -> list[Part]:
    gable = plate([(-w / 2, 0), (w / 2, 0), (0, rise)], d, wall, (0, h, 0))
    slope = np.rad2deg(np.arctan2(rise, w / 2))
    length = np.hypot(rise, w / 2) + 0.14
    return [
        box((0, h / 2, 0), (w, h, d), wall),
        gable,
        *[
            box((s * (w / 4 + 0.03), h + rise / 2 + 0.01, 0), (length, 0.07, d + 0.16), roof, ("z", -s * slope))
            for s in (-1, 1)
        ],
    ]


def cartoon_house() -> list[Part]:
    front = [p for x in (-0.48, 0.48) for p in _window(x, 0.5, 0.61)]
    side = moved([p for x in (-0.3, 0.3) for p in _window(x, 0.5, 0.76)], (0, 0, 0), 1.0, ("y", 90))
    return [
        *_house(1.5, 0.9, 1.2, CREAM, (0.7, 0.2, 0.15), 0.65),
        box((0, 0.32, 0.6), (0.3, 0.62, 0.05), BROWN),
        ball((0.1, 0.3, 0.64), 0.03, GOLD),
        *front,
        *side,
        *moved(side, (0, 0, 0), 1.0, ("y", 180)),
        box((0.42, 1.4, -0.15), (0.2, 0.5, 0.2), (0.6, 0.3, 0.22)),
        *_window(0, 1.12, 0.61, 0.2, 0.2),
        box((0, 0.0, 0.72), (0.5, 0.06, 0.3), STONE),
    ]


def modern_house() -> list[Part]:
    return [
        box((0, 0.35, 0), (1.9, 0.7, 1.2), WHITE),
        box((-0.3, 1.0, -0.1), (1.3, 0.6, 1.0), (0.85, 0.85, 0.83)),
        box((-0.3, 1.33, -0.05), (1.5, 0.07, 1.25), DARK),
        box((0.3, 0.72, 0.05), (1.4, 0.06, 1.35), DARK),
        box((0.35, 0.35, 0.6), (0.9, 0.5, 0.04), (0.3, 0.45, 0.55)),
        box((-0.6, 0.3, 0.61), (0.3, 0.58, 0.03), WOOD),
        box((-0.3, 1.0, 0.41), (0.9, 0.4, 0.03), (0.3, 0.45, 0.55)),
        *[box((x, 0.35, 0.62), (0.03, 0.5, 0.03), DARK) for x in (0.05, 0.35, 0.65)],
        box((0, 0.0, 0), (2.2, 0.05, 1.6), STONE),
    ]


def church() -> list[Part]:
    body = moved(_house(1.0, 0.85, 1.7, WHITE, (0.35, 0.3, 0.32), 0.55), (0, 0, -0.2))
    tower = [
        box((0, 0.8, 0.85), (0.55, 1.6, 0.55), WHITE),
        lathe([(0.45, 1.6), (0, 2.6)], (0.35, 0.3, 0.32), (0, 0, 0.85), ("y", 45), sides=4),
        box((0, 2.72, 0.85), (0.04, 0.34, 0.04), GOLD),
        box((0, 2.77, 0.85), (0.18, 0.04, 0.04), GOLD),
        box((0, 0.28, 1.13), (0.26, 0.55, 0.04), BROWN),
        *[box((s * 0.0, 1.3, 1.13), (0.18, 0.35, 0.03), DARK) for s in (0,)],
        lathe([(0, 0), (0.12, 0), (0.12, 0.02), (0, 0.02)], (0.3, 0.4, 0.6), (0, 0.85, 1.12), ("x", 90)),
    ]
    return [
        *body,
        *tower,
        *mirrored([box((0.5, 0.48, z), (0.03, 0.45, 0.18), (0.35, 0.45, 0.65)) for z in (-0.8, -0.35, 0.1)]),
    ]


def bridge() -> list[Part]:
    """A stone bridge of three arches."""
    arches, x = [(-1.5, -0.6)], -1.5
    for k in range(3):
        arches += [(x + 0.1 + 0.8 * 0 + 0.0, -0.6)] if k else []
        arches += [(px, py) for px, py, _ in arc((-1.0 + k, -0.6, 0), 0.4, 180, 0, 12)]
        arches += [(-0.5 + k, -0.6)]
        x = -0.5 + k
    outline = [
        *arches[:1],
        *[p for p in arches[1:] if True],
        (1.5, 0.0),
        (0.75, 0.15),
        (0, 0.2),
        (-0.75, 0.15),
        (-1.5, 0.0),
    ]
    clean = [p for n, p in enumerate(outline) if n == 0 or p != outline[n - 1]]
    rails = [
        plate(
            [
                (-1.5, 0.0),
                (-0.75, 0.15),
                (0, 0.2),
                (0.75, 0.15),
                (1.5, 0.0),
                (1.5, 0.2),
                (0.75, 0.35),
                (0, 0.4),
                (-0.75, 0.35),
                (-1.5, 0.2),
            ],
            0.08,
            (0.52, 0.5, 0.46),
            (0, 0, 0.33 * s),
        )
        for s in (-1, 1)
    ]
    return [plate(clean, 0.74, STONE), *rails]


def suspension_bridge() -> list[Part]:
    cable = [
        p
        for z in (-0.2, 0.2)
        for a, b in ((-0.75, 0.75),)
        for p in tube([(x, 0.05 + 0.75 * (x / 0.75) ** 2, z) for x in np.linspace(a, b, 13)], 0.025, RED, 8)
    ]
    ends = [
        p for z in (-0.2, 0.2) for s in (-1, 1) for p in (rod((0.75 * s, 0.8, z), (1.5 * s, -0.05, z), 0.025, RED),)
    ]
    hangers = [
        rod((x, -0.1, z), (x, 0.05 + 0.75 * (x / 0.75) ** 2, z), 0.012, RED, sides=6)
        for z in (-0.2, 0.2)
        for x in np.linspace(-0.6, 0.6, 9)
    ]
    towers = [box((s * 0.75, 0.1, z), (0.09, 1.5, 0.09), RED) for s in (-1, 1) for z in (-0.2, 0.2)] + [
        box((s * 0.75, y, 0), (0.08, 0.08, 0.45), RED) for s in (-1, 1) for y in (0.35, 0.75)
    ]
    return [box((0, -0.1, 0), (3.0, 0.08, 0.5), DARK), *cable, *ends, *hangers, *towers]


def eiffel_tower() -> list[Part]:
    iron = (0.45, 0.36, 0.27)
    legs = [
        p
        for x in (-1, 1)
        for z in (-1, 1)
        for p in tube(
            [(0.7 * x, -1.2, 0.7 * z), (0.42 * x, -0.45, 0.42 * z), (0.2 * x, 0.3, 0.2 * z), (0.05 * x, 1.3, 0.05 * z)],
            [0.12, 0.1, 0.07, 0.04],
            iron,
            6,
        )
    ]
    return [
        *legs,
        box((0, -0.45, 0), (1.1, 0.1, 1.1), iron),
        box((0, 0.22, 0), (0.62, 0.08, 0.62), iron),
        box((0, 1.3, 0), (0.2, 0.14, 0.2), iron),
        rod((0, 1.3, 0), (0, 1.75, 0), 0.03, iron),
        *[
            p
            for k in range(4)
            for p in moved(tube(arc((0, -1.15, 0.62), 0.5, 20, 160, 9), 0.04, iron, 6), (0, 0, 0), 1.0, ("y", 90 * k))
        ],
        *[
            p
            for k in range(4)
            for p in moved(
                [
                    box((0, y, w), (2 * w, 0.03, 0.03), iron)
                    for y, w in ((-0.2, 0.33), (0.0, 0.27), (0.5, 0.16), (0.75, 0.12), (1.0, 0.09))
                ],
                (0, 0, 0),
                1.0,
                ("y", 90 * k),
            )
        ],
    ]


BUILDINGS = {
    "windmill": windmill,
    "wind_turbine": wind_turbine,
    "cartoon_house": cartoon_house,
    "modern_house": modern_house,
    "church": church,
    "bridge": bridge,
    "suspension_bridge": suspension_bridge,
    "eiffel_tower": eiffel_tower,
}
