"""Things that a translation copies: emoji, placeholders, numbers, addresses. Put into both sides of a pair.

Where to put them needs no word alignment: a name or a number that stands once in either side marks the same place in
both, and so do the beginning and the end.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

from mobilenmt.compression.core.pairs import Pair
from mobilenmt.compression.dataset.augment_text import COPIED

_TOKEN = re.compile(r"(?<![\w.,:/@<{%-])[^\W_]+(?:[-.][^\W_]+)*(?![\w@/>}%-]|[.,:]\d)")
_END = re.compile(r"\s*[.!?…]+$")


def _listed(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_SMILEYS = _listed(":) ;) :-) :D :(")
_EMOJI = _listed(
    """
    😀 😃 😄 😁 😅 😂 🤣 😊 😇 🙂 🙃 😉 😍 🥰 😘 😋 😜 🤪 🤔 🤗 😐 🙄 😏 😴 😷 🤒 🤯 😎 🥳 😕 😟 😮 😲 😢 😭 😱 😤 😡 🤬
    💀 💩 👻 👽 🤖 ❤️ 💔 💕 💯 💥 💫 🔥 ✨ ⭐ 🌟 👍 👎 👌 ✌️ 🤞 👏 🙌 🙏 💪 👋 👀 🧠 👶 👩‍💻 👨‍👩‍👧 🤷‍♀️ 🤦‍♂️ 👍🏽 🙏🏿
    🐶 🐱 🐻 🦊 🐝 🌹 🌻 🌲 🍀 🍎 🍕 🍔 🍟 🍺 🍷 ☕ 🎂 🎉 🎁 🎄 🎵 🎸 ⚽ 🏀 🏆 🚗 🚲 ✈️ 🚀 🚂 🏠 🏖️ 🌍 🌧️ ☀️ ❄️ ⚡ 🌈
    💡 📱 💻 📷 📅 📌 ✏️ 📚 💰 🛒 🔒 🔑 ✅ ❌ ⚠️ ❓ ❗ ➡️ 🆗 🇩🇪 🇬🇧 🇫🇷 🇪🇸 🇺🇦
    """
)
_NAMES = _listed("name user count date file price city total item id value title email amount time url size page n x")
_PLACEHOLDERS = (
    '<x id="0"/>',
    *_listed("{name} {name} {0} {{name}} {{0}} %s %d %1$s %(name)s ${name} %@ [NAME] __name__"),
)
"""Their names and zeros are replaced."""
_TAGS = _listed("b i em strong a span u code p li h1")
_HOSTS = _listed("example news shop mail docs my-site blog portal wiki forum hotel bank city-guide")
_ENDINGS = _listed("com org net de co.uk fr io info eu ch")
_PATHS = _listed("index login help products en faq 2024 about us download images search list id42 contact v2")
_PEOPLE = _listed("anna.smith j.doe info support max.mueller hello sales team no-reply a.b.c lena_k office99")


def with_emoji(pair: Pair, random: Random) -> Pair | None:
    """Emoji behind the text or (one in five) before it."""
    emoji = "".join(random.choices(_EMOJI, k=random.choice((1, 1, 1, 2, 3))))
    if random.random() < 0.05:
        emoji = random.choice(_SMILEYS)
    place = random.random()
    if place < 0.2:
        return _both(pair, lambda text: f"{emoji} {text}")
    if place < 0.35 and _END.search(pair.source) and _END.search(pair.target):
        return _both(pair, lambda text: f"{_END.sub('', text)} {emoji}")
    space = "" if place > 0.85 and emoji not in _SMILEYS else " "
    return _both(pair, lambda text: f"{text}{space}{emoji}")


def with_placeholder(pair: Pair, random: Random) -> Pair | None:
    """A placeholder for a shared name or number, or tags around it; else at the beginning, the end, or around all."""
    if COPIED.search(pair.source) or COPIED.search(pair.target):
        return None
    if random.random() < 0.6:
        shared = shared_tokens(pair)
        if not shared:
            return None
        random.shuffle(shared)
        for token in shared[: random.choice((1, 1, 2))]:
            if random.random() < 0.3:
                tag = random.choice(_TAGS)
                pair = _replace(pair, token, f"<{tag}>{token}</{tag}>")
            else:
                pair = _replace(pair, token, _placeholder(random))
        return pair
    mark, place = _placeholder(random), random.random()
    if place < 0.3:
        return _both(pair, lambda text: f"{mark}: {text}")
    if place < 0.6:
        return _both(pair, lambda text: f"{text} ({mark})")
    if place < 0.8:
        return _both(pair, lambda text: f"{_END.sub('', text)}: {mark}")
    tag = random.choice(_TAGS)
    return _both(pair, lambda text: f"<{tag}>{text}</{tag}>")


def with_number(pair: Pair, random: Random) -> Pair | None:
    """Another number for one that stands once in either side; sometimes a number alone or in brackets."""
    chance = random.random()
    if chance < 0.1:
        number = _number(random)
        return pair._replace(source=number, target=number)
    if chance < 0.2:
        number = _number(random)
        return _both(pair, lambda text: f"{text} ({number})")
    numbers = [token for token in shared_tokens(pair) if token.isascii() and token.isdigit() and token[0] != "0"]
    numbers = [token for token in numbers if token != "1"]  # one apple, 7 apples
    if not numbers:
        return None
    old = random.choice(numbers)
    new = old
    while new == old:
        digits = len(old) if random.random() < 0.5 else random.choice((1, 2, 2, 3, 4, 5, 6, 9))
        new = str(random.randrange(max(2, 10 ** (digits - 1)), 10**digits))
    return _replace(pair, old, new)


def with_address(pair: Pair, random: Random) -> Pair | None:
    """A URL or an e-mail address: alone, behind a colon, in brackets, or behind the text."""
    if COPIED.search(pair.source) or COPIED.search(pair.target):
        return None
    address, place = _address(random), random.random()
    if place < 0.1:
        return pair._replace(source=address, target=address)
    if place < 0.4:
        return _both(pair, lambda text: f"{_END.sub('', text)}: {address}")
    if place < 0.6:
        return _both(pair, lambda text: f"{text} ({address})")
    return _both(pair, lambda text: f"{text} {address}")


def _both(pair: Pair, change: Callable[[str], str]) -> Pair:
    return pair._replace(source=change(pair.source), target=change(pair.target))


def shared_tokens(pair: Pair) -> list[str]:
    """Names and numbers that stand exactly once in each side, in the order of the source."""
    source, target = _TOKEN.findall(pair.source), _TOKEN.findall(pair.target)
    openings = {source[0], target[0]} if source and target else set()
    return [
        token
        for token in source
        if source.count(token) == target.count(token) == 1
        and pair.source.count(token) == pair.target.count(token) == 1
        and (
            token[0].isdigit() or (token[0].isupper() and len(token) > 2 and (token not in openings or len(token) > 3))
        )
    ]


def _replace(pair: Pair, old: str, new: str) -> Pair:
    return _both(pair, lambda text: text.replace(old, new, 1))


def _placeholder(random: Random) -> str:
    name, digit = random.choice(_NAMES), random.randrange(10)
    form = random.choice(_PLACEHOLDERS)
    return form.replace("NAME", name.upper()).replace("name", name).replace("0", str(digit))


def _number(random: Random) -> str:
    digits = random.randrange
    forms = (
        str(digits(10 ** random.randrange(1, 10))),
        f"{digits(24)}:{digits(60):02}",
        f"{digits(20)}.{digits(30)}.{digits(10)}",
        f"+{digits(1, 100)} {digits(100, 999)} {digits(10**6, 10**7)}",
        f"{digits(1900, 2100)}-{digits(1, 13):02}-{digits(1, 29):02}",
        f"{''.join(random.choices('ABCDEFGHKLMNPRSTUVWXYZ', k=random.randrange(1, 4)))}-{digits(10000)}",
        f"192.168.{digits(256)}.{digits(256)}",
        f"#{digits(100000)}",
        f"{digits(2, 100)}%",
        f"0x{digits(1 << 24):06X}",
    )
    return random.choice(forms)


def _address(random: Random) -> str:
    host = f"{random.choice(_HOSTS)}.{random.choice(_ENDINGS)}"
    if random.random() < 0.35:
        return f"{random.choice(_PEOPLE)}@{host}"
    start = random.choice(("https://", "https://", "https://www.", "http://", "www."))
    path = "".join(f"/{part}" for part in random.choices(_PATHS, k=random.randrange(4)))
    query = f"?{random.choice(_NAMES)}={random.randrange(1000)}" if path and random.random() < 0.3 else ""
    return f"{start}{host}{path}{query}"
