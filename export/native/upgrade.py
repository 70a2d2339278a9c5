"""Give a pack that is there already what a newer exporter would have written: native.bin, and whatever follows.

Nothing but the pack is needed, and no torch: the graphs say where each tensor lies in weights.bin.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import onnx
from tokenizers import Tokenizer

from mobilenmt.export.native.file import NATIVE_FILE, native_bytes
from mobilenmt.export.weights import WEIGHTS_FILE
from mobilenmt.export.writer import PackWriter, save_manifest
from mobilenmt.runtime.atomic import atomic_path
from mobilenmt.runtime.errors import EngineError, ExportError, MobileNMTError, PackError
from mobilenmt.runtime.locate import find_pack
from mobilenmt.runtime.manifest import FORMAT_VERSION, Alignment, FileEntry, PackManifest
from mobilenmt.runtime.native.library import NativeModel
from mobilenmt.runtime.pack import Pack


def upgrade(source: str | os.PathLike[str], *, report: Callable[[str], None] = lambda line: None) -> Pack:
    """Write the native.bin of a pack, a folder or a zip, in its place, and let its decoder.onnx tell where it looks;
    pack.json follows, with the format of today.

    Whatever ends this early leaves a pack that opens. A pack that has all already is not touched.

    Raises:
        PackError: there is no such pack, or it is damaged.
        ExportError: it cannot have a native.bin, or cannot be written.
    """
    pack = Pack.open(source)
    reasons: list[str] = []
    native = _native_bytes(pack, pack.manifest, reasons.append)
    if native is None:
        raise ExportError(f"{source} stays as it is: {reasons[-1]}")
    files = {NATIVE_FILE: native}
    if "decoder.onnx" in pack.manifest.files:
        with _reading(pack):
            files["decoder.onnx"] = decoder_that_looks(pack)
    return rewrite(source, pack, pack.manifest, files, report=report)


def set_alignment(
    source: str | os.PathLike[str], alignment: Alignment, *, report: Callable[[str], None] = lambda line: None
) -> Pack:
    """Let a pack name the head that aligns best, for both engines.

    Raises:
        PackError, ExportError: as :func:`upgrade`.
    """
    pack = Pack.open(source)
    manifest = replace(pack.manifest, alignment=alignment)
    native = _native_bytes(pack, manifest)
    return rewrite(source, pack, manifest, {} if native is None else {NATIVE_FILE: native}, report=report)


def _native_bytes(
    pack: Pack, manifest: PackManifest, report: Callable[[str], None] = lambda line: None
) -> bytes | None:
    """As :func:`native_bytes`, for a pack of any origin: hashes that are right do not make its files sound.

    Raises:
        PackError: a file is damaged.
    """
    with _reading(pack):
        check_graphs(pack)
        check_tokenizers(pack)
        native = native_bytes(pack.path, manifest, report=report)
    if native is not None:
        _try(pack, native)
    return native


@contextmanager
def _reading(pack: Pack) -> Iterator[None]:
    """What is no graph, or no tokenizer, of ours, fails in as many ways as there are of being another."""
    try:
        yield
    except (MobileNMTError, OSError, MemoryError):
        raise
    except Exception as error:
        raise PackError(
            f"{pack.path}: damaged: its graphs or its tokenizer are not what an exporter writes "
            f"({type(error).__name__}: {error}); export it again"
        ) from error


def check_graphs(pack: Pack) -> None:
    """Whether all graphs can be read, and what they take from weights.bin lies in it.

    Raises:
        PackError: not so; names the file, and the tensor.
    """
    size = pack.file(WEIGHTS_FILE).stat().st_size
    for name in pack.manifest.files:
        if not name.endswith(".onnx"):
            continue
        path = pack.file(name)
        try:
            graph = onnx.load_model_from_string(path.read_bytes()).graph
        except OSError:
            raise
        except Exception as error:  # protobuf's own
            raise PackError(f"{path}: damaged: no ONNX graph ({error}); export the pack again") from None
        if not graph.node:
            raise PackError(f"{path}: damaged: a graph without a node; export the pack again")
        for tensor in _external(graph):
            where = {entry.key: entry.value for entry in tensor.external_data}
            start, kind = int(where.get("offset", 0)), onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
            end = start + math.prod(tensor.dims) * kind.itemsize
            if not 0 <= start <= end <= size:
                raise PackError(
                    f"{pack.path / WEIGHTS_FILE}: damaged: {size} bytes, but {name} has {tensor.name} at {start} to "
                    f"{end}; export the pack again"
                )


def _external(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """The tensors of a graph, and of those in it, that lie in another file."""
    yield from (tensor for tensor in graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _external(attribute.g)


def check_tokenizers(pack: Pack) -> None:
    """Whether all tokenizers can be read.

    Raises:
        PackError: not so; names the file.
    """
    for name in ("tokenizer.json", "tokenizer.target.json"):
        if name in pack.manifest.files:
            path = pack.file(name)
            try:
                Tokenizer.from_str(path.read_bytes().decode("utf-8"))
            except OSError:
                raise
            except Exception as error:  # the library raises nothing more special
                raise PackError(f"{path}: damaged: no tokenizer ({error}); export the pack again") from None


def _try(pack: Pack, native: bytes) -> None:
    """Open it as the C core will, where there is one: before anything is written."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / NATIVE_FILE).write_bytes(native)
        try:
            (folder / WEIGHTS_FILE).symlink_to(pack.file(WEIGHTS_FILE))
        except OSError:  # Windows allows it to few
            shutil.copyfile(pack.file(WEIGHTS_FILE), folder / WEIGHTS_FILE)
        try:
            NativeModel(folder)
        except PackError as error:
            raise PackError(f"{pack.path}: damaged: the C core refuses what it holds ({error})") from None
        except EngineError:  # it is not compiled here
            pass


def decoder_that_looks(pack: Pack) -> bytes:
    """decoder.onnx with the outputs ``cross_query.N``, which those of format 2.0 keep to themselves."""
    content = pack.file("decoder.onnx").read_bytes()
    model = onnx.load_model_from_string(content)
    graph, width = model.graph, pack.manifest.model.d_model
    for layer in range(pack.manifest.model.decoder_layers):
        name = f"cross_query.{layer}"
        if any(output.name == name for output in graph.output):
            return content
        (old,) = (node.input[0] for node in graph.node if f"cross_key.{layer}" in node.input)
        for node in graph.node:
            for values in (node.input, node.output):
                for place, value in enumerate(values):
                    if value == old:
                        values[place] = name
        graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 1, width]))
    changed: bytes = model.SerializeToString(deterministic=True)
    return changed


def rewrite(
    source: str | os.PathLike[str],
    pack: Pack,
    manifest: PackManifest,
    files: Mapping[str, bytes],
    *,
    report: Callable[[str], None] = lambda line: None,
) -> Pack:
    """Put ``files``, which a pack can do without, and a new manifest into a pack that was opened from ``source``.

    Raises:
        ExportError: it cannot be written.
    """
    entries = dict(pack.manifest.files)
    entries |= {name: FileEntry(len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()}
    format_version = max(pack.manifest.format_version, FORMAT_VERSION)
    complete = replace(manifest, files=dict(sorted(entries.items())), format_version=format_version)
    path = find_pack(source)
    if complete == pack.manifest:
        report(f"{path}: nothing to do")
        return pack
    try:
        _write(path, pack, complete, files)
    except OSError as error:
        raise ExportError(f"{path} cannot be written: {error.strerror or error}") from None
    changed = [name for name in files if pack.manifest.files.get(name) != entries[name]]
    report(f"{path}: format {'.'.join(map(str, format_version))}, {', '.join([*changed, 'pack.json'])} written")
    return Pack.open(path)


def _write(path: Path, pack: Pack, complete: PackManifest, files: Mapping[str, bytes]) -> None:
    if not path.is_dir():
        with PackWriter(path, force=True) as writer:
            for name in complete.files:
                if name in files:
                    writer.path(name).write_bytes(files[name])
                else:
                    shutil.copyfile(pack.file(name), writer.path(name))
            writer.commit(complete)
        return
    # At every moment pack.json tells the truth: it lists no file that is about to be replaced.
    changed = {name: data for name, data in files.items() if pack.manifest.files.get(name) != complete.files[name]}
    if changed.keys() & pack.manifest.files.keys():
        left = {name: entry for name, entry in pack.manifest.files.items() if name not in changed}
        save_manifest(path, pack.manifest.with_files(left))
    for name, data in changed.items():
        with atomic_path(path / name, hidden=True) as temporary:
            temporary.write_bytes(data)
    save_manifest(path, complete)
