"""The most frequent small words of some languages: enough to tell which language a sentence of five words is in.

Words that two neighbours share stand in both lists; what counts is how many of a sentence's words each list has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def _listed(text: str) -> frozenset[str]:
    return frozenset(text.split())


FUNCTION_WORDS: Mapping[str, frozenset[str]] = {
    "cs": _listed("a se na je v že to s z do o i ale jako za by pro jsem jsou které který nebo když jen po tak už ve"),
    "da": _listed(
        "og i at det er en til af på som de med for den ikke jeg et han har var kan der men vi fra så om sig"
    ),
    "de": _listed(
        "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an ich er sie"
        " du was so ihr wird bei dass werden sind aus wie nach oder einen einer wenn zur zum wir war haben kann"
    ),
    "en": _listed(
        "the of and to in a is that it for was on are as with his they at be this have from or you he not we"
        " can will your which when if has by an but what there their do into them our so more about"
    ),
    "es": _listed(
        "de la que el en y a los se del las un por con no una su para es al lo como más pero sus le ya o este"
        " si porque esta entre cuando muy sin sobre también me hay todo está son fue ha"
    ),
    "et": _listed(
        "ja on ei et see ta oli mis kui aga ka oma ma kes siis ning või seda tema ole nii kõik mida veel pole"
    ),
    "fi": _listed("ja on ei että se hän oli ovat mutta kun joka myös niin tai mitä minä ole hänen sen mukaan jos vain"),
    "fr": _listed(
        "de la le et les des en un du une que est pour qui dans a par plus pas au sur ne se ce il sont avec je"
        " une ou comme elle nous vous cette mais son sa leur été être aux on si"
    ),
    "hu": _listed(
        "a az és hogy nem is egy ez van volt de csak meg mint már azt el ha vagy aki még amely ki lehet kell"
    ),
    "it": _listed(
        "di e che la il un a per in una non sono le si da con del i è della come più lo ha al nel dei gli ma"
        " o se questo alla nella dal ci anche io mi era delle sul quando molto chi"
    ),
    "lt": _listed("ir kad į yra su tai iš kaip buvo bet ne jis o apie nuo už dėl po ar tik jo bus savo būti ji taip"),
    "lv": _listed("un ir ka no ar par tas bija kas uz lai arī ne bet pie kā to viņš es vai tikai būs pēc kad viņa gan"),
    "nl": _listed(
        "de van het een en in is dat op te zijn met voor niet aan er die ook als was bij om maar door naar ik"
    ),
    "pl": _listed(
        "w i na z się do nie że to jest o jak a po za od co ale przez dla tym są który czy być tak tylko już"
    ),
    "pt": _listed(
        "de a o que e do da em um para é com não uma os no se na por mais as dos como mas foi ao ele das tem"
        " à seu sua ou ser quando muito há nos já está eu também só pelo pela até isso ela entre"
    ),
    "ro": _listed("de și în a la cu că nu pe este din un o care mai se pentru au fost sa ce sau dar prin era lui sunt"),
    "sk": _listed(
        "a sa na je v že to s z do o i ale ako za by pre som sú ktoré ktorý alebo keď len po tak už vo nie aj"
    ),
    "sv": _listed(
        "och i att det som en på är av för med till den har de inte om ett han men var jag sig från vi så kan"
    ),
    "tr": _listed("ve bir bu da de için ile çok ne daha olarak gibi en o olan kadar ben sonra ama mi var değil her ki"),
}
"""Languages by their codes."""


def small_words(words: Iterable[str]) -> tuple[str, int]:
    """The language whose list has most of these lower-case words, repetitions not counted, and how many.

    Single letters do not count: they are what is left of "I've" and "I/O".
    """
    different = {word for word in words if len(word) > 1}
    counted = {language: len(different & known) for language, known in FUNCTION_WORDS.items()}
    language = max(counted, key=lambda name: (counted[name], name))
    return language, counted[language]
