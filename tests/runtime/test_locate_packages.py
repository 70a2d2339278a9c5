"""Packs that are Python packages of their own: found by entry points, cheaply; each failure says what to do."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mobilenmt.runtime import locate
from mobilenmt.runtime.errors import PackError, PackNotFoundError
from mobilenmt.runtime.locate import find_pack, installed_packs
from mobilenmt.runtime.pack import Pack
from places import SRC
from small_packs import make_folder


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Cache, data, working folder and installed packages of each test are its own."""
    monkeypatch.setenv("MOBILENMT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("MOBILENMT_PACKS", raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    (tmp_path / "site").mkdir()
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path / "site")
    yield
    for name in set(sys.modules) - before:  # the next test has packages of the same names elsewhere
        if name.startswith("pack_of"):
            del sys.modules[name]


def declare(site: Path, name: str, entry_points: str, kind: str = "dist-info") -> Path:
    """What pip writes about a distribution."""
    about = site / f"{name.replace('-', '_')}-1.0.{kind}"
    about.mkdir(parents=True)
    metadata = f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n"
    (about / ("METADATA" if kind == "dist-info" else "PKG-INFO")).write_text(metadata)
    (about / "entry_points.txt").write_text(entry_points)
    return about


def install(site: Path, package: str = "pack_of_xx_yy", *, inside: str = "", init: bool = True) -> Path:
    """A pack as a package that offers xx-yy; the pack's folder."""
    declare(site, "mobilenmt-pack-xx-yy", f"[mobilenmt.packs]\nxx-yy = {package}\n")
    pack = make_folder(site.joinpath(*package.split("."), inside))
    if init:
        site.joinpath(*package.split("."), "__init__.py").write_text("")
    return pack


def zipped(site: Path, target: Path) -> Path:
    """Everything in a folder as one zip, as `python -m zipapp` makes it."""
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(site.rglob("*")):
            archive.write(path, path.relative_to(site).as_posix())
    return target


# ---- found


@pytest.mark.parametrize("inside", ["", "pack"])
@pytest.mark.parametrize("init", [True, False])
@pytest.mark.parametrize("package", ["pack_of_xx_yy", "pack_of_all.xx_yy"])
def test_package_is_found_by_its_entry_point(tmp_path: Path, package: str, inside: str, init: bool) -> None:
    pack = install(tmp_path / "site", package, inside=inside, init=init)
    assert find_pack("xx-yy") == pack
    assert Pack.open("xx-yy").path == pack
    assert "xx-yy" in installed_packs()


@pytest.mark.parametrize("kind", ["dist-info", "egg-info"])
def test_other_groups_and_comments_offer_no_pack(tmp_path: Path, kind: str) -> None:
    text = (
        "[console_scripts]\nmobilenmt.packs = nothing:main\naa-bb = nothing:main\n\n"
        "[mobilenmt.packs]\n# cc-dd = nothing\n; ee-ff = nothing\nxx-yy = pack_of_xx_yy\n\n[other]\ngg-hh = nothing\n"
    )
    pack = make_folder(tmp_path / "site" / "pack_of_xx_yy")
    declare(tmp_path / "site", "several", text, kind)
    assert find_pack("xx-yy") == pack
    for name in ("aa-bb", "cc-dd", "ee-ff", "gg-hh", "mobilenmt.packs"):
        with pytest.raises(PackNotFoundError):
            find_pack(name)


def test_folders_come_before_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So whoever has a pack of that name keeps it, and pays for no search."""
    installed = install(tmp_path / "site")
    assert find_pack("xx-yy") == installed
    data = make_folder(tmp_path / "data" / "mobilenmt" / "packs" / "xx-yy")
    assert find_pack("xx-yy") == data
    monkeypatch.setenv("MOBILENMT_PACKS", str(tmp_path / "mine"))
    mine = make_folder(tmp_path / "mine" / "xx-yy")
    assert find_pack("xx-yy") == mine
    here = make_folder(Path("xx-yy").absolute())
    assert find_pack("xx-yy") == here


def test_first_on_the_path_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "site")
    other = install(tmp_path / "other", "pack_of_other")
    monkeypatch.syspath_prepend(tmp_path / "other")
    assert find_pack("xx-yy") == other


def test_checkout_has_its_pack_wherever_it_is_on_the_path() -> None:
    assert find_pack("en-de").samefile(SRC.parent / "models" / "en-de")


def test_search_reads_files_instead_of_loading_importlib_metadata(tmp_path: Path) -> None:
    """That takes tens of ms, a tenth of a cold start."""
    pack = install(tmp_path / "site")
    code = (
        f"import sys; sys.path[:0] = [{str(SRC)!r}, {str(tmp_path / 'site')!r}]\n"
        "from mobilenmt.runtime.locate import find_pack\nprint(find_pack('xx-yy'), 'importlib.metadata' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == f"{pack} False\n", done.stderr


def test_path_with_things_that_are_no_folders_is_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = install(tmp_path / "site")
    (tmp_path / "file").write_text("x")
    broken = tmp_path / "broken" / "a-1.0.dist-info"
    broken.mkdir(parents=True)
    (broken / "entry_points.txt").write_bytes(b"[mobilenmt.packs]\nxx-yy = \xff\n")
    for entry in ("", str(tmp_path / "file"), str(tmp_path / "none"), str(tmp_path / "broken")):
        monkeypatch.syspath_prepend(entry)
    assert find_pack("xx-yy") == pack


# ---- not found


def test_unknown_name_says_how_to_get_a_pack() -> None:
    with pytest.raises(PackNotFoundError) as caught:
        find_pack("qq-zz")
    message = str(caught.value)
    assert "pip install ./models/en-de" in message and "mobilenmt export" in message
    assert "mobilenmt-pack" not in message, "no index has one"
    assert "path" in message and "MOBILENMT_PACKS" in message
    assert "\n" not in message


@pytest.mark.parametrize("code", ["import no_such_module", "raise RuntimeError('broken')", "]", "raise SystemExit(7)"])
def test_package_that_cannot_be_imported_is_a_pack_error(tmp_path: Path, code: str) -> None:
    (install(tmp_path / "site") / "__init__.py").write_text(code)
    with pytest.raises(PackError, match=r'"xx-yy".*pack_of_xx_yy.*cannot be imported.*install it again'):
        find_pack("xx-yy")


def test_package_without_its_pack_is_a_pack_error(tmp_path: Path) -> None:
    (install(tmp_path / "site") / "pack.json").unlink()
    with pytest.raises(PackError, match=r'"xx-yy".*pack_of_xx_yy.*holds none.*install it again'):
        find_pack("xx-yy")


def test_module_without_a_folder_is_a_pack_error(tmp_path: Path) -> None:
    (tmp_path / "site" / "pack_of_module.py").write_text("")
    declare(tmp_path / "site", "module", "[mobilenmt.packs]\nxx-yy = pack_of_module\n")
    with pytest.raises(PackError, match="a module without a folder"):
        find_pack("xx-yy")


# ---- in a zip: the weights are mapped into memory, so they must lie on the disk


@pytest.mark.parametrize("init", [True, False])
def test_only_pack_of_a_zipapp_is_unpacked_into_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, init: bool
) -> None:
    install(tmp_path / "app", init=init)
    archive = zipped(tmp_path / "app", tmp_path / "app.pyz")
    monkeypatch.syspath_prepend(archive)
    assert find_pack("xx-yy") == archive
    opened = Pack.open("xx-yy")
    assert opened.path.parent == tmp_path / "cache" / "packs"
    opened.check()
    assert "xx-yy" in installed_packs()


def test_one_of_several_packs_in_a_zipapp_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "app")
    make_folder(tmp_path / "app" / "pack_of_aa_bb")
    monkeypatch.syspath_prepend(zipped(tmp_path / "app", tmp_path / "app.pyz"))
    with pytest.raises(PackError, match=r"xx-yy.*app\.pyz.*unpack pack_of_xx_yy into .*MOBILENMT_PACKS"):
        find_pack("xx-yy")


def test_pack_deep_in_a_zipapp_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "app", inside="pack")
    monkeypatch.syspath_prepend(zipped(tmp_path / "app", tmp_path / "app.pyz"))
    with pytest.raises(PackError, match=r"MOBILENMT_PACKS"):
        find_pack("xx-yy")


def test_what_an_entry_points_file_says_is_what_importlib_reads(tmp_path: Path) -> None:
    install(tmp_path / "site")
    text = (tmp_path / "site" / "mobilenmt_pack_xx_yy-1.0.dist-info" / "entry_points.txt").read_text()
    assert locate._entry_points()["xx-yy"] == locate._declared(text)["xx-yy"]


def test_other_packages_that_are_broken_hide_no_pack(tmp_path: Path) -> None:
    site = tmp_path / "site"
    declare(site, "no-equals", "[mobilenmt.packs]\nnothing here\n")
    declare(site, "no-value", "[mobilenmt.packs]\nzz =\n")
    (declare(site, "no-text", "") / "entry_points.txt").write_bytes(b"[mobilenmt.packs]\n\xff = \xfe\n")
    loop = declare(site, "no-file", "") / "entry_points.txt"
    loop.unlink()
    loop.symlink_to(loop.name)
    install(site)
    assert "xx-yy" in installed_packs() and "zz" not in installed_packs()
    for name in ("zz", "qq"):
        with pytest.raises(PackNotFoundError, match=r"names that exist: .*xx-yy"):
            find_pack(name)
