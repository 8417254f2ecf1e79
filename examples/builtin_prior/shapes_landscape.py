"""Landscape and signs that no catalogue has, put together from solids."""

from __future__ import annotations

import numpy as np
from solids import (
    BLACK,
    BROWN,
    GREEN,
    GREY,
    LEAF,
    RED,
    STONE,
    WHITE,
    YELLOW,
    Part,
    arc,
    around,
    ball,
    box,
    lathe,
    moved,
    plate,
    ring,
    rod,
    tube,
)


def mountain() -> list[Part]:
    peaks = [
        lathe(
            [(0, h), (0.25 * w, 0.62 * h), (0.55 * w, 0.3 * h), (w, 0), (0, 0)][::-1],
            (0.45, 0.42, 0.4),
            (x, -0.7, z),
            ("y", 40 * n),
            sides=7,
        )
        for n, (x, z, w, h) in enumerate(((0, 0, 1.0, 1.7), (0.75, 0.25, 0.7, 1.0), (-0.7, 0.2, 0.75, 1.15)))
    ]
    snow = [
        lathe([(0, h * 1.015), (0.262 * w, 0.62 * h), (0, 0.6 * h)][::-1], WHITE, (x, -0.7, z), ("y", 40 * n), sides=7)
        for n, (x, z, w, h) in enumerate(((0, 0, 1.0, 1.7), (0.75, 0.25, 0.7, 1.0), (-0.7, 0.2, 0.75, 1.15)))
    ]
    return [*peaks, *snow]


def island() -> list[Part]:
    palm = [
        *tube([(0, 0, 0), (0.12, 0.5, 0), (0.3, 1.0, 0)], [0.08, 0.065, 0.05], BROWN),
        *moved(
            around([plate([(0, -0.07), (0.3, 0.02), (0.75, -0.25), (0.3, 0.16), (0, 0.08)], 0.06, LEAF)], 7),
            (0.3, 1.0, 0),
        ),
    ]
    return [
        lathe([(0, -0.35), (0.9, -0.3), (1.1, -0.15), (0.8, 0.0), (0.3, 0.12), (0, 0.14)], (0.92, 0.82, 0.55)),
        lathe([(0, -0.3), (1.35, -0.3), (1.3, -0.17), (0, -0.17)], (0.25, 0.6, 0.8)),
        *moved(palm, (0, 0.05, 0)),
        ball((0.5, 0.1, 0.35), (0.16, 0.12, 0.14), STONE),
    ]


def traffic_light() -> list[Part]:
    lamps = [
        p
        for y, c in ((0.95, RED), (0.6, YELLOW), (0.25, GREEN))
        for p in (ball((0, y, 0.2), (0.13, 0.13, 0.05), c), ring((0, y, 0.2), 0.14, 0.03, BLACK, ("x", 90)))
    ]
    return [
        box((0, 0.6, 0), (0.42, 1.1, 0.36), (0.15, 0.16, 0.15)),
        *lamps,
        rod((0, 0.05, 0), (0, -1.4, 0), 0.06, GREY),
        lathe([(0, -1.5), (0.25, -1.5), (0.2, -1.4), (0, -1.38)], GREY),
    ]


def stop_sign() -> list[Part]:
    octagon = [(0.62 * np.cos(a), 0.62 * np.sin(a)) for a in np.arange(8) * np.pi / 4 + np.pi / 8]
    return [
        plate([(1.08 * x, 1.08 * y) for x, y in octagon], 0.04, WHITE, (0, 0.6, 0)),
        plate(octagon, 0.06, RED, (0, 0.6, 0)),
        box((0, 0.6, 0.035), (0.8, 0.18, 0.02), WHITE),
        rod((0, 0.5, -0.06), (0, -1.5, -0.06), 0.05, GREY),
    ]


def gravestone() -> list[Part]:
    return [
        plate([(-0.5, -0.8), (0.5, -0.8), *[p[:2] for p in arc((0, 0.35, 0), 0.5, 0, 180, 16)]], 0.24, STONE),
        box((0, -0.85, 0.05), (1.3, 0.16, 0.6), (0.5, 0.48, 0.45)),
        box((0, 0.3, 0.125), (0.08, 0.5, 0.03), (0.42, 0.4, 0.38)),
        box((0, 0.38, 0.125), (0.32, 0.08, 0.03), (0.42, 0.4, 0.38)),
        box((0, -0.2, 0.125), (0.6, 0.06, 0.02), (0.42, 0.4, 0.38)),
        box((0, -0.35, 0.125), (0.5, 0.06, 0.02), (0.42, 0.4, 0.38)),
    ]


LANDSCAPE = {
    "mountain": mountain,
    "island": island,
    "traffic_light": traffic_light,
    "stop_sign": stop_sign,
    "gravestone": gravestone,
}
