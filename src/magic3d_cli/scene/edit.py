"""What a job knows of an edit: what it begins with, and what of it may change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from magic3d_cli.scene.field import HashField
from magic3d_cli.scene.region import Region
from magic3d_cli.scene.shape import InitialShape


@dataclass(frozen=True)
class Edit:
    """An edit of an earlier run, before its first step.

    Attributes:
        parent: the checkpoint that is edited.
        digest: of the parent's file and of what was asked.
        shape: what the scene begins with.
        begins_as_asked: whether that looks as the new prompt asks already, because the prior has a volume of it.
        kept: the parent's colours, which stay outside the region.
        share: of the parent's surface, that may change.
    """

    parent: str
    digest: str
    region: Region
    shape: InitialShape
    begins_as_asked: bool
    kept: HashField
    share: float

    def to_json(self) -> dict[str, Any]:
        """For reports."""
        return {"parent": self.parent, "digest": self.digest, "share": round(self.share, 4)}
