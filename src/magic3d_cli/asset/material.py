"""What a prompt says of the surface: metallic and roughness factors from its material words. No tensors here.

Only what the prompt asks for: "a metal dragon" is metal, "a dragon" keeps the default of every asset.

Sources of the numbers: [roblox] Roblox Creator Documentation, "Material References" (roughness and metalness of common
materials); [unreal] Unreal Engine, "Physically Based Materials"; [filament] Filament, "Material Properties" chart;
[pb] physicallybased.info. They agree that a pure metal has metallic 1 and anything else 0; between them lies only
what is partly covered. Roughness is perceptual (glTF 2.0 section 3.9.2: GGX alpha is its square).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Material:
    """Surface of a whole asset, in glTF's metallic-roughness model.

    Attributes:
        name: the material that the prompt names; empty when it names none.
        metallic: 0 dielectric, 1 metal.
        roughness: perceptual roughness in [0, 1].
        reflectance: what a bare metal reflects at normal incidence, linear RGB; None where the prompt names another
            colour, and for all other materials.
    """

    name: str = ""
    metallic: float = 0.0
    roughness: float = 0.8  # the colour field has no roughness of its own; slightly matt suits most things
    reflectance: tuple[float, float, float] | None = None

    @property
    def uniform(self) -> bool:
        """Whether a thing that is said to be of it is of it all over: cast, carved or blown in one piece."""
        return self.metallic == 1 or self.name in _ONE_PIECE


DEFAULT = Material()
_ONE_PIECE = frozenset({"stone", "marble", "concrete", "clay", "porcelain", "jade", "glass", "wax", "bone"})

_MATERIALS: dict[str, tuple[float, float, str]] = {
    # Metals: [roblox] 0.2-0.3 pure, 0.2-0.4 worn; [unreal] and [pb] metallic 1.
    "gold": (1.0, 0.25, "gold golden gilded gilt"),
    "silver": (1.0, 0.25, "silver silvery sterling"),
    "chrome": (1.0, 0.1, "chrome chromed chromium"),  # electroplated, near a mirror: [pb] 0
    "copper": (1.0, 0.3, "copper"),
    "brass": (1.0, 0.3, "brass brazen"),
    "bronze": (1.0, 0.35, "bronze bronzed"),
    "aluminium": (1.0, 0.35, "aluminium aluminum tin pewter zinc"),
    "titanium": (1.0, 0.4, "titanium platinum"),
    "steel": (1.0, 0.3, "steel stainless"),
    "metal": (1.0, 0.3, "metal metallic"),
    "iron": (1.0, 0.5, "iron wrought"),  # cast or forged, not polished: above the range of worn metals
    "rust": (0.0, 0.9, "rust rusty rusted corroded"),  # iron oxide is no conductor [pb: 0]
    # Glass and gems: [roblox] glass 0, jade 0.15; exactly 0 would show no highlight of a point light.
    "glass": (0.0, 0.05, "glass crystal ice icy"),
    "jade": (0.0, 0.15, "jade emerald ruby sapphire amethyst amber gemstone obsidian"),
    "diamond": (0.0, 0.05, "diamond"),
    # Stone: [roblox] marble 0.375; [pb] concrete 0.5 is a placeholder, rough stone scatters like worn wood.
    "marble": (0.0, 0.375, "marble alabaster onyx"),
    "stone": (0.0, 0.85, "stone rock granite sandstone limestone slate"),
    "concrete": (0.0, 0.9, "concrete cement plaster"),
    "brick": (0.0, 0.9, "brick"),
    # Earth: unglazed clay is as dull as worn wood, a glaze as smooth as glossy plastic [roblox: 0.1].
    "clay": (0.0, 0.85, "clay terracotta earthenware adobe"),
    "ceramic": (0.0, 0.3, "ceramic pottery stoneware"),
    "porcelain": (0.0, 0.15, "porcelain enamel enamelled enameled"),
    # Organic: [roblox] glossy wood 0.2-0.3, worn wood 0.7-0.9; bone 0.5; wax 0.38.
    "wood": (0.0, 0.6, "wood wooden oak oaken pine mahogany walnut teak timber bamboo rattan wicker"),
    "bone": (0.0, 0.5, "bone ivory"),
    "wax": (0.0, 0.38, "wax waxen"),
    "paper": (0.0, 0.9, "paper cardboard papier origami"),
    # Polymers: [roblox] glossy plastic 0.1, matte plastic 0.4, rubber 0.5-0.6.
    "plastic": (0.0, 0.35, "plastic vinyl acrylic lego"),
    "rubber": (0.0, 0.55, "rubber silicone"),
    # Fabric: [roblox] glossy leather 0.2-0.4, worn leather 0.5-0.7, cotton 0.8-0.9, wool 0.9, silk 0.4-0.6, velvet and
    # suede 0.6-0.8, fur 0.65-0.75.
    "leather": (0.0, 0.5, "leather"),
    "silk": (0.0, 0.5, "silk silken satin"),
    "velvet": (0.0, 0.7, "velvet suede plush"),
    "cloth": (0.0, 0.85, "cloth fabric cotton canvas denim linen textile"),
    "wool": (0.0, 0.9, "wool woolen woollen wooly woolly knitted crocheted"),
    "fur": (0.0, 0.7, "fur furry"),
}
"""Name -> metallic, roughness, the words that mean it."""

_REFLECTANCE = {
    "gold": (1.0, 0.766, 0.336),
    "silver": (0.972, 0.960, 0.915),
    "chrome": (0.550, 0.556, 0.554),
    "copper": (0.955, 0.638, 0.538),
    "brass": (0.887, 0.789, 0.434),  # [pb]
    "bronze": (0.921, 0.714, 0.486),  # copper with tin: midway between copper and brass
    "aluminium": (0.913, 0.922, 0.924),
    "titanium": (0.542, 0.497, 0.449),
    "iron": (0.560, 0.570, 0.580),
    "steel": (0.560, 0.570, 0.580),  # iron nearly
    "metal": (0.560, 0.570, 0.580),
}
"""Of the bare metals at normal incidence, linear RGB [unreal, from measured indices of refraction]."""

_COLOURS = (
    "red crimson scarlet maroon burgundy orange yellow lime green olive cyan turquoise teal blue navy indigo purple "
    "violet lavender pink magenta rose brown beige cream tan black dark white gray grey colourful rainbow painted"
)
"""Words that ask for another colour than the bare metal's."""

_OF_WORD = {word: name for name, (_, _, words) in _MATERIALS.items() for word in words.split()}

_FINISHES = {
    **dict.fromkeys(("polished", "shiny", "glossy", "lacquered", "varnished", "glazed"), (0.0, 0.2)),
    **dict.fromkeys(("brushed", "hammered", "worn", "weathered", "old", "ancient"), (0.4, 1.0)),
    **dict.fromkeys(("matt", "matte", "dull", "unglazed"), (0.7, 1.0)),
}
"""Word -> the range that it holds a named material's roughness in: [roblox]'s glossy, worn and unpolished kinds."""

_NOT_THE_SURFACE = re.compile(
    r"golden (?:retriever|eagle)|gold fish|silver (?:fox|birch|back)|ice (?:cream|skates?|hockey)|"
    r"(?:stone|bronze|iron) age|rock (?:star|band|guitar)|heavy metal|metal band|brass band|"
    r"(?:pine|oak|walnut) (?:tree|cone)|(?:^an?|steam|clothes|waffle|curling) iron$|paper (?:clip|shredder)|tin opener"
)
"""Names of things in which a material word tells nothing of the surface."""

PARTS = frozenset({"with", "wearing", "holding", "carrying", "riding", "on", "under", "beside", "next", "full"})
"""What follows describes a part, or another thing: "a wooden chair with metal legs" is wooden."""


def of_prompt(prompt: str) -> Material:
    """The material that a prompt asks for, or `DEFAULT`.

    The first material that is said of the thing itself counts: in "a wooden chair with metal legs" and "a knight in
    silver armour" the metal is a part's, in "a horse made of gold" and "a horse in gold" it is the whole horse's.
    A finish ("polished", "worn", "matte") bounds the roughness, also where no material is named.
    """
    words = list(_own_words(prompt))
    names = [_OF_WORD[word] for word in words if word in _OF_WORD]
    name = "rust" if "rust" in names else next(iter(names), "")  # whatever rusts is no longer metal on the surface
    material = Material(name, *_MATERIALS[name][:2]) if name else DEFAULT
    if not set(_COLOURS.split()).intersection(words):
        material = replace(material, reflectance=_REFLECTANCE.get(name))
    for low, high in (_FINISHES[word] for word in words if word in _FINISHES):
        material = replace(material, roughness=min(max(material.roughness, low), high))
    return material


def of_things(prompts: list[str]) -> Material:
    """The material of things in one asset, which has one for all: what each prompt asks for if all agree."""
    materials = [of_prompt(prompt) for prompt in prompts]
    return materials[0] if all(material == materials[0] for material in materials) else DEFAULT


def _own_words(prompt: str) -> Iterator[str]:
    """The words that are said of the thing itself, in order."""
    text = _NOT_THE_SURFACE.sub(" ", " ".join(re.findall(r"[a-z]+", prompt.lower())))
    words = text.split()
    for at, word in enumerate(words):
        if word in PARTS:
            return
        if word == "in" and at + 2 < len(words) and words[at + 1] in _OF_WORD:
            return  # "in silver armour"; "in gold" at the end goes on
        yield word
