"""What a call is given beside its texts: how they are read, how they are searched for, and when it has to end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, TypedDict, TypeVar, Unpack

from mobilenmt.runtime.background import Watch
from mobilenmt.runtime.errors import DeadlineError, InputError
from mobilenmt.runtime.hypothesis import SearchOptions, check_search
from mobilenmt.runtime.manifest import PackManifest

if TYPE_CHECKING:
    from mobilenmt.runtime.text.glossary import Glossary
    from mobilenmt.runtime.text.kept import Rules

K = TypeVar("K")
T = TypeVar("T")

Progress = Callable[[int, int], object]
"""Called with how many sentences are done, and how many there are."""

_OPEN = 4  # groups that a stretch is compared with
_MOST_WORDS = 64
_LONGEST = 1 << 15  # characters: a group is looked through for each of its stretches
_MOST_KNOWN = 32  # combinations of settings remembered
_AT_ONCE = 64  # sentences between two calls of a progress callback


class TextOptions(TypedDict, total=False):
    """How a text is read; what is not given is the default."""

    split: bool | None
    """Translate each sentence of a line for itself (True), or lines whole if the model has positions for them (False);
    None, the default, for what the pack says."""
    unwrap: bool
    """Join the lines of paragraphs that were wrapped to a width before they are translated; each paragraph comes out as
    one line (:func:`mobilenmt.runtime.text.unwrap.unwrap`)."""
    target: str | None
    """Code of the language to translate into, one of :attr:`Translator.targets`, for a model with several. A text that
    begins with one (``>>deu<< the house``) has its own, for all its lines without another."""
    keep: Rules | None
    """What comes out as it is (addresses, code, placeholders, …): None for all rules, or some of them, or more."""
    glossary: Glossary | None
    """Terms and what they become."""
    glossary_method: str | None
    """How terms get into a translation: ``search`` (a beam search for translations that hold them, placeholders where
    there are none) or ``placeholders`` (the model translates around marks that stand for them); None for the first."""
    format: str | None
    """``html``, ``markdown``, ``srt``, ``vtt``: what the texts are, each a whole document; None or ``text`` for plain
    text."""


class Settings(TypedDict, total=False):
    """What a call is given beside its texts and how they are read; see :meth:`Translator.translate_batch`."""

    caller: str
    beam_size: int | None
    max_length: int | None
    min_length: int
    n_best: int
    together: bool
    details: bool
    time_limit: float | None
    progress: Progress | None


class Stretch(NamedTuple):
    """A text by itself: a whole one, or a unit of a document."""

    text: str
    kept: tuple[str, ...] = ()
    """What in it comes out as it is, beside what the rules say."""
    linked: bool = False
    """Whether links of words are wanted."""


@dataclass
class _Group:
    """Stretches that are searched together, since what one keeps stands in no other that does not keep it."""

    words: dict[str, None]
    text: str = ""

    def takes(self, words: Sequence[str], texts: Sequence[str]) -> bool:
        """Whether in one more just that is found which would be alone, and in all others too."""
        own = set(words)
        new = own.difference(self.words)
        if (
            len(self.text) > _LONGEST
            or len(self.words) + len(new) > _MOST_WORDS
            or any(word in self.text for word in new)
        ):
            return False
        return not any(word in text for word in self.words if word not in own for text in texts)


def shared(stretches: Sequence[Stretch], fold: Callable[[str], str]) -> list[Stretch]:
    """The stretches so that many keep the same words and can go to the model together, with the same result.

    Each gets the words of others too, where none of them stands in it.

    Args:
        stretches: with what each keeps, in every form.
        fold: what happens to a text before the model.
    """
    groups: list[_Group] = []
    owners: dict[int, _Group] = {}
    for index, stretch in enumerate(stretches):
        words = [word for word in stretch.kept if word.strip()]
        if not words:
            continue
        forms = stretch.text, fold(stretch.text)
        group = next((group for group in groups if group.takes(words, forms)), None)
        if group is None:
            group = _Group({})
            groups = [*groups[1 - _OPEN :], group]
        group.words.update(dict.fromkeys(words))
        group.text = "\n".join((group.text, *forms))
        owners[index] = group
    return [
        stretch._replace(kept=tuple(owners[index].words)) if index in owners else stretch
        for index, stretch in enumerate(stretches)
    ]


@dataclass(frozen=True)
class Call:
    """A call, but for its texts; made by :func:`check_call`."""

    options: SearchOptions
    max_length: int | None
    reading: TextOptions
    details: bool
    progress: Progress | None
    time_limit: float | None
    watch: Watch
    usual: bool = False
    """Whether nothing is asked for that changes what becomes of a plain text (:meth:`Reader.straight`)."""

    @property
    def guarded(self) -> bool:
        """Whether the guards watch: a length that was asked for is no fault."""
        return self.max_length is None and not self.options.min_length

    @property
    def format(self) -> str:
        """What the texts are; "" for plain text."""
        form = self.reading.get("format")
        return "" if form is None or form == "text" else form

    def in_parts(self, work: Mapping[K, tuple[Callable[[list[str]], list[T]], list[str]]]) -> dict[K, Iterator[T]]:
        """What functions make of lists of sentences; told of as it goes on, if somebody wants to know.

        Raises:
            DeadlineError: the time is over.
        """
        count = sum(len(sentences) for _, sentences in work.values())
        size = _AT_ONCE if self.watch or self.progress is not None else max(1, count)
        done = 0
        self._report(done, count)
        results: dict[K, Iterator[T]] = {}
        for key, (run, sentences) in work.items():
            found: list[T] = []
            for start in range(0, len(sentences), size):
                found += run(sentences[start : start + size])
                done += len(found) - start
                self._report(done, count)
            results[key] = iter(found)
        return results

    def _report(self, done: int, count: int) -> None:
        if self.progress is not None:
            self.progress(done, count)
        if done < count:
            self.watch.check()

    def watched(self, encode: Callable[[str], Sequence[int]]) -> Callable[[str], Sequence[int]]:
        """A function that ends the call as well, where the time is over: a text may be long."""
        if not self.watch:
            return encode

        def checked(text: str) -> Sequence[int]:
            self.watch.check()
            return encode(text)

        return checked

    def timed(self, options: SearchOptions) -> SearchOptions:
        """The options with the time that is left.

        Raises:
            DeadlineError: none is left.
        """
        if not self.watch:
            return options
        self.watch.check()
        return replace(options, seconds=max(self.watch.left or 0.0, 0.001))

    def too_late(self) -> DeadlineError:
        """An error that names the time of the whole call, not of the search that was cut off."""
        return DeadlineError(f"not done in the {self.time_limit:g} seconds that were given")


def check_reading(reading: TextOptions, caller: str) -> None:
    """Check the options of a text.

    Raises:
        InputError: a value cannot be meant.
        TypeError: there is no such option.
    """
    for name in reading:
        if name not in TextOptions.__annotations__:
            raise TypeError(f"{caller}() got an unexpected keyword argument {name!r}")
    split, unwrap, form = reading.get("split"), reading.get("unwrap", False), reading.get("format")
    if not (isinstance(split, bool) or split is None):
        raise InputError(f"split must be True or False, not {split!r}")
    if not isinstance(unwrap, bool):
        raise InputError(f"unwrap must be True or False, not {unwrap!r}")
    keep, glossary, method = reading.get("keep"), reading.get("glossary"), reading.get("glossary_method")
    if keep is not None or glossary is not None or method is not None:
        from mobilenmt.runtime.text.glossary import check_kept

        check_kept(keep, glossary, method)
    if form is not None and form != "text":
        from mobilenmt.runtime.text.markup.document import FORMATS  # not before: plain text needs none of it

        if form not in FORMATS:
            raise InputError(f"there is no format {form!r}: the formats are {', '.join(FORMATS)}")
        if caller == "stream":
            raise InputError(f"stream() takes plain text, no {form}: use translate()")
        if unwrap:
            raise InputError(f"unwrap is for plain text: {form} says itself what a paragraph is")


def check_texts(texts: Sequence[str]) -> None:
    """Check that they are a sequence of strings.

    Raises:
        InputError: they are not.
    """
    if isinstance(texts, str | bytes):
        raise InputError("texts must be a sequence of strings; for one string use translate()")
    if not isinstance(texts, list | tuple) and (
        isinstance(texts, Mapping) or not (hasattr(texts, "__len__") and hasattr(texts, "__getitem__"))
    ):
        raise InputError(f"texts must be a sequence of strings, a list say, not of type {type(texts).__name__}")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            several = "; for several texts use translate_batch()" if isinstance(text, list | tuple) else ""
            raise InputError(f"text {index} is of type {type(text).__name__}, not str{several}")


class Calls:
    """Checks the calls of a translator, each combination of usual settings once. Any number of threads may share it.

    Args:
        manifest: of the pack.
    """

    def __init__(self, manifest: PackManifest) -> None:
        self._manifest = manifest
        self._known: dict[tuple[object, ...], Call] = {}

    def check(self, texts: Sequence[str], reading: TextOptions, **settings: Unpack[Settings]) -> Call:
        """As :func:`check_call`."""
        if reading or settings.get("time_limit") is not None or settings.get("progress") is not None:
            return check_call(self._manifest, texts, reading, **settings)
        values = tuple(settings.values())
        key = (*settings, *values, *map(type, values))  # True is no 1 here
        try:
            call = self._known.get(key)
        except TypeError:  # a list, say
            call = None
        if call is None:
            call = check_call(self._manifest, texts, reading, **settings)
            if len(self._known) < _MOST_KNOWN:
                self._known[key] = call
        else:
            check_texts(texts)
        return call


def check_call(
    manifest: PackManifest,
    texts: Sequence[str],
    reading: TextOptions,
    *,
    caller: str = "translate",
    beam_size: int | None = None,
    max_length: int | None = None,
    min_length: int = 0,
    n_best: int = 1,
    together: bool = False,
    details: bool = False,
    time_limit: float | None = None,
    progress: Progress | None = None,
) -> Call:
    """Check all that a call is given; the arguments are those of :meth:`Translator.translate_batch`.

    Raises:
        InputError: something cannot be meant.
        TypeError: there is no such option.
    """
    check_texts(texts)
    for name, value, optional in (
        ("beam_size", beam_size, True),
        ("max_length", max_length, True),
        ("min_length", min_length, False),
        ("n_best", n_best, False),
    ):
        if (value is None and not optional) or (value is not None and type(value) is not int):
            raise InputError(f"{name} must be an integer, not {value!r}")
    if time_limit is not None and not (type(time_limit) in (int, float) and 0 < time_limit < float("inf")):
        raise InputError(f"time_limit must be a number of seconds above 0, not {time_limit!r}")
    if progress is not None and not callable(progress):
        raise InputError(f"progress must be something to call, not {progress!r}")
    beams = max(manifest.generation.num_beams, n_best) if beam_size is None else beam_size
    options = SearchOptions(
        beams,
        n_best,
        min_length,
        together=together,
        token_scores=details and manifest.confidence is not None,
        alignment=details and manifest.alignment is not None,
    )
    check_search(manifest.model, options, max_length)
    check_reading(reading, caller)
    usual = not reading and n_best == 1 and time_limit is None and progress is None
    call = Call(options, max_length, reading, details, progress, time_limit, Watch(time_limit), usual)
    if call.format and n_best > 1:
        raise InputError(f"{call.format} has one translation: n_best must be 1, not {n_best}")
    return call
