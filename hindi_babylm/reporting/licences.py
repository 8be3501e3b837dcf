"""The licences of training texts, and which of them the card of a model can state."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Source:
    """A source of a recipe as a model card tells it: `licences` are identifiers of the hub, where they are known."""

    name: str
    origin: str
    licence: str
    licences: tuple[str, ...] = ()
    note: str = ""


def sources_of(recipe: Mapping[str, Any], names: Mapping[str, str]) -> Iterator[Source]:
    """Yield the sources of a resolved recipe; `names` holds what a local path is called in public.

    >>> recipe = {"corpus": {"sources": [{"hub_id": "owner/texts", "licence": "CC BY 4.0"}, {"path": "/data/x/a.txt"}]}}
    >>> for source in sources_of(recipe, {"/data/x/a.txt": "a.txt"}):
    ...     print(source.name, source.licences, source.licence)
    owner/texts ('cc-by-4.0',) CC BY 4.0
    a.txt () not stated
    """
    for source in recipe["corpus"]["sources"]:
        if "bundled" in source:
            yield from BUNDLED.values() if source["bundled"] == "all" else [BUNDLED[source["bundled"]]]
            continue
        stated = str(source.get("licence", "")).strip()
        identifier = "-".join(stated.lower().split())
        origin = "local files, which are not public"
        if "hub_id" in source and str(source["hub_id"]) not in names:  # else it is a folder laid out like a dataset
            link = f"https://huggingface.co/datasets/{source['hub_id']}"
            details = [f"{key} {source[key]}" for key in ("config", "split", "revision") if source.get(key)]
            origin = ", ".join([f"[dataset of the hub]({link})", *details])
        label = str(source.get("name") or source.get("hub_id") or source.get("path"))
        known = (identifier,) if identifier in IDENTIFIERS else ()
        yield Source(names.get(label, label), origin, stated or "not stated", known)


def model_licence(sources: Sequence[Source]) -> str | None:
    """Return the hub's identifier of the strictest licence of the sources, or None where there is no such.

    A text of which no licence is stated leaves the question open, and so do licences of which none contains the
    others: only CC0, CC BY and CC BY-SA form a chain, and a text under CC BY-SA 3.0 may be passed on under 4.0.

    >>> model_licence([BUNDLED["premchand_stories"], BUNDLED["pratham_storyweaver"]])
    'cc-by-4.0'
    >>> model_licence(list(BUNDLED.values()))
    'cc-by-sa-4.0'
    """
    stated = {identifier for source in sources for identifier in source.licences}
    if not all(source.licences for source in sources) or not stated:
        return None
    if len(stated) > 1:
        if not stated <= set(CHAIN):
            return None
        strictest = max(stated, key=CHAIN.index)
        stated = {"cc-by-sa-4.0" if strictest == "cc-by-sa-3.0" else strictest}
    (licence,) = stated
    return licence if licence in IDENTIFIERS else None


PUBLIC_DOMAIN = "public-domain"  # of some countries: no identifier of the hub says that

# From the freest to the strictest: a work with parts under several of them can be passed on under the last.
CHAIN = (PUBLIC_DOMAIN, "cc0-1.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0")

# Those identifiers of the hub under which text is published.
IDENTIFIERS = {
    *("apache-2.0", "mit", "unlicense", "gfdl", "odbl", "odc-by", "pddl", "cc0-1.0"),
    *("cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nd-4.0"),
    *("cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0"),
    *("cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0"),
}

_BUNDLED_ORIGIN = "part of hindi-babylm (`hindi_babylm/data/corpus`)"

# What data/corpus/README.md says of each bundled file, in short.
BUNDLED: dict[str, Source] = {
    "pratham_storyweaver": Source(
        "pratham_storyweaver",
        _BUNDLED_ORIGIN,
        "CC BY 4.0",
        ("cc-by-4.0",),
        "Children's picture-book stories of Pratham Books, from StoryWeaver (https://storyweaver.org.in), most of them "
        "translated into Hindi. Changes: illustrations, credits and markup left out. A few amateur stories contain "
        "spelling mistakes.",
    ),
    "premchand_stories": Source(
        "premchand_stories",
        _BUNDLED_ORIGIN,
        "public domain in India",
        (PUBLIC_DOMAIN,),
        "144 short stories by one writer, Premchand (1880-1936), in partly archaic Hindi. They show caste, communal, "
        "colonial and gender attitudes of their time, violence and death. Stories first printed in 1931-1936 may still "
        "be protected in the United States.",
    ),
    "hindi_wikipedia": Source(
        "hindi_wikipedia",
        _BUNDLED_ORIGIN,
        "CC BY-SA 4.0, a part CC BY-SA 3.0 or 4.0",
        ("cc-by-sa-4.0",),
        "Paragraphs by the contributors of Hindi Wikipedia (https://hi.wikipedia.org), of uneven topics, some of them "
        "machine translations. Statements are not checked and may be outdated, and living persons are named. Changes: "
        "markup, references, headings and lists removed, paragraphs dropped.",
    ),
    "common_voice_sentences": Source(
        "common_voice_sentences",
        _BUNDLED_ORIGIN,
        "CC0 1.0",
        ("cc0-1.0",),
        "Short everyday sentences of Mozilla Common Voice, many built as translations from English, with slips of "
        "ergative and agreement and everyday gender clichés.",
    ),
}
