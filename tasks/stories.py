"""Little stories from a grammar whose entropy is known exactly.

    . Mia and Tom live near the lake . Mia gives Tom a red ball today .
      ^^^ ^^^ ^^^ ^^^^ ^^^^ ^^^ ^^^^ ^ ...

Every word is scored.  Some are chosen by a die and can never be predicted; some follow from the
grammar; some from the story so far, such as names, "he" or "she", and which thing it was; and some
from facts about this world: who is friends with whom, which colour a thing mostly has, which verb
mostly goes with it.  Choices are Zipf's: the i-th most likely has odds of 1/i.  The mean of -log p
under the true grammar is a floor that no model gets below.

Length: sentences, of eight words each.  Option: world names the facts.
Source: the idea of Eldan & Li 2023, arXiv:2305.07759; a known floor as in Hoffmann et al. 2022,
arXiv:2203.15556 (their E).
Expect: 0.01 nats per word above the floor at dim 32, 0.05 to 0.09 at 16, 0.9 at 4
(docs/gallery.md).
"""
import numpy as np

from . import by_weight

SHE = "Mia Ann Zoe Eva Ida Lea Amy Joy Kim Liv May Nia Pia Rita Sue Una".split()
HE = "Tom Ben Leo Max Sam Tim Jon Abe Gus Hal Ian Joe Ken Lou Ned Paul".split()
PLACES = ("lake river forest bridge castle market mill harbour meadow tower school garden well "
          "barn church station").split()
COLOURS = "red blue green white black yellow brown grey golden silver purple orange".split()
THINGS = ("ball book kite boat drum bell lamp coat hat cup ring doll clock basket key rope shoe "
          "pipe flute bowl knife brush chair map coin stick cart sword mask pot bottle "
          "spoon").split()
VERBS = ("washes paints hides drops finds mends breaks sells cleans lifts carries forgets counts "
         "draws holds buries").split()
GRAMMAR = ". and live near the gives a today thanks takes tells about he she".split()

LENGTHS = (2, 64)
LENGTH = 6
MIXED = False
ENDS = False
EXACT = False
DISTINCT = False
VERSION = 2
BATCH = 64
BOS = b"."
TEMPERATURE = 1.0
OPTIONS = {"world": (0, 0, 2**31)}

# Token ids: a word is one, the first of each list begins its stretch, and the stop comes last.
WORDS = GRAMMAR + SHE + HE + PLACES + COLOURS + THINGS + VERBS
NAME, PLACE, COLOUR, THING, VERB = (
    WORDS.index(words[0]) for words in (SHE, PLACES, COLOURS, THINGS, VERBS))
NAMES, STOP = len(SHE + HE), len(WORDS)


def VOCAB(variant, world):
    return [WORDS[0]] + [" " + word for word in WORDS[1:]] + [" ."]


def facts(world):
    """{name: table}: a row of a table lists choices, the most likely in this world first"""
    rng = world()
    friends = rng.permutations(NAMES, NAMES - 1)
    return {"friend": friends + (friends >= np.arange(NAMES)[:, None]),     # anyone but oneself
            "place": rng.permutations(NAMES, len(PLACES)),
            "thing": rng.permutations(NAMES, len(THINGS)),
            "colour": rng.permutations(len(THINGS), len(COLOURS)),
            "verb": rng.permutations(len(THINGS), len(VERBS))}


def zipf(size):
    """Odds 1, 1/2, 1/3, ... as probabilities (size,)"""
    odds = 1 / np.arange(1, size + 1)
    return odds / odds.sum()


def choose(rng, table):
    """One of each row of table (B, n), the i-th in proportion to 1/i -> (B,)"""
    return table[np.arange(len(table)), by_weight(rng, zipf(table.shape[1]), len(table))]


def sentence(*parts):
    """Its words and a stop as token ids; a part is text, the same in each row, or ids (B,)"""
    columns = []
    for part in parts:
        columns += [WORDS.index(word) for word in part.split()] if isinstance(part, str) else [part]
    return columns + [STOP]


def sample(rng, length, batch, variant, world):
    # who the story is about, and where they live
    table = facts(world)
    hero = rng.integers(0, NAMES, batch)                                    # (B,)
    friend, place = choose(rng, table["friend"][hero]), choose(rng, table["place"][hero])
    a, b, where = NAME + hero, NAME + friend, PLACE + place
    she = np.where(hero < len(SHE), WORDS.index("she"), WORDS.index("he"))
    columns = [WORDS.index(".")] + sentence(a, "and", b, "live near the", where)

    # each further sentence is one of four kinds; the second one brings a thing into the story
    thing = colour = np.zeros(batch, np.int64)
    for number in range(1, length):
        kind = rng.integers(0, 4, batch) * (number > 1)                     # (B,)
        new_thing = choose(rng, table["thing"][hero])
        new_colour = choose(rng, table["colour"][new_thing])
        thing, colour = np.where(kind == 0, [new_thing, new_colour], [thing, colour])
        verb = VERB + choose(rng, table["verb"][thing])
        hue, item = COLOUR + colour, THING + thing
        kinds = [sentence(a, "gives", b, "a", hue, item, "today"),
                 sentence(b, "thanks", a, "and takes the", item),
                 sentence(she, verb, "the", item, "near the", where),
                 sentence(a, "tells", b, "about the", hue, item)]
        columns += [np.choose(kind, words) for words in zip(*kinds)]

    tokens = np.stack([np.broadcast_to(column, batch) for column in columns], axis=1)
    return tokens.astype(np.int64), np.tile(np.arange(8 * length + 1) > 0, (batch, 1))


def reference(tokens, variant, world):
    """-log p of these very stories under the grammar, in nats per word"""
    log = {}
    for name, table in facts(world).items():
        log[name] = np.full((len(table), 1 + table.max()), -np.inf)         # log[name][row, choice]
        np.put_along_axis(log[name], table, np.log(zipf(table.shape[1]))[None], axis=1)

    # the opening: hero, friend and place
    opening, *sentences = np.moveaxis(tokens[:, 1:].reshape(len(tokens), -1, 8), 1, 0)      # (B, 8)
    hero, friend, place = opening[:, 0] - NAME, opening[:, 2] - NAME, opening[:, 6] - PLACE
    nats = np.log(NAMES) - log["friend"][hero, friend] - log["place"][hero, place]

    # each of the others: its kind, and its choices if it gives a thing or does something to it
    thing = 0
    for i, words in enumerate(sentences):
        gives, does = words[:, 1] == WORDS.index("gives"), words[:, 1] >= VERB
        thing = np.where(gives, words[:, 5] - THING, thing)
        colour = np.where(gives, words[:, 4] - COLOUR, 0)
        verb = np.where(does, words[:, 1] - VERB, 0)
        nats -= np.where(gives, log["thing"][hero, thing] + log["colour"][thing, colour], 0)
        nats -= np.where(does, log["verb"][thing, verb], 0)
        nats += np.log(4) * (i > 0)
    return {"the grammar": float(nats.mean() / (tokens.shape[1] - 1))}
