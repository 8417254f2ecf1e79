"""Things of sport, play, music and garden that no catalogue has, put together from solids."""

from __future__ import annotations

import numpy as np
from solids import (
    BLACK,
    BLUE,
    BRASS,
    CREAM,
    DARK,
    DARKWOOD,
    GREEN,
    GREY,
    ORANGE,
    PALE,
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


def _board(length: float, width: float, colour: tuple[float, float, float]) -> list[tuple[float, float]]:
    a = np.linspace(0, 2 * np.pi, 40)[:-1]
    return [
        (width * np.sign(np.cos(t)) * abs(np.cos(t)) ** 0.6, length * np.sign(np.sin(t)) * abs(np.sin(t)) ** 0.85)
        for t in a
    ]


def _sphere_with_seams(colour: tuple[float, float, float], seam: tuple[float, float, float]) -> list[Part]:
    t = np.linspace(0, 2 * np.pi, 60)
    x, y, z = np.cos(t) + 0.45 * np.cos(3 * t), np.sin(t) - 0.45 * np.sin(3 * t), 1.34 * np.sin(2 * t)
    path = np.stack([x, y, z], 1)
    path = 0.985 * path / np.linalg.norm(path, axis=1, keepdims=True)
    return [ball((0, 0, 0), 1.0, colour), *tube(path.tolist(), 0.035, seam, 8)]


def dumbbell() -> list[Part]:
    ends = mirrored(
        [rod((0.5, 0, 0), (0.7, 0, 0), 0.45, DARK, sides=6), rod((0.7, 0, 0), (0.95, 0, 0), 0.38, DARK, sides=6)]
    )
    return [rod((-0.55, 0, 0), (0.55, 0, 0), 0.12, STEEL), *ends]


def barbell() -> list[Part]:
    ends = mirrored(
        [
            rod((1.0, 0, 0), (1.1, 0, 0), 0.5, BLACK, sides=40),
            rod((1.13, 0, 0), (1.22, 0, 0), 0.4, RED, sides=40),
            rod((1.25, 0, 0), (1.32, 0, 0), 0.1, STEEL),
        ]
    )
    return [rod((-1.5, 0, 0), (1.5, 0, 0), 0.05, STEEL), *ends]


def kettlebell() -> list[Part]:
    return [
        ball((0, -0.25, 0), 0.55, DARK),
        rod((0, -0.8, 0), (0, -0.6, 0), 0.36, DARK),
        *tube(arc((0, 0.25, 0), 0.34, -50, 230), 0.1, DARK),
    ]


def american_football() -> list[Part]:
    laces = [box((x, 0.56, 0), (0.03, 0.03, 0.16), WHITE) for x in np.linspace(-0.25, 0.25, 6)]
    bands = mirrored([ring((0.62, 0, 0), 0.42, 0.035, WHITE, ("z", 90))])
    profile = [(0.58 * np.cos(a) ** 1.0, np.sin(a)) for a in np.linspace(-np.pi / 2, np.pi / 2, 24)]
    profile = [(r * (1 - 0.25 * abs(y) ** 3), y) for r, y in profile]
    return [
        lathe(profile, (0.5, 0.26, 0.13), (0, 0, 0), ("z", 90)),
        *laces,
        box((0, 0.57, 0), (0.55, 0.02, 0.03), WHITE),
        *bands,
    ]


def baseball() -> list[Part]:
    return _sphere_with_seams(WHITE, RED)


def tennis_ball() -> list[Part]:
    return _sphere_with_seams((0.8, 0.9, 0.2), WHITE)


def beach_ball() -> list[Part]:
    colours = (RED, WHITE, YELLOW, WHITE, BLUE, WHITE)
    whole = ball((0, 0, 0), 1.0, WHITE)[0]
    angle = np.arctan2(whole.triangles_center[:, 2], whole.triangles_center[:, 0])
    sector = ((angle + np.pi) / (2 * np.pi) * 6).astype(int) % 6
    parts: list[Part] = []
    for number, colour in enumerate(colours):
        piece = whole.submesh([np.flatnonzero(sector == number)], append=True, repair=False)
        parts.append((piece, colour))
    return [*parts, rod((0, 0.97, 0), (0, 1.02, 0), 0.15, WHITE), rod((0, -1.02, 0), (0, -0.97, 0), 0.15, WHITE)]


def golf_ball() -> list[Part]:
    k = np.arange(160) + 0.5
    height, turn = 1 - 2 * k / 160, np.pi * (1 + 5**0.5) * k
    flat = np.sqrt(1 - height**2)
    dots = [
        ball((0.99 * f * np.cos(a), 0.99 * h, 0.99 * f * np.sin(a)), 0.06, PALE)
        for f, a, h in zip(flat, turn, height, strict=True)
    ]
    return [ball((0, 0, 0), 1.0, WHITE), *dots]


def baseball_bat() -> list[Part]:
    profile = [
        (0, -1.5),
        (0.16, -1.5),
        (0.16, -1.42),
        (0.09, -1.38),
        (0.09, -0.7),
        (0.2, 0.3),
        (0.24, 1.2),
        (0.18, 1.45),
        (0, 1.5),
    ]
    return [lathe(profile, WOOD), lathe([(0.095, -1.35), (0.1, -0.75), (0.095, -0.75)], DARK)]


def golf_club() -> list[Part]:
    head = [(-0.05, 0), (0.5, -0.1), (0.55, 0.2), (0.1, 0.35), (-0.05, 0.25)]
    return [
        rod((0, -1.4, 0), (0, 1.5, 0), 0.035, STEEL),
        rod((0, 1.0, 0), (0, 1.55, 0), 0.06, BLACK),
        plate(head, 0.14, STEEL, (0, -1.6, 0)),
    ]


def hockey_stick() -> list[Part]:
    return [
        *tube([(0, 1.5, 0), (0, -1.2, 0)], 0.06, WOOD),
        *tube([(0, -1.2, 0), (0.12, -1.42, 0), (0.7, -1.5, 0)], 0.08, WOOD),
        rod((0, 1.0, 0), (0, 1.52, 0), 0.075, BLACK),
    ]


def bowling_pin() -> list[Part]:
    profile = [
        (0, -1),
        (0.25, -1),
        (0.34, -0.75),
        (0.42, -0.4),
        (0.38, -0.1),
        (0.2, 0.3),
        (0.16, 0.5),
        (0.2, 0.7),
        (0.2, 0.85),
        (0.12, 0.97),
        (0, 1),
    ]
    return [lathe(profile, WHITE), ring((0, 0.36, 0), 0.18, 0.04, RED), ring((0, 0.5, 0), 0.155, 0.04, RED)]


def frisbee() -> list[Part]:
    return [
        lathe(
            [(0, 0.1), (0.8, 0.1), (0.97, 0.02), (1.0, -0.12), (0.94, -0.12), (0.9, 0.0), (0.78, 0.05), (0, 0.05)],
            ORANGE,
        )
    ]


def yo_yo() -> list[Part]:
    halves = [
        lathe(
            [(0, 0), (0.25, 0), (0.7, 0.12), (0.7, 0.25), (0.4, 0.34), (0, 0.34)], RED, (0, 0, s * 0.06), ("x", 90 * s)
        )
        for s in (1, -1)
    ]
    return [*halves, rod((0, 0, -0.08), (0, 0, 0.08), 0.2, WOOD), *tube([(0.2, 0, 0), (0.2, 1.2, 0)], 0.025, WHITE)]


def domino() -> list[Part]:
    pips = [
        ball((x, y, 0.14), (0.07, 0.07, 0.02), BLACK)
        for x, y in (
            (-0.22, 0.72),
            (0.22, 0.28),
            (0, 0.5),
            (-0.22, -0.28),
            (0.22, -0.28),
            (-0.22, -0.72),
            (0.22, -0.72),
        )
    ]
    return [box((0, 0, 0), (0.95, 1.9, 0.28), CREAM), box((0, 0, 0.14), (0.8, 0.04, 0.02), BLACK), *pips]


def spinning_top() -> list[Part]:
    return [
        lathe([(0, -0.9), (0.06, -0.8), (0.3, -0.4), (0.8, 0.1), (0.8, 0.2), (0.3, 0.4), (0.1, 0.45), (0, 0.45)], RED),
        rod((0, 0.4, 0), (0, 0.9, 0), 0.08, WOOD),
        lathe([(0.81, 0.08), (0.83, 0.15), (0.81, 0.22)], YELLOW),
    ]


def sled() -> list[Part]:
    runner = tube([(0.3, -0.35, -1.0), (0.3, -0.35, 0.8), (0.3, -0.2, 1.1), (0.3, 0.1, 1.2)], 0.05, RED)
    posts = [rod((0.3, -0.35, z), (0.3, 0.0, z), 0.04, WOOD) for z in (-0.7, 0, 0.7)]
    slats = [box((x, 0.03, -0.05), (0.13, 0.05, 1.9), WOOD) for x in (-0.32, -0.16, 0, 0.16, 0.32)]
    return [*mirrored([*runner, *posts]), *slats, rod((-0.3, 0.1, 1.2), (0.3, 0.1, 1.2), 0.05, RED)]


def surfboard() -> list[Part]:
    outline = _board(1.6, 0.36, WHITE)
    fins = [
        plate([(0, 0), (0.16, 0), (0.04, 0.25)], 0.03, DARK, (x, -1.2, -0.05), ("y", 90), ("x", -90))
        for x in (-0.15, 0.15)
    ]
    return [plate(outline, 0.1, WHITE), plate([(0.4 * x, y * 0.96) for x, y in outline], 0.12, BLUE), *fins]


def snowboard() -> list[Part]:
    bindings = [
        part
        for y in (-0.45, 0.45)
        for part in (box((0, y, 0.1), (0.34, 0.22, 0.1), BLACK), box((0, y - 0.1, 0.22), (0.3, 0.06, 0.22), BLACK))
    ]
    return [plate(_board(1.5, 0.27, PURPLE), 0.06, PURPLE), *bindings]


def oar() -> list[Part]:
    blade = [(0.1, 0), (0.22, -0.3), (0.22, -0.8), (0, -0.9), (-0.22, -0.8), (-0.22, -0.3), (-0.1, 0)]
    return [
        rod((0, -0.7, 0), (0, 1.6, 0), 0.05, WOOD),
        plate(blade, 0.05, RED, (0, -0.7, 0)),
        rod((0, 1.4, 0), (0, 1.65, 0), 0.07, DARK),
    ]


def life_buoy() -> list[Part]:
    wraps = [
        ball((0.75 * np.cos(a), 0.75 * np.sin(a), 0), (0.3, 0.27, 0.27), RED) for a in np.deg2rad((45, 135, 225, 315))
    ]
    rope = [ring((0, 0, 0), 1.05, 0.025, CREAM, ("x", 90))]
    return [ring((0, 0, 0), 0.75, 0.25, WHITE, ("x", 90)), *wraps, *rope]


def harbour_buoy() -> list[Part]:
    frame = around([rod((0.35, 0.2, 0), (0.1, 1.1, 0), 0.04, RED)], 4)
    return [
        lathe([(0, -0.6), (0.4, -0.55), (0.75, -0.2), (0.75, 0.1), (0.4, 0.25), (0, 0.25)], RED),
        *frame,
        rod((0, 1.1, 0), (0, 1.35, 0), 0.12, YELLOW),
        lathe([(0.755, -0.12), (0.765, 0.02), (0.755, 0.02)], WHITE),
    ]


def watering_can() -> list[Part]:
    body = lathe([(0, -0.6), (0.55, -0.6), (0.5, 0.4), (0.42, 0.4), (0.42, 0.3), (0, 0.3)], GREEN)
    spout = [
        *tube([(0.45, -0.35, 0), (0.95, 0.25, 0), (1.15, 0.45, 0)], [0.14, 0.08, 0.07], GREEN),
        rod((1.1, 0.4, 0), (1.3, 0.6, 0), 0.08, GREEN, 0.2),
    ]
    return [
        body,
        *spout,
        *tube([(-0.45, -0.3, 0), (-0.95, 0.0, 0), (-0.85, 0.5, 0), (-0.3, 0.7, 0), (0.2, 0.45, 0)], 0.06, GREEN),
    ]


def rake() -> list[Part]:
    teeth = [rod((x, -1.2, 0), (x, -1.45, 0.1), 0.03, STEEL) for x in np.linspace(-0.42, 0.42, 9)]
    return [rod((0, -1.15, 0), (0, 1.5, 0), 0.05, WOOD), box((0, -1.2, 0), (0.95, 0.09, 0.07), STEEL), *teeth]


def scythe() -> list[Part]:
    blade = [
        *[(p[0], p[1]) for p in arc((0, 0, 0), 1.1, 20, 100)],
        *[(p[0], p[1]) for p in arc((0.05, -0.12, 0), 1.05, 98, 25)],
    ]
    return [
        *tube([(0, -1.5, 0), (0.1, 0, 0), (0, 1.3, 0)], 0.05, WOOD),
        plate(blade[::1], 0.04, STEEL, (-1.1, 0.85, 0)),
        rod((0.08, 0.1, 0), (0.35, 0.2, 0), 0.04, WOOD),
    ]


def horseshoe() -> list[Part]:
    path = [(p[0], p[1] + (0.25 if p[1] > 0 else 0), 0) for p in arc((0, 0, 0), 0.7, -60, 240, 28)]
    holes = [
        ball((x, y, 0.11), (0.05, 0.05, 0.03), BLACK)
        for x, y in ((0.62, 0.2), (0.68, 0.55), (-0.62, 0.2), (-0.68, 0.55), (0.45, 0.8), (-0.45, 0.8))
    ]
    return [*tube(path, 0.14, GREY), *holes]


def boomerang() -> list[Part]:
    outline = [
        (0, 0.55),
        (-1.1, -0.55),
        (-1.0, -0.75),
        (-0.75, -0.7),
        (0, 0.1),
        (0.75, -0.7),
        (1.0, -0.75),
        (1.1, -0.55),
    ]
    return [plate(outline, 0.1, WOOD), plate([(0, 0.4), (-0.3, 0.12), (0, 0.15), (0.3, 0.12)], 0.12, RED)]


def maracas() -> list[Part]:
    one = [
        ball((0, 0.6, 0), (0.38, 0.48, 0.38), RED),
        rod((0, 0.2, 0), (0, -0.9, 0), 0.08, WOOD),
        ring((0, 0.6, 0), 0.385, 0.03, YELLOW),
    ]
    return [*moved(one, (0.4, 0, 0), 1.0, ("z", -18)), *moved(one, (-0.4, 0, 0), 1.0, ("z", 18))]


def tambourine() -> list[Part]:
    jingles = around([rod((0, 0.95, -0.03), (0, 0.95, 0.03), 0.13, BRASS)], 8, "z")
    hoop = lathe([(0.9, -0.16), (1.0, -0.16), (1.0, 0.16), (0.9, 0.16), (0.9, -0.16)], WOOD, (0, 0, 0), ("x", 90))
    return [hoop, rod((0, 0, 0.13), (0, 0, 0.16), 0.92, CREAM, sides=48), *jingles]


def flute() -> list[Part]:
    keys = [rod((x, 0, 0.08), (x, 0, 0.16), 0.075, PALE) for x in (-0.2, 0.0, 0.2, 0.4, 0.65, 0.85, 1.05)]
    return [
        rod((-1.5, 0, 0), (1.5, 0, 0), 0.09, STEEL),
        *keys,
        ball((-1.15, 0.05, 0.05), (0.14, 0.05, 0.1), PALE),
        ring((-0.6, 0, 0), 0.09, 0.03, PALE, ("z", 90)),
    ]


def gong() -> list[Part]:
    frame = [rod((x, -1.2, 0), (x, 1.2, 0), 0.08, DARKWOOD) for x in (-1.1, 1.1)] + [
        rod((-1.25, 1.2, 0), (1.25, 1.2, 0), 0.09, DARKWOOD)
    ]
    feet = [box((x, -1.2, 0), (0.2, 0.1, 0.8), DARKWOOD) for x in (-1.1, 1.1)]
    return [
        *frame,
        *feet,
        rod((0, 0, -0.04), (0, 0, 0.04), 0.85, BRASS, sides=56),
        ball((0, 0, 0.04), (0.22, 0.22, 0.1), BRASS),
        rod((0.4, 0.7, 0), (0.4, 1.2, 0), 0.02, CREAM),
        rod((-0.4, 0.7, 0), (-0.4, 1.2, 0), 0.02, CREAM),
    ]


def rattle() -> list[Part]:
    return [
        ball((0, 0.6, 0), 0.45, PINK),
        rod((0, 0.15, 0), (0, -0.8, 0), 0.1, WHITE),
        ring((0, -1.0, 0), 0.22, 0.08, BLUE, ("x", 90)),
        ring((0, 0.6, 0), 0.45, 0.05, WHITE),
    ]


SPORT = {
    "dumbbell": dumbbell, "barbell": barbell, "kettlebell": kettlebell, "american_football": american_football,
    "baseball": baseball, "tennis_ball": tennis_ball, "beach_ball": beach_ball, "golf_ball": golf_ball,
    "baseball_bat": baseball_bat, "golf_club": golf_club, "hockey_stick": hockey_stick, "bowling_pin": bowling_pin,
    "frisbee": frisbee, "yo_yo": yo_yo, "domino": domino, "spinning_top": spinning_top, "sled": sled,
    "surfboard": surfboard, "snowboard": snowboard, "oar": oar, "life_buoy": life_buoy, "buoy": harbour_buoy,
    "watering_can": watering_can, "rake": rake, "scythe": scythe, "horseshoe": horseshoe, "boomerang": boomerang,
    "maracas": maracas, "tambourine": tambourine, "flute": flute, "gong": gong, "rattle": rattle,
}  # fmt: skip
