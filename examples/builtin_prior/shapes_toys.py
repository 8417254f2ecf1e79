"""Toys and balloons that no catalogue has, put together from solids."""

from __future__ import annotations

from solids import BLUE, GREEN, PURPLE, RED, STEEL, WHITE, YELLOW, Part, arc, box, lathe, moved, plate, rod, tube


def balloon(colour=RED) -> list[Part]:
    return [
        lathe([(0, -0.85), (0.12, -0.8), (0.5, -0.4), (0.75, 0.1), (0.7, 0.55), (0.42, 0.9), (0, 1.0)], colour),
        lathe([(0.03, -0.85), (0.13, -0.98), (0, -0.95)], colour),
        *tube([(0, -0.95, 0), (0.05, -1.3, 0), (-0.05, -1.7, 0), (0.02, -2.0, 0)], 0.02, WHITE, 6),
    ]


def balloons() -> list[Part]:
    return [
        p
        for (x, y, z), c in (
            ((0, 0.9, 0), RED),
            ((-0.9, 0.45, 0.1), YELLOW),
            ((0.9, 0.5, 0), BLUE),
            ((-0.4, 0.5, -0.7), GREEN),
            ((0.45, 0.4, 0.7), PURPLE),
        )
        for p in (*moved([balloon(c)[0]], (x, y, z), 0.65), *tube([(x, y - 0.6, z), (0, -1.6, 0)], 0.015, WHITE, 6))
    ]


def kite() -> list[Part]:
    quarters = [
        plate(q, 0.05, c)
        for q, c in (
            ([(0, 0.3), (0, 1.2), (-0.8, 0.3)], RED),
            ([(0, 0.3), (0.8, 0.3), (0, 1.2)], YELLOW),
            ([(0, 0.3), (-0.8, 0.3), (0, -1.0)], BLUE),
            ([(0, 0.3), (0, -1.0), (0.8, 0.3)], GREEN),
        )
    ]
    tail = tube([(0, -1.0, 0), (0.2, -1.3, 0), (-0.15, -1.6, 0), (0.15, -1.95, 0)], 0.025, WHITE, 6)
    return [
        *quarters,
        *tail,
        *[
            plate([(-0.18, -0.1), (0.18, -0.1), (0.0, 0.12)], 0.05, RED, (x, y, 0))
            for x, y in ((0.2, -1.3), (-0.15, -1.6), (0.15, -1.95))
        ],
    ]


def toy_blocks() -> list[Part]:
    return [
        box((-0.45, -0.4, 0), (0.8, 0.8, 0.8), RED),
        box((0.5, -0.4, 0.05), (0.8, 0.8, 0.8), BLUE, ("y", 12)),
        box((0, 0.42, 0), (0.8, 0.8, 0.8), YELLOW, ("y", -15)),
        *[box((x, y, z), (0.5, 0.5, 0.02), WHITE) for x, y, z in ((-0.45, -0.4, 0.405),)],
    ]


def brick_toy() -> list[Part]:
    return [
        box((0, 0, 0), (1.6, 0.6, 0.8), RED),
        *[
            lathe([(0, 0), (0.13, 0), (0.13, 0.1), (0, 0.1)], RED, (x, 0.3, z))
            for x in (-0.6, -0.2, 0.2, 0.6)
            for z in (-0.2, 0.2)
        ],
    ]


def magnet() -> list[Part]:
    arch = tube(arc((0, 0, 0), 0.7, 0, 180, 16), 0.2, RED)
    return [
        *arch,
        *[
            p
            for x in (-0.7, 0.7)
            for p in (rod((x, 0, 0), (x, -0.5, 0), 0.2, RED), rod((x, -0.5, 0), (x, -0.85, 0), 0.2, STEEL))
        ],
    ]


TOYS = {
    "balloon": balloon,
    "balloons": balloons,
    "kite": kite,
    "toy_blocks": toy_blocks,
    "brick_toy": brick_toy,
    "magnet": magnet,
}
