"""Animals of the sea that no catalogue has, put together from solids."""

from __future__ import annotations

import numpy as np
from solids import BLACK, CREAM, PINK, WHITE, Part, ball, lathe, mirrored, moved, plate, ring, tube


def _eyes(x: float, y: float, z: float, size: float) -> list[Part]:
    return mirrored([ball((x, y, z), size, WHITE), ball((x * 1.05, y, z + size * 0.6), size * 0.6, BLACK)])


def octopus() -> list[Part]:
    red = (0.78, 0.3, 0.35)
    arms = [
        p
        for k in range(8)
        for p in moved(
            tube(
                [(0, -0.15, 0.3), (0, -0.5, 0.65), (0, -0.7, 1.0), (0.1, -0.62, 1.3), (0.2, -0.4, 1.42)],
                [0.2, 0.17, 0.13, 0.09, 0.04],
                red,
                10,
            ),
            (0, 0, 0),
            1.0,
            ("y", 22.5 + 45 * k),
        )
    ]
    return [
        ball((0, 0.45, -0.05), (0.6, 0.75, 0.6), red),
        ball((0, -0.1, 0), (0.48, 0.35, 0.48), red),
        *_eyes(0.26, 0.3, 0.5, 0.15),
        *arms,
    ]


def jellyfish() -> list[Part]:
    a = np.linspace(0, np.pi / 2, 14)
    bell_ = lathe(
        [
            (0, 0.2),
            *zip(0.62 + 0.28 * np.sin(a[::-1] * 2) ** 2 * 0, 0.2 + 0 * a, strict=True),
            *zip(0.9 * np.cos(a), 0.2 + 0.75 * np.sin(a), strict=True),
        ],
        (0.75, 0.55, 0.85),
    )
    return [
        bell_,
        ring((0, 0.2, 0), 0.85, 0.07, PINK),
        *[
            p
            for k in range(10)
            for p in moved(
                tube([(0, 0.15, 0.6), (0.12, -0.3, 0.65), (-0.1, -0.8, 0.6), (0.08, -1.3, 0.62)], 0.035, PINK, 6),
                (0, 0, 0),
                1.0,
                ("y", 36 * k),
            )
        ],
        *[
            p
            for k in range(4)
            for p in moved(
                tube([(0, 0.2, 0.2), (0.1, -0.3, 0.28), (-0.1, -0.75, 0.22)], [0.15, 0.11, 0.05], WHITE, 8),
                (0, 0, 0),
                1.0,
                ("y", 90 * k),
            )
        ],
    ]


def starfish() -> list[Part]:
    return moved(
        [
            p
            for k in range(5)
            for p in moved(
                tube([(0, 0, 0), (0, 0.55, 0), (0, 1.05, 0)], [0.3, 0.24, 0.08], (0.93, 0.5, 0.3)),
                (0, 0, 0),
                1.0,
                ("z", 72 * k),
            )
        ]
        + [
            ball((0.28 * r * np.sin(a), 0.28 * r * np.cos(a), 0.27 - 0.03 * r), 0.06, CREAM)
            for k in range(5)
            for r in (1, 2, 3)
            for a in (2 * np.pi * k / 5,)
        ],
        (0, 0, 0),
        (1, 1, 0.7),
    )


def dolphin() -> list[Part]:
    blue = (0.4, 0.5, 0.62)
    path = [(0, 0.0, 1.0), (0, 0.18, 0.65), (0, 0.28, 0.2), (0, 0.22, -0.3), (0, 0.02, -0.8), (0, -0.25, -1.15)]
    fluke = mirrored(
        [plate([(0, 0.1), (0.5, -0.15), (0.45, -0.3), (0, -0.12)][::-1], 0.07, blue, (0, -0.28, -1.2), ("x", -70))]
    )
    return [
        *tube(path, [0.16, 0.32, 0.36, 0.32, 0.17, 0.08], blue, 20),
        *tube([(0, -0.02, 1.05), (0, -0.06, 1.35)], [0.12, 0.06], blue),
        ball((0, 0.1, 0.3), (0.27, 0.22, 0.75), (0.85, 0.88, 0.9), ("x", 5)),
        plate([(-0.05, 0), (0.35, 0), (-0.12, 0.42)], 0.07, blue, (0, 0.5, -0.05), ("y", -90)),
        *fluke,
        *mirrored(
            [
                ball((0.3, 0.12, 0.82), 0.04, BLACK),
                plate([(0, 0.1), (0.0, -0.18), (0.5, -0.4)], 0.07, blue, (0.25, 0.0, 0.35), ("x", 60)),
            ]
        ),
    ]


SEA = {"octopus": octopus, "jellyfish": jellyfish, "starfish": starfish, "dolphin": dolphin}
