"""Things of workshop, desk and street that no catalogue has, put together from solids."""

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
    GREEN,
    GREY,
    ORANGE,
    PALE,
    PINK,
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
    plate,
    ring,
    rod,
    tube,
)


def _hexagon(radius: float) -> list[tuple[float, float]]:
    return [(radius * np.cos(a), radius * np.sin(a)) for a in np.linspace(0, 2 * np.pi, 7)[:-1]]


def bucket() -> list[Part]:
    body = lathe([(0, -0.6), (0.5, -0.6), (0.68, 0.6), (0.62, 0.6), (0.45, -0.52), (0, -0.52)], STEEL)
    return [body, ring((0, 0.6, 0), 0.66, 0.04, STEEL), *tube(arc((0, 0.6, 0), 0.66, 0, 180), 0.03, DARK)]


def paint_can() -> list[Part]:
    body = lathe([(0, -0.6), (0.55, -0.6), (0.55, 0.55), (0.48, 0.55), (0.48, 0.4), (0, 0.4)], PALE)
    label = lathe([(0.555, -0.35), (0.565, -0.35), (0.565, 0.3), (0.555, 0.3)], BLUE)
    return [
        body,
        label,
        lathe([(0, 0.38), (0.47, 0.38), (0.47, 0.42), (0, 0.42)], BLUE),
        *tube(arc((0, 0.5, 0), 0.57, 10, 170), 0.025, DARK),
    ]


def paint_brush() -> list[Part]:
    return [
        box((0, 0.45, 0), (0.22, 0.9, 0.1), WOOD),
        box((0, -0.05, 0), (0.4, 0.25, 0.14), STEEL),
        box((0, -0.4, 0), (0.38, 0.5, 0.12), CREAM),
        box((0, -0.62, 0), (0.36, 0.16, 0.1), RED),
    ]


def toolbox() -> list[Part]:
    return [
        box((0, 0, 0), (1.5, 0.7, 0.7), RED),
        box((0, 0.4, 0), (1.55, 0.14, 0.75), DARK),
        *tube([(-0.4, 0.45, 0), (-0.4, 0.7, 0), (0.4, 0.7, 0), (0.4, 0.45, 0)], 0.06, BLACK),
        box((-0.4, 0.3, 0.37), (0.14, 0.2, 0.06), STEEL),
        box((0.4, 0.3, 0.37), (0.14, 0.2, 0.06), STEEL),
    ]


def wrench() -> list[Part]:
    jaw = [
        (0.12, 0),
        (0.2, 0.3),
        (0.42, 0.5),
        (0.42, 0.9),
        (0.2, 1.0),
        (0.2, 0.6),
        (-0.2, 0.6),
        (-0.2, 1.0),
        (-0.42, 0.9),
        (-0.42, 0.5),
        (-0.2, 0.3),
        (-0.12, 0),
    ]
    return [
        plate(jaw, 0.2, STEEL),
        box((0, -0.6, 0), (0.26, 1.3, 0.16), STEEL),
        ring((0, -1.3, 0), 0.28, 0.12, STEEL, ("x", 90)),
    ]


def nail() -> list[Part]:
    return [
        rod((0, 0.9, 0), (0, -0.8, 0), 0.1, STEEL),
        rod((0, -0.8, 0), (0, -1.1, 0), 0.1, STEEL, 0.0),
        rod((0, 0.88, 0), (0, 0.98, 0), 0.28, STEEL),
    ]


def screw() -> list[Part]:
    threads = [ring((0, y, 0), 0.17, 0.05, STEEL) for y in np.linspace(-0.75, 0.4, 10)]
    head = lathe([(0.17, 0.6), (0.42, 0.85), (0.42, 0.95), (0, 0.95)], STEEL)
    slot = box((0, 0.95, 0), (0.7, 0.06, 0.1), DARK)
    return [
        rod((0, 0.8, 0), (0, -0.8, 0), 0.16, STEEL),
        rod((0, -0.8, 0), (0, -1.1, 0), 0.16, STEEL, 0.0),
        head,
        slot,
        *threads,
    ]


def bolt() -> list[Part]:
    head = plate(_hexagon(0.45), 0.32, STEEL, (0, 0.8, 0), ("x", 90))
    return [
        head,
        rod((0, 0.8, 0), (0, -0.9, 0), 0.22, STEEL),
        *(ring((0, y, 0), 0.22, 0.04, GREY) for y in np.linspace(-0.8, 0, 9)),
    ]


def hex_nut() -> list[Part]:
    outer = np.array(_hexagon(0.8))
    inner = [(0.4 * np.cos(a), 0.4 * np.sin(a)) for a in np.linspace(0, 2 * np.pi, 7)[:-1]]
    sides = [plate([outer[k], outer[(k + 1) % 6], inner[(k + 1) % 6], inner[k]], 0.5, STEEL) for k in range(6)]
    return [*sides, ring((0, 0, 0), 0.42, 0.08, GREY, ("x", 90))]


def coil_spring() -> list[Part]:
    turns = np.linspace(0, 6 * 2 * np.pi, 120)
    return tube([(0.5 * np.cos(t), -0.9 + 1.8 * t / turns[-1], 0.5 * np.sin(t)) for t in turns], 0.08, STEEL, 8)


def rope_coil() -> list[Part]:
    rings = [
        ring((0, y, 0), r, 0.11, (0.76, 0.62, 0.4))
        for y, r in ((-0.3, 0.75), (-0.3, 0.55), (-0.1, 0.72), (-0.1, 0.52), (0.1, 0.7), (0.1, 0.5))
    ]
    return [*rings, *tube([(0.7, 0.1, 0), (1.0, -0.1, 0.2), (1.2, -0.35, 0.5)], 0.1, (0.76, 0.62, 0.4))]


def brick() -> list[Part]:
    return [box((0, 0, 0), (1.5, 0.5, 0.7), (0.65, 0.27, 0.2))]


def battery() -> list[Part]:
    return [
        lathe([(0, -0.9), (0.35, -0.9), (0.35, 0.35), (0, 0.35)], BLACK),
        lathe([(0.355, 0.3), (0.355, 0.8), (0, 0.8)], BRASS),
        rod((0, 0.8, 0), (0, 0.92, 0), 0.13, STEEL),
    ]


def eraser() -> list[Part]:
    return [box((-0.35, 0, 0), (0.9, 0.3, 0.5), BLUE), box((0.45, 0, 0), (0.7, 0.29, 0.49), PINK)]


def notebook() -> list[Part]:
    rings = [ring((-0.55, y, 0), 0.09, 0.025, DARK, ("x", 90)) for y in np.linspace(-0.7, 0.7, 9)]
    return [
        box((0, 0, 0), (1.1, 1.6, 0.14), WHITE),
        box((0, 0, 0.08), (1.14, 1.64, 0.03), RED),
        box((0, 0, -0.08), (1.14, 1.64, 0.03), RED),
        *rings,
        box((0.05, 0.35, 0.1), (0.6, 0.3, 0.02), WHITE),
    ]


def clipboard() -> list[Part]:
    lines = [box((0, y, 0.06), (0.75, 0.03, 0.01), GREY) for y in (0.35, 0.15, -0.05, -0.25, -0.45)]
    return [
        box((0, 0, 0), (1.1, 1.6, 0.06), WOOD),
        box((0, -0.06, 0.04), (0.95, 1.35, 0.03), WHITE),
        *lines,
        box((0, 0.72, 0.07), (0.5, 0.16, 0.1), STEEL),
        box((0, 0.84, 0.06), (0.24, 0.14, 0.06), STEEL),
    ]


def paper_clip() -> list[Part]:
    path = [
        *arc((0, 0.7, 0), 0.3, 180, 0),
        *arc((0.05, -0.7, 0), 0.25, 0, -180),
        *arc((0, 0.45, 0), 0.2, 180, 0),
        (0.2, -0.4, 0),
    ]
    return tube(path, 0.055, STEEL)


def thumbtack() -> list[Part]:
    head = lathe([(0, 0.75), (0.4, 0.75), (0.4, 0.62), (0.2, 0.5), (0.2, 0.1), (0.45, 0), (0.45, -0.1), (0, -0.1)], RED)
    return [head, rod((0, -0.1, 0), (0, -0.8, 0), 0.05, STEEL, 0.0)]


def usb_stick() -> list[Part]:
    return [
        box((0, -0.2, 0), (0.55, 1.1, 0.22), BLACK),
        box((0, 0.55, 0), (0.42, 0.45, 0.16), STEEL),
        box((0, -0.2, 0.115), (0.4, 0.5, 0.01), BLUE),
    ]


def vinyl_record() -> list[Part]:
    grooves = [ring((0, 0, 0.03), r, 0.008, DARK, ("x", 90)) for r in np.linspace(0.42, 0.95, 8)]
    return [
        rod((0, 0, -0.03), (0, 0, 0.03), 1.0, BLACK, sides=60),
        rod((0, 0, -0.04), (0, 0, 0.04), 0.35, RED, sides=40),
        rod((0, 0, -0.05), (0, 0, 0.05), 0.04, WHITE),
        *grooves,
    ]


def cassette() -> list[Part]:
    wheels = [part for x in (-0.3, 0.3) for part in (ring((x, 0, 0.1), 0.12, 0.04, WHITE, ("x", 90)),)]
    return [
        box((0, 0, 0), (1.6, 1.0, 0.2), DARK),
        box((0, 0.08, 0.1), (1.35, 0.6, 0.02), CREAM),
        *wheels,
        box((0, 0.3, 0.12), (1.2, 0.08, 0.01), RED),
        box((0, -0.42, 0.06), (0.9, 0.16, 0.22), BLACK),
    ]


def compass() -> list[Part]:
    needle = [
        plate([(0.08, 0), (0, 0.55), (-0.08, 0)], 0.04, RED, (0, 0, 0.14)),
        plate([(-0.08, 0), (0, -0.55), (0.08, 0)], 0.04, DARK, (0, 0, 0.14)),
    ]
    return [
        rod((0, 0, -0.1), (0, 0, 0.08), 0.8, BRASS, sides=48),
        rod((0, 0, 0.08), (0, 0, 0.1), 0.7, WHITE, sides=48),
        ring((0, 0, 0.1), 0.75, 0.06, BRASS, ("x", 90)),
        *needle,
        ring((0, 0.95, 0), 0.14, 0.04, BRASS, ("x", 90)),
    ]


def alarm_clock() -> list[Part]:
    bells = mirrored(
        [ball((0.42, 0.75, 0), (0.3, 0.2, 0.22), STEEL, ("z", -35)), rod((0.4, -0.6, 0), (0.6, -0.85, 0), 0.07, STEEL)]
    )
    marks = around([box((0, 0.52, 0.23), (0.05, 0.1, 0.02), BLACK)], 12, "z")
    hands = [
        box((0, 0.18, 0.24), (0.05, 0.4, 0.02), BLACK),
        box((0.13, 0.07, 0.24), (0.3, 0.05, 0.02), BLACK, ("z", 25)),
    ]
    return [
        rod((0, 0, -0.2), (0, 0, 0.2), 0.72, RED, sides=48),
        rod((0, 0, 0.2), (0, 0, 0.22), 0.62, WHITE, sides=48),
        *bells,
        *marks,
        *hands,
        *tube(arc((0, 0.85, 0), 0.3, 20, 160), 0.04, STEEL),
    ]


def wall_clock() -> list[Part]:
    marks = around([box((0, 0.75, 0.1), (0.06, 0.14, 0.02), BLACK)], 12, "z")
    hands = [
        box((0, 0.25, 0.12), (0.06, 0.55, 0.02), BLACK),
        box((0.18, 0.12, 0.12), (0.42, 0.07, 0.02), BLACK, ("z", 30)),
    ]
    return [
        rod((0, 0, -0.08), (0, 0, 0.06), 1.0, DARKWOOD, sides=56),
        rod((0, 0, 0.06), (0, 0, 0.09), 0.9, WHITE, sides=56),
        ring((0, 0, 0.06), 0.95, 0.07, DARKWOOD, ("x", 90)),
        *marks,
        *hands,
        ball((0, 0, 0.13), 0.05, RED),
    ]


def bollard() -> list[Part]:
    return [
        rod((0, -1, 0), (0, 0.8, 0), 0.28, YELLOW),
        ball((0, 0.8, 0), (0.28, 0.2, 0.28), YELLOW),
        rod((0, 0.2, 0), (0, 0.4, 0), 0.29, BLACK),
        rod((0, -0.3, 0), (0, -0.1, 0), 0.29, BLACK),
    ]


def parking_meter() -> list[Part]:
    return [
        rod((0, -1.5, 0), (0, 0.4, 0), 0.09, GREY),
        box((0, 0.75, 0), (0.5, 0.7, 0.3), GREY),
        ball((0, 1.1, 0), (0.25, 0.2, 0.15), GREY),
        box((0, 0.95, 0.16), (0.34, 0.22, 0.02), GLASS),
        box((0, 0.55, 0.16), (0.06, 0.14, 0.02), BLACK),
        rod((0, -1.55, 0), (0, -1.45, 0), 0.25, DARK),
    ]


def billboard() -> list[Part]:
    posts = mirrored([rod((0.7, -1.2, 0), (0.7, 0.1, 0), 0.07, STEEL)])
    return [
        *posts,
        box((0, 0.6, 0), (2.4, 1.2, 0.1), DARK),
        box((0, 0.6, 0.06), (2.25, 1.05, 0.02), WHITE),
        ball((-0.6, 0.6, 0.06), (0.35, 0.35, 0.03), ORANGE),
        box((0.4, 0.75, 0.075), (1.0, 0.15, 0.02), BLUE),
        box((0.4, 0.45, 0.075), (1.0, 0.1, 0.02), GREY),
    ]


def phone_booth() -> list[Part]:
    frame = around([box((0.48, 0, 0.48), (0.12, 2.4, 0.12), RED)], 4)
    bars = around([box((0, y, 0.5), (0.9, 0.05, 0.05), RED) for y in (-0.8, -0.4, 0, 0.4, 0.8)], 4)
    panes = around([box((0, 0.1, 0.48), (0.88, 1.9, 0.02), GLASS)], 4)
    return [
        *frame,
        *bars,
        *panes,
        box((0, 1.25, 0), (1.15, 0.25, 1.15), RED),
        box((0, 1.27, 0.58), (0.8, 0.14, 0.02), WHITE),
        ball((0, 1.37, 0), (0.5, 0.15, 0.5), RED),
        box((0, -1.2, 0), (1.15, 0.12, 1.15), DARK),
        *around([box((0, -1.0, 0.49), (0.9, 0.3, 0.04), RED)], 4),
    ]


def gas_pump() -> list[Part]:
    hose = tube([(0.45, 0.2, 0), (0.75, 0.0, 0), (0.75, -0.7, 0.1), (0.6, -0.8, 0.1), (0.55, 0.1, 0.1)], 0.05, BLACK)
    return [
        box((0, -0.1, 0), (0.85, 1.7, 0.5), RED),
        box((0, 0.95, 0), (0.9, 0.4, 0.52), WHITE),
        box((0, 0.45, 0.26), (0.6, 0.4, 0.02), BLACK),
        box((0, -1.0, 0), (1.0, 0.14, 0.6), GREY),
        *hose,
        box((0.5, 0.2, 0.1), (0.14, 0.3, 0.12), DARK),
    ]


def utility_pole() -> list[Part]:
    knobs = [rod((x, y + 0.06, 0), (x, y + 0.2, 0), 0.04, PALE) for y in (1.1, 1.5) for x in (-0.5, -0.3, 0.3, 0.5)]
    return [
        rod((0, -1.9, 0), (0, 1.8, 0), 0.1, DARKWOOD, 0.08),
        box((0, 1.1, 0), (1.3, 0.1, 0.1), DARKWOOD),
        box((0, 1.5, 0), (1.3, 0.1, 0.1), DARKWOOD),
        *knobs,
        rod((0.2, 0.4, 0), (0.2, 0.85, 0), 0.14, GREY),
    ]


def satellite_dish() -> list[Part]:
    bowl = lathe(
        [(0, -0.05), (0.5, 0.08), (0.95, 0.4), (0.93, 0.44), (0.48, 0.13), (0, 0.0)], PALE, (0, 0.3, 0), ("x", 60)
    )
    return [
        bowl,
        rod((0, 0.3, 0.05), (0, 0.62, 0.75), 0.035, DARK),
        ball((0, 0.62, 0.75), 0.09, DARK),
        rod((0, 0.2, -0.05), (0, -0.9, -0.2), 0.07, GREY),
        rod((0, -0.95, -0.2), (0, -0.85, -0.2), 0.4, GREY),
    ]


def solar_panel() -> list[Part]:
    cells = [
        box((x, 0, z), (0.36, 0.02, 0.36), (0.1, 0.14, 0.4)) for x in (-0.8, -0.4, 0, 0.4, 0.8) for z in (-0.4, 0, 0.4)
    ]
    top = [box((0, -0.03, 0), (2.1, 0.05, 1.3), PALE), *cells]
    turned = [(mesh.copy(), colour) for mesh, colour in top]
    for mesh, _ in turned:
        mesh.apply_transform([[1, 0, 0, 0], [0, 0.82, -0.57, 0.3], [0, 0.57, 0.82, 0], [0, 0, 0, 1]])
    legs = mirrored(
        [rod((0.7, -0.5, 0), (0.7, 0.28, 0), 0.05, GREY), rod((0.7, -0.5, 0.35), (0.7, -0.5, -0.35), 0.05, GREY)]
    )
    return [*turned, *legs]


def pylon() -> list[Part]:
    legs = around([rod((0.6, -1.8, 0.6), (0.1, 1.6, 0.1), 0.045, GREY)], 4)
    braces: list[Part] = []
    for low, high in ((-1.8, -1.0), (-1.0, -0.3), (-0.3, 0.3), (0.3, 0.9)):
        a, b = (0.6 - (y + 1.8) * 0.147 for y in (low, high))
        braces += around(
            [rod((a, low, a), (-b, high, b), 0.025, GREY), rod((-a, low, a), (b, high, b), 0.025, GREY)], 4
        )
    arms = [box((0, y, 0), (w, 0.07, 0.07), GREY) for y, w in ((0.75, 1.7), (1.15, 1.4), (1.5, 1.0))]
    return [*legs, *braces, *arms]


def hose_ladder() -> list[Part]:
    rungs = [rod((-0.35, y, 0), (0.35, y, 0), 0.045, WOOD) for y in np.linspace(-1.3, 1.3, 9)]
    return [*mirrored([rod((0.38, -1.6, 0), (0.38, 1.6, 0), 0.06, WOOD)]), *rungs]


def mop() -> list[Part]:
    strands = [
        rod((0.05 * np.cos(a), -0.75, 0.05 * np.sin(a)), (0.4 * np.cos(a), -1.3, 0.4 * np.sin(a)), 0.05, CREAM)
        for a in np.linspace(0, 2 * np.pi, 15)
    ]
    return [rod((0, -0.8, 0), (0, 1.4, 0), 0.05, WOOD), rod((0, -0.85, 0), (0, -0.65, 0), 0.14, BLUE), *strands]


def ironing_board() -> list[Part]:
    top = [(-1.2, -0.3), (0.7, -0.3), (1.15, -0.12), (1.25, 0.0), (1.15, 0.12), (0.7, 0.3), (-1.2, 0.3)]
    legs = [rod((-0.8, -0.9, z), (0.6, 0.35, z), 0.035, STEEL) for z in (-0.18, 0.18)]
    legs += [rod((0.7, -0.9, z), (-0.7, 0.35, z), 0.035, STEEL) for z in (-0.18, 0.18)]
    feet = [rod((x, -0.9, -0.3), (x, -0.9, 0.3), 0.04, STEEL) for x in (-0.8, 0.7)]
    return [plate(top, 0.1, (0.45, 0.6, 0.8), (0, 0.4, 0), ("x", -90)), *legs, *feet]


def clothes_iron() -> list[Part]:
    sole = [(-0.8, -0.4), (0.3, -0.4), (0.9, 0.0), (0.3, 0.4), (-0.8, 0.4)]
    body = plate([(x * 0.92, z * 0.9) for x, z in sole], 0.35, BLUE, (0, -0.1, 0), ("x", -90))
    handle = tube([(-0.6, 0.05, 0), (-0.6, 0.45, 0), (0.15, 0.5, 0), (0.45, 0.1, 0)], 0.11, WHITE)
    return [plate(sole, 0.1, STEEL, (0, -0.33, 0), ("x", -90)), body, *handle]


def scaffold() -> list[Part]:
    posts = around(
        [rod((0.8, -1.2, 0.4), (0.8, 1.2, 0.4), 0.05, STEEL), rod((0.8, -1.2, -0.4), (0.8, 1.2, -0.4), 0.05, STEEL)], 2
    )
    decks = [box((0, y, 0), (1.7, 0.06, 0.8), WOOD) for y in (-0.2, 0.8)]
    rails = [rod((-0.8, y, z), (0.8, y, z), 0.035, STEEL) for y in (0.3, 1.15) for z in (-0.4, 0.4)]
    return [*posts, *decks, *rails, *(rod((-0.8, -1.1, z), (0.8, -0.25, z), 0.03, STEEL) for z in (-0.4, 0.4))]


def greenhouse() -> list[Part]:
    posts = [rod((x, -0.7, z), (x, 0.3, z), 0.04, WHITE) for x in (-1, -0.33, 0.33, 1) for z in (-0.7, 0.7)]
    rafters = [rod((x, 0.3, z), (x, 0.8, 0), 0.04, WHITE) for x in (-1, -0.33, 0.33, 1) for z in (-0.7, 0.7)]
    beams = [
        rod((-1, y, z), (1, y, z), 0.04, WHITE)
        for y, z in ((0.3, -0.7), (0.3, 0.7), (0.8, 0), (-0.7, -0.7), (-0.7, 0.7))
    ]
    roof = [box((0, 0.55, side * 0.36), (2.0, 0.02, 0.86), GLASS, ("x", side * 35.5)) for side in (1, -1)]
    walls = [box((0, -0.2, z), (2.0, 1.0, 0.02), GLASS) for z in (-0.7, 0.7)] + [
        box((x, -0.2, 0), (0.02, 1.0, 1.4), GLASS) for x in (-1, 1)
    ]
    return [*posts, *rafters, *beams, *roof, *walls, box((0, -0.6, 0), (1.8, 0.2, 1.2), GREEN)]


def silo() -> list[Part]:
    bands = [ring((0, y, 0), 0.605, 0.03, GREY) for y in np.linspace(-1.2, 0.8, 7)]
    return [
        lathe([(0, -1.4), (0.6, -1.4), (0.6, 0.95), (0, 0.95)], PALE),
        ball((0, 0.95, 0), (0.6, 0.5, 0.6), RED),
        *bands,
        *mirrored([rod((0.1, -1.4, 0.66), (0.1, 0.9, 0.66), 0.03, DARK)]),
    ]


def ferris_wheel() -> list[Part]:
    colours = (RED, YELLOW, BLUE, GREEN)
    cabins = [
        box((1.3 * np.cos(a), 1.3 * np.sin(a) - 0.15, 0), (0.28, 0.26, 0.3), colours[n % 4])
        for n, a in enumerate(np.linspace(0, 2 * np.pi, 13)[:-1])
    ]
    spokes = [
        rod((0, 0, z), (1.3 * np.cos(a), 1.3 * np.sin(a), z), 0.03, WHITE)
        for a in np.linspace(0, 2 * np.pi, 13)[:-1]
        for z in (-0.15, 0.15)
    ]
    rims = [ring((0, 0, z), 1.3, 0.04, WHITE, ("x", 90)) for z in (-0.15, 0.15)]
    legs = [rod((0, 0, s * 0.3), (x, -1.7, s * 0.5), 0.07, GREY) for x in (-0.8, 0.8) for s in (-1, 1)]
    return [
        *cabins,
        *spokes,
        *rims,
        *legs,
        rod((0, 0, -0.35), (0, 0, 0.35), 0.12, GREY),
        box((0, -1.72, 0), (2.0, 0.08, 1.2), GREY),
    ]


WORKSHOP = {
    "bucket": bucket,
    "paint_can": paint_can,
    "paint_brush": paint_brush,
    "toolbox": toolbox,
    "wrench": wrench,
    "nail": nail,
    "screw": screw,
    "bolt": bolt,
    "hex_nut": hex_nut,
    "coil_spring": coil_spring,
    "rope": rope_coil,
    "brick": brick,
    "battery": battery,
    "eraser": eraser,
    "notebook": notebook,
    "clipboard": clipboard,
    "paper_clip": paper_clip,
    "thumbtack": thumbtack,
    "usb_stick": usb_stick,
    "vinyl_record": vinyl_record,
    "cassette": cassette,
    "compass": compass,
    "alarm_clock": alarm_clock,
    "wall_clock": wall_clock,
    "bollard": bollard,
    "parking_meter": parking_meter,
    "billboard": billboard,
    "phone_booth": phone_booth,
    "gas_pump": gas_pump,
    "utility_pole": utility_pole,
    "satellite_dish": satellite_dish,
    "solar_panel": solar_panel,
    "pylon": pylon,
    "ladder": hose_ladder,
    "mop": mop,
    "ironing_board": ironing_board,
    "clothes_iron": clothes_iron,
    "scaffold": scaffold,
    "greenhouse": greenhouse,
    "silo": silo,
    "ferris_wheel": ferris_wheel,
}
