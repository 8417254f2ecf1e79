"""Views: cameras, lights and shading modes, how the stages sample them, and how a prior is told about them.

World is glTF's: right-handed, +Y up, the object faces +Z, the scene lives in [-1, 1]^3. Azimuth 0 is a camera
on +Z (it sees the front), azimuth 90 degrees on +X; elevation 90 looks straight down.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from magic3d_cli.settings import ViewSampling

ALBEDO, DIFFUSE, TEXTURELESS = 0, 1, 2
"""Shading modes (DreamFusion section 3.1): flat colour, Lambertian colour, Lambertian white."""

CAMERA_EMBEDDING = 23
"""Length of the vector that `Views.camera_embedding` returns."""
CAMERA_MATRIX = 16
"""Length of the vector that `Views.camera_matrix` returns."""


@dataclass(frozen=True)
class Views:
    """A batch of B views: a camera looking at the origin, a distant light, a shading mode, a plain background.

    Angles are radians. `half_height` is the visible half-height at the origin in world units, so that field of view
    and apparent size vary independently; the camera distance follows as half_height / tan(fov / 2). It may look beside
    the origin, and be rolled.
    """

    azimuth: Float[Tensor, "B"]
    elevation: Float[Tensor, "B"]
    fov: Float[Tensor, "B"]
    half_height: Float[Tensor, "B"]
    light: Float[Tensor, "B 3"]  # unit vector from the scene to the light, world space
    ambient: Float[Tensor, "B"]  # share of light that comes from everywhere, 0..1
    shading: Int[Tensor, "B"]  # ALBEDO, DIFFUSE or TEXTURELESS
    backdrop: Float[Tensor, "B 3"]  # plain background colour in [0, 1]
    solid_background: Float[Tensor, "B"]  # 1: the backdrop is used; 0: the scene's own learned background
    look_at: Float[Tensor, "B 3"] | None = None  # what is in the middle of the image; None: the origin
    roll: Float[Tensor, "B"] | None = None  # of the camera about its axis, counter-clockwise as it looks; None: none

    def __len__(self) -> int:
        return self.azimuth.shape[0]

    def __getitem__(self, index: slice | Tensor) -> Views:
        return self._each(lambda value: value[index])

    def to(self, device: torch.device | str) -> Views:
        return self._each(lambda value: value.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Views:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        changed: Any = {name: None if value is None else change(value) for name, value in values.items()}
        return Views(**changed)

    @staticmethod
    def concatenate(parts: Sequence[Views]) -> Views:
        """The views of all parts, one after the other."""

        def joined(name: str) -> Any:
            values = [getattr(part, name) for part in parts]
            if all(value is None for value in values):
                return None
            shape = next(value.shape[1:] for value in values if value is not None)
            zeros = (part.azimuth.new_zeros(len(part), *shape) for part in parts)
            return torch.cat([none if value is None else value for value, none in zip(values, zeros, strict=True)])

        return Views(**{f.name: joined(f.name) for f in fields(Views)})

    def replace(self, **changes: Tensor) -> Views:
        return replace(self, **changes)

    def turned(self, angle: float) -> Views:
        """The same views, cameras and lights turned together about the up axis by this angle, radians."""
        x, y, z = self.light.unbind(-1)
        sine, cosine = math.sin(angle), math.cos(angle)
        light = torch.stack([cosine * x + sine * z, y, cosine * z - sine * x], -1)
        return self.replace(azimuth=(self.azimuth + angle) % (2 * math.pi), light=light)

    @property
    def distance(self) -> Float[Tensor, "B"]:
        """Distance from the origin to the camera, world units."""
        return self.half_height / torch.tan(self.fov / 2)

    @property
    def position(self) -> Float[Tensor, "B 3"]:
        """Camera position in world space."""
        return self.distance[:, None] * direction(self.azimuth, self.elevation)

    def axes(self) -> tuple[Float[Tensor, "B 3"], Float[Tensor, "B 3"], Float[Tensor, "B 3"]]:
        """Unit right, up and forward vectors of each camera. Well defined at the poles too."""
        forward = -direction(self.azimuth, self.elevation)
        zero = torch.zeros_like(self.azimuth)
        right = torch.stack([torch.cos(self.azimuth), zero, -torch.sin(self.azimuth)], -1)
        up = torch.linalg.cross(right, forward)
        if self.look_at is not None:
            forward = torch.nn.functional.normalize(self.look_at - self.position, dim=-1)
            right = torch.nn.functional.normalize(torch.linalg.cross(forward, up), dim=-1)
            up = torch.linalg.cross(right, forward)
        if self.roll is not None:
            cosine, sine = torch.cos(self.roll)[:, None], torch.sin(self.roll)[:, None]
            right, up = cosine * right + sine * up, cosine * up - sine * right
        return right, up, forward

    def rays(self, size: int) -> tuple[Float[Tensor, "B H W 3"], Float[Tensor, "B H W 3"]]:
        """Origins and unit directions through the pixel centres of a square image; row 0 is the top."""
        right, up, forward = (axis[:, None, None, :] for axis in self.axes())
        centre = (torch.arange(size, device=self.fov.device, dtype=torch.float32) + 0.5) / size * 2 - 1
        slope = torch.tan(self.fov / 2)[:, None, None, None]
        x, y = centre[None, None, :, None], -centre[None, :, None, None]
        directions = torch.nn.functional.normalize(forward + slope * (x * right + y * up), dim=-1)
        return self.position[:, None, None, :].expand_as(directions), directions

    def world_to_clip(self, near: float = 0.1, far: float = 20.0) -> Float[Tensor, "B 4 4"]:
        """OpenGL clip matrix M: clip = M @ [x, y, z, 1], y up, depth in [-1, 1], square image."""
        right, up, forward = self.axes()
        rotation = torch.stack([right, up, -forward], 1)
        translation = -(rotation @ self.position[:, :, None])
        view = torch.cat([rotation, translation], 2)
        bottom = torch.tensor([0.0, 0.0, 0.0, 1.0], device=view.device).expand(len(self), 1, 4)
        view = torch.cat([view, bottom], 1)
        projection = torch.zeros(len(self), 4, 4, device=view.device)
        projection[:, 0, 0] = projection[:, 1, 1] = 1 / torch.tan(self.fov / 2)
        projection[:, 2, 2] = (far + near) / (near - far)
        projection[:, 2, 3] = 2 * far * near / (near - far)
        projection[:, 3, 2] = -1
        return projection @ view

    def camera_embedding(self) -> Float[Tensor, "B 23"]:
        """What a view-conditioned prior is told: camera, light, shading mode and backdrop, each about [-1, 1].

        Training and distillation both call this, so the two cannot disagree.
        """
        az, el = self.azimuth, self.elevation
        lit = (self.shading != ALBEDO).float()
        camera = [torch.sin(az), torch.cos(az), torch.sin(2 * az), torch.cos(2 * az), torch.sin(3 * az)]
        camera += [torch.cos(3 * az), torch.sin(el), torch.cos(el), torch.sin(2 * el), torch.cos(2 * el)]
        camera += [(self.half_height - 1) * 5, (self.fov - math.radians(40)) * 6]
        mode = [(self.shading == m).float() for m in (ALBEDO, DIFFUSE, TEXTURELESS)]
        light = [*(self.light * lit[:, None]).unbind(-1), self.ambient * lit]
        backdrop = [self.solid_background, *((self.backdrop * 2 - 1) * self.solid_background[:, None]).unbind(-1)]
        return torch.stack(camera + mode + light + backdrop, -1)

    def camera_matrix(self) -> Float[Tensor, "B 16"]:
        """What MVDream is told of each camera (2308.16512, its code's get_camera and normalize_camera).

        The 4 x 4 matrix from OpenGL's camera to a world with z up, row by row, from one unit away. That world shows the
        front of things to its azimuth 90, so that its x axis is our z axis.
        """
        right, up, forward = self.replace(azimuth=self.azimuth + math.pi / 2).axes()
        columns = torch.stack([right, up, -forward, -forward], -1)  # the last one is the camera's place
        rows = torch.stack([columns[:, 0], -columns[:, 2], columns[:, 1]], 1)
        bottom = rows.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(self), 1, 4)
        return torch.cat([rows, bottom], 1).flatten(1)


def views_from_embedding(features: Float[Tensor, "B 23"]) -> Views:
    """Inverse of `Views.camera_embedding`, but for what has no effect (albedo views' light, unused backdrops)."""
    f = features.unbind(-1)
    return Views(
        azimuth=torch.atan2(f[0], f[1]),
        elevation=torch.atan2(f[6], f[7]),
        fov=f[11] / 6 + math.radians(40),
        half_height=f[10] / 5 + 1,
        light=features[:, 15:18],
        ambient=f[18],
        shading=features[:, 12:15].argmax(-1),
        backdrop=(features[:, 20:23] + 1) / 2 * features[:, 19:20],
        solid_background=f[19],
    )


def direction(azimuth: Float[Tensor, "*b"], elevation: Float[Tensor, "*b"]) -> Float[Tensor, "*b 3"]:
    """Unit vector from the origin toward (azimuth, elevation), radians."""
    flat = torch.cos(elevation)
    return torch.stack([flat * torch.sin(azimuth), torch.sin(elevation), flat * torch.cos(azimuth)], -1)


def sample_views(
    count: int, sampling: ViewSampling, generator: torch.Generator, stratified: bool = True, progress: float = 1.0
) -> Views:
    """Draw `count` random views, on the CPU.

    Elevation is uniform over the sphere's area, not over the angle. With `stratified`, azimuths are spread
    evenly over the circle with one random offset, so that a small batch sees all sides. At a `progress` (0 to 1) of the
    stage at which `sampling` has not grown to all angles, they are drawn in to its centre.

    Where `sampling.together` is more than one, the first view of each set is drawn so, and those after it are the same
    turned round the object, camera and light. Sets lie one after the other. Raises ValueError for a part of a set.
    """
    if (together := sampling.together) > 1:
        if count % together:
            raise ValueError(f"{count} views are not whole sets of {together}")
        first = sample_views(count // together, replace(sampling, together=1), generator, stratified, progress)
        order = torch.arange(count).view(together, -1).T.flatten()
        return Views.concatenate([first.turned(2 * math.pi * k / together) for k in range(together)])[order]

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape or (count,), generator=generator)

    offsets = torch.arange(count) / count if stratified else torch.zeros(count)
    jitter = uniform(0, 1 / count) if stratified else uniform(0, 1)
    azimuth = 2 * math.pi * (offsets + jitter + uniform(0, 1, 1)) % (2 * math.pi)
    low, high = (math.sin(math.radians(e)) for e in sampling.elevation)
    elevation = torch.asin(uniform(low, high))
    if (share := sampling.share_at(progress)) < 1:
        middle = [math.radians(angle) for angle in sampling.centre]
        azimuth = middle[0] + share * (torch.remainder(azimuth - middle[0] + math.pi, 2 * math.pi) - math.pi)
        azimuth, elevation = azimuth % (2 * math.pi), middle[1] + share * (elevation - middle[1])
    camera = direction(azimuth, elevation)
    # Uniform on the spherical cap of `light_spread` around the camera direction.
    if sampling.light_by_angle:
        cosine = torch.cos(uniform(0.0, math.radians(sampling.light_spread)))
    else:
        cosine = uniform(math.cos(math.radians(sampling.light_spread)), 1.0)
    tangent = torch.nn.functional.normalize(
        torch.linalg.cross(camera, torch.randn(count, 3, generator=generator)), dim=-1
    )
    light = cosine[:, None] * camera + (1 - cosine**2).clamp(min=0).sqrt()[:, None] * tangent
    shading = torch.multinomial(torch.tensor(sampling.shading), count, replacement=True, generator=generator)
    if progress < sampling.albedo_first:
        shading = torch.full_like(shading, ALBEDO)
    drawn = Views(
        azimuth=azimuth,
        elevation=elevation,
        fov=torch.deg2rad(uniform(*sampling.fov)),
        half_height=uniform(*sampling.half_height),
        light=light,
        ambient=uniform(*sampling.ambient),
        shading=shading,
        backdrop=torch.tensor(sampling.backdrop).expand(count, 3) if sampling.backdrop else uniform(0, 1, count, 3),
        solid_background=(uniform(0, 1) < sampling.solid_background).float(),
    )
    if sampling.distance:
        drawn = drawn.replace(half_height=uniform(*sampling.distance) * torch.tan(drawn.fov / 2))
    if sampling.look_at_jitter:
        drawn = drawn.replace(look_at=sampling.look_at_jitter * torch.randn(count, 3, generator=generator))
    if sampling.roll_jitter:
        drawn = drawn.replace(roll=sampling.roll_jitter * torch.randn(count, generator=generator))
    return drawn


def turntable(
    count: int, elevation: float = 15.0, start: float = 0.0, fov: float = 40.0, half_height: float = 1.05
) -> Views:
    """`count` albedo views evenly round the object on a white backdrop; angles in degrees."""
    azimuth = torch.deg2rad(start + torch.arange(count) * 360.0 / count)
    full = torch.ones(count)
    elevations = full * math.radians(elevation)
    return Views(
        azimuth=azimuth,
        elevation=elevations,
        fov=full * math.radians(fov),
        half_height=full * half_height,
        light=direction(azimuth, elevations),
        ambient=full * 0.5,
        shading=torch.full((count,), ALBEDO),
        backdrop=torch.ones(count, 3),
        solid_background=full,
    )
