"""Treasure, jewellery, hats that no catalogue has, put together from solids."""

from __future__ import annotations

import numpy as np
from solids import (
    BLACK,
    BLUE,
    BRASS,
    BROWN,
    CREAM,
    DARKWOOD,
    GOLD,
    GREEN,
    ORANGE,
    PINK,
    PURPLE,
    RED,
    STEEL,
    WHITE,
    WOOD,
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


def crown() -> list[Part]:
    spike = plate([(-0.3, 0), (0.3, 0), (0, 0.62)], 0.06, GOLD, (0, 0.35, 0.86))
    spikes = [
        *around([spike, ball((0, 1.0, 0.86), 0.1, GOLD)], 8),
        *around([ball((0, 0.17, 0.9), 0.1, BLUE)], 4),
        *around([ball((0, 0.17, 0.9), 0.1, RED)], 4, first=45),
    ]
    band = lathe([(0.8, 0), (0.9, 0), (0.9, 0.4), (0.8, 0.4), (0.8, 0)], GOLD)
    return [band, ring((0, 0.02, 0), 0.87, 0.07, GOLD), ring((0, 0.36, 0), 0.87, 0.05, GOLD), *spikes]


def royal_crown() -> list[Part]:
    arches = [
        p
        for k in range(4)
        for p in moved(tube(arc((0, 0.35, 0), 0.82, 0, 90, 9), 0.07, GOLD), (0, 0, 0), (1, 0.9, 1), ("y", 90 * k))
    ]
    return [
        lathe([(0, 0.2), (0.76, 0.2), (0.74, 0.6), (0.5, 0.95), (0, 1.05)], (0.6, 0.06, 0.15)),
        ring((0, 0.08, 0), 0.84, 0.12, WHITE),
        lathe([(0.8, 0.1), (0.88, 0.1), (0.88, 0.42), (0.8, 0.42)], GOLD),
        *arches,
        ball((0, 1.15, 0), 0.13, GOLD),
        box((0, 1.4, 0), (0.06, 0.3, 0.06), GOLD),
        box((0, 1.42, 0), (0.22, 0.06, 0.06), GOLD),
        *[
            ball((0.9 * np.cos(a), 0.27, 0.9 * np.sin(a)), 0.08, (GREEN, RED, BLUE)[k % 3])
            for k, a in enumerate(np.arange(9) * 2 * np.pi / 9)
        ],
    ]


def key(colour=GOLD) -> list[Part]:
    bow = [
        p
        for a in (90, 210, 330)
        for p in (
            ring((0.26 * np.cos(np.deg2rad(a)), 0.85 + 0.26 * np.sin(np.deg2rad(a)), 0), 0.22, 0.07, colour, ("x", 90)),
        )
    ]
    return [
        *bow,
        rod((0, 0.55, 0), (0, -1.0, 0), 0.08, colour),
        ring((0, 0.45, 0), 0.1, 0.05, colour),
        ball((0, -1.0, 0), 0.09, colour),
        box((0.2, -0.85, 0), (0.34, 0.12, 0.09), colour),
        box((0.18, -0.62, 0), (0.3, 0.1, 0.09), colour),
        box((0.3, -0.75, 0), (0.1, 0.3, 0.09), colour),
    ]


def padlock() -> list[Part]:
    shackle = tube([(-0.4, 0, 0), (-0.4, 0.5, 0), *arc((0, 0.5, 0), 0.4, 180, 0, 12), (0.4, 0, 0)], 0.1, STEEL)
    return [
        *shackle,
        box((0, -0.45, 0), (1.2, 1.0, 0.4), BRASS),
        lathe([(0, 0), (0.13, 0), (0.13, 0.02), (0, 0.02)], BLACK, (0, -0.35, 0.2), ("x", 90)),
        box((0, -0.55, 0.2), (0.09, 0.3, 0.04), BLACK),
    ]


def trophy() -> list[Part]:
    cup = lathe(
        [(0, 0.1), (0.12, 0.1), (0.15, 0.3), (0.45, 0.5), (0.65, 0.9), (0.7, 1.4), (0.62, 1.4), (0.55, 0.95), (0, 0.7)],
        GOLD,
    )
    return [
        cup,
        *mirrored(tube([(0.66, 1.25, 0), (0.95, 1.25, 0), (1.0, 0.95, 0), (0.8, 0.7, 0), (0.52, 0.62, 0)], 0.06, GOLD)),
        lathe([(0, -0.15), (0.4, -0.15), (0.3, 0), (0.12, 0.1), (0, 0.12)], GOLD),
        box((0, -0.35, 0), (0.9, 0.4, 0.9), DARKWOOD),
        box((0, -0.35, 0.45), (0.5, 0.2, 0.03), BRASS),
    ]


def medal() -> list[Part]:
    ribbon = [
        plate([(-0.12, 0), (0.12, 0), (0.62, 1.3), (0.3, 1.3)], 0.05, RED),
        plate([(-0.12, 0), (0.12, 0), (-0.3, 1.3), (-0.62, 1.3)], 0.06, BLUE),
    ]
    star = [
        (0.32 * (1 if k % 2 else 0.45) * np.sin(k * np.pi / 5), 0.32 * (1 if k % 2 else 0.45) * np.cos(k * np.pi / 5))
        for k in range(10)
    ][::-1]
    return [
        *ribbon,
        lathe([(0, -0.06), (0.55, -0.06), (0.55, 0.06), (0, 0.06)], GOLD, (0, -0.5, 0), ("x", 90)),
        ring((0, -0.5, 0), 0.53, 0.07, GOLD, ("x", 90)),
        plate(star, 0.2, (0.85, 0.62, 0.15), (0, -0.5, 0)),
    ]


def necklace() -> list[Part]:
    beads = [
        ball((0.8 * np.cos(a), 0.9 * np.sin(a) if np.sin(a) > 0 else 1.15 * np.sin(a), 0), 0.1, GOLD)
        for a in np.arange(30) * 2 * np.pi / 30
    ]
    return [
        *beads,
        plate([(0, -1.75), (0.25, -1.45), (0, -1.2), (-0.25, -1.45)], 0.18, (0.1, 0.6, 0.35)),
        ring((0, -1.2, 0), 0.08, 0.03, GOLD, ("x", 90)),
    ]


def coin() -> list[Part]:
    return [
        lathe([(0, -0.07), (1, -0.07), (1, 0.07), (0, 0.07)], GOLD, (0, 0, 0), ("x", 90)),
        ring((0, 0, 0), 0.93, 0.1, GOLD, ("x", 90)),
        plate(
            [
                (
                    0.5 * (1 if k % 2 else 0.42) * np.sin(k * np.pi / 5),
                    0.5 * (1 if k % 2 else 0.42) * np.cos(k * np.pi / 5),
                )
                for k in range(10)
            ][::-1],
            0.22,
            (0.8, 0.58, 0.12),
            (0, 0, 0),
            ("z", 36),
        ),
    ]


def coins() -> list[Part]:
    return [
        lathe(
            [(0, 0), (0.42, 0), (0.42, 0.11), (0, 0.11)],
            GOLD if (k + s) % 2 else (0.85, 0.65, 0.18),
            (x + 0.03 * np.sin(5 * k + s), 0.115 * k, z + 0.03 * np.cos(7 * k)),
        )
        for s, (x, z, n) in enumerate(((0, 0, 9), (0.8, 0.25, 5), (-0.7, 0.4, 3), (0.2, 0.85, 2)))
        for k in range(n)
    ]


def candelabra() -> list[Part]:
    arms = mirrored(
        [
            *tube([(0, 0.2, 0), (0.4, 0.0, 0), (0.75, 0.2, 0), (0.75, 0.5, 0)], 0.06, GOLD),
            lathe([(0.05, 0), (0.2, 0.1), (0.18, 0.13), (0, 0.1)], GOLD, (0.75, 0.5, 0)),
            rod((0.75, 0.6, 0), (0.75, 1.15, 0), 0.08, CREAM),
            ball((0.75, 1.25, 0), (0.05, 0.11, 0.05), ORANGE),
        ]
    )
    middle = [
        lathe(
            [
                (0, -1),
                (0.5, -1),
                (0.45, -0.9),
                (0.12, -0.75),
                (0.07, 0),
                (0.12, 0.3),
                (0.06, 0.7),
                (0.2, 0.8),
                (0, 0.85),
            ],
            GOLD,
        ),
        rod((0, 0.8, 0), (0, 1.4, 0), 0.08, CREAM),
        ball((0, 1.5, 0), (0.05, 0.11, 0.05), ORANGE),
    ]
    return [*arms, *middle]


def magic_wand() -> list[Part]:
    star = [
        (
            0.42 * (1 if k % 2 == 0 else 0.42) * np.sin(k * np.pi / 5),
            0.42 * (1 if k % 2 == 0 else 0.42) * np.cos(k * np.pi / 5),
        )
        for k in range(10)
    ][::-1]
    return [
        plate(star, 0.14, YELLOW, (0, 0.95, 0)),
        rod((0, 0.7, 0), (0, -1.2, 0), 0.05, PINK),
        ball((0, -1.22, 0), 0.075, GOLD),
    ]


def witch_hat() -> list[Part]:
    return [
        lathe([(0, 0), (1.1, -0.02), (1.1, 0.03), (0.55, 0.08), (0.42, 0.5), (0.2, 1.1), (0.1, 1.3)], (0.16, 0.1, 0.2)),
        *tube([(0, 1.25, 0), (0.12, 1.5, 0), (0.3, 1.6, 0)], [0.12, 0.08, 0.02], (0.16, 0.1, 0.2)),
        lathe([(0.56, 0.07), (0.58, 0.09), (0.5, 0.32), (0.47, 0.3)], PURPLE),
        box((0, 0.2, 0.53), (0.26, 0.24, 0.06), GOLD),
    ]


def top_hat() -> list[Part]:
    return [
        lathe([(0, 0), (0.95, 0.02), (0.95, 0.06), (0.58, 0.06), (0.54, 0.5), (0.6, 1.0), (0, 1.02)], BLACK),
        lathe([(0.59, 0.06), (0.6, 0.08), (0.57, 0.26), (0.54, 0.26)], RED),
    ]


def cowboy_hat() -> list[Part]:
    brim = lathe([(0, 0), (1.1, 0.02), (1.1, 0.06), (0, 0.06)], BROWN)
    v = brim[0].vertices
    v[:, 1] += 0.35 * np.clip(np.abs(v[:, 0]) - 0.4, 0, None) ** 1.3
    v[:, 2] *= 1.15
    crown_ = lathe([(0.55, 0.02), (0.53, 0.4), (0.42, 0.62), (0, 0.55)], BROWN)
    return [brim, crown_, lathe([(0.56, 0.05), (0.57, 0.07), (0.56, 0.18), (0.53, 0.18)], BLACK)]


def scroll() -> list[Part]:
    return [
        plate([(-0.7, -0.8), (0.7, -0.8), (0.7, 0.8), (-0.7, 0.8)], 0.04, CREAM),
        *[
            p
            for y in (-0.85, 0.85)
            for p in (
                rod((-0.72, y, 0.03), (0.72, y, 0.03), 0.14, (0.9, 0.82, 0.6)),
                rod((-0.95, y, 0.03), (0.95, y, 0.03), 0.06, WOOD),
                ball((-0.97, y, 0.03), 0.1, WOOD),
                ball((0.97, y, 0.03), 0.1, WOOD),
            )
        ],
        *[box((0, 0.5 - 0.2 * k, 0.025), (1.0 - 0.2 * (k % 3), 0.05, 0.01), BROWN) for k in range(6)],
    ]


TREASURE = {
    "crown": crown,
    "royal_crown": royal_crown,
    "key": key,
    "padlock": padlock,
    "trophy": trophy,
    "medal": medal,
    "necklace": necklace,
    "coin": coin,
    "coins": coins,
    "candelabra": candelabra,
    "magic_wand": magic_wand,
    "witch_hat": witch_hat,
    "top_hat": top_hat,
    "cowboy_hat": cowboy_hat,
    "scroll": scroll,
}
