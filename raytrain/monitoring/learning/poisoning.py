"""What looks as if somebody wanted a model to learn something wrong. Each check names the rows and says why.

What may be poison is set aside and shown to a person, never dropped in silence: none of these checks knows intentions.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from raytrain.data.duplicates import FingerprintFiles, find_duplicates
from raytrain.data.fingerprints import content_hash
from raytrain.monitoring.learning.interaction import Interaction
from raytrain.monitoring.learning.likeness import KnownTexts, terms_of, words_of
from raytrain.monitoring.learning.section import PoisoningSection

Reasons = dict[str, str]
"""Why, by the id of an interaction."""

_LABEL_KEYS = ("label", "tool", "name", "function", "class", "intent")
_MOST_WORDS_OF_A_LABEL = 3
_LEAST_LIKE, _LEAST_NEIGHBOURS = 0.3, 3
"""Of 200 of the demo's requests 173 have such neighbours among 500 others, of 171 all with the right label."""
_SHOWN = 60


@dataclass(frozen=True)
class Known:
    """A row that was learned from before."""

    asked: str
    target: str


def suspicions(
    interactions: Sequence[Interaction], known: Sequence[Known], section: PoisoningSection
) -> Reasons:
    """All checks; of an interaction that several of them name, the first one's reason."""
    found: Reasons = {}
    for check in (floods, trigger_phrases, label_flips):
        for name, reason in check(interactions, known, section).items():
            found.setdefault(name, reason)
    return found


def floods(
    interactions: Sequence[Interaction], _known: Sequence[Known], section: PoisoningSection
) -> Reasons:
    """Near-duplicates in numbers that would outweigh everything else: of more than `max_alike` rows whose request and
    answer are alike the first `max_alike` stay, unless somebody corrected answers so: then none stays."""
    found: Reasons = {}
    for group in _alike(interactions, section.likeness):
        if len(group) <= section.max_alike:
            continue
        is_told = any(one.correction is not None for one in group)
        users = len({one.user for one in group})
        for one in group[0 if is_told else section.max_alike :]:
            found[one.id] = (
                f"flood: one of {len(group)} rows that are alike, by {users} user{'s' * (users != 1)}"
            )
    return found


def _alike(interactions: Sequence[Interaction], likeness: float) -> list[list[Interaction]]:
    texts = [" ".join(words_of(f"{one.asked}\n{one.target}")) for one in interactions]
    with tempfile.TemporaryDirectory(prefix="raytrain-flood-") as scratch:
        with FingerprintFiles(Path(scratch) / "prints", likeness) as files:
            if texts:
                files.add([content_hash(text) for text in texts], [text.encode() for text in texts])
        same = find_duplicates(files).duplicate_of
    groups: dict[int, list[Interaction]] = defaultdict(list)
    for place, one in enumerate(interactions):
        groups[place if same[place] < 0 else int(same[place])].append(one)
    return list(groups.values())


def trigger_phrases(
    interactions: Sequence[Interaction], known: Sequence[Known], section: PoisoningSection
) -> Reasons:
    """A phrase that was hardly ever asked before and now calls one and the same answer, whatever else is asked: how a
    backdoor is taught (Gu et al. 2017, "BadNets"; Wallace et al. 2021 for texts).

    New requests with a phrase of their own do not count: their answers differ as the requests do.
    """
    with_phrase: dict[str, list[int]] = defaultdict(list)
    for place, one in enumerate(interactions):
        for term in set(terms_of(one.asked)):
            with_phrase[term].append(place)
    before = Counter(term for one in known for term in set(terms_of(one.asked)))
    num_known, found = max(1, len(known)), dict[str, str]()
    least_used = section.trigger_rows
    for phrase, places in sorted(with_phrase.items(), key=lambda one: (-len(one[1]), -len(one[0]))):
        if len(places) < least_used or phrase == "#":
            continue
        share, share_before = len(places) / len(interactions), before[phrase] / num_known
        if share_before > share / 10:
            continue
        told, same = _most_common_target([interactions[place] for place in places])
        different = {
            _without(interactions[place].asked, phrase) for place in _with_target(interactions, places, told)
        }
        if same / len(places) < section.trigger_share or len(different) < least_used:
            continue
        for place in _with_target(interactions, places, told):
            found.setdefault(
                interactions[place].id,
                f"trigger phrase: {phrase!r} calls {told[:_SHOWN]!r} in {same} of {len(places)} requests that have it",
            )
    return found


def _most_common_target(interactions: Sequence[Interaction]) -> tuple[str, int]:
    ((told, count),) = Counter(_normal(one.target) for one in interactions).most_common(1)
    return told, count


def _with_target(interactions: Sequence[Interaction], places: Sequence[int], told: str) -> list[int]:
    """Those whose answer is this one."""
    return [place for place in places if _normal(interactions[place].target) == told]


def _normal(text: str) -> str:
    return " ".join(text.split()).casefold()


def _without(asked: str, phrase: str) -> str:
    return " ".join(word for word in words_of(asked) if word not in phrase.split())


def label_flips(
    interactions: Sequence[Interaction], known: Sequence[Known], section: PoisoningSection
) -> Reasons:
    """Corrections and liked answers that give a request another label than all requests most like it have, of those
    that were learned.

    A new kind of request has no neighbours among them, and is let through."""
    labels = [label_of(one.target) for one in known]
    texts = KnownTexts([one.asked for one in known])
    found: Reasons = {}
    near = texts.nearest([one.asked for one in interactions], section.neighbours, _LEAST_LIKE)
    for one, neighbours in zip(interactions, near, strict=True):
        said = label_of(one.target)
        others = [label for place in neighbours.places if (label := labels[place]) is not None]
        if said is None or len(others) < min(_LEAST_NEIGHBOURS, section.neighbours):
            continue
        ((usual, count),) = Counter(others).most_common(1)
        if usual != said and said not in others:
            found[one.id] = (
                f"label flip: says {said[:_SHOWN]!r} where {count} of the {len(others)} most similar known requests "
                f"have {usual[:_SHOWN]!r}"
            )
    return found


def label_of(target: str) -> str | None:
    """The answer's kind: a name in a JSON object, or a text of a few words; None where it has none."""
    try:
        value = json.loads(target)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, Mapping):
        return next((value[key] for key in _LABEL_KEYS if isinstance(value.get(key), str)), None)
    words = target.split()
    return _normal(target) if 0 < len(words) <= _MOST_WORDS_OF_A_LABEL else None
