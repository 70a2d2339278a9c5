// Runs a WASI program with the whole file system: node wasi.mjs PROGRAM [ARGUMENT...]
import { readFile } from "node:fs/promises";
import { argv } from "node:process";
import { WASI } from "node:wasi";

const wasi = new WASI({ version: "preview1", args: argv.slice(2), preopens: { "/": "/" } });
// WebAssembly calls Node's own functions directly, by V8's fast calls, in which no garbage may be collected. They allocate
// memory, so that it is, once incremental marking has begun (after some eight seconds): objects move, and Node dies when the
// program returns (SIGSEGV; nodejs/node#46777, Node 20 and 22). Functions of JavaScript are called in the ordinary way.
const calls = Object.entries(wasi.getImportObject().wasi_snapshot_preview1);
const wrapped = Object.fromEntries(calls.map(([name, call]) => [name, (...given) => call(...given)]));
const module = await WebAssembly.compile(await readFile(argv[2]));
const instance = await WebAssembly.instantiate(module, { wasi_snapshot_preview1: wrapped });
process.exitCode = wasi.start(instance);
