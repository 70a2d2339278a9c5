"""A language's code in a teacher's own spelling: ``de`` is ``de_DE`` to mBART, ``deu_Latn`` to NLLB."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from mobilenmt.compression.core.errors import TeacherError

_SHOWN = 6

# ISO 639-1 to the ISO 639-3 codes that NLLB (FLORES-200) and OPUS-MT use.
_TABLE = """
af:afr am:amh ar:arb as:asm az:azj ba:bak be:bel bg:bul bn:ben bo:bod bs:bos ca:cat cs:ces cy:cym da:dan de:deu dz:dzo
el:ell en:eng eo:epo es:spa et:est eu:eus fa:pes fi:fin fj:fij fo:fao fr:fra ga:gle gd:gla gl:glg gn:grn gu:guj ha:hau
he:heb hi:hin hr:hrv ht:hat hu:hun hy:hye id:ind ig:ibo is:isl it:ita ja:jpn jv:jav ka:kat kk:kaz km:khm kn:kan ko:kor
ku:kmr ky:kir lb:ltz lg:lug li:lim ln:lin lo:lao lt:lit lv:lvs mg:plt mi:mri mk:mkd ml:mal mn:khk mr:mar ms:zsm mt:mlt
my:mya nb:nob ne:npi nl:nld nn:nno no:nob ny:nya oc:oci om:gaz or:ory pa:pan pl:pol ps:pbt pt:por qu:quy rn:run ro:ron
ru:rus rw:kin sa:san sc:srd sd:snd sg:sag si:sin sk:slk sl:slv sm:smo sn:sna so:som sq:als sr:srp ss:ssw st:sot su:sun
sv:swe sw:swh ta:tam te:tel tg:tgk th:tha ti:tir tk:tuk tl:tgl tn:tsn tr:tur ts:tso tt:tat ug:uig uk:ukr ur:urd uz:uzn
vi:vie wo:wol xh:xho yi:ydd yo:yor zh:zho zu:zul
"""
_THREE = dict(entry.split(":") for entry in _TABLE.split())


def find_code(wanted: str, codes: Iterable[str], key: str, model: str) -> str:
    """Find the code of ``codes`` that means the language ``wanted``.

    Args:
        wanted: the recipe's code (``de``, ``pt-BR``) or the teacher's own (``deu_Latn``).
        codes: the teacher's codes.
        key: the setting to name in an error.
        model: the checkpoint, likewise.

    Raises:
        TeacherError: none does, or several do; the likely ones are listed.
    """
    known = sorted(codes)
    if not wanted:
        raise TeacherError(f"{model}: this teacher needs a language code; set teacher.{key}, for example {known[0]!r}")
    for code in known:
        if wanted in (code, bare(code)):
            return code
    plain = _plain(wanted)
    same = [code for code in known if _plain(bare(code)) == plain]
    if len(same) == 1:
        return same[0]
    base = language(wanted)
    three = _THREE.get(base, base)
    found = [code for code in known if language(code) in (base, three) and not _differ(wanted, code)]
    if len(found) == 1:
        return found[0]
    if found:
        raise TeacherError(f"{model}: {wanted!r} may mean {_listed(found)}; say which one in teacher.{key}")
    near = [code for code in known if bare(code).lower().startswith((base[:2], three))]
    near += difflib.get_close_matches(wanted, [bare(code) for code in known], n=_SHOWN, cutoff=0.5)
    near = list(dict.fromkeys(bare(code) for code in near))
    hint = f"near it: {_listed(near)}" if near else f"it knows {len(known)}, such as {_listed(known)}"
    raise TeacherError(f"{model}: the teacher knows no language {wanted!r}; {hint}. Set teacher.{key}")


def language(code: str) -> str:
    """The language part of a code, lower case: ``>>pt_BR<<`` gives ``pt``."""
    return re.split("[-_]", bare(code))[0].lower()


def bare(code: str) -> str:
    """A code without the marks of a token: ``>>deu<<`` and ``__de__`` give ``deu`` and ``de``."""
    return code.removeprefix(">>").removesuffix("<<").strip("_")


def same_language(one: str, other: str) -> bool:
    """Whether two codes name one language, whatever script or region they add."""
    first, second = language(one), language(other)
    return _THREE.get(first, first) == _THREE.get(second, second)


def language_name(code: str) -> str:
    """English name of a language for a prompt; what is no known code is taken for a name already."""
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    name: str | None = LANGUAGES.get(language(code))
    return name.title() if name is not None else code


def _differ(wanted: str, code: str) -> bool:
    """Whether the two name different scripts (``srp_Cyrl``, ``sr-Latn``); a region (``pt-BR``) is passed over."""
    scripts = [{part.lower() for part in re.split("[-_]", bare(item))[1:] if len(part) > 3} for item in (wanted, code)]
    return bool(scripts[0]) and scripts[0] != scripts[1]


def _plain(code: str) -> str:
    return code.lower().replace("-", "_")


def _listed(codes: list[str]) -> str:
    return ", ".join(codes[:_SHOWN]) + (", …" if len(codes) > _SHOWN else "")
