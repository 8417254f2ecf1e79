"""The Hugging Face hub: what of a repository is in the cache, and how the rest is fetched and told about.

HF_HOME, HF_HUB_OFFLINE and HF_TOKEN are honoured by huggingface_hub itself.
"""

from __future__ import annotations

import errno
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from magic3d_cli.errors import EnvironmentFault, first_line
from magic3d_cli.guidance.diffusers.files import is_whole

INSTALLED, PARTIAL, ABSENT = "installed", "downloaded in part", "not downloaded"
INTERVAL = 30.0
"""Seconds between lines about a download where there is no terminal for the hub's own bars."""
_NETWORK = {"huggingface_hub", "httpx", "httpcore", "httpx2", "httpcore2", "requests", "urllib3"}


@dataclass(frozen=True)
class HubPrior:
    """A model on the hub: its commit where pinned, its licence and whether that has to be accepted, its download.

    A commit is pinned where public code of several authors quotes it for the same repository. None was found for
    DeepFloyd's M and L and for Zero-1-to-3's: theirs is the newest, and checkpoints hold the hash of what was used.
    """

    repository: str
    revision: str | None = None
    licence: str = ""
    gated: bool = False
    gigabytes: float = 0.0  # of what is fetched, about

    @property
    def pinned(self) -> bool:
        """Whether its files can never change."""
        return re.fullmatch("[0-9a-f]{40}", self.revision or "") is not None

    @property
    def page(self) -> str:
        return f"https://huggingface.co/{self.repository}"


def state_of(source: HubPrior) -> str:
    """INSTALLED, PARTIAL or ABSENT, from the cache alone."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source.repository, "model_index.json", revision=source.revision)
    if not isinstance(found, str):
        return ABSENT
    return INSTALLED if is_whole(Path(found).parent) else PARTIAL


def snapshot(source: HubPrior, patterns: list[str], state: str, otherwise: str, tell: Callable[[str], None]) -> Path:
    """The files of a hub repository that match `patterns`; from the cache alone when it is pinned and complete there.

    Size and licence are told before a download, and so once; `otherwise` is what to do where it fails.
    Raises EnvironmentFault when there is no such repository, its licence is not accepted or the network fails.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    fetch = partial(snapshot_download, source.repository, revision=source.revision, allow_patterns=patterns)
    if state == INSTALLED and source.pinned:
        with suppress(LocalEntryNotFoundError):  # the hub's own list may know of a file that is missing
            return Path(fetch(local_files_only=True))
    try:
        if state == ABSENT and not source.gigabytes:
            source = _measured(source, patterns)
        if state != INSTALLED:
            tell(_announcement(source, state))
        with _arrivals(source, tell):
            return Path(fetch())
    except GatedRepoError as error:
        raise EnvironmentFault(
            f"The licence of {source.repository} has to be accepted before it can be downloaded.",
            f"Accept it on {source.page}, then log in with: hf auth login",
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise EnvironmentFault(
            f"There is no model {source.repository!r} on the Hugging Face hub, or it is private.",
            "See the known names with: magic3d priors; for a private model log in with: hf auth login",
        ) from error
    except Exception as error:
        if not _is_network(error):
            raise
        note = "\nIts licence has to be accepted there first." if source.gated else ""
        raise EnvironmentFault(
            f"{source.repository} is not in the cache, or not all of it, and cannot be downloaded: {first_line(error)}",
            "Connect to the internet and unset HF_HUB_OFFLINE, then run the same command again: it goes on where it "
            f"stopped. Or {otherwise}. See {source.page}{note}",
        ) from error


def _measured(source: HubPrior, patterns: list[str]) -> HubPrior:
    """The source with the size and the licence that the hub tells."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import filter_repo_objects

    info = HfApi().model_info(source.repository, revision=source.revision, files_metadata=True)
    files = filter_repo_objects(info.siblings or [], allow_patterns=patterns, key=lambda file: file.rfilename)
    licence = info.card_data.get("license") if info.card_data else None
    total = sum(file.size or 0 for file in files)
    return replace(source, gigabytes=total / 1e9, licence=str(licence or ""))


def _announcement(source: HubPrior, state: str) -> str:
    size = f", about {_size(source.gigabytes)}" if source.gigabytes else ""
    licence = f"licence {source.licence}" if source.licence else "see its licence there"
    rest = "the rest of " if state == PARTIAL else ""
    return (
        f"Downloading {rest}{source.repository}{size}, {licence}: {source.page}. "
        "If interrupted, the same command goes on."
    )


@contextmanager
def _arrivals(source: HubPrior, tell: Callable[[str], None]) -> Iterator[None]:
    """Tell at intervals how much of a download has arrived, where the hub shows no bars of its own."""
    from huggingface_hub import constants
    from huggingface_hub.utils import are_progress_bars_disabled

    if not are_progress_bars_disabled():
        yield
        return
    blobs = Path(constants.HF_HUB_CACHE) / f"models--{source.repository.replace('/', '--')}" / "blobs"
    total = f" of about {_size(source.gigabytes)}" if source.gigabytes else ""
    done = threading.Event()

    def report() -> None:
        while not done.wait(INTERVAL):
            with suppress(OSError):  # a file was renamed meanwhile: it has all arrived
                arrived = sum(path.stat().st_size for path in blobs.iterdir())
                tell(f"{source.repository}: {_size(arrived / 1e9)}{total} are here")

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _is_network(error: Exception) -> bool:
    """Whether a download failed on the way, and not on this machine's disk."""
    if isinstance(error, OSError):
        return error.filename is None and error.errno not in (errno.ENOSPC, errno.EDQUOT)
    # hf_xet, which fetches big files, knows no errors but RuntimeError.
    return isinstance(error, RuntimeError) or type(error).__module__.partition(".")[0] in _NETWORK


def _size(gigabytes: float) -> str:
    return f"{gigabytes:.3g} GB" if gigabytes >= 0.1 else f"{1000 * gigabytes:.2g} MB"
