"""Vehicles that no catalogue has, put together from solids."""

from __future__ import annotations

import numpy as np
from solids import (
    BLACK,
    BLUE,
    BRASS,
    BROWN,
    CYAN,
    DARK,
    DARKWOOD,
    GREEN,
    GREY,
    RED,
    STEEL,
    WHITE,
    WOOD,
    YELLOW,
    Part,
    ball,
    box,
    lathe,
    mirrored,
    plate,
    ring,
    rod,
    tube,
)


def helicopter(body=RED) -> list[Part]:
    blades = [
        box((0, 0.78, 0), (2.6, 0.03, 0.13), DARK, ("y", 25)),
        box((0, 0.78, 0), (2.6, 0.03, 0.13), DARK, ("y", 115)),
    ]
    skids = mirrored(
        [
            rod((0.4, -0.72, -0.5), (0.4, -0.72, 0.7), 0.04, DARK),
            rod((0.25, -0.35, 0.35), (0.4, -0.72, 0.4), 0.03, DARK),
            rod((0.25, -0.35, -0.2), (0.4, -0.72, -0.25), 0.03, DARK),
        ]
    )
    return [
        ball((0, 0, 0.15), (0.48, 0.5, 0.75), body),
        ball((0, 0.06, 0.42), (0.44, 0.42, 0.54), (0.3, 0.45, 0.55)),
        *tube([(0, 0.15, -0.4), (0, 0.22, -1.5)], [0.22, 0.08], body),
        plate([(1.45, 0.2), (1.65, 0.2), (1.75, 0.65), (1.55, 0.65)], 0.05, body, (0, 0, 0), ("y", 90)),
        *[box((0.09, 0.3, -1.52), (0.03, 0.6, 0.07), DARK, ("x", a)) for a in (40, 130)],
        rod((0, 0.45, 0), (0, 0.8, 0), 0.07, DARK),
        ball((0, 0.45, -0.05), (0.25, 0.15, 0.4), body),
        *blades,
        *skids,
    ]


def _wheel(at, radius: float, width: float, hub=STEEL) -> list[Part]:
    x, y, z = at
    return [
        rod((x - width / 2, y, z), (x + width / 2, y, z), radius, BLACK),
        rod((x - width / 2 - 0.01, y, z), (x + width / 2 + 0.01, y, z), radius * 0.55, hub),
    ]


def tractor(colour=GREEN) -> list[Part]:
    big = [
        *_wheel((0.62, -0.25, -0.6), 0.55, 0.32, YELLOW),
        *[
            box(
                (0.62, -0.25 + 0.55 * np.sin(a), -0.6 + 0.55 * np.cos(a)),
                (0.34, 0.09, 0.09),
                BLACK,
                ("x", -np.rad2deg(a)),
            )
            for a in np.arange(14) * np.pi / 7
        ],
        *_wheel((0.5, -0.48, 0.75), 0.32, 0.22, YELLOW),
        box((0.62, 0.33, -0.6), (0.36, 0.06, 0.8), colour),
    ]
    return [
        box((0, 0.05, 0.5), (0.5, 0.5, 1.1), colour),
        box((0, 0.02, 1.06), (0.42, 0.42, 0.04), DARK),
        box((0, -0.1, -0.3), (0.6, 0.35, 1.0), colour),
        box((0, 0.65, -0.45), (0.85, 0.75, 0.8), (0.55, 0.7, 0.78)),
        box((0, 1.05, -0.45), (0.95, 0.08, 0.92), colour),
        *[box((x, 0.65, z), (0.06, 0.8, 0.06), colour) for x in (-0.42, 0.42) for z in (-0.85, -0.05)],
        rod((0.15, 0.3, 0.7), (0.15, 0.85, 0.7), 0.05, DARK),
        *mirrored([*big, ball((0.15, 0.1, 1.08), 0.07, YELLOW)]),
    ]


def train_car() -> list[Part]:
    """A modern train's front car."""
    return [
        plate(
            [(-1.3, -0.4), (0.9, -0.4), (1.35, -0.25), (1.25, 0.05), (0.9, 0.42), (-1.3, 0.42)],
            0.8,
            WHITE,
            (0, 0, 0),
            ("y", -90),
        ),
        box((0, -0.1, -0.2), (0.83, 0.14, 2.2), RED),
        box((0, 0.15, -0.25), (0.83, 0.22, 1.9), (0.15, 0.2, 0.28)),
        box((0, 0.2, 1.12), (0.6, 0.3, 0.03), (0.15, 0.2, 0.28), ("x", -42)),
        box((0, 0.45, -0.25), (0.5, 0.08, 1.8), GREY),
        *mirrored([rod((0.3, -0.48, z), (0.38, -0.48, z), 0.13, DARK) for z in (-1.0, -0.65, 0.5, 0.85)]),
        *mirrored([ball((0.25, -0.2, 1.3), 0.06, YELLOW)]),
    ]


def submarine() -> list[Part]:
    y = (0.95, 0.75, 0.15)
    return [
        *tube([(0, 0, -1.1), (0, 0, -0.5), (0, 0, 0.5), (0, 0, 0.95)], [0.12, 0.42, 0.42, 0.3], y, 24),
        box((0, 0.52, 0.1), (0.26, 0.45, 0.55), y),
        *tube([(0, 0.7, 0.15), (0, 1.1, 0.15), (0, 1.1, 0.32)], 0.045, DARK),
        *mirrored(
            [
                p
                for z in (-0.3, 0.1, 0.5)
                for p in (
                    ring((0.4, 0.08, z), 0.1, 0.03, BRASS, ("z", 90)),
                    ball((0.39, 0.08, z), (0.05, 0.1, 0.1), CYAN),
                )
            ]
        ),
        *[box((0, 0, -1.05), (0.06, 0.9, 0.25), RED), box((0, 0, -1.05), (0.9, 0.06, 0.25), RED)],
        *[box((0, 0, -1.3), (0.55, 0.1, 0.04), BRASS, ("z", a)) for a in (20, 110)],
        rod((0, 0, -1.1), (0, 0, -1.32), 0.04, DARK),
    ]


def hot_air_balloon() -> list[Part]:
    stripes = [
        lathe([(0.12, -0.35), (0.5, 0.05), (0.8, 0.6), (0.78, 1.0), (0.5, 1.35), (0, 1.45)], c, (0, 0, 0), sides=32)
        for c in (RED, YELLOW)
    ]
    mesh = stripes[1][0]
    mesh.apply_scale(1.004)
    angle = np.floor(
        (np.arctan2(mesh.triangles_center[:, 2], mesh.triangles_center[:, 0]) + np.pi) / (np.pi / 6)
    ).astype(int)
    mesh.update_faces(angle % 2 == 0)
    return [
        *stripes,
        box((0, -1.1, 0), (0.42, 0.35, 0.42), WOOD),
        box((0, -0.93, 0), (0.47, 0.06, 0.47), DARKWOOD),
        *[
            rod((0.19 * x, -0.95, 0.19 * z), (0.28 * x, -0.15, 0.28 * z), 0.015, BROWN)
            for x in (-1, 1)
            for z in (-1, 1)
        ],
    ]


VEHICLES = {
    "helicopter": helicopter,
    "blue_helicopter": lambda: helicopter(BLUE),
    "tractor": tractor,
    "red_tractor": lambda: tractor(RED),
    "train_car": train_car,
    "submarine": submarine,
    "hot_air_balloon": hot_air_balloon,
}
