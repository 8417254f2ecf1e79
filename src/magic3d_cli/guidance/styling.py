"""What the priors of a run take of a style: the built-in one its palette, any other its picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from magic3d_cli.guidance.adapters import Adapter, check_shown, image_prompt
from magic3d_cli.guidance.diffusers.adapted import check_fits
from magic3d_cli.guidance.diffusers.catalogue import no_style
from magic3d_cli.guidance.priors import ChosenPrior
from magic3d_cli.settings import StagePrior
from magic3d_cli.style import Style


def check_style(priors: Mapping[str, Sequence[StagePrior]], adapters: Sequence[Adapter], style: Style | None) -> None:
    """Raises UsageError for a prior that cannot take in a style, and for an IP-Adapter without one.

    Those with a volume are painted in its palette; any other is shown its picture by an IP-Adapter that fits it.
    """
    check_shown(adapters, style is not None)
    if style is None:
        return
    for prior in (prior for some in priors.values() for prior in some):
        shown = image_prompt(adapters) if prior.takes_any_words else None
        if shown is None and not prior.has_volume:
            raise no_style(prior.name)
        if shown is not None and isinstance(prior, ChosenPrior):
            check_fits(shown, prior.spec)


def told_of_style(
    priors: Mapping[str, Sequence[StagePrior]], adapters: Sequence[Adapter], style: Style | None
) -> list[str]:
    """For a person: what the priors take of a style."""
    if style is None:
        return []
    some = [prior for stage in priors.values() for prior in stage]
    notes = [style.summary] if any(not prior.open_vocabulary for prior in some) else []
    names = dict.fromkeys(Path(prior.name).name for prior in some if prior.takes_any_words)
    if (shown := image_prompt(adapters)) is not None and names:
        notes.append(
            f"{style.name} is shown to {', '.join(names)} by {shown.path.name}, at a scale of {shown.weight:g}."
        )
    return notes
