"""The texts for comparing 16 bits with fp32: the same for every base, job and process."""

from core.datasets.formats import ChatExample

TEXTS = (
    "The river rises in the hills north of the town. In spring it floods the meadows, and the "
    "farmers move their sheep to higher ground until the water has gone down. Nobody remembers a "
    "year in which it did not, and nobody would build a house there.",
    "def mean(values: list[float]) -> float:\n"
    '    """Return the mean of the values."""\n'
    "    if not values:\n"
    '        raise ValueError("there are no values")\n'
    "    return sum(values) / len(values)\n",
    "Der Zug nach Hamburg hat heute zwanzig Minuten Verspätung. Wer umsteigen muss, wartet am "
    "besten in der Halle, denn auf dem Bahnsteig ist es kalt, und der Kaffee ist dort besser.",
    '{"order": 1042, "items": [{"name": "lamp", "price": 39.5, "count": 2}], "total": 79.0}',
    "今天早上下了一场大雨。街上的人都撑着伞。到了中午太阳出来了。孩子们又在院子里玩。",
)

CHATS = (
    ChatExample(
        messages=(
            {"role": "user", "content": "What is 17 times 4, and how do you get there?"},
            {
                "role": "assistant",
                "content": "17 times 4 is 68: twice 17 is 34, and twice 34 is 68.",
            },
        )
    ),
    ChatExample(
        messages=(
            {"role": "user", "content": "Why is the sky blue? Answer in one sentence, please."},
            {
                "role": "assistant",
                "content": "Air scatters short waves of light more than long ones, so blue light "
                "reaches the eye from all directions.",
            },
        )
    ),
)
"""Rendered by the base's own chat template, if it has one."""

LONGEST_TEXT = 40
"""Tokens; longer texts are truncated, which bounds the memory of the comparison."""
