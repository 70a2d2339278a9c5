"""What script/wheels builds for other systems: of the right kind, small, and asking for no more than there is."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from native import NATIVE, compile_c, compiler
from native_core import SOURCES, Core
from native_files import Made
from places import ROOT

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ziglang") is None, reason="ziglang is not installed")
slow = pytest.mark.slow  # all but one library, which every run builds and loads

PROGRAMS = Path(__file__).parent
INTERFACE = set(
    re.findall(r"^MN_API .*\b(mn_\w+)\(", (NATIVE / "mobilenmt.h").read_text(encoding="utf-8"), re.MULTILINE)
)
# In libc.so or libm.so of every Android since 5.0 (API level 21): bionic's libc.map.txt names no later one.
BIONIC = {
    *("__errno", "calloc", "clock_gettime", "close", "free", "fstat", "getauxval", "madvise", "malloc", "memchr"),
    *("memcmp", "memcpy", "memmove", "memset", "mmap", "munmap", "open", "realloc", "snprintf", "sqrtf", "strcmp"),
    *("strerror", "strlen", "vsnprintf"),
}
ANDROID = {
    "android-arm64-v8a": "AArch64",
    "android-armeabi-v7a": "ARM",
    "android-x86_64": "Advanced Micro Devices X86-64",
}
LINUX = {"linux-x86_64": "x86_64", "musl-x86_64": "x86_64", "linux-aarch64": "aarch64", "musl-aarch64": "aarch64"}
APPLE = {
    "macos-x86_64": (0x01000007, 1),
    "macos-arm64": (0x0100000C, 1),
    "ios": (0x0100000C, 2),
    "ios-simulator-arm64": (0x0100000C, 7),
    "ios-simulator-x86_64": (0x01000007, 7),
}  # processor and platform, by Mach-O's numbers


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """script/wheels.py, which builds into a folder of its own."""
    spec = importlib.util.spec_from_file_location("wheels", ROOT / "script" / "wheels.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["wheels"] = module  # where its dataclass looks itself up
    spec.loader.exec_module(module)
    module.DIST, module.BUILD = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("build")
    return module


@pytest.fixture(scope="session")
def built(wheels: ModuleType) -> Callable[[str], Path]:
    """The library of a target, built once."""
    made: dict[str, Path] = {}

    def build(name: str) -> Path:
        if name not in made:
            target = wheels.TARGETS[name]
            if target.wheel is None:
                made[name] = wheels.DIST / wheels.build_library(target)[0]
            else:
                with zipfile.ZipFile(wheels.DIST / wheels.build_wheel(name, target)[0]) as archive:
                    (entry,) = (entry for entry in archive.namelist() if "/native/_native." in entry)
                    assert "mobilenmt/runtime/native/library.py" in archive.namelist()
                    made[name] = Path(archive.extract(entry, wheels.DIST / name))
        return made[name]

    return build


def read(tool: str, *arguments: object) -> str:
    """What a tool says of a file; skips where there is none."""
    found = shutil.which(tool) or next(filter(None, (shutil.which(f"{tool}-{n}") for n in range(22, 12, -1))), None)
    if found is None:
        pytest.skip(f"there is no {tool} here")
    return subprocess.run([found, *map(str, arguments)], capture_output=True, text=True, check=True).stdout


def needed(library: Path) -> set[str]:
    return set(re.findall(r"\(NEEDED\).*\[(.*)\]", read("readelf", "-dW", library)))


def symbols(library: Path) -> tuple[set[str], set[str]]:
    """Names an ELF library exports, and names it needs with their versions."""
    rows = [line.split() for line in read("readelf", "--dyn-syms", "-W", library).splitlines()]
    named = [row for row in rows if len(row) >= 8 and row[0].rstrip(":").isdigit()]
    return {row[7] for row in named if row[6] != "UND"}, {row[7] for row in named if row[6] == "UND"}


def translate(library: Path, folder: Path) -> list[object]:
    core = Core(library)
    return [core.open(folder, name).translate([[4, 5, 0], [7, 0]], beam_size=2, n_best=2) for name in core.kernels]


def test_every_target_is_built_or_named(wheels: ModuleType) -> None:
    assert {*ANDROID, *LINUX, *APPLE, "windows-amd64", "wasm", "wasm-relaxed"} == set(wheels.TARGETS)


@slow
@pytest.mark.parametrize("name", ANDROID)
def test_android_finds_all_it_needs_in_libc_and_pages_may_have_16_kb(
    name: str, built: Callable[[str], Path], wheels: ModuleType
) -> None:
    library = built(name)
    assert re.search(r"Machine: *(.*)", read("readelf", "-h", library))[1] == ANDROID[name]  # type: ignore[index]
    exported, asked = symbols(library)
    assert exported == INTERFACE
    assert asked <= BIONIC
    assert needed(library) <= {"libc.so", "libm.so"}
    alignments = [int(line.split()[-1], 16) for line in read("readelf", "-lW", library).splitlines() if "LOAD" in line]
    assert alignments and min(alignments) >= 16384
    assert library.stat().st_size <= wheels.MOST_BYTES
    if name == "android-armeabi-v7a":  # calls pass floats in integer registers there
        assert "Tag_ABI_VFP_args" not in read("readelf", "-A", library)


@slow
@pytest.mark.parametrize("name", LINUX)
def test_linux_asks_for_no_glibc_after_2_17_and_musl_for_none(
    name: str, built: Callable[[str], Path], wheels: ModuleType
) -> None:
    library = built(name)
    exported, asked = symbols(library)
    assert exported >= INTERFACE
    assert not {symbol for symbol in exported - INTERFACE if symbol.startswith("mn_")}
    versions = {tuple(map(int, version.split("."))) for version in re.findall(r"@GLIBC_([\d.]+)", " ".join(asked))}
    if name.startswith("linux"):
        assert versions and max(versions) <= (2, 17)
        assert needed(library) <= {"libc.so.6", "libm.so.6", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
    else:
        assert not versions
        assert needed(library) == {"libc.so"}
    assert library.stat().st_size <= wheels.MOST_BYTES


@pytest.mark.skipif(platform.machine() != "x86_64" or sys.platform != "linux", reason="no x86-64 Linux")
@pytest.mark.skipif(compiler() is None, reason="there is no C compiler here")
@pytest.mark.parametrize(
    "name", ["linux-x86_64", *(pytest.param(name, marks=slow) for name in ("musl-x86_64", "android-x86_64"))]
)
def test_libraries_for_this_processor_work_here(
    name: str, built: Callable[[str], Path], core_library: Path, tmp_path: Path
) -> None:
    for file, content in zip(("native.bin", "weights.bin"), Made().files(), strict=True):
        (tmp_path / file).write_bytes(content)
    if name != "linux-x86_64":  # the names of another libc, over this one
        source = tmp_path / "libc.c"
        source.write_text(
            "#include <errno.h>\nint *__errno(void);\nint *__errno(void) { return &errno; }\n", encoding="utf-8"
        )
        flags = ("-shared", "-fPIC", "-Wl,-soname,libc.so")
        ctypes.CDLL(str(compile_c(tmp_path / "libc.so", source, flags=flags)), mode=ctypes.RTLD_GLOBAL)
    assert translate(built(name), tmp_path) == translate(core_library, tmp_path)


@slow
@pytest.mark.parametrize("name", APPLE)
def test_apple_gets_its_processor_its_platform_and_the_interface(
    name: str, built: Callable[[str], Path], wheels: ModuleType
) -> None:
    library = built(name)
    processor, system = APPLE[name]
    if library.suffix == ".a":
        members = wheels.BUILD / wheels.TARGETS[name].triple
        files = sorted(members.glob("*.o"))
        assert len(files) == len(wheels.SOURCES)
        assert {path.name for path in files} == set(read("llvm-ar", "t", library).split())
        listed = read("llvm-nm", "--defined-only", "--extern-only", "--format=just-symbols", library).split()
        assert {f"_{symbol}" for symbol in INTERFACE} <= set(listed)
    else:
        files = [library]
        trie = read("llvm-objdump", "--macho", "--exports-trie", library)
        assert {line.split()[-1].removeprefix("_") for line in trie.splitlines() if "_mn_" in line} == INTERFACE
        linked = read("llvm-objdump", "--macho", "--dylibs-used", library)
        names = set(re.findall(r"^\t(\S+)", linked, re.MULTILINE))
        assert names == {"@rpath/_native.dylib", "/usr/lib/libSystem.B.dylib"}
        assert library.stat().st_size <= wheels.MOST_BYTES
    for file in files:
        data = file.read_bytes()
        assert data[:4] == b"\xcf\xfa\xed\xfe"
        assert int.from_bytes(data[4:8], "little") == processor
        assert build_platform(data) == system


def build_platform(data: bytes) -> int:
    """The platform of a Mach-O file's LC_BUILD_VERSION."""

    def word(at: int) -> int:
        return int.from_bytes(data[at : at + 4], "little")

    at = 32
    for _ in range(word(16)):
        if word(at) == 0x32:
            return word(at + 8)
        at += word(at + 4)
    raise AssertionError("no LC_BUILD_VERSION")


@slow
@pytest.mark.skipif(compiler() is None, reason="there is no C compiler here")
@pytest.mark.parametrize("name", ["wasm", "wasm-relaxed"])
def test_webassembly_translates_from_memory_with_the_bits_of_this_machine(
    name: str, built: Callable[[str], Path], wheels: ModuleType, tmp_path: Path
) -> None:
    version = int(read("node", "--version")[1:].partition(".")[0])
    flags = ["--experimental-wasm-relaxed-simd", "--no-liftoff"] if name == "wasm-relaxed" and version < 22 else []
    module = built(name)
    assert wheels.compress(module.read_bytes())["gzip"] <= wheels.MOST_COMPRESSED
    for file, content in zip(
        ("native.bin", "weights.bin"), Made(source=40, target=90, positions=50).files(), strict=True
    ):
        (tmp_path / file).write_bytes(content)
    here = compile_c(tmp_path / "dump", PROGRAMS / "dump.c", *SOURCES, flags=("-O2", "-ffp-contract=off"))
    sentences = "0\n5 0\n4 39 7 12 0\n"

    def run(*command: object) -> str:
        words = list(map(str, command))
        return subprocess.run(words, input=sentences, capture_output=True, text=True, check=True).stdout

    script = ["node", *flags, PROGRAMS / "memory.mjs", module, tmp_path]
    kernels = run(*script, "?", 1).split()
    assert kernels == [*(["wasm-relaxed"] if name == "wasm-relaxed" else []), "wasm", "scalar"]
    for beams in (1, 3):
        wanted = run(here, tmp_path, "-", beams)
        assert len(wanted.splitlines()) == 3 * beams
        for kernel in kernels:
            assert run(*script, kernel, beams) == wanted


@slow
def test_windows_gets_a_library_that_exports_the_interface(built: Callable[[str], Path], wheels: ModuleType) -> None:
    library = built("windows-amd64")
    assert library.name == "_native.dll"
    listed = read("llvm-readobj", "--coff-exports", library)
    assert set(re.findall(r"Name: (mn_\w+)", listed)) == INTERFACE
    imported = set(re.findall(r"Name: (\S+\.dll)", read("llvm-readobj", "--coff-imports", library), re.IGNORECASE))
    parts = ("heap", "private", "stdio", "string")
    assert imported == {"KERNEL32.dll", *(f"api-ms-win-crt-{part}-l1-1-0.dll" for part in parts)}
    assert library.stat().st_size <= wheels.MOST_BYTES


@slow
@pytest.mark.skipif(compiler() is None, reason="there is no C compiler here")
def test_the_library_for_windows_translates_under_wine_with_the_bits_of_this_machine(
    built: Callable[[str], Path], tmp_path: Path
) -> None:
    wine = shutil.which("wine64") or shutil.which("/usr/lib/wine/wine64")
    if wine is None:
        pytest.skip("there is no Wine here")
    shutil.copy(built("windows-amd64"), tmp_path)
    names = tmp_path / "_native.def"
    names.write_text("\n".join(["LIBRARY _native.dll", "EXPORTS", *sorted(INTERFACE), ""]), encoding="utf-8")
    zig = [sys.executable, "-m", "ziglang"]
    imports = tmp_path / "_native.lib"
    subprocess.run([*zig, "dlltool", "-m", "i386:x86-64", "-d", names, "-l", imports], check=True)
    program = tmp_path / "dump.exe"
    build = [*zig, "cc", "-target", "x86_64-windows-gnu", f"-I{NATIVE}", "-o", program, PROGRAMS / "dump.c", imports]
    subprocess.run(list(map(str, build)), check=True)
    here = compile_c(tmp_path / "dump", PROGRAMS / "dump.c", *SOURCES, flags=("-O2", "-ffp-contract=off"))
    for file, content in zip(("native.bin", "weights.bin"), Made(positions=50).files(), strict=True):
        (tmp_path / file).write_bytes(content)
    environment = os.environ | {"WINEDEBUG": "-all"}

    def run(*command: object) -> subprocess.CompletedProcess[str]:
        words = list(map(str, command))
        sentences = "0\n5 0\n4 7 12 0\n"
        return subprocess.run(words, input=sentences, capture_output=True, text=True, check=False, env=environment)

    kernels = run(wine, program, "-", "?", 1).stdout.split()
    assert kernels[-1] == "scalar"
    for kernel in kernels:
        wanted, found = run(here, tmp_path, "-", 3), run(wine, program, tmp_path, kernel, 3)
        assert len(wanted.stdout.splitlines()) == 9
        assert found.stdout.splitlines() == wanted.stdout.splitlines(), kernel
    missing = run(wine, program, tmp_path / "no pack", "-", 3)  # a message, by the system's own printf
    assert missing.returncode == 1
    assert missing.stderr.strip().endswith("no pack/native.bin: it cannot be opened")
