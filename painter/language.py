"""What is said about landscapes: captions of a scene, and instructions with the scene they lead to."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from painter.scenes import GROUNDS, SKIES, SLOTS, TIMES, Scene

TIME_WORDS = {
    "day": ("day", "daytime", "noon", "a bright day"),
    "sunset": ("sunset", "dusk", "evening", "a warm sunset"),
    "night": ("night", "midnight", "a starry night", "nighttime"),
}
SKY_WORDS = {sky: (sky,) for sky in SKIES} | {"yellow": ("yellow", "golden"), "purple": ("purple", "violet")}
GROUND_WORDS = {
    "meadow": ("green meadow", "meadow", "grassy meadow", "grass"),
    "wheat": ("wheat field", "field of wheat", "golden wheat field"),
    "lavender": ("lavender field", "field of lavender", "lavender"),
    "clay": ("red clay", "red earth", "red desert"),
    "stone": ("grey stone", "gray stone", "bare grey rock"),
}
PLACES = {
    "left": ("on the left", "at the left"),
    "centre": ("in the centre", "in the middle", "in the center"),
    "right": ("on the right", "at the right"),
}
NUMBERS = {1: ("one mountain ridge", "a single mountain ridge", "1 mountain ridge"),
           2: ("two mountain ridges", "2 mountain ridges"),
           3: ("three mountain ridges", "3 mountain ridges")}  # fmt: skip
SNOW = {True: ("snowy peaks", "snow on the peaks", "snow-capped peaks"), False: ("no snow", "bare peaks")}
LAKE = {True: ("a lake", "a lake in front", "a calm lake"), False: ("no lake", "without a lake")}
LANDSCAPE_ONLY = (
    "Please backfill the missing parts of the picture, only the natural landscape",
    "only the natural landscape",
    "fill in the missing parts of the landscape",
    "an empty landscape, nothing else",
)


def pick(rng: np.random.Generator, words: Sequence[str]) -> str:
    return str(words[rng.integers(len(words))])


def body_name(scene: Scene) -> str:
    return "moon" if scene.time == "night" else "sun"


def phrases(scene: Scene, rng: np.random.Generator) -> dict[str, str]:
    """Each slot in words."""
    body = body_name(scene)
    there = f"{pick(rng, ('the ', 'a ', ''))}{body} {pick(rng, PLACES[scene.body])}" if scene.body != "none" else ""
    return {
        "time": pick(rng, ("at {}", "{}")).format(pick(rng, TIME_WORDS[scene.time])),
        "sky": pick(rng, ("{} sky", "a {} sky", "the sky is {}")).format(pick(rng, SKY_WORDS[scene.sky])),
        "body": there or pick(rng, (f"no {body}", f"without {pick(rng, ('a', 'the'))} {body}")),
        "ridges": pick(rng, NUMBERS[scene.ridges]),
        "snow": pick(rng, SNOW[scene.snow]),
        "lake": pick(rng, LAKE[scene.lake]),
        "ground": pick(rng, ("{}", "{}", "{} in the foreground")).format(pick(rng, GROUND_WORDS[scene.ground])),
    }


def caption(scene: Scene, rng: np.random.Generator, drop: float = 0.0) -> tuple[str, tuple[str, ...]]:
    """A caption and the slots that it names; each slot is left out with probability `drop`."""
    said = phrases(scene, rng)
    named = [slot for slot in SLOTS if rng.random() >= drop]
    if rng.random() < 0.3:
        rng.shuffle(named)
    words = [said[slot] for slot in named]
    opening = pick(rng, ("a landscape", "landscape", "a painting of a landscape", "mountains", ""))
    if "time" in named[:1]:
        opening, words = f"{opening} {words[0]}".strip(), words[1:]
    joined = ", ".join(part for part in (opening, *words) if part)
    return joined + pick(rng, ("", ".")), tuple(named)


def plain_caption(scene: Scene) -> str:
    """The one wording that thumbnails and scores use, every slot named."""
    there = f"{body_name(scene)} {PLACES[scene.body][0]}" if scene.body != "none" else f"no {body_name(scene)}"
    parts = (
        f"a landscape at {TIME_WORDS[scene.time][0]}", f"{scene.sky} sky", there, NUMBERS[scene.ridges][0],
        SNOW[scene.snow][0], LAKE[scene.lake][0], GROUND_WORDS[scene.ground][0],
    )  # fmt: skip
    return ", ".join(parts)


@dataclass(frozen=True)
class Edit:
    """An instruction, its kind, the scene it is given on and the scene it asks for (same seed)."""

    kind: str
    instruction: str
    before: Scene
    after: Scene


KINDS = ("sky", "time", "remove body", "add body", "add snow", "remove snow", "add lake", "lake to land", "ground")


def edit(scene: Scene, kind: str, rng: np.random.Generator) -> Edit:
    """An edit of `kind`; `scene` is first changed so that the edit makes sense (no snow where snow is to be added)."""
    before = suited(scene, kind)
    body = body_name(before)
    article = pick(rng, ("a", "the"))
    if kind == "sky":
        sky = str(rng.choice([s for s in SKIES if s != before.sky]))
        after = replace(before, sky=sky)
        words = pick(rng, ("make the sky {}", "change the sky to {}", "turn the sky {}", "paint the sky {}",
                           "I want a {} sky", "give it a {} sky")).format(pick(rng, SKY_WORDS[sky]))  # fmt: skip
    elif kind == "time":
        time = str(rng.choice([t for t in TIMES if t != before.time]))
        after = replace(before, time=time)
        words = pick(rng, ("make it {}", "change the time of day to {}", "turn it into {}", "set it at {}",
                           "the same place at {}")).format(pick(rng, TIME_WORDS[time]))  # fmt: skip
    elif kind == "remove body":
        after = replace(before, body="none")
        words = pick(rng, ("remove the {}", "take the {} away", "delete the {}", "erase the {}",
                           "make the {} disappear", "the sky without the {}")).format(body)  # fmt: skip
    elif kind == "add body":
        place = pick(rng, ("left", "centre", "right"))
        after = replace(before, body=place)
        words = pick(rng, ("add {} {} {}", "put {} {} {}", "draw {} {} {}", "place {} {} {}")).format(
            article, body, pick(rng, PLACES[place])
        )
    elif kind == "add snow":
        after = replace(before, snow=True)
        words = pick(rng, ("add snow to the mountains", "put snow on the peaks", "cover the peaks with snow",
                           "make the mountains snowy", "add snow", "let it snow on the mountains"))  # fmt: skip
    elif kind == "remove snow":
        after = replace(before, snow=False)
        words = pick(rng, ("remove the snow", "melt the snow", "take the snow off the mountains", "make the peaks bare",
                           "delete the snow from the peaks"))  # fmt: skip
    elif kind == "add lake":
        after = replace(before, lake=True)
        words = pick(rng, ("add a lake", "put a lake in front of the mountains", "add a calm lake", "create a lake",
                           "flood the valley with a lake"))  # fmt: skip
    elif kind == "lake to land":
        ground = before.ground if rng.random() < 0.5 else "meadow"
        after = replace(before, lake=False, ground=ground)
        words = pick(rng, ("turn the lake into {}", "replace the lake with {}", "change the lake to {}",
                           "fill the lake with {}")).format(pick(rng, GROUND_WORDS[ground]))  # fmt: skip
    elif kind == "ground":
        ground = str(rng.choice([g for g in GROUNDS if g != before.ground]))
        after = replace(before, ground=ground)
        words = pick(rng, ("change the ground to {}", "make the ground {}", "turn the ground into {}",
                           "replace the ground with {}", "turn the foreground into {}")).format(
            pick(rng, GROUND_WORDS[ground])
        )  # fmt: skip
    else:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
    return Edit(kind, words[0].upper() + words[1:] if rng.random() < 0.3 else words, before, after)


def suited(scene: Scene, kind: str) -> Scene:
    """The scene with what an edit of `kind` needs to find."""
    if kind == "remove body" and scene.body == "none":
        return replace(scene, body=scene.light)
    needed = {
        "add body": {"body": "none"},
        "add snow": {"snow": False},
        "remove snow": {"snow": True},
        "add lake": {"lake": False},
        "lake to land": {"lake": True},
    }
    return replace(scene, **needed.get(kind, {}))
