"""Words about `lib.data.scenes`: relations, captions that are true, edits that make them false, token numbers.

A caption speaks of some objects: "a small striped red circle left of a blue star on a dotted background". It holds for
a scene if its phrases fit different objects of the scene, if the relation holds between the objects of the first two
phrases, and if the background is the one named. A caption does not have to name every object.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, permutations

import numpy as np
import torch
from torch import Tensor

from lib.data.scene_factors import BACKGROUNDS, COLOURS, SHAPES, SIZES, TEXTURES, Factors
from lib.data.scene_relations import POSITIONS, RELATIONS, places, relations
from lib.data.scenes import Scenes

__all__ = [
    "LEXICON",
    "TEMPLATES",
    "VOCABULARY",
    "Caption",
    "captions",
    "captions_hold",
    "edit_captions",
    "encode_captions",
]

TEMPLATES = ("{}", "a picture of {}", "there is {}", "here we see {}", "an image that shows {}")
_WORDS = {"size": SIZES, "texture": TEXTURES, "colour": COLOURS, "shape": SHAPES, "position": POSITIONS}

# What each word that describes an object is about.
LEXICON = {word: kind for kind, words in _WORDS.items() if kind != "position" for word in words}

_PHRASES = (
    *LEXICON,
    *POSITIONS,
    *RELATIONS,
    *BACKGROUNDS,
    *TEMPLATES,
    "a an the object at the and on background nothing",
)
# Token numbers are positions in this list; 0 fills up, 1 stands for any other word.
VOCABULARY = ("<pad>", "<unk>", *sorted({word for phrase in _PHRASES for word in phrase.split()} - {"{}"}))


@dataclass(frozen=True)
class Caption:
    """What is said of a scene; ``str(caption)`` is the sentence.

    Attributes:
        phrases: for each object that is named: attribute ("size", "texture", "colour", "shape", "position") -> word.
        slots: the objects that the phrases were written about.
        relation: between the first two phrases, out of `RELATIONS`; empty: none.
        background: its word; empty: not named.
        template: the frame of the sentence, with {} for what is said.
        article: "a" or "the".
    """

    phrases: tuple[dict[str, str], ...]
    slots: tuple[int, ...] = ()
    relation: str = ""
    background: str = ""
    template: str = "{}"
    article: str = "a"

    def __str__(self) -> str:
        parts = [self._noun_phrase(phrase) for phrase in self.phrases]
        if self.relation:
            parts[:2] = [f"{parts[0]} {self.relation} {parts[1]}"]
        text = " and ".join(parts) or "nothing"
        return self.template.format(f"{text} on a {self.background} background" if self.background else text)

    def _noun_phrase(self, phrase: dict[str, str]) -> str:
        words = [phrase[kind] for kind in ("size", "texture", "colour", "shape") if kind in phrase]
        if "shape" not in phrase:
            words.append("object")
        article = "an" if self.article == "a" and words[0][0] in "aeiou" else self.article
        place = f" at the {phrase['position']}" if "position" in phrase else ""
        return f"{article} {' '.join(words)}{place}"


def _described(factors: Factors) -> list[dict[int, dict[str, str]]]:
    """For each scene: slot -> attribute -> word, for the objects that are present."""
    codes = {kind: getattr(factors, kind).tolist() for kind in ("size", "texture", "colour", "shape")}
    codes["position"] = places(factors).tolist()
    return [
        {k: {kind: _WORDS[kind][codes[kind][i][k]] for kind in codes} for k, there in enumerate(row) if there}
        for i, row in enumerate(factors.present.tolist())
    ]


def captions(
    painted: Scenes,
    attributes: Sequence[str] = ("colour", "shape"),
    *,
    named: Tensor | None = None,
    relation: Sequence[str] = (),
    background: bool = False,
    reverse: bool = False,
    template: str = "{}",
    article: str = "a",
) -> list[Caption]:
    """True captions, one a scene.

    Args:
        painted: scenes.
        attributes: what is said of each object: out of "size", "texture", "colour", "shape", "position".
        named: slots of the objects to speak of, in this order, (N, M); absent ones are left out. Default: all.
        relation: the first of these `RELATIONS` that holds between the first two objects is named (none if none does).
        background: name the background's pattern.
        reverse: name the objects in reverse order (with the relation that holds then): a paraphrase.
        template: frame of the sentence, see `TEMPLATES`.
        article: "a" or "the".

    Raises:
        ValueError: unknown attribute, relation or article, a template without {}, or `named` of another length.
    """
    if unknown := [kind for kind in attributes if kind not in _WORDS]:
        raise ValueError(f"attributes: out of {', '.join(_WORDS)}; got {', '.join(unknown)}")
    if unknown := [word for word in relation if word not in RELATIONS]:
        raise ValueError(f"relation: out of {', '.join(RELATIONS)}; got {', '.join(unknown)}")
    if template.count("{}") != 1 or article not in ("a", "the"):
        raise ValueError(f"template needs one {{}}, article is a or the; got {template!r}, {article!r}")
    if named is not None and (named.ndim != 2 or len(named) != len(painted)):
        raise ValueError(f"named: shape ({len(painted)}, M), got {tuple(named.shape)}")
    holds = relations(painted) if relation else None
    grounds = painted.background.tolist()
    wanted = named.tolist() if named is not None else [range(painted.present.shape[1])] * len(painted)
    out = []
    for i, objects in enumerate(_described(painted)):
        slots = [k for k in wanted[i] if k in objects][:: -1 if reverse else 1]
        word = ""
        if holds is not None and len(slots) > 1:
            row = holds[i, slots[0], slots[1]].tolist()
            word = next((name for name in relation if row[RELATIONS.index(name)]), "")
        out.append(
            Caption(
                tuple({kind: objects[k][kind] for kind in attributes} for k in slots),
                tuple(slots),
                word,
                BACKGROUNDS[grounds[i]] if background else "",
                template,
                article,
            )
        )
    return out


def captions_hold(sentences: Sequence[Caption], painted: Scenes) -> Tensor:
    """Whether caption i is true of scene i (see the top of this module), (N,) bool.

    Raises:
        ValueError: not one caption a scene.
    """
    if len(sentences) != len(painted):
        raise ValueError(f"one caption a scene: {len(sentences)} captions, {len(painted)} scenes")
    facts, holds = _described(painted), relations(painted)
    grounds = painted.background.tolist()
    return torch.tensor([_holds(c, facts[i], holds[i], grounds[i]) for i, c in enumerate(sentences)], dtype=torch.bool)


def _holds(caption: Caption, objects: dict[int, dict[str, str]], related: Tensor, ground: int) -> bool:
    if caption.background and caption.background != BACKGROUNDS[ground]:
        return False
    fitting = [
        [k for k, words in objects.items() if all(words[kind] == word for kind, word in phrase.items())]
        for phrase in caption.phrases
    ]
    for slots in permutations(objects, len(fitting)):
        if all(slot in fits for slot, fits in zip(slots, fitting, strict=True)) and (
            not caption.relation or bool(related[slots[0], slots[1], RELATIONS.index(caption.relation)])
        ):
            return True
    return False


def edit_captions(
    sentences: Sequence[Caption], painted: Scenes, seed: int = 0, kinds: Sequence[str] = ("colour", "shape")
) -> list[Caption]:
    """Hard negatives: each caption with one word changed (or two exchanged) so that it no longer holds.

    New words are those that occur in some other of the captions, so that a negative cannot be told by its words alone.
    An article follows its noun ("a red" becomes "an orange").

    Args:
        sentences: captions, one a scene.
        painted: the scenes.
        seed: of the choices; the kind is drawn first, then the word.
        kinds: what may change: "size", "texture", "colour", "shape", "position" (one word of it), "relation",
            "background", or "swap": two objects exchange one attribute (binding of attributes to objects).

    Raises:
        ValueError: unknown kind, not one caption a scene, or a caption of which no such change is false.
    """
    allowed = (*_WORDS, "relation", "background", "swap")
    if unknown := [kind for kind in kinds if kind not in allowed]:
        raise ValueError(f"kinds: out of {', '.join(allowed)}; got {', '.join(unknown)}")
    if len(sentences) != len(painted):
        raise ValueError(f"one caption a scene: {len(sentences)} captions, {len(painted)} scenes")
    facts, holds, grounds = _described(painted), relations(painted), painted.background.tolist()
    words: dict[str, list[str]] = {
        kind: sorted({p[kind] for c in sentences for p in c.phrases if kind in p}) for kind in _WORDS
    }
    words["relation"] = sorted({c.relation for c in sentences} - {""})
    words["background"] = sorted({c.background for c in sentences} - {""})
    out = []
    for i, caption in enumerate(sentences):
        rng = np.random.default_rng((seed, 0xED17, i))
        edits = (
            edited
            for kind in rng.permutation(np.array(kinds, dtype=object))
            for edited in _shuffled(list(_edits(caption, kind, words)), rng)
            if not _holds(edited, facts[i], holds[i], grounds[i])
        )
        chosen = next(edits, None)
        if chosen is None:
            raise ValueError(f"caption {i} ({str(caption)!r}) has no false edit of {', '.join(kinds)}")
        out.append(chosen)
    return out


def _shuffled(items: list[Caption], rng: np.random.Generator) -> Iterator[Caption]:
    return (items[j] for j in rng.permutation(len(items)))


def _edits(caption: Caption, kind: str, words: dict[str, list[str]]) -> Iterator[Caption]:
    """Every change of one kind, true or false."""
    if kind == "relation":
        yield from (replace(caption, relation=word) for word in words[kind] if word != (caption.relation or word))
    elif kind == "background":
        yield from (replace(caption, background=word) for word in words[kind] if word != (caption.background or word))
    elif kind == "swap":
        for a, b in combinations(range(len(caption.phrases)), 2):
            one, two = caption.phrases[a], caption.phrases[b]
            for attribute in sorted(one.keys() & two.keys() - {"position"}):
                yield _with(_with(caption, a, attribute, two[attribute]), b, attribute, one[attribute])
    else:
        for a, phrase in enumerate(caption.phrases):
            for word in words[kind] if kind in phrase else ():
                if _one_word(phrase[kind], word):
                    yield _with(caption, a, kind, word)


def _with(caption: Caption, index: int, kind: str, word: str) -> Caption:
    phrases = list(caption.phrases)
    phrases[index] = phrases[index] | {kind: word}
    return replace(caption, phrases=tuple(phrases))


def _one_word(old: str, new: str) -> bool:
    """They differ in just one word."""
    a, b = old.split(), new.split()
    return len(a) == len(b) and sum(x != y for x, y in zip(a, b, strict=True)) == 1


def encode_captions(texts: Sequence[str | Caption], length: int | None = None) -> Tensor:
    """Token numbers of sentences: positions of their words in `VOCABULARY`.

    Args:
        texts: sentences.
        length: number of columns; default that of the longest sentence.

    Returns:
        Shape (N, length) int64, filled up with 0.

    Raises:
        ValueError: a sentence longer than `length`.
    """
    number = {word: i for i, word in enumerate(VOCABULARY)}
    rows = [[number.get(word, 1) for word in str(text).split()] for text in texts]
    longest = max((len(row) for row in rows), default=0)
    if length is not None and longest > length:
        raise ValueError(f"length: the longest sentence has {longest} words, got {length}")
    out = torch.zeros(len(rows), longest if length is None else length, dtype=torch.int64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = torch.tensor(row, dtype=torch.int64)
    return out
