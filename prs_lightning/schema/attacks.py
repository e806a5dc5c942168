"""An attack in the config: the keys of a threat model, and the entries of ``grid_attacks``. No torch here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from prs_lightning.errors import ConfigError
from prs_lightning.schema.values import Count, Flag, Natural, Part, Positive, key, only

LOSSES = ("cross_entropy", "margin", "dlr", "rescaled_cross_entropy", "top_two_cross_entropy")
NORMS = ("linf", "l2")
TEMPERATURES = (1.0, 10.0, 100.0, 1000.0)
"""Those of the entry ``temperature``."""


class Entry(Part):
    """An attack of the grid: what differs from ``callbacks.robustness``."""

    epsilon: Positive = key("radius of the ball, in pixel units of images in [0, 1]; at most 1 for linf", None)
    step_size: Positive | None = key("alpha, in pixel units; null: to the edge of the ball", None)
    steps: Count = key("number of steps", None)
    norm: Annotated[Any, only(*NORMS)] = key("of the ball", None)
    loss: Annotated[Any, only(*LOSSES)] = key("what is maximised", None)
    temperature: Positive = key("T: the loss is that of logits / T", None)
    targets: Natural = key("towards each of so many other classes in turn, the likeliest first; 0: untargeted", None)
    random_start: Flag = key("start somewhere in the ball instead of at the image", None)
    restarts: Count = key("how often those that withstood are attacked again", None)
    early_exit: Flag = key("fooled at any step (worst case); false: at the last step", None)
    precision: Annotated[Any, only("float32", "bfloat16")] = key("of the gradients; successes are verified", None)
    survivors: Flag = key("it meets only those that withstood the epoch's PGD", None)
    art: Flag = key("ART's AutoAttack instead", None)
    temperatures: list[Positive] = key("the attack at each of these T in turn; the smallest robust accuracy", None)
    distance: Flag = key("distance to the decision boundary instead; beside it only `norm`", None)


BESIDE: dict[str, Any] = {"survivors": False, "art": False, "temperatures": (), "distance": False}
"""The keys of an entry that no threat model has, and what they are where they are not given."""
THREAT = tuple(name for name in Entry.model_fields if name not in BESIDE)
"""The keys of a threat model."""


NAMED: dict[str, dict[str, Any]] = {
    "temperature": {"temperatures": TEMPERATURES},
    "distance": {"distance": True, "norm": "linf"},
    "distance_l2": {"distance": True, "norm": "l2"},
    "autoattack": {"art": True},
}
"""Entries that a name alone stands for."""


def entry_of(name: str) -> dict[str, Any] | None:
    """The entry that a name stands for: ``fgsm``, ``bim5``, ``pgd100``, a loss, ``temperature``, ``distance``,
    ``distance_l2``, ``autoattack``; None for any other."""
    if name == "fgsm":
        return {"steps": 1, "step_size": None, "random_start": False}
    if found := re.fullmatch(r"(bim|pgd)([1-9][0-9]*)", name):
        return {"steps": int(found[2])} | ({"random_start": False} if found[1] == "bim" else {})
    if name in LOSSES:
        return {"loss": name, "survivors": True}
    return NAMED.get(name)


def resolved(
    entries: Mapping[str, Mapping[str, Any] | None] | Sequence[str], threat: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """All values of each attack of the grid, those of ``BESIDE`` among them.

    Args:
        entries: names as for `entry_of`; or for each name what differs from ``threat``, and keys of ``BESIDE`` (an
            entry that is null is left out, a step size that is null goes to the edge of the ball).
        threat: all values of the epoch's own.

    Raises:
        ConfigError: a name that stands for nothing, an entry with a key that no threat model has, or one that is not
            what its name says: the number would carry the name of another attack.
    """
    meant = {name: entry_of(name) for name in entries}
    if not isinstance(entries, Mapping):
        if unknown := [name for name, entry in meant.items() if entry is None]:
            known = ", ".join(["fgsm", "bim5", "pgd100", *LOSSES, *NAMED])
            raise ConfigError(
                f"grid_attacks={unknown[0]!r} is unknown: expected one of {known}, or an entry of its own"
            )
        entries = meant
    attacks = {name: _attack(name, entry, threat) for name, entry in entries.items() if entry is not None}
    for name, attack in attacks.items():
        expected = meant[name]
        if expected is not None and attack != _attack(name, expected, threat):
            raise ConfigError(f"grid_attacks.{name}={entries[name]} is not what {name} says: give it another name")
        if attack["distance"] and expected is None:
            raise ConfigError(f"grid_attacks.{name} is a distance and no share: call it distance, or distance_l2")
    return attacks


def _attack(name: str, entry: Mapping[str, Any], threat: Mapping[str, Any]) -> dict[str, Any]:
    if unknown := sorted(entry.keys() - threat.keys() - BESIDE.keys()):
        raise ConfigError(f"grid_attacks.{name} has no {', '.join(unknown)}: expected some of {', '.join(threat)}")
    if entry.get("distance") and (ignored := sorted(entry.keys() - {"distance", "norm"})):
        raise ConfigError(f"grid_attacks.{name}: no distance depends on {', '.join(ignored)}: leave it out")
    attack = {**threat, **BESIDE, **entry}
    attack["temperatures"] = tuple(map(float, attack["temperatures"]))
    if attack["temperatures"] and "temperature" in entry:
        raise ConfigError(f"grid_attacks.{name} has temperature and temperatures: expected one of them")
    if attack["step_size"] is None:
        attack["step_size"] = attack["epsilon"]
    for length in ("epsilon", "step_size") if attack["norm"] == "linf" else ():
        if attack[length] > 1:
            raise ConfigError(
                f"grid_attacks.{name}: {length}={attack[length]:g}: expected at most 1, for pixels lie in [0, 1]; or "
                "norm: l2"
            )
    if not attack["random_start"] and "restarts" not in entry:
        attack["restarts"] = 1
    return attack


def refuse_taken(names: Iterable[str], steps: int) -> None:
    """Raise ConfigError for an attack of the grid under the name of a number of every epoch."""
    own = f"pgd{steps}"
    for name in (own, f"{own}_audited", "zero_gradient", "masking_gap", "gradient_noise"):
        if name in names:
            raise ConfigError(f"grid_attacks.{name} is measured at every epoch already: give it another name")
