"""Curiosities, things to wear and things of the house that no catalogue has, put together from solids."""

from __future__ import annotations

import numpy as np
from solids import (
    BLACK,
    BLUE,
    BRASS,
    BROWN,
    CREAM,
    DARK,
    DARKWOOD,
    GLASS,
    GOLD,
    GREEN,
    GREY,
    LEAF,
    LIME,
    NAVY,
    ORANGE,
    PURPLE,
    RED,
    STEEL,
    STONE,
    TAN,
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


def _dome(
    radius: float, height: float, colour: tuple[float, float, float], at: tuple[float, float, float] = (0, 0, 0)
) -> Part:
    """The upper half of an ellipsoid, flat below; the lower half with a negative height."""
    a = np.linspace(0, np.pi / 2, 14)
    profile = [(0, 0), *[(radius * np.cos(t), height * np.sin(t)) for t in a]]
    return lathe(profile if height > 0 else profile[::-1], colour, at)


def bow_tie() -> list[Part]:
    wing = [(0.1, 0.12), (0.1, -0.12), (0.85, -0.45), (0.75, 0), (0.85, 0.45)]
    return [*mirrored([plate(wing, 0.16, RED)]), ball((0, 0, 0), (0.16, 0.2, 0.14), (0.6, 0.06, 0.06))]


def necktie() -> list[Part]:
    blade = [(0.1, 0.9), (0.34, -0.9), (0, -1.3), (-0.34, -0.9), (-0.1, 0.9)]
    stripes = [
        plate([(-0.2, y), (0.2, y + 0.25), (0.2, y + 0.33), (-0.2, y + 0.08)], 0.1, WHITE) for y in (-0.7, -0.3, 0.1)
    ]
    return [
        plate(blade, 0.08, NAVY),
        plate([(0.2, 1.25), (-0.2, 1.25), (-0.13, 0.88), (0.13, 0.88)], 0.16, NAVY),
        *stripes,
    ]


def shirt_button() -> list[Part]:
    holes = [rod((x, y, -0.02), (x, y, 0.135), 0.1, DARK) for x in (-0.2, 0.2) for y in (-0.2, 0.2)]
    return [rod((0, 0, -0.1), (0, 0, 0.12), 0.9, BLUE, sides=48), ring((0, 0, 0.1), 0.8, 0.1, BLUE, ("x", 90)), *holes]


def thread_spool() -> list[Part]:
    wound = [ring((0, y, 0), 0.4, 0.06, RED) for y in np.linspace(-0.45, 0.45, 11)]
    return [
        rod((0, -0.7, 0), (0, -0.55, 0), 0.6, WOOD),
        rod((0, 0.55, 0), (0, 0.7, 0), 0.6, WOOD),
        rod((0, -0.55, 0), (0, 0.55, 0), 0.38, RED),
        *wound,
    ]


def toothbrush() -> list[Part]:
    tufts = [
        box((x, 0.85 + y, 0.14), (0.07, 0.07, 0.2), WHITE) for x in (-0.07, 0.03) for y in np.linspace(-0.2, 0.2, 5)
    ]
    return [
        *tube([(0, -1.2, 0), (0, -0.2, 0), (0, 0.4, 0)], [0.11, 0.12, 0.06], BLUE),
        box((0, 0.85, 0), (0.24, 0.6, 0.1), BLUE),
        rod((0, 0.4, 0), (0, 0.6, 0), 0.06, BLUE),
        *tufts,
    ]


def syringe() -> list[Part]:
    return [
        rod((0, -0.6, 0), (0, 0.6, 0), 0.2, GLASS),
        rod((0, -0.8, 0), (0, -0.6, 0), 0.08, WHITE),
        rod((0, -1.5, 0), (0, -0.8, 0), 0.025, STEEL),
        rod((0, 0.6, 0), (0, 1.2, 0), 0.07, WHITE),
        rod((0, 1.2, 0), (0, 1.27, 0), 0.2, WHITE),
        box((0, 0.62, 0), (0.7, 0.06, 0.25), WHITE),
    ]


def beaker() -> list[Part]:
    return [
        lathe(
            [(0, -0.8), (0.55, -0.8), (0.55, 0.7), (0.64, 0.8), (0.58, 0.8), (0.5, 0.7), (0.5, -0.74), (0, -0.74)],
            GLASS,
        ),
        rod((0, -0.73, 0), (0, 0.1, 0), 0.51, GREEN),
        *(box((0, y, 0.56), (0.2, 0.03, 0.02), WHITE) for y in (-0.4, -0.1, 0.2, 0.5)),
    ]


def erlenmeyer() -> list[Part]:
    return [
        lathe([(0, -0.8), (0.75, -0.8), (0.78, -0.7), (0.2, 0.4), (0.2, 0.8), (0.26, 0.85), (0, 0.85)], GLASS),
        lathe([(0, -0.78), (0.77, -0.72), (0.5, -0.2), (0, -0.2)], PURPLE, (0, 0, 0)),
    ]


def atom() -> list[Part]:
    orbits = [ring((0, 0, 0), 1.0, 0.03, GREY, ("x", 90), ("y", 65), ("z", a)) for a in (0, 60, 120)]
    core = [
        ball(p, 0.14, c)
        for p, c in (
            ((0.1, 0.05, 0), RED),
            ((-0.1, 0.02, 0.05), BLUE),
            ((0, -0.1, -0.05), RED),
            ((0.02, 0.1, 0.08), BLUE),
        )
    ]
    return [
        *orbits,
        *core,
        ball((0, 1.0, 0), 0.1, YELLOW),
        ball((0.87, -0.5, 0), 0.1, YELLOW),
        ball((-0.87, -0.5, 0), 0.1, YELLOW),
    ]


def dna() -> list[Part]:
    t = np.linspace(0, 3.5 * np.pi, 60)
    y = np.linspace(-1.3, 1.3, 60)
    one = np.stack([0.5 * np.cos(t), y, 0.5 * np.sin(t)], 1)
    two = one * [-1, 1, -1]
    rungs = [rod(one[k], two[k], 0.045, (RED, GREEN, YELLOW)[k // 4 % 3]) for k in range(2, 60, 4)]
    return [*tube(one.tolist(), 0.08, BLUE, 8), *tube(two.tolist(), 0.08, ORANGE, 8), *rungs]


def cauldron() -> list[Part]:
    legs = around([rod((0.35, -0.6, 0), (0.5, -0.95, 0), 0.1, DARK)], 3)
    return [
        lathe(
            [(0, -0.7), (0.5, -0.6), (0.85, -0.1), (0.75, 0.4), (0.85, 0.55), (0.75, 0.55), (0.65, 0.4), (0, 0.35)],
            DARK,
        ),
        rod((0, 0.34, 0), (0, 0.38, 0), 0.68, GREEN, sides=40),
        *(ball(p, r, LIME) for p, r in (((0.2, 0.4, 0.1), 0.12), ((-0.25, 0.4, 0.2), 0.09), ((0, 0.4, -0.3), 0.1))),
        *legs,
        ring((0, 0.55, 0), 0.8, 0.06, DARK),
    ]


def goblet() -> list[Part]:
    gems = around([ball((0.5, 0.5, 0), (0.06, 0.09, 0.09), RED)], 6)
    return [
        lathe(
            [
                (0, -0.9),
                (0.5, -0.9),
                (0.45, -0.8),
                (0.1, -0.65),
                (0.1, -0.1),
                (0.4, 0.15),
                (0.52, 0.5),
                (0.5, 0.95),
                (0.44, 0.95),
                (0.44, 0.5),
                (0, 0.1),
            ],
            GOLD,
        ),
        ring((0, -0.4, 0), 0.12, 0.07, GOLD),
        *gems,
    ]


def crystal_ball() -> list[Part]:
    return [
        ball((0, 0.25, 0), 0.75, (0.7, 0.8, 0.95)),
        lathe([(0, -0.85), (0.6, -0.85), (0.55, -0.7), (0.4, -0.6), (0.5, -0.35), (0.45, -0.35), (0, -0.5)], GOLD),
    ]


def wizard_staff() -> list[Part]:
    claws = around([*tube([(0.05, 1.2, 0), (0.22, 1.35, 0), (0.2, 1.6, 0), (0.1, 1.7, 0)], 0.04, DARKWOOD)], 4)
    return [
        *tube([(0, -1.6, 0), (0.05, -0.6, 0), (-0.04, 0.4, 0), (0, 1.25, 0)], 0.06, DARKWOOD),
        ball((0, 1.5, 0), 0.17, (0.3, 0.7, 0.95)),
        *claws,
    ]


def halberd() -> list[Part]:
    axe = [(0, 0.2), (0.5, 0.45), (0.62, 0), (0.5, -0.45), (0, -0.2)]
    return [
        rod((0, -1.8, 0), (0, 1.3, 0), 0.05, WOOD),
        plate(axe, 0.05, STEEL, (0.05, 1.0, 0)),
        plate([(-0.05, 0.15), (-0.45, 0), (-0.05, -0.15)], 0.05, STEEL, (0, 1.0, 0)),
        rod((0, 1.3, 0), (0, 1.9, 0), 0.08, STEEL, 0.0),
    ]


def war_flail() -> list[Part]:
    spikes = [
        rod(
            (0.75 + 0.25 * x, -0.25 + 0.25 * y, 0.25 * z),
            (0.75 + 0.48 * x, -0.25 + 0.48 * y, 0.48 * z),
            0.07,
            STEEL,
            0.0,
        )
        for x, y, z in (
            (1, 0, 0),
            (-1, 0, 0),
            (0, 1, 0),
            (0, -1, 0),
            (0, 0, 1),
            (0, 0, -1),
            (0.6, 0.6, 0.6),
            (-0.6, 0.6, 0.6),
            (0.6, -0.6, 0.6),
            (-0.6, -0.6, 0.6),
            (0.6, 0.6, -0.6),
            (-0.6, -0.6, -0.6),
        )
    ]
    chain = [
        ring((0.05 + 0.1 * k, 1.0 - 0.02 * k * k * 1.5, 0), 0.07, 0.025, GREY, ("x", 90 * (k % 2))) for k in range(7)
    ]
    chain += [ring((0.75, 0.42 - 0.11 * k, 0), 0.07, 0.025, GREY, ("x", 90), ("y", 90 * (k % 2))) for k in range(4)]
    return [
        rod((0, -1.2, 0), (0, 1.0, 0), 0.08, WOOD),
        rod((0, -1.25, 0), (0, -0.7, 0), 0.1, DARK),
        *chain,
        ball((0.75, -0.25, 0), 0.3, STEEL),
        *spikes,
    ]


def shuriken() -> list[Part]:
    points = [
        (r * np.cos(a), r * np.sin(a))
        for k, a in enumerate(np.linspace(0, 2 * np.pi, 9)[:-1])
        for r in ((1.0, 0.3)[k % 2],)
    ]
    return [plate(points, 0.06, STEEL), ring((0, 0, 0), 0.14, 0.05, DARK, ("x", 90))]


def cannonballs() -> list[Part]:
    rows = [(-0.5, 0, -0.3), (0.5, 0, -0.3), (0, 0, 0.56), (0, 0.8, 0)]
    return [ball(p, 0.5, DARK) for p in rows]


def fez() -> list[Part]:
    return [
        lathe([(0, -0.5), (0.65, -0.5), (0.5, 0.5), (0, 0.5)], RED),
        *tube([(0, 0.52, 0), (0.35, 0.52, 0), (0.56, 0.4, 0), (0.62, -0.1, 0)], 0.03, BLACK),
        rod((0.62, -0.1, 0), (0.63, -0.4, 0), 0.05, BLACK, 0.08),
    ]


def sombrero() -> list[Part]:
    return [
        lathe(
            [
                (0, -0.15),
                (0.9, -0.2),
                (1.3, 0.05),
                (1.33, 0.12),
                (0.9, -0.1),
                (0.45, -0.05),
                (0.38, 0.4),
                (0.2, 0.75),
                (0, 0.8),
            ],
            (0.85, 0.65, 0.3),
        ),
        ring((0, 0.02, 0), 0.45, 0.06, RED),
        ring((0, 0.1, 0), 1.3, 0.05, RED),
    ]


def bowler_hat() -> list[Part]:
    brim = lathe([(0, -0.06), (0.85, -0.02), (0.97, 0.1), (0.93, 0.13), (0.8, 0.05), (0.5, 0.0), (0, 0.0)], BLACK)
    return [_dome(0.62, 0.72, BLACK), brim, ring((0, 0.05, 0), 0.62, 0.05, GREY)]


def hard_hat() -> list[Part]:
    ridge = tube(arc((0, 0, 0), 0.68, 25, 155, 14, "zy"), 0.08, ORANGE)
    return [
        _dome(0.7, 0.66, YELLOW),
        lathe([(0, -0.05), (0.8, -0.05), (0.82, 0.02), (0, 0.02)], YELLOW),
        *ridge,
        ball((0, -0.02, 0.65), (0.5, 0.04, 0.4), YELLOW),
    ]


def birdhouse() -> list[Part]:
    roof = [box((s * 0.36, 0.62, 0), (0.9, 0.08, 1.05), RED, ("z", -40 * s)) for s in (1, -1)]
    gable = plate([(-0.5, 0), (0.5, 0), (0, 0.48)], 0.8, WOOD, (0, 0.35, 0))
    return [
        box((0, 0, 0), (1.0, 0.9, 0.8), WOOD),
        gable,
        *roof,
        rod((0, 0.15, 0.38), (0, 0.15, 0.42), 0.19, BLACK),
        rod((0, -0.15, 0.4), (0, -0.15, 0.65), 0.04, DARKWOOD),
        rod((0, -1.5, 0), (0, -0.45, 0), 0.07, DARKWOOD),
    ]


def bird_cage() -> list[Part]:
    bars = around([*tube([(0.6, -0.7, 0), (0.6, 0.3, 0), (0.42, 0.72, 0), (0, 0.9, 0)], 0.025, BRASS, 8)], 16)
    return [
        rod((0, -0.8, 0), (0, -0.65, 0), 0.66, BRASS, sides=40),
        *bars,
        ring((0, 0.3, 0), 0.6, 0.03, BRASS),
        ring((0, -0.2, 0), 0.6, 0.03, BRASS),
        ring((0, 1.02, 0), 0.12, 0.03, BRASS, ("x", 90)),
        rod((-0.4, -0.2, 0), (0.4, -0.2, 0), 0.03, WOOD),
        ball((0, -0.02, 0), (0.14, 0.16, 0.2), YELLOW),
        ball((0, 0.16, 0.1), 0.1, YELLOW),
    ]


def fish_bowl() -> list[Part]:
    fish = [
        ball((0.1, 0, 0.3), (0.2, 0.12, 0.08), ORANGE),
        plate([(0, 0), (-0.18, 0.12), (-0.18, -0.12)], 0.05, ORANGE, (-0.06, 0, 0.3)),
    ]
    return [
        lathe(
            [
                (0.0, -0.75),
                (0.45, -0.72),
                (0.8, -0.3),
                (0.85, 0.0),
                (0.7, 0.45),
                (0.5, 0.62),
                (0.56, 0.68),
                (0.46, 0.66),
                (0, 0.45),
            ],
            GLASS,
        ),
        rod((0, -0.72, 0), (0, -0.55, 0), 0.5, TAN, 0.65),
        *moved(fish, (0, 0, 0.55)),
    ]


def pet_bowl() -> list[Part]:
    bone = [
        rod((-0.15, -0.05, 0.76), (0.15, -0.05, 0.76), 0.05, WHITE),
        *mirrored([ball((0.18, 0.0, 0.76), 0.06, WHITE), ball((0.18, -0.1, 0.76), 0.06, WHITE)]),
    ]
    return [
        lathe([(0, -0.3), (0.9, -0.3), (0.7, 0.25), (0.6, 0.25), (0.55, 0.05), (0, 0.02)], RED),
        ball((0, 0.05, 0), (0.5, 0.15, 0.5), BROWN),
        *bone,
    ]


def birds_nest() -> list[Part]:
    twigs = [
        ring(
            (0, 0.08 * np.sin(3 * k), 0),
            0.75 + 0.08 * np.cos(2 * k),
            0.06,
            (0.45 + 0.08 * (k % 2), 0.32, 0.18),
            ("x", 6 * np.sin(k)),
            ("z", 6 * np.cos(k)),
        )
        for k in range(14)
    ]
    return [
        lathe([(0, -0.35), (0.5, -0.3), (0.8, 0), (0.7, 0.05), (0, -0.15)], (0.4, 0.28, 0.16)),
        *twigs,
        *(
            ball((0.25 * np.cos(a), 0.0, 0.25 * np.sin(a)), (0.18, 0.24, 0.18), (0.6, 0.82, 0.85))
            for a in (0, 2.1, 4.2)
        ),
    ]


def feather() -> list[Part]:
    a = np.linspace(0, np.pi, 20)
    outline = [(0.3 * np.sin(t) ** 0.7, -0.8 + 1.9 * t / np.pi) for t in a] + [
        (-0.3 * np.sin(t) ** 0.7, -0.8 + 1.9 * t / np.pi) for t in a[::-1][1:-1]
    ]
    return [plate(outline, 0.03, (0.55, 0.75, 0.9)), *tube([(0, -1.4, 0), (0, 1.0, 0)], [0.04, 0.015], CREAM)]


def leaf() -> list[Part]:
    a = np.linspace(0, np.pi, 24)
    outline = [(0.6 * np.sin(t), -0.9 + 1.9 * t / np.pi) for t in a] + [
        (-0.6 * np.sin(t), -0.9 + 1.9 * t / np.pi) for t in a[::-1][1:-1]
    ]
    veins = mirrored([rod((0, y, 0.03), (0.35, y + 0.3, 0.03), 0.02, LIME) for y in (-0.5, -0.15, 0.2)])
    return [plate(outline, 0.05, LEAF), *veins, *tube([(0, -1.3, 0), (0, 0.85, 0)], 0.035, LIME)]


def test_tube() -> list[Part]:
    return [
        rod((0, -0.7, 0), (0, 1.1, 0), 0.22, GLASS),
        ball((0, -0.7, 0), 0.22, BLUE),
        rod((0, -0.7, 0), (0, 0.2, 0), 0.225, BLUE),
        ring((0, 1.1, 0), 0.22, 0.05, GLASS),
        rod((0, 1.05, 0), (0, 1.3, 0), 0.2, BROWN, 0.23),
    ]


def lighter() -> list[Part]:
    return [
        box((0, -0.2, 0), (0.6, 1.2, 0.3), RED),
        box((0.1, 0.55, 0), (0.4, 0.3, 0.28), STEEL),
        rod((-0.18, 0.5, -0.1), (-0.18, 0.5, 0.1), 0.14, DARK),
        ball((0.1, 0.95, 0), (0.1, 0.28, 0.1), ORANGE),
        ball((0.1, 0.86, 0), (0.06, 0.14, 0.11), YELLOW),
    ]


def matchstick() -> list[Part]:
    return [box((0, -0.2, 0), (0.12, 2.0, 0.12), (0.85, 0.7, 0.45)), ball((0, 0.9, 0), (0.14, 0.24, 0.14), RED)]


def cigar() -> list[Part]:
    return [
        *tube([(-1.2, 0, 0), (-1.0, 0, 0), (1.0, 0, 0), (1.15, 0, 0)], [0.1, 0.17, 0.18, 0.15], BROWN),
        rod((-0.7, 0, 0), (-0.4, 0, 0), 0.185, GOLD),
        rod((1.1, 0, 0), (1.32, 0, 0), 0.16, GREY),
    ]


def archway() -> list[Part]:
    posts = mirrored([box((0.85, -0.5, 0), (0.5, 1.6, 0.6), STONE), box((0.85, -1.25, 0), (0.62, 0.16, 0.72), STONE)])
    stones = [
        box(
            (0.85 * np.cos(a), 0.3 + 0.85 * np.sin(a), 0),
            (0.5, 0.26, 0.6),
            (0.6 + 0.05 * (k % 2), 0.58, 0.53),
            ("z", float(np.rad2deg(a))),
        )
        for k, a in enumerate(np.linspace(0.1, np.pi - 0.1, 11))
    ]
    return [*posts, *stones]


def wooden_door() -> list[Part]:
    panels = [box((x, y, 0.05), (0.34, h, 0.04), BROWN) for x in (-0.25, 0.25) for y, h in ((-0.55, 0.6), (0.35, 0.9))]
    return [
        box((0, 0, 0), (1.1, 2.2, 0.1), WOOD),
        *panels,
        box((0, 1.17, 0), (1.3, 0.14, 0.18), DARKWOOD),
        *mirrored([box((0.6, 0, 0), (0.12, 2.2, 0.18), DARKWOOD)]),
        ball((0.42, -0.1, 0.12), 0.07, BRASS),
    ]


def sash_window() -> list[Part]:
    bars = [
        box((0, 0, 0.02), (0.06, 1.7, 0.08), WHITE),
        *(box((0, y, 0.02), (1.2, 0.06, 0.08), WHITE) for y in (-0.42, 0, 0.42)),
    ]
    return [
        box((0, 0, 0), (1.2, 1.7, 0.03), GLASS),
        *bars,
        *mirrored([box((0.63, 0, 0), (0.12, 1.9, 0.16), WHITE)]),
        box((0, 0.9, 0), (1.38, 0.12, 0.16), WHITE),
        box((0, -0.92, 0.04), (1.5, 0.12, 0.3), WHITE),
    ]


CURIOS = {
    "bow_tie": bow_tie, "necktie": necktie, "button": shirt_button, "thread_spool": thread_spool,
    "toothbrush": toothbrush, "syringe": syringe, "beaker": beaker, "flask": erlenmeyer, "atom": atom, "dna": dna,
    "cauldron": cauldron, "goblet": goblet, "crystal_ball": crystal_ball, "wizard_staff": wizard_staff,
    "halberd": halberd, "flail": war_flail, "shuriken": shuriken, "cannonballs": cannonballs, "fez": fez,
    "sombrero": sombrero, "bowler_hat": bowler_hat, "hard_hat": hard_hat, "birdhouse": birdhouse,
    "bird_cage": bird_cage, "fish_bowl": fish_bowl, "pet_bowl": pet_bowl, "nest": birds_nest, "feather": feather,
    "leaf": leaf, "test_tube": test_tube, "lighter": lighter, "matchstick": matchstick, "cigar": cigar,
    "archway": archway, "door": wooden_door, "window": sash_window,
}  # fmt: skip
