"""Every number a run depends on, in frozen dataclasses; `presets` has the values that runs begin with.

Sources: [paper] Magic3D, arXiv 2211.10440; [ngp] Instant-NGP, arXiv 2201.05989; [DF] DreamFusion, arXiv
2209.14988; [ts] threestudio's Magic3D configuration; [m] chosen by measurement on two CPU cores.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

METHODS = SDS, VSD, BSD = "sds", "vsd", "bsd"
"""Of distillation: score (DreamFusion), variational score (ProlificDreamer), bootstrapped score (DreamCraft3D)."""
AUTO, BALL, VOLUME = "auto", "ball", "volume"
"""Where the coarse stage begins: as suits the prior, the paper's soft ball, or the prior's own volume."""
PICTURE_SHAPE = "picture:"
"""Before the digest of the pictures whose thing a run begins with."""
PICTURES_ALONE = "picture"
"""In place of a prior's name where pictures alone guide a run."""
EDITED, EDITED_VOLUME = "edited:", "edited-volume:"
"""Before the digest of the edit whose parent a run begins with; the second where the prior's volume shows the edit."""


@dataclass(frozen=True)
class FieldSettings:
    """Multi-resolution hash grid and its heads [ngp]."""

    levels: int = 16
    features: int = 2  # per level
    log2_size: int = 19  # table entries per level
    base_resolution: int = 16
    finest_resolution: int = 2048
    hidden: int = 32  # width of the single hidden layer of each head [paper: single-layer heads]
    density_bias: float = 10.0  # softplus(gain net + bias (1 - r / radius)) [paper]
    density_gain: float = 1.0  # more makes thin parts opaque within a few hundred steps [m]
    bias_radius: float = 0.5


@dataclass(frozen=True)
class ViewSampling:
    """Ranges that random views are drawn from. Angles in degrees, `half_height` in world units.

    The built-in prior was trained on exactly these defaults.
    """

    elevation: tuple[float, float] = (-15.0, 80.0)
    fov: tuple[float, float] = (30.0, 50.0)
    half_height: tuple[float, float] = (0.95, 1.15)
    distance: tuple[float, float] | None = None  # of the camera, in place of `half_height`
    ambient: tuple[float, float] = (0.3, 0.8)
    light_spread: float = 60.0  # light within this angle of the camera (paper, supplement)
    light_by_angle: bool = False  # its angle is uniform, and so more often small; else its direction in the cone is
    shading: tuple[float, float, float] = (0.5, 0.35, 0.15)  # chances of ALBEDO, DIFFUSE, TEXTURELESS
    solid_background: float = 0.75  # probability of a plain random backdrop
    albedo_first: float = 0.0  # share of the stage in which all views are ALBEDO
    look_at_jitter: float = 0.0  # standard deviation of the point that is looked at, each coordinate in world units
    roll_jitter: float = 0.0  # standard deviation of the roll, radians
    backdrop: tuple[float, float, float] | None = None  # the colour of plain backdrops; None: any
    growth: tuple[tuple[float, float], ...] = ()  # (progress, share of all angles round `centre`); see `share_at`
    centre: tuple[float, float] = (0.0, 0.0)  # azimuth and elevation that the views grow from: a picture's
    together: int = 1  # views of a set, evenly round the object and else alike: for priors that are shown sets

    def share_at(self, progress: float) -> float:
        """How much of the way from `centre` to the angles drawn views go: linear between the knots of `growth`, and all
        of it after the last. Of two knots at one progress the later counts from there on."""
        if not self.growth or progress >= self.growth[-1][0]:
            return self.growth[-1][1] if self.growth else 1.0
        before = (0.0, self.growth[0][1])
        for knot in self.growth:
            if progress < knot[0]:
                return before[1] + (knot[1] - before[1]) * (progress - before[0]) / (knot[0] - before[0])
            before = knot
        raise AssertionError("the last knot is later")


@dataclass(frozen=True)
class TimestepSchedule:
    """Diffusion times in [0, 1], drawn uniformly; both ends move linearly over the first `anneal` of the run."""

    start: tuple[float, float] = (0.02, 0.98)  # [paper]
    end: tuple[float, float] = (0.02, 0.98)
    anneal: float = 0.5


@dataclass(frozen=True)
class VariationalSettings:
    """Variational score distillation (ProlificDreamer, arXiv 2305.16213).

    Numbers of threestudio's prolificdreamer.yaml and prolificdreamer-texture.yaml.

    Attributes:
        times: there at most 0.98 for a fifth (5,000 of 25,000 steps; of 30,000 for the texture), then 0.5 at once; here
            down to 0.5 in twice as long, which is the same on average.
    """

    scale: float = 7.5
    times: TimestepSchedule = TimestepSchedule(start=(0.02, 0.98), end=(0.02, 0.5), anneal=0.4)
    rank: int = 4  # of the LoRA [diffusers' default, which the code takes]
    rate: float = 1e-4  # at which it learns


@dataclass(frozen=True)
class BootstrapSettings:
    """Bootstrapped score distillation (DreamCraft3D, arXiv 2310.16818), of textures; numbers of its code.

    There whole networks are tuned at 1e-5 instead of a LoRA, and a round takes 200 of the texture's own 1,000 steps.
    """

    rounds: int = 5
    pictures: int = 8  # redrawn each round
    strength: tuple[float, float] = (0.5, 0.2)  # of redrawing them, from the first round to the end
    steps: int = 200  # of tuning, each round
    rate: float = 1e-4  # of tuning [diffusers, train_dreambooth_lora.py]
    rank: int = 4  # of the LoRA that is tuned


@dataclass(frozen=True)
class GuidanceSettings:
    """Score distillation (DreamFusion section 3)."""

    scale: tuple[float, float] = (100.0, 100.0)  # uncond + scale (cond - uncond); from first to last step [paper]
    times: TimestepSchedule = TimestepSchedule()
    weighting: str = "sds"  # "sds": sigma_t^2 [DF]; "uniform": weight 1 on the clean-image residual
    # How far the guided clean image takes over the contrast that it has at scale 1; over a set of views together.
    rescale: float = 0.0  # [2305.08891, section 3.4]
    clean_clip: bool = False  # clip the guided clean image to [-1, 1]; pixel priors only [Imagen, 2205.11487]
    perp_neg: float = 0.0  # weight of the views it is not [Perp-Neg, 2304.04968]: 4 evaluations a step instead of 2
    small_encoder: bool = False  # TAESD in place of the VAE's encoder; latent priors only
    normals: bool = False  # textureless views are shown as normals, to a prior that is not told how views are shaded
    compile: bool = False  # torch.compile of the prior's networks; on CUDA only
    method: str = SDS  # of METHODS
    variational: VariationalSettings = VariationalSettings()  # of VSD and BSD; the rest above is of score distillation
    bootstrap: BootstrapSettings = BootstrapSettings()  # of BSD


@dataclass(frozen=True)
class AddedGuidance:
    """A prior beside a stage's first one."""

    prior: str
    weight: float  # of its loss in the sum
    guidance: GuidanceSettings


@dataclass(frozen=True)
class ReferenceSettings:
    """How a stage follows a picture, where there is one.

    Weights stand beside the distillation loss of one view, and every loss is a sum over the pixels of an image of the
    prior's size: threestudio's 1000 of a mean over pixels beside a sum over 64 x 64 x 4 latents is 0.1 in this unit,
    with guidance of scale 100, whose residuals are far larger than the built-in prior's [m].
    """

    size: int = 128  # pixels of the render that is compared
    colour: float = 10.0
    mask: float = 40.0  # alone outside of the outline, where colours do not count [m]
    depth: float = 0.05  # where there is a depth of the picture
    normals: float = 0.5  # where there are normals of the picture [m]
    smoothness: float = 0.02  # of the normals seen from where the picture was taken
    colour_from: float = 0.0  # progress before which colours do not count: outline and depth first
    imagine: float = 0.5  # 0: only the picture; 1: the prior pulls twice as hard


@dataclass(frozen=True)
class CoarseSettings:
    """Hash-grid NeRF stage [paper, section 4.1]."""

    steps: int = 5000
    init: str = BALL  # what the field is before the first step; AUTO, BALL, VOLUME or another shape's identity
    views: int = 32  # per step
    render_size: int = 64  # pixels
    samples_per_ray: int = 256  # upper bound through the box's diagonal
    occupancy_size: int = 128
    occupancy_decay: float = 0.6  # [paper, supplement]
    occupancy_every: int = 10  # iterations between updates [paper, supplement]
    occupancy_threshold: float = 0.01  # opacity of a marching step, or their mean, below which a cell is skipped [ngp]
    normal_samples: int = 1024  # points a step at which the normal regularisers are evaluated [m]
    occupancy_start: float = 0.0  # initial density of every cell; [paper] 20, for six updates; 0 goes by the field [m]
    warmup: float = 0.0  # share of the run rendered at `warmup_render_size`: shape first, a quarter of the rays [m]
    warmup_render_size: int = 32  # pixels
    lr: float = 1e-2  # [ts]
    background_lr: float = 1e-3  # a tenth, so that the object is not painted on the sky [paper]
    sparsity: float = 1.0  # weight of the opacity regulariser [ts]
    opaqueness: float = 0.0  # weight of the entropy of the opacity
    predicted_normal: float = 1.0  # predicted normals against the density's [Ref-NeRF]
    orientation: float = 10.0  # normals facing away from the camera [DF]
    orientation_first: float = 0.0  # its weight at first; it grows linearly
    orientation_until: float = 1.0  # share of the stage after which it does not grow any more
    field: FieldSettings = FieldSettings()
    guidance: GuidanceSettings = GuidanceSettings()
    added_guidance: tuple[AddedGuidance, ...] = ()
    reference: ReferenceSettings = ReferenceSettings()
    sampling: ViewSampling = ViewSampling()


@dataclass(frozen=True)
class FineSettings:
    """Tetrahedral-grid mesh stage [paper, section 4.2]."""

    steps: int = 3000
    views: int = 32
    render_size: int = 512
    grid_size: int = 128  # tetrahedral grid cells per side of the tight box
    surface_resolution: int = 96  # voxels along each side of the scene at which the coarse density is sampled
    lr: float = 1e-2  # colour field [ts]
    geometry_lr: float = 1e-3  # signed distance and deformation, in units of one cell
    normal_consistency: float = 0.03  # angle between adjacent faces [paper]; with a tenth of the loss's pull [m]
    freeze_geometry: bool = False  # only the colours are optimised
    geometry_first: float = 0.0  # share of the stage in which views show the shape, and after which it stays as it is
    guidance: GuidanceSettings = GuidanceSettings(times=TimestepSchedule(start=(0.02, 0.5), end=(0.02, 0.5)))  # [paper]
    added_guidance: tuple[AddedGuidance, ...] = ()
    # Large: the texture takes the picture's detail from here. Depth that was guessed is too coarse for a mesh.
    reference: ReferenceSettings = ReferenceSettings(size=384, depth=0.0, smoothness=0.0)
    sampling: ViewSampling = ViewSampling()


@dataclass(frozen=True)
class AssetSettings:
    """The written mesh."""

    faces: int = 20_000
    texture_size: int = 1024  # pixels
    padding: int = 4  # texels between charts
    unwrap_seconds: float = 60.0  # xatlas is stopped after this and the fall-back atlas used
    height: float | None = None  # metres; None: the usual size of the thing
    lod: int = 0  # simpler levels beside the mesh, each with half the triangles of the one before
    occlusion: bool = False  # bake how much of the sky each point sees
    normal_map: bool = False  # bake the normals of the mesh before it was simplified


@dataclass(frozen=True, kw_only=True)
class AssetChoices:
    """What a person may choose of `AssetSettings`, with the same names; None leaves it."""

    faces: int | None = None
    texture_size: int | None = None
    height: float | None = None
    lod: int | None = None
    occlusion: bool | None = None
    normal_map: bool | None = None

    def applied(self, asset: AssetSettings) -> AssetSettings:
        """The settings with these choices."""
        asked = {part.name: getattr(self, part.name) for part in fields(AssetChoices)}
        return replace(asset, **{name: value for name, value in asked.items() if value is not None})


def learning_guidance(stage: CoarseSettings | FineSettings) -> GuidanceSettings | None:
    """How the first of a stage's priors is guided that learns the renders; None where all follow score distillation."""
    every = stage.guidance, *(added.guidance for added in stage.added_guidance)
    return next((one for one in every if one.method != SDS), None)


@dataclass(frozen=True)
class StagePrior:
    """What settings depend on of a prior; unless said, of one that takes any prompt."""

    name: str
    weight: float = 1.0
    open_vocabulary: bool = True  # it takes any prompt
    from_picture: bool = False  # it is shown a picture of the thing (Zero-1-to-3)
    has_volume: bool = False  # it has a volume of what it is asked for, to begin with
    on_pixels: bool = False  # it works on pixels, without an image encoder
    set_size: int = 1  # views that it is shown together (MVDream)

    @property
    def takes_any_words(self) -> bool:
        """Whether it is told in words alone, any of them."""
        return self.open_vocabulary and not self.from_picture

    @property
    def learns_renders(self) -> bool:
        """Whether a LoRA of it can learn what the scene looks like, for variational score distillation."""
        return self.takes_any_words and self.set_size == 1


@dataclass(frozen=True)
class Settings:
    """A whole run."""

    preset: str
    coarse: CoarseSettings
    fine: FineSettings
    asset: AssetSettings
    seed: int = 0
    recipe: str = ""  # that was followed, see `recipes`

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> Settings:
        """Inverse of `to_json`, also of an older program's: missing keys take the defaults of their class.

        Raises TypeError for keys and types that no version had.
        """
        return _build(Settings, data)


def canonical(cls: type, data: Any) -> Any:
    """The JSON of settings as this version writes it; TypeError as `Settings.from_json`."""
    return asdict(_build(cls, data))


_RENAMED = {
    "CoarseSettings": {
        "warm": "warmup",
        "warm_render_size": "warmup_render_size",
        "normal_agreement": "predicted_normal",
    },
    "FineSettings": {"smoothness": "normal_consistency"},
    "ViewSampling": {"frame": "half_height", "plain": "solid_background"},
}
"""Keys of older checkpoints, by class."""
_RETIRED = {"GuidanceSettings": {"clip_gradient": 0.0}, "FineSettings": {"laplacian": 0.0}}
"""Keys of older checkpoints that are gone, with the one value they ever had."""


def _build(cls: Any, data: Any) -> Any:
    """Rebuild nested frozen dataclasses from plain JSON (lists become tuples)."""
    if not isinstance(data, dict):
        raise TypeError(f"{cls.__name__} cannot be made of {data!r}")
    types = get_type_hints(cls)
    renamed, retired = _RENAMED.get(cls.__name__, {}), _RETIRED.get(cls.__name__, {})
    values = {}
    for key, value in data.items():
        if key in retired and value == retired[key]:
            continue
        key = renamed.get(key, key)
        if key not in types:
            raise TypeError(f"{cls.__name__} has no {key!r}")
        values[key] = _value(types[key], value)
    return cls(**values)


def _value(kind: Any, value: Any) -> Any:
    if is_dataclass(kind):
        return _build(kind, value)
    if not _fits(kind, value):
        raise TypeError(f"{value!r} is no {kind}")
    if isinstance(value, list):
        items = get_args(kind)
        item = items[0] if items and is_dataclass(items[0]) else None
        return tuple(_build(item, v) if item else v for v in value)
    return value


def _fits(kind: Any, value: Any) -> bool:
    """Whether a value of JSON is of the type of its field; dataclasses in lists look at their own."""
    if isinstance(kind, UnionType):
        return any(_fits(one, value) for one in get_args(kind))
    if get_origin(kind) is tuple:
        first, *others = get_args(kind)
        if not isinstance(value, list | tuple):
            return False
        kinds = [first] * len(value) if others == [...] else [first, *others]
        return len(value) == len(kinds) and all(map(_fits, kinds, value))
    return is_dataclass(kind) or type(value) is kind or (kind is float and type(value) is int)
