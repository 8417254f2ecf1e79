"""A picture that the thing has to look like from one camera, as the losses see it and as a checkpoint keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from magic3d_cli.scene.views import DIFFUSE, Views, turntable


@dataclass(frozen=True)
class Camera:
    """Where a picture was taken from; the same words as `Views`, in degrees."""

    azimuth: float = 0.0
    elevation: float = 0.0
    fov: float = 40.0
    half_height: float = 1.05

    def views(self) -> Views:
        """One view in flat colours that also has normals: lit from everywhere."""
        view = turntable(1, self.elevation, self.azimuth, self.fov, self.half_height)
        return view.replace(shading=torch.full((1,), DIFFUSE), ambient=torch.ones(1))

    def project(
        self, points: Float[Tensor, "N 3"]
    ) -> tuple[Float[Tensor, "N 2"], Float[Tensor, "N"], Float[Tensor, "N"]]:
        """Place in the picture (right and down of its middle, in half-sides), depth behind the scene's middle, and how
        large a half-side of the picture is there, world units."""
        view = self.views().to(points.device)
        right, up, forward = (axis[0] for axis in view.axes())
        deep = points @ forward
        half = (view.distance + deep) * torch.tan(view.fov / 2)
        return torch.stack([points @ right / half, -(points @ up) / half], -1), deep, half


@dataclass(frozen=True)
class Reference:
    """A square picture of the thing alone, and its camera.

    Attributes:
        rgb: uint8, display-referred; where there is nothing, the colour of the thing's edge.
        mask: uint8 opacity.
        depth: 0 (near) to 1 (far), right up to scale and shift, or None.
        name: of the file that it is from.
        normals: unit vectors right, up and towards the camera, zero where nothing is, or None.
    """

    camera: Camera
    rgb: Tensor  # uint8 [S, S, 3]
    mask: Tensor  # uint8 [S, S]
    depth: Float[Tensor, "S S"] | None = None
    name: str = "picture"
    normals: Float[Tensor, "S S 3"] | None = None

    def at(self, size: int) -> tuple[Float[Tensor, "s s 3"], Float[Tensor, "s s"], Float[Tensor, "s s"] | None]:
        """Colours, opacity and depth at another size, averaged where smaller."""
        mask = self.mask.float()[None, None] / 255
        parts = [self.rgb.float().movedim(-1, 0)[None] / 255 * mask, mask]
        parts += [] if self.depth is None else [self.depth[None, None].float() * mask]
        small = F.interpolate(torch.cat(parts, 1), size=(size, size), mode="bilinear", antialias=True)[0]
        alpha = small[3].clamp(0, 1)
        straight = small / alpha.clamp(min=1e-3)
        # Where nothing is, straight colours are the picture's own: they were carried on from the edge.
        plain = F.interpolate(self.rgb.float().movedim(-1, 0)[None] / 255, size=(size, size), mode="area")[0]
        rgb = torch.where(alpha > 0.02, straight[:3].clamp(0, 1), plain).movedim(0, -1)
        return rgb, alpha, None if self.depth is None else straight[4]

    def normals_at(self, size: int) -> Float[Tensor, "s s 3"] | None:
        """The normals at another size, in world space."""
        if self.normals is None:
            return None
        small = F.interpolate(self.normals.movedim(-1, 0)[None], size=(size, size), mode="bilinear", antialias=True)
        right, up, forward = (axis[0] for axis in self.camera.views().axes())
        turned = small[0].movedim(0, -1) @ torch.stack([right, up, -forward])
        return F.normalize(turned, dim=-1, eps=1e-3)

    def to_tensors(self, prefix: str) -> dict[str, Tensor]:
        """What a checkpoint keeps beside `to_json`."""
        depth = {} if self.depth is None else {f"{prefix}.depth": self.depth.float()}
        normals = {} if self.normals is None else {f"{prefix}.normals": self.normals.float()}
        return {f"{prefix}.rgb": self.rgb, f"{prefix}.mask": self.mask, **depth, **normals}

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, **vars(self.camera)}

    @staticmethod
    def restored(prefix: str, tensors: dict[str, Tensor], meta: dict[str, Any]) -> Reference:
        """Inverse of `to_tensors` and `to_json`. Raises KeyError where something is missing."""
        camera = Camera(*(meta[key] for key in ("azimuth", "elevation", "fov", "half_height")))
        depth = tensors.get(f"{prefix}.depth")
        normals = tensors.get(f"{prefix}.normals")
        return Reference(camera, tensors[f"{prefix}.rgb"], tensors[f"{prefix}.mask"], depth, meta["name"], normals)
