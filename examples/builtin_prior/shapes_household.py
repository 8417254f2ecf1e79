"""Things about the house that no catalogue has, put together from solids."""

from __future__ import annotations

import numpy as np
from solids import (
    BLACK,
    BLUE,
    BRASS,
    CREAM,
    DARK,
    DARKWOOD,
    GLASS,
    GOLD,
    GREY,
    RED,
    STEEL,
    WHITE,
    WOOD,
    Part,
    arc,
    ball,
    box,
    lathe,
    moved,
    plate,
    ring,
    rod,
    tube,
)


def teapot(colour=WHITE, trim=BLUE) -> list[Part]:
    body = lathe(
        [(0, -0.6), (0.45, -0.6), (0.8, -0.3), (0.9, 0), (0.8, 0.32), (0.45, 0.58), (0.4, 0.62), (0, 0.62)], colour
    )
    spout = tube([(0.75, -0.15, 0), (1.1, 0.0, 0), (1.25, 0.35, 0), (1.45, 0.55, 0)], [0.24, 0.17, 0.11, 0.1], colour)
    handle = tube([(-0.72, 0.35, 0), (-1.05, 0.45, 0), (-1.3, 0.2, 0), (-1.2, -0.15, 0), (-0.8, -0.3, 0)], 0.08, colour)
    lid = [
        lathe([(0.42, 0.6), (0.4, 0.68), (0.2, 0.78), (0, 0.8)], colour),
        ball((0, 0.88, 0), 0.1, trim),
        ring((0, 0.62, 0), 0.43, 0.04, trim),
        ring((0, -0.58, 0), 0.45, 0.06, trim),
        ring((0, 0.0, 0), 0.89, 0.03, trim),
    ]
    return [body, *spout, *handle, *lid]


def open_umbrella(colour=RED) -> list[Part]:
    rim = 8
    panels = []
    a = np.linspace(0, np.pi / 2, 10)
    dome = lathe(
        [
            (0, 0.95),
            *[(1.2 * np.sin(x), 0.35 + 0.6 * np.cos(x)) for x in a[1:]],
            *[(1.17 * np.sin(x), 0.31 + 0.58 * np.cos(x)) for x in a[::-1]],
        ],
        colour,
        (0, 0, 0),
        sides=rim,
    )
    panels += [
        p
        for k in range(rim)
        for p in tube(
            [
                (
                    1.22 * np.sin(x) * np.cos(k * 2 * np.pi / rim),
                    0.35 + 0.62 * np.cos(x),
                    1.22 * np.sin(x) * np.sin(k * 2 * np.pi / rim),
                )
                for x in np.linspace(0.1, np.pi / 2, 6)
            ],
            0.02,
            DARK,
            6,
        )
    ]
    hook = tube([(0, -1.0, 0), *arc((0.15, -1.0, 0), 0.15, 180, 360, 9)], 0.05, WOOD)
    return [dome, *panels, rod((0, -1.0, 0), (0, 1.1, 0), 0.035, DARK), *hook]


def hourglass() -> list[Part]:
    glass = lathe([(0, -0.8), (0.5, -0.75), (0.5, -0.45), (0.07, 0), (0.5, 0.45), (0.5, 0.75), (0, 0.8)], GLASS)
    sand = [
        lathe([(0, -0.79), (0.51, -0.76), (0.51, -0.55), (0, -0.25)], (0.9, 0.75, 0.4)),
        lathe([(0.08, 0.02), (0.4, 0.33), (0, 0.35)], (0.9, 0.75, 0.4)),
    ]
    return [
        glass,
        *sand,
        *[lathe([(0, y), (0.7, y), (0.7, y + 0.12), (0, y + 0.12)], WOOD) for y in (-0.93, 0.8)],
        *[
            rod((0.6 * np.cos(a), -0.85, 0.6 * np.sin(a)), (0.6 * np.cos(a), 0.85, 0.6 * np.sin(a)), 0.05, WOOD)
            for a in np.arange(4) * np.pi / 2 + 0.78
        ],
    ]


def lightbulb() -> list[Part]:
    return [
        lathe(
            [(0, -0.1), (0.28, -0.1), (0.32, 0.1), (0.62, 0.6), (0.66, 0.9), (0.5, 1.25), (0.2, 1.42), (0, 1.44)],
            (0.98, 0.93, 0.65),
        ),
        rod((0, -0.1, 0), (0, -0.6, 0), 0.28, GREY),
        *[ring((0, -0.2 - 0.13 * k, 0), 0.28, 0.045, STEEL) for k in range(4)],
        lathe([(0, -0.75), (0.1, -0.72), (0.22, -0.6)], BLACK),
    ]


def magnifier() -> list[Part]:
    return [
        ring((0, 0.6, 0), 0.62, 0.08, BRASS, ("x", 90)),
        lathe([(0, -0.04), (0.58, -0.03), (0.58, 0.03), (0, 0.04)], GLASS, (0, 0.6, 0), ("x", 90)),
        rod((0, -0.05, 0), (0, -1.1, 0), 0.1, DARKWOOD, 0.13),
        ring((0, -0.05, 0), 0.09, 0.05, BRASS),
    ]


def telescope() -> list[Part]:
    tubes = moved(
        [
            rod((0, 0, -0.9), (0, 0, 0.9), 0.2, BRASS),
            rod((0, 0, 0.9), (0, 0, 1.25), 0.26, BRASS),
            rod((0, 0, -1.15), (0, 0, -0.9), 0.12, BLACK),
            lathe([(0, 0), (0.24, 0), (0, 0.02)], GLASS, (0, 0, 1.25), ("x", 90)),
        ],
        (0, 0.9, 0),
        1.0,
        ("x", -28),
        ("y", 60),
    )
    legs = [
        p
        for a in (90, 210, 330)
        for p in tube([(0, 0.75, 0), (0.75 * np.cos(np.deg2rad(a)), -1, 0.75 * np.sin(np.deg2rad(a)))], 0.055, WOOD)
    ]
    return [*tubes, *legs, ball((0, 0.75, 0), 0.12, DARK)]


def microscope() -> list[Part]:
    return [
        box((0, -1, 0.05), (0.9, 0.14, 1.1), DARK),
        *tube([(0, -0.95, -0.35), (0, -0.2, -0.5), (0, 0.45, -0.35)], 0.13, WHITE),
        box((0, -0.4, 0.05), (0.7, 0.07, 0.7), BLACK),
        *moved(
            [
                rod((0, -0.5, 0), (0, 0.75, 0), 0.15, WHITE),
                rod((0, 0.75, 0), (0, 1.1, 0), 0.1, BLACK),
                rod((0, -0.5, 0), (0, -0.75, 0), 0.07, STEEL),
            ],
            (0, 0.3, 0),
            1.0,
            ("x", -15),
        ),
        box((0, 0.35, -0.22), (0.3, 0.35, 0.35), WHITE),
        *[rod((x, -0.1, -0.5), (x * 1.01, -0.1, -0.5001), 0.16, BLACK) for x in (-0.2, 0.2)],
    ]


def globe() -> list[Part]:
    land = [
        ball(0.62 * np.array(p) / np.linalg.norm(p), s, (0.3, 0.6, 0.25))
        for p, s in (
            ((0.5, 0.7, 0.6), 0.42),
            ((0.2, -0.2, 1), 0.32),
            ((-0.9, 0.4, 0.5), 0.36),
            ((-0.6, -0.4, 0.7), 0.24),
            ((0.6, 0.3, -0.8), 0.45),
            ((-0.3, 0.5, -0.9), 0.38),
            ((0.9, -0.5, -0.1), 0.3),
            ((-0.8, -0.5, -0.5), 0.3),
            ((0, 1, 0), 0.2),
        )
    ]
    sphere = moved(
        [ball((0, 0, 0), 0.95, (0.2, 0.45, 0.8)), *land, rod((0, -1.1, 0), (0, 1.1, 0), 0.03, BRASS)],
        (0, 0, 0),
        1.0,
        ("z", -23),
    )
    return [
        *sphere,
        *moved(tube(arc((0, 0, 0), 1.1, -90, 90, 16), 0.05, BRASS), (0, 0, 0), 1.0, ("z", -23)),
        rod((0.0, -1.05, 0), (0.0, -1.4, 0), 0.08, BRASS),
        lathe([(0, -1.55), (0.6, -1.55), (0.55, -1.45), (0.1, -1.35), (0, -1.35)], DARKWOOD),
        *tube([(0.42, -1.02, 0), (0.0, -1.12, 0)], 0.06, BRASS),
    ]


def book_closed(cover=RED) -> list[Part]:
    return moved(
        [
            box((0, 0, 0), (1.1, 1.5, 0.3), CREAM),
            box((0.02, 0, 0.18), (1.2, 1.6, 0.05), cover),
            box((0.02, 0, -0.18), (1.2, 1.6, 0.05), cover),
            box((-0.57, 0, 0), (0.06, 1.6, 0.4), cover),
            box((0.05, 0.35, 0.21), (0.7, 0.12, 0.02), GOLD),
            box((0.05, 0.1, 0.21), (0.5, 0.07, 0.02), GOLD),
        ],
        (0, 0, 0),
        1.0,
        ("y", 20),
    )


def envelope() -> list[Part]:
    return [
        box((0, 0, 0), (1.7, 1.1, 0.08), WHITE),
        plate([(-0.85, 0.55), (0, -0.1), (0.85, 0.55)], 0.03, (0.85, 0.85, 0.83), (0, 0, 0.05)),
        lathe([(0, 0), (0.13, 0), (0.13, 0.04), (0, 0.04)], RED, (0, -0.05, 0.06), ("x", 90)),
    ]


HOUSEHOLD = {
    "teapot": teapot,
    "brown_teapot": lambda: teapot((0.5, 0.28, 0.15), (0.85, 0.7, 0.45)),
    "open_umbrella": open_umbrella,
    "hourglass": hourglass,
    "lightbulb": lightbulb,
    "magnifier": magnifier,
    "telescope": telescope,
    "microscope": microscope,
    "globe": globe,
    "book_closed": book_closed,
    "envelope": envelope,
}
