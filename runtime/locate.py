"""Where packs and the cache lie: names to paths. Reads the environment anew on every call, changes nothing.

A pack can be a Python package of its own, which says so by an entry point of the group ``mobilenmt.packs``: its name is
the pack's, its value the package whose folder, or the folder ``pack`` in it, is the pack.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from mobilenmt.runtime.checks import shown
from mobilenmt.runtime.errors import InputError, PackError, PackNotFoundError
from mobilenmt.runtime.manifest import MANIFEST_NAME

GROUP = "mobilenmt.packs"
"""The entry point group of packs that are installed as Python packages."""

_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL}


def find_pack(name_or_path: str | os.PathLike[str]) -> Path:
    """Return the absolute path of a pack: a folder or a zip file. The first of these that exists:

    1. the path itself (a bare name counts as a path only if it is a folder with a pack.json, or a zip file);
    2. NAME or NAME.zip in each folder of ``$MOBILENMT_PACKS`` (separated by ``os.pathsep``);
    3. in a checkout of mobilenmt, NAME or NAME.zip in its folder models;
    4. NAME or NAME.zip in ``$XDG_DATA_HOME/mobilenmt/packs`` (``~/.local/share/mobilenmt/packs``);
    5. the installed Python package that offers NAME in the entry point group ``mobilenmt.packs``. One in a zip (a
       zipapp) is the zip itself where it is the only pack in there.

    The content is not looked at here.

    Raises:
        PackNotFoundError: there is none; tells where it looked, what there is and how to get a pack.
        PackError: a path that exists but is no pack or may not be read, or a Python package without its pack.
        InputError: what is given is neither text nor a path.
    """
    try:
        given = os.fsdecode(os.fspath(name_or_path))
    except TypeError:
        raise InputError(f"a pack is given by name or path, not by {shown(name_or_path)}") from None
    if not given:
        raise InputError("a pack is given by name or path, not by an empty string")
    bare = given not in (".", "..") and not any(sep in given for sep in (os.sep, os.altsep) if sep)
    path = Path(given).absolute() if "\0" not in given else None
    exists = path is not None and _exists(path)
    if path is not None and exists and (not bare or _looks_like_pack(path)):
        return path
    folders = list(search_folders())
    if bare and "\0" not in given:
        for folder in folders:
            for candidate in (folder / given, folder / f"{given}.zip"):
                if _looks_like_pack(candidate):
                    return candidate
        package = _package_of(given)
        if package:
            return pack_in(given, package)
    if exists:
        raise PackError(f"{path} is no pack: neither a folder with a pack.json nor a zip file")
    raise PackNotFoundError(_not_found(given, bare, folders))


def search_folders() -> Iterator[Path]:
    """The folders in which a name is looked up, in order; they need not exist."""
    for folder in os.environ.get("MOBILENMT_PACKS", "").split(os.pathsep):
        if folder:
            yield Path(folder).absolute()
    # Only a checkout has it (src/mobilenmt/models is a link there): a wheel leaves packs to distributions of their own.
    models = Path(__file__).absolute().parent.parent / "models"
    if models.is_dir():
        yield models
    data = _base_folder("XDG_DATA_HOME", "~/.local/share")
    if data is not None:
        yield data / "mobilenmt" / "packs"


def cache_folder() -> Path:
    """Where zips are unpacked: ``$MOBILENMT_CACHE``, or ``$XDG_CACHE_HOME/mobilenmt`` (``~/.cache/mobilenmt``).

    Raises:
        PackError: neither is set, and there is no home folder.
    """
    chosen = os.environ.get("MOBILENMT_CACHE")
    if chosen:
        return Path(chosen).absolute()
    cache = _base_folder("XDG_CACHE_HOME", "~/.cache")
    if cache is None:
        raise PackError("there is no home folder to unpack a zip into; set MOBILENMT_CACHE to a folder")
    return cache / "mobilenmt"


def installed_packs() -> list[str]:
    """Names that :func:`find_pack` resolves, sorted; packs in the working folder are not among them."""
    names: set[str] = set()
    for folder in search_folders():
        try:
            entries = list(folder.iterdir())
        except OSError:
            continue
        # hidden ones are the temporary folders of an export
        found = (entry for entry in entries if not entry.name.startswith(".") and _looks_like_pack(entry))
        names.update(entry.name.removesuffix(".zip") for entry in found)
    return sorted(names.union(_entry_points()))


def _package_of(name: str) -> str | None:
    """The package that offers a pack. importlib.metadata takes tens of ms to import, reading the files takes one."""
    for folder in sys.path:
        try:
            with os.scandir(folder or ".") as entries:
                about = sorted(entry.path for entry in entries if entry.name.endswith((".dist-info", ".egg-info")))
        except OSError:  # not there, or a zip
            continue
        for path in about:
            try:
                text = Path(path, "entry_points.txt").read_text("utf-8")
            except (OSError, ValueError):
                continue
            found = _declared(text).get(name) if GROUP in text else None
            if found:
                return found
    return _entry_points().get(name)  # zips, and importers of other kinds


def _declared(text: str) -> dict[str, str]:
    """What an entry_points.txt says of packs: name -> package."""
    found: dict[str, str] = {}
    section = ""
    for line in map(str.strip, text.splitlines()):
        name, equals, value = (part.strip() for part in line.partition("="))
        if line.startswith("["):
            section = line.strip("[] ")
        elif section == GROUP and equals and value and not line.startswith(("#", ";")):
            found[name] = value
    return found


def _entry_points() -> dict[str, str]:
    from importlib.metadata import distributions

    found: dict[str, str] = {}
    for distribution in distributions():
        try:
            entries = distribution.entry_points.select(group=GROUP)
        except Exception:  # whatever is wrong with another package's files
            continue
        for entry in entries:
            if entry.value:
                found.setdefault(entry.name, entry.value)  # the first on the path wins, as in an import
    return found


def pack_in(name: str, package: str) -> Path:
    """Return the pack of an installed package: its folder, the folder ``pack`` in it, or the zip it was imported from.

    Raises:
        PackError: there is none, or one that nothing can read where it lies.
    """
    try:
        module = importlib.import_module(package)
    except (Exception, SystemExit) as error:  # whatever a package raises, it is this pack that cannot be had
        raise PackError(
            f"the pack {shown(name)} is in the Python package {shown(package)}, which cannot be imported "
            f"({error}); install it again"
        ) from None
    folders = [Path(folder).absolute() for folder in getattr(module, "__path__", ())]
    for folder in folders:
        for candidate in (folder, folder / "pack"):
            if _looks_like_pack(candidate):
                return candidate
        archive = next((parent for parent in folder.parents if _is_file(parent)), None)
        if archive is not None:
            if _only_pack(archive, folder):
                return archive
            raise PackError(
                f"the pack {shown(name)} lies inside {archive}, and its files must lie on the disk: "
                f"unpack {folder.relative_to(archive).as_posix()} into a folder named {name}, "
                "and set MOBILENMT_PACKS to the folder around that"
            )
    raise PackError(
        f"the pack {shown(name)} should be in the Python package {shown(package)}, which holds none "
        f"(looked in {', '.join(map(str, folders)) or 'a module without a folder'}); install it again"
    )


def _only_pack(archive: Path, folder: Path) -> bool:
    """Whether the cache can unpack this folder of a zip: it takes a zip with one pack, at its top."""
    import zipfile

    try:
        with zipfile.ZipFile(archive) as opened:
            names = opened.namelist()
    except (OSError, zipfile.BadZipFile):
        return False
    packs = [entry for entry in names if entry.endswith(MANIFEST_NAME) and entry.count("/") < 2]
    return packs == [f"{folder.relative_to(archive).as_posix()}/{MANIFEST_NAME}"]


def _base_folder(variable: str, default: str) -> Path | None:
    chosen = Path(os.environ.get(variable, ""))
    if chosen.is_absolute():  # the XDG specification: a relative path is to be ignored
        return chosen
    try:
        return Path(default).expanduser()
    except RuntimeError:  # no home folder
        return None


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except OSError as error:
        if error.errno in _ABSENT:
            return False
        raise PackError(f"{path} cannot be read: {error.strerror}") from None
    return True


def _looks_like_pack(path: Path) -> bool:
    return _is_file(path / MANIFEST_NAME) or (path.suffix == ".zip" and _is_file(path))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long, a folder that may not be read
        return False


def _not_found(given: str, bare: bool, folders: list[Path]) -> str:
    if not bare:
        return f"there is no pack at {shown(given)}: no such file or folder"
    looked = ", ".join(str(folder) for folder in (Path.cwd(), *folders))
    names = ", ".join(installed_packs()) or "none"
    return (
        f"there is no pack named {shown(given)}; looked in {looked} and the installed packages; "
        f"names that exist: {names}. To get one: in a checkout of mobilenmt, pip install ./models/en-de for "
        "English-German, or make a pack with mobilenmt export; "
        "then give its path, or set MOBILENMT_PACKS to the folder it lies in"
    )
