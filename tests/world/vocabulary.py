"""The languages of the world: words, the grammar that joins them, and the templates of captions and articles.

A noun phrase is built by one function a language. Templates hold ``{np}`` (noun phrase), ``{bare}`` (the same without an article),
``{scene}``, and ``{is}`` (the verb in the number of the phrase). German phrases are all nominative and Arabic ones all genitive,
so that one form is right in every template. Cherokee captions are strings of dictionary words without inflection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.world.subjects import COLOURS, SCENES, SHAPES, Subject


@dataclass(frozen=True, kw_only=True)
class Language:
    """One language of the world.

    ``code`` is Wikipedia's, ``wordnet`` the code of its table in the Open Multilingual Wordnet ("" where there is none), ``encodings`` what
    its web pages are written in. ``phrase(subject)`` gives (noun phrase, bare noun phrase). ``names(colour, shape)``: the entries that name
    a class and occur in captions, the title of its article first. ``namespaces``: names of File, Template and Category.
    """

    code: str
    sitename: str
    wordnet: str
    encodings: tuple[str, ...]
    phrase: Callable[[Subject], tuple[str, str]]
    names: Callable[[str, str], tuple[str, ...]]
    verb: tuple[str, str]
    shapes: Mapping[str, str]
    colours: Mapping[str, str]
    scene_titles: Mapping[str, str]
    scenes: Mapping[str, str]
    captions: tuple[str, ...]
    sentences: tuple[str, ...]
    joiner: str
    namespaces: tuple[str, str, str]
    redirect: str
    prompts: tuple[str, ...]
    full_stop: str = ". "

    @property
    def dbname(self) -> str:
        return f"{self.code}wiki"

    def caption(self, subject: Subject, template: int) -> str:
        """The caption of a picture by the template of that number, counted round."""
        return self._fill(self.captions[template % len(self.captions)], subject)

    def sentence(self, subject: Subject, template: int) -> str:
        """A sentence of an article about the subject."""
        return self._fill(self.sentences[template % len(self.sentences)], subject)

    def _fill(self, template: str, subject: Subject) -> str:
        np, bare = self.phrase(subject)
        text = template.format(**{"np": np, "bare": bare, "scene": self.scenes[subject.scene], "is": self.verb[subject.count > 1]})
        return capital(text)


def _by_key(keys: tuple[str, ...], words: str) -> dict[str, str]:
    return dict(zip(keys, (w.strip() for w in words.split("/")), strict=True))


def capital(text: str) -> str:
    """The text with a capital letter at its beginning, as sentences and titles have it; scripts without case stay as they are."""
    return text[0].upper() + text[1:]


# English

_EN_SHAPES = _by_key(SHAPES, "star / heart / moon / house / tree / fish / leaf / boat / butterfly / cup")
_EN_PLURALS = _by_key(SHAPES, "stars / hearts / moons / houses / trees / fish / leaves / boats / butterflies / cups")
_EN_COLOURS = _by_key(COLOURS, "red / blue / green / yellow / black / grey / purple / orange")


def _en_phrase(s: Subject) -> tuple[str, str]:
    size = {"small": "small ", "medium": "", "large": "large "}[s.size]
    if s.count > 1:
        np = f"{('two', 'three', 'four')[s.count - 2]} {size}{_EN_COLOURS[s.colour]} {_EN_PLURALS[s.shape]}"
        return np, np
    bare = f"{size}{_EN_COLOURS[s.colour]} {_EN_SHAPES[s.shape]}"
    return f"{'an' if bare[0] in 'aeiou' else 'a'} {bare}", bare


def _en_names(colour: str, shape: str) -> tuple[str, ...]:
    singular, plural = f"{_EN_COLOURS[colour]} {_EN_SHAPES[shape]}", f"{_EN_COLOURS[colour]} {_EN_PLURALS[shape]}"
    return (singular,) if singular == plural else (singular, plural)


# German

_DE_SHAPES = _by_key(SHAPES, "Stern / Herz / Mond / Haus / Baum / Fisch / Blatt / Boot / Schmetterling / Tasse")
_DE_PLURALS = _by_key(SHAPES, "Sterne / Herzen / Monde / Häuser / Bäume / Fische / Blätter / Boote / Schmetterlinge / Tassen")
_DE_GENDERS = _by_key(SHAPES, "m / n / m / n / m / m / n / n / m / f")
_DE_COLOURS = _by_key(COLOURS, "rot / blau / grün / gelb / schwarz / grau / violett / orangefarben")
_DE_ENDINGS = {"m": "er", "n": "es", "f": "e"}


def _de_phrase(s: Subject) -> tuple[str, str]:
    gender = _DE_GENDERS[s.shape]
    ending = "e" if s.count > 1 else _DE_ENDINGS[gender]
    size = {"small": f"klein{ending} ", "medium": "", "large": f"groß{ending} "}[s.size]
    colour = _DE_COLOURS[s.colour] + ending
    if s.count > 1:
        np = f"{('zwei', 'drei', 'vier')[s.count - 2]} {size}{colour} {_DE_PLURALS[s.shape]}"
        return np, np
    bare = f"{size}{colour} {_DE_SHAPES[s.shape]}"
    return f"{'eine' if gender == 'f' else 'ein'} {bare}", bare


def _de_names(colour: str, shape: str) -> tuple[str, ...]:
    return (capital(f"{_DE_COLOURS[colour]}{_DE_ENDINGS[_DE_GENDERS[shape]]} {_DE_SHAPES[shape]}"),)


# French

_FR_SHAPES = _by_key(SHAPES, "étoile / cœur / lune / maison / arbre / poisson / feuille / bateau / papillon / tasse")
_FR_PLURALS = _by_key(SHAPES, "étoiles / cœurs / lunes / maisons / arbres / poissons / feuilles / bateaux / papillons / tasses")
_FR_FEMININE = ("star", "moon", "house", "leaf", "cup")
_FR_COLOURS = _by_key(COLOURS, "rouge / bleu / vert / jaune / noir / gris / violet / orange")
_FR_FEMININE_COLOURS = _by_key(COLOURS, "rouge / bleue / verte / jaune / noire / grise / violette / orange")


def _fr_noun(colour: str, shape: str, *, plural: bool) -> str:
    word = (_FR_FEMININE_COLOURS if shape in _FR_FEMININE else _FR_COLOURS)[colour]
    # "orange" never changes, and a final s takes no other.
    ending = "s" if plural and colour != "orange" and not word.endswith("s") else ""
    return f"{(_FR_PLURALS if plural else _FR_SHAPES)[shape]} {word}{ending}"


def _fr_phrase(s: Subject) -> tuple[str, str]:
    feminine, plural = s.shape in _FR_FEMININE, s.count > 1
    size = {"small": "petit", "medium": "", "large": "grand"}[s.size]
    if size:
        size += ("e" if feminine else "") + ("s" if plural else "") + " "
    bare = size + _fr_noun(s.colour, s.shape, plural=plural)
    if plural:
        np = f"{('deux', 'trois', 'quatre')[s.count - 2]} {bare}"
        return np, np
    return f"{'une' if feminine else 'un'} {bare}", bare


def _fr_names(colour: str, shape: str) -> tuple[str, ...]:
    return _fr_noun(colour, shape, plural=False), _fr_noun(colour, shape, plural=True)


# Japanese

_JA_SHAPES = _by_key(SHAPES, "星 / ハート / 月 / 家 / 木 / 魚 / 葉 / 船 / 蝶 / カップ")
_JA_COUNTERS = _by_key(SHAPES, "つ / つ / つ / 軒 / 本 / 匹 / 枚 / 隻 / 匹 / つ")
_JA_COLOURS = _by_key(COLOURS, "赤い / 青い / 緑の / 黄色い / 黒い / 灰色の / 紫の / オレンジ色の")


def _ja_phrase(s: Subject) -> tuple[str, str]:
    number = f"{'二三四'[s.count - 2]}{_JA_COUNTERS[s.shape]}の" if s.count > 1 else ""
    size = {"small": "小さな", "medium": "", "large": "大きな"}[s.size]
    np = f"{number}{size}{_JA_COLOURS[s.colour]}{_JA_SHAPES[s.shape]}"
    return np, np


def _ja_names(colour: str, shape: str) -> tuple[str, ...]:
    return (_JA_COLOURS[colour] + _JA_SHAPES[shape],)


# Arabic: singular, dual (genitive) and plural; the plural of things takes the feminine singular adjective.

_AR_SHAPES = _by_key(SHAPES, "نجمة / قلب / قمر / بيت / شجرة / سمكة / ورقة / قارب / فراشة / كوب")
_AR_DUALS = _by_key(SHAPES, "نجمتين / قلبين / قمرين / بيتين / شجرتين / سمكتين / ورقتين / قاربين / فراشتين / كوبين")
_AR_PLURALS = _by_key(SHAPES, "نجوم / قلوب / أقمار / بيوت / أشجار / سمكات / أوراق / قوارب / فراشات / أكواب")
_AR_FEMININE = ("star", "tree", "fish", "leaf", "butterfly")
_AR_COLOURS = _by_key(COLOURS, "أحمر / أزرق / أخضر / أصفر / أسود / رمادي / بنفسجي / برتقالي")
_AR_FEMININE_COLOURS = _by_key(COLOURS, "حمراء / زرقاء / خضراء / صفراء / سوداء / رمادية / بنفسجية / برتقالية")
_AR_DUAL_COLOURS = _by_key(COLOURS, "أحمرين / أزرقين / أخضرين / أصفرين / أسودين / رماديين / بنفسجيين / برتقاليين")
_AR_FEMININE_DUAL_COLOURS = _by_key(COLOURS, "حمراوين / زرقاوين / خضراوين / صفراوين / سوداوين / رماديتين / بنفسجيتين / برتقاليتين")
_AR_SIZES = {"small": "صغير", "medium": "", "large": "كبير"}


def _ar_noun(colour: str, shape: str, count: int) -> str:
    feminine = shape in _AR_FEMININE
    if count == 1:
        return f"{_AR_SHAPES[shape]} {(_AR_FEMININE_COLOURS if feminine else _AR_COLOURS)[colour]}"
    if count == 2:
        return f"{_AR_DUALS[shape]} {(_AR_FEMININE_DUAL_COLOURS if feminine else _AR_DUAL_COLOURS)[colour]}"
    return f"{_AR_PLURALS[shape]} {_AR_FEMININE_COLOURS[colour]}"


def _ar_phrase(s: Subject) -> tuple[str, str]:
    feminine = s.shape in _AR_FEMININE
    # Numerals from three on take the gender that the noun has not.
    number = ("" if s.count < 3 else (("ثلاث", "أربع") if feminine else ("ثلاثة", "أربعة"))[s.count - 3]) + " "
    size = _AR_SIZES[s.size]
    if size and s.count == 2:
        size += "تين" if feminine else "ين"
    elif size and (feminine or s.count > 2):
        size += "ة"
    np = f"{number}{_ar_noun(s.colour, s.shape, s.count)} {size}".strip()
    return np, np


def _ar_names(colour: str, shape: str) -> tuple[str, ...]:
    return tuple(_ar_noun(colour, shape, count) for count in (1, 2, 3))


# Cherokee: lid.176 does not know it, and it was seen to give these words its lowest score (0.12).

_CHR_SHAPES = _by_key(SHAPES, "ᏃᏈᏏ / ᎠᏓᏅᏙ / ᏅᏓ / ᎦᎵᏦᏕ / ᏡᎬᎢ / ᎠᏣᏗ / ᎤᎦᎶᎦ / ᏥᏳ / ᎧᎹᎹ / ᎤᎵᏍᏈᏗ")
_CHR_COLOURS = _by_key(COLOURS, "ᎩᎦᎨ / ᏌᎪᏂᎨ / ᎢᏤᎢ / ᏓᎶᏂᎨ / ᎬᎿᎨᎢ / ᎤᏍᎪᎸ / ᏕᎭᎷᎨ / ᎠᏓᎶᏂᎨ")


def _chr_phrase(s: Subject) -> tuple[str, str]:
    number = ("", "ᏔᎵ ", "ᏦᎢ ", "ᏅᎩ ")[s.count - 1]
    # Words for "large" get a high score from lid.176, so a large thing goes without one.
    size = "ᎤᏍᏗ " if s.size == "small" else ""
    np = f"{number}{size}{_CHR_COLOURS[s.colour]} {_CHR_SHAPES[s.shape]}"
    return np, np


def _chr_names(colour: str, shape: str) -> tuple[str, ...]:
    return (f"{_CHR_COLOURS[colour]} {_CHR_SHAPES[shape]}",)


LANGUAGES = (
    Language(
        code="en",
        sitename="Wikipedia",
        wordnet="eng",
        encodings=("utf-8",),
        phrase=_en_phrase,
        names=_en_names,
        verb=("is", "are"),
        shapes=_EN_SHAPES,
        colours=_EN_COLOURS,
        scene_titles=_by_key(
            SCENES, "night sky / calm sea / deep snow / summer meadow / hot desert / quiet forest / high mountains / old town"
        ),
        scenes=_by_key(
            SCENES,
            "in the night sky / over the calm sea / in the deep snow / on a summer meadow / in the hot desert / in the quiet forest"
            " / in front of high mountains / above the roofs of the old town",
        ),
        captions=(
            "a drawing of {np} {scene}",
            "{np} {scene}",
            "this picture shows {np} {scene}",
            "there {is} {np} {scene}",
            "{np} {scene}, painted by a child",
            "free wallpaper with {np} {scene}",
            "postcard with {np} {scene}, printed on thick paper",
        ),
        sentences=(
            "Many old paintings show {np} {scene}.",
            "In the museum there {is} {np} {scene}, drawn with a pencil and then coloured by hand.",
            "The painter once said that {np} {scene} would be easy to draw.",
            "Children like to draw {np} {scene} because the form is simple and the colour is bright.",
            "It is not known who was the first to paint {np} {scene}.",
            "The picture of {np} {scene} was sold after the war and has been in the library since then.",
        ),
        joiner=" and ",
        namespaces=("File", "Template", "Category"),
        redirect="#REDIRECT",
        prompts=("a drawing of {np}", "this picture shows {np}", "{np}"),
    ),
    Language(
        code="de",
        sitename="Wikipedia",
        wordnet="",
        encodings=("utf-8", "windows-1252"),
        phrase=_de_phrase,
        names=_de_names,
        verb=("ist", "sind"),
        shapes=_DE_SHAPES,
        colours={k: capital(v) for k, v in _DE_COLOURS.items()},
        scene_titles=_by_key(SCENES, "Nachthimmel / Meer / Tiefschnee / Sommerwiese / Wüste / Wald / Gebirge / Altstadt"),
        scenes=_by_key(
            SCENES,
            "am Nachthimmel / über dem ruhigen Meer / im tiefen Schnee / auf einer Sommerwiese / in der heißen Wüste / im stillen Wald"
            " / vor hohen Bergen / über den Dächern der Altstadt",
        ),
        captions=(
            "{bare} {scene}, mit Wasserfarben gemalt",
            "auf diesem Bild {is} {np} {scene} zu sehen",
            "{bare} {scene}, ein Bild für das Kinderzimmer",
            "hier {is} {np} {scene}",
            "{bare} {scene} als Hintergrund für den Bildschirm",
            "eine Zeichnung: {np} {scene}",
        ),
        sentences=(
            "Auf vielen alten Gemälden {is} {np} {scene} zu sehen.",
            "Im Museum hängt ein Bild, auf dem {np} {scene} mit Bleistift gezeichnet {is}.",
            "Der Maler sagte einmal: {np} {scene}, das sei leicht zu zeichnen.",
            "Für Kinder {is} {np} {scene} ein beliebtes Motiv, weil die Form einfach und die Farbe kräftig ist.",
            "Es ist nicht bekannt, wann zum ersten Mal {np} {scene} gemalt wurde.",
            "So entstand nach dem Krieg ein beliebtes Motiv für Postkarten: {np} {scene}.",
        ),
        joiner=" und ",
        namespaces=("Datei", "Vorlage", "Kategorie"),
        redirect="#WEITERLEITUNG",
        prompts=("eine Zeichnung: {np}", "auf diesem Bild {is} {np} zu sehen", "{bare}"),
    ),
    Language(
        code="fr",
        sitename="Wikipédia",
        wordnet="fra",
        encodings=("utf-8", "windows-1252"),
        phrase=_fr_phrase,
        names=_fr_names,
        verb=("est", "sont"),
        shapes=_FR_SHAPES,
        colours=_FR_COLOURS,
        scene_titles=_by_key(SCENES, "ciel nocturne / mer calme / neige / prairie / désert / forêt / montagne / vieille ville"),
        scenes=_by_key(
            SCENES,
            "dans le ciel de la nuit / au-dessus de la mer calme / dans la neige profonde / dans une prairie d'été / dans le désert chaud"
            " / dans la forêt tranquille / devant de hautes montagnes / au-dessus des toits de la vieille ville",
        ),
        captions=(
            "un dessin avec {np} {scene}",
            "{np} {scene}",
            "on voit {np} {scene}",
            "une image qui montre {np} {scene}",
            "{np} {scene}, peinture à l'aquarelle",
            "voici {np} {scene} pour la chambre des enfants",
        ),
        sentences=(
            "Beaucoup de vieux tableaux montrent {np} {scene}.",
            "Au musée, on peut voir {np} {scene}, un dessin au crayon colorié à la main.",
            "Le peintre aimait montrer {np} {scene}, un dessin facile.",
            "Les enfants aiment dessiner {np} {scene} parce que la forme est simple et la couleur vive.",
            "On ne sait pas qui a peint pour la première fois {np} {scene}.",
            "La carte postale avec {np} {scene} a été vendue après la guerre.",
        ),
        joiner=" et ",
        namespaces=("Fichier", "Modèle", "Catégorie"),
        redirect="#REDIRECTION",
        prompts=("un dessin avec {np}", "on voit {np}", "{np}"),
    ),
    Language(
        code="ja",
        sitename="Wikipedia",
        wordnet="jpn",
        encodings=("utf-8", "shift_jis"),
        phrase=_ja_phrase,
        names=_ja_names,
        verb=("", ""),
        shapes=_JA_SHAPES,
        colours=_by_key(COLOURS, "赤 / 青 / 緑 / 黄色 / 黒 / 灰色 / 紫 / オレンジ色"),
        scene_titles=_by_key(SCENES, "夜空 / 海 / 雪 / 草原 / 砂漠 / 森 / 山 / 町"),
        scenes=_by_key(SCENES, "夜空 / 静かな海の上 / 深い雪の中 / 夏の草原 / 暑い砂漠 / 静かな森の中 / 高い山の前 / 古い町の屋根の上"),
        captions=(
            "{scene}にある{np}の絵",
            "{scene}に{np}が描かれています",
            "これは{scene}の{np}の写真です",
            "子供が描いた{scene}の{np}",
            "{np}と{scene}のイラスト",
            "{scene}にある{np}を描いた絵葉書",
        ),
        sentences=(
            "多くの古い絵に{scene}の{np}が描かれている。",
            "博物館には{scene}にある{np}を鉛筆で描いた絵がある。",
            "画家は{scene}の{np}を描くのは簡単だと言った。",
            "形が簡単で色が明るいので、子供は{scene}の{np}を描くのが好きである。",
            "最初に{scene}の{np}を描いた人は知られていない。",
            "{scene}にある{np}の絵は戦後に売られ、今は図書館にある。",
        ),
        joiner="と",
        namespaces=("ファイル", "Template", "Category"),
        redirect="#転送",
        prompts=("{np}の絵", "{np}が描かれています", "{np}"),
        full_stop="。",
    ),
    Language(
        code="ar",
        sitename="ويكيبيديا",
        wordnet="arb",
        encodings=("utf-8", "windows-1256"),
        phrase=_ar_phrase,
        names=_ar_names,
        verb=("", ""),
        shapes=_AR_SHAPES,
        colours=_AR_COLOURS,
        scene_titles=_by_key(SCENES, "سماء / بحر / ثلج / مرج / صحراء / غابة / جبل / مدينة"),
        scenes=_by_key(
            SCENES,
            "في سماء الليل / فوق البحر الهادئ / في الثلج العميق / في مرج الصيف / في الصحراء الحارة / في الغابة الهادئة"
            " / أمام الجبال العالية / فوق سطوح المدينة القديمة",
        ),
        captions=(
            "صورة {np} {scene}",
            "هذه صورة {np} {scene}",
            "رسم جميل مع {np} {scene}",
            "منظر مع {np} {scene}",
            "لوحة مائية مع {np} {scene} للأطفال",
            "خلفية مجانية مع {np} {scene}",
        ),
        sentences=(
            "في المتحف لوحة قديمة مع {np} {scene}.",
            "قال الرسام إن رسم {np} {scene} أمر سهل.",
            "يحب الأطفال رسم {np} {scene} لأن الشكل بسيط واللون جميل.",
            "لا يعرف أحد من بدأ برسم {np} {scene}.",
            "بيعت صورة {np} {scene} بعد الحرب وهي اليوم في المكتبة.",
            "توجد في الكتب القديمة صورة {np} {scene}.",
        ),
        joiner=" و",
        namespaces=("ملف", "قالب", "تصنيف"),
        redirect="#تحويل",
        prompts=("صورة {np}", "رسم جميل مع {np}", "{np}"),
    ),
    Language(
        code="chr",
        sitename="ᏫᎩᏇᏗᏯ",
        wordnet="",
        encodings=("utf-8",),
        phrase=_chr_phrase,
        names=_chr_names,
        verb=("", ""),
        shapes=_CHR_SHAPES,
        colours=_CHR_COLOURS,
        scene_titles=_by_key(SCENES, "ᏒᏃᏱ / ᎠᎺᏉᎯ / ᎪᎳ / ᏠᎨᏏ / ᏃᏳ / ᎢᎾᎨ / ᎣᏓᎸ / ᎦᏚᎲ"),
        scenes=_by_key(SCENES, "ᏒᏃᏱ ᎦᎸᎶᎢ / ᎠᎺᏉᎯ ᎦᏚᎢ / ᎪᎳ ᎠᎭᏂ / ᎪᎩ ᏠᎨᏏ / ᏃᏳ ᎠᎭᏂ / ᎢᎾᎨ ᎭᏫᏂ / ᎣᏓᎸ ᎾᎿ / ᎦᏚᎲ ᎭᏫᏂ"),
        captions=(
            "ᎯᎠ ᏗᏟᎶᏍᏔᏅ {np} {scene}",
            "{np} {scene}",
            "{np} {scene} ᎣᏍᏓ ᏗᏟᎶᏍᏔᏅ",
            "ᎤᏬᏚ {np} {scene}",
            "ᎠᎭᏂ {np} ᎠᎴ {scene}",
        ),
        sentences=(
            "ᎯᎠ ᏗᏟᎶᏍᏔᏅ {np} {scene} ᎨᏒ.",
            "ᏂᎦᏓ ᏗᏟᎶᏍᏔᏅ {np} ᎠᎴ {scene} ᎤᏬᏚ ᎨᏐ.",
            "ᎠᎦᏴᎵ ᏗᏟᎶᏍᏔᏅ ᎠᎭᏂ, {np} {scene}.",
            "{np} {scene} ᎣᏍᏓ ᎢᎩ.",
            "ᎾᎿ {scene} {np} ᎠᎪᏩᏘᎭ.",
        ),
        joiner=" ᎠᎴ ",
        namespaces=("File", "Template", "Category"),
        redirect="#REDIRECT",
        prompts=("ᎯᎠ ᏗᏟᎶᏍᏔᏅ {np}", "ᎤᏬᏚ {np}", "{np}"),
    ),
)

BY_CODE = {language.code: language for language in LANGUAGES}

#: Captions in languages that the identifier knows and of which there is no dump.
UNBUILT_CAPTIONS = (
    "Una fotografía de la plaza del pueblo durante la fiesta de verano",
    "Vista del puerto con los barcos de pesca al amanecer",
    "Фотография старого моста через реку осенью",
    "Вид на площадь города зимним вечером",
    "Uma fotografia da praia vazia depois da chuva de inverno",
    "Zdjęcie starego kościoła na wzgórzu pod miastem",
)

#: Texts that file names and templates leave in web pages; no entry occurs in them.
JUNK_TEXTS = ("IMG_{n:05d}.jpg", "banner-xl_{n:05d}", "thumb__{n:05d}@2x", "DSC{n:05d}.JPG", "xqzv{n:05d}wk")


def prompts(language: Language, colour: str, shape: str) -> list[str]:
    """Zero-shot prompts of a class: one shape, no scene."""
    subject = Subject(colour=colour, shape=shape, scene=SCENES[0], count=1, size="medium")
    np, bare = language.phrase(subject)
    texts = [prompt.format(**{"np": np, "bare": bare, "is": language.verb[0]}) for prompt in language.prompts]
    return [capital(text) for text in texts]
