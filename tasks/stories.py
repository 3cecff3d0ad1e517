"""Little stories out of a grammar whose entropy is known exactly.

    . Mia and Tom live near the lake . Mia gives Tom a red ball today . Tom thanks Mia and takes the ball .
      ^^^ ^^^ ^^^ ^^^^ ^^^^ ^^^ ^^^^ ^ ...

Every word is scored.  Some are chosen by a die and can never be known beforehand; some follow from the grammar; some from what
was told, such as names, "he" or "she", and which thing it was; and some from facts about this world: who is friends with whom,
which colour a thing mostly has, what is mostly done with it.  Choices are Zipf's: the i-th most likely has odds of 1/i.  The mean
of -log p under the true grammar is the floor that no model gets below.

Length: sentences, of eight words each.  Option: world names the facts.
Source: the idea of Eldan & Li 2023, arXiv:2305.07759; a known floor as in Hoffmann et al. 2022, arXiv:2203.15556 (their E).
Expect: 0.01 nats a word above the floor at dim 32, 0.05 to 0.09 at 16, 0.9 at 4 (docs/gallery.md).
"""
import numpy as np

from . import by_weight

SHE = "Mia Ann Zoe Eva Ida Lea Amy Joy Kim Liv May Nia Pia Rita Sue Una".split()
HE = "Tom Ben Leo Max Sam Tim Jon Abe Gus Hal Ian Joe Ken Lou Ned Paul".split()
PLACES = "lake river forest bridge castle market mill harbour meadow tower school garden well barn church station".split()
COLOURS = "red blue green white black yellow brown grey golden silver purple orange".split()
THINGS = ("ball book kite boat drum bell lamp coat hat cup ring doll clock basket key rope shoe pipe flute bowl "
          "knife brush chair map coin stick cart sword mask pot bottle spoon").split()
VERBS = "washes paints hides drops finds mends breaks sells cleans lifts carries forgets counts draws holds buries".split()
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
WORDS = GRAMMAR + SHE + HE + PLACES + COLOURS + THINGS + VERBS
NAME, PLACE, COLOUR, THING, VERB = (WORDS.index(words[0]) for words in (SHE, PLACES, COLOURS, THINGS, VERBS))
NAMES = len(SHE + HE)


def VOCAB(variant, world):
    return [WORDS[0]] + [" " + word for word in WORDS[1:]] + [" ."]


def zipf(size):
    """Odds 1, 1/2, 1/3, ... as probabilities"""
    odds = 1 / np.arange(1, size + 1)
    return odds / odds.sum()


def facts(world):
    """What is common in this world: rows of things in the order of how likely they are."""
    rng = world()
    friends = rng.permutations(NAMES, NAMES - 1)
    return {"friend": friends + (friends >= np.arange(NAMES)[:, None]),       # anyone but oneself
            "place": rng.permutations(NAMES, len(PLACES)),
            "thing": rng.permutations(NAMES, len(THINGS)),
            "colour": rng.permutations(len(THINGS), len(COLOURS)),
            "verb": rng.permutations(len(THINGS), len(VERBS))}


def choose(rng, table):
    """One of each row of table (B, n), the i-th in proportion to 1/i"""
    return table[np.arange(len(table)), by_weight(rng, zipf(table.shape[1]), len(table))]


def sample(rng, length, batch, variant, world):
    known, word = facts(world), WORDS.index
    hero = rng.integers(0, NAMES, batch)
    friend, place = choose(rng, known["friend"][hero]), choose(rng, known["place"][hero])
    a, b, where = hero + NAME, friend + NAME, place + PLACE
    she = np.where(hero < len(SHE), word("she"), word("he"))
    stop = len(WORDS)
    story = [[a, word("and"), b, word("live"), word("near"), word("the"), where, stop]]
    thing = colour = np.zeros(batch, np.int64)
    for sentence in range(1, length):
        kind = rng.integers(0, 4, batch) * (sentence > 1)              # the second sentence brings a thing into the story
        gives = kind == 0
        new_thing = choose(rng, known["thing"][hero])
        new_colour = choose(rng, known["colour"][new_thing])
        thing, colour = np.where(gives, new_thing, thing), np.where(gives, new_colour, colour)
        verb = choose(rng, known["verb"][thing]) + VERB
        what, hue = thing + THING, colour + COLOUR
        kinds = [[a, word("gives"), b, word("a"), hue, what, word("today"), stop],
                 [b, word("thanks"), a, word("and"), word("takes"), word("the"), what, stop],
                 [she, verb, word("the"), what, word("near"), word("the"), where, stop],
                 [a, word("tells"), b, word("about"), word("the"), hue, what, stop]]
        story.append([np.choose(kind, column) for column in zip(*kinds)])
    words = [word(".")] + [column for sentence in story for column in sentence]
    tokens = np.stack([np.broadcast_to(column, batch) for column in words], axis=1).astype(np.int64)
    return tokens, np.tile(np.arange(8 * length + 1) > 0, (batch, 1))


def entropy(length):
    """Mean of -log p of a story under the grammar, in nats a word: the sum over all that is chosen"""
    def nats(size):
        return float(-(zipf(size) * np.log(zipf(size))).sum())

    opening, gift = np.log(NAMES) + nats(NAMES - 1) + nats(len(PLACES)), nats(len(THINGS)) + nats(len(COLOURS))
    return (opening + gift + (length - 2) * (np.log(4) + (gift + nats(len(VERBS))) / 4)) / (8 * length)


def reference(tokens, variant, world):
    """-log p of these very stories under the grammar, in nats a word; over many stories it tends to entropy(length)"""
    log = {}
    for name, table in facts(world).items():
        log[name] = np.full((len(table), 1 + table.max()), -np.inf)
        np.put_along_axis(log[name], table, np.log(zipf(table.shape[1]))[None], axis=1)
    opening, *sentences = np.moveaxis(tokens[:, 1:].reshape(len(tokens), -1, 8), 1, 0)
    hero = opening[:, 0] - NAME
    nats = np.log(NAMES) - log["friend"][hero, opening[:, 2] - NAME] - log["place"][hero, opening[:, 6] - PLACE]
    thing = 0
    for i, sentence in enumerate(sentences):
        gives, does = sentence[:, 1] == WORDS.index("gives"), sentence[:, 1] >= VERB
        thing = np.where(gives, sentence[:, 5] - THING, thing)
        colour, verb = np.where(gives, sentence[:, 4] - COLOUR, 0), np.where(does, sentence[:, 1] - VERB, 0)
        nats -= np.where(gives, log["thing"][hero, thing] + log["colour"][thing, colour], 0)
        nats -= np.where(does, log["verb"][thing, verb], 0)
        nats += np.log(4) * (i > 0)
    return {"the grammar": float(nats.mean() / (tokens.shape[1] - 1))}
