"""The audits of networks A and B for the report: pages beside it, kept until the networks or the code change."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from prs_lightning import attacks
from prs_lightning.analysis.figures.inference import first_samples, on_device_of
from prs_lightning.analysis.networks import Named, NetworkPair
from prs_lightning.analysis.report import Audited
from prs_lightning.audit.checks import audit
from prs_lightning.audit.page import read_json, write
from prs_lightning.errors import ConfigError, RunError, in_one_line

ON_A_CPU, ON_AN_ACCELERATOR = 60, 500
"""Test images, where the config says nothing."""
SUBSET, QUERIES = 200, 100
"""How many survivors the further attacks meet at most; queries of Square."""


def audit_pair(
    networks: Callable[[], NetworkPair],
    *,
    folder: Path,
    key: str,
    size: int | None,
    force: bool = False,
    progress: Callable[[str], object] = print,
) -> list[Audited]:
    """Audit both networks, with the epsilon and step size of their data, 20 steps; what fails tells why.

    Args:
        networks: gives the pair; called only if one of them must be audited.
        folder: gets ``audit-a.html``, ``audit-b.html`` and their JSON.
        key: changes whenever the networks do.
        size: test images; None: fewer on a CPU than on an accelerator.
        force: audit anew what was audited already.
        progress: is given one line per audit, and one at its start.
    """
    size = size or (ON_AN_ACCELERATOR if torch.accelerator.is_available() else ON_A_CPU)
    digest = _digest(f"{key} {size}")
    found = {letter: None if force else _kept(folder, letter, digest) for letter in "AB"}
    for letter, each in found.items():
        if each is not None:
            progress(f"audit of network {letter}: kept")
    try:
        pair = None if all(found.values()) else networks()
    except (ConfigError, RunError) as error:
        return [found[letter] or Audited(letter, None, in_one_line(error), None) for letter in "AB"]
    named = {each.letter: each for each in pair.both} if pair else {}
    return [kept or _audited(pair, named[letter], folder, size, digest, progress) for letter, kept in found.items()]


def _audited(
    pair: NetworkPair | None, named: Named, folder: Path, size: int, digest: str, progress: Callable[[str], object]
) -> Audited:
    assert pair is not None
    progress(f"audit of network {named.letter} on {size} images ...")
    if (device := torch.accelerator.current_accelerator(check_available=True)) is not None:
        named.network.to(device)
    images, labels = on_device_of(named.network, first_samples(pair.test, size))
    options: dict[str, Any] = {"epsilon": pair.epsilon, "step_size": pair.step_size, "square_steps": QUERIES}
    options["subset"] = SUBSET
    try:
        found = audit(named.network, images, labels, **options)
        told = {"network": named.words, "data": "the test set", "images": len(labels), **options, "key": digest}
        page, _ = write(found, told, folder, f"audit-{named.letter.lower()}")
    except (ConfigError, RunError) as error:
        progress(f"audit of network {named.letter}: not made, {in_one_line(error)}")
        return Audited(named.letter, None, in_one_line(error), None)
    progress(f"audit of network {named.letter}: {found.verdict}")
    return Audited(named.letter, found.verdict.word, found.verdict.reason, page)


def _kept(folder: Path, letter: str, digest: str) -> Audited | None:
    """The audit that is there already, of the same network by the same code."""
    page, record = (folder / f"audit-{letter.lower()}.{ending}" for ending in ("html", "json"))
    try:
        same = page.exists() and json.loads(record.read_text())["provenance"].get("key") == digest
        verdict = read_json(record).verdict if same else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RunError):
        return None
    return Audited(letter, verdict.word, verdict.reason, page) if verdict else None


def _digest(key: str) -> str:
    """Of what an audit is made from: the networks, and the source of attacks and audit."""
    folders = (Path(__file__).parent, Path(str(attacks.__file__)).parent)
    sources = [file.read_bytes() for folder in folders for file in sorted(folder.glob("*.*")) if file.is_file()]
    return hashlib.sha256(b"".join([key.encode(), *sources])).hexdigest()
