"""The prompts of the evaluation: TUNING to choose settings on, REPORT to report."""

from __future__ import annotations

TUNING = (
    "a red car", "a wooden chair", "a golden horse", "a stone castle", "a metal dragon", "a green cactus",
    "a teddy bear", "a blue armchair", "a snowman", "a palm tree", "a marble elephant", "a purple mushroom",
    "a bronze knight", "a white rabbit", "a viking ship", "a jade lion", "a pink cupcake", "a glass vase",
    "a yellow motorcycle", "a lighthouse",
)  # fmt: skip

REPORT = (
    "a blue car", "a green truck", "a bus", "an orange van", "a red motor scooter", "a bicycle", "a yellow tricycle",
    "a purple sports car", "an airplane", "a white sailboat", "a forklift", "a vintage car",
    "a brown horse", "a black cat", "a dog", "a gray elephant", "a giraffe", "a golden lion", "a tiger", "a zebra",
    "a camel", "a white cow", "a pink pig", "a rhino", "a stone bear", "a wooden deer", "a metal wolf", "a crocodile",
    "a marble rabbit", "a clay rooster", "a bronze goat", "a cyan whale", "a shark", "a red dragon",
    "a beige sofa", "an orange armchair", "a green chair", "a maroon bed", "a wooden table", "a navy office chair",
    "a piano", "a toilet", "a bookshelf", "a floor lamp", "a white stool", "a lime bench",
    "a hamburger", "a pink donut", "a cake", "a blue mug", "a gold teddy bear", "a jade vase", "a glass wine bottle",
    "a plastic fire hydrant", "a yellow backpack", "a black hat", "a helmet", "a red tent", "a barrel", "a gift",
    "a house", "a stone tower", "a pyramid", "a hut", "a pagoda", "a greek temple",
    "a robot", "a knight", "a wizard", "a bronze golem", "a mummy", "a skull",
    "a mushroom", "a gold star", "a christmas tree", "a metal gear", "a fountain", "a street lamp",
)  # fmt: skip
