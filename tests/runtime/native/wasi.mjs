// Runs a WASI program with the whole file system: node wasi.mjs PROGRAM [ARGUMENT...]
import { readFile } from "node:fs/promises";
import { argv } from "node:process";
import { WASI } from "node:wasi";

const wasi = new WASI({ version: "preview1", args: argv.slice(2), preopens: { "/": "/" } });
// Node 20 lets WebAssembly call its own functions directly, by V8's fast calls. Where the collector of garbage then runs in
// the midst of WebAssembly, which it does after some eight seconds, it moves objects that the caller still points to, and
// Node dies when the program returns (SIGSEGV; not with --no-turbo-fast-api-calls or --no-incremental-marking). Functions of
// JavaScript around them are called in the ordinary way.
const calls = Object.entries(wasi.getImportObject().wasi_snapshot_preview1);
const wrapped = Object.fromEntries(calls.map(([name, call]) => [name, (...given) => call(...given)]));
const module = await WebAssembly.compile(await readFile(argv[2]));
const instance = await WebAssembly.instantiate(module, { wasi_snapshot_preview1: wrapped });
process.exitCode = wasi.start(instance);
