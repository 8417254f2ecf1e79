"""Examples under each command's --help. A test parses every one of them."""

from __future__ import annotations

EXAMPLES = {
    "": (
        'magic3d generate "a metal dragon" -o dragon.glb',
        "magic3d preview dragon.glb",
        "magic3d help generate",
    ),
    "generate": (
        'magic3d generate "a red car"',
        'magic3d generate "a red car" --preset standard -o car.glb',
        'magic3d generate "a gold horse" --seed 1 --height 0.2 -o horse.usdz',
        'magic3d generate "a dog" --variations 4 --preset standard',
        'magic3d generate "a corgi on a skateboard" --prior sd15 --dry-run',
        'magic3d generate "a teapot" --style sunset.jpg --prior sd15 --adapter IP-Adapter',
    ),
    "batch": (
        "magic3d batch prompts.txt --seeds 4 -o props",
        "magic3d batch props.csv --preset standard --json",
        "magic3d batch list.jsonl --workers 1 --format obj",
        "magic3d batch prompts.txt --style sunset.jpg",
    ),
    "edit": (
        'magic3d edit metal-dragon.run "a golden dragon"',
        'magic3d edit horse.glb "a red horse" --box top -o red-top.glb',
        'magic3d edit chair.run "a stone chair" --recolour',
    ),
    "refine": (
        "magic3d refine car.run/coarse.ckpt",
        'magic3d refine my_mesh.glb --prompt "a golden dragon" -o gold.glb',
        "magic3d refine car.run --preset standard -o car-fine.glb",
    ),
    "export": (
        "magic3d export --format obj",
        "magic3d export car.run -o car.stl --height 0.1",
        "magic3d export car.run/coarse.ckpt -o coarse.glb --faces 2000",
        "magic3d export car.run -o car.glb --force --lod 3 --ao --normal-map",
    ),
    "personalise": (
        'magic3d personalise chair.glb --word "my chair" -o chair.safetensors',
        'magic3d personalise front.png left.png@270 back.png@180 --word "my chair"',
        'magic3d generate "a golden my chair" --adapter chair.safetensors',
    ),
    "preview": ("magic3d preview car.glb", "magic3d preview car.run --size 1024 --frames 72 -o shown/car"),
    "priors": ("magic3d priors", "magic3d priors --words | grep dog"),
    "bench": ("magic3d bench --preset draft", "magic3d bench --prior sd15 --preset paper --views 1 --steps 1"),
    "doctor": ("magic3d doctor", "magic3d doctor --json"),
    "config": ("magic3d config", "magic3d config --json"),
    "runs": ("magic3d runs", "magic3d runs ~/models", "magic3d runs --clean --older-than 30"),
    "help": ("magic3d help", "magic3d help export"),
    "version": ("magic3d version",),
}


def epilog(command: str) -> str:
    """Kept as it is by click, which would fill the lines otherwise (\\b)."""
    lines = EXAMPLES[command]
    return (
        "\b\nExample:\n" * (len(lines) == 1)
        + "\b\nExamples:\n" * (len(lines) > 1)
        + "\n".join(f"  {line}" for line in lines)
    )
