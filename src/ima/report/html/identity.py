"""What a page is about, to be signed: which network and data, when, by whom and for what."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ima.evaluation.results import Results
from ima.evaluation.settings import Settings
from ima.report.entries import PageEntry, data_name
from ima.report.html.blocks import Identity
from ima.report.scrub import scrub
from ima.report.style import norm_name
from ima.report.words import counted, listed

HOW = (
    "The same weights and data give the same digests. That of a file: `sha256sum FILE`. That of "
    "the weights in memory is made of the state dict, BLAKE2b with 128 bits; that of the data of "
    "each sample's id, image and target in their order, as `ima.evaluation.digest` says: evaluate "
    "the same data again, with any attack, and compare."
)
"""How digests are checked."""


def identity_of(entries: Sequence[PageEntry]) -> Identity:
    """The lines of the box, without those that nothing is known of."""
    first = entries[0].main[0].settings
    lines = [
        ("Purpose", _stated(entries, lambda told: told.purpose)),
        ("Author", _stated(entries, lambda told: told.author)),
        *_networks(entries),
        *_each("Data", entries, _data),
        ("Made on", _stated(entries, lambda told: told.made)),
        (
            "Noise",
            ", ".join(filter(None, [f"measured in {norm_name(first.norm)}", _bounds(first)])),
        ),
    ]
    return Identity(tuple((name, text) for name, text in lines if text))


def title_of(entries: Sequence[PageEntry]) -> str:
    """The title that was stated; empty where there is none, or not one."""
    found = {results.settings.title for one in entries for results in one.main}
    return found.pop() if len(found) == 1 else ""


def told_digests(entries: Sequence[PageEntry]) -> bool:
    """Whether a digest of weights or of data is on the page."""
    told = (results.settings for one in entries for results in one.main)
    return any(one.file or one.network or one.data_sha256 for one in told)


def _stated(entries: Sequence[PageEntry], get: Callable[[Settings], str]) -> str:
    found = dict.fromkeys(get(results.settings) for one in entries for results in one.main)
    return listed([text for text in found if text])


def _each(
    name: str, entries: Sequence[PageEntry], told: Callable[[PageEntry, Results], str]
) -> list[tuple[str, str]]:
    """A line for each network and seed, or one where they are alike."""
    found = {
        one.named(source): told(one, source.results[one.which])
        for one in entries
        for source in one.sources
        if one.which in source.results
    }
    if len(set(found.values())) == 1:
        return [(name, next(iter(found.values())))]
    return [(f"{name}: {label}", text) for label, text in found.items()]


def _networks(entries: Sequence[PageEntry]) -> list[tuple[str, str]]:
    """A line for each network and seed; one with their names where no more is known."""
    lines = _each("Network", entries, _network)
    if len(lines) > 1:
        return lines
    labels = listed([one.label for one in entries])
    return [(name, "; ".join(filter(None, [labels, text]))) for name, text in lines]


def _network(entry: PageEntry, results: Results) -> str:
    told = results.settings
    weights = scrub(told.about.get("weights", "")) or (told.weights and f"{told.weights} weights")
    parts = [
        str(weights),
        f"SHA-256 of the file of weights: {told.file}" if told.file else "",
        f"digest of the weights in memory: {told.network}" if told.network else "",
    ]
    return "; ".join(filter(None, parts))


def _data(entry: PageEntry, results: Results) -> str:
    told = results.settings
    name = data_name(entry.config) or str(scrub(told.data))
    parts = [
        ", ".join(filter(None, [name, counted(results)])),
        f"SHA-256 of inputs, targets and ids: {told.data_sha256}" if told.data_sha256 else "",
    ]
    return "; ".join(filter(None, parts))


def _bounds(settings: Settings) -> str:
    told = settings.bounds_told
    if told in ("", "none"):
        return "values without bounds" if told else ""
    return f"values {told}"
