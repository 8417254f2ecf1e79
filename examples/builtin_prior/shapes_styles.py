"""Further styles of what has many forms: cups, bottles, lamps, trees, houses, rockets, put together from solids."""

from __future__ import annotations

from collections.abc import Sequence

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
    NAVY,
    ORANGE,
    PINK,
    RED,
    STEEL,
    STONE,
    TAN,
    WHITE,
    WOOD,
    YELLOW,
    Colour,
    Part,
    Point,
    arc,
    around,
    ball,
    box,
    lathe,
    mirrored,
    plate,
    ring,
    rod,
    tube,
)

CLAY, SAGE, TEAL = (0.72, 0.38, 0.24), (0.55, 0.66, 0.5), (0.1, 0.5, 0.52)
DARKGLASS, AMBER = (0.12, 0.32, 0.18), (0.5, 0.25, 0.08)
WALL = 0.09
"""Of vessels and lampshades: several voxels, for what is inside shows through a thinner wall."""


def _smooth(points: Sequence[Point]) -> list[Point]:
    """A line with each corner cut twice (Chaikin 1974), its ends where they were."""
    line = np.array(points, float)
    for _ in range(2):
        cut = np.stack([0.75 * line[:-1] + 0.25 * line[1:], 0.25 * line[:-1] + 0.75 * line[1:]], 1)
        line = np.concatenate([line[:1], cut.reshape(-1, line.shape[1]), line[-1:]])
    return line.tolist()


def _radius(profile: Sequence[Point], height: float) -> float:
    """How wide a profile is at this height, above its foot."""
    radii, heights = np.array([point for point in profile if point[0] > 0]).T
    return float(np.interp(height, heights, radii))


def _hollow(outside: Sequence[Point], wall: float, colour: Colour) -> Part:
    """A vessel of this outside, from the middle of its foot to its rim."""
    inside = [(max(r - wall, 0.02), y) for r, y in outside if r > 0 and y > outside[0][1] + wall][::-1]
    return lathe([*outside, *inside, (0, outside[0][1] + wall)], colour)


def mug(profile: Sequence[Point], colour: Colour, trim: Colour) -> list[Part]:
    """With coffee in it; its handle to the right, both ends on the wall."""
    outside = _smooth(profile)
    rim, top = outside[-1]
    angles = np.linspace(0, np.pi, 12)
    handle = [(_radius(outside, 0.36 * np.cos(a)) - 0.04 + 0.38 * np.sin(a), 0.36 * np.cos(a), 0) for a in angles]
    full = _radius(outside, top - 0.2) - 0.05
    coffee = lathe([(0, top - 0.24), (full, top - 0.2), (0, top - 0.17)], (0.25, 0.14, 0.07))
    return [_hollow(outside, WALL, colour), *tube(handle, 0.075, colour), coffee,
            ring((0, top, 0), rim - 0.035, 0.04, trim)]  # fmt: skip


def bottle(profile: Sequence[Point], colour: Colour, cap: Colour, label: Colour | None = None) -> list[Part]:
    """With a cap on its neck and, if asked for, a label around its belly."""
    outside = _smooth(profile)
    neck, top = outside[-1]
    belly = max(r for r, _ in outside)
    parts = [lathe([*outside, (0, top)], colour), lathe([(0, top - 0.02), (neck + 0.03, top - 0.02),
             (neck + 0.03, top + 0.16), (0, top + 0.16)], cap)]  # fmt: skip
    if label:
        parts.append(lathe([(0, -0.55), (belly + 0.012, -0.55), (belly + 0.012, 0.05), (0, 0.05)], label))
    return parts


def vase(profile: Sequence[Point], colour: Colour, band: Colour, heights: Sequence[float]) -> list[Part]:
    """With raised bands at these heights."""
    outside = _smooth(profile)
    bands = [ring((0, y, 0), _radius(outside, y) - 0.01, 0.045, band) for y in heights]
    return [_hollow(outside, WALL, colour), *bands]


def stool(colour: Colour, seat: Colour, legs: int, round_seat: bool = True, height: float = 1.0) -> list[Part]:
    """Splayed legs, rungs, a seat."""
    top = height - 0.6
    feet = [np.array([np.cos(a), 0, np.sin(a)]) for a in np.arange(legs) * 2 * np.pi / legs + np.pi / legs]
    parts = [rod(0.62 * f + [0, -0.9, 0], 0.4 * f + [0, top, 0], 0.055, colour, 0.07) for f in feet]
    rungs = [rod(0.55 * a + [0, -0.45, 0], 0.55 * b + [0, -0.45, 0], 0.035, colour)
             for a, b in zip(feet, feet[1:] + feet[:1], strict=True)]  # fmt: skip
    flat = lathe([(0, top), (0.58, top), (0.63, top + 0.07), (0.58, top + 0.14), (0, top + 0.14)], seat)
    square = box((0, top + 0.07, 0), (1.1, 0.14, 1.1), seat)
    return [*parts, *rungs, flat if round_seat else square]


def _shade(low: float, high: float, bottom: float, top: float, colour: Colour) -> Part:
    outer = [(low, bottom), (high, top)]
    return lathe([*outer, (high - WALL, top), (low - WALL, bottom), (low, bottom)], colour)


def desk_lamp(colour: Colour) -> list[Part]:
    """A jointed arm that holds a cone of a shade out to the front; its mouth is filled: few cameras see into it."""
    arm = tube([(0, -0.85, -0.3), (0, -0.05, -0.62), (0, 0.62, 0.12)], 0.045, STEEL)
    joints = [ball(p, 0.09, DARK) for p in ((0, -0.85, -0.3), (0, -0.05, -0.62), (0, 0.62, 0.12))]
    tilt = ((0, 0.52, 0.38), ("x", -40))
    cone = lathe([(0, -0.35), (0.46, -0.35), (0.2, 0.2), (0.13, 0.25), (0, 0.25)], colour, *tilt)
    light = lathe([(0, -0.42), (0.2, -0.4), (0.38, -0.35), (0, -0.3)], (1.0, 0.95, 0.7), *tilt)
    foot = lathe([(0, -1), (0.48, -1), (0.44, -0.9), (0.1, -0.85), (0, -0.85)], colour, (0, 0, -0.3))
    return [*arm, *joints, cone, light, foot]


def tripod_lamp(shade: Colour, wood: Colour) -> list[Part]:
    legs = around([rod((0, 0.3, 0.05), (0, -1.2, 0.6), 0.05, wood)], 3)
    bulb = ball((0, 0.6, 0), 0.16, (1.0, 0.95, 0.75))
    return [*legs, ball((0, 0.28, 0), 0.12, BRASS), rod((0, 0.25, 0), (0, 0.6, 0), 0.04, BRASS), bulb,
            _shade(0.55, 0.42, 0.4, 1.05, shade)]  # fmt: skip


def bedside_lamp(profile: Sequence[Point], body: Colour, shade: Colour) -> list[Part]:
    outside = _smooth(profile)
    top = outside[-1][1]
    bulb = ball((0, top + 0.3, 0), 0.15, (1.0, 0.95, 0.75))
    return [lathe([*outside, (0, top)], body), rod((0, top, 0), (0, top + 0.3, 0), 0.04, BRASS), bulb,
            _shade(0.62, 0.36, top + 0.12, top + 0.8, shade)]  # fmt: skip


def globe_lamp() -> list[Part]:
    foot = lathe([(0, -0.8), (0.4, -0.8), (0.4, -0.7), (0.12, -0.62), (0.08, -0.2), (0, -0.2)], BRASS)
    return [foot, ring((0, -0.2, 0), 0.14, 0.05, BRASS), ball((0, 0.35, 0), 0.58, (1.0, 0.96, 0.85))]


def leafy_tree(leaf: Colour, bark: Colour, crowns: Sequence[tuple[Point, float]], height: float) -> list[Part]:
    """A trunk that forks to each ball of leaves."""
    trunk = [rod((0, -1.2, 0), (0, height, 0), 0.16, bark, 0.1), lathe([(0, -1.2), (0.28, -1.2), (0.15, -1.0)], bark)]
    branches = [rod((0, height - 0.25, 0), at, 0.08, bark, 0.03) for at, _ in crowns]
    leaves, random = [], np.random.default_rng(1)
    for at, size in crowns:
        leaves.append(ball(at, size, leaf))
        for _ in range(9):
            way = random.normal(size=3)
            shade = float(random.uniform(0.8, 1.15))
            colour = (leaf[0] * shade, min(leaf[1] * shade, 1.0), leaf[2] * shade)
            leaves.append(ball(np.array(at) + 0.75 * size * way / np.linalg.norm(way), 0.45 * size, colour))
    return [*trunk, *branches, *leaves]


def pillar_tree() -> list[Part]:
    crown = [(0, -0.75), (0.25, -0.65), (0.42, -0.2), (0.4, 0.3), (0.24, 0.95), (0, 1.35)]
    tufts = [ball((0.33 * np.cos(2.4 * k), -0.5 + 0.08 * k, 0.33 * np.sin(2.4 * k)), (0.16, 0.24, 0.16),
                  (0.22, 0.46 + 0.05 * (k % 3), 0.16)) for k in range(14)]  # fmt: skip
    return [rod((0, -1.3, 0), (0, -0.5, 0), 0.12, BROWN, 0.09), lathe(crown, LEAF), *tufts]


def _pitched(width: float, depth: float, eaves: float, ridge: float, colour: Colour) -> list[Part]:
    """A roof whose gables look to the front and to the back, and the gables' inside."""
    half, over = width / 2, 0.12
    rise = (ridge - eaves) / half
    low = eaves - over * rise
    outline = [(-half - over, low), (0, ridge), (half + over, low), (half + over, low + 0.1), (0, ridge + 0.11),
               (-half - over, low + 0.1)]  # fmt: skip
    return [plate(outline, depth + 2 * over, colour)]


def _window(x: float, y: float, z: float, frame: Colour = WHITE, size: float = 0.26) -> list[Part]:
    """On a wall at z, which is the front, or the back where z is negative."""
    out = float(np.sign(z))
    return [box((x, y, z), (size + 0.08, size + 0.1, 0.05), frame),
            box((x, y, z + 0.02 * out), (size, size + 0.02, 0.05), (0.35, 0.5, 0.65)),
            box((x, y, z + 0.03 * out), (0.025, size, 0.05), frame),
            box((x, y, z + 0.03 * out), (size, 0.025, 0.05), frame)]  # fmt: skip


def _side_window(x: float, y: float, z: float, frame: Colour = WHITE) -> list[Part]:
    return [box((x, y, z), (0.05, 0.36, 0.34), frame), box((x * 1.015, y, z), (0.05, 0.28, 0.26), (0.35, 0.5, 0.65))]


def cottage(wall: Colour, roof: Colour, door: Colour, storeys: int = 1) -> list[Part]:
    """Gable to the front, a door between windows, a chimney."""
    top = -0.75 + 0.62 * storeys
    gable = plate([(-0.8, top), (0.8, top), (0, top + 0.68)], 1.5, wall)
    parts = [box((0, (top - 0.75) / 2, 0), (1.6, top + 0.75, 1.5), wall), gable,
             *_pitched(1.6, 1.5, top, top + 0.68, roof), box((0, -0.78, 0), (1.75, 0.08, 1.65), STONE)]  # fmt: skip
    parts += [box((0.45, top + 0.55, -0.25), (0.22, 0.6, 0.22), (0.6, 0.3, 0.22)),
              box((0.45, top + 0.86, -0.25), (0.28, 0.07, 0.28), STONE)]  # fmt: skip
    parts += [box((0, -0.5, 0.76), (0.34, 0.52, 0.05), door), ball((0.11, -0.5, 0.8), 0.03, BRASS),
              box((0, -0.72, 0.88), (0.5, 0.07, 0.22), STONE)]  # fmt: skip
    for storey in range(storeys):
        y = -0.42 + 0.62 * storey
        for x in (-0.5, 0.5) if storey == 0 else (-0.5, 0.0, 0.5):
            parts += _window(x, y, 0.755) + _window(x, y, -0.755)
        for z in (-0.4, 0.4):
            parts += _side_window(0.805, y, z) + _side_window(-0.805, y, z)
    return [*parts, *_window(0, top + 0.2, 0.755, size=0.2)]


def flat_roofed_house() -> list[Part]:
    """Two white boxes, one jutting out over the other, wide panes to the front."""
    pane = (0.3, 0.42, 0.52)
    return [box((0.1, -0.45, 0), (1.7, 0.7, 1.2), (0.55, 0.5, 0.45)), box((-0.15, 0.2, 0.12), (1.9, 0.62, 1.35), WHITE),
            box((-0.15, 0.53, 0.12), (2.0, 0.06, 1.45), DARK), box((-0.35, 0.2, 0.79), (1.2, 0.42, 0.04), pane),
            *[box((x, 0.2, 0.81), (0.03, 0.42, 0.04), DARK) for x in (-0.95, -0.55, -0.15, 0.25)],
            box((0.35, -0.48, 0.6), (0.34, 0.62, 0.06), WOOD), box((-0.32, -0.45, 0.6), (0.6, 0.44, 0.06), pane),
            box((0, -0.83, 0.05), (2.3, 0.07, 1.8), (0.7, 0.7, 0.68)),
            rod((-0.98, -0.8, 0.7), (-0.98, -0.1, 0.7), 0.04, DARK),
            box((0.81, 0.2, 0.1), (0.04, 0.4, 0.7), pane), box((0.96, -0.45, 0), (0.03, 0.4, 0.6), pane),
            *[box((x, 0.2, -0.56), (0.5, 0.36, 0.04), pane) for x in (-0.65, 0.35)]]  # fmt: skip


def log_cabin() -> list[Part]:
    logs = []
    for k in range(6):
        y = -0.7 + 0.16 * k
        logs += [rod((-1.0, y, z), (1.0, y, z), 0.085, WOOD) for z in (-0.65, 0.65)]
        logs += [rod((x, y + 0.08, -0.85), (x, y + 0.08, 0.85), 0.085, (0.55, 0.36, 0.18)) for x in (-0.82, 0.82)]
    inner = box((0, -0.3, 0), (1.62, 0.96, 1.28), DARKWOOD)
    gable = plate([(-0.85, 0.17), (0.85, 0.17), (0, 0.8)], 1.3, WOOD)
    door = [box((0, -0.45, 0.74), (0.36, 0.62, 0.06), DARKWOOD), ball((0.12, -0.45, 0.79), 0.03, BRASS)]
    windows = [part for x in (-0.5, 0.5) for z in (0.74, -0.74) for part in _window(x, -0.3, z, TAN)]
    chimney = box((0.5, 0.7, -0.3), (0.26, 0.7, 0.26), STONE)
    return [*logs, inner, gable, *_pitched(1.75, 1.5, 0.17, 0.84, (0.3, 0.34, 0.26)), *door, *windows, chimney]


def rocket(body: Colour, nose: Colour, fins: int, boosters: bool = False) -> list[Part]:
    """Fins about its foot, a porthole to the front."""
    hull = lathe([(0, -0.9), (0.26, -0.9), (0.36, -0.4), (0.38, 0.1), (0.31, 0.6), (0, 0.6)], body)
    tip = lathe([(0, 0.58), (0.315, 0.58), (0.2, 0.95), (0.08, 1.2), (0, 1.3)], nose)
    fin = plate([(0.26, -0.85), (0.72, -1.15), (0.72, -0.75), (0.36, -0.25)], 0.07, nose)
    pane = [ball((0, 0.25, 0.34), (0.15, 0.15, 0.06), GLASS), ring((0, 0.25, 0.35), 0.15, 0.04, STEEL, ("x", 90))]
    nozzle = lathe([(0, -0.88), (0.16, -0.88), (0.26, -1.1), (0, -1.1)], DARK)
    parts = [hull, tip, *around([fin], fins, first=45.0), *pane, nozzle]
    for x in (-0.52, 0.52) if boosters else ():
        parts += [rod((x, -0.95, 0), (x, 0.15, 0), 0.15, WHITE), lathe([(0.15, 0.15), (0, 0.5)], ORANGE, (x, 0, 0)),
                  rod((x, -1.05, 0), (x, -0.95, 0), 0.13, DARK, 0.08)]  # fmt: skip
    return parts


def crown(points: int, band: Colour, gem: Colour, cushion: Colour | None = None) -> list[Part]:
    """A band with as many points, each with a ball, a gem below it."""
    parts = [lathe([(0.62, -0.35), (0.68, -0.35), (0.7, -0.05), (0.64, -0.05), (0.62, -0.35)], band)]
    parts += [ring((0, y, 0), r, 0.045, band) for y, r in ((-0.35, 0.66), (-0.05, 0.68))]
    point = plate([(-0.22, -0.06), (0.22, -0.06), (0, 0.5)], 0.05, band, (0, 0, 0.68), ("x", 0))
    parts += around([point, ball((0, 0.53, 0.69), 0.075, gem), ball((0, -0.2, 0.69), (0.08, 0.1, 0.05), gem)], points)
    return [*parts, ball((0, -0.1, 0), (0.6, 0.38, 0.6), cushion)] if cushion else parts


def candle(colour: Colour, holder: Colour) -> list[Part]:
    """In a dish with a handle, burning."""
    dish = lathe([(0, -0.9), (0.5, -0.9), (0.66, -0.72), (0.6, -0.72), (0.45, -0.82), (0, -0.82)], holder)
    drip = [rod((0.2 * np.cos(a), 0.42, 0.2 * np.sin(a)), (0.225 * np.cos(a), 0.42 - d, 0.225 * np.sin(a)), 0.045,
                colour)
            for a, d in ((0.3, 0.3), (1.6, 0.45), (2.9, 0.2), (4.4, 0.38))]  # fmt: skip
    flame = lathe([(0, 0.55), (0.1, 0.66), (0.09, 0.78), (0.03, 0.95), (0, 1.0)], (1.0, 0.75, 0.2))
    grip = tube(arc((0.78, -0.76, 0), 0.17, 160, -160, 14), 0.045, holder)
    return [dish, rod((0, -0.85, 0), (0, 0.45, 0), 0.22, colour), *drip, rod((0, 0.4, 0), (0, 0.6, 0), 0.02, BLACK),
            flame, *grip]  # fmt: skip


def cactus(arms: Sequence[tuple[float, float]], pot: Colour | None) -> list[Part]:
    """With arms at (side, height), ribbed, with a flower on top."""
    green, ribs = (0.28, 0.52, 0.24), (0.2, 0.42, 0.18)
    stem = [rod((0, -0.7, 0), (0, 0.7, 0), 0.26, green), ball((0, 0.7, 0), 0.26, green)]
    stem += around([rod((0, -0.7, 0.25), (0, 0.75, 0.25), 0.035, ribs)], 10)
    for side, y in arms:
        stem += tube([(0, y, 0), (0.5 * side, y, 0), (0.58 * side, y + 0.1, 0), (0.58 * side, y + 0.5, 0)], 0.13, green)
    stem.append(lathe([(0, 0.92), (0.1, 0.95), (0.16, 1.08), (0, 1.02)], PINK))
    if pot is None:
        return [*stem, ball((0, -0.75, 0), (0.75, 0.12, 0.75), TAN)]
    return [*stem, lathe([(0, -1.25), (0.34, -1.25), (0.45, -0.72), (0.5, -0.72), (0.5, -0.6), (0, -0.6)], pot)]


def snowman(scarf: Colour, hat: bool) -> list[Part]:
    """Three balls, coal, a carrot, and a hat or ear-muffs."""
    parts = [ball((0, -0.75, 0), 0.6, WHITE), ball((0, 0.08, 0), 0.43, WHITE), ball((0, 0.7, 0), 0.31, WHITE)]
    parts += [rod((0, 0.7, 0.28), (0, 0.66, 0.62), 0.07, ORANGE, 0.01), ring((0, 0.43, 0), 0.27, 0.08, scarf),
              box((0.17, 0.2, 0.4), (0.14, 0.42, 0.06), scarf, ("x", -8))]  # fmt: skip
    parts += [ball((x, 0.8, 0.27), 0.045, BLACK) for x in (-0.11, 0.11)]
    parts += [ball((0, y, z), 0.05, BLACK) for y, z in ((0.25, 0.41), (0.06, 0.44), (-0.12, 0.4))]
    for s in (-1, 1):
        hand = (1.0 * s, 0.5, 0.05)
        parts += tube([(0.38 * s, 0.15, 0), hand], 0.03, BROWN)
        parts += tube([(0.8 * s, 0.37, 0.03), (0.98 * s, 0.28, 0.05)], 0.022, BROWN)
    if hat:
        return [*parts, lathe([(0, 0.93), (0.4, 0.93), (0.4, 0.99), (0.26, 0.99), (0.28, 1.38), (0, 1.38)], BLACK),
                ring((0, 1.03, 0), 0.26, 0.04, scarf)]  # fmt: skip
    muffs = [ball((x, 0.72, 0), (0.09, 0.15, 0.15), scarf) for x in (-0.33, 0.33)]
    return [*parts, *muffs, *tube(arc((0, 0.72, 0), 0.34, 0, 180, 14), 0.03, scarf)]


def robot(body: Colour, eye: Colour, wheels: bool) -> list[Part]:
    """A box of a body with a dial, claws for hands, and feet or wheels."""
    parts = [box((0, -0.1, 0), (0.9, 0.85, 0.6), body), box((0, 0.62, 0), (0.62, 0.48, 0.52), body),
             rod((0, 0.3, 0), (0, 0.42, 0), 0.14, DARK), box((0, -0.05, 0.31), (0.6, 0.45, 0.04), DARK),
             box((0, 0.49, 0.27), (0.34, 0.07, 0.03), DARK), ball((0, 1.15, 0), 0.07, RED),
             rod((0, 0.84, 0), (0, 1.12, 0), 0.025, STEEL)]  # fmt: skip
    parts += [ball((x, 0.02, 0.33), 0.07, c) for x, c in ((-0.18, RED), (0.0, YELLOW), (0.18, GREEN))]
    side = [ball((0.15, 0.69, 0.26), 0.1, eye), ball((0.15, 0.69, 0.34), 0.045, BLACK),
            ball((0.5, 0.18, 0), 0.14, DARK),
            *tube([(0.5, 0.18, 0), (0.7, -0.15, 0.05), (0.68, -0.4, 0.25)], 0.07, STEEL),
            *tube([(0.68, -0.4, 0.25), (0.76, -0.5, 0.38), (0.7, -0.52, 0.5)], 0.04, DARK),
            *tube([(0.68, -0.4, 0.25), (0.6, -0.5, 0.38), (0.66, -0.52, 0.5)], 0.04, DARK)]  # fmt: skip
    if wheels:
        side += [rod((0.36, -0.78, z), (0.56, -0.78, z), 0.24, BLACK) for z in (-0.24, 0.24)]
        side += [rod((0.35, -0.78, z), (0.58, -0.78, z), 0.11, STEEL) for z in (-0.24, 0.24)]
        parts.append(box((0, -0.66, 0), (0.66, 0.3, 0.5), DARK))
    else:
        side += [
            rod((0.24, -0.5, 0), (0.24, -0.92, 0), 0.11, STEEL),
            box((0.24, -0.97, 0.07), (0.34, 0.14, 0.56), body),
        ]
    return [*parts, *mirrored(side)]


_ROUND_BELLY = [(0, -0.8), (0.35, -0.8), (0.7, -0.35), (0.72, 0.0), (0.5, 0.4), (0.24, 0.62), (0.22, 0.78), (0.34, 0.9)]
_TALL = [(0, -1.0), (0.3, -1.0), (0.42, -0.2), (0.46, 0.4), (0.38, 0.75), (0.42, 0.9)]
_AMPHORA = [(0, -0.95), (0.26, -0.95), (0.2, -0.85), (0.5, -0.3), (0.58, 0.15), (0.42, 0.5), (0.2, 0.62), (0.2, 0.85),
            (0.3, 0.92)]  # fmt: skip
_WINE = [(0, -1.1), (0.34, -1.1), (0.36, -1.05), (0.36, 0.15), (0.3, 0.36), (0.13, 0.55), (0.12, 1.0)]
_FLASK = [(0, -0.7), (0.45, -0.7), (0.62, -0.5), (0.66, -0.2), (0.5, 0.12), (0.2, 0.3), (0.18, 0.7)]
_JUG = [(0, -0.8), (0.5, -0.8), (0.55, -0.7), (0.55, 0.25), (0.48, 0.42), (0.2, 0.52), (0.18, 0.68)]
_SODA = [(0, -1.0), (0.3, -1.0), (0.34, -0.9), (0.3, -0.55), (0.33, -0.3), (0.33, 0.05), (0.27, 0.4), (0.13, 0.7),
         (0.12, 0.95)]  # fmt: skip
_SPORT = [(0, -1.0), (0.34, -1.0), (0.36, -0.95), (0.36, 0.0), (0.31, 0.08), (0.31, 0.2), (0.36, 0.28), (0.36, 0.6),
          (0.2, 0.8), (0.19, 0.9)]  # fmt: skip
_STRAIGHT = [(0, -0.6), (0.5, -0.6), (0.55, -0.55), (0.55, 0.6)]
_BARREL = [(0, -0.6), (0.42, -0.6), (0.56, -0.3), (0.58, 0.1), (0.5, 0.55)]
_FLARED = [(0, -0.5), (0.32, -0.5), (0.36, -0.46), (0.5, 0.05), (0.64, 0.5)]
_GOURD = [(0, -0.9), (0.4, -0.9), (0.5, -0.7), (0.42, -0.3), (0.2, 0.0), (0.12, 0.1)]
_URN = [(0, -0.9), (0.36, -0.9), (0.36, -0.82), (0.12, -0.75), (0.34, -0.35), (0.36, -0.1), (0.12, 0.1)]

STYLES = {
    "red_mug": lambda: mug(_STRAIGHT, RED, RED),
    "striped_mug": lambda: [
        *mug(_STRAIGHT, CREAM, BLUE),
        *[ring((0, y, 0), 0.53, 0.05, BLUE) for y in (-0.35, -0.1, 0.15)],
    ],
    "stoneware_mug": lambda: mug(_BARREL, SAGE, BROWN),
    "flared_cup": lambda: mug(_FLARED, TEAL, WHITE),
    "gilded_cup": lambda: mug(_FLARED, WHITE, GOLD),
    "espresso_cup": lambda: [
        *mug(_BARREL, ORANGE, WHITE),
        lathe([(0, -0.68), (0.5, -0.68), (0.95, -0.5), (0.4, -0.6), (0, -0.6)], ORANGE),
    ],
    "wine_bottle_green": lambda: bottle(_WINE, DARKGLASS, RED, CREAM),
    "flask_bottle": lambda: bottle(_FLASK, (0.3, 0.55, 0.75), WOOD),
    "jug_bottle": lambda: bottle(_JUG, AMBER, DARK, CREAM),
    "soda_bottle": lambda: bottle(_SODA, (0.45, 0.7, 0.55), RED),
    "blue_water_bottle": lambda: bottle(_SPORT, BLUE, WHITE),
    "round_vase": lambda: vase(_ROUND_BELLY, CLAY, CREAM, [0.1, -0.35]),
    "tall_vase": lambda: vase(_TALL, TEAL, GOLD, [0.87, -0.93]),
    "amphora_vase": lambda: [
        *vase(_AMPHORA, (0.78, 0.45, 0.25), BLACK, [0.25, -0.28]),
        *mirrored(tube(_smooth([(0.42, 0.4, 0), (0.72, 0.5, 0), (0.6, 0.95, 0), (0.2, 0.8, 0)]), 0.05, BLACK)),
    ],
    "white_blue_vase": lambda: vase(_ROUND_BELLY, WHITE, NAVY, [0.35, -0.1, -0.5]),
    "three_legged_stool": lambda: stool(WOOD, WOOD, 3),
    "bar_stool": lambda: stool(DARK, RED, 4, height=1.6),
    "square_stool": lambda: stool(DARKWOOD, CREAM, 4, False),
    "desk_lamp_red": lambda: desk_lamp(RED),
    "tripod_lamp": lambda: tripod_lamp(CREAM, WOOD),
    "gourd_lamp": lambda: bedside_lamp(_GOURD, TEAL, CREAM),
    "urn_lamp": lambda: bedside_lamp(_URN, BRASS, (0.75, 0.2, 0.18)),
    "globe_lamp": globe_lamp,
    "round_tree": lambda: leafy_tree(
        LEAF, BROWN, [((0, 0.45, 0), 0.62), ((0.4, 0.2, 0.2), 0.4), ((-0.4, 0.25, -0.1), 0.42)], 0.2
    ),
    "autumn_tree": lambda: leafy_tree(
        (0.85, 0.42, 0.1),
        BROWN,
        [((0.35, 0.3, 0), 0.45), ((-0.35, 0.4, 0.15), 0.45), ((0, 0.75, -0.1), 0.45), ((0, 0.3, -0.4), 0.35)],
        0.1,
    ),
    "blossom_tree": lambda: leafy_tree(
        (0.95, 0.68, 0.76),
        DARKWOOD,
        [((0.55, 0.35, 0.1), 0.38), ((-0.55, 0.3, 0), 0.38), ((0, 0.7, 0), 0.42), ((0.1, 0.4, 0.45), 0.35)],
        0.0,
    ),
    "pillar_tree": pillar_tree,
    "red_roof_cottage": lambda: cottage(CREAM, (0.7, 0.22, 0.15), (0.2, 0.4, 0.25)),
    "brick_house": lambda: cottage((0.66, 0.32, 0.25), (0.28, 0.28, 0.32), WHITE, 2),
    "blue_town_house": lambda: cottage((0.55, 0.7, 0.82), (0.35, 0.25, 0.22), RED, 2),
    "flat_roofed_house": flat_roofed_house,
    "log_cabin_house": log_cabin,
    "red_rocket": lambda: rocket(WHITE, RED, 4),
    "toy_rocket": lambda: rocket((0.85, 0.2, 0.15), YELLOW, 3),
    "booster_rocket": lambda: rocket(ORANGE, GREY, 4, True),
    "red_gem_crown": lambda: crown(8, GOLD, RED, (0.5, 0.08, 0.15)),
    "silver_crown": lambda: crown(5, STEEL, BLUE),
    "red_candle": lambda: candle((0.75, 0.1, 0.1), BRASS),
    "saguaro": lambda: cactus([(1, -0.2), (-1, 0.05)], None),
    "potted_cactus": lambda: cactus([(1, 0.0)], CLAY),
    "muff_snowman": lambda: snowman(BLUE, False),
    "top_hat_snowman": lambda: snowman(RED, True),
    "wheeled_robot": lambda: robot(YELLOW, WHITE, True),
    "tin_robot": lambda: robot((0.4, 0.62, 0.7), ORANGE, False),
}
"""Each as a further style of a noun of the manifest."""
