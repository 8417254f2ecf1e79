"""Musical instruments that no catalogue has, put together from solids."""

from __future__ import annotations

import numpy as np
from solids import (
    BLACK,
    BRASS,
    CREAM,
    DARK,
    DARKWOOD,
    GOLD,
    RED,
    STEEL,
    TAN,
    WHITE,
    WOOD,
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


def drum() -> list[Part]:
    lacing = [
        p
        for k in range(10)
        for p in tube(
            [
                (0.83 * np.cos(a), y, 0.83 * np.sin(a))
                for a, y in (
                    (2 * np.pi * k / 10, 0.42),
                    (2 * np.pi * (k + 0.5) / 10, -0.42),
                    (2 * np.pi * (k + 1) / 10, 0.42),
                )
            ],
            0.025,
            CREAM,
            6,
        )
    ]
    sticks = [
        p
        for s in (-1, 1)
        for p in (
            *tube([(-0.75 * s, 0.62, 0.25), (0.65 * s, 0.68, -0.15)], 0.04, WOOD),
            ball((0.7 * s, 0.68, -0.17), 0.075, WOOD),
        )
    ]
    return [
        lathe([(0, -0.45), (0.8, -0.45), (0.8, 0.45), (0, 0.45)], RED),
        *[lathe([(0, y - 0.07), (0.86, y - 0.07), (0.86, y + 0.07), (0, y + 0.07)], GOLD) for y in (-0.45, 0.45)],
        lathe([(0, 0.5), (0.8, 0.5), (0.8, 0.535), (0, 0.535)], CREAM),
        *lacing,
        *sticks,
    ]


def drum_kit() -> list[Part]:
    def one(at, r, h, *turn):
        return moved(
            [
                rod((0, -h, 0), (0, h, 0), r, RED),
                rod((0, h, 0), (0, h + 0.02, 0), r * 1.03, WHITE),
                ring((0, h, 0), r, 0.03, STEEL),
                ring((0, -h, 0), r, 0.03, STEEL),
            ],
            at,
            1.0,
            *turn,
        )

    def cymbal(at, r, *turn):
        return [
            *moved([lathe([(0, 0.06), (0.06, 0.06), (r, 0), (r, -0.02), (0, 0.03)], BRASS)], at, 1.0, *turn),
            rod((at[0], -1, at[2]), at, 0.02, STEEL),
        ]

    return [
        *one((0, -0.5, 0), 0.5, 0.3, ("x", 90)),
        *one((-0.3, 0.2, 0), 0.24, 0.15, ("x", 25)),
        *one((0.3, 0.2, 0), 0.26, 0.17, ("x", 25)),
        *one((0.75, -0.5, -0.4), 0.32, 0.32),
        *one((-0.75, -0.25, -0.4), 0.3, 0.12),
        *cymbal((-0.85, 0.6, 0.05), 0.36, ("x", 10)),
        *cymbal((0.9, 0.65, 0.0), 0.4, ("x", 10)),
        *cymbal((-1.15, 0.1, -0.3), 0.3),
        rod((-0.75, -1, -0.4), (-0.75, -0.3, -0.4), 0.03, STEEL),
    ]


def violin(body=(0.62, 0.28, 0.1)) -> list[Part]:
    right = [
        (0.0, -1.0),
        (0.3, -0.96),
        (0.47, -0.75),
        (0.48, -0.5),
        (0.38, -0.3),
        (0.27, -0.15),
        (0.27, 0.05),
        (0.36, 0.2),
        (0.38, 0.4),
        (0.28, 0.58),
        (0.08, 0.64),
    ]
    outline = [*right, *[(-x, y) for x, y in right[:0:-1]]]
    strings = [
        rod((x, -0.6, 0.17), (0.5 * x, 1.35, 0.12), 0.009, STEEL, sides=6) for x in (-0.075, -0.025, 0.025, 0.075)
    ]
    return [
        plate(outline, 0.22, body),
        plate([(0.93 * x, 0.95 * y) for x, y in outline], 0.26, (0.72, 0.38, 0.14)),
        box((0, 0.75, 0.1), (0.11, 1.3, 0.08), BLACK),
        box((0, -0.75, 0.14), (0.16, 0.4, 0.06), BLACK),
        box((0, -0.32, 0.15), (0.28, 0.04, 0.08), TAN),
        *tube([(0, 1.35, 0.07), (0, 1.6, 0.02), (0, 1.68, 0.1)], 0.06, body),
        *[rod((-0.2, 1.4 + 0.08 * k, 0.04), (0.2, 1.4 + 0.08 * k, 0.04), 0.025, BLACK) for k in range(3)],
        *strings,
        *mirrored([box((0.17, -0.3, 0.131), (0.03, 0.3, 0.01), BLACK, ("z", 10))]),
    ]


def acoustic_guitar() -> list[Part]:
    right = [
        (0.0, -1.05),
        (0.35, -1.02),
        (0.55, -0.8),
        (0.58, -0.55),
        (0.48, -0.3),
        (0.35, -0.12),
        (0.38, 0.08),
        (0.42, 0.22),
        (0.35, 0.38),
        (0.1, 0.45),
    ]
    outline = [*right, *[(-x, y) for x, y in right[:0:-1]]]
    return [
        plate(outline, 0.3, (0.45, 0.22, 0.1)),
        plate([(0.95 * x, 0.96 * y) for x, y in outline], 0.32, (0.85, 0.62, 0.3)),
        lathe([(0, 0), (0.17, 0), (0.17, 0.01), (0, 0.01)], BLACK, (0, -0.05, 0.16), ("x", 90)),
        ring((0, -0.05, 0.16), 0.18, 0.02, DARKWOOD, ("x", 90)),
        box((0, 0.85, 0.13), (0.15, 1.5, 0.09), DARKWOOD),
        box((0, 1.75, 0.08), (0.24, 0.4, 0.08), (0.45, 0.22, 0.1)),
        box((0, -0.6, 0.18), (0.4, 0.07, 0.05), DARKWOOD),
        *[rod((x, -0.6, 0.2), (0.7 * x, 1.6, 0.19), 0.006, STEEL, sides=6) for x in np.linspace(-0.06, 0.06, 6)],
        *mirrored([rod((0.1, 1.62 + 0.12 * k, 0.08), (0.2, 1.62 + 0.12 * k, 0.08), 0.035, STEEL) for k in range(3)]),
    ]


def bell() -> list[Part]:
    return [
        lathe([(0, -0.6), (0.85, -0.75), (0.88, -0.65), (0.68, -0.3), (0.55, 0.3), (0.4, 0.6), (0, 0.7)], BRASS),
        ring((0, -0.68, 0), 0.84, 0.06, BRASS),
        ball((0, -0.8, 0), 0.16, DARK),
        ring((0, 0.83, 0), 0.14, 0.05, BRASS, ("x", 90)),
    ]


def trumpet() -> list[Part]:
    pipe = tube(
        [
            (-1.1, 0.15, 0),
            (0.5, 0.15, 0),
            *arc((0.5, 0.0, 0), 0.15, 90, -90, 8),
            (-0.5, -0.15, 0),
            *arc((-0.5, -0.0, 0.1), 0.15, 270, 90, 8),
            (0.9, 0.15, 0.1),
        ],
        0.045,
        BRASS,
    )
    bell = lathe(
        [(0.05, 0), (0.07, 0.25), (0.14, 0.45), (0.36, 0.6), (0.34, 0.62), (0.05, 0.4)],
        BRASS,
        (0.8, 0.15, 0.1),
        ("z", -90),
    )
    return [
        *pipe,
        bell,
        *[rod((x, -0.25, 0.05), (x, 0.35, 0.05), 0.065, BRASS) for x in (-0.15, 0, 0.15)],
        *[rod((x, 0.35, 0.05), (x, 0.45, 0.05), 0.045, STEEL) for x in (-0.15, 0, 0.15)],
        lathe([(0.03, 0), (0.09, 0.16), (0, 0.12)], STEEL, (-1.08, 0.15, 0), ("z", 90)),
    ]


def harp() -> list[Part]:
    frame = [
        *tube([(-0.6, -1, 0), (0.1, 0.3, 0), (0.75, 0.95, 0)], [0.16, 0.1, 0.07], GOLD),
        *tube([(0.75, 0.95, 0), (0.35, 0.75, 0), (-0.1, 0.95, 0), (-0.7, 1.25, 0)], 0.08, GOLD),
        rod((-0.65, -1, 0), (-0.7, 1.25, 0), 0.09, GOLD),
        ball((-0.7, 1.3, 0), 0.13, GOLD),
        box((-0.6, -1.05, 0), (0.6, 0.14, 0.5), GOLD),
    ]
    ends = [((-0.5 + 0.12 * k, -0.82 + 0.17 * k, 0), (-0.5 + 0.115 * k, 1.13 - 0.045 * k, 0)) for k in range(9)]
    return [*frame, *[rod(a, b, 0.012, CREAM, sides=6) for a, b in ends]]


MUSIC = {
    "drum": drum,
    "drum_kit": drum_kit,
    "violin": violin,
    "acoustic_guitar": acoustic_guitar,
    "trumpet": trumpet,
    "harp": harp,
    "bell": bell,
}
