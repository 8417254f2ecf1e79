"""Everyday things that people ask for and no catalogue has, put together from solids."""

from __future__ import annotations

import numpy as np
import trimesh
from solids import (
    BLACK,
    BROWN,
    CREAM,
    DARK,
    GLASS,
    GOLD,
    GREEN,
    GREY,
    LIME,
    PALE,
    PINK,
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


def frying_pan() -> list[Part]:
    pan = lathe([(0, -0.12), (0.75, -0.12), (0.95, 0.14), (0.9, 0.14), (0.7, -0.05), (0, -0.05)], DARK)
    return [
        pan,
        *tube([(0, 0.08, 0.9), (0, 0.16, 1.2)], 0.05, STEEL),
        *tube([(0, 0.16, 1.2), (0, 0.24, 2.1)], 0.09, BLACK),
    ]


def pillow() -> list[Part]:
    """A square with rounded corners, thick in the middle."""
    mesh = trimesh.creation.icosphere(4)
    x, y, z = mesh.vertices.T
    side = np.maximum(np.abs(x), np.abs(z)) / np.maximum(np.hypot(x, z), 1e-9)
    x, z = (np.clip(v / np.maximum(side, 0.7) ** 1.2, -1, 1) for v in (x, z))
    mesh.vertices = np.stack([x, 0.34 * y, 0.72 * z], 1)
    return [(mesh, WHITE)]


def mirror() -> list[Part]:
    """A standing mirror in a golden frame, tilted on its stand."""
    frame = [ball((0, 0, -0.03), (0.66, 0.96, 0.06), GOLD), ball((0, 0, 0.03), (0.56, 0.86, 0.05), GLASS)]
    stand = [rod((x, -1.3, 0), (x, 0.1, 0), 0.05, GOLD) for x in (-0.74, 0.74)]
    feet = [rod((x, -1.3, -0.35), (x, -1.3, 0.35), 0.06, GOLD) for x in (-0.74, 0.74)]
    pins = [rod((-0.76, 0, 0), (0.76, 0, -0.02), 0.03, GOLD), rod((-0.74, -1.1, 0), (0.74, -1.1, 0), 0.04, GOLD)]
    return [*frame, *stand, *feet, *pins, ball((0, 1.0, -0.03), 0.1, GOLD)]


def computer_mouse() -> list[Part]:
    return [
        ball((0, 0, 0), (0.42, 0.3, 0.75), DARK),
        ball((0, -0.12, 0), (0.44, 0.1, 0.77), BLACK),
        box((0, 0.24, 0.36), (0.02, 0.12, 0.6), BLACK),
        rod((-0.05, 0.24, 0.4), (0.05, 0.24, 0.4), 0.1, RED),
    ]


def keyboard() -> list[Part]:
    base = box((0, 0, 0), (3.0, 0.12, 1.1), DARK, ("x", 4))
    keys = [
        box((-1.36 + 0.21 * k, 0.09 - 0.012 * r, -0.4 + 0.2 * r), (0.17, 0.09, 0.16), PALE, ("x", 4))
        for r in range(4)
        for k in range(14)
    ]
    last = [(-1.25, 0.36), (-0.85, 0.36), (0.0, 1.2), (0.85, 0.36), (1.25, 0.36)]
    return [base, *keys, *[box((x, 0.042, 0.4), (w, 0.09, 0.16), PALE, ("x", 4)) for x, w in last]]


def microphone() -> list[Part]:
    """A hand microphone, standing on its end."""
    return [
        lathe([(0, -1.2), (0.14, -1.2), (0.2, 0.3), (0.24, 0.42), (0, 0.42)], BLACK),
        ball((0, 0.72, 0), (0.36, 0.38, 0.36), GREY),
        ring((0, 0.68, 0), 0.36, 0.04, STEEL),
        ring((0, 0.42, 0), 0.24, 0.03, STEEL),
        box((0, -0.2, 0.18), (0.08, 0.2, 0.05), RED),
    ]


def chess_pawn(colour=CREAM) -> list[Part]:
    body = [(0, -1), (0.55, -1), (0.55, -0.86), (0.44, -0.76), (0.46, -0.66), (0.3, -0.5), (0.18, 0.0), (0.16, 0.25)]
    return [
        lathe([*body, (0.34, 0.3), (0.34, 0.36), (0.14, 0.42), (0, 0.42)], colour),
        ball((0, 0.64, 0), 0.3, colour),
    ]


def chess_king(colour=DARK) -> list[Part]:
    profile = [(0, -1), (0.5, -1), (0.5, -0.88), (0.4, -0.78), (0.42, -0.7), (0.24, -0.5), (0.17, 0.2), (0.3, 0.3)]
    crown = [(0.3, 0.36), (0.16, 0.42), (0.28, 0.86), (0.2, 0.94), (0, 0.98)]
    cross = [box((0, 1.14, 0), (0.07, 0.34, 0.07), colour), box((0, 1.17, 0), (0.24, 0.07, 0.07), colour)]
    return [lathe([*profile, *crown], colour), *cross]


def broccoli() -> list[Part]:
    rng = np.random.default_rng(3)
    stem = tube([(0, -0.9, 0), (0, -0.1, 0)], [0.2, 0.26], LIME)
    branches = [
        rod((0, -0.3, 0), (x, 0.25, z), 0.13, LIME) for x, z in ((-0.4, 0), (0.4, 0.1), (0, 0.42), (0.05, -0.4))
    ]
    tops = []
    for _ in range(90):
        direction = rng.normal(size=3)
        direction[1] = abs(direction[1])
        direction /= np.linalg.norm(direction)
        at = direction * (0.78, 0.55, 0.78) + (0, 0.28, 0)
        tops.append(ball(tuple(at), 0.16 + 0.05 * rng.random(), (0.13, 0.38, 0.12)))
    return [*stem, *branches, ball((0, 0.35, 0), (0.74, 0.48, 0.74), GREEN), *tops]


def t_shirt() -> list[Part]:
    outline = [
        (-0.5, -0.9), (0.5, -0.9), (0.52, 0.25), (0.82, 0.02), (1.08, 0.32), (0.5, 0.86), (0.22, 0.92), (0, 0.78),
        (-0.22, 0.92), (-0.5, 0.86), (-1.08, 0.32), (-0.82, 0.02), (-0.52, 0.25),
    ]  # fmt: skip
    return [plate(outline, 0.2, WHITE), ball((0, 0.0, 0), (0.44, 0.8, 0.17), WHITE)]


def mouse() -> list[Part]:
    """The animal, sitting on all fours and facing +Z."""
    fur = GREY
    half = [
        ball((0.24, 0.36, 0.62), (0.2, 0.22, 0.06), fur),
        ball((0.24, 0.36, 0.66), (0.14, 0.16, 0.04), PINK),
        ball((0.15, 0.14, 0.98), 0.05, BLACK),
        *tube([(0.22, -0.3, 0.45), (0.24, -0.5, 0.55)], [0.09, 0.06], fur),
        ball((0.3, -0.3, -0.3), (0.16, 0.24, 0.28), fur),
        ball((0.32, -0.52, -0.12), (0.1, 0.05, 0.2), PINK),
    ]
    tail = tube(
        [(0, -0.35, -0.7), (0.1, -0.45, -1.1), (-0.1, -0.45, -1.5), (0.15, -0.4, -1.9)], [0.06, 0.05, 0.04, 0.02], PINK
    )
    nose = [ball((0, 0.0, 1.14), 0.06, PINK), ball((0, 0.0, 1.0), (0.13, 0.12, 0.16), fur)]
    return [
        ball((0, -0.1, -0.1), (0.42, 0.42, 0.66), fur),
        ball((0, 0.1, 0.74), (0.28, 0.27, 0.34), fur),
        *nose,
        *tail,
        *mirrored(half),
    ]


def squirrel() -> list[Part]:
    """Sitting up with a bushy tail, a nut between its paws."""
    fur, pale = (0.62, 0.32, 0.14), CREAM
    half = [
        ball((0.16, 1.02, 0.2), (0.07, 0.16, 0.06), fur),
        ball((0.17, 0.74, 0.47), 0.045, BLACK),
        *tube([(0.26, 0.25, 0.28), (0.2, 0.08, 0.5), (0.08, 0.18, 0.6)], [0.1, 0.08, 0.06], fur),
        ball((0.3, -0.5, 0.1), (0.2, 0.36, 0.34), fur),
        ball((0.28, -0.8, 0.36), (0.12, 0.08, 0.28), fur),
    ]
    curl = [(0, -0.7, -0.4), (0, -0.3, -0.85), (0, 0.3, -0.9), (0, 0.85, -0.75), (0, 1.1, -0.95), (0, 0.95, -1.2)]
    tail = tube(curl, [0.16, 0.27, 0.33, 0.33, 0.25, 0.12], (0.68, 0.38, 0.17))
    return [
        ball((0, -0.2, 0), (0.38, 0.66, 0.4), fur),
        ball((0, -0.18, 0.14), (0.27, 0.5, 0.32), pale),
        ball((0, 0.68, 0.24), (0.29, 0.27, 0.33), fur),
        ball((0, 0.6, 0.5), (0.14, 0.12, 0.14), pale),
        ball((0, 0.64, 0.64), 0.045, BLACK),
        ball((0, 0.22, 0.64), (0.11, 0.14, 0.11), BROWN),
        *tail,
        *mirrored(half),
    ]


def _wheel(at: tuple[float, float, float], radius: float) -> list[Part]:
    x, y, z = at
    tyre = rod((x - 0.1, y, z), (x + 0.1, y, z), radius, BLACK)
    return [tyre, rod((x - 0.12, y, z), (x + 0.12, y, z), radius / 2, PALE)]


def fire_truck() -> list[Part]:
    body = [
        box((0, 0.1, -0.35), (1.0, 0.8, 2.5), RED),
        box((0, 0.12, 1.2), (1.0, 0.9, 0.7), RED),
        box((0, 0.32, 1.22), (1.02, 0.36, 0.5), GLASS),
        box((0, 0.32, 1.54), (0.86, 0.36, 0.06), GLASS),
        box((0, -0.32, 0.0), (0.96, 0.16, 3.1), DARK),
        box((0, -0.2, 1.58), (1.02, 0.16, 0.1), WHITE),
        box((0, -0.1, -0.35), (1.02, 0.1, 2.4), WHITE),
        box((0, 0.64, 1.2), (0.7, 0.12, 0.2), (0.2, 0.4, 0.95)),
        *[ball((x, -0.12, 1.57), 0.09, YELLOW) for x in (-0.36, 0.36)],
    ]
    wheels = [part for x in (-0.46, 0.46) for z in (-1.1, -0.35, 1.1) for part in _wheel((x, -0.38, z), 0.27)]
    rails = [rod((x, 0.64, -1.75), (x, 0.84, 1.3), 0.05, STEEL) for x in (-0.22, 0.22)]
    climb = [(0.66 + 0.2 * k / 14, -1.6 + 0.2 * k) for k in range(15)]
    rungs = [rod((-0.22, y, z), (0.22, y, z), 0.035, STEEL) for y, z in climb]
    return [*body, *wheels, *rails, *rungs, box((0, 0.56, -1.0), (0.6, 0.16, 0.5), GREY)]


def pickup_truck() -> list[Part]:
    blue = (0.2, 0.35, 0.65)
    parts = [
        box((0, -0.1, 0), (1.1, 0.42, 3.0), blue),
        box((0, 0.12, 1.0), (1.06, 0.16, 0.9), blue),
        box((0, 0.4, 0.15), (1.0, 0.5, 0.85), blue),
        box((0, 0.42, 0.15), (1.04, 0.3, 0.6), GLASS),
        box((0, 0.42, 0.58), (0.86, 0.32, 0.08), GLASS),
        box((0, 0.42, -0.28), (0.86, 0.3, 0.08), GLASS),
        box((0, 0.14, -0.98), (0.92, 0.1, 1.1), DARK),
        *[box((x, 0.2, -0.9), (0.08, 0.24, 1.2), blue) for x in (-0.51, 0.51)],
        box((0, 0.2, -1.46), (1.1, 0.24, 0.08), blue),
        box((0, -0.22, 1.52), (1.14, 0.14, 0.1), STEEL),
        box((0, -0.22, -1.52), (1.14, 0.14, 0.1), STEEL),
        box((0, 0.0, 1.5), (0.6, 0.16, 0.06), BLACK),
        *[ball((x, 0.02, 1.49), 0.1, CREAM) for x in (-0.42, 0.42)],
        *[box((x, 0.05, -1.5), (0.1, 0.18, 0.04), RED) for x in (-0.45, 0.45)],
    ]
    wheels = [part for x in (-0.5, 0.5) for z in (-0.95, 0.95) for part in _wheel((x, -0.32, z), 0.3)]
    return [*parts, *wheels]


def vacuum_cleaner() -> list[Part]:
    body = [
        ball((0, -0.45, -0.5), (0.46, 0.36, 0.68), RED),
        ball((0, -0.3, -0.25), (0.3, 0.26, 0.36), DARK),
        *[rod((x - 0.06, -0.6, -0.75), (x + 0.06, -0.6, -0.75), 0.26, BLACK) for x in (-0.46, 0.46)],
        ball((0, -0.78, -0.05), 0.09, BLACK),
    ]
    hose = tube([(0, -0.3, 0.1), (0, 0.1, 0.25), (0.1, 0.55, 0.1), (0.3, 0.8, 0.2), (0.42, 0.62, 0.5)], 0.08, DARK)
    pipe = tube([(0.42, 0.62, 0.5), (0.4, -0.72, 1.3)], 0.06, STEEL)
    head = [box((0.4, -0.8, 1.4), (0.8, 0.12, 0.28), BLACK), *tube([(0.42, 0.62, 0.5), (0.43, 0.78, 0.3)], 0.07, BLACK)]
    return [*body, *hose, *pipe, *head]


def rocking_chair() -> list[Part]:
    side = [
        *tube([(0.5, -0.86 + 0.18 * (z / 1.0) ** 2, z) for z in np.linspace(-1.0, 1.0, 9)], 0.06, WOOD),
        rod((0.5, -0.84, 0.42), (0.5, 0.36, 0.46), 0.05, WOOD),
        rod((0.5, -0.84, -0.42), (0.46, 1.15, -0.72), 0.05, WOOD),
        rod((0.52, 0.36, 0.52), (0.5, 0.34, -0.56), 0.06, WOOD),
    ]
    seat = box((0, -0.12, 0), (1.0, 0.08, 1.0), WOOD, ("x", 4))
    slats = [rod((x, -0.1, -0.5), (x, 1.05, -0.7), 0.035, WOOD) for x in (-0.3, -0.15, 0.0, 0.15, 0.3)]
    bars = [rod((-0.5, -0.5, z), (0.5, -0.5, z), 0.035, WOOD) for z in (-0.44, 0.44)]
    bars += [box((0, 1.08, -0.71), (1.0, 0.18, 0.07), WOOD)]
    return [seat, *slats, *bars, *mirrored(side)]


EVERYDAY = {
    "frying_pan": frying_pan,
    "pillow": pillow,
    "standing_mirror": mirror,
    "computer_mouse": computer_mouse,
    "computer_keyboard": keyboard,
    "microphone": microphone,
    "chess_pawn": chess_pawn,
    "chess_king": chess_king,
    "broccoli": broccoli,
    "t_shirt": t_shirt,
    "mouse": mouse,
    "squirrel": squirrel,
    "fire_truck": fire_truck,
    "pickup_truck": pickup_truck,
    "vacuum_cleaner": vacuum_cleaner,
    "rocking_chair": rocking_chair,
}
